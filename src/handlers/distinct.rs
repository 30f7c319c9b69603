//! What a request names more than once, found in one place: where it is decoded.
//!
//! Every request that is served says here what becomes of the repetitions in its arrays, as Kafka
//! 4.3 does it, so that no handler and no shard does anything twice. Runs on the shard of the
//! connection; pure; costs what the request names, once. Repetitions that Kafka answers one by one
//! (FindCoordinator, DescribeGroups, ConsumerGroupDescribe, DescribeConfigs, LeaveGroup, the offsets
//! of groups, OffsetForLeaderEpoch, elections, reassignments, features, ACLs) stay, and their handlers
//! see to it that the work is done once or bounded; so do those of AlterReplicaLogDirs, where the last
//! of several directories counts.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use chronik_protocol::messages::*;
use chronik_protocol::{Str, Uuid};

/// A request whose repetitions are settled.
pub(crate) trait Distinct {
    /// Takes repetitions out, by the rule of the API.
    fn settle(&mut self) {}
}

/// Requests without arrays of names, and those whose repetitions are answered one by one.
macro_rules! as_they_come {
    ($($request:ty),* $(,)?) => { $(impl Distinct for $request {})* };
}

as_they_come!(
    AlterPartitionReassignmentsRequest,
    AlterReplicaLogDirsRequest,
    CreateAclsRequest,
    CreateDelegationTokenRequest,
    DeleteAclsRequest,
    DescribeAclsRequest,
    DescribeDelegationTokenRequest,
    DescribeQuorumRequest,
    ElectLeadersRequest,
    ExpireDelegationTokenRequest,
    ListPartitionReassignmentsRequest,
    RenewDelegationTokenRequest,
    UpdateFeaturesRequest,
    ApiVersionsRequest,
    ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest,
    DescribeClusterRequest,
    DescribeGroupsRequest,
    FindCoordinatorRequest,
    HeartbeatRequest,
    InitProducerIdRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    OffsetForLeaderEpochRequest,
);

/// Of those that are named again and again, which counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    First,
    /// In the place of the first, as in a map that keeps the order of its keys.
    Last,
    /// Two of them, which is how the request is known to name them twice and refused for it.
    Two,
}

impl Distinct for ProduceRequest {
    /// `KafkaApis#handleProduceRequest` puts the records into a map.
    fn settle(&mut self) {
        self.topic_data = of_topics(
            std::mem::take(&mut self.topic_data),
            Keep::Last,
            |topic| (topic.name.clone(), topic.topic_id),
            |topic| &mut topic.partition_data,
            |partition| partition.index,
        );
    }
}

impl Distinct for FetchRequest {
    /// `FetchRequest#fetchData` is a map. Forgotten ones are forgotten once, whatever their number.
    fn settle(&mut self) {
        self.topics = of_topics(
            std::mem::take(&mut self.topics),
            Keep::Last,
            |topic| (topic.topic.clone(), topic.topic_id),
            |topic| &mut topic.partitions,
            |partition| partition.partition,
        );
    }
}

impl Distinct for ListOffsetsRequest {
    /// Refused (`ListOffsetsRequest#duplicatePartitions`).
    fn settle(&mut self) {
        self.topics = of_topics(
            std::mem::take(&mut self.topics),
            Keep::Two,
            |topic| topic.name.clone(),
            |topic| &mut topic.partitions,
            |partition| partition.partition_index,
        );
    }
}

impl Distinct for DeleteRecordsRequest {
    /// `KafkaApis#handleDeleteRecordsRequest` makes a map of offsets.
    fn settle(&mut self) {
        self.topics = of_topics(
            std::mem::take(&mut self.topics),
            Keep::Last,
            |topic| topic.name.clone(),
            |topic| &mut topic.partitions,
            |partition| partition.partition_index,
        );
    }
}

impl Distinct for DescribeLogDirsRequest {
    /// A set of partitions.
    fn settle(&mut self) {
        if let Some(topics) = &mut self.topics {
            *topics = of_topics(
                std::mem::take(topics),
                Keep::First,
                |topic| topic.topic.clone(),
                |topic| &mut topic.partitions,
                |partition| *partition,
            );
        }
    }
}

