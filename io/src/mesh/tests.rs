//! The mesh under floods: over plain threads and over simulated shards, with full lanes, dropped
//! calls and shards that end. (Over real executors: `tests/executors.rs`.)

use super::remote::block_on;
use super::{Endpoint, Lost, Mesh, MeshOptions, Responder};
use crate::simulated::{Random, Simulation};
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request: its sender, its number on that lane, and the treatment asked for.
#[derive(Debug, PartialEq)]
struct Ask {
    from: usize,
    number: u64,
    treatment: Treatment,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Treatment {
    Now,
    Later,
    Never,
}

const TINY: MeshOptions = MeshOptions {
    lane_capacity: 3,
    calls_in_flight_max: 40,
};

/// Responders of deferred replies, each with the number to reply.
type Deferred = Vec<(u64, Responder<u64>)>;

/// Answers with the number, checks the order of every lane, defers some replies and drops some.
fn answering(count: usize, kept: Rc<RefCell<Deferred>>) -> impl FnMut(Ask, Responder<u64>) {
    let mut next = vec![0; count];
    move |ask, responder| {
        assert_eq!(
            ask.number, next[ask.from],
            "lane from {} is out of order",
            ask.from
        );
        next[ask.from] += 1;
        match ask.treatment {
            Treatment::Now => responder.reply(ask.number),
            Treatment::Later => kept.borrow_mut().push((ask.number, responder)),
            Treatment::Never => drop(responder),
        }
        if kept.borrow().len() > 5 {
            for (number, responder) in kept.borrow_mut().drain(..).rev() {
                responder.reply(number);
            }
        }
    }
}

/// Sends `total` requests to one destination, each awaited by a task of its own, in order.
async fn flood<W: World>(
    world: W,
    endpoint: Endpoint<Ask, u64>,
    destination: usize,
    total: u64,
    left: Rc<Cell<usize>>,
) {
    let waiting = Rc::new(Cell::new(total));
    for number in 0..total {
        let treatment = match world.random_u64() % 10 {
            0 => Treatment::Never,
            1..4 => Treatment::Later,
            _ => Treatment::Now,
        };
        let call = endpoint
            .send(
                destination,
                Ask {
                    from: endpoint.index(),
                    number,
                    treatment,
                },
            )
            .await;
        if world.random_u64().is_multiple_of(7) {
            drop(call); // Given up: the request still arrives, the reply goes nowhere.
            waiting.set(waiting.get() - 1);
            continue;
        }
        let waiting = Rc::clone(&waiting);
        world.spawn(async move {
            let expected = if treatment == Treatment::Never {
                Err(Lost)
            } else {
                Ok(number)
            };
            assert_eq!(call.await, expected);
            waiting.set(waiting.get() - 1);
        });
        if world.random_u64().is_multiple_of(50) {
            world.pause().await;
        }
    }
    while waiting.get() > 0 {
        world.sleep_for(Duration::from_micros(50)).await;
    }
    left.set(left.get() - 1);
}

#[test]
fn simulated_shards_flood_each_other() {
    for seed in 0..60 {
        let count = 2 + (seed as usize) % 4;
        let mut simulation = Simulation::new(seed);
        let mesh = Mesh::<Ask, u64>::new(count, TINY);
        let left = Rc::new(Cell::new(count * count));
        let keeps: Vec<_> = (0..count)
            .map(|_| Rc::new(RefCell::new(Vec::new())))
            .collect();
        for (index, kept) in keeps.iter().enumerate() {
            let world = simulation.world();
            let endpoint = mesh.endpoint(index);
            for destination in 0..count {
                let flood = flood(
                    world.clone(),
                    endpoint.clone(),
                    destination,
                    120,
                    Rc::clone(&left),
                );
                world.spawn(flood);
            }
            let handler = answering(count, Rc::clone(kept));
            let pump = world.clone();
            world.spawn(async move { endpoint.serve(&pump, handler).await });
        }
        let world = simulation.world();
        simulation.run(async {
            while left.get() > 0 {
                world.sleep_for(Duration::from_millis(1)).await;
                // Deferred replies are answered in the end.
                for kept in &keeps {
                    for (number, responder) in kept.take() {
                        responder.reply(number);
                    }
                }
            }
        });
    }
}

/// Serves on a plain thread, which blocks between polls.
fn serve_on_thread<Request: Send + 'static, Reply: Send + 'static>(
    endpoint: &Endpoint<Request, Reply>,
    handler: impl FnMut(Request, Responder<Reply>) + 'static,
    until: impl Future<Output = ()>,
) {
    // The simulation lends its clock and its pauses, which end at once: its pump is polled by this thread's waker.
    let simulation = Simulation::new(0);
    let world = simulation.world();
    let mut until = Box::pin(until);
    let mut serve = Box::pin(async move { endpoint.serve(&world, handler).await });
    block_on(poll_fn(|context: &mut Context<'_>| {
        if until.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let _ = serve.as_mut().poll(context);
        Poll::Pending
    }));
}

