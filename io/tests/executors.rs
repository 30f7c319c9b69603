//! Real executors from outside: no run hangs, the mesh holds under flood, sockets keep every byte.

use bytes::{Bytes, BytesMut};
use chronik_io::net::{ConnectionLimits, ConnectionQuotas, ListenLimits, Listener};
use chronik_io::storage::{BlockBuffer, File};
use chronik_io::world::{OpenMode, World};
use chronik_io::{
    DirectStream, ExecutorOptions, MeshOptions, Responder, ShardSeat, Stream, executor,
};
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LOCAL: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// Fails the test process, by name, if `work` does not end: a hang would otherwise be a test run that never
/// finishes.
fn must_end(what: &str, work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = channel::<()>();
    let worker = std::thread::spawn(move || {
        work();
        drop(sender);
    });
    if receiver.recv_timeout(Duration::from_secs(300)) == Err(RecvTimeoutError::Timeout) {
        panic!("{what} hangs");
    }
    worker.join().unwrap();
}

/// One short run of two shards: calls, timers, a file.
fn short_run(dir: &std::path::Path) {
    let path = dir.join("file");
    let main = move |seat: ShardSeat<u64, u64>| {
        let path = path.clone();
        async move {
            let ShardSeat {
                index,
                world,
                endpoint,
                ..
            } = seat;
            let (pump, serving) = (world.clone(), endpoint.clone());
            world.spawn(async move {
                let answer = |ask: u64, responder: Responder<u64>| responder.reply(ask + 1);
                serving.serve(&pump, answer).await;
            });
            for ask in 0..20 {
                assert_eq!(endpoint.call(1 - index, ask).await, Ok(ask + 1));
                world.sleep_for(Duration::from_micros(10)).await;
            }
            if index == 0 {
                let file = world.open_file(&path, OpenMode::ReadWriteCreate).await?;
                let mut buffer = file.buffer(1);
                buffer.as_mut_slice().fill(1);
                file.write_at(buffer, 0).await?;
                file.sync_data().await?;
                file.close().await?;
                // Holds the other shard's pump until this one has all its answers.
                endpoint.call(1, 1_000).await.map_err(io::Error::other)?;
            } else {
                // Serves until shard 0 is gone.
                while endpoint.call(0, 0).await.is_ok() {
                    world.sleep_for(Duration::from_micros(200)).await;
                }
            }
            Ok(())
        }
    };
    executor::run(ExecutorOptions::new(2).unwrap(), main)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn short_runs_under_cpu_hogs_never_hang() {
    let stop = Arc::new(AtomicBool::new(false));
    let hogs: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    // A run takes some 70 ms beside the hogs, and seconds on a machine busy with other tests: each has its own
    // limit.
    let runs = std::env::var("CHRONIK_SHORT_RUNS").map_or(200, |runs| runs.parse().unwrap());
    for _ in 0..runs {
        must_end("a short run", || {
            let dir = tempfile::tempdir().unwrap();
            short_run(dir.path());
        });
    }
    stop.store(true, Ordering::Relaxed);
    for hog in hogs {
        hog.join().unwrap();
    }
}

/// Every shard floods every other through tiny lanes; more shards than cores.
#[test]
fn real_shards_flood_each_other() {
    const TOTAL: u64 = 400;
    must_end("the flood", || {
        let mut options = ExecutorOptions::new(5).unwrap();
        options.mesh = MeshOptions {
            lane_capacity: 3,
            calls_in_flight_max: 12,
        };
        let served = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&served);
        let main = move |seat: ShardSeat<(usize, u64), u64>| {
            let served = Arc::clone(&counted);
            async move {
                let ShardSeat {
                    index,
                    count,
                    world,
                    endpoint,
                } = seat;
                let (pump, serving) = (world.clone(), endpoint.clone());
                let counter = Arc::clone(&served);
                world.spawn(async move {
                    let mut next = vec![0; count];
                    let answer = move |(from, number): (usize, u64), responder: Responder<u64>| {
                        if from < count {
                            assert_eq!(number, next[from], "from {from}");
                            next[from] += 1;
                        }
                        counter.fetch_add(1, Ordering::SeqCst);
                        responder.reply(number);
                    };
                    serving.serve(&pump, answer).await;
                });
                let left = Rc::new(Cell::new(count));
                for destination in 0..count {
                    let (endpoint, left, tasks) = (endpoint.clone(), left.clone(), world.clone());
                    world.spawn(async move {
                        for number in 0..TOTAL {
                            let call = endpoint.send(destination, (index, number)).await;
                            tasks.spawn(async move { assert_eq!(call.await, Ok(number)) });
                        }
                        left.set(left.get() - 1);
                    });
                }
                let all = TOTAL * (count * count) as u64;
                while left.get() > 0 || served.load(Ordering::SeqCst) < all {
                    world.sleep_for(Duration::from_millis(1)).await;
                }
                Ok(())
            }
        };
        let running = executor::run(options, main).unwrap();
        running.join().unwrap();
        assert_eq!(served.load(Ordering::SeqCst), TOTAL * 25);
    });
}

