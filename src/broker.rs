//! The composition root: from checked settings to a broker that serves, and back to a clean stop.
//!
//! `start` and `stop` run on the main thread, `shard_main` on every shard. The only wiring there is.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use chronik_catalog::Endpoint;
use chronik_coordinators::groups::GroupRequest;
use chronik_io::descriptors::ConnectionDescriptors;
use chronik_io::executor::allowed_cpus;
use chronik_io::net::{Accepting, ConnectionQuotas, Incoming, ListenLimits};
use chronik_io::preflight::{DirectoryLock, Finding, Preflight, Verdict};
use chronik_io::{DirectWorld, ExecutorOptions, Listener, ShardSeat, World, is_not_now};
use chronik_protocol::Str;
use chronik_shards::{COORDINATOR_SHARD, LogDirs, Reply, Request, ShardHandle, StartOptions};
use tracing::{debug, error, info, warn};

use crate::Failure;
use crate::config::{Config, states};
use crate::cores::Cores;
use crate::gate::Gate;
use crate::handlers::Handlers;
use crate::handlers::context::Context;
use crate::router::Router;
use crate::server::budget::ByteBudget;
use crate::server::connection::Server;
use crate::server::connections::Connections;
use crate::server::limits;

/// The file that keeps a second broker out of the data directory; Kafka's own name for it.
pub(crate) const LOCK_FILE: &str = ".lock";
/// How long connections may take to get their last replies when the broker stops, ns.
const DRAIN_NS_MAX: u64 = 5_000_000_000;
/// Descriptors with which nobody has to think of them: files stay open, connections are taken.
const DESCRIPTORS_WANTED: u64 = 16_384;

/// A broker that serves.
pub struct Broker {
    executors: chronik_io::Running<Request, Reply>,
    accepting: Vec<Accepting>,
    plan: Arc<Plan>,
    _locks: Vec<DirectoryLock>,
}

/// What every shard is given at start.
struct Plan {
    config: Arc<Config>,
    options: StartOptions,
    incoming: Mutex<Vec<Vec<Incoming>>>,
    /// How many connections there may be; the designated shard keeps its limits as they are set.
    quotas: Arc<ConnectionQuotas>,
    /// Opened by the main thread when the sockets are distributed.
    accepting: Gate,
    /// Opened by the main thread: answer what was taken, then end.
    stop: Gate,
    /// Opened by the last shard whose connections are gone.
    drained: Gate,
    /// Opened when every log is closed.
    stopped: Gate,
    started: Mutex<Sender<Started>>,
    /// The directories say that they were left in order.
    in_order: AtomicBool,
}

/// What a shard says when it has started, or why it has not.
type Started = Result<Ready, String>;

struct Ready {
    topics: usize,
    after_ms: u64,
}

/// What the preflight finds for these settings; with `may_write`, by writing into the data directory.
#[must_use]
pub fn findings(config: &Config, may_write: bool) -> Vec<Finding> {
    let preflight = Preflight {
        directories: vec![config.data_dir.clone()],
        // A start leaves these to the shards, which say what is offline without them.
        dispensable: match may_write {
            true => Vec::new(),
            false => config.more_data_dirs.clone(),
        },
        addresses: config
            .listeners
            .iter()
            .map(|listener| listener.bind)
            .collect(),
        may_write,
        descriptors: DESCRIPTORS_WANTED,
        // Without an answer the start says why.
        shards: Cores::choose(config, allowed_cpus().map_or(1, |cpus| cpus.len())).shards,
    };
    preflight.check()
}

impl Broker {
    /// Starts a broker and returns when clients can connect.
    ///
    /// # Errors
    /// One sentence: a preflight check that failed, a directory or port that is taken, a data
    /// directory that belongs to somebody else or cannot be read.
    pub fn start(config: Config) -> Result<Self, Failure> {
        for finding in findings(&config, true) {
            match finding.verdict {
                Verdict::Fine => {}
                Verdict::Warning => warn!("{}: {}", finding.subject, finding.sentence),
                Verdict::Refused => {
                    return Err(Failure::new(format!(
                        "{}: {}",
                        finding.subject, finding.sentence
                    )));
                }
            }
        }
        let locks = lock_all(&config)?;
        let allowed = allowed_cpus().map_err(Failure::new)?.len();
        let Cores { shards, pinned } = Cores::choose(&config, allowed);
        let sockets = bind(&config)?;
        let addresses: Vec<SocketAddr> = sockets.iter().map(Listener::address).collect();
        let (started, starts) = channel();
        let plan = Arc::new(Plan {
            options: start_options(&config),
            config: Arc::new(config),
            incoming: Mutex::new((0..shards).map(|_| Vec::new()).collect()),
            quotas: Arc::default(),
            accepting: Gate::default(),
            stop: Gate::default(),
            drained: Gate::expecting(shards),
            stopped: Gate::default(),
            started: Mutex::new(started),
            in_order: AtomicBool::new(false),
        });
        let mut options = ExecutorOptions::new(shards).map_err(Failure::new)?;
        options.pin = pinned;
        let descriptors = options.descriptors;
        debug!(?descriptors, "descriptors are shared out");
        let shared = Arc::clone(&plan);
        let main = move |seat| shard_main(seat, Arc::clone(&shared));
        let executors = chronik_io::executor::run(options, main)
            .map_err(|error| Failure::new(format!("the shards cannot start: {error}")))?;
        let ready = match wait_started(&starts, shards) {
            Ok(ready) => ready,
            Err(reason) => {
                [&plan.accepting, &plan.stop, &plan.drained, &plan.stopped]
                    .into_iter()
                    .for_each(Gate::open);
                // The reason is known; the shards have nothing to add.
                drop(executors.join());
                for lock in locks {
                    if let Err(error) = lock.withdraw() {
                        warn!(%error, "the lock file stays");
                    }
                }
                return Err(Failure::new(reason));
            }
        };
        let places = ConnectionDescriptors::new(descriptors.connections);
        let accepting = accept(sockets, shards, &plan, &places)?;
        plan.accepting.open();
        let Ready { topics, after_ms } = ready;
        info!(?addresses, shards, topics, start_ms = after_ms, "ready");
        Ok(Self {
            executors,
            accepting,
            plan,
            _locks: locks,
        })
    }

