//! Connections on the simulated network: order, bounds, and what one client can do to others.

mod stalling;
mod waiting;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chronik_io::simulated::{SimulatedStream, SimulatedWorld, Simulation, pipe};
use chronik_io::{Stream, World};

use super::budget::ByteBudget;
use super::connection::Server;
use super::connections::Connections;
use super::service::{Admitted, Answer, Pace, Reply, Service};

/// What the toy service does with a frame, by its first byte.
const ECHO_NOW: u8 = b'n';
const ECHO_LATER: u8 = b'l';
const ECHO_ALONE: u8 = b'a';
const NEVER: u8 = b'w';
const SILENT: u8 = b's';
const CLOSE: u8 = b'c';
const PANIC: u8 = b'p';
const PANIC_LATER: u8 = b'q';
const FETCH: u8 = b'f';
/// Waits for ever and keeps nothing of the frame.
const FETCH_PARKED: u8 = b'F';

/// Keeps everything behind it waiting, for ever.
const ALONE_FOR_EVER: u8 = b'A';

const FRAME_BYTES_MAX: usize = 1 << 20;

struct Toy {
    world: SimulatedWorld,
    admitted: RefCell<Vec<u8>>,
    dropped: Rc<Cell<usize>>,
}

struct CountDrop(Rc<Cell<usize>>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Service for Toy {
    type Session = ();

    fn open(&self, _local: SocketAddr, _peer: SocketAddr) {}

    fn is_fetch(frame: &[u8]) -> bool {
        frame.first() == Some(&FETCH)
    }

    async fn admit(&self, _session: &mut (), frame: Bytes) -> Admitted {
        let kind = frame.first().copied().unwrap_or(0);
        self.admitted.borrow_mut().push(kind);
        let pace = match kind {
            FETCH | FETCH_PARKED => Pace::OneFetch,
            ECHO_ALONE | ALONE_FOR_EVER => Pace::Alone,
            _ => Pace::Free,
        };
        let world = self.world.clone();
        let answer = match kind {
            SILENT => Answer::Now(Reply::Silent),
            CLOSE => Answer::Now(Reply::Close("asked for it".to_owned())),
            PANIC => panic!("in stage one"),
            PANIC_LATER => Answer::Later(Box::pin(async { panic!("in stage two") })),
            NEVER => {
                let guard = CountDrop(Rc::clone(&self.dropped));
                Answer::Later(Box::pin(async move {
                    std::future::pending::<()>().await;
                    drop(guard);
                    Reply::Silent
                }))
            }
            FETCH_PARKED | ALONE_FOR_EVER => Answer::Parked(Box::pin(std::future::pending()), 100),
            ECHO_LATER | ECHO_ALONE | FETCH => Answer::Later(Box::pin(async move {
                let wait_ns = world.random_u64() % 1_000_000;
                world.sleep_until(world.monotonic_ns() + wait_ns).await;
                Reply::Send(vec![echo(&frame)])
            })),
            _ => Answer::Now(Reply::Send(vec![echo(&frame)])),
        };
        Admitted { pace, answer }
    }
}

fn echo(frame: &[u8]) -> Bytes {
    let length = u32::try_from(frame.len()).expect("small");
    Bytes::from([&length.to_be_bytes()[..], frame].concat())
}

struct Bench {
    simulation: Simulation,
    server: Rc<Server<SimulatedWorld, Toy>>,
    dropped: Rc<Cell<usize>>,
}

impl Bench {
    fn new(seed: u64, budget_bytes: usize, idle_ms: u64) -> Self {
        let simulation = Simulation::new(seed);
        let world = simulation.world();
        let dropped = Rc::new(Cell::new(0));
        let service = Rc::new(Toy {
            world: world.clone(),
            admitted: RefCell::default(),
            dropped: Rc::clone(&dropped),
        });
        let budget = ByteBudget::new(budget_bytes);
        let connections = Rc::new(Connections::default());
        let idle_ns = Some(idle_ms * 1_000_000);
        world.spawn(Rc::clone(&connections).watch(world.clone(), Rc::clone(&budget), idle_ns));
        let frame_bytes_max = FRAME_BYTES_MAX;
        let server = Rc::new(Server {
            world,
            service,
            budget,
            connections,
            frame_bytes_max,
        });
        Self {
            simulation,
            server,
            dropped,
        }
    }

    fn connect(&self) -> Client {
        let (client, server) = pipe(&self.simulation.world());
        self.server.serve(server);
        Client {
            stream: Rc::new(client),
            buffer: BytesMut::new(),
        }
    }
}

struct Client {
    stream: Rc<SimulatedStream>,
    buffer: BytesMut,
}

impl Client {
    async fn send(&self, kind: u8, number: u64) {
        let body = [&[kind; 8][..], &number.to_be_bytes()].concat();
        self.stream
            .write_all(vec![echo(&body)])
            .await
            .expect("connected");
    }

    /// The number in the next reply; `None` when the connection has ended.
    async fn receive(&mut self) -> Option<u64> {
        while self.buffer.len() < 20 {
            match self.stream.read_into(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
        let reply = self.buffer.split_to(20);
        Some(u64::from_be_bytes(*reply.last_chunk().expect("20 bytes")))
    }
}

#[test]
fn replies_come_in_the_order_of_the_requests() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed, 1 << 20, 60_000);
        let mut client = bench.connect();
        let world = bench.simulation.world();
        bench.simulation.run(async move {
            let stream = Rc::clone(&client.stream);
            world.spawn(async move {
                let sender = Client {
                    stream,
                    buffer: BytesMut::new(),
                };
                for number in 0..200 {
                    let kinds = [
                        ECHO_NOW, ECHO_LATER, FETCH, ECHO_ALONE, ECHO_NOW, ECHO_LATER,
                    ];
                    sender
                        .send(kinds[number % kinds.len()], number as u64)
                        .await;
                    sender.send(SILENT, 0).await;
                }
            });
            for number in 0..200 {
                assert_eq!(client.receive().await, Some(number), "seed {seed}");
            }
        });
        assert_eq!(
            bench.server.budget.requests_held(),
            0,
            "everything was given back"
        );
    }
}

