//! One of two log directories fails while the broker serves: its partitions are offline, those of the
//! other are served as if nothing had happened, also by a start without it; and what was acknowledged
//! there comes back with the disk. One that is full is read, also behind a kill, and written again when
//! there is space.
//!
//! The failing disk is an image of this test's own, see `support::disk`; without root and loop
//! devices the test is skipped, loudly.

mod support;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::DescribeLogDirsRequest;

use rustix::process::Signal;

use support::batch::TestBatch;
use support::calls::{code, create_topic, fetch, produce, produce_ok, read_values};
use support::client::Client;
use support::disk::Disk;
use support::{BrokerOptions, Scratch, eventually};

const PARTITIONS: i32 = 8;

/// The partitions of `topic` in the directories whose path ends like this.
fn partitions_in(client: &mut Client, ending: &str, topic: &str) -> Vec<i32> {
    let every_topic = DescribeLogDirsRequest {
        topics: None,
        ..Default::default()
    };
    let response = client.call(&every_topic, 4);
    let found = response
        .results
        .iter()
        .find(|result| result.log_dir.ends_with(ending));
    let found = found.expect("the directory");
    assert_eq!(code(found.error_code), ErrorCode::None);
    let topics = found.topics.iter().filter(|found| *found.name == *topic);
    topics
        .flat_map(|found| {
            found
                .partitions
                .iter()
                .map(|partition| partition.partition_index)
        })
        .collect()
}

fn write(client: &mut Client, topic: &str, partition: i32, value: &str) -> ErrorCode {
    let batch = TestBatch::of_values([value]).encode();
    code(produce(client, topic, partition, batch).error_code)
}

fn values(client: &mut Client, topic: &str, partition: i32) -> Vec<Vec<u8>> {
    let values = read_values(client, topic, partition, 0);
    values.into_iter().map(|(_, value)| value).collect()
}

/// A sound first log directory, and a second one on the small disk.
fn on_both(scratch: &Scratch, disk: &Disk, second: &str) -> BrokerOptions {
    BrokerOptions::new(scratch.join("sound"))
        .under(disk.wrapper())
        .argument("--data")
        .argument(disk.mounted().join(second))
}

#[test]
fn a_failing_directory_takes_its_own_partitions_along_and_no_others() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::or_skip(&scratch) else {
        return;
    };
    let options = on_both(&scratch, &disk, "frail");
    survive(&disk, &options);
}

fn survive(disk: &Disk, options: &BrokerOptions) {
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "t", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        produce_ok(
            &mut client,
            "t",
            partition,
            TestBatch::of_values(["before"]).encode(),
        );
    }
    let sound = partitions_in(&mut client, "sound", "t");
    let frail = partitions_in(&mut client, "frail", "t");
    assert!(
        !sound.is_empty() && !frail.is_empty(),
        "{sound:?} {frail:?}"
    );
    assert_eq!(sound.len() + frail.len(), PARTITIONS as usize);

    disk.fail();
    for partition in &frail {
        assert_eq!(
            write(&mut client, "t", *partition, "lost"),
            ErrorCode::KafkaStorageError
        );
    }
    for partition in &sound {
        assert_eq!(
            write(&mut client, "t", *partition, "during"),
            ErrorCode::None
        );
        assert_eq!(
            values(&mut client, "t", *partition),
            [b"before".to_vec(), b"during".to_vec()]
        );
    }
    create_topic(&mut client, "later", 1, &[]);

    // Killed and started without that disk: the others are served, it is said what is not.
    broker.kill();
    let broker = options.start();
    broker.wait_for_line("frail");
    let mut client = Client::connect(broker.address());
    for partition in &sound {
        assert_eq!(
            write(&mut client, "t", *partition, "without"),
            ErrorCode::None
        );
    }
    for partition in &frail {
        assert_ne!(write(&mut client, "t", *partition, "lost"), ErrorCode::None);
        let fetched = fetch(&mut client, "t", *partition, 0);
        assert_ne!(code(fetched.error_code), ErrorCode::None);
    }
    broker.stop();
    come_back(disk, options, &sound, &frail);
}

fn come_back(disk: &Disk, options: &BrokerOptions, sound: &[i32], frail: &[i32]) {
    disk.mount_again();
    let broker = options.start();
    let mut client = Client::connect(broker.address());
    for partition in frail {
        // The refused write may have reached the log, but stands behind what was acknowledged.
        assert_eq!(values(&mut client, "t", *partition)[0], b"before");
        assert_eq!(
            write(&mut client, "t", *partition, "after"),
            ErrorCode::None
        );
    }
    for partition in sound {
        let kept = values(&mut client, "t", *partition);
        assert_eq!(kept, [&b"before"[..], b"during", b"without"]);
    }
    broker.stop();
}

/// The last line of the log tells that the next start has to scan the logs, and why.
#[test]
fn a_stop_that_cannot_close_the_logs_says_so_last() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::or_skip(&scratch) else {
        return;
    };
    let options = on_both(&scratch, &disk, "frail");
    for fails in [false, true] {
        let mut broker = options.start();
        let mut client = Client::connect(broker.address());
        if fails {
            disk.fail();
            for partition in 0..PARTITIONS {
                write(&mut client, "t", partition, "lost");
            }
        } else {
            create_topic(&mut client, "t", PARTITIONS, &[]);
        }
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
        let log = broker.log();
        let last = log.lines().last().expect("a log");
        let words = "stopped, not in order: the next start looks through the logs";
        assert!(last.contains("stopped"), "{log}");
        assert_eq!(last.contains(words), fails, "{log}");
    }
}

#[test]
fn a_full_second_directory_is_read_behind_a_kill_and_written_when_there_is_space() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::or_skip(&scratch) else {
        return;
    };
    let options = on_both(&scratch, &disk, "full");
    let mut broker = options.start();
    let mut client = Client::connect(broker.address());
    create_topic(&mut client, "t", PARTITIONS, &[]);
    for partition in 0..PARTITIONS {
        assert_eq!(
            write(&mut client, "t", partition, "before"),
            ErrorCode::None
        );
    }
    let full = partitions_in(&mut client, "full", "t");
    assert_eq!(full.len(), 4, "{full:?}");
    disk.fill();
    let mut expected = vec![vec![b"before".to_vec()]; PARTITIONS as usize];
    let mut refused = 0;
    for _ in 0..2 {
        broker.kill();
        broker = options.start();
        client = Client::connect(broker.address());
        for (partition, expected) in (0..).zip(&mut expected) {
            assert_eq!(values(&mut client, "t", partition), *expected);
            match write(&mut client, "t", partition, "while full") {
                ErrorCode::None => expected.push(b"while full".to_vec()),
                // Recovery cuts off what was made ready for more, so that some find a block.
                error => {
                    assert_eq!(error, ErrorCode::KafkaStorageError, "{partition}");
                    assert!(full.contains(&partition), "{partition}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0);
    disk.free();
    for (partition, expected) in (0..).zip(&mut expected) {
        eventually("a write where there is space", || {
            let written = write(&mut client, "t", partition, "after");
            (written == ErrorCode::None).then_some(())
        });
        expected.push(b"after".to_vec());
        assert_eq!(values(&mut client, "t", partition), *expected);
    }
    broker.stop();
}
