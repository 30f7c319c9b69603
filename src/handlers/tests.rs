//! Handlers over simulated shards and a simulated network: what a client sees, byte for byte.

mod apis;
mod conversions;
mod data;
mod deletions;
mod left_early;
mod refusals;
mod repetitions;
mod waiting;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use chronik_io::simulated::{SimulatedStream, SimulatedWorld, Simulation, pipe};
use chronik_io::{Mesh, MeshOptions, Stream, World};
use chronik_protocol::frame::encode_request;
use chronik_protocol::{Message, Reader, Request, Str};
use chronik_shards::{ShardHandle, StartOptions, start};

use super::Handlers;
use super::context::Context;
use crate::config::{Config, Layer};
use crate::router::Router;
use crate::server::budget::ByteBudget;
use crate::server::connection::Server;
use crate::server::connections::Connections;

/// A broker without sockets and disks.
struct TestBroker {
    simulation: Simulation,
    contexts: Vec<Rc<Context<SimulatedWorld>>>,
    door: Door,
}

/// Where clients connect.
#[derive(Clone)]
struct Door {
    world: SimulatedWorld,
    servers: Vec<Rc<Server<SimulatedWorld, Handlers<SimulatedWorld>>>>,
}

impl Door {
    /// A connection to one of the shards.
    fn connect(&self, shard: usize) -> Client {
        let (client, server) = pipe(&self.world);
        self.servers[shard].serve(server);
        Client {
            stream: Rc::new(client),
            buffer: BytesMut::new(),
            sent: Cell::new(0),
        }
    }
}

impl TestBroker {
    fn start(seed: u64, shards: usize, overrides: &[(&str, &str)]) -> Self {
        Self::with_budget(seed, shards, overrides, None)
    }

    /// `budget_bytes`: for the requests of each shard, if not what the settings say.
    fn with_budget(
        seed: u64,
        shards: usize,
        overrides: &[(&str, &str)],
        budget_bytes: Option<usize>,
    ) -> Self {
        let mut simulation = Simulation::new(seed);
        let mut layer = Layer::named("test");
        overrides
            .iter()
            .for_each(|(key, value)| layer.set(*key, *value));
        let config = Arc::new(Config::from_layers(&[layer]).expect("valid settings"));
        let mesh = Mesh::new(shards, MeshOptions::default());
        let handles: Rc<RefCell<Vec<(usize, ShardHandle)>>> = Rc::default();
        for index in 0..shards {
            let (world, endpoint) = (simulation.world(), mesh.endpoint(index));
            let (handles, config) = (Rc::clone(&handles), Arc::clone(&config));
            simulation.world().spawn(async move {
                let handle = start(world, endpoint, &options(&config))
                    .await
                    .expect("started");
                handles.borrow_mut().push((index, handle));
            });
        }
        while handles.borrow().len() < shards {
            let more = simulation.run_steps(10_000);
            assert!(more || handles.borrow().len() == shards, "the start hangs");
        }
        let mut handles = handles.take();
        handles.sort_by_key(|(index, _)| *index);
        let contexts: Vec<_> = handles
            .into_iter()
            .map(|(_, handle)| {
                let budget = ByteBudget::new(budget_bytes.unwrap_or(config.queued_bytes_max));
                let router = Router::new(handle);
                Context::new(simulation.world(), Arc::clone(&config), router, budget)
            })
            .collect();
        let server = |context: &Rc<Context<SimulatedWorld>>| {
            Rc::new(Server {
                world: simulation.world(),
                service: Rc::new(Handlers::new(Rc::clone(context))),
                budget: Rc::clone(&context.budget),
                connections: Rc::new(Connections::default()),
                frame_bytes_max: config.request_bytes_max,
            })
        };
        let servers = contexts.iter().map(server).collect();
        let door = Door {
            world: simulation.world(),
            servers,
        };
        Self {
            simulation,
            contexts,
            door,
        }
    }

    /// A connection to one of the shards.
    fn connect(&self, shard: usize) -> Client {
        self.door.connect(shard)
    }

    /// Waits for `future` in simulated time.
    fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.simulation.run(future)
    }
}

fn options(config: &Config) -> StartOptions {
    let values = config.values.iter();
    StartOptions {
        data: PathBuf::from("/data"),
        more_data: Vec::new(),
        node_id: config.node_id,
        cluster_id: None,
        endpoints: Vec::new(),
        rack: None,
        write_behind_bytes: config.write_behind_bytes,
        remember_after_bytes: chronik_shards::limits::REMEMBER_AFTER_BYTES,
        static_configs: values
            .map(|(key, value)| (Str::from(key.clone()), Str::from(value.clone())))
            .collect(),
    }
}

struct Client {
    stream: Rc<SimulatedStream>,
    buffer: BytesMut,
    sent: Cell<i32>,
}

impl Client {
    /// Sends a request; its number comes back with the reply.
    async fn send<Q: Request>(&self, request: &Q, version: i16) -> i32 {
        let number = self.sent.get() + 1;
        self.sent.set(number);
        let client_id = Some(Str::from_static("test"));
        let parts = encode_request(number, client_id, request, version).expect("encodes");
        self.stream.write_all(parts).await.expect("connected");
        number
    }

    /// The next reply; `None` when the broker has closed the connection.
    async fn receive<Q: Request>(&mut self, number: i32, version: i16) -> Option<Q::Response> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*prefix)).expect("fits");
                if self.buffer.len() >= 4 + length {
                    let mut frame = self.buffer.split_to(4 + length).freeze();
                    let mut reader = Reader::new(frame.split_off(4));
                    assert_eq!(reader.get_i32().expect("a correlation id"), number);
                    if Q::KEY.response_header_version(version) == 1 {
                        reader.get_unknown_tags().expect("tags");
                    }
                    let response = Q::Response::decode(&mut reader, version).expect("decodes");
                    reader.finish().expect("nothing behind the response");
                    return Some(response);
                }
            }
            match self.stream.read_into(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends a request and waits for its reply.
    async fn ask<Q: Request>(&mut self, request: &Q, version: i16) -> Q::Response {
        let number = self.send(request, version).await;
        self.receive::<Q>(number, version).await.expect("a reply")
    }
}
