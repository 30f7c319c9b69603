//! Which shard owns a partition.
//!
//! Pure, and the same on every shard that holds the same image. Nothing on disk knows: a restart
//! with another number of shards moves no byte (design D9).

use chronik_catalog::Image;
use chronik_terms::{METADATA_PARTITION, PartitionId};

/// The shard with the catalogue and the coordinators.
pub const COORDINATOR_SHARD: usize = 0;

/// The shard that owns `partition` among `count`. The partitions of one topic go round the shards,
/// so that a topic with as many partitions as shards uses all of them; coordinator topics are all
/// on [`COORDINATOR_SHARD`], where their state is.
pub fn shard_of(image: &Image, partition: PartitionId, count: usize) -> usize {
    if count <= 1 || partition == METADATA_PARTITION {
        return COORDINATOR_SHARD;
    }
    match image.topic_by_id(partition.topic_id) {
        Some(topic) if topic.is_internal => COORDINATOR_SHARD,
        _ => spread(partition, count),
    }
}

/// Topics begin at different shards, by a hash of their id.
fn spread(partition: PartitionId, count: usize) -> usize {
    let id = partition.topic_id.0;
    let folded = u64::try_from(id >> 64 ^ (id & u128::from(u64::MAX))).unwrap_or(0);
    let first = mix(folded);
    let index = u64::from(partition.index.unsigned_abs());
    let count = u64::try_from(count).unwrap_or(1);
    usize::try_from(first.wrapping_add(index) % count).unwrap_or(COORDINATOR_SHARD)
}

/// The finalizer of SplitMix64: every input bit moves every output bit.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_protocol::Uuid;

    fn partition(topic: u128, index: i32) -> PartitionId {
        PartitionId {
            topic_id: Uuid(topic),
            index,
        }
    }

    #[test]
    fn a_topic_uses_every_shard_evenly() {
        for count in 1..9usize {
            let mut owned = vec![0; count];
            for index in 0..i32::try_from(count * 3).expect("small") {
                owned[spread(partition(77, index), count)] += 1;
            }
            assert!(owned.iter().all(|number| *number == 3), "{owned:?}");
        }
    }

    #[test]
    fn topics_of_one_partition_spread_too() {
        let mut owned = [0; 4];
        for topic in 0..4000u128 {
            owned[spread(partition(topic << 60, 0), 4)] += 1;
        }
        assert!(
            owned.iter().all(|number| (850..1150).contains(number)),
            "{owned:?}"
        );
    }
}
