//! Retention: what goes when, what stays, and what lies on the disk meanwhile.

use std::path::Path;
use std::time::Duration;

use chronik_io::World;
use chronik_io::simulated::{Fault, Operation, SimulatedWorld, Simulation};
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_terms::OffsetTarget;
use chronik_terms::topic_settings::{CleanupPolicy, Durability, TopicConfig};

use super::rig::{RETENTION_CHECK_MS, Rig, clean, small_config, timed_batch};

const DIR: &str = "/data/orders-0";
const HOUR_MS: u64 = 3_600_000;

fn config() -> TopicConfig {
    TopicConfig {
        retention_ms: None,
        file_delete_delay_ms: 60_000,
        ..small_config(Durability::Disk)
    }
}

async fn open(
    world: &SimulatedWorld,
    config: &TopicConfig,
    hint: RecoveryHint,
) -> Rig<SimulatedWorld> {
    Rig::open(world, Path::new(DIR), config, hint, 0)
        .await
        .expect("opens")
        .0
}

/// Appends until there are `segments` sealed ones; every batch is as old as told.
async fn fill(rig: &Rig<SimulatedWorld>, segments: usize, timestamp: impl Fn(i64) -> i64) {
    while sealed(rig).len() < segments {
        let at = rig.log_end();
        rig.must_append(&timed_batch(&[&[7; 2000]], timestamp(at)))
            .await;
        rig.quiet().await;
    }
}

fn sealed(rig: &Rig<SimulatedWorld>) -> Vec<i64> {
    rig.with(|partition, _| partition.sealed.iter().map(|s| s.base_offset).collect())
}

fn log_start(rig: &Rig<SimulatedWorld>) -> i64 {
    rig.with(|partition, _| partition.log_start())
}

async fn names(world: &SimulatedWorld, suffix: &str) -> Vec<String> {
    let entries = world.list_dir(Path::new(DIR)).await.expect("lists");
    let names = entries
        .into_iter()
        .filter_map(|entry| entry.name.into_string().ok());
    names.filter(|name| name.ends_with(suffix)).collect()
}

/// Sleeps from look to look until something has gone, and waits for the files.
async fn next_look(world: &SimulatedWorld, rig: &Rig<SimulatedWorld>) {
    let before = log_start(rig);
    // Looks that were planned for a segment while it grew come early; there are few of them.
    for _ in 0..4 {
        look(world, rig).await;
        if log_start(rig) > before {
            return;
        }
    }
    panic!("nothing has gone");
}

async fn look(world: &SimulatedWorld, rig: &Rig<SimulatedWorld>) {
    let due_ns = rig
        .with(|p, _| p.next_retention_ns())
        .expect("a look is planned");
    let grid_ns = RETENTION_CHECK_MS * 1_000_000;
    assert!(due_ns.is_multiple_of(grid_ns), "looks fall on the grid");
    world.sleep_until(due_ns).await;
    assert!(rig.tend());
    rig.quiet().await;
}

#[test]
fn segments_go_when_their_greatest_timestamp_is_too_old() {
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    simulation.run(async {
        let config = TopicConfig {
            retention_ms: Some(HOUR_MS),
            ..config()
        };
        let rig = open(&world, &config, RecoveryHint::default()).await;
        let began_ms = world.now_ms();
        // A second between batches; the clock stands.
        fill(&rig, 3, |at| began_ms + at * 1000).await;
        let bases = sealed(&rig);
        let second_ms = began_ms + (bases[1] - 1) * 1000;
        next_look(&world, &rig).await;
        let late_ms = world.now_ms() - second_ms - i64::try_from(HOUR_MS).expect("small");
        assert!(
            (1..=2 * RETENTION_CHECK_MS as i64).contains(&late_ms),
            "{late_ms}"
        );
        assert_eq!(
            (log_start(&rig), sealed(&rig)),
            (bases[1], bases[1..].to_vec())
        );
        assert_eq!(rig.log_start_told(), Some(bases[1]));
        assert_eq!(rig.read(0, 1000).await.error, ErrorCode::OffsetOutOfRange);
        assert_eq!(
            rig.read_all(bases[1]).await.len() as i64,
            rig.log_end() - bases[1]
        );
    });
}