impl Distinct for MetadataRequest {
    /// A set of names, a set of ids.
    fn settle(&mut self) {
        if let Some(topics) = &mut self.topics {
            keep(topics, Keep::First, |topic| {
                (topic.name.clone(), topic.topic_id)
            });
        }
    }
}

impl Distinct for DescribeTopicPartitionsRequest {
    /// A sorted set of names.
    fn settle(&mut self) {
        keep(&mut self.topics, Keep::First, |topic| topic.name.clone());
    }
}

impl Distinct for CreateTopicsRequest {
    /// Topics that are named twice are refused, once. Of a setting the last counts; partitions that
    /// are assigned twice are refused.
    fn settle(&mut self) {
        keep(&mut self.topics, Keep::Two, |topic| topic.name.clone());
        for topic in &mut self.topics {
            keep(&mut topic.configs, Keep::Last, |config| config.name.clone());
            keep(&mut topic.assignments, Keep::Two, |given| {
                given.partition_index
            });
        }
    }
}

impl Distinct for CreatePartitionsRequest {
    /// Refused, once.
    fn settle(&mut self) {
        keep(&mut self.topics, Keep::Two, |topic| topic.name.clone());
    }
}

impl Distinct for DeleteTopicsRequest {
    /// Refused, once.
    fn settle(&mut self) {
        keep(&mut self.topic_names, Keep::Two, Str::clone);
        // Those that name nothing are refused each for itself.
        let nameless = Cell::new(0_usize);
        keep(&mut self.topics, Keep::Two, |topic| {
            if topic.name.is_none() && topic.topic_id.is_zero() {
                nameless.set(nameless.get() + 1);
                return (None, Uuid::ZERO, nameless.get());
            }
            (topic.name.clone(), topic.topic_id, 0)
        });
    }
}

impl Distinct for DeleteGroupsRequest {
    /// A set of names.
    fn settle(&mut self) {
        keep(&mut self.groups_names, Keep::First, Str::clone);
    }
}

impl Distinct for JoinGroupRequest {
    /// A protocol that is named twice counts twice, so that no count of members ever agrees with it
    /// (`ClassicGroup#candidateProtocols`): another one is chosen.
    fn settle(&mut self) {
        let mut seen: HashMap<Str, bool> = HashMap::new();
        for protocol in &self.protocols {
            let again = seen.contains_key(&protocol.name);
            seen.insert(protocol.name.clone(), again);
        }
        let once = |name: &Str| seen.get(name) == Some(&false);
        if self.protocols.iter().any(|protocol| once(&protocol.name)) {
            self.protocols.retain(|protocol| once(&protocol.name));
        } else {
            keep(&mut self.protocols, Keep::First, |protocol| {
                protocol.name.clone()
            });
        }
    }
}

impl Distinct for SyncGroupRequest {
    /// A map of shares.
    fn settle(&mut self) {
        keep(&mut self.assignments, Keep::Last, |share| {
            share.member_id.clone()
        });
    }
}

impl Distinct for ListGroupsRequest {
    /// Sets of names.
    fn settle(&mut self) {
        keep(&mut self.states_filter, Keep::First, Str::clone);
        keep(&mut self.types_filter, Keep::First, Str::clone);
    }
}

impl Distinct for ListConfigResourcesRequest {
    /// A set of types.
    fn settle(&mut self) {
        keep(&mut self.resource_types, Keep::First, |kind| *kind);
    }
}

impl Distinct for DescribeConfigsRequest {
    /// Resources are answered one by one; the keys of each are a set.
    fn settle(&mut self) {
        for resource in &mut self.resources {
            if let Some(keys) = &mut resource.configuration_keys {
                keep(keys, Keep::First, Str::clone);
            }
        }
    }
}

impl Distinct for AlterConfigsRequest {
    /// Resources and settings that are named twice are refused, each time (`ConfigAdminManager`).
    fn settle(&mut self) {
        for resource in &mut self.resources {
            keep(&mut resource.configs, Keep::Two, |config| {
                config.name.clone()
            });
        }
    }
}

impl Distinct for IncrementalAlterConfigsRequest {
    /// As AlterConfigs, whatever the operation.
    fn settle(&mut self) {
        for resource in &mut self.resources {
            keep(&mut resource.configs, Keep::Two, |config| {
                config.name.clone()
            });
        }
    }
}

