//! `chronik doctor`: what a start would find, without starting: the machine, the settings, and what lies
//! in the data directories.
//!
//! Runs on the main thread; the directories are looked at on an executor of its own, with the very
//! checks of a start. Never writes anything, and takes no lock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use chronik_io::preflight::{DirectoryLock, Verdict};
use chronik_io::{ExecutorOptions, ShardSeat};
use chronik_protocol::Str;
use chronik_shards::{LastWriter, Survey, SurveyOptions};

use crate::Failure;
use crate::broker::{self, LOCK_FILE};
use crate::config::Config;

/// Prints what was found.
///
/// # Errors
/// When something stands in the way of a start, or when it cannot be printed.
pub(crate) fn examine(config: &Config) -> Result<(), Failure> {
    let mut found = Vec::new();
    let verdict = look(config, &mut found);
    let printed = crate::print(&found);
    verdict.and(printed)
}

/// Writes what was found to `out`.
fn look(config: &Config, out: &mut Vec<u8>) -> Result<(), Failure> {
    let mut print = |line: String| {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    };
    for warning in &config.warnings {
        print(format!("warning  {warning}"));
    }
    let findings = broker::findings(config, false);
    let mut refused = 0;
    for finding in &findings {
        let word = match finding.verdict {
            Verdict::Fine => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Refused => "refused",
        };
        refused += usize::from(finding.verdict == Verdict::Refused);
        print(format!("{word}  {}: {}", finding.subject, finding.sentence));
    }
    let is_sound = |dir: &Path| {
        let subject = dir.display().to_string();
        let mut of_dir = findings.iter().filter(|finding| finding.subject == subject);
        of_dir.all(|finding| finding.verdict != Verdict::Refused)
    };
    let mut is_in_use = false;
    for dir in [&config.data_dir].into_iter().chain(&config.more_data_dirs) {
        let path = dir.join(LOCK_FILE);
        match DirectoryLock::check_free(&path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                is_in_use = true;
                refused += 1;
                print(format!("refused  {error}"));
            }
            Err(error) if *dir == config.data_dir && is_sound(dir) => {
                refused += 1;
                print(format!("refused  {}: {error}", path.display()));
            }
            // A start says so and goes on; of what is no directory enough was said.
            Err(error) if is_sound(dir) => print(format!("warning  {}: {error}", path.display())),
            _ => {}
        }
    }
    let ring = findings
        .iter()
        .find(|finding| finding.subject == "io_uring");
    if ring.is_some_and(|finding| finding.verdict == Verdict::Refused) {
        print("warning  the directories were not looked into: that takes io_uring".to_owned());
        return stands_in_the_way(refused);
    }
    let survey = survey(config)?;
    print(summary(&survey, is_in_use));
    for warning in survey.offline.iter().chain(&survey.warnings) {
        print(format!("warning  {warning}"));
    }
    for note in &survey.notes {
        print(format!("note     {note}"));
    }
    let told = |refusal: &&String| {
        let mut failed = survey.dirs.iter().filter(|dir| dir.failure.is_some());
        !failed.any(|dir| {
            !is_sound(&dir.path) && refusal.starts_with(&format!("{}: ", dir.path.display()))
        })
    };
    for refusal in survey.refusals.iter().filter(told) {
        refused += 1;
        print(format!("refused  {refusal}"));
    }
    stands_in_the_way(refused)
}

fn stands_in_the_way(refused: usize) -> Result<(), Failure> {
    match refused {
        0 => Ok(()),
        1 => Err(Failure::new("one check stands in the way")),
        count => Err(Failure::new(format!("{count} checks stand in the way"))),
    }
}

fn survey(config: &Config) -> Result<Survey, Failure> {
    let (data, more_data) = (config.data_dir.clone(), config.more_data_dirs.clone());
    let (node_id, cluster_id) = (
        config.node_id,
        config.cluster_id.map(|id| Str::from(id.to_string())),
    );
    let (sender, receiver) = channel();
    let main = move |seat: ShardSeat<(), ()>| {
        let (data, more_data): (PathBuf, Vec<PathBuf>) = (data.clone(), more_data.clone());
        let (cluster_id, sender) = (cluster_id.clone(), sender.clone());
        async move {
            let options = SurveyOptions {
                data: &data,
                more_data: &more_data,
                node_id: Some(node_id),
                cluster_id: cluster_id.as_ref(),
                count_logs: true,
            };
            let survey = Survey::take(&seat.world, options).await;
            sender.send(survey).map_err(io::Error::other)
        }
    };
    let mut options = ExecutorOptions::new(1).map_err(Failure::new)?;
    options.pin = false;
    let running = chronik_io::executor::run(options, main).map_err(Failure::new)?;
    let survey = receiver.recv();
    running.join().map_err(Failure::new)?;
    survey.map_err(Failure::new)
}

/// What the directories are.
fn summary(survey: &Survey, is_in_use: bool) -> String {
    let dirs: Vec<_> = survey
        .dirs
        .iter()
        .map(|dir| dir.path.display().to_string())
        .collect();
    let dirs = dirs.join(", ");
    let Some(identity) = survey.identity() else {
        let what = match survey.refusals.is_empty() && survey.warnings.is_empty() {
            _ if is_in_use => "in use: a broker is about to begin here",
            true => "empty: a start makes a new broker here",
            false => "of no broker",
        };
        return format!("data     {dirs}: {what}");
    };
    let writer = match survey.last_writer {
        LastWriter::Nobody => "somebody",
        LastWriter::Chronik => "Chronik",
        LastWriter::Kafka => "Apache Kafka",
    };
    let end = match survey.is_clean {
        _ if is_in_use => "in use: a broker is at work in it",
        true => "stopped in order",
        false if !survey.has_begun => "never started",
        false => "killed: its logs are recovered at the next start",
    };
    format!(
        "data     {dirs}: node {} of the cluster {}, written last by {writer} (metadata.version {}), \
         {end}; {} topics, {} partitions, {} bytes in {} logs",
        identity.node_id,
        identity.cluster_id,
        survey.metadata_version.unwrap_or("unknown"),
        survey.topics,
        survey.partitions,
        survey.logs.bytes,
        survey.logs.count
    )
}
