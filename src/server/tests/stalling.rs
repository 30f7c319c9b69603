//! Requests that never come whole: whatever number of them has sent whatever part, a client that sends its
//! request is answered soon, and no client is closed for the time that it stood in line.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronik_io::{Stream, World};

use super::super::arrival::Progress;
use super::{Bench, Client, ECHO_LATER, ECHO_NOW, FETCH, FETCH_PARKED, FRAME_BYTES_MAX, echo};

/// A few dozen of the longest frames.
const BUDGET_BYTES: usize = 32 << 20;
/// Longest that somebody waits who sends what it has to say, simulated: well under what a client notices.
const WAIT_NS_MAX: u64 = 1_500_000_000;

impl Client {
    /// Sends pieces of `piece_bytes` with a rest of `each_ms` between them, until all are sent or the
    /// connection has ended.
    fn send_slowly(&self, world: &impl World, bytes: Vec<u8>, piece_bytes: usize, each_ms: u64) {
        let (stream, bytes) = (Rc::clone(&self.stream), Bytes::from(bytes));
        let aside = world.clone();
        world.spawn(async move {
            for at in (0..bytes.len()).step_by(piece_bytes) {
                let piece = bytes.slice(at..bytes.len().min(at + piece_bytes));
                if stream.write_all(vec![piece]).await.is_err() {
                    return;
                }
                aside.sleep_for(Duration::from_millis(each_ms)).await;
            }
        });
    }