#[test]
fn nothing_is_taken_behind_a_request_that_is_alone() {
    let mut bench = Bench::new(1, 1 << 20, 60_000);
    let mut client = bench.connect();
    let server = Rc::clone(&bench.server);
    bench.simulation.run(async move {
        client.send(ECHO_ALONE, 1).await;
        client.send(ECHO_NOW, 2).await;
        server.world.sleep_for(Duration::from_nanos(1)).await;
        assert!(server.service.admitted.borrow().len() < 2);
        assert_eq!(client.receive().await, Some(1));
        assert_eq!(client.receive().await, Some(2));
    });
}

#[test]
fn a_fault_ends_its_own_connection_after_the_replies_before_it() {
    for fault in [CLOSE, PANIC, PANIC_LATER] {
        let mut bench = Bench::new(2, 1 << 20, 60_000);
        let (mut bad, mut good) = (bench.connect(), bench.connect());
        bench.simulation.run(async move {
            bad.send(ECHO_LATER, 1).await;
            bad.send(fault, 0).await;
            bad.send(ECHO_NOW, 2).await;
            assert_eq!(bad.receive().await, Some(1));
            assert_eq!(bad.receive().await, None);
            good.send(ECHO_NOW, 3).await;
            assert_eq!(good.receive().await, Some(3));
        });
        assert_eq!(bench.server.connections.len(), 1);
    }
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    let too_long = i32::try_from(FRAME_BYTES_MAX + 1).expect("small");
    for prefix in [-1, 0, 7, too_long, i32::MAX] {
        let mut bench = Bench::new(3, 1 << 20, 60_000);
        let mut client = bench.connect();
        bench.simulation.run(async move {
            let bytes = Bytes::copy_from_slice(&prefix.to_be_bytes());
            client
                .stream
                .write_all(vec![bytes])
                .await
                .expect("connected");
            assert_eq!(client.receive().await, None, "{prefix}");
        });
    }
}

#[test]
fn a_client_that_leaves_takes_its_waiting_requests_with_it() {
    for reset in [false, true] {
        let mut bench = Bench::new(4, 1 << 20, 60_000);
        let client = bench.connect();
        let stream = Rc::clone(&client.stream);
        bench
            .simulation
            .run(async move { client.send(NEVER, 1).await });
        bench.simulation.advance(Duration::from_millis(10));
        assert_eq!(bench.dropped.get(), 0);
        if reset {
            stream.reset();
        } else {
            bench
                .simulation
                .run(async move { stream.shutdown().await.expect("connected") });
        }
        bench.simulation.advance(Duration::from_millis(10));
        assert_eq!(bench.dropped.get(), 1);
        assert_eq!(bench.server.connections.len(), 0);
        assert_eq!(bench.server.budget.requests_held(), 0);
    }
}

