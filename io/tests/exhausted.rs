//! Running out of descriptors: in a process of its own, because the limit is the process's.

use chronik_io::net::{ListenLimits, Listener};
use chronik_io::{ExecutorOptions, ShardSeat, executor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// With no descriptor left a connection waits in the backlog; it is accepted when there is one.
#[test]
fn a_connection_survives_running_out_of_descriptors() {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.address();
    let (accepting, incoming) = listener.start(1, ListenLimits::default()).unwrap();
    let client = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let before = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(64),
            maximum: before.maximum,
        },
    )
    .unwrap();
    let fillers: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(!fillers.is_empty() && fillers.len() < 64);
    rustix::net::connect(&client, &address).unwrap();
    // Well past the first refused attempt; the outcome does not depend on it.
    std::thread::sleep(std::time::Duration::from_millis(150));
    drop(fillers);
    setrlimit(Resource::Nofile, before).unwrap();
    let incoming = Arc::new(Mutex::new(incoming));
    let main = move |_: ShardSeat<(), ()>| {
        let incoming = incoming.lock().unwrap().pop();
        async move {
            let accepted = incoming.expect("one shard").next().await;
            assert!(accepted.is_some());
            Ok(())
        }
    };
    executor::run(ExecutorOptions::new(1).unwrap(), main)
        .unwrap()
        .join()
        .unwrap();
    accepting.stop();
}
