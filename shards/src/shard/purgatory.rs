//! Requests that wait for data: fetches below their `min_bytes`, and waits for several shards.
//!
//! State of one shard. Woken by high watermarks, deadlines, cancellation and whatever makes a read
//! of one of their parts an error. Knows nobody's bytes: the shard counts them and tells.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use slab::Slab;

use chronik_terms::{AwaitRequest, Isolation, ParkToken, PartitionId, ReadRequest};

use super::timers::TimerKey;

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
    /// Whether it is among the watchers of its partitions: until it is told to wake.
    watches: bool,
}

#[derive(Debug)]
struct Available {
    partition: PartitionId,
    offset: i64,
    bytes_max: usize,
    bytes: usize,
    /// Where it stands among the watchers of its partition.
    place: usize,
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
///
/// Every part knows its place among the watchers of its partition, so that parking and waking cost
/// what the request names, however many others wait for the same partitions.
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
        let by_partition = &mut self.by_partition;
        let watch =
            |(part, (partition, offset, bytes_max, bytes)): (usize, (_, _, usize, usize))| {
                let watchers = by_partition.entry(partition).or_default();
                watchers.push((key, part));
                Available {
                    partition,
                    offset,
                    bytes_max,
                    bytes: bytes.min(bytes_max),
                    place: watchers.len() - 1,
                }
            };
        let available: Vec<Available> = parts.enumerate().map(watch).collect();
        self.by_token.insert(wait.token, key);
        self.entries.insert(Entry {
            parked,
            responder,
            token: wait.token,
            timer,
            min_bytes: wait.min_bytes,
            total: available.iter().map(|part| part.bytes).sum(),
            available,
            watches: true,
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

    /// An entry has what it waited for: nobody counts for it any more. Its timer, the first time.
    pub(crate) fn rouse(&mut self, key: usize) -> Option<TimerKey> {
        self.unwatch(key).then(|| self.timer(key)).flatten()
    }

    /// Takes the parts of an entry out of the watchers; whether they were there.
    fn unwatch(&mut self, key: usize) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        if !mem::take(&mut entry.watches) {
            return false;
        }
        for part in 0..entry.available.len() {
            self.unwatch_part(key, part);
        }
        true
    }

    fn unwatch_part(&mut self, key: usize, part: usize) {
        let Some(watched) = self.entries.get(key).and_then(|e| e.available.get(part)) else {
            return;
        };
        let (partition, place) = (watched.partition, watched.place);
        let Some(watchers) = self.by_partition.get_mut(&partition) else {
            return;
        };
        watchers.swap_remove(place);
        // The last of the watchers stands in the free place now.
        let moved = watchers.get(place).copied();
        if watchers.is_empty() {
            self.by_partition.remove(&partition);
        }
        if let Some((key, part)) = moved
            && let Some(entry) = self.entries.get_mut(key)
            && let Some(watched) = entry.available.get_mut(part)
        {
            watched.place = place;
        }
    }

    /// Takes an entry out.
    pub(crate) fn take(&mut self, key: usize) -> Option<Entry<R>> {
        self.unwatch(key);
        let entry = self.entries.try_remove(key)?;
        // A token that was used twice names the later request.
        if self.by_token.get(&entry.token) == Some(&key) {
            self.by_token.remove(&entry.token);
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
    use crate::shard::timers::{Timer, Timers};
    use chronik_protocol::Uuid;
    use chronik_terms::{ReadPart, Wait};

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
            reader: None,
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

    /// Where each entry's parts are found, and that nobody else is.
    fn check(purgatory: &Purgatory<u8>) {
        let mut watching = 0;
        for (key, entry) in purgatory.entries.iter().filter(|(_, entry)| entry.watches) {
            for (part, watched) in entry.available.iter().enumerate() {
                let watchers = &purgatory.by_partition[&watched.partition];
                assert_eq!(watchers[watched.place], (key, part));
                watching += 1;
            }
        }
        let listed: usize = purgatory.by_partition.values().map(Vec::len).sum();
        assert_eq!(listed, watching);
    }

    #[test]
    fn whoever_leaves_the_others_are_found_in_their_places() {
        let mut purgatory = Purgatory::default();
        let mut random = 7_u64;
        let mut parked = Vec::new();
        for token in 0..400 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let choice = usize::try_from(random >> 33).expect("31 bits");
            match choice % 5 {
                0 | 1 if !parked.is_empty() => {
                    assert!(
                        purgatory
                            .take(parked.swap_remove(choice % parked.len()))
                            .is_some()
                    );
                }
                2 if !parked.is_empty() => {
                    let key = parked[choice % parked.len()];
                    if purgatory.rouse(key).is_some() {
                        assert!(purgatory.rouse(key).is_none(), "woken once");
                    }
                }
                _ => parked.push(park(&mut purgatory, token, 100, 1 + token as i32 % 7)),
            }
            check(&purgatory);
        }
        for key in parked {
            assert!(purgatory.take(key).is_some());
            check(&purgatory);
        }
        assert!(purgatory.by_partition.is_empty() && purgatory.by_token.is_empty());
    }
}
