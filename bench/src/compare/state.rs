//! The results so far: one entry for each contestant, cell and pair, saved to a file after every measurement, so
//! that a comparison can be interrupted and resumed.
//!
//! Never mixes results of different settings: a file with others is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::compare::contestant::Contestant;
use crate::figures::Figures;
use crate::rpc::invalid;

/// The result of a cell in one pair.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    /// Figures.
    Measured(Figures),
    /// Why there are none.
    Failed(String),
}

/// All results, and the settings they belong to.
#[derive(Debug)]
pub(crate) struct State {
    path: PathBuf,
    settings: Value,
    entries: BTreeMap<String, Entry>,
}

fn key(contestant: Contestant, cell: &str, pair: u32) -> String {
    format!("{}/{cell}/{pair}", contestant.name())
}

impl State {
    /// Reads the file, or starts an empty one. Drops the results of the contestants in `forget`.
    ///
    /// # Errors
    /// The file system's; `InvalidData` for a malformed file or one with other settings.
    pub(crate) fn open(path: &Path, settings: Value, forget: &[Contestant]) -> io::Result<Self> {
        let mut state = Self {
            path: path.to_owned(),
            settings,
            entries: BTreeMap::new(),
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            Err(error) => return Err(error),
        };
        let stored: Value = serde_json::from_str(&text).map_err(invalid)?;
        for contestant in Contestant::BOTH {
            if forget.contains(&contestant) {
                continue;
            }
            let name = contestant.name();
            if stored["settings"]["both"] != state.settings["both"]
                || stored["settings"][name] != state.settings[name]
            {
                return Err(invalid(format!(
                    "{} holds results of other settings or of another {name}: \
                     --forget {name} measures it anew, another --output keeps them",
                    path.display()
                )));
            }
            state.take(contestant, &stored["entries"]);
        }
        Ok(state)
    }

    fn take(&mut self, contestant: Contestant, stored: &Value) {
        let prefix = format!("{}/", contestant.name());
        for (key, entry) in stored.as_object().into_iter().flatten() {
            if let (true, Some(figures)) = (key.starts_with(&prefix), entry.as_object()) {
                let figures = figures.iter();
                let figures =
                    figures.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
                self.entries
                    .insert(key.clone(), Entry::Measured(figures.collect()));
            }
            // A failed cell is not saved: it is tried again.
        }
    }

    /// True when this was measured, or has failed in this run.
    pub(crate) fn has(&self, contestant: Contestant, cell: &str, pair: u32) -> bool {
        self.entries.contains_key(&key(contestant, cell, pair))
    }

    /// The figures of a measured cell.
    pub(crate) fn figures(
        &self,
        contestant: Contestant,
        cell: &str,
        pair: u32,
    ) -> Option<&Figures> {
        match self.entries.get(&key(contestant, cell, pair))? {
            Entry::Measured(figures) => Some(figures),
            Entry::Failed(_) => None,
        }
    }

    /// Every cell that has a result.
    pub(crate) fn cells(&self) -> BTreeSet<String> {
        let keys = self.entries.keys();
        let cells =
            keys.filter_map(|key| Some(key.split_once('/')?.1.rsplit_once('/')?.0.to_owned()));
        cells.collect()
    }

    /// Failed cells, with the reason.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().filter_map(|(key, entry)| match entry {
            Entry::Failed(reason) => Some((key.as_str(), reason.as_str())),
            Entry::Measured(_) => None,
        })
    }

    /// Measurements with `figure` above `limit`, and its value.
    pub(crate) fn above(&self, figure: &str, limit: f64) -> Vec<(&str, f64)> {
        let entries = self.entries.iter();
        let figures = entries.filter_map(|(key, entry)| match entry {
            Entry::Measured(figures) => Some((key.as_str(), *figures.get(figure)?)),
            Entry::Failed(_) => None,
        });
        figures.filter(|(_, value)| *value > limit).collect()
    }

    /// Stores a result and writes the file.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn put(
        &mut self,
        contestant: Contestant,
        cell: &str,
        pair: u32,
        entry: Entry,
    ) -> io::Result<()> {
        self.entries.insert(key(contestant, cell, pair), entry);
        // Renamed into place, so that an interrupted write leaves the older results.
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, format!("{:#}\n", self.as_json()))?;
        fs::rename(&fresh, &self.path)
    }

    /// The whole state, as the file holds it.
    pub(crate) fn as_json(&self) -> Value {
        let entries: Map<String, Value> = self
            .entries
            .iter()
            .map(|(key, entry)| {
                let value = match entry {
                    Entry::Measured(figures) => json!(figures),
                    Entry::Failed(reason) => json!(reason),
                };
                (key.clone(), value)
            })
            .collect();
        json!({ "settings": self.settings, "entries": entries })
    }

    /// The settings all results belong to.
    pub(crate) fn settings(&self) -> &Value {
        &self.settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(chronik: &str) -> Value {
        json!({ "both": {"seconds": 5}, "chronik": chronik, "kafka": "4.3.1" })
    }

    #[test]
    fn results_outlive_the_process_and_belong_to_their_settings() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        let mut state = State::open(&path, settings("a"), &[]).expect("a new state");
        let figures = Figures::from([("produce_p50_us".to_owned(), 151.0)]);
        for contestant in Contestant::BOTH {
            let entry = Entry::Measured(figures.clone());
            state.put(contestant, "fixed/one", 1, entry).expect("kept");
        }
        let failed = Entry::Failed("no".to_owned());
        state
            .put(Contestant::Kafka, "fixed/two", 0, failed)
            .expect("kept");

        let again = State::open(&path, settings("a"), &[]).expect("the same");
        assert_eq!(
            again.figures(Contestant::Kafka, "fixed/one", 1),
            Some(&figures)
        );
        assert!(!again.has(Contestant::Kafka, "fixed/one", 0));
        assert!(
            !again.has(Contestant::Kafka, "fixed/two", 0),
            "failures are tried again"
        );

        let refused = State::open(&path, settings("b"), &[]).expect_err("another build");
        assert!(
            refused.to_string().contains("--forget chronik"),
            "{refused}"
        );
        let anew = State::open(&path, settings("b"), &[Contestant::Chronik]).expect("forgotten");
        assert!(!anew.has(Contestant::Chronik, "fixed/one", 1));
        assert!(anew.has(Contestant::Kafka, "fixed/one", 1));
    }
}