/// Below this many elements they are compared with each other: cheaper than a set, and enough for
/// what clients send.
const COMPARED_MAX: usize = 8;

/// Takes repeated elements out; the others keep their order.
fn keep<T, K: Hash + Eq>(elements: &mut Vec<T>, rule: Keep, key: impl Fn(&T) -> K) {
    if elements.len() < 2 || (elements.len() <= COMPARED_MAX && all_differ(elements, &key)) {
        return;
    }
    match rule {
        Keep::First => {
            let mut seen = HashSet::with_capacity(elements.len());
            elements.retain(|element| seen.insert(key(element)));
        }
        Keep::Two => {
            let mut seen: HashMap<K, bool> = HashMap::with_capacity(elements.len());
            elements.retain(|element| match seen.get_mut(&key(element)) {
                Some(twice) => !std::mem::replace(twice, true),
                None => {
                    seen.insert(key(element), false);
                    true
                }
            });
        }
        Keep::Last => {
            let mut places: HashMap<K, usize> = HashMap::with_capacity(elements.len());
            let mut kept: Vec<T> = Vec::with_capacity(elements.len());
            for element in std::mem::take(elements) {
                let free = kept.len();
                let place = *places.entry(key(&element)).or_insert(free);
                match kept.get_mut(place) {
                    Some(earlier) => *earlier = element,
                    None => kept.push(element),
                }
            }
            *elements = kept;
        }
    }
}

fn all_differ<T, K: Eq>(elements: &[T], key: impl Fn(&T) -> K) -> bool {
    let mut rest = elements;
    while let Some((first, others)) = rest.split_first() {
        let own = key(first);
        if others.iter().any(|other| key(other) == own) {
            return false;
        }
        rest = others;
    }
    true
}

/// Takes repeated partitions out of an array of topics that may itself name a topic again.
fn of_topics<T, P, K: Hash + Eq>(
    mut topics: Vec<T>,
    rule: Keep,
    topic_key: impl Fn(&T) -> K,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
    index: impl Fn(&P) -> i32,
) -> Vec<T> {
    if topics.len() < 2 {
        topics
            .iter_mut()
            .for_each(|topic| keep(partitions(topic), rule, &index));
        return topics;
    }
    let numbers = numbered(&topics, topic_key);
    let many = topics.len() > numbers.iter().max().map_or(0, |max| max + 1);
    if !many {
        topics
            .iter_mut()
            .for_each(|topic| keep(partitions(topic), rule, &index));
        return topics;
    }
    // A topic that is named again goes on where it was named first.
    let mut flat: Vec<(usize, usize, P)> = Vec::new();
    let mut was_empty = Vec::with_capacity(topics.len());
    for (place, (topic, number)) in topics.iter_mut().zip(&numbers).enumerate() {
        let own = std::mem::take(partitions(topic));
        was_empty.push(own.is_empty());
        flat.extend(own.into_iter().map(|partition| (place, *number, partition)));
    }
    // The place of an element that takes another's is that of the first.
    let mut first: HashMap<(usize, i32), usize> = HashMap::with_capacity(flat.len());
    for (place, number, partition) in &mut flat {
        let first = *first.entry((*number, index(partition))).or_insert(*place);
        if rule != Keep::Two {
            *place = first;
        }
    }
    keep(&mut flat, rule, |(_, number, partition)| {
        (*number, index(partition))
    });
    for (place, _, partition) in flat {
        if let Some(topic) = topics.get_mut(place) {
            partitions(topic).push(partition);
        }
    }
    let mut was_empty = was_empty.into_iter();
    topics.retain_mut(|topic| was_empty.next() == Some(true) || !partitions(topic).is_empty());
    topics
}

/// A number for each topic, the same for those of the same key, from 0 without gaps.
fn numbered<T, K: Hash + Eq>(topics: &[T], key: impl Fn(&T) -> K) -> Vec<usize> {
    if topics.len() <= COMPARED_MAX && all_differ(topics, &key) {
        return (0..topics.len()).collect();
    }
    let mut numbers: HashMap<K, usize> = HashMap::with_capacity(topics.len());
    let number = |topic: &T| {
        let next = numbers.len();
        *numbers.entry(key(topic)).or_insert(next)
    };
    topics.iter().map(number).collect()
}
