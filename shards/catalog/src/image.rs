//! The immutable picture of the catalogue at one offset of the metadata log.
//!
//! The designated shard builds a new one for every change; each shard holds one `Arc` and replaces
//! it as a whole, so that lookups never hop. Owns no rule about what may change: that is the
//! controller's; what records mean is in `replay`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_protocol::configs::{self, Key, Typed};
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{Str, Uuid};
use chronik_terms::group_settings::GroupConfig;
use chronik_terms::topic_settings::{ConfigLayers, TopicConfig};

use super::names::RetainedKey;
use super::quorum::Quorum;

/// Topics, settings, brokers and features at one offset of the metadata log.
#[derive(Clone, Debug)]
pub struct Image {
    /// Offset of the last record that is in the picture; −1 before the first.
    pub offset: i64,
    /// Leader epoch of that record's batch.
    pub epoch: i32,
    /// Append time of that batch, ms since the epoch.
    pub timestamp_ms: i64,
    /// The cluster's id, as in `meta.properties`.
    pub cluster_id: Str,
    /// This broker.
    pub node_id: i32,
    /// This broker's epoch: the offset of its registration; −1 before it.
    pub broker_epoch: i64,
    /// Finalized feature levels by name.
    pub features: BTreeMap<Str, i16>,
    /// Registered brokers by id.
    pub brokers: BTreeMap<i32, BrokerRegistration>,
    /// The broker's settings, apart from those of topics.
    pub broker_configs: Arc<BrokerConfigs>,
    /// What the log says of the metadata quorum.
    pub quorum: Quorum,
    /// First producer id that no block handed out so far contains.
    pub next_producer_id: i64,
    pub(crate) topics: BTreeMap<Uuid, Arc<Topic>>,
    pub(crate) ids_by_name: BTreeMap<Str, Uuid>,
    /// Settings of resources that are neither topic nor broker, by (resource type, name).
    pub(crate) other_configs: BTreeMap<(i8, Str), BTreeMap<Str, Str>>,
    /// Those of groups, parsed; groups without settings of their own are not in it.
    pub(crate) group_configs: BTreeMap<Str, GroupConfig>,
    /// Records nobody here acts on, kept whole so that a snapshot loses nothing.
    pub retained: BTreeMap<RetainedKey, MetadataRecord>,
    /// Topics whose effective settings are to be worked out before the image is shown.
    pub(crate) stale: Stale,
}

/// Which topics' effective settings do not match the records yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// These; mostly none.
    Only(BTreeSet<Uuid>),
    /// A setting of the broker changed.
    Every,
}

/// A broker as it registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Offset of the registration.
    pub epoch: i64,
    /// New at each start of the broker.
    pub incarnation_id: Uuid,
    /// Where it listens.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<Str>,
    /// Not serving clients.
    pub fenced: bool,
    /// About to stop.
    pub in_controlled_shutdown: bool,
    /// Ids of its data directories.
    pub directories: Vec<Uuid>,
    /// Feature levels it supports: (name, least, greatest).
    pub features: Vec<(Str, i16, i16)>,
}

/// A listener as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, `PLAINTEXT` for example.
    pub name: Str,
    /// Host name or address.
    pub host: Str,
    /// TCP port.
    pub port: u16,
    /// `SecurityProtocol`'s number: 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
    pub security_protocol: i16,
}

/// The broker's settings by layer. Names are the broker's (`log.retention.ms`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfigs {
    /// Set at run time, by broker id.
    pub dynamic_brokers: BTreeMap<i32, BTreeMap<Str, Str>>,
    /// Set at run time for every broker.
    pub dynamic_default: BTreeMap<Str, Str>,
    /// Set explicitly in this broker's file, environment or command line.
    pub static_broker: BTreeMap<Str, Str>,
}

impl BrokerConfigs {
    /// Set at run time for broker `node_id`.
    pub fn dynamic_broker(&self, node_id: i32) -> &BTreeMap<Str, Str> {
        static NONE: BTreeMap<Str, Str> = BTreeMap::new();
        self.dynamic_brokers.get(&node_id).unwrap_or(&NONE)
    }

