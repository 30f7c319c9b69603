//! The probe that keeps glommio from misjudging a device by the first file it sees: in a process of its own,
//! because the judgement is made once per thread and device.

use chronik_io::storage::{BlockBuffer, File};
use chronik_io::world::{OpenMode, World};
use chronik_io::{ExecutorOptions, ShardSeat, executor};

/// CPU time of the calling thread in hundredths of a second.
fn thread_cpu() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, numbers) = status.rsplit_once(')').unwrap();
    numbers
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum()
}

/// A write of a misjudged device spins for 4 ms of CPU; else it costs some 0.1 ms. The first file is empty, which
/// misleads glommio.
#[test]
fn writes_do_not_spin_although_the_first_file_is_empty() {
    const WRITES: u64 = 500;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("first");
    let main = move |seat: ShardSeat<(), ()>| {
        let path = path.clone();
        async move {
            let file = seat
                .world
                .open_file(&path, OpenMode::ReadWriteCreate)
                .await?;
            let before = thread_cpu();
            for position in 0..WRITES {
                let mut buffer = file.buffer(1);
                buffer.as_mut_slice().fill(1);
                file.write_at(buffer, position * 4096).await?;
                file.sync_data().await?;
            }
            let hundredths = thread_cpu() - before;
            assert!(
                hundredths < WRITES / 10,
                "{hundredths}/100 s of CPU for {WRITES} writes"
            );
            file.close().await
        }
    };
    executor::run(ExecutorOptions::new(1).unwrap(), main)
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "the guard leaves no file"
    );
}
