//! The table of the comparison: medians and ranges of each side, ratios of the pairs, and the targets; as Markdown
//! and as JSON.
//!
//! Never leaves out a failed cell or a missed target.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::compare::contestant::Contestant;
use crate::compare::plot::{self, Row};
use crate::compare::state::State;
use crate::compare::targets::{Bound, CLAIMS, Claim, PERF_MIDDLE_AT_LEAST, Sides, covers};
use crate::figures::OTHERS;

/// Percent of a core used by other processes above which a measurement is marked as disturbed.
const DISTURBED_PERCENT: f64 = 10.0;

/// Least, middle and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self {
            least: first,
            median: f64::midpoint(lower, upper),
            most: last,
        })
    }

    fn as_json(self) -> Value {
        json!([self.least, self.median, self.most])
    }
}

/// One line.
#[derive(Clone, Debug)]
struct Line {
    cell: String,
    claim: Claim,
    pairs: usize,
    chronik: Spread,
    kafka: Option<Spread>,
    ratio: Option<Spread>,
    is_met: Option<bool>,
}

/// The whole comparison.
#[derive(Debug)]
pub(crate) struct Report {
    parts: Vec<(Sides, Vec<Line>)>,
}

impl Report {
    /// Computes the lines from the measurements so far.
    pub(crate) fn of(state: &State, pairs: u32) -> Self {
        let parts = Sides::ALL.map(|sides| {
            let cells = base_cells(state, sides);
            let lines = CLAIMS.iter().flat_map(|claim| {
                let cells = cells.iter().filter(|cell| covers(claim, cell));
                cells.filter_map(|cell| line(state, pairs, sides, claim, cell))
            });
            (sides, lines.collect())
        });
        Self {
            parts: parts.into(),
        }
    }

    /// As Markdown; `heading` names machine, versions and settings.
    pub(crate) fn markdown(&self, heading: &str, state: &State) -> String {
        let mut text = format!("# Chronik beside Apache Kafka\n\n{heading}\n");
        let mut put = |line: String| {
            // Writing to a String cannot fail.
            let _never = writeln!(text, "{line}");
        };
        put(self.summary());
        for (sides, lines) in &self.parts {
            if lines.is_empty() {
                continue;
            }
            put(format!("\n## {}\n", sides.title()));
            put("| load | figure | Chronik | Kafka | ratio | asked | |".to_owned());
            put("|---|---|---|---|---|---|---|".to_owned());
            for line in lines {
                put(line.markdown(*sides));
            }
        }
        if let Some(middle) = self.perf_middle() {
            let verdict = verdict(Some(middle >= PERF_MIDDLE_AT_LEAST));
            put(format!(
                "\n`kafka-producer-perf-test`, middle of all: {middle:.2} x, \
                 asked >= {PERF_MIDDLE_AT_LEAST} x: {verdict}"
            ));
        }
        let disturbed = state.above(OTHERS, DISTURBED_PERCENT);
        if !disturbed.is_empty() {
            put(format!(
                "\n## Disturbed\n\nOther processes took more than {DISTURBED_PERCENT} % of a core:\n"
            ));
        }
        for (key, percent) in disturbed {
            put(format!("- {key}: {percent:.0} %"));
        }
        let failures: Vec<_> = state.failures().collect();
        if !failures.is_empty() {
            put("\n## Not measured\n".to_owned());
        }
        for (key, reason) in failures {
            put(format!("- {key}: {}", reason.replace('\n', " ")));
        }
        text
    }

    /// As JSON, with every measurement.
    pub(crate) fn json(&self, heading: &str, state: &State) -> Value {
        let parts: Vec<Value> = self
            .parts
            .iter()
            .map(|(sides, lines)| {
                let lines: Vec<Value> = lines.iter().map(|line| line.json(*sides)).collect();
                json!({ "sides": sides.title(), "lines": lines })
            })
            .collect();
        json!({ "heading": heading, "comparison": parts, "measured": state.as_json() })
    }

    /// Names and texts of the plots: one for each pair of promises, with the figures that have a target ratio.
    pub(crate) fn plots(&self) -> Vec<(String, String)> {
        let plot = |(sides, lines): &(Sides, Vec<Line>)| {
            let rows: Vec<Row> = lines.iter().filter_map(|line| line.row(*sides)).collect();
            let name = format!("comparison-{}.svg", sides.name());
            (!rows.is_empty()).then(|| (name, plot::factors(sides.title(), &rows)))
        };
        self.parts.iter().filter_map(plot).collect()
    }

