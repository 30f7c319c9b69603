//! `chronik-bench compare`: Chronik and Apache Kafka in turn, with the same clients on the same disk, until every
//! cell has its pairs. Owns the order and the options.
//!
//! Each group of cells is a session: a broker is started on an empty directory, warmed up, loaded and removed; then
//! the other broker; then the next group; then all of it again for the next pair, so that a change of the machine
//! hits both. Results are saved after every cell, and an interrupted comparison resumes there.

mod cells;
mod contestant;
mod effort;
mod machine;
mod plot;
mod report;
mod scenarios;
mod state;
mod targets;
mod tools;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::figures::Figures;
use crate::rpc::invalid;
use crate::target::Target;

use cells::Group;
use contestant::{Contestant, Programs, Seat};
use effort::Effort;
use report::Report;
use scenarios::Results;
use state::{Entry, State};

/// Subject, length and place of the comparison.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Chronik's executable
    #[arg(long)]
    chronik: PathBuf,
    /// A key=value for Chronik; repeatable. Without any it runs as shipped
    #[arg(long = "override")]
    overrides: Vec<String>,
    /// The folder with the scripts that know Kafka's jars
    #[arg(long, default_value = "tests/clients")]
    clients: PathBuf,
    /// Where data directories are made; both brokers use the same disk
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Where results are kept: state.json, comparison.md, comparison.json, plots
    #[arg(long, default_value = "target/bench-kafka")]
    output: PathBuf,
    /// How often both are measured
    #[arg(long)]
    pairs: Option<u32>,
    /// Short: 3 pairs, 2 s a load, little data
    #[arg(long)]
    quick: bool,
    /// Only show that the instrument works: one pair, a fifth of a second a load
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Only cells whose name contains this; repeatable
    #[arg(long)]
    only: Vec<String>,
    /// All 54 runs of kafka-producer-perf-test instead of 12
    #[arg(long)]
    all_perf: bool,
    /// Measure this contestant anew; repeatable
    #[arg(long, value_enum)]
    forget: Vec<Forget>,
    /// Stop after so many seconds, between two cells; the next call goes on
    #[arg(long)]
    for_seconds: Option<u64>,
    /// Print the names of the cells and end
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Forget {
    Chronik,
    Kafka,
}

impl Options {
    fn effort(&self) -> Effort {
        match (self.smoke, self.quick) {
            (true, _) => Effort::Smoke,
            (false, true) => Effort::Quick,
            (false, false) => Effort::Full,
        }
    }

    fn pairs(&self) -> u32 {
        self.pairs.unwrap_or(self.effort().pairs())
    }

    fn wants(&self, cell: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| cell.contains(part))
    }

    /// The names of a group's cells that are wanted.
    fn cells(&self, group: Group) -> Vec<String> {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let cells: Vec<String> = match group {
            Group::Fixed | Group::Closed | Group::Tail => {
                let loads = cells::loads(group).into_iter();
                loads.map(|cell| cell.id).collect()
            }
            Group::Perf => {
                let runs = cells::perf(self.all_perf).into_iter();
                runs.map(|cell| cell.id).collect()
            }
            Group::Read => named(&scenarios::READ_CELLS),
            Group::Neighbour => named(&scenarios::NEIGHBOUR_CELLS),
            Group::Start => named(&scenarios::START_CELLS),
        };
        cells.into_iter().filter(|cell| self.wants(cell)).collect()
    }

    /// The settings that results belong to; results of other settings are not mixed in.
    fn settings(&self, programs: &Programs) -> io::Result<Value> {
        let built = fs::metadata(&self.chronik)?;
        let built_s = built.modified()?.duration_since(UNIX_EPOCH);
        let versions = tools::versions(programs)?;
        Ok(json!({
            "both": {
                "milliseconds": self.effort().limits().measured.as_millis() as u64,
                "stored_bytes": self.effort().stored_bytes(),
                "java": versions["java"],
                "kcat": versions["kcat"],
            },
            "chronik": {
                "version": versions["chronik"],
                "overrides": self.overrides,
                "executable": format!("{} bytes, built {}", built.len(),
                    built_s.map_or(0, |since| since.as_secs())),
            },
            "kafka": {
                "version": versions["kafka"],
                "heap": "1 GiB, G1 as in Kafka's start script",
                "settings": "default, log.segment.delete.delay.ms=1000",
            },
        }))
    }
}

/// Runs the comparison; false when cells remain.
///
/// # Errors
/// When a program is missing or results cannot be saved. A failed cell is part of the report.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    if options.list {
        let cells = Group::ALL
            .into_iter()
            .flat_map(|group| options.cells(group));
        cells.for_each(|cell| println!("{cell}"));
        return Ok(true);
    }
    fs::create_dir_all(&options.output)?;
    fs::create_dir_all(&options.directory)?;
    let programs = Programs {
        chronik: fs::canonicalize(&options.chronik)?,
        overrides: options.overrides.clone(),
        clients: fs::canonicalize(&options.clients)?,
        directory: fs::canonicalize(&options.directory)?,
    };
    let forget: Vec<Contestant> = options
        .forget
        .iter()
        .map(|forget| match forget {
            Forget::Chronik => Contestant::Chronik,
            Forget::Kafka => Contestant::Kafka,
        })
        .collect();
    let settings = options.settings(&programs)?;
    let mut comparison = Comparison {
        state: State::open(&options.output.join("state.json"), settings, &forget)?,
        options,
        programs,
        began: Instant::now(),
    };
    let is_finished = comparison.measure()?;
    comparison.report()?;
    Ok(is_finished)
}

