//! The view of a broker that must be the same before and after a move: everything that a client can read of it.

use std::collections::{BTreeMap, BTreeSet};

use chronik_protocol::messages::{
    ApiVersionsRequest, DescribeConfigsRequest, DescribeLogDirsRequest,
    DescribeTransactionsRequest, FindCoordinatorRequest, ListGroupsRequest, MetadataRequest,
    describe_configs_request,
};
use chronik_protocol::{ErrorCode, Uuid};

use crate::support::batch::ReadBatch;
use crate::support::calls::{
    EARLIEST, FETCH_BY_NAME, LATEST, code, fetch_request, fetched_bytes, list_offset, read_batches,
    text,
};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::groups::fetch_offsets;

/// `ConfigResource.Type`s.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// One partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PartitionPicture {
    pub(crate) replicas: Vec<i32>,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Offset of the record found for a time, and its time.
    pub(crate) by_time: (i64, i64),
    pub(crate) batches: Vec<ReadBatch>,
    /// Producers and first offsets of the transactions that a reader of committed records leaves out.
    pub(crate) aborted: Vec<(i64, i64)>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopicPicture {
    pub(crate) id: Uuid,
    pub(crate) configs: BTreeMap<String, Option<String>>,
    pub(crate) partitions: BTreeMap<i32, PartitionPicture>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture {
    pub(crate) cluster_id: String,
    pub(crate) broker_id: i32,
    pub(crate) features: BTreeMap<String, i16>,
    pub(crate) topics: BTreeMap<String, TopicPicture>,
    /// Of the broker, and of all brokers: those set at run time.
    pub(crate) broker_configs: BTreeMap<String, BTreeMap<String, Option<String>>>,
    /// By group, topic and partition: offset, leader epoch and metadata.
    pub(crate) commits: BTreeMap<(String, String, i32), (i64, i32, String)>,
    /// Type and state.
    pub(crate) groups: BTreeMap<String, (String, String)>,
}

impl Picture {
    /// Asks for everything.
    ///
    /// # Panics
    /// When the broker answers with an error.
    pub(crate) fn take(client: &mut Client) -> Self {
        // Kafka makes the topic of the coordinator when somebody asks for that.
        for group in crate::seed::GROUPS {
            coordinated(client, group);
        }
        let metadata = client.call(
            &MetadataRequest {
                topics: None,
                ..Default::default()
            },
            12,
        );
        let mut topics = BTreeMap::new();
        for topic in &metadata.topics {
            let name = topic.name.as_deref().expect("a name").to_owned();
            assert_eq!(code(topic.error_code), ErrorCode::None, "{name}");
            let mut partitions = BTreeMap::new();
            for partition in &topic.partitions {
                assert_eq!(code(partition.error_code), ErrorCode::None, "{name}");
                assert_eq!(partition.leader_id, metadata.brokers[0].node_id, "{name}");
                let index = partition.partition_index;
                let replicas = partition.replica_nodes.clone();
                partitions.insert(
                    index,
                    PartitionPicture::take(client, &name, index, replicas),
                );
            }
            let configs = configs(client, TOPIC, &name, &[1]);
            let id = topic.topic_id;
            topics.insert(
                name,
                TopicPicture {
                    id,
                    configs,
                    partitions,
                },
            );
        }
        let broker_id = metadata.brokers[0].node_id;
        let broker_configs = [broker_id.to_string(), String::new()];
        let broker_configs = broker_configs.map(|name| {
            let found = configs(client, BROKER, &name, &[2, 3]);
            (name, found)
        });
        let (groups, commits) = groups(client);
        no_directory_fails(client);
        Self {
            cluster_id: metadata
                .cluster_id
                .as_deref()
                .unwrap_or_default()
                .to_owned(),
            broker_id,
            features: features(client),
            topics,
            broker_configs: broker_configs.into(),
            commits,
            groups,
        }
    }

    /// Holds a picture after a move against this one.
    ///
    /// # Panics
    /// Naming what differs.
    pub(crate) fn expect(&self, after: &Self) {
        let names = |picture: &Self| picture.topics.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(after), "topics");
        for (name, topic) in &self.topics {
            let found = &after.topics[name];
            assert_eq!(
                (topic.id, &topic.configs),
                (found.id, &found.configs),
                "{name}"
            );
            for (index, partition) in &topic.partitions {
                partition.expect(&found.partitions[index], &format!("{name}-{index}"));
            }
        }
        let rest = |picture: &Self| Self {
            topics: BTreeMap::new(),
            ..picture.clone()
        };
        assert_eq!(rest(self), rest(after));
    }
}

impl PartitionPicture {
    fn take(client: &mut Client, topic: &str, index: i32, replicas: Vec<i32>) -> Self {
        led(client, topic, index);
        let mut offset = |time| {
            let found = list_offset(client, topic, index, time);
            assert_eq!(code(found.error_code), ErrorCode::None, "{topic}-{index}");
            (found.offset, found.timestamp)
        };
        let (start, end) = (offset(EARLIEST).0, offset(LATEST).0);
        let by_time = offset(crate::support::batch::BASE_TIMESTAMP_MS + 500);
        let batches = match start < end {
            true => read_batches(client, topic, index, start),
            false => Vec::new(),
        };
        Self {
            replicas,
            start,
            end,
            by_time,
            aborted: aborted(client, topic, index, start),
            batches,
        }
    }