/// Polls all futures in turn until all have ended.
async fn all<T>(futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    poll_fn(|context| {
        for slot in &mut futures {
            if let Some(future) = slot
                && future.as_mut().poll(context).is_ready()
            {
                *slot = None;
            }
        }
        if futures.iter().all(Option::is_none) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[test]
fn threads_flood_each_other_with_full_lanes() {
    const COUNT: usize = 3;
    const TOTAL: u64 = 3_000;
    let mesh = Mesh::<u64, u64>::new(
        COUNT,
        MeshOptions {
            lane_capacity: 2,
            calls_in_flight_max: 8,
        },
    );
    let done = std::sync::Arc::new(std::sync::Barrier::new(COUNT));
    let threads: Vec<_> = (0..COUNT)
        .map(|index| {
            let (mesh, done) = (mesh.clone(), std::sync::Arc::clone(&done));
            std::thread::spawn(move || {
                let endpoint = mesh.endpoint(index);
                let ask = |destination: usize| {
                    let endpoint = endpoint.clone();
                    Box::pin(async move {
                        for number in 0..TOTAL {
                            assert_eq!(endpoint.call(destination, number).await, Ok(number + 1));
                        }
                    }) as Pin<Box<dyn Future<Output = ()>>>
                };
                // Several callers per lane, so that lanes and slots are always exhausted.
                let callers = (0..COUNT * 4).map(|n| ask(n % COUNT)).collect();
                let finished = Rc::new(Cell::new(false));
                let mark = Rc::clone(&finished);
                let until = async move {
                    all(callers).await;
                    mark.set(true);
                };
                serve_on_thread(
                    &endpoint,
                    |ask, responder| responder.reply(ask + 1),
                    async {
                        until.await;
                    },
                );
                assert!(finished.get());
                // Other shards may still need this one's replies: serve until all are done.
                let (sender, receiver) = std::sync::mpsc::channel::<()>();
                let waiter = std::thread::spawn(move || {
                    done.wait();
                    drop(sender);
                });
                serve_until_closed(&endpoint, receiver);
                waiter.join().unwrap();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn serve_until_closed(endpoint: &Endpoint<u64, u64>, closed: std::sync::mpsc::Receiver<()>) {
    use std::sync::{Arc, Mutex};
    let waker: Arc<Mutex<Option<std::task::Waker>>> = Arc::default();
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (wake, end) = (Arc::clone(&waker), Arc::clone(&ended));
    let watcher = std::thread::spawn(move || {
        let _ = closed.recv();
        end.store(true, std::sync::atomic::Ordering::SeqCst);
        if let Some(waker) = wake.lock().unwrap().take() {
            waker.wake();
        }
    });
    let until = poll_fn(|context: &mut Context<'_>| {
        *waker.lock().unwrap() = Some(context.waker().clone());
        match ended.load(std::sync::atomic::Ordering::SeqCst) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    serve_on_thread(endpoint, |ask, responder| responder.reply(ask + 1), until);
    watcher.join().unwrap();
}

#[test]
fn outside_threads_get_their_replies() {
    let mesh = Mesh::<u64, u64>::new(
        1,
        MeshOptions {
            lane_capacity: 2,
            calls_in_flight_max: 8,
        },
    );
    let remote = mesh.remote();
    assert_eq!(remote.count(), 1);
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (remote, sender) = (remote.clone(), sender.clone());
            std::thread::spawn(move || {
                for number in 0..500 {
                    assert_eq!(remote.call_blocking(0, number), Ok(number + 1));
                }
                drop(sender);
            })
        })
        .collect();
    drop(sender);
    let endpoint = mesh.endpoint(0);
    serve_until_closed(&endpoint, receiver);
    for thread in threads {
        thread.join().unwrap();
    }
    // Full, then gone: waiting senders and later ones learn it.
    let waiting: Vec<_> = (0..2)
        .map(|number| remote.try_call(0, number).ok().unwrap())
        .collect();
    assert!(remote.try_call(0, 7).is_err(), "the inbox is full");
    drop(endpoint);
    for call in waiting {
        assert_eq!(block_on(call), Err(Lost));
    }
    assert_eq!(remote.call_blocking(0, 1), Err(Lost));
}

#[test]
fn a_shard_that_ends_leaves_nobody_waiting() {
    let mut simulation = Simulation::new(4);
    let world = simulation.world();
    let mesh = Mesh::<u64, u64>::new(2, TINY);
    let (asker, gone) = (mesh.endpoint(0), mesh.endpoint(1));
    let pump = (world.clone(), asker.clone());
    world.spawn(async move {
        pump.1
            .serve(&pump.0, |_, _| unreachable!("nobody asks it"))
            .await
    });
    let calls: Vec<_> = (0..3)
        .map(|number| asker.try_send(1, number).ok().unwrap())
        .collect();
    assert_eq!(asker.try_send(1, 3).err(), Some(3), "the lane is full");
    drop(gone);
    simulation.run(async {
        for call in calls {
            assert_eq!(call.await, Err(Lost));
        }
        assert_eq!(asker.call(1, 9).await, Err(Lost));
    });
}

#[test]
fn a_shard_asks_itself_without_a_lane() {
    let mut simulation = Simulation::new(5);
    let world = simulation.world();
    let mesh = Mesh::<u64, u64>::new(1, TINY);
    let endpoint = mesh.endpoint(0);
    let early = endpoint.try_send(0, 1).ok().unwrap();
    let (pump, inner) = (world.clone(), endpoint.clone());
    let serving = endpoint.clone();
    world.spawn(async move {
        let nested = Rc::new(RefCell::new(Vec::new()));
        let handler = move |ask: u64, responder: Responder<u64>| {
            if ask == 100 {
                // A call from inside the handler runs when the handler has returned.
                nested
                    .borrow_mut()
                    .push(inner.try_send(0, 101).ok().unwrap());
            }
            responder.reply(ask * 2);
        };
        serving.serve(&pump, handler).await;
    });
    simulation.run(async {
        assert_eq!(early.await, Ok(2));
        assert_eq!(endpoint.call(0, 100).await, Ok(200));
        // Answered before the call is polled.
        let mut call = std::pin::pin!(endpoint.try_send(0, 21).ok().unwrap());
        assert_eq!(
            poll_fn(|c| Poll::Ready(call.as_mut().poll(c))).await,
            Poll::Ready(Ok(42))
        );
    });
}

#[test]
fn waiters_that_give_up_pass_their_turn_on() {
    let mut random = Random::new(6);
    for _ in 0..200 {
        let pool = super::Pool::new(1);
        assert!(pool.try_take());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut waiting: Vec<_> = (0..6).map(|_| Box::pin(pool.take())).collect();
        for wait in &mut waiting {
            assert!(wait.as_mut().poll(&mut context).is_pending());
        }
        assert!(!pool.try_take());
        let before = random.index(6);
        drop(waiting.remove(before));
        pool.give(1);
        let granted = usize::from(random.chance(500_000));
        if granted == 0 {
            // Dropped after its grant: the credit goes to the next.
            drop(waiting.remove(0));
        }
        assert!(waiting[0].as_mut().poll(&mut context).is_ready());
        assert!(waiting[1].as_mut().poll(&mut context).is_pending());
        drop(waiting);
        assert!(!pool.try_take(), "the only credit is out");
        pool.give(1);
        assert!(pool.try_take() && !pool.try_take());
    }
}

/// A shard that is busy with itself serves the others as often, although its pump hardly runs.
#[test]
fn a_shard_that_asks_itself_does_not_starve_the_others() {
    let mut simulation = Simulation::new(3);
    let world = simulation.world();
    let mesh = Mesh::<usize, ()>::new(2, MeshOptions::default());
    let (busy, other) = (mesh.endpoint(0), mesh.endpoint(1));
    let served = Rc::new(RefCell::new(Vec::new()));
    let (handled, pump, serving) = (Rc::clone(&served), world.clone(), busy.clone());
    let itself = busy.clone();
    world.spawn(async move {
        let handler = move |from, responder: Responder<()>| {
            handled.borrow_mut().push(from);
            responder.reply(());
            if from == 1 {
                // A call made inside a handler must not wait for the pump either.
                drop(itself.try_send(0, 2));
            }
        };
        serving.serve(&pump, handler).await;
    });
    let calls = simulation.run(async {
        world.sleep_for(Duration::from_millis(1)).await;
        let mut calls = Vec::new();
        for _ in 0..50 {
            calls.push(other.send(0, 1).await);
        }
        // No other task runs before all of these are sent.
        for _ in 0..50 {
            calls.push(busy.send(0, 0).await);
        }
        calls
    });
    assert_eq!(*served.borrow(), [0, 1, 2].repeat(50));
    drop(calls);
}
