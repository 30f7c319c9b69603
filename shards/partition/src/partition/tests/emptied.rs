//! Directories in which Kafka's cleaner has left segments without a byte.

use std::path::Path;

use chronik_io::simulated::Simulation;
use chronik_log::directory::{FileKind, segment_path};
use chronik_log::recovery::RecoveryHint;
use chronik_terms::Isolation;
use chronik_terms::topic_settings::{CleanupPolicy, Durability, TopicConfig};

use super::rig::{Rig, clean, small_config, timed_batch};

const DIR: &str = "/data/orders-0";

#[test]
fn a_reader_gets_past_any_number_of_empty_segments() {
    let config = TopicConfig {
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        segment_bytes: 4 << 10,
        ..small_config(Durability::Disk)
    };
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    let dir = Path::new(DIR);
    let (hint, bases) = simulation.run(async {
        let hint = RecoveryHint::default();
        let (rig, _) = Rig::open(&world, dir, &config, hint, 0)
            .await
            .expect("opens");
        let mut bases: Vec<i64> = Vec::new();
        while bases.len() < 24 {
            rig.must_append(&timed_batch(&[&[7; 1500]], 5)).await;
            rig.quiet().await;
            bases = rig.with(|p, _| p.sealed.iter().map(|s| s.base_offset).collect());
        }
        let hint = clean(&rig.close().await.expect("closes"));
        (hint, bases)
    });
    // The second to the twentieth, and the last ones before the active one.
    let emptied = bases.iter().take(20).skip(1).chain(&bases[22..]);
    for base in emptied {
        for kind in [FileKind::Log, FileKind::Index, FileKind::TimeIndex] {
            let there = simulation.damage(&segment_path(dir, *base, kind), Vec::clear);
            assert!(there, "{kind:?} of {base}");
        }
    }
    simulation.run(async {
        let (rig, _) = Rig::open(&world, dir, &config, hint, 0)
            .await
            .expect("opens");
        let left = rig.read_all(0).await;
        let offsets: Vec<i64> = left.iter().map(|batch| batch.header.base_offset).collect();
        let end = rig.log_end();
        let expected = (bases[0]..bases[1])
            .chain(bases[20]..bases[22])
            .chain(rig.with(|p, _| p.active.base_offset())..end);
        assert_eq!(offsets, expected.collect::<Vec<_>>());
        let available =
            |offset| rig.with(|p, _| p.bytes_available(offset, Isolation::ReadUncommitted));
        assert!(available(bases[1]) > 0 && available(end) == 0);
    });
}
