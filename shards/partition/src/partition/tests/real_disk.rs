//! The same partition on real direct I/O: random appends and reads arrive byte for byte, through
//! rolls, a clean stop and a start without one.

use std::io;
use std::path::{Path, PathBuf};

use chronik_io::World;
use chronik_io::direct::DirectWorld;
use chronik_io::executor::{ExecutorOptions, ShardSeat, run};
use chronik_io::simulated::Random;
use chronik_log::recovery::RecoveryHint;
use chronik_protocol::record::CheckedBatch;
use chronik_terms::topic_settings::Durability;
use chronik_terms::{Acks, OffsetTarget};

use super::rig::{Rig, clean, produced_batch, small_config};

/// A directory of this test alone on a disk (`/tmp` may be memory without direct I/O).
fn scratch(name: &str) -> PathBuf {
    let target = std::env::current_exe().expect("a test binary");
    let target = target.parent().expect("in a directory");
    target.join(format!("{name}-{}", std::process::id()))
}

async fn lives(world: &DirectWorld, dir: &Path, durability: Durability) {
    let mut random = Random::new(42);
    let mut config = small_config(durability);
    config.segment_bytes = 200 << 10;
    let mut hint = RecoveryHint::default();
    let mut appended: Vec<CheckedBatch> = Vec::new();
    let mut sequence = 0;
    for life in 0..4 {
        let opened = Rig::open(world, dir, &config, hint, life).await;
        let (rig, report) = opened.expect("opens");
        assert_eq!(report.clean, hint.clean);
        assert_eq!(rig.read_all(0).await, appended, "life {life}");
        let mut tags = Vec::new();
        for n in 0..60 {
            let size = random.below(if n % 10 == 0 { 60_000 } else { 3000 }) as usize;
            let value = vec![n as u8; size];
            let batch = produced_batch((9, 0, sequence), &[&value, b"second"]);
            sequence += 2;
            tags.push((rig.send(&batch, Acks::All), batch));
            if n % 7 == 0 {
                rig.quiet().await;
            }
        }
        rig.quiet().await;
        for (tag, batch) in tags {
            let offset = rig.result(tag).expect("answered").base_offset;
            appended.push(batch.with_offsets(offset, life));
        }
        assert_eq!(rig.read_all(0).await, appended);
        let latest = rig.list(OffsetTarget::Latest).await.offset;
        assert_eq!(latest, 120 * i64::from(life + 1));
        if life % 2 == 0 {
            hint = clean(&rig.close().await.expect("closes"));
        } else {
            hint.clean = false;
        }
    }
}

fn on_a_real_disk(name: &'static str, durability: Durability) {
    let dir = scratch(name);
    let options = ExecutorOptions {
        pin: false,
        ..ExecutorOptions::new(1).expect("cores")
    };
    let data = dir.clone();
    let running = run(options, move |seat: ShardSeat<(), ()>| {
        let dir = data.clone();
        async move {
            lives(&seat.world, &dir.join("orders-0"), durability).await;
            seat.world.remove_dir_all(&dir).await?;
            io::Result::Ok(())
        }
    });
    running.expect("starts").join().expect("ends well");
    assert!(!dir.exists());
}

#[test]
fn appends_arrive_byte_for_byte_under_disk() {
    on_a_real_disk("log-disk", Durability::Disk);
}

#[test]
fn appends_arrive_byte_for_byte_under_process() {
    on_a_real_disk("log-process", Durability::Process);
}
