//! Metadata and DescribeTopicPartitions: by name, by id, all, page by page; and topics created by a request for them.

use chronik_protocol::messages::{
    DescribeTopicPartitionsRequest, MetadataRequest, describe_topic_partitions_request,
    metadata_request,
};
use chronik_protocol::{ErrorCode, Uuid};

use crate::subject::{Subject, unused_name};
use crate::support::calls::{code, create_topic, text};
use crate::support::skip;
use crate::topics::metadata;

#[test]
fn metadata_makes_topics_when_it_may() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let name = unused_name();
    let asked = metadata(&mut client, &[&name], false);
    assert_eq!(
        code(asked.topics[0].error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let asked = metadata(&mut client, &[&name], true);
    assert!(
        matches!(
            code(asked.topics[0].error_code),
            ErrorCode::UnknownTopicOrPartition | ErrorCode::LeaderNotAvailable | ErrorCode::None
        ),
        "{asked:?}"
    );
    // Clients ask until it is there.
    let made = (0..1_000).find_map(|_| {
        let topic = metadata(&mut client, &[&name], true).topics.remove(0);
        (topic.error_code == 0).then_some(topic)
    });
    assert_eq!(made.expect("the topic").partitions.len(), 1);
    let invalid = metadata(&mut client, &["a b"], true);
    assert_eq!(
        code(invalid.topics[0].error_code),
        ErrorCode::InvalidTopicException
    );
}

#[test]
fn metadata_makes_no_topics_when_it_may_not() {
    let subject = Subject::start_with(&[("auto.create.topics.enable", "false")]);
    if subject.is_outside() {
        skip("the setting of another broker is not known here");
        return;
    }
    let mut client = subject.connect();
    let name = unused_name();
    for _ in 0..3 {
        let asked = metadata(&mut client, &[&name], true);
        assert_eq!(
            code(asked.topics[0].error_code),
            ErrorCode::UnknownTopicOrPartition
        );
    }
}

#[test]
fn metadata_names_ids_all_and_none() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = unused_name();
    let topic_id = create_topic(&mut client, &topic, 2, &[]);
    let all = client.call(
        &MetadataRequest {
            topics: None,
            ..Default::default()
        },
        12,
    );
    assert!(all.topics.iter().any(|found| found.topic_id == topic_id));
    assert!(all.cluster_id.is_some_and(|id| !id.is_empty()));
    let none = client.call(
        &MetadataRequest {
            topics: Some(Vec::new()),
            ..Default::default()
        },
        12,
    );
    assert_eq!((none.topics.len(), none.brokers.len()), (0, 1));
    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![metadata_request::MetadataRequestTopic {
            name: None,
            topic_id,
            ..Default::default()
        }]),
        ..Default::default()
    };
    let found = client.call(&by_id(topic_id), 12);
    assert_eq!(found.topics[0].name.as_deref(), Some(&*topic));
    let unknown = client.call(&by_id(Uuid(0x1_0000)), 12);
    assert_eq!(
        code(unknown.topics[0].error_code),
        ErrorCode::UnknownTopicId
    );
    let broker = &found.brokers[0];
    let port = i32::from(subject.address().port());
    assert_eq!(
        (&*broker.host, broker.port),
        ("127.0.0.1", port),
        "where a local client reaches it"
    );
}

#[test]
fn topics_are_described_page_by_page() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let name = unused_name();
    let names = [
        format!("{name}-a"),
        format!("{name}-b"),
        format!("{name}-c"),
    ];
    for name in &names {
        create_topic(&mut client, name, 4, &[]);
    }
    let topics = names
        .iter()
        .map(|name| describe_topic_partitions_request::TopicRequest {
            name: text(name),
            ..Default::default()
        });
    let mut request = DescribeTopicPartitionsRequest {
        topics: topics.collect(),
        response_partition_limit: 5,
        ..Default::default()
    };
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let response = client.call(&request, 0);
        pages += 1;
        let partitions: usize = response
            .topics
            .iter()
            .map(|topic| topic.partitions.len())
            .sum();
        assert!(partitions <= 5, "page {pages} has {partitions} partitions");
        for topic in &response.topics {
            let name = topic.name.as_deref().unwrap_or_default().to_owned();
            seen.extend(
                topic
                    .partitions
                    .iter()
                    .map(|found| (name.clone(), found.partition_index)),
            );
        }
        let Some(next) = response.next_cursor else {
            break;
        };
        request.cursor = Some(describe_topic_partitions_request::Cursor {
            topic_name: next.topic_name,
            partition_index: next.partition_index,
            ..Default::default()
        });
    }
    let expected = names
        .iter()
        .flat_map(|name| (0..4).map(|index| (name.clone(), index)));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    assert_eq!(pages, 3);
}