    fn summary(&self) -> String {
        let verdicts = self.parts.iter().flat_map(|(_, lines)| lines);
        let verdicts: Vec<bool> = verdicts.filter_map(|line| line.is_met).collect();
        let met = verdicts.iter().filter(|is_met| **is_met).count();
        format!(
            "{met} of {} targets with measurements are met.",
            verdicts.len()
        )
    }

    /// The median of the ratios of all runs of `kafka-producer-perf-test`.
    fn perf_middle(&self) -> Option<f64> {
        let lines = self.parts.iter().flat_map(|(_, lines)| lines);
        let perf =
            lines.filter(|line| line.claim.cells == "perf/" && line.claim.figure == "mb_per_s");
        Spread::of(perf.filter_map(|line| Some(line.ratio?.median)).collect())
            .map(|spread| spread.median)
    }
}

/// The names of measured cells without the promise at their end.
fn base_cells(state: &State, sides: Sides) -> BTreeSet<String> {
    let [ending, _] = sides.endings();
    let has_promise = |cell: &str| cell.ends_with("/process") || cell.ends_with("/disk");
    let cells = state.cells().into_iter();
    cells
        .filter(|cell| !ending.is_empty() || !has_promise(cell))
        .filter_map(|cell| Some(cell.strip_suffix(ending)?.to_owned()))
        .collect()
}

fn line(state: &State, pairs: u32, sides: Sides, claim: &Claim, cell: &str) -> Option<Line> {
    let [own_ending, other_ending] = sides.endings();
    let figure = |contestant, ending: &str, pair| {
        let figures = state.figures(contestant, &format!("{cell}{ending}"), pair)?;
        figures.get(claim.figure).copied()
    };
    let own = |pair| figure(Contestant::Chronik, own_ending, pair);
    let other = |pair| figure(Contestant::Kafka, other_ending, pair);
    let chronik = Spread::of((0..pairs).filter_map(own).collect())?;
    let kafka = Spread::of((0..pairs).filter_map(other).collect());
    let ratios: Vec<f64> = (0..pairs)
        .filter_map(|pair| Some((own(pair)?, other(pair)?)))
        .filter(|(_, other)| *other > 0.0)
        .map(|(own, other)| own / other)
        .collect();
    let (count, ratio) = (ratios.len(), Spread::of(ratios));
    let bound = claim.bound(sides);
    let is_met = match (bound, ratio) {
        (Bound::AtMost(_), _) => bound.is_met(f64::NAN, chronik.median),
        (_, Some(ratio)) => bound.is_met(ratio.median, chronik.median),
        _ => None,
    };
    Some(Line {
        cell: cell.to_owned(),
        claim: *claim,
        pairs: count,
        chronik,
        kafka,
        ratio,
        is_met,
    })
}

impl Line {
    fn markdown(&self, sides: Sides) -> String {
        let kafka = self.kafka.map_or_else(|| "–".to_owned(), spread);
        let ratio = self.ratio.map_or_else(
            || "–".to_owned(),
            |ratio| {
                let Spread {
                    least,
                    median,
                    most,
                } = ratio;
                format!(
                    "**{}** ({}–{}, {} pairs)",
                    number(median),
                    number(least),
                    number(most),
                    self.pairs
                )
            },
        );
        format!(
            "| {} | {} | {} | {kafka} | {ratio} | {} | {} |",
            self.cell,
            self.claim.figure.replace('_', " "),
            spread(self.chronik),
            asked(self.claim.bound(sides)),
            verdict(self.is_met),
        )
    }

    /// Its row of the plot; the ratio is inverted where less is better.
    fn row(&self, sides: Sides) -> Option<Row> {
        let ratio = self.ratio?;
        let Spread {
            least,
            median,
            most,
        } = ratio;
        let name = format!("{}  {}", self.cell, self.claim.figure.replace('_', " "));
        match self.claim.bound(sides) {
            Bound::RatioAtLeast(asked) => Some(Row {
                name,
                least,
                median,
                most,
                asked,
            }),
            Bound::RatioAtMost(asked) => Some(Row {
                name,
                least: most.recip(),
                median: median.recip(),
                most: least.recip(),
                asked: asked.recip(),
            }),
            Bound::AtMost(_) | Bound::Reported => None,
        }
    }

