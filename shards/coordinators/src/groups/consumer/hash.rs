//! The metadata hash of a group (KIP-1101): one number that changes whenever a topic the group
//! subscribes to is made, deleted, grown or moved between racks.
//!
//! Pure. The hash stands in `ConsumerGroupMetadata` records, so its bytes are Kafka's: XXH3 over
//! what hash4j's stream would see (`Utils#computeTopicHash`), little-endian, strings as UTF-16 with
//! their length behind them.

use chronik_protocol::Str;
use twox_hash::XxHash3_64;

use chronik_catalog::{Image, Topic};

/// Begins a topic's hash; another number would mean another way of hashing.
const TOPIC_HASH_VERSION: u8 = 0;

/// The hash over those of `names` that exist; 0 when none does. `names` ascend.
///
/// Reads each topic's partitions: microseconds for a thousand of them.
pub(crate) fn metadata_hash<'a>(image: &Image, names: impl Iterator<Item = &'a Str>) -> i64 {
    let mut hashes = Vec::new();
    for topic in names.filter_map(|name| image.topic(name)) {
        hashes.extend_from_slice(&topic_hash(image, topic).to_le_bytes());
    }
    if hashes.is_empty() {
        return 0;
    }
    XxHash3_64::oneshot(&hashes).cast_signed()
}

fn topic_hash(image: &Image, topic: &Topic) -> u64 {
    let mut bytes = vec![TOPIC_HASH_VERSION];
    let most_significant = (topic.id.0 >> 64) as u64;
    let least_significant = topic.id.0 as u64;
    bytes.extend_from_slice(&most_significant.to_le_bytes());
    bytes.extend_from_slice(&least_significant.to_le_bytes());
    put_text(&mut bytes, &topic.name);
    put_number(&mut bytes, topic.partitions.len());
    for (index, partition) in topic.partitions.iter().enumerate() {
        put_number(&mut bytes, index);
        let brokers = partition.replicas.iter();
        let brokers = brokers.filter_map(|id| image.brokers.get(id));
        let mut racks: Vec<&Str> = brokers.filter_map(|broker| broker.rack.as_ref()).collect();
        racks.sort();
        for rack in racks {
            put_number(&mut bytes, rack.encode_utf16().count());
            put_text(&mut bytes, rack);
        }
    }
    XxHash3_64::oneshot(&bytes)
}

fn put_number(bytes: &mut Vec<u8>, number: usize) {
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let mut units = 0;
    for unit in text.encode_utf16() {
        bytes.extend_from_slice(&unit.to_le_bytes());
        units += 1;
    }
    put_number(bytes, units);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::consumer::testing::{image_of, rack_of};

    #[test]
    fn the_hash_is_what_kafkas_library_makes_of_the_same_topic() {
        let id = 0x1234_5678_90ab_cdef_8edc_ba09_8765_4321;
        let mut image = image_of(&[("orders", id, 3)]);
        rack_of(&mut image, "r1");
        let topic = image.topic("orders").expect("the topic");
        // Printed by hash4j 0.22 for the same fields.
        assert_eq!(
            topic_hash(&image, topic).cast_signed(),
            -3_382_976_777_077_588_094
        );
        let names = [Str::from("absent"), Str::from("orders")];
        assert_eq!(
            metadata_hash(&image, names.iter()),
            -4_670_091_793_563_687_675
        );
        assert_eq!(metadata_hash(&image, names[..1].iter()), 0);
    }

    #[test]
    fn growth_and_racks_change_the_hash() {
        let names = [Str::from("a")];
        let hash = |image: &Image| metadata_hash(image, names.iter());
        let (three, four) = (image_of(&[("a", 7, 3)]), image_of(&[("a", 7, 4)]));
        assert_ne!(hash(&three), hash(&four));
        assert_ne!(hash(&three), hash(&image_of(&[("a", 8, 3)])));
        let mut racked = image_of(&[("a", 7, 3)]);
        rack_of(&mut racked, "x");
        assert_ne!(hash(&three), hash(&racked));
    }
}
