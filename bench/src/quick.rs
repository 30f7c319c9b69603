//! The rows of the quick benchmark: 1 and 16 partitions, both promises, five loads. Later results are compared by
//! them, so they never change.

use chronik_protocol::record::Compression;

use crate::load::Pace;
use crate::row::{Limits, Promise, Row, print_heading};
use crate::target::Target;

struct Shape {
    name: &'static str,
    connections: usize,
    pace: Pace,
    records: usize,
    record_bytes: usize,
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "5,000 req/s, 16 conn",
        connections: 16,
        pace: Pace::Fixed {
            requests_per_second: 5_000,
        },
        records: 1,
        record_bytes: 1024,
    },
    Shape {
        name: "closed 16 conn x 5",
        connections: 16,
        pace: Pace::Closed { in_flight: 5 },
        records: 1,
        record_bytes: 1024,
    },
    Shape {
        name: "closed 16 x 5, 16 rec",
        connections: 16,
        pace: Pace::Closed { in_flight: 5 },
        records: 16,
        record_bytes: 1024,
    },
    Shape {
        name: "closed 16 x 1, 64x10K",
        connections: 16,
        pace: Pace::Closed { in_flight: 1 },
        records: 64,
        record_bytes: 10 * 1024,
    },
    Shape {
        name: "closed 100 conn x 1",
        connections: 100,
        pace: Pace::Closed { in_flight: 1 },
        records: 1,
        record_bytes: 1024,
    },
];

/// Runs every row whose title contains `only`; false when one of them failed.
pub(crate) fn run(target: &Target, limits: &Limits, only: &str) -> bool {
    print_heading();
    let rows = rows().filter(|row| row.title().contains(only));
    rows.filter(|row| !row.run(target, limits)).count() == 0
}

fn rows() -> impl Iterator<Item = Row> {
    let topics = [1, 16].into_iter().flat_map(|partitions| {
        [Promise::Disk, Promise::Process].map(|promise| (partitions, promise))
    });
    topics.flat_map(|(partitions, promise)| {
        SHAPES.iter().map(move |shape| Row {
            name: shape.name.to_owned(),
            topic: None,
            partitions,
            promise,
            configs: Vec::new(),
            connections: shape.connections,
            consumers: 0,
            pace: shape.pace,
            records: shape.records,
            record_bytes: shape.record_bytes,
            keys: 0,
            acks: -1,
            codec: Compression::None,
        })
    })
}