    /// The value that holds for broker `node_id`, as it is shown; `None` where no layer has one.
    pub fn value(&self, node_id: i32, name: &str) -> Option<Str> {
        let dynamic = self.dynamic_broker(node_id).get(name);
        let default = || self.dynamic_default.get(name);
        let given = dynamic
            .or_else(default)
            .or_else(|| self.static_broker.get(name))?;
        let definition = configs::broker(name);
        let definition = definition.or_else(|| configs::of_listener(name).map(|(_, known)| known));
        Some(definition.map_or_else(
            || given.clone(),
            |definition| Str::from(definition.shown_value(given)),
        ))
    }

    /// The same, read; the default where no layer has a value.
    pub fn get<T: Typed>(&self, node_id: i32, key: Key<T>) -> T {
        key.read(self.value(node_id, key.name()).as_deref())
    }

    /// What a listener has of its own of a setting; `None` where no layer has a value.
    pub fn of_listener<T: Typed>(&self, node_id: i32, listener: &str, key: Key<T>) -> Option<T> {
        let name = format!(
            "listener.name.{}.{}",
            listener.to_ascii_lowercase(),
            key.name()
        );
        key.parse(&self.value(node_id, &name)?)
    }
}

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name; can be used again after the topic is deleted.
    pub name: Str,
    /// Its id; never used again.
    pub id: Uuid,
    /// By partition index, without gaps.
    pub partitions: Vec<PartitionInfo>,
    /// Settings made on the topic.
    pub configs: BTreeMap<Str, Str>,
    /// The settings that hold, parsed.
    pub config: Arc<TopicConfig>,
    /// A topic of Kafka's own (`Topic#isInternal`).
    pub is_internal: bool,
}

/// How the topics of two images differ; each list by id.
#[derive(Debug, Default)]
pub struct TopicsDelta {
    /// Were not there.
    pub created: Vec<Arc<Topic>>,
    /// Were otherwise.
    pub changed: Vec<Arc<Topic>>,
    /// Are not there any more.
    pub gone: Vec<Arc<Topic>>,
}

/// A partition as the catalogue knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Broker id; −1 when there is none.
    pub leader: i32,
    /// Grows with each change of leader and each start of the leading broker.
    pub leader_epoch: i32,
    /// Grows with each change of the partition.
    pub partition_epoch: i32,
    /// Broker ids, the preferred leader first.
    pub replicas: Vec<i32>,
    /// In-sync replicas.
    pub isr: Vec<i32>,
    /// Replicas being removed by a reassignment.
    pub removing_replicas: Vec<i32>,
    /// Replicas being added by a reassignment.
    pub adding_replicas: Vec<i32>,
    /// `LeaderRecoveryState`: 0 recovered, 1 recovering.
    pub leader_recovery_state: i8,
    /// Directory of each replica, in their order.
    pub directories: Vec<Uuid>,
    /// KIP-966.
    pub eligible_leader_replicas: Vec<i32>,
    /// KIP-966.
    pub last_known_elr: Vec<i32>,
}

/// Whether a topic of this name is Kafka's own (`Topic#isInternal`).
pub fn is_internal_topic(name: &str) -> bool {
    matches!(
        name,
        "__consumer_offsets" | "__transaction_state" | "__share_group_state"
    )
}

impl Image {
    /// An empty catalogue.
    pub fn new(cluster_id: Str, node_id: i32, static_broker: BTreeMap<Str, Str>) -> Image {
        Image {
            offset: -1,
            epoch: 0,
            timestamp_ms: 0,
            cluster_id,
            node_id,
            broker_epoch: -1,
            features: BTreeMap::new(),
            brokers: BTreeMap::new(),
            broker_configs: Arc::new(BrokerConfigs {
                static_broker,
                ..BrokerConfigs::default()
            }),
            quorum: Quorum::default(),
            next_producer_id: 0,
            topics: BTreeMap::new(),
            ids_by_name: BTreeMap::new(),
            other_configs: BTreeMap::new(),
            group_configs: BTreeMap::new(),
            retained: BTreeMap::new(),
            stale: Stale::Only(BTreeSet::new()),
        }
    }

    /// The version of the metadata quorum's protocol: a feature level that stands in no feature record.
    pub fn kraft_version(&self) -> i16 {
        self.quorum.version
    }