    fn expect(&self, after: &Self, name: &str) {
        // A coordinator that loads a group may write of it what was due meanwhile.
        if name.starts_with("__consumer_offsets") {
            let kept = after.batches.get(..self.batches.len());
            assert_eq!(Some(&self.batches[..]), kept, "{name}");
            return;
        }
        let brief = |one: &Self| {
            let aborted = one.aborted.clone();
            (
                one.replicas.clone(),
                one.start,
                one.end,
                one.by_time,
                aborted,
            )
        };
        assert_eq!(brief(self), brief(after), "{name}");
        assert!(
            self.batches == after.batches,
            "the batches of {name} differ"
        );
    }
}

/// What readers of committed records are told to leave out; Kafka tells it segment by segment.
fn aborted(client: &mut Client, topic: &str, index: i32, from: i64) -> Vec<(i64, i64)> {
    let (mut offset, mut found) = (from, BTreeSet::new());
    loop {
        let mut request = fetch_request(topic, index, offset);
        request.isolation_level = 1;
        let mut answer = client.call(&request, FETCH_BY_NAME);
        let partition = answer.responses.remove(0).partitions.remove(0);
        assert_eq!(
            code(partition.error_code),
            ErrorCode::None,
            "{topic}-{index}"
        );
        let batches = ReadBatch::all(&fetched_bytes(&partition));
        let aborted = partition
            .aborted_transactions
            .unwrap_or_default()
            .into_iter();
        found.extend(aborted.map(|one| (one.producer_id, one.first_offset)));
        match batches.last() {
            Some(last) => offset = last.base_offset + i64::from(last.last_offset_delta) + 1,
            None => return found.into_iter().collect(),
        }
    }
}

fn configs(
    client: &mut Client,
    resource_type: i8,
    name: &str,
    sources: &[i8],
) -> BTreeMap<String, Option<String>> {
    let request = DescribeConfigsRequest {
        resources: vec![describe_configs_request::DescribeConfigsResource {
            resource_type,
            resource_name: text(name),
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = client.call(&request, 4).results.remove(0);
    assert_eq!(code(answer.error_code), ErrorCode::None, "{name}");
    let set = answer.configs.into_iter();
    let set = set.filter(|config| sources.contains(&config.config_source));
    set.map(|config| {
        (
            config.name.to_string(),
            config.value.map(|value| value.to_string()),
        )
    })
    .collect()
}

fn features(client: &mut Client) -> BTreeMap<String, i16> {
    let request = ApiVersionsRequest {
        client_software_name: text("test"),
        client_software_version: text("1"),
        ..ApiVersionsRequest::default()
    };
    let answer = client.call(&request, 3);
    assert_eq!(code(answer.error_code), ErrorCode::None);
    let found = answer.finalized_features.into_iter();
    found
        .map(|feature| (feature.name.to_string(), feature.max_version_level))
        .collect()
}

/// Waits until a partition can be used: Kafka answers before.
pub(crate) fn led(client: &mut Client, topic: &str, partition: i32) {
    eventually(&format!("a leader of {topic}-{partition}"), || {
        let answer = list_offset(client, topic, partition, LATEST);
        code(answer.error_code).is_none().then_some(())
    });
}

/// Waits until a group has a coordinator that has loaded it: Kafka answers before.
///
/// # Panics
/// When that never happens.
pub(crate) fn coordinated(client: &mut Client, group: &str) {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![text(group)],
        ..Default::default()
    };
    eventually(&format!("a coordinator of {group}"), || {
        let found = client.call(&request, 4).coordinators.remove(0);
        let is_found = code(found.error_code).is_none();
        (is_found && code(fetch_offsets(client, group, None).error_code).is_none()).then_some(())
    });
}

/// Waits until a transactional id has a coordinator that has loaded it.
///
/// # Panics
/// When that never happens.
pub(crate) fn transactions_coordinated(client: &mut Client, id: &str) {
    let find = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec![text(id)],
        ..Default::default()
    };
    let describe = DescribeTransactionsRequest {
        transactional_ids: vec![text(id)],
        ..Default::default()
    };
    eventually(&format!("a coordinator of {id}"), || {
        let found = client.call(&find, 4).coordinators.remove(0);
        let state = client.call(&describe, 0).transaction_states.remove(0);
        let is_read = matches!(
            code(state.error_code),
            ErrorCode::None | ErrorCode::TransactionalIdNotFound
        );
        (code(found.error_code).is_none() && is_read).then_some(())
    });
}

type Groups = BTreeMap<String, (String, String)>;
type Commits = BTreeMap<(String, String, i32), (i64, i32, String)>;

fn groups(client: &mut Client) -> (Groups, Commits) {
    let listed = client.call(&ListGroupsRequest::default(), 5);
    assert_eq!(code(listed.error_code), ErrorCode::None);
    let (mut groups, mut commits) = (BTreeMap::new(), BTreeMap::new());
    for group in listed.groups {
        let id = group.group_id.to_string();
        let found = fetch_offsets(client, &id, None);
        assert_eq!(code(found.error_code), ErrorCode::None, "{id}");
        for topic in found.topics {
            for partition in topic.partitions {
                let key = (
                    id.clone(),
                    topic.name.to_string(),
                    partition.partition_index,
                );
                let metadata = partition.metadata.unwrap_or_default().to_string();
                let epoch = partition.committed_leader_epoch;
                commits.insert(key, (partition.committed_offset, epoch, metadata));
            }
        }
        let kind = (group.group_type.to_string(), group.group_state.to_string());
        groups.insert(id, kind);
    }
    (groups, commits)
}

fn no_directory_fails(client: &mut Client) {
    let request = DescribeLogDirsRequest {
        topics: None,
        ..Default::default()
    };
    let answer = client.call(&request, 4);
    for dir in answer.results {
        assert_eq!(code(dir.error_code), ErrorCode::None, "{}", dir.log_dir);
    }
}
