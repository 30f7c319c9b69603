//! An idle broker does nothing: 4 shards, 100 topics and 50 connections that say nothing cost no
//! processor time. The measured time is printed; the test only refuses what a broker that polls
//! would need.
//!
//! `CHRONIK_IDLE_SECONDS` sets the length of the measurement (3; `make idle` takes 20).

mod support;

use std::time::Duration;

use chronik_protocol::messages::ApiVersionsRequest;

use support::calls::{FETCH_BY_NAME, creatable, create_topics, fetch_request, produce_ok};
use support::client::Client;
use support::{BrokerOptions, Scratch};

const TOPICS: usize = 100;
const CONNECTIONS: usize = 50;

/// User and system time of the process so far.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The command's name in parentheses may hold spaces: count from behind it.
    let (_, fields) = stat.rsplit_once(')').expect("a command's name");
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = times
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

#[test]
fn an_idle_broker_uses_no_processor_time() {
    let seconds = std::env::var("CHRONIK_IDLE_SECONDS").ok();
    let seconds = seconds.map_or(3, |seconds| seconds.parse().expect("a number of seconds"));
    let scratch = Scratch::new();
    let options = BrokerOptions::new(scratch.join("data")).set("chronik.shards", 4);
    let mut broker = options.start();
    let mut admin = Client::connect(broker.address());
    let names: Vec<String> = (0..TOPICS).map(|number| format!("idle-{number}")).collect();
    let topics = names.iter().map(|name| creatable(name, 1, &[])).collect();
    for result in create_topics(&mut admin, topics).expect("an answer") {
        assert_eq!(result.error_code, 0, "{result:?}");
    }
    for name in &names {
        let batch = support::batch::TestBatch::of_values(["once"]).encode();
        produce_ok(&mut admin, name, 0, batch);
    }
    let mut idle: Vec<Client> = (0..CONNECTIONS)
        .map(|_| Client::connect(broker.address()))
        .collect();
    for (number, client) in idle.iter_mut().enumerate() {
        client.call(&ApiVersionsRequest::default(), 0);
        if number % 5 == 0 {
            // Some wait for records, as consumers at the end of a partition do.
            let mut request = fetch_request(&names[number], 0, 1);
            request.max_wait_ms = i32::MAX;
            client.send(&request, FETCH_BY_NAME);
        }
    }
    // What the set-up left to do (writes behind, zeroing ahead) is done after a moment.
    assert!(broker.wait_for_exit(Duration::from_secs(2)).is_none());
    let before = processor_time(broker.pid());
    assert!(broker.wait_for_exit(Duration::from_secs(seconds)).is_none());
    let spent = processor_time(broker.pid()) - before;
    let share = spent.as_secs_f64() / seconds as f64;
    eprintln!(
        "idle: {spent:?} of processor time in {seconds} s, {:.2} % of a core",
        share * 100.0
    );
    // One tick of the kernel's accounting is 10 ms; 1 % of a core is what a timer of 1 ms costs.
    assert!(
        spent <= Duration::from_millis(10 + seconds * 10),
        "{spent:?} in {seconds} s"
    );
    drop(idle);
    broker.stop();
}