#[test]
fn a_log_all_of_which_is_due_is_emptied_and_goes_on() {
    let mut simulation = Simulation::new(2);
    let world = simulation.world();
    simulation.run(async {
        let config = TopicConfig {
            retention_ms: Some(HOUR_MS),
            ..config()
        };
        let rig = open(&world, &config, RecoveryHint::default()).await;
        assert_eq!(
            rig.with(|p, _| p.next_retention_ns()),
            None,
            "an empty log has nothing to give"
        );
        let now_ms = world.now_ms();
        fill(&rig, 2, |_| now_ms).await;
        let end = rig.log_end();
        next_look(&world, &rig).await;
        assert_eq!((log_start(&rig), rig.log_end()), (end, end));
        assert_eq!(names(&world, ".log").await, [format!("{end:020}.log")]);
        assert_eq!(
            rig.with(|p, _| p.next_retention_ns()),
            None,
            "nothing is left to look at"
        );
        assert_eq!(
            rig.must_append(&timed_batch(&[b"more"], world.now_ms()))
                .await,
            end
        );
        let earliest = rig.list(OffsetTarget::Earliest).await;
        assert_eq!(earliest.offset, end);
        let hint = clean(&rig.close().await.expect("closes"));
        let again = open(&world, &config, hint).await;
        assert_eq!((log_start(&again), again.log_end()), (end, end + 1));
    });
}

#[test]
fn the_log_is_kept_as_long_as_it_may_be_and_no_shorter() {
    let mut simulation = Simulation::new(3);
    let world = simulation.world();
    simulation.run(async {
        let config = TopicConfig {
            retention_bytes: Some(80 << 10),
            ..config()
        };
        let rig = open(&world, &config, RecoveryHint::default()).await;
        for at in 0..200 {
            rig.must_append(&timed_batch(&[&[7; 2000]], at)).await;
            rig.quiet().await;
            let size = |rig: &Rig<SimulatedWorld>| rig.with(|p, _| p.describe().size_bytes);
            let oldest =
                rig.with(|p, _| p.sealed.front().map_or(i64::MAX, |s| s.size_bytes as i64));
            let over = size(&rig) - (80 << 10) >= oldest;
            assert_eq!(
                rig.with(|p, _| p.next_retention_ns()).is_some(),
                over,
                "at {at}"
            );
            if over {
                let before = size(&rig);
                next_look(&world, &rig).await;
                assert_eq!(size(&rig), before - oldest);
                assert!(size(&rig) >= 80 << 10);
            }
        }
        assert!(log_start(&rig) > 0);
    });
}

/// What goes for its age counts for the size as well.
#[test]
fn a_log_that_age_has_made_small_enough_loses_nothing_to_its_size() {
    let mut simulation = Simulation::new(8);
    let world = simulation.world();
    simulation.run(async {
        let rig = open(&world, &config(), RecoveryHint::default()).await;
        fill(&rig, 1, |_| 1).await;
        let small = TopicConfig {
            segment_bytes: 5 << 10,
            ..config()
        };
        rig.configure(&small);
        let now_ms = world.now_ms();
        fill(&rig, 5, |_| now_ms).await;
        let bases = sealed(&rig);
        let size = rig.with(|p, _| p.describe().size_bytes);
        rig.configure(&TopicConfig {
            retention_ms: Some(HOUR_MS),
            retention_bytes: Some(u64::try_from(size).expect("a size") - (10 << 10)),
            ..small
        });
        next_look(&world, &rig).await;
        // The second holds the batch that made the first one end, and is as old.
        assert_eq!(sealed(&rig), bases[2..]);
    });
}

#[test]
fn files_are_renamed_at_once_and_removed_later() {
    let mut simulation = Simulation::new(4);
    let world = simulation.world();
    simulation.run(async {
        let config = config();
        let rig = open(&world, &config, RecoveryHint::default()).await;
        fill(&rig, 3, |at| at).await;
        let bases = sealed(&rig);
        // A reader has the file open, and goes on.
        rig.delete_records(bases[2]);
        rig.quiet().await;
        let kinds = [".index", ".log", ".timeindex"];
        let deleted = |base: i64| kinds.map(|kind| format!("{base:020}{kind}.deleted"));
        let mut expected: Vec<String> = bases[..2].iter().flat_map(|base| deleted(*base)).collect();
        expected.push(format!("{:020}.snapshot.deleted", bases[1]));
        expected.sort();
        assert_eq!(names(&world, ".deleted").await, expected);
        assert!(!rig.tend(), "it is not time yet");
        world.sleep_for(Duration::from_mins(1)).await;
        assert!(rig.tend());
        rig.quiet().await;
        assert_eq!(names(&world, ".deleted").await, Vec::<String>::new());
    });
}