    fn json(&self, sides: Sides) -> Value {
        json!({
            "cell": self.cell,
            "figure": self.claim.figure,
            "pairs": self.pairs,
            "chronik": self.chronik.as_json(),
            "kafka": self.kafka.map(Spread::as_json),
            "ratio": self.ratio.map(Spread::as_json),
            "asked": asked(self.claim.bound(sides)),
            "met": self.is_met,
        })
    }
}

fn spread(spread: Spread) -> String {
    let Spread {
        least,
        median,
        most,
    } = spread;
    format!("{} ({}–{})", number(median), number(least), number(most))
}

/// Three digits that count, large numbers with separators.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 || size == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let whole = text.find('.').unwrap_or(text.len());
    let mut separated = String::with_capacity(text.len() + whole / 3);
    for (position, character) in text.chars().enumerate() {
        let is_group_start = position < whole && (whole - position) % 3 == 0;
        if is_group_start && position > 0 && !separated.ends_with('-') {
            separated.push(',');
        }
        separated.push(character);
    }
    separated
}

fn asked(bound: Bound) -> String {
    match bound {
        Bound::RatioAtLeast(least) => format!("≥ {} ×", number(least)),
        Bound::RatioAtMost(most) => format!("≤ {} ×", number(most)),
        Bound::AtMost(most) => format!("≤ {}", number(most)),
        Bound::Reported => String::new(),
    }
}

fn verdict(is_met: Option<bool>) -> &'static str {
    match is_met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::state::Entry;
    use crate::figures::Figures;

    #[test]
    fn ratios_are_of_pairs_and_promises_do_not_mix() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        let mut state = State::open(&path, Value::Null, &[]).expect("a state");
        let mut put = |contestant, cell: &str, pair, value: f64| {
            let figures = Figures::from([("produce_requests_per_s".to_owned(), value)]);
            state
                .put(contestant, cell, pair, Entry::Measured(figures))
                .expect("kept");
        };
        for (pair, (process, disk, kafka)) in [
            (900.0, 300.0, 100.0),
            (1_000.0, 500.0, 200.0),
            (700.0, 90.0, 100.0),
        ]
        .into_iter()
        .enumerate()
        {
            let pair = u32::try_from(pair).expect("a small number");
            put(Contestant::Chronik, "closed/16c-x5/process", pair, process);
            put(Contestant::Chronik, "closed/16c-x5/disk", pair, disk);
            put(Contestant::Kafka, "closed/16c-x5/process", pair, kafka);
        }
        let report = Report::of(&state, 3);
        let of = |wanted: Sides| {
            let part = report.parts.iter().find(|(sides, _)| *sides == wanted);
            let lines = part.map(|(_, lines)| lines.clone()).expect("a part");
            lines
                .into_iter()
                .find(|line| line.claim.cells == "closed/16c-x5")
        };
        let process = of(Sides::ProcessToDefault).expect("a line");
        assert_eq!(process.ratio.map(|ratio| ratio.median), Some(7.0));
        assert_eq!(process.is_met, Some(true));
        let disk = of(Sides::DiskToDefault).expect("a line");
        assert_eq!(disk.ratio.map(|ratio| ratio.median), Some(2.5));
        let synced = of(Sides::DiskToSynced).expect("a line");
        assert_eq!((synced.ratio, synced.is_met), (None, None));
        assert!(of(Sides::Shipped).is_none());
        let plots = report.plots();
        let names: Vec<&str> = plots.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["comparison-process.svg", "comparison-disk.svg"]);
        let load = "closed/16c-x5  produce";
        assert!(plots.iter().all(|(_, svg)| svg.contains(load)));
        let text = report.markdown("A machine.", &state);
        assert!(
            text.contains("| closed/16c-x5 | produce requests per s | 900 (700–1,000) |"),
            "{text}"
        );
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.012_34, 1.5, 12.34, 123.4, 1_234_567.8, -1_234.0, 0.0];
        let expected = [
            "0.012",
            "1.50",
            "12.3",
            "123",
            "1,234,568",
            "-1,234",
            "0.00",
        ];
        assert_eq!(numbers.map(number), expected);
    }
}