#[test]
fn idle_connections_are_closed_and_waiting_ones_are_not() {
    let mut bench = Bench::new(5, 1 << 20, 1_000);
    let (mut idle, waiting, mut busy) = (bench.connect(), bench.connect(), bench.connect());
    let world = bench.simulation.world();
    bench.simulation.run(async move {
        waiting.send(NEVER, 1).await;
        for number in 0..20 {
            busy.send(ECHO_NOW, number).await;
            assert_eq!(busy.receive().await, Some(number));
            world.sleep_for(Duration::from_millis(100)).await;
        }
        assert_eq!(idle.receive().await, None);
    });
    assert_eq!(bench.server.connections.len(), 2);
}

#[test]
fn unfinished_frames_cannot_starve_the_others() {
    let mut bench = Bench::new(6, 256 << 10, 3_600_000);
    let hoarders: Vec<Client> = (0..4).map(|_| bench.connect()).collect();
    let mut honest = bench.connect();
    bench.simulation.run(async move {
        for hoarder in &hoarders {
            let prefix = i32::try_from(FRAME_BYTES_MAX).expect("small").to_be_bytes();
            let part = Bytes::from([&prefix[..], &[0; 60_000]].concat());
            hoarder
                .stream
                .write_all(vec![part])
                .await
                .expect("connected");
        }
        honest.send(ECHO_NOW, 7).await;
        assert_eq!(
            honest.receive().await,
            Some(7),
            "served beside the hoarders"
        );
        drop(hoarders);
    });
    bench.simulation.advance(Duration::from_secs(15));
    assert_eq!(bench.server.budget.requests_held(), 0);
}

#[test]
fn slow_readers_hold_little_and_harm_nobody() {
    let mut bench = Bench::new(8, 2 << 20, 3_600_000);
    let slow: Vec<Client> = (0..4).map(|_| bench.connect()).collect();
    let mut honest = bench.connect();
    let server = Rc::clone(&bench.server);
    let world = bench.simulation.world();
    bench.simulation.run(async move {
        for client in &slow {
            let stream = Rc::clone(&client.stream);
            world.spawn(async move {
                let body = vec![ECHO_NOW; 100 << 10];
                // Ends when the pipe is full: nobody reads the replies.
                while stream.write_all(vec![echo(&body)]).await.is_ok() {}
            });
        }
        world.sleep_for(Duration::from_secs(1)).await;
        assert!(
            server.budget.requests_held() <= 2 << 20,
            "{}",
            server.budget.requests_held()
        );
        for number in 0..10 {
            honest.send(ECHO_LATER, number).await;
            assert_eq!(honest.receive().await, Some(number));
        }
        drop(slow);
    });
}

#[test]
fn a_stop_answers_what_was_taken_and_ends_every_connection() {
    let mut bench = Bench::new(7, 1 << 20, 60_000);
    let (mut client, mut stuck) = (bench.connect(), bench.connect());
    let server = Rc::clone(&bench.server);
    bench.simulation.run(async move {
        client.send(ECHO_LATER, 1).await;
        stuck.send(NEVER, 2).await;
        while server.service.admitted.borrow().len() < 2 {
            server.world.sleep_for(Duration::from_micros(10)).await;
        }
        server.connections.begin_drain();
        // By now the connection may have ended.
        drop(client.stream.write_all(vec![echo(&[ECHO_NOW; 16])]).await);
        let deadline_ns = server.world.monotonic_ns() + 1_000_000_000;
        server.connections.drained(&server.world, deadline_ns).await;
        assert_eq!(client.receive().await, Some(1));
        assert_eq!(
            client.receive().await,
            None,
            "what came later is not answered"
        );
        assert_eq!(stuck.receive().await, None);
    });
    assert_eq!(bench.server.service.admitted.borrow().len(), 2);
    assert_eq!(bench.dropped.get(), 1);
}
