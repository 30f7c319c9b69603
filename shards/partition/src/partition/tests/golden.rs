//! A partition directory that Apache Kafka 4.3.1 wrote (`tests/golden/golden-0`): two
//! idempotent Java producers, one of them with lz4, `index.interval.bytes=300`, stopped cleanly.

use std::path::Path;

use chronik_io::World;
use chronik_io::simulated::{SimulatedWorld, Simulation};
use chronik_log::checkpoint::{parse_partition_metadata, partition_metadata_bytes};
use chronik_log::epochs::LeaderEpochs;
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::ErrorCode;
use chronik_terms::OffsetTarget;
use chronik_terms::topic_settings::TopicConfig;

use super::rig::{ID, Rig, clean};

const DIR: &str = "/data/golden-0";
const END: i64 = 190;
const LOG: &str = "00000000000000000000.log";
const INDEX: &str = "00000000000000000000.index";
const TIME_INDEX: &str = "00000000000000000000.timeindex";
const SNAPSHOT: &str = "00000000000000000190.snapshot";
const EPOCHS: &str = "leader-epoch-checkpoint";

fn golden(name: &str) -> &'static [u8] {
    match name {
        LOG => include_bytes!("../../../tests/golden/golden-0/00000000000000000000.log"),
        INDEX => include_bytes!("../../../tests/golden/golden-0/00000000000000000000.index"),
        TIME_INDEX => {
            include_bytes!("../../../tests/golden/golden-0/00000000000000000000.timeindex")
        }
        SNAPSHOT => include_bytes!("../../../tests/golden/golden-0/00000000000000000190.snapshot"),
        EPOCHS => include_bytes!("../../../tests/golden/golden-0/leader-epoch-checkpoint"),
        _ => panic!("no fixture {name}"),
    }
}

async fn lay_out(world: &SimulatedWorld, names: &[&str]) {
    world.create_dir_all(Path::new(DIR)).await.expect("creates");
    let metadata = partition_metadata_bytes(ID.topic_id);
    let path = Path::new(DIR).join("partition.metadata");
    world
        .write_file_atomic(&path, &metadata)
        .await
        .expect("writes");
    for name in names {
        let path = Path::new(DIR).join(name);
        world
            .write_file_atomic(&path, golden(name))
            .await
            .expect("writes");
    }
}

fn config() -> TopicConfig {
    TopicConfig {
        index_interval_bytes: 300,
        ..TopicConfig::default()
    }
}

#[test]
fn the_partition_metadata_is_kafkas_to_the_byte() {
    let bytes = include_bytes!("../../../tests/golden/golden-0/partition.metadata");
    let id = parse_partition_metadata(bytes).expect("parses");
    assert_eq!(partition_metadata_bytes(id), bytes);
    assert_eq!(
        LeaderEpochs::parse(golden(EPOCHS))
            .expect("parses")
            .to_bytes(),
        golden(EPOCHS)
    );
}

#[test]
fn indexes_and_snapshot_made_from_the_log_alone_are_kafkas_to_the_byte() {
    let mut simulation = Simulation::new(1);
    let world = simulation.world();
    simulation.run(async {
        lay_out(&world, &[LOG]).await;
        let hint = RecoveryHint::default();
        let opened = Rig::open(&world, Path::new(DIR), &config(), hint, 0).await;
        let (rig, report) = opened.expect("opens");
        assert_eq!((report.log_end, report.cut_bytes), (END, 0));
        let read = rig.read_all(0).await;
        let bytes: Vec<u8> = read.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
        assert!(bytes == golden(LOG));
        let rig_again = rig.clone();
        rig.close().await.expect("closes");
        for name in [LOG, INDEX, TIME_INDEX, SNAPSHOT, EPOCHS] {
            assert!(rig_again.file(name).await == golden(name), "{name}");
        }
    });
}

#[test]
fn a_directory_that_kafka_closed_is_trusted_and_left_as_it_is() {
    let mut simulation = Simulation::new(2);
    let world = simulation.world();
    simulation.run(async {
        let all = [LOG, INDEX, TIME_INDEX, SNAPSHOT, EPOCHS];
        lay_out(&world, &all).await;
        let hint = RecoveryHint {
            clean: true,
            recovery_point: END,
            log_start_offset: 0,
            durable: false,
        };
        let opened = Rig::open(&world, Path::new(DIR), &config(), hint, 1).await;
        let (rig, report) = opened.expect("opens");
        assert!(report.clean && !report.rebuilt_producers && !report.rebuilt_epochs);
        let earliest = rig.list(OffsetTarget::Earliest).await;
        assert_eq!((earliest.error, earliest.offset), (ErrorCode::None, 0));
        let latest = rig.list(OffsetTarget::MaxTimestamp).await;
        assert!(
            latest.offset >= 150,
            "the second producer's records are the newest: {latest:?}"
        );
        let rig_again = rig.clone();
        let report = rig.close().await.expect("closes");
        assert_eq!(clean(&report), hint);
        for name in all {
            assert!(rig_again.file(name).await == golden(name), "{name}");
        }
    });
}