struct Comparison<'a> {
    options: &'a Options,
    programs: Programs,
    state: State,
    began: Instant,
}

impl Comparison<'_> {
    fn measure(&mut self) -> io::Result<bool> {
        for pair in 0..self.options.pairs() {
            for group in Group::ALL {
                for contestant in Contestant::BOTH {
                    if !self.session(pair, group, contestant)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn is_time_up(&self) -> bool {
        let seconds = self.options.for_seconds.map(Duration::from_secs);
        seconds.is_some_and(|seconds| self.began.elapsed() >= seconds)
    }

    /// Measures a group's missing cells; false when time is up.
    fn session(&mut self, pair: u32, group: Group, contestant: Contestant) -> io::Result<bool> {
        let missing: Vec<String> = self
            .options
            .cells(group)
            .into_iter()
            .filter(|cell| !self.state.has(contestant, cell, pair))
            .collect();
        if missing.is_empty() {
            return Ok(true);
        }
        if self.is_time_up() {
            return Ok(false);
        }
        let effort = self.options.effort();
        let results = match group {
            Group::Read => scenarios::read(contestant, &self.programs, effort),
            Group::Neighbour => scenarios::neighbour(contestant, &self.programs, effort),
            Group::Start => scenarios::start(contestant, &self.programs, effort),
            Group::Fixed | Group::Closed | Group::Tail | Group::Perf => {
                return self.loads(pair, group, contestant, &missing);
            }
        };
        self.keep_all(pair, contestant, &missing, results)?;
        Ok(true)
    }

    /// Saves a scenario's results; a scenario that failed as a whole fails each of its cells.
    fn keep_all(
        &mut self,
        pair: u32,
        contestant: Contestant,
        missing: &[String],
        results: io::Result<Results>,
    ) -> io::Result<()> {
        match results {
            Ok(results) => {
                for (cell, entry) in results {
                    self.keep(pair, contestant, cell, entry)?;
                }
            }
            Err(error) => {
                for cell in missing {
                    self.keep(pair, contestant, cell, Entry::Failed(error.to_string()))?;
                }
            }
        }
        Ok(())
    }

    fn loads(
        &mut self,
        pair: u32,
        group: Group,
        contestant: Contestant,
        missing: &[String],
    ) -> io::Result<bool> {
        let seat = Seat::prepare(contestant, &self.programs)?;
        let server = seat.start()?;
        let warm_up = self.options.effort().warm_up(contestant);
        scenarios::warm_up(&server.target, warm_up)?;
        for cell in missing {
            if self.is_time_up() {
                server.kill();
                return Ok(false);
            }
            let entry = match self.load(group, cell, &server.target) {
                Ok(figures) => Entry::Measured(figures),
                Err(error) => Entry::Failed(error.to_string()),
            };
            self.keep(pair, contestant, cell, entry)?;
        }
        server.kill();
        Ok(true)
    }

    fn load(&self, group: Group, cell: &str, target: &Target) -> io::Result<Figures> {
        if let Some(load) = cells::loads(group).iter().find(|load| load.id == cell) {
            return scenarios::load(&load.row, target, &self.options.effort().limits());
        }
        let runs = cells::perf(self.options.all_perf);
        let run = runs.iter().find(|run| run.id == cell);
        let run = run.ok_or_else(|| invalid(format!("no cell named {cell}")))?;
        tools::producer_perf(run, &self.programs, target, self.options.effort())
    }

    fn keep(
        &mut self,
        pair: u32,
        contestant: Contestant,
        cell: &str,
        entry: Entry,
    ) -> io::Result<()> {
        let summary = match &entry {
            Entry::Failed(reason) => format!("failed: {reason}"),
            Entry::Measured(figures) => summary(figures),
        };
        let seconds = self.began.elapsed().as_secs();
        let (number, pairs) = (pair + 1, self.options.pairs());
        eprintln!(
            "{seconds:>5} s  pair {number}/{pairs}  {:<8} {cell:<34} {summary}",
            contestant.name()
        );
        self.state.put(contestant, cell, pair, entry)
    }

    fn report(&self) -> io::Result<()> {
        let report = Report::of(&self.state, self.options.pairs());
        let heading = machine::describe(&self.programs.directory, self.state.settings());
        let folder = &self.options.output;
        let markdown = report.markdown(&heading, &self.state);
        fs::write(folder.join("comparison.md"), &markdown)?;
        let json = report.json(&heading, &self.state);
        fs::write(folder.join("comparison.json"), format!("{json:#}\n"))?;
        for (name, svg) in report.plots() {
            fs::write(folder.join(name), svg)?;
        }
        println!("{markdown}");
        println!("kept in {}", folder.display());
        Ok(())
    }
}

/// The most telling figures of a cell.
fn summary(figures: &Figures) -> String {
    const TELLING: [&str; 10] = [
        "produce_requests_per_s",
        "produce_p50_us",
        "produce_p99_us",
        "mb_per_s",
        "fetch_mb_per_s",
        "disturbed_p99_ratio",
        "start_ms",
        "ready_ms",
        "idle_cpu_percent_of_a_core",
        "broker_and_kernel_cpu_s_per_gb",
    ];
    let told = TELLING.iter().filter_map(|name| {
        let value = figures.get(*name)?;
        Some(format!("{name} {value:.1}"))
    });
    told.collect::<Vec<_>>().join("  ")
}
