//! The targets of the comparison: for each figure of some cells, between each pair of promises, the ratio to reach.
//!
//! Never measures; `report.rs` applies them to the measurements.

/// A pair of promises to compare; a column never mixes pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sides {
    /// Both survive the end of the process, neither a power cut.
    ProcessToDefault,
    /// Chronik survives a power cut, Kafka as shipped does not.
    DiskToDefault,
    /// Both survive a power cut: Kafka flushes every append.
    DiskToSynced,
    /// Both with their defaults.
    Shipped,
}

impl Sides {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 4] = [
        Self::ProcessToDefault,
        Self::DiskToDefault,
        Self::DiskToSynced,
        Self::Shipped,
    ];

    /// The comparison's title in the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ProcessToDefault => "process : Kafka's default",
            Self::DiskToDefault => "disk : Kafka's default",
            Self::DiskToSynced => "disk : Kafka with log.flush.interval.messages=1",
            Self::Shipped => "both as they are shipped",
        }
    }

    /// The name of its plot's file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ProcessToDefault => "process",
            Self::DiskToDefault => "disk",
            Self::DiskToSynced => "disk-synced",
            Self::Shipped => "shipped",
        }
    }

    /// The suffixes of the cells' names: Chronik's, Kafka's. Loads are measured with both promises, everything else as
    /// shipped and without a suffix.
    pub(crate) fn endings(self) -> [&'static str; 2] {
        match self {
            Self::ProcessToDefault => ["/process", "/process"],
            Self::DiskToDefault => ["/disk", "/process"],
            Self::DiskToSynced => ["/disk", "/disk"],
            Self::Shipped => ["", ""],
        }
    }
}

/// The target of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Chronik : Kafka, at least.
    RatioAtLeast(f64),
    /// Chronik : Kafka, at most.
    RatioAtMost(f64),
    /// Chronik's own figure, at most.
    AtMost(f64),
    /// None: the figure is reported only.
    Reported,
}

impl Bound {
    /// True when a median meets the target; `None` without one.
    pub(crate) fn is_met(self, ratio: f64, own: f64) -> Option<bool> {
        match self {
            Self::RatioAtLeast(least) => Some(ratio >= least),
            Self::RatioAtMost(most) => Some(ratio <= most),
            Self::AtMost(most) => Some(own <= most),
            Self::Reported => None,
        }
    }
}

/// One row of targets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// The prefix of the cells' names, for loads without the promise at their end.
    pub(crate) cells: &'static str,
    /// The figure.
    pub(crate) figure: &'static str,
    /// The target for each pair of promises, in the order of [`Sides::ALL`]; only the last for cells measured as
    /// shipped.
    pub(crate) bounds: [Bound; 4],
}

impl Claim {
    /// The target for this pair of promises.
    pub(crate) fn bound(&self, sides: Sides) -> Bound {
        let [process, default, synced, shipped] = self.bounds;
        match sides {
            Sides::ProcessToDefault => process,
            Sides::DiskToDefault => default,
            Sides::DiskToSynced => synced,
            Sides::Shipped => shipped,
        }
    }
}

const fn at_most(process: f64, default: f64, synced: f64) -> [Bound; 4] {
    [
        Bound::RatioAtMost(process),
        Bound::RatioAtMost(default),
        Bound::RatioAtMost(synced),
        Bound::Reported,
    ]
}

const fn at_least(process: f64, default: f64, synced: f64) -> [Bound; 4] {
    [
        Bound::RatioAtLeast(process),
        Bound::RatioAtLeast(default),
        Bound::RatioAtLeast(synced),
        Bound::Reported,
    ]
}

const fn shipped(bound: Bound) -> [Bound; 4] {
    [Bound::Reported, Bound::Reported, Bound::Reported, bound]
}

const TOLD: [Bound; 4] = [Bound::Reported; 4];
const RATE: &str = "produce_requests_per_s";
const CPU: &str = "broker_and_kernel_cpu_s_per_gb";
const RESIDENT: &str = "resident_bytes_max";

const fn claim(cells: &'static str, figure: &'static str, bounds: [Bound; 4]) -> Claim {
    Claim {
        cells,
        figure,
        bounds,
    }
}

