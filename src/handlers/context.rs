//! What every handler may use: settings, the catalogue, the router, the clock.
//!
//! One per shard; handlers hold it in an `Rc`. Owns the shard's fetch sessions and the list of
//! parked reads, nothing else that changes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_io::World;
use chronik_protocol::Str;

use super::fetch_sessions::SessionCache;
use super::meters::RequestMeters;
use super::parked_fetches::Parked;
use crate::config::Config;
use crate::router::Router;
use crate::server::budget::ByteBudget;
use crate::server::turns::Turns;

/// What handlers of one shard share.
pub(crate) struct Context<W> {
    this: Weak<Self>,
    /// Clock, randomness, and the end of a work slice.
    pub(crate) world: W,
    /// Checked settings.
    pub(crate) config: Arc<Config>,
    /// The way to partitions and to the controller.
    pub(crate) router: Router,
    /// Bytes of this shard's connections.
    pub(crate) budget: Rc<ByteBudget>,
    /// Incremental fetch sessions of this shard's connections.
    pub(crate) sessions: RefCell<SessionCache>,
    /// Fetches that wait for data.
    pub(crate) parked: Rc<Parked>,
    /// Whose turn it is to convert a record that is large once decompressed, to or from the formats of
    /// old clients: one at a time, for a few kilobytes can unfold to 128 MiB.
    pub(crate) large_record: Turns,
    /// Whose turn it is to make a large answer: one at a time.
    pub(crate) large_answer: Turns,
    /// Whose turn it is to convert many batches of a Produce request: until they are with their
    /// owners, nobody else counts them.
    pub(crate) conversions: Turns,
    /// What was answered, for whoever looks after the broker.
    pub(super) meters: Arc<RequestMeters>,
}

/// Records from this size on wait for [`Context::large_record`], bytes.
pub(crate) const LARGE_RECORD_BYTES: usize = 2 << 20;

/// Host and port a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advertised {
    /// Host name or address.
    pub(crate) host: Str,
    /// Port.
    pub(crate) port: i32,
}

impl<W: World> Context<W> {
    /// The context of the shard that `world` belongs to.
    pub(crate) fn new(
        world: W,
        config: Arc<Config>,
        router: Router,
        budget: Rc<ByteBudget>,
    ) -> Rc<Self> {
        let shards = router.shards();
        let sessions = SessionCache::new(config.fetch_sessions_max.div_ceil(shards));
        let parked = Parked::new(router.clone());
        Rc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            world,
            config,
            router,
            budget,
            sessions: RefCell::new(sessions),
            parked,
            large_record: Turns::default(),
            large_answer: Turns::default(),
            conversions: Turns::default(),
            meters: Arc::default(),
        })
    }

    /// Itself, for work that goes on when the request that began it is given up.
    pub(super) fn shared(&self) -> Rc<Self> {
        self.this.upgrade().expect("who is asked is there")
    }

    /// The catalogue as this shard knows it.
    pub(crate) fn image(&self) -> Arc<Image> {
        self.router.image()
    }

    /// What to tell a client that connected to `local`: the listener it came through.
    pub(crate) fn advertised(&self, local: SocketAddr) -> Advertised {
        let listeners = &self.config.listeners;
        let exact = listeners.iter().find(|listener| listener.bind == local);
        let same_port = || {
            listeners
                .iter()
                .find(|listener| listener.bind.port() == local.port())
        };
        let listener = exact.or_else(same_port).or_else(|| listeners.first());
        listener.map_or_else(
            || Advertised {
                host: Str::from(local.ip().to_string()),
                port: i32::from(local.port()),
            },
            |listener| Advertised {
                host: Str::from(listener.advertised_host.clone()),
                port: i32::from(listener.advertised_port),
            },
        )
    }
}