    /// The directory in which a voter keeps the metadata log, once that stands in the log; else zero.
    pub fn voter_directory(&self, node_id: i32) -> Uuid {
        let voters = self.quorum.voters.iter().flat_map(|record| &record.voters);
        let mut voters = voters.filter(|voter| voter.voter_id == node_id);
        voters
            .next()
            .map_or(Uuid::ZERO, |voter| voter.voter_directory_id)
    }

    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.ids_by_name
            .get(name)
            .and_then(|id| self.topics.get(id))
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// Every topic, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics_from("")
    }

    /// Every topic whose name is not below `first`, by name (for paging).
    pub fn topics_from<'a>(&'a self, first: &str) -> impl Iterator<Item = &'a Arc<Topic>> {
        use std::ops::Bound::{Included, Unbounded};
        self.ids_by_name
            .range::<str, _>((Included(first), Unbounded))
            .filter_map(|(_, id)| self.topics.get(id))
    }

    /// What of the topics is other than in `before`. Nearly every topic is the same allocation in both
    /// images: they are walked side by side, some 20 ns each.
    pub fn topics_since(&self, before: &Image) -> TopicsDelta {
        let mut delta = TopicsDelta::default();
        let mut olds = before.topics.iter().peekable();
        for (id, topic) in &self.topics {
            while let Some((_, gone)) = olds.next_if(|(old, _)| *old < id) {
                delta.gone.push(Arc::clone(gone));
            }
            match olds.next_if(|(old, _)| *old == id) {
                Some((_, old)) if Arc::ptr_eq(old, topic) => {}
                Some(_) => delta.changed.push(Arc::clone(topic)),
                None => delta.created.push(Arc::clone(topic)),
            }
        }
        delta.gone.extend(olds.map(|(_, gone)| Arc::clone(gone)));
        delta
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Settings made on a resource that is neither topic nor broker (`ConfigResource.Type`'s
    /// number and the resource's name).
    pub fn other_configs(&self, resource_type: i8, name: &str) -> Option<&BTreeMap<Str, Str>> {
        self.other_configs
            .get(&(resource_type, Str::from(name.to_owned())))
    }

    /// What a group has set of its own.
    pub fn group_config(&self, group: &str) -> GroupConfig {
        self.group_configs.get(group).copied().unwrap_or_default()
    }

    /// Names of resources that are neither topic nor broker and have settings.
    pub fn others_with_configs(&self, resource_type: i8) -> impl Iterator<Item = &Str> {
        let first = (resource_type, Str::default());
        let found = self.other_configs.range(first..);
        found
            .take_while(move |((kind, _), _)| *kind == resource_type)
            .map(|((_, name), _)| name)
    }

    /// The layers that decide settings of a topic with these settings of its own.
    pub fn layers<'a>(&'a self, topic: &'a BTreeMap<Str, Str>) -> ConfigLayers<'a> {
        ConfigLayers {
            topic,
            dynamic_broker: self.broker_configs.dynamic_broker(self.node_id),
            dynamic_default: &self.broker_configs.dynamic_default,
            static_broker: &self.broker_configs.static_broker,
        }
    }

    /// Every setting that holds for this broker and was given, by name.
    pub fn broker_settings(&self) -> BTreeMap<Str, Str> {
        let layers = &self.broker_configs;
        let mut settings = layers.static_broker.clone();
        settings.extend(layers.dynamic_default.clone());
        settings.extend(layers.dynamic_broker(self.node_id).clone());
        settings
    }

    /// Works out the effective settings of topics that changed; called before an image is shown.
    pub fn settle(&mut self) {
        let stale = std::mem::replace(&mut self.stale, Stale::Only(BTreeSet::new()));
        let ids = match stale {
            Stale::Only(ids) => ids,
            Stale::Every => self.topics.keys().copied().collect::<BTreeSet<_>>(),
        };
        for id in ids {
            let Some(topic) = self.topics.get(&id) else {
                continue;
            };
            let effective = TopicConfig::effective(&self.layers(&topic.configs));
            // Topics with equal settings share them: thousands of idle topics cost nothing.
            if *topic.config != effective
                && let Some(topic) = self.topics.get_mut(&id)
            {
                Arc::make_mut(topic).config = Arc::new(effective);
            }
        }
    }
}