/// Every row, in the order of the report.
pub(crate) const CLAIMS: &[Claim] = &[
    claim("fixed/", "produce_p50_us", at_most(1.0, 2.0, 2.0 / 3.0)),
    claim("fixed/", "produce_p99_us", at_most(0.2, 0.5, 0.2)),
    claim("fixed/", "produce_p999_us", at_most(1.0 / 3.0, 0.75, 0.25)),
    claim("fixed/", "broker_and_kernel_cpu_us_per_request", TOLD),
    claim("closed/1c-x1", RATE, TOLD),
    claim("closed/1c-x1", "produce_p50_us", TOLD),
    claim("closed/100c-x1", RATE, at_least(1.7, 0.75, 5.0)),
    claim(
        "closed/100c-x1",
        "produce_p99_us",
        [
            Bound::Reported,
            Bound::Reported,
            Bound::RatioAtMost(0.25),
            Bound::Reported,
        ],
    ),
    claim("closed/100c-x1", CPU, at_most(0.5, 1.0, 0.25)),
    claim("closed/16c-x5", RATE, at_least(5.0, 2.0, 12.0)),
    claim("closed/16c-x5", CPU, at_most(1.0 / 6.0, 0.25, 0.1)),
    claim("closed/16c-x5-16rec", RATE, at_least(5.0, 3.0, 10.0)),
    claim("closed/16c-x5-16rec", CPU, at_most(1.0 / 6.0, 0.25, 0.1)),
    claim("closed/16c-x5-160rec-100B", RATE, at_least(5.0, 3.0, 10.0)),
    claim(
        "closed/16c-x5-160rec-100B",
        CPU,
        at_most(1.0 / 6.0, 0.25, 0.1),
    ),
    claim("closed/4c-x5-64rec-10K", RATE, at_least(4.0, 4.0, 8.0)),
    claim("closed/4c-x5-64rec-10K", CPU, at_most(1.0 / 6.0, 0.25, 0.1)),
    claim("closed/", "produce_mb_per_s", TOLD),
    claim(
        "closed/",
        "broker_and_kernel_cpu_s_per_million_records",
        TOLD,
    ),
    claim(
        "closed/",
        RESIDENT,
        at_most(1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0),
    ),
    claim("closed/", "disk_written_bytes", TOLD),
    claim("closed/", "disk_writes", TOLD),
    claim("closed/", "disk_flushes", TOLD),
    claim("tail/", "end_to_end_p50_us", TOLD),
    claim("tail/", "end_to_end_p99_us", TOLD),
    claim("tail/16c-x5-16rec", "fetch_mb_per_s", TOLD),
    claim("perf/", "mb_per_s", shipped(Bound::RatioAtLeast(1.1))),
    claim("perf/", "p99_ms", TOLD),
    claim("perf/", CPU, TOLD),
    claim("read/", "fetch_mb_per_s", shipped(Bound::RatioAtLeast(1.0))),
    claim("read/", CPU, shipped(Bound::RatioAtMost(0.5))),
    claim(
        "neighbour/",
        "disturbed_p99_ratio",
        shipped(Bound::AtMost(1.3)),
    ),
    claim("neighbour/", "alone_p99_us", TOLD),
    claim("neighbour/", "produce_p99_us", TOLD),
    claim("neighbour/", "neighbour_mb_per_s", TOLD),
    claim("start/empty", "start_ms", shipped(Bound::RatioAtMost(0.02))),
    claim(
        "start/1000-partitions",
        "ready_ms",
        shipped(Bound::RatioAtMost(0.05)),
    ),
    claim(
        "start/killed",
        "ready_ms",
        shipped(Bound::RatioAtMost(0.05)),
    ),
    claim(
        "start/empty",
        "resident_bytes",
        shipped(Bound::RatioAtMost(0.1)),
    ),
    claim(
        "start/1000-partitions",
        "resident_bytes",
        shipped(Bound::RatioAtMost(0.2)),
    ),
    claim(
        "start/idle",
        "idle_cpu_percent_of_a_core",
        shipped(Bound::AtMost(0.1)),
    ),
];

/// The target of the median over all runs of `kafka-producer-perf-test`.
pub(crate) const PERF_MIDDLE_AT_LEAST: f64 = 1.3;

/// True when a claim covers a cell: a name ending with `/` covers a whole group, another one its own cell.
pub(crate) fn covers(claim: &Claim, cell: &str) -> bool {
    if claim.cells.ends_with('/') {
        cell.starts_with(claim.cells)
    } else {
        cell == claim.cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::cells::{self, Group};
    use crate::compare::scenarios::{NEIGHBOUR_CELLS, READ_CELLS, START_CELLS};

    #[test]
    fn every_claim_speaks_of_a_cell_and_every_cell_is_told() {
        let loads = Group::ALL.into_iter().flat_map(cells::loads);
        let loads = loads.map(|cell| {
            let (load, _promise) = cell.id.rsplit_once('/').expect("a promise");
            load.to_owned()
        });
        let perf = cells::perf(true).into_iter().map(|cell| cell.id);
        let others = READ_CELLS
            .iter()
            .chain(&NEIGHBOUR_CELLS)
            .chain(&START_CELLS);
        let cells: Vec<String> = loads
            .chain(perf)
            .chain(others.map(|cell| (*cell).to_owned()))
            .collect();
        for claim in CLAIMS {
            assert!(
                cells.iter().any(|cell| covers(claim, cell)),
                "{claim:?} speaks of nothing"
            );
        }
        for cell in &cells {
            assert!(
                CLAIMS.iter().any(|claim| covers(claim, cell)),
                "{cell} is measured and never told"
            );
        }
    }

    #[test]
    fn bounds() {
        assert_eq!(Bound::RatioAtLeast(2.0).is_met(2.0, 0.0), Some(true));
        assert_eq!(Bound::RatioAtMost(2.0).is_met(2.1, 0.0), Some(false));
        assert_eq!(Bound::AtMost(1.3).is_met(9.0, 1.2), Some(true));
        assert_eq!(Bound::Reported.is_met(0.0, 0.0), None);
    }
}
