//! What waits keeps nobody out: whatever mix of waiting requests, unfinished frames and answers that
//! nobody takes there is, who asks for little is answered, and who asks for much gets its turn.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use chronik_io::{Stream, World};

use super::{Bench, Client, ECHO_LATER, ECHO_NOW, FETCH_PARKED, FRAME_BYTES_MAX, NEVER, echo};

const BUDGET_BYTES: usize = 2 << 20;
/// Longest that an unfinished frame may stand in the way, and a little.
const TURN_NS_MAX: u64 = 12_000_000_000;

impl Client {
    /// Sends from a task of its own, for nobody may be reading.
    fn send_aside(&self, world: &impl World, bytes: Vec<u8>, times: usize) {
        let stream = Rc::clone(&self.stream);
        let bytes = Bytes::from(bytes);
        world.spawn(async move {
            for _ in 0..times {
                if stream.write_all(vec![bytes.clone()]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// One waiter of a kind chosen by `random`, and whether its like may be behind what it asks for.
fn wait_somehow(bench: &Bench, client: &Client, random: u64, kinds: u64) {
    let world = bench.simulation.world();
    let size = 16 + usize::try_from(random >> 8).unwrap_or(0) % (FRAME_BYTES_MAX - 16);
    match random % kinds {
        0 => client.send_aside(&world, echo(&vec![FETCH_PARKED; size]).to_vec(), 1),
        1 => {
            let mut frame = echo(&vec![ECHO_NOW; FRAME_BYTES_MAX]).to_vec();
            frame.truncate(size);
            client.send_aside(&world, frame, 1);
        }
        2 => client.send_aside(&world, echo(&vec![ECHO_NOW; size]).to_vec(), 50),
        3 => client.send_aside(&world, echo(&vec![ECHO_LATER; size]).to_vec(), 50),
        _ => client.send_aside(&world, echo(&vec![NEVER; size]).to_vec(), 3),
    }
}

fn mixed(seed: u64, kinds: u64, connections: usize) -> (Bench, Vec<Client>) {
    let mut bench = Bench::new(seed, BUDGET_BYTES, 3_600_000);
    let clients: Vec<Client> = (0..connections).map(|_| bench.connect()).collect();
    for client in &clients {
        let random = bench.simulation.world().random_u64();
        wait_somehow(&bench, client, random, kinds);
    }
    bench.simulation.advance(Duration::from_secs(1));
    (bench, clients)
}

#[test]
fn who_asks_for_little_is_answered_beside_any_mix_of_waiters() {
    for seed in 0..40 {
        let (mut bench, waiters) = mixed(seed, 5, 150);
        let world = bench.simulation.world();
        let mut honest = bench.connect();
        bench.simulation.run(async move {
            let began_ns = world.monotonic_ns();
            for number in 0..3 {
                honest.send(ECHO_NOW, number).await;
                assert_eq!(honest.receive().await, Some(number), "seed {seed}");
                honest.send(ECHO_LATER, number).await;
                assert_eq!(honest.receive().await, Some(number), "seed {seed}");
            }
            let waited_ns = world.monotonic_ns() - began_ns;
            assert!(waited_ns < 1_000_000_000, "seed {seed}: {waited_ns}");
        });
        drop(waiters);
    }
}

#[test]
fn who_asks_for_much_gets_its_turn_beside_those_who_only_wait() {
    for seed in 0..40 {
        let (mut bench, waiters) = mixed(seed, 4, 150);
        let world = bench.simulation.world();
        let honest = bench.connect();
        bench.simulation.run(async move {
            let began_ns = world.monotonic_ns();
            let body = [&[ECHO_LATER; 8][..], &vec![7; FRAME_BYTES_MAX / 2]].concat();
            honest.send_aside(&world, echo(&body).to_vec(), 1);
            let mut answer = bytes::BytesMut::new();
            while answer.len() < body.len() + 4 {
                let read = honest.stream.read_into(&mut answer).await;
                assert!(read.is_ok_and(|bytes| bytes > 0), "seed {seed}");
            }
            let waited_ns = world.monotonic_ns() - began_ns;
            assert!(waited_ns < TURN_NS_MAX, "seed {seed}: {waited_ns}");
        });
        drop(waiters);
    }
}

#[test]
fn a_parked_request_holds_nothing_of_what_came_with_it() {
    let mut bench = Bench::new(1, BUDGET_BYTES, 3_600_000);
    let clients: Vec<Client> = (0..20).map(|_| bench.connect()).collect();
    let world = bench.simulation.world();
    for client in &clients {
        let frame = echo(&vec![FETCH_PARKED; FRAME_BYTES_MAX]).to_vec();
        client.send_aside(&world, frame, 1);
    }
    bench.simulation.advance(Duration::from_secs(1));
    assert_eq!(
        bench.server.service.admitted.borrow().len(),
        20,
        "all were taken"
    );
    assert_eq!(bench.server.budget.requests_held(), 0);
    drop(clients);
    bench.simulation.advance(Duration::from_secs(1));
    assert_eq!(bench.server.budget.parked_held(), 0);
}

#[test]
fn a_connection_whose_answers_are_not_taken_is_not_read() {
    let mut bench = Bench::new(2, 64 << 20, 3_600_000);
    let client = bench.connect();
    let world = bench.simulation.world();
    client.send_aside(&world, echo(&vec![ECHO_NOW; 60 << 10]).to_vec(), 1000);
    bench.simulation.advance(Duration::from_secs(1));
    let taken = bench.server.service.admitted.borrow().len();
    assert!(
        taken < 30,
        "{taken} requests of 60 KiB were answered to nobody"
    );
}

/// A length comes alone, the rest later: what it is for is not known when room for it could be given.
#[test]
fn a_long_request_of_which_only_the_length_is_there_holds_nothing_behind_one_that_waits() {
    for bytes_first in [4, 5] {
        let mut bench = Bench::new(3, BUDGET_BYTES, 3_600_000);
        let world = bench.simulation.world();
        let clients: Vec<Client> = (0..5).map(|_| bench.connect()).collect();
        for client in &clients {
            let stream = Rc::clone(&client.stream);
            let aside = world.clone();
            world.spawn(async move {
                // One in the past is what a long one is trusted for.
                let before = echo(&vec![super::SILENT; FRAME_BYTES_MAX]);
                let waiting = echo(&[FETCH_PARKED; 16]);
                let mut frame = echo(&vec![super::FETCH; FRAME_BYTES_MAX]);
                let first = frame.split_to(bytes_first);
                for part in [before, waiting, first, frame] {
                    if stream.write_all(vec![part]).await.is_err() {
                        return;
                    }
                    aside.sleep_for(Duration::from_millis(100)).await;
                }
            });
        }
        bench.simulation.advance(Duration::from_secs(2));
        assert_eq!(bench.server.connections.len(), 5);
        assert_eq!(bench.server.budget.requests_held(), 0, "{bytes_first}");
        drop(clients);
    }
}

#[test]
fn a_client_that_leaves_is_noticed_while_what_it_sent_waits_for_others() {
    for (first, behind, bytes) in [
        (FETCH_PARKED, super::FETCH, 16),
        (super::ALONE_FOR_EVER, ECHO_NOW, 16),
        (super::ALONE_FOR_EVER, super::FETCH, 16),
        (FETCH_PARKED, super::FETCH, 30 << 10),
    ] {
        let mut bench = Bench::new(4, BUDGET_BYTES, 3_600_000);
        let world = bench.simulation.world();
        let client = bench.connect();
        let both = [
            &echo(&[first; 16])[..],
            &echo(&vec![behind; bytes]),
            &echo(&[ECHO_NOW; 16]),
        ];
        client.send_aside(&world, both.concat(), 1);
        bench.simulation.advance(Duration::from_secs(1));
        assert_eq!(bench.server.connections.len(), 1);
        let stream = client.stream;
        bench
            .simulation
            .run(async move { stream.shutdown().await.expect("connected") });
        bench.simulation.advance(Duration::from_secs(1));
        assert_eq!(bench.server.connections.len(), 0, "{first} {behind}");
        assert_eq!(bench.server.budget.requests_held(), 0);
    }
}

#[test]
fn a_client_that_left_more_behind_than_is_read_on_is_noticed_when_it_would_be_idle() {
    let mut bench = Bench::new(5, BUDGET_BYTES, 60_000);
    let world = bench.simulation.world();
    let (stays, leaves) = (bench.connect(), bench.connect());
    for client in [&stays, &leaves] {
        let behind = echo(&vec![super::FETCH; 50 << 10]).to_vec();
        let all = [echo(&[FETCH_PARKED; 16]).to_vec(), behind.repeat(3)];
        client.send_aside(&world, all.concat(), 1);
    }
    bench.simulation.advance(Duration::from_secs(1));
    let stream = leaves.stream;
    bench
        .simulation
        .run(async move { stream.shutdown().await.expect("connected") });
    bench.simulation.advance(Duration::from_secs(90));
    assert_eq!(
        bench.server.connections.len(),
        1,
        "the one that waits is there"
    );
    drop(stays);
}