    /// Takes no more connections, answers what was taken, closes every log, and returns when that is
    /// done: whether the directories say that they were left in order.
    ///
    /// # Errors
    /// When a shard could not do its part.
    pub fn stop(self) -> Result<bool, Failure> {
        let plan = Arc::clone(&self.plan);
        self.accepting.into_iter().for_each(Accepting::stop);
        self.plan.stop.open();
        self.executors
            .join()
            .map_err(|error| Failure::new(format!("unclean stop: {error}")))?;
        Ok(plan.in_order.load(Ordering::Acquire))
    }
}

/// Locks every directory. One after the first that cannot be used is left to the shards, which say
/// what is offline because of it; one that somebody else uses is not.
fn lock_all(config: &Config) -> Result<Vec<DirectoryLock>, Failure> {
    let first = DirectoryLock::acquire(&config.data_dir.join(LOCK_FILE)).map_err(Failure::new)?;
    let mut locks = vec![first];
    for dir in &config.more_data_dirs {
        let made = std::fs::create_dir_all(dir);
        match made.and_then(|()| DirectoryLock::acquire(&dir.join(LOCK_FILE))) {
            Ok(lock) => locks.push(lock),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Failure::new(error));
            }
            Err(error) => warn!(dir = %dir.display(), %error, "the log directory was not locked"),
        }
    }
    Ok(locks)
}

fn bind(config: &Config) -> Result<Vec<Listener>, Failure> {
    let sockets = config.listeners.iter().map(|listener| {
        Listener::bind(listener.bind)
            .map_err(|error| Failure::new(format!("{}: {error}", listener.bind)))
    });
    sockets.collect()
}

fn accept(
    sockets: Vec<Listener>,
    shards: usize,
    plan: &Plan,
    places: &Arc<ConnectionDescriptors>,
) -> Result<Vec<Accepting>, Failure> {
    let mut accepting = Vec::with_capacity(sockets.len());
    for (listener, socket) in sockets.into_iter().enumerate() {
        let limits = ListenLimits {
            descriptors: Arc::clone(places),
            quotas: Arc::clone(&plan.quotas),
            listener,
        };
        let (running, incoming) = socket.start(shards, limits).map_err(Failure::new)?;
        accepting.push(running);
        let mut waiting = plan.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        for (shard, incoming) in waiting.iter_mut().zip(incoming) {
            shard.push(incoming);
        }
    }
    Ok(accepting)
}

fn start_options(config: &Config) -> StartOptions {
    let endpoints = config.listeners.iter().map(|listener| Endpoint {
        name: Str::from(listener.name.clone()),
        host: Str::from(listener.advertised_host.clone()),
        port: listener.advertised_port,
        security_protocol: 0,
    });
    let text =
        |(key, value): (&String, &String)| (Str::from(key.clone()), Str::from(value.clone()));
    StartOptions {
        data: config.data_dir.clone(),
        more_data: config.more_data_dirs.clone(),
        node_id: config.node_id,
        cluster_id: config.cluster_id.map(|id| Str::from(id.to_string())),
        endpoints: endpoints.collect(),
        rack: config.rack.clone().map(Str::from),
        write_behind_bytes: config.write_behind_bytes,
        remember_after_bytes: chronik_shards::limits::REMEMBER_AFTER_BYTES,
        static_configs: config.values.iter().map(text).collect::<BTreeMap<_, _>>(),
    }
}

