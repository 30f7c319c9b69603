//! What metadata records call things: kinds of resources, the metadata log's topic, identities of records.
//!
//! Plain values at the bottom of the catalogue.

use chronik_protocol::{Str, Uuid};

/// The one topic that is no topic: the log of the catalogue itself.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// `ConfigResource.Type` of a topic.
pub const RESOURCE_TOPIC: i8 = 2;
/// `ConfigResource.Type` of a broker, or of all brokers where the name is empty.
pub const RESOURCE_BROKER: i8 = 4;
/// `ConfigResource.Type` of a group.
pub const RESOURCE_GROUP: i8 = 32;

/// Identity of a record that is kept whole: what a later record of the same identity replaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetainedKey {
    /// The registration of a controller, by node id.
    Controller(i32),
    /// How far a migration from ZooKeeper is.
    ZkMigration,
    /// A delegation token, by its id.
    DelegationToken(Str),
    /// A SCRAM credential, by user and mechanism.
    ScramCredential(Str, i8),
    /// A quota, by its entity (types and names) and key.
    ClientQuota(Vec<(Str, Option<Str>)>, Str),
    /// An access control entry, by its id.
    Access(Uuid),
}
