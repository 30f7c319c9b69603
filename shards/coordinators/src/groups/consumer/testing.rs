//! Images for the tests of this folder.

use std::collections::BTreeMap;

use chronik_protocol::messages::{
    ConfigRecord, PartitionRecord, RegisterBrokerRecord, RemoveTopicRecord, TopicRecord,
};
use chronik_protocol::records_of::MetadataRecord;
use chronik_protocol::{Str, Uuid};

use chronik_catalog::{Image, RESOURCE_GROUP};

fn apply(image: &mut Image, record: &MetadataRecord) {
    image.apply(record).expect("a sound record");
    image.offset += 1;
}

/// An image with these topics: name, id, partitions.
pub(crate) fn image_of(topics: &[(&str, u128, usize)]) -> Image {
    let mut image = Image::new(Str::from("cluster"), 1, BTreeMap::new());
    for (name, id, partitions) in topics {
        add_topic(&mut image, name, *id);
        grow_topic(&mut image, *id, *partitions);
    }
    image
}

/// Adds a topic without partitions.
pub(crate) fn add_topic(image: &mut Image, name: &str, id: u128) {
    let record = TopicRecord {
        name: Str::from(name),
        topic_id: Uuid(id),
        ..TopicRecord::default()
    };
    apply(image, &MetadataRecord::Topic(record));
}

/// Adds so many partitions to a topic.
pub(crate) fn grow_topic(image: &mut Image, id: u128, by: usize) {
    let topic = image.topic_by_id(Uuid(id)).expect("the topic");
    let first = topic.partitions.len() as i32;
    for partition_id in first..first + by as i32 {
        let record = PartitionRecord {
            topic_id: Uuid(id),
            partition_id,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            ..PartitionRecord::default()
        };
        apply(image, &MetadataRecord::Partition(record));
    }
}

/// Removes a topic.
pub(crate) fn remove_topic(image: &mut Image, id: u128) {
    let record = RemoveTopicRecord {
        topic_id: Uuid(id),
        ..RemoveTopicRecord::default()
    };
    apply(image, &MetadataRecord::RemoveTopic(record));
}

/// Puts broker 1 into a rack.
pub(crate) fn rack_of(image: &mut Image, rack: &str) {
    let record = RegisterBrokerRecord {
        broker_id: 1,
        rack: Some(Str::from(rack)),
        ..RegisterBrokerRecord::default()
    };
    apply(image, &MetadataRecord::RegisterBroker(record));
}

/// Sets a group's own setting.
pub(crate) fn configure_group(image: &mut Image, group: &str, name: &str, value: &str) {
    set_of_group(image, group, name, Some(value));
}

/// The same, or takes it back.
pub(crate) fn set_of_group(image: &mut Image, group: &str, name: &str, value: Option<&str>) {
    let record = ConfigRecord {
        resource_type: RESOURCE_GROUP,
        resource_name: Str::from(group),
        name: Str::from(name),
        value: value.map(Str::from),
        ..ConfigRecord::default()
    };
    apply(image, &MetadataRecord::Config(record));
}
