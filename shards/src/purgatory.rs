//! Requests that wait for data: fetches below their `min_bytes`, and waits for several shards.
//!
//! State of one shard. Woken by high watermarks, deadlines, cancellation and whatever makes a read
//! of one of their parts an error. Knows nobody's bytes: the shard counts them and tells.

use std::collections::{BTreeMap, HashMap};

use slab::Slab;

use crate::request::{AwaitRequest, Isolation, ParkToken, PartitionId, ReadRequest};
use crate::shard::timers::TimerKey;

/// What is parked.
#[derive(Debug)]
pub(crate) enum Parked {
    /// Read when woken.
    Read(ReadRequest),
    /// Only told when woken.
    Await(AwaitRequest),
}

/// A parked request and who waits for it.
#[derive(Debug)]
pub(crate) struct Entry<R> {
    pub(crate) parked: Parked,
    pub(crate) responder: R,
    pub(crate) token: ParkToken,
    pub(crate) timer: TimerKey,
    min_bytes: usize,
    available: Vec<Available>,
    /// Sum over `available`, each capped.
    total: usize,
}

#[derive(Debug)]
struct Available {
    partition: PartitionId,
    offset: i64,
    bytes_max: usize,
    bytes: usize,
}

/// A part of a parked request as the shard counts its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    pub(crate) key: usize,
    pub(crate) part: usize,
    pub(crate) offset: i64,
    pub(crate) isolation: Isolation,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Purgatory<R> {
    entries: Slab<Entry<R>>,
    by_partition: BTreeMap<PartitionId, Vec<(usize, usize)>>,
    by_token: HashMap<ParkToken, usize>,
}

impl<R> Default for Purgatory<R> {
    fn default() -> Self {
        Purgatory {
            entries: Slab::new(),
            by_partition: BTreeMap::new(),
            by_token: HashMap::new(),
        }
    }
}

impl<R> Purgatory<R> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The key the next entry will have, for its timer.
    pub(crate) fn next_key(&self) -> usize {
        self.entries.vacant_key()
    }

    /// Parks a request. `parts` are partition, offset, most bytes that count, and bytes there now.
    pub(crate) fn park(
        &mut self,
        parked: Parked,
        responder: R,
        timer: TimerKey,
        parts: impl Iterator<Item = (PartitionId, i64, usize, usize)>,
    ) {
        let wait = match &parked {
            Parked::Read(request) => request.wait,
            Parked::Await(request) => Some(request.wait),
        };
        let wait = wait.expect("only requests that wait are parked");
        let key = self.entries.vacant_key();
        let available: Vec<Available> = parts
            .map(|(partition, offset, bytes_max, bytes)| Available {
                partition,
                offset,
                bytes_max,
                bytes: bytes.min(bytes_max),
            })
            .collect();
        for (part, watched) in available.iter().enumerate() {
            self.by_partition
                .entry(watched.partition)
                .or_default()
                .push((key, part));
        }
        self.by_token.insert(wait.token, key);
        self.entries.insert(Entry {
            parked,
            responder,
            token: wait.token,
            timer,
            min_bytes: wait.min_bytes,
            total: available.iter().map(|part| part.bytes).sum(),
            available,
        });
    }

    /// Whoever watches `partition`.
    pub(crate) fn watches(&self, partition: PartitionId, out: &mut Vec<Watch>) {
        for &(key, part) in self.by_partition.get(&partition).into_iter().flatten() {
            let Some(entry) = self.entries.get(key) else {
                continue;
            };
            let Some(watched) = entry.available.get(part) else {
                continue;
            };
            let isolation = match &entry.parked {
                Parked::Read(request) => request.isolation,
                Parked::Await(request) => request.isolation,
            };
            out.push(Watch {
                key,
                part,
                offset: watched.offset,
                isolation,
            });
        }
    }

    /// Takes in how many bytes a watched part has now; says whether the request has enough.
    pub(crate) fn update(&mut self, watch: Watch, bytes: usize) -> bool {
        let Some(entry) = self.entries.get_mut(watch.key) else {
            return false;
        };
        let Some(part) = entry.available.get_mut(watch.part) else {
            return false;
        };
        let bytes = bytes.min(part.bytes_max);
        entry.total = entry.total.saturating_sub(part.bytes).saturating_add(bytes);
        part.bytes = bytes;
        entry.total >= entry.min_bytes
    }

    /// The timer of an entry: no two entries ever have the same.
    pub(crate) fn timer(&self, key: usize) -> Option<TimerKey> {
        self.entries.get(key).map(|entry| entry.timer)
    }

    /// The entry of a token, if it is parked.
    pub(crate) fn find(&self, token: ParkToken) -> Option<usize> {
        self.by_token.get(&token).copied()
    }

    /// Takes an entry out.
    pub(crate) fn take(&mut self, key: usize) -> Option<Entry<R>> {
        let entry = self.entries.try_remove(key)?;
        // A token that was used twice names the later request.
        if self.by_token.get(&entry.token) == Some(&key) {
            self.by_token.remove(&entry.token);
        }
        for part in &entry.available {
            if let Some(watchers) = self.by_partition.get_mut(&part.partition) {
                watchers.retain(|(watcher, _)| *watcher != key);
                if watchers.is_empty() {
                    self.by_partition.remove(&part.partition);
                }
            }
        }
        Some(entry)
    }

    /// Every entry that is parked.
    pub(crate) fn keys(&self) -> Vec<usize> {
        self.entries.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{ReadPart, Wait};
    use crate::shard::timers::{Timer, Timers};
    use chronik_protocol::Uuid;

    fn partition(index: i32) -> PartitionId {
        PartitionId {
            topic_id: Uuid(7),
            index,
        }
    }

    fn request(token: u64, min_bytes: usize, parts: i32) -> ReadRequest {
        ReadRequest {
            isolation: Isolation::ReadUncommitted,
            max_bytes: 1000,
            parts: (0..parts)
                .map(|index| ReadPart {
                    partition: partition(index),
                    fetch_offset: 0,
                    max_bytes: 60,
                    current_leader_epoch: -1,
                    last_fetched_epoch: -1,
                })
                .collect(),
            wait: Some(Wait {
                min_bytes,
                deadline_ns: 9,
                token: ParkToken(token),
            }),
        }
    }

    fn park(purgatory: &mut Purgatory<u8>, token: u64, min_bytes: usize, parts: i32) -> usize {
        let key = purgatory.next_key();
        let timer = Timers::default().add(9, Timer::Parked(key));
        let request = request(token, min_bytes, parts);
        let watched: Vec<_> = request
            .parts
            .iter()
            .map(|part| (part.partition, 0, part.max_bytes, 0))
            .collect();
        purgatory.park(Parked::Read(request), 1, timer, watched.into_iter());
        key
    }

    #[test]
    fn enough_is_the_sum_of_parts_each_capped() {
        let mut purgatory = Purgatory::default();
        let key = park(&mut purgatory, 5, 100, 2);
        let mut watches = Vec::new();
        purgatory.watches(partition(0), &mut watches);
        purgatory.watches(partition(1), &mut watches);
        assert_eq!(watches.len(), 2);
        assert!(
            !purgatory.update(watches[0], 500),
            "one part counts for 60 at most"
        );
        assert!(!purgatory.update(watches[1], 39));
        assert!(purgatory.update(watches[1], 40));
        assert_eq!(purgatory.find(ParkToken(5)), Some(key));
        assert!(purgatory.take(key).is_some());
        assert!(purgatory.take(key).is_none());
        assert_eq!(purgatory.find(ParkToken(5)), None);
        assert!(purgatory.by_partition.is_empty());
    }
}