    /// Waits for an answer of `bytes`; whether it came.
    async fn answered(&self, bytes: usize) -> bool {
        let mut answer = BytesMut::new();
        while answer.len() < bytes {
            match self.stream.read_into(&mut answer).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        true
    }
}

/// A request that stalls at one of many points, or goes on by a byte now and then.
fn stall(bench: &Bench, client: &Client, random: u64) {
    let world = bench.simulation.world();
    let length = FRAME_BYTES_MAX - usize::try_from(random >> 32).unwrap_or(0) % (64 << 10);
    let frame = echo(&vec![ECHO_NOW; length]).to_vec();
    let sent = [12, 64 << 10, 256 << 10, 768 << 10, frame.len() - 1][random as usize % 5];
    let is_dribbling = random & 32 != 0;
    let mut first = frame;
    // One in two has sent a long one before, which it is trusted for.
    if random & 64 != 0 {
        let whole = echo(&vec![super::SILENT; FRAME_BYTES_MAX]).to_vec();
        first.splice(0..0, whole);
    }
    let rest = first.split_off(first.len() - (length + 4 - sent));
    let (stream, aside) = (Rc::clone(&client.stream), world.clone());
    let dribbler = Client {
        stream: Rc::clone(&client.stream),
        buffer: BytesMut::new(),
    };
    world.spawn(async move {
        if stream.write_all(vec![Bytes::from(first)]).await.is_ok() && is_dribbling {
            dribbler.send_slowly(&aside, rest, 1, 100);
        }
    });
}

/// Sends frames of `bytes` one after the other on a new connection; counts those that were answered in
/// time and ends with the first that was not.
async fn honest(world: impl World, client: Client, bytes: usize, times: usize) -> usize {
    for done in 0..times {
        let began_ns = world.monotonic_ns();
        let frame = echo(&vec![ECHO_LATER; bytes]).to_vec();
        client.send_slowly(&world, frame, 1 << 20, 0);
        if !client.answered(bytes + 4).await || world.monotonic_ns() - began_ns > WAIT_NS_MAX {
            return done;
        }
    }
    times
}

#[test]
fn who_sends_its_request_is_answered_soon_among_any_number_that_never_do() {
    for (seed, stallers) in [(0, 30), (1, 60), (2, 120), (3, 180), (4, 240)] {
        let mut bench = Bench::new(seed, BUDGET_BYTES, 3_600_000);
        let hoard: Vec<Client> = (0..stallers).map(|_| bench.connect()).collect();
        for client in &hoard {
            stall(&bench, client, bench.simulation.world().random_u64());
        }
        // Some come at once, others when all has been quiet for long.
        for begin_ms in [1, 100, 700, 5_000] {
            bench.simulation.advance(Duration::from_millis(begin_ms));
            let clients: Vec<Client> = (0..3).map(|_| bench.connect()).collect();
            let world = bench.simulation.world();
            bench.simulation.run(async move {
                let sizes = [100 << 10, 500 << 10, 900 << 10];
                let each = clients.into_iter().zip(sizes);
                let all = each.map(|(client, bytes)| honest(world.clone(), client, bytes, 4));
                let answered = futures_util::future::join_all(all).await;
                assert_eq!(answered, [4, 4, 4], "{stallers} stall, {begin_ms} ms later");
            });
        }
        bench.simulation.run(async move {
            for client in &hoard {
                client.stream.shutdown().await.expect("always");
            }
        });
        bench.simulation.advance(Duration::from_secs(1));
        assert_eq!(bench.server.budget.requests_held(), 0);
    }
}

#[test]
fn who_stands_in_line_is_not_closed_for_it_and_a_slow_link_is_not_a_stall() {
    for seed in 0..5 {
        let mut bench = Bench::new(seed, 2 << 20, 3_600_000);
        let world = bench.simulation.world();
        // More than fits at a time, each at 1 Mbit/s: the last have to wait for half a minute.
        let clients: Vec<Client> = (0..8).map(|_| bench.connect()).collect();
        let done = Rc::new(Cell::new(0));
        for client in clients {
            let frame = echo(&vec![ECHO_LATER; FRAME_BYTES_MAX]).to_vec();
            client.send_slowly(&world, frame, 12_500, 100);
            let done = Rc::clone(&done);
            world.spawn(async move {
                if client.answered(FRAME_BYTES_MAX + 4).await {
                    done.set(done.get() + 1);
                }
            });
        }
        bench.simulation.advance(Duration::from_secs(90));
        assert_eq!(done.get(), 8, "seed {seed}");
    }
}

#[test]
fn nobody_is_closed_for_a_stall_that_keeps_nobody_waiting() {
    let mut bench = Bench::new(1, BUDGET_BYTES, 3_600_000);
    let client = bench.connect();
    let world = bench.simulation.world();
    bench.simulation.run(async move {
        let mut frame = echo(&vec![ECHO_NOW; FRAME_BYTES_MAX]).to_vec();
        let rest = frame.split_off(FRAME_BYTES_MAX / 2);
        client.send_slowly(&world, frame, 1 << 20, 0);
        world.sleep_for(Duration::from_secs(60)).await;
        client.send_slowly(&world, rest, 1 << 20, 0);
        assert!(client.answered(FRAME_BYTES_MAX + 4).await);
    });
}

#[test]
fn what_comes_behind_a_request_that_waits_holds_nothing() {
    for kind in [FETCH, FETCH_PARKED] {
        let mut bench = Bench::new(2, 2 << 20, 3_600_000);
        let clients: Vec<Client> = (0..10).map(|_| bench.connect()).collect();
        let world = bench.simulation.world();
        for client in &clients {
            let behind = echo(&vec![kind; FRAME_BYTES_MAX]).to_vec();
            let both = [&echo(&[FETCH_PARKED; 16])[..], &behind].concat();
            client.send_slowly(&world, both, 1 << 20, 0);
        }
        bench.simulation.advance(Duration::from_secs(1));
        let held = bench.server.budget.requests_held();
        let expected = if kind == FETCH { 0 } else { held };
        assert_eq!(held, expected, "a fetch waits for the one before it");
        let honest_client = bench.connect();
        bench.simulation.run(async move {
            assert_eq!(honest(world, honest_client, FRAME_BYTES_MAX, 3).await, 3);
        });
        drop(clients);
    }
}

/// The broker is late where what a client has sent lies in the socket; only sockets can tell.
#[test]
fn nobody_is_closed_for_what_the_broker_has_not_read() {
    let mut bench = Bench::new(3, 2 << 20, 3_600_000);
    let client = bench.connect();
    let world = bench.simulation.world();
    let mut frame = echo(&vec![ECHO_NOW; FRAME_BYTES_MAX]).to_vec();
    frame.truncate(FRAME_BYTES_MAX / 2);
    client.send_slowly(&world, frame, 1 << 20, 0);
    bench.simulation.advance(Duration::from_secs(1));
    let link = bench.server.connections.any();
    let now_ns = world.monotonic_ns();
    let held = link.holding().expect("half of a request").held;
    assert!(held >= FRAME_BYTES_MAX / 2, "{held}");
    assert!(!link.is_served_late(now_ns), "nothing lies there");
    assert!(link.holding().expect("the same").progress < Progress::anew(now_ns));
    // Nothing runs between the write and the question.
    client.stream.put_now(&[0]);
    assert!(
        !link.is_served_late(now_ns),
        "a byte now and then is no haste"
    );
    client.stream.put_now(&[0; 8 << 10]);
    assert!(link.is_served_late(now_ns));
    let progress = link.holding().expect("the same").progress;
    assert_eq!(progress, Progress::anew(now_ns), "patience begins anew");
}

#[test]
fn long_requests_on_slow_lines_are_taken_and_keep_no_short_one_waiting() {
    let mut bench = Bench::new(4, 2 << 20, 3_600_000);
    let world = bench.simulation.world();
    let done = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let client = bench.connect();
        let frame = echo(&vec![ECHO_LATER; FRAME_BYTES_MAX]).to_vec();
        client.send_slowly(&world, frame, 12_500, 100);
        let done = Rc::clone(&done);
        world.spawn(async move {
            if client.answered(FRAME_BYTES_MAX + 4).await {
                done.set(done.get() + 1);
            }
        });
    }
    for second in 0..8 {
        let client = bench.connect();
        let world = world.clone();
        bench.simulation.run(async move {
            let answered = honest(world, client, 100 << 10, 3).await;
            assert_eq!(answered, 3, "after {second} s");
        });
        bench.simulation.advance(Duration::from_secs(1));
    }
    bench.simulation.advance(Duration::from_secs(30));
    assert_eq!(done.get(), 3);
}