#[test]
fn outside_threads_reach_every_shard() {
    must_end("a remote call", || {
        let main = |seat: ShardSeat<Option<u64>, u64>| async move {
            let ShardSeat {
                world, endpoint, ..
            } = seat;
            let stop = Rc::new(Cell::new(false));
            let (pump, ended) = (world.clone(), Rc::clone(&stop));
            world.spawn(async move {
                let answer = move |ask: Option<u64>, responder: Responder<u64>| match ask {
                    Some(number) => responder.reply(number + 1),
                    None => {
                        ended.set(true);
                        responder.reply(0);
                    }
                };
                endpoint.serve(&pump, answer).await;
            });
            while !stop.get() {
                world.sleep_for(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        let running = executor::run(ExecutorOptions::new(3).unwrap(), main).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let remote = running.remote();
                std::thread::spawn(move || {
                    for number in 0..300 {
                        let shard = (thread + number as usize) % 3;
                        assert_eq!(remote.call_blocking(shard, Some(number)), Ok(number + 1));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        for shard in 0..3 {
            assert_eq!(running.remote().call_blocking(shard, None), Ok(0));
        }
        running.join().unwrap();
    });
}

#[test]
fn a_second_bind_is_refused() {
    let first = Listener::bind(LOCAL.into()).unwrap();
    let refused = Listener::bind(first.address()).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    let address = first.address();
    let (accepting, mut incoming) = first.start(1, ListenLimits::default()).unwrap();
    assert!(Listener::bind(address).is_err());
    accepting.stop();
    assert!(incoming.pop().is_some());
    Listener::bind(address).unwrap();
}

/// Echo through real sockets: frames from one byte to megabytes, a reader and a writer at once.
#[test]
fn sockets_keep_every_byte() {
    must_end("the echo", || {
        let listener = Listener::bind(LOCAL.into()).unwrap();
        let address = listener.address();
        let (accepting, incoming) = listener.start(1, ListenLimits::default()).unwrap();
        let incoming = Arc::new(Mutex::new(
            incoming.into_iter().map(Some).collect::<Vec<_>>(),
        ));
        let main = move |seat: ShardSeat<(), ()>| {
            let incoming = incoming.lock().unwrap()[seat.index].take();
            async move {
                let mut incoming = incoming.expect("each shard takes its own");
                let world = seat.world;
                let server = world.clone();
                let client = async {
                    for lens in [
                        &[1, 2, 3][..],
                        &[4_000, 90_000, 5],
                        &[3_000_000, 1, 700_000],
                    ] {
                        echo_once(&world, address, lens).await?;
                    }
                    io::Result::Ok(())
                };
                let open = Rc::new(Cell::new(0));
                let opened = Rc::clone(&open);
                world.spawn(async move {
                    while let Some(accepted) = incoming.next().await {
                        assert!(accepted.peer().ip().is_loopback());
                        let stream = accepted.into_stream(&server);
                        opened.set(opened.get() + 1);
                        let opened = Rc::clone(&opened);
                        server.spawn(async move {
                            let mut buffer = BytesMut::new();
                            while stream.read_into(&mut buffer).await.unwrap() > 0 {
                                let echoed = vec![buffer.split().freeze()];
                                stream.write_all(echoed).await.unwrap();
                            }
                            stream.shutdown().await.unwrap();
                            opened.set(opened.get() - 1);
                        });
                    }
                });
                client.await?;
                // A pending read tells the servers of this shard's disconnected clients.
                while open.get() > 0 {
                    world.sleep_for(Duration::from_millis(1)).await;
                }
                Ok(())
            }
        };
        executor::run(ExecutorOptions::new(1).unwrap(), main)
            .unwrap()
            .join()
            .unwrap();
        accepting.stop();
    });
}

async fn echo_once(
    world: &chronik_io::DirectWorld,
    address: SocketAddr,
    lens: &[usize],
) -> io::Result<()> {
    let stream = Rc::new(DirectStream::connect(world, address).await?);
    assert_eq!(stream.peer(), address);
    let part = |(number, len): (usize, &usize)| -> Bytes {
        (0..*len)
            .map(|at| (at * 31 + number) as u8)
            .collect::<Vec<u8>>()
            .into()
    };
    let parts: Vec<Bytes> = lens.iter().enumerate().map(part).collect();
    let expected = parts.concat();
    let writer = Rc::clone(&stream);
    world.spawn(async move { writer.write_all(parts).await.unwrap() });
    let mut received = BytesMut::with_capacity(expected.len() / 2);
    while received.len() < expected.len() {
        assert!(stream.read_into(&mut received).await? > 0, "ended early");
    }
    assert!(received == expected);
    stream.shutdown().await
}

#[test]
fn limits_disconnect_the_one_too_many() {
    use std::io::Read;
    must_end("a limit", || {
        let listener = Listener::bind(LOCAL.into()).unwrap();
        let address = listener.address();
        let limits = ListenLimits {
            quotas: ConnectionQuotas::new(ConnectionLimits {
                per_address_max: 2,
                ..ConnectionLimits::default()
            }),
            ..ListenLimits::default()
        };
        let (accepting, incoming) = listener.start(1, limits).unwrap();
        let mut taken = incoming;
        let connect = || std::net::TcpStream::connect(address).unwrap();
        let (_first, _second, mut third) = (connect(), connect(), connect());
        let end = third.read(&mut [0]);
        assert!(
            matches!(end, Ok(0) | Err(_)),
            "the third of one address is sent away"
        );
        accepting.stop();
        let main = {
            let queue = Arc::new(Mutex::new(taken.pop()));
            move |_: ShardSeat<(), ()>| {
                let queue = queue.lock().unwrap().take();
                async move {
                    let mut queue = queue.expect("one shard");
                    assert!(queue.next().await.is_some() && queue.next().await.is_some());
                    assert!(queue.next().await.is_none());
                    Ok(())
                }
            }
        };
        executor::run(ExecutorOptions::new(1).unwrap(), main)
            .unwrap()
            .join()
            .unwrap();
    });
}
