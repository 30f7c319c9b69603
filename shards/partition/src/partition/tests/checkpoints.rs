//! Numbers of the data directory's checkpoints that the log does not bear out: what was acknowledged
//! stays.

use std::path::Path;

use chronik_io::World;
use chronik_io::simulated::{SimulatedWorld, Simulation};
use chronik_log::recovery::RecoveryHint;
use chronik_terms::Now;
use chronik_terms::topic_settings::{CleanupPolicy, Durability, TopicConfig};

use super::rig::{Rig, clean, small_config, timed_batch};

const DIR: &str = "/data/orders-0";

fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 4 << 10,
        ..small_config(Durability::Disk)
    }
}

/// A log of several segments, closed; gives its end and what the checkpoints say of it.
async fn several_segments(world: &SimulatedWorld) -> (i64, RecoveryHint) {
    let dir = Path::new(DIR);
    let opened = Rig::open(world, dir, &config(), RecoveryHint::default(), 0).await;
    let (rig, _) = opened.expect("opens");
    for _ in 0..20 {
        rig.must_append(&timed_batch(&[&[7; 1500]], 5)).await;
        rig.quiet().await;
    }
    assert!(rig.with(|partition, _| partition.sealed.iter().count()) > 3);
    let end = rig.log_end();
    (end, clean(&rig.close().await.expect("closes")))
}

#[test]
fn a_log_that_ends_before_its_start_keeps_every_record() {
    for is_clean in [true, false] {
        let mut simulation = Simulation::new(3);
        let world = simulation.world();
        simulation.run(async {
            let (end, told) = several_segments(&world).await;
            let hint = RecoveryHint {
                clean: is_clean,
                log_start_offset: end + 7,
                ..told
            };
            let opened = Rig::open(&world, Path::new(DIR), &config(), hint, 1).await;
            let (rig, report) = opened.expect("opens");
            assert_eq!((report.log_start, report.log_end), (0, end));
            assert_eq!(report.dropped_segments, 0);
            assert!(rig.with(|partition, _| partition.corrects_log_start()));
            let found = rig.read_all(0).await;
            assert_eq!(found.len() as i64, end, "clean: {is_clean}");
            assert_eq!(rig.must_append(&timed_batch(&[b"more"], 5)).await, end);
        });
    }
}

#[test]
fn a_log_without_a_record_begins_where_its_start_is() {
    let mut simulation = Simulation::new(4);
    let world = simulation.world();
    simulation.run(async {
        let dir = Path::new(DIR);
        let first = Rig::open(&world, dir, &config(), RecoveryHint::default(), 0).await;
        let told = clean(&first.expect("opens").0.close().await.expect("closes"));
        let hint = RecoveryHint {
            log_start_offset: 30,
            ..told
        };
        let (rig, report) = Rig::open(&world, dir, &config(), hint, 1)
            .await
            .expect("opens");
        assert_eq!((report.log_start, report.log_end), (30, 30));
        assert!(!rig.with(|partition, _| partition.corrects_log_start()));
    });
}

#[test]
fn a_recovery_point_behind_the_end_costs_nothing() {
    let mut simulation = Simulation::new(5);
    let world = simulation.world();
    simulation.run(async {
        let (end, told) = several_segments(&world).await;
        let hint = RecoveryHint {
            clean: false,
            recovery_point: end + 100,
            ..told
        };
        let opened = Rig::open(&world, Path::new(DIR), &config(), hint, 1).await;
        let (rig, report) = opened.expect("opens");
        assert_eq!((report.log_start, report.log_end), (0, end));
        assert_eq!(report.quarantined, 0);
        assert_eq!(rig.read_all(0).await.len() as i64, end);
    });
}

#[test]
fn what_the_cleaner_cannot_have_done_is_done() {
    let config = TopicConfig {
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        min_cleanable_dirty_ratio: 0.01,
        ..config()
    };
    let mut simulation = Simulation::new(6);
    let world = simulation.world();
    simulation.run(async {
        let (end, told) = several_segments(&world).await;
        let dir = Path::new(DIR);
        for cleaned_offset in [end + 50, end, 0] {
            let (hints, how) = ((told, None), (1, cleaned_offset));
            let opened = Rig::open_cleaned(&world, dir, &config, hints, how).await;
            let (rig, _) = opened.expect("opens");
            let now = Now {
                wall_ms: world.now_ms(),
                mono_ns: world.monotonic_ns(),
            };
            let due = rig.with(|partition, _| {
                partition.plan_cleaning(now);
                partition.next_cleaning_ns().is_some()
            });
            assert!(due, "{cleaned_offset} of {end}");
            rig.close().await.expect("closes");
        }
    });
}