#[test]
fn a_byte_now_and_then_buys_no_time() {
    for each_ms in [10, 150] {
        let mut bench = Bench::new(5, 2 << 20, 3_600_000);
        let world = bench.simulation.world();
        let stallers: Vec<Client> = (0..60).map(|_| bench.connect()).collect();
        for client in &stallers {
            let frame = echo(&vec![ECHO_NOW; FRAME_BYTES_MAX]).to_vec();
            let (stream, aside) = (Rc::clone(&client.stream), world.clone());
            world.spawn(async move {
                let mut first = Bytes::from(frame);
                let rest = first.split_off(80_000);
                if stream.write_all(vec![first]).await.is_ok() {
                    let client = Client {
                        stream,
                        buffer: BytesMut::new(),
                    };
                    client.send_slowly(&aside, rest.to_vec(), 1, each_ms);
                }
            });
        }
        bench.simulation.advance(Duration::from_secs(10));
        for bytes in [80 << 10, 200 << 10, FRAME_BYTES_MAX] {
            let (client, world) = (bench.connect(), world.clone());
            bench.simulation.run(async move {
                let answered = honest(world, client, bytes, 3).await;
                assert_eq!(answered, 3, "{bytes} beside a byte each {each_ms} ms");
            });
        }
        drop(stallers);
    }
}

#[test]
fn who_takes_its_answer_slowly_is_not_closed_for_a_request_that_holds_nothing_any_more() {
    let mut bench = Bench::new(6, 2 << 20, 3_600_000);
    let world = bench.simulation.world();
    let reader = bench.connect();
    let frame = echo(&vec![ECHO_LATER; FRAME_BYTES_MAX]).to_vec();
    reader.send_slowly(&world, frame, 1 << 20, 0);
    bench.simulation.advance(Duration::from_secs(1));
    // From now on others wait for room for ever.
    let others: Vec<Client> = (0..12).map(|_| bench.connect()).collect();
    for other in &others {
        let frame = echo(&vec![super::NEVER; FRAME_BYTES_MAX]).to_vec();
        other.send_slowly(&world, frame, 1 << 20, 0);
    }
    let budget = Rc::clone(&bench.server.budget);
    bench.simulation.run(async move {
        let mut taken = 0;
        while taken < FRAME_BYTES_MAX + 4 {
            let mut part = BytesMut::with_capacity(12_500);
            let bytes = reader.stream.read_into(&mut part).await.expect("connected");
            assert!(bytes > 0, "closed after {taken} bytes");
            taken += bytes;
            world.sleep_for(Duration::from_millis(100)).await;
        }
        assert!(budget.is_pressed(), "others waited all the time");
    });
    drop(others);
}
