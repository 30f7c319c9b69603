//! Consumer groups of the new protocol (KIP-848): members say what they want, the broker assigns.
//!
//! Replayed like everything in this room; runs on the designated shard. The way of a heartbeat:
//! `requests` finds the group, `heartbeat` brings the member up to date, `subscription` moves the
//! group's epoch when that changes what is subscribed to, `target` has an `assignor` make the next
//! target, `reconcile` takes the member one step towards it. All of them read the group and make
//! `records`; the group changes when those are replayed (`group`). Never awaits, never reads a clock.

mod assignor;
mod classic_members;
pub(super) mod convert;
mod describe;
mod embedded;
pub(super) mod group;
mod hash;
mod heartbeat;
mod leave;
mod member;
mod offsets;
mod reconcile;
mod records;
pub(super) mod regex;
mod requests;
mod resolve;
pub(super) mod settings;
mod subscription;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use convert::tombstones;
pub(crate) use describe::not_described;
#[cfg(test)]
pub(crate) use group::GroupState;
pub(crate) use offsets::CommitRight;
pub(crate) use subscription::TopicVersions;
