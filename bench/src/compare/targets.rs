//! Owns what the comparison claims: which figure of which cells, between which promises, has to
//! reach which ratio.
//!
//! Never measures; `report.rs` applies it to what was measured.

/// Which promises stand against each other. They are never mixed within a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sides {
    /// Both survive the end of the process, neither a power cut.
    ProcessToDefault,
    /// Chronik survives a power cut, Kafka as it is shipped does not.
    DiskToDefault,
    /// Both survive a power cut: Kafka flushes every append.
    DiskToSynced,
    /// Whatever each does when nothing is configured.
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

    /// How the report calls the comparison.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::ProcessToDefault => "process : Kafka's default",
            Self::DiskToDefault => "disk : Kafka's default",
            Self::DiskToSynced => "disk : Kafka with log.flush.interval.messages=1",
            Self::Shipped => "both as they are shipped",
        }
    }

    /// What its plot's file is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ProcessToDefault => "process",
            Self::DiskToDefault => "disk",
            Self::DiskToSynced => "disk-synced",
            Self::Shipped => "shipped",
        }
    }

    /// The endings of the cells' names: Chronik's, Kafka's. Loads are measured with both promises,
    /// everything else as shipped and without an ending.
    pub(crate) fn endings(self) -> [&'static str; 2] {
        match self {
            Self::ProcessToDefault => ["/process", "/process"],
            Self::DiskToDefault => ["/disk", "/process"],
            Self::DiskToSynced => ["/disk", "/disk"],
            Self::Shipped => ["", ""],
        }
    }
}

/// What is asked of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Chronik : Kafka, at least.
    RatioAtLeast(f64),
    /// Chronik : Kafka, at most.
    RatioAtMost(f64),
    /// Chronik's own figure, at most.
    AtMost(f64),
    /// Nothing; the figure is told.
    Told,
}

impl Bound {
    /// Whether a median meets it; `None` when there is nothing to meet.
    pub(crate) fn is_met(self, ratio: f64, own: f64) -> Option<bool> {
        match self {
            Self::RatioAtLeast(least) => Some(ratio >= least),
            Self::RatioAtMost(most) => Some(ratio <= most),
            Self::AtMost(most) => Some(own <= most),
            Self::Told => None,
        }
    }
}

/// One line of the claims.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// The front of the cells' names; for loads without the promise at their end.
    pub(crate) cells: &'static str,
    /// The figure.
    pub(crate) figure: &'static str,
    /// What is asked in each comparison of promises, in the order of [`Sides::ALL`]; the last alone
    /// for what is measured as shipped.
    pub(crate) bounds: [Bound; 4],
}

impl Claim {
    /// What is asked between these promises.
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
        Bound::Told,
    ]
}

const fn at_least(process: f64, default: f64, synced: f64) -> [Bound; 4] {
    [
        Bound::RatioAtLeast(process),
        Bound::RatioAtLeast(default),
        Bound::RatioAtLeast(synced),
        Bound::Told,
    ]
}

const fn shipped(bound: Bound) -> [Bound; 4] {
    [Bound::Told, Bound::Told, Bound::Told, bound]
}

const TOLD: [Bound; 4] = [Bound::Told; 4];
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

/// Every claim, in the order of the report.
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
            Bound::Told,
            Bound::Told,
            Bound::RatioAtMost(0.25),
            Bound::Told,
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

/// What the middle of all of `kafka-producer-perf-test` has to reach.
pub(crate) const PERF_MIDDLE_AT_LEAST: f64 = 1.3;

/// Whether a claim speaks of a cell: a name that ends with `/` is a whole group's, another one is a
/// cell's own.
pub(crate) fn speaks_of(claim: &Claim, cell: &str) -> bool {
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
                cells.iter().any(|cell| speaks_of(claim, cell)),
                "{claim:?} speaks of nothing"
            );
        }
        for cell in &cells {
            assert!(
                CLAIMS.iter().any(|claim| speaks_of(claim, cell)),
                "{cell} is measured and never told"
            );
        }
    }

    #[test]
    fn bounds() {
        assert_eq!(Bound::RatioAtLeast(2.0).is_met(2.0, 0.0), Some(true));
        assert_eq!(Bound::RatioAtMost(2.0).is_met(2.1, 0.0), Some(false));
        assert_eq!(Bound::AtMost(1.3).is_met(9.0, 1.2), Some(true));
        assert_eq!(Bound::Told.is_met(0.0, 0.0), None);
    }
}
