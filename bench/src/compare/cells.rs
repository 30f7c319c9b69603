//! Owns the loads of the comparison: what each is called and what it sends.
//!
//! Never changes a load under an old name: results of different days are compared by it.

use chronik_protocol::record::Compression;

use crate::load::Pace;
use crate::row::{Promise, Row};

/// Cells that share a broker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Requests at fixed rates.
    Fixed,
    /// Closed loops.
    Closed,
    /// Producing with consumers at the tail.
    Tail,
    /// `kafka-producer-perf-test`.
    Perf,
    /// Reading what is stored.
    Read,
    /// A fixed rate beside a consumer that reads from the disk.
    Neighbour,
    /// Starts, memory and idling.
    Start,
}

impl Group {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 7] = [
        Self::Fixed,
        Self::Closed,
        Self::Tail,
        Self::Perf,
        Self::Read,
        Self::Neighbour,
        Self::Start,
    ];

    /// The front of its cells' names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Closed => "closed",
            Self::Tail => "tail",
            Self::Perf => "perf",
            Self::Read => "read",
            Self::Neighbour => "neighbour",
            Self::Start => "start",
        }
    }
}

/// A load that `chronik-bench` makes.
#[derive(Clone, Debug)]
pub(crate) struct LoadCell {
    /// `group/load/promise`.
    pub(crate) id: String,
    /// The load.
    pub(crate) row: Row,
}

/// A run of `kafka-producer-perf-test`.
#[derive(Clone, Debug)]
pub(crate) struct PerfCell {
    /// `perf/size-partitions-acks-codec`.
    pub(crate) id: String,
    pub(crate) record_bytes: usize,
    pub(crate) partitions: i32,
    pub(crate) acks: &'static str,
    pub(crate) codec: &'static str,
}

/// The shape of a load: connections, records in a request, bytes of a record, partitions.
struct Shape {
    connections: usize,
    records: usize,
    record_bytes: usize,
    partitions: i32,
    consumers: usize,
}

impl Shape {
    const fn new(connections: usize, records: usize, record_bytes: usize) -> Self {
        Self {
            connections,
            records,
            record_bytes,
            partitions: 16,
            consumers: 0,
        }
    }

    fn cells(self, group: Group, name: &str, pace: Pace) -> [LoadCell; 2] {
        [(Promise::Process, "process"), (Promise::Disk, "disk")].map(|(promise, of_promise)| {
            let id = format!("{}/{name}/{of_promise}", group.name());
            LoadCell {
                row: self.row(&id, promise, pace),
                id,
            }
        })
    }

    fn row(&self, name: &str, promise: Promise, pace: Pace) -> Row {
        Row {
            name: name.to_owned(),
            topic: None,
            partitions: self.partitions,
            promise,
            configs: Vec::new(),
            connections: self.connections,
            consumers: self.consumers,
            pace,
            records: self.records,
            record_bytes: self.record_bytes,
            keys: 0,
            acks: -1,
            codec: Compression::None,
        }
    }
}

fn fixed(requests_per_second: u32) -> Pace {
    Pace::Fixed {
        requests_per_second,
    }
}

fn closed(in_flight: usize) -> Pace {
    Pace::Closed { in_flight }
}

/// The loads of a group; empty for the groups that are no loads of this kind.
pub(crate) fn loads(group: Group) -> Vec<LoadCell> {
    let one_partition = Shape {
        partitions: 1,
        ..Shape::new(1, 1, 1024)
    };
    let tail = |connections, records| Shape {
        consumers: 4,
        ..Shape::new(connections, records, 1024)
    };
    let cells = match group {
        Group::Fixed => vec![
            one_partition.cells(group, "1000-1c", fixed(1_000)),
            Shape::new(10, 1, 1024).cells(group, "5000-10c", fixed(5_000)),
            Shape::new(16, 1, 1024).cells(group, "5000-16c", fixed(5_000)),
            Shape::new(100, 1, 1024).cells(group, "5000-100c", fixed(5_000)),
            Shape::new(1_000, 1, 1024).cells(group, "5000-1000c", fixed(5_000)),
            Shape::new(16, 16, 1024).cells(group, "3000-16c-16rec", fixed(3_000)),
        ],
        Group::Closed => vec![
            Shape::new(1, 1, 1024).cells(group, "1c-x1", closed(1)),
            Shape::new(100, 1, 1024).cells(group, "100c-x1", closed(1)),
            Shape::new(16, 1, 1024).cells(group, "16c-x5", closed(5)),
            Shape::new(16, 16, 1024).cells(group, "16c-x5-16rec", closed(5)),
            Shape::new(16, 160, 100).cells(group, "16c-x5-160rec-100B", closed(5)),
            Shape::new(4, 64, 10 * 1024).cells(group, "4c-x5-64rec-10K", closed(5)),
        ],
        Group::Tail => vec![
            tail(16, 1).cells(group, "5000-16c", fixed(5_000)),
            tail(16, 16).cells(group, "16c-x5-16rec", closed(5)),
        ],
        Group::Perf | Group::Read | Group::Neighbour | Group::Start => Vec::new(),
    };
    cells.into_iter().flatten().collect()
}

/// What runs before anything is measured on a broker: single records, larger requests, and appends
/// that are synced.
pub(crate) fn warm_ups() -> [Row; 3] {
    let loads = [
        (1, Promise::Process),
        (16, Promise::Process),
        (1, Promise::Disk),
    ];
    loads.map(|(records, promise)| {
        let shape = Shape::new(16, records, 1024);
        shape.row("warm-up", promise, closed(5))
    })
}

/// Requests that fill a topic.
pub(crate) fn fill(topic: &str, partitions: i32) -> Row {
    let shape = Shape {
        partitions,
        ..Shape::new(4, 16, 1024)
    };
    Row {
        topic: Some(topic.to_owned()),
        ..shape.row("fill", Promise::Broker, closed(5))
    }
}

/// The load of which the neighbour is a consumer.
pub(crate) fn neighbour() -> Row {
    Shape::new(16, 1, 1024).row("neighbour", Promise::Broker, fixed(5_000))
}

/// The runs of `kafka-producer-perf-test`: along each axis from the middle, or all combinations.
pub(crate) fn perf(all: bool) -> Vec<PerfCell> {
    let sizes = [(100, "100B"), (1024, "1K"), (10 * 1024, "10K")];
    let mut cells = Vec::new();
    for (record_bytes, size) in sizes {
        for partitions in [1, 16, 256] {
            for acks in ["1", "all"] {
                for codec in ["none", "lz4", "zstd"] {
                    let usual = (partitions, acks) == (16, "all");
                    let middle = (size, codec) == ("1K", "none");
                    let near = middle && ((partitions == 16) || (acks == "all"));
                    if all || usual || near {
                        cells.push(PerfCell {
                            id: format!("perf/{size}-{partitions}p-acks-{acks}-{codec}"),
                            record_bytes,
                            partitions,
                            acks,
                            codec,
                        });
                    }
                }
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_cell_has_a_name_of_its_own() {
        let loads = Group::ALL.into_iter().flat_map(loads).map(|cell| cell.id);
        let perf = perf(true).into_iter().map(|cell| cell.id);
        let ids: Vec<String> = loads.chain(perf).collect();
        let different: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        assert_eq!(perf_count(true), 54);
        assert_eq!(perf_count(false), 12);
    }

    fn perf_count(all: bool) -> usize {
        perf(all).len()
    }
}
