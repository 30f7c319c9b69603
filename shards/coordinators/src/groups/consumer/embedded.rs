//! The protocol consumers embed in the classic one: what a member wants, and what it is given
//! (`ConsumerProtocol`).
//!
//! Pure. Bytes come from clients: whatever cannot be read is an error, never a panic. Versions newer
//! than those known here are read as the newest, for they only ever add at the end.

use bytes::Bytes;
use chronik_catalog::Image;
use chronik_protocol::messages::consumer_protocol_assignment::TopicPartition;
use chronik_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use chronik_protocol::{Message, Reader, Writer};

use super::assignor::Partitions;

/// Bytes that are no embedded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

fn decode<M: Message>(bytes: &Bytes) -> Result<M, Malformed> {
    let mut reader = Reader::new(bytes.clone());
    let version = reader.get_i16().map_err(|_| Malformed)?;
    if version < *M::VERSIONS.start() {
        return Err(Malformed);
    }
    M::decode(&mut reader, version.min(*M::VERSIONS.end())).map_err(|_| Malformed)
}

/// What a member tells about itself.
pub(super) fn subscription(bytes: &Bytes) -> Result<ConsumerProtocolSubscription, Malformed> {
    decode(bytes)
}

/// Partitions the member says it owns, of topics that exist.
pub(super) fn owned(subscription: &ConsumerProtocolSubscription, image: &Image) -> Partitions {
    let mut partitions = Partitions::new();
    for topic in &subscription.owned_partitions {
        if let Some(known) = image.topic(&topic.topic) {
            let numbers = partitions.entry(known.id).or_default();
            numbers.extend(topic.partitions.iter().copied());
        }
    }
    partitions
}

/// What a member was given; nothing when it has not synced. `None` in place of an assignment that
/// carries the data of an assignor of the clients', which would be lost.
pub(super) fn assigned(bytes: &Bytes, image: &Image) -> Result<Option<Partitions>, Malformed> {
    if bytes.is_empty() {
        return Ok(Some(Partitions::new()));
    }
    let assignment: ConsumerProtocolAssignment = decode(bytes)?;
    if assignment.user_data.is_some_and(|data| !data.is_empty()) {
        return Ok(None);
    }
    let mut partitions = Partitions::new();
    for topic in &assignment.assigned_partitions {
        if let Some(known) = image.topic(&topic.topic) {
            let numbers = partitions.entry(known.id).or_default();
            numbers.extend(topic.partitions.iter().copied());
        }
    }
    Ok(Some(partitions))
}

/// An assignment in the version in which the member subscribed.
pub(super) fn assignment(
    partitions: &Partitions,
    subscription: &Bytes,
    image: &Image,
) -> Result<Bytes, Malformed> {
    let version = Reader::new(subscription.clone()).get_i16();
    let version = version.map_err(|_| Malformed)?;
    let versions = ConsumerProtocolAssignment::VERSIONS;
    let version = version.clamp(*versions.start(), *versions.end());
    let topics = partitions.iter().filter_map(|(id, numbers)| {
        Some(TopicPartition {
            topic: image.topic_by_id(*id)?.name.clone(),
            partitions: numbers.iter().copied().collect(),
        })
    });
    let message = ConsumerProtocolAssignment {
        assigned_partitions: topics.collect(),
        user_data: None,
    };
    let mut writer = Writer::new();
    writer.put_i16(version);
    message
        .encode(&mut writer, version)
        .map_err(|_| Malformed)?;
    Ok(writer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::consumer::testing::image_of;
    use chronik_protocol::Uuid;
    use std::collections::BTreeSet;

    #[test]
    fn assignments_come_back_as_they_went() {
        let image = image_of(&[("a", 200, 3), ("b", 201, 1)]);
        let mut partitions = Partitions::from([(Uuid(200), BTreeSet::from([0, 2]))]);
        partitions.insert(Uuid(201), BTreeSet::from([0]));
        for version in [0u8, 1, 3, 9] {
            let subscribed = Bytes::from(vec![0, version]);
            let bytes = assignment(&partitions, &subscribed, &image).expect("encodes");
            assert_eq!(assigned(&bytes, &image), Ok(Some(partitions.clone())));
        }
        let gone = image_of(&[("a", 200, 3)]);
        let bytes = assignment(&partitions, &Bytes::from_static(&[0, 1]), &gone).expect("encodes");
        partitions.remove(&Uuid(201));
        assert_eq!(assigned(&bytes, &gone), Ok(Some(partitions)));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let image = image_of(&[]);
        for bytes in [
            &[0u8][..],
            &[0xff, 0xff],
            &[0, 0, 0xff],
            &[0, 1, 0, 0, 0, 9],
        ] {
            let bytes = Bytes::copy_from_slice(bytes);
            assert_eq!(subscription(&bytes), Err(Malformed), "{bytes:?}");
            assert_eq!(assigned(&bytes, &image), Err(Malformed), "{bytes:?}");
        }
        // No topics, user data of one byte.
        let custom = Bytes::from_static(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 7]);
        assert_eq!(assigned(&custom, &image), Ok(None));
        assert_eq!(assigned(&Bytes::new(), &image), Ok(Some(Partitions::new())));
    }
}