/// What the designated shard says once all have started, or the first failure.
fn wait_started(starts: &Receiver<Started>, shards: usize) -> Result<Ready, String> {
    let mut last = Ready {
        topics: 0,
        after_ms: 0,
    };
    for _ in 0..shards {
        let ready = starts
            .recv()
            .map_err(|_| "a shard ended before it had started".to_owned())??;
        last = Ready {
            topics: ready.topics,
            after_ms: last.after_ms.max(ready.after_ms),
        };
    }
    Ok(last)
}

/// The life of one shard.
async fn shard_main(seat: ShardSeat<Request, Reply>, plan: Arc<Plan>) -> io::Result<()> {
    let ShardSeat {
        index,
        world,
        endpoint,
        ..
    } = seat;
    let started = chronik_shards::start(world.clone(), endpoint, &plan.options).await;
    let handle = match started {
        Ok(handle) => handle,
        Err(reason) => {
            plan.tell(Err(reason.to_string()));
            return Err(io::Error::other(reason.to_string()));
        }
    };
    if let Err(reason) = learn_devices(&world, handle.log_dirs()).await {
        plan.tell(Err(reason.clone()));
        return Err(io::Error::other(reason));
    }
    if index == COORDINATOR_SHARD {
        let (quotas, config) = (Arc::clone(&plan.quotas), Arc::clone(&plan.config));
        handle.watch_settings(move |image| limits::apply(&quotas, &config.listeners, image));
        states::tell_of_run_time(&handle.image());
    }
    plan.tell(Ok(Ready {
        topics: handle.image().topic_count(),
        after_ms: world.monotonic_ns() / 1_000_000,
    }));
    serve(index, &world, handle, &plan).await
}

/// Lets the shard learn of every directory's device while there are descriptors: its first file there may come
/// when there are none.
///
/// # Errors
/// One sentence, where something is too short for that.
async fn learn_devices(world: &DirectWorld, dirs: &LogDirs) -> Result<(), String> {
    for dir in dirs.all().iter().filter(|dir| dir.id.is_some()) {
        let path = dir.path.display();
        match world.learn_device(&dir.path).await {
            Err(error) if is_not_now(&error) => {
                return Err(format!("the device of {path} cannot be looked at: {error}"));
            }
            // Its first file will tell.
            Err(error) => warn!(%path, %error, "the device of a log directory was not looked at"),
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn serve(
    index: usize,
    world: &DirectWorld,
    handle: ShardHandle,
    plan: &Arc<Plan>,
) -> io::Result<()> {
    let config = Arc::clone(&plan.config);
    let budget = ByteBudget::new(config.queued_bytes_max);
    let router = Router::new(handle.clone());
    let context = Context::new(
        world.clone(),
        Arc::clone(&config),
        router,
        Rc::clone(&budget),
    );
    let connections = Rc::new(Connections::default());
    let server = Rc::new(Server {
        world: world.clone(),
        service: Rc::new(Handlers::new(Rc::clone(&context))),
        budget: Rc::clone(&budget),
        connections: Rc::clone(&connections),
        frame_bytes_max: config.request_bytes_max,
    });
    let idle_ns_max = config
        .connections_idle_ms_max
        .map(|ms| ms.saturating_mul(1_000_000));
    world.spawn(Rc::clone(&connections).watch(world.clone(), budget, idle_ns_max));
    plan.accepting.passed().await;
    for incoming in plan.take_incoming(index) {
        world.spawn(serve_incoming(world.clone(), incoming, Rc::clone(&server)));
    }
    plan.stop.passed().await;
    connections.begin_drain();
    context.parked.cancel_all();
    // Members that wait for their group would hold the stop up; all shards tell, any one is enough.
    context.router.try_send(
        COORDINATOR_SHARD,
        Request::Group(Box::new(GroupRequest::Stop)),
    );
    connections
        .drained(world, world.monotonic_ns().saturating_add(DRAIN_NS_MAX))
        .await;
    plan.drained.arrive();
    let mut outcome = Ok(());
    if index == COORDINATOR_SHARD {
        plan.drained.passed().await;
        match handle.stop().await {
            Ok(in_order) => plan.in_order.store(in_order, Ordering::Release),
            Err(lost) => {
                error!(%lost, "the logs could not be closed in order");
                outcome = Err(io::Error::other(lost.to_string()));
            }
        }
        plan.stopped.open();
    }
    // Until then this shard still answers for its partitions.
    plan.stopped.passed().await;
    outcome
}

async fn serve_incoming(
    world: DirectWorld,
    mut incoming: Incoming,
    server: Rc<Server<DirectWorld, Handlers<DirectWorld>>>,
) {
    while let Some(accepted) = incoming.next().await {
        server.serve(accepted.into_stream(&world));
    }
}

impl Plan {
    fn tell(&self, started: Started) {
        let sender = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.send(started).is_err() {
            warn!("a shard started after the broker had given up");
        }
    }

    fn take_incoming(&self, shard: usize) -> Vec<Incoming> {
        let mut waiting = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        waiting
            .get_mut(shard)
            .map(std::mem::take)
            .unwrap_or_default()
    }
}