#[test]
fn settings_hold_as_soon_as_they_are_changed() {
    let mut simulation = Simulation::new(5);
    let world = simulation.world();
    simulation.run(async {
        let rig = open(&world, &config(), RecoveryHint::default()).await;
        let now_ms = world.now_ms();
        fill(&rig, 2, |_| now_ms).await;
        assert_eq!(rig.with(|p, _| p.next_retention_ns()), None);
        let hour = TopicConfig {
            retention_ms: Some(HOUR_MS),
            ..config()
        };
        rig.configure(&hour);
        let hour_ns = rig.with(|p, _| p.next_retention_ns()).expect("planned");
        rig.configure(&TopicConfig {
            retention_ms: Some(HOUR_MS / 2),
            ..config()
        });
        assert!(rig.with(|p, _| p.next_retention_ns()).expect("planned") < hour_ns);
        // Compacted logs lose nothing to age.
        rig.configure(&TopicConfig {
            cleanup_policy: CleanupPolicy {
                delete: false,
                compact: true,
            },
            ..hour.clone()
        });
        assert_eq!(rig.with(|p, _| p.next_retention_ns()), None);
        rig.configure(&hour);
        world.sleep_for(Duration::from_hours(2)).await;
        next_look(&world, &rig).await;
        assert_eq!(log_start(&rig), rig.log_end());
    });
}

#[test]
fn after_a_restart_the_age_is_read_from_the_time_index() {
    for spoil in [false, true] {
        let mut simulation = Simulation::new(6);
        let world = simulation.world();
        simulation.run(async {
            let config = TopicConfig {
                retention_ms: Some(HOUR_MS),
                ..config()
            };
            let rig = open(&world, &config, RecoveryHint::default()).await;
            let began_ms = world.now_ms();
            fill(&rig, 3, |at| began_ms + at * 1000).await;
            let bases = sealed(&rig);
            let hint = clean(&rig.close().await.expect("closes"));
            if spoil {
                let path = Path::new(DIR).join(format!("{:020}.timeindex", 0));
                world
                    .write_file_atomic(&path, &[0; 36])
                    .await
                    .expect("written");
            }
            let rig = open(&world, &config, hint).await;
            look(&world, &rig).await;
            assert_eq!(log_start(&rig), 0, "nothing is old enough");
            next_look(&world, &rig).await;
            assert_eq!(log_start(&rig), bases[1]);
        });
    }
}

#[test]
fn what_could_not_be_read_once_is_read_by_the_next_look() {
    let mut simulation = Simulation::new(9);
    let world = simulation.world();
    let config = TopicConfig {
        retention_ms: Some(HOUR_MS),
        ..config()
    };
    let (rig, bases) = simulation.run(async {
        let rig = open(&world, &config, RecoveryHint::default()).await;
        fill(&rig, 2, |at| at).await;
        let bases = sealed(&rig);
        let hint = clean(&rig.close().await.expect("closes"));
        (open(&world, &config, hint).await, bases)
    });
    simulation
        .faults()
        .script(Operation::Read, ".timeindex", 0, Fault::Broken);
    simulation.run(async {
        look(&world, &rig).await;
        assert_eq!((log_start(&rig), sealed(&rig)), (0, bases));
        // Nothing is appended.
        next_look(&world, &rig).await;
        assert_eq!(log_start(&rig), rig.log_end());
    });
}

#[test]
fn a_rename_that_fails_is_finished_by_the_next_start() {
    let mut simulation = Simulation::new(7);
    let world = simulation.world();
    let (end, bases) = simulation.run(async {
        let rig = open(&world, &config(), RecoveryHint::default()).await;
        fill(&rig, 3, |at| at).await;
        (rig.log_end(), sealed(&rig))
    });
    let hint = RecoveryHint {
        clean: false,
        recovery_point: bases[2],
        log_start_offset: 0,
        durable: false,
    };
    let (rig, _) = simulation
        .run(Rig::open(&world, Path::new(DIR), &config(), hint, 0))
        .expect("opens");
    simulation
        .faults()
        .script(Operation::Directory, ".index", 0, Fault::Broken);
    simulation.run(async {
        rig.delete_records(bases[2]);
        rig.quiet().await;
        // The log is as it should be; what is left on the disk is not part of it.
        assert_eq!(rig.read_all(bases[2]).await.len() as i64, end - bases[2]);
    });
    let mut simulation = simulation.kill();
    let world = simulation.world();
    simulation.run(async {
        let rig = open(&world, &config(), hint).await;
        assert_eq!(names(&world, ".deleted").await, Vec::<String>::new());
        assert!(log_start(&rig) > 0 && rig.log_end() == end);
        rig.read_all(log_start(&rig)).await;
    });
}
