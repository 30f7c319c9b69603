//! `chronik doctor`: what a start would find, without starting: the machine, the settings, and what lies
//! in the data directories.
//!
//! Runs on the main thread; the directories are looked at on an executor of its own, with the very
//! checks of a start. Never writes anything, and takes no lock.

use std::io;
use std::path::PathBuf;
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
    let mut refused = 0;
    for finding in broker::findings(config, false) {
        let word = match finding.verdict {
            Verdict::Fine => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Refused => "refused",
        };
        refused += usize::from(finding.verdict == Verdict::Refused);
        print(format!("{word}  {}: {}", finding.subject, finding.sentence));
    }
    for dir in [&config.data_dir].into_iter().chain(&config.more_data_dirs) {
        if let Err(error) = DirectoryLock::look(&dir.join(LOCK_FILE)) {
            refused += usize::from(error.kind() == io::ErrorKind::WouldBlock);
            print(format!("refused  {error}"));
        }
    }
    let survey = survey(config)?;
    print(summary(&survey));
    for note in &survey.notes {
        print(format!("note     {note}"));
    }
    for refusal in &survey.refusals {
        print(format!("refused  {refusal}"));
    }
    refused += survey.refusals.len();
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
fn summary(survey: &Survey) -> String {
    let dirs: Vec<_> = survey
        .dirs
        .iter()
        .map(|dir| dir.path.display().to_string())
        .collect();
    let dirs = dirs.join(", ");
    let Some(identity) = survey.identity() else {
        return format!("data     {dirs}: new, or of nobody");
    };
    let writer = match survey.last_writer {
        LastWriter::Nobody => "somebody",
        LastWriter::Chronik => "Chronik",
        LastWriter::Kafka => "Apache Kafka",
    };
    let end = match survey.is_clean {
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
