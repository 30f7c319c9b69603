//! An idle broker uses no processor time, with 4 shards, 100 topics and 50 silent connections. The bound refuses only a
//! broker that polls.
//!
//! `CHRONIK_IDLE_SECONDS` sets the length of the measurement (3; `make idle` takes 20).

mod support;

use std::time::Duration;

use chronik_protocol::messages::ApiVersionsRequest;

use support::calls::{FETCH_BY_NAME, creatable, create_topics, fetch_request, produce_ok};
use support::client::Client;
use support::{BrokerOptions, Scratch, measured};

const TOPICS: usize = 100;
const CONNECTIONS: usize = 50;

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
    let before = measured::processor_time(broker.pid());
    assert!(broker.wait_for_exit(Duration::from_secs(seconds)).is_none());
    let spent = measured::processor_time(broker.pid()) - before;
    // 1 % of a core is what a timer of 1 ms costs.
    measured::time_within(
        format_args!("an idle broker in {seconds} s"),
        spent,
        Duration::from_millis(10 + seconds * 10),
    );
    drop(idle);
    broker.stop();
}
