//! Which partition of `__consumer_offsets` a group belongs to.
//!
//! Pure. The hash is part of the format: another one would look for groups where they are not.

/// The topic that holds the state of groups (`Topic.GROUP_METADATA_TOPIC_NAME`).
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partition among `count` that holds a group: Java's hash of the group's name, its absolute
/// value (0 where there is none) as by Kafka's `Utils.abs`, modulo the number of partitions.
pub fn partition_for(group: &str, count: i32) -> i32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    let hash = hash.checked_abs().unwrap_or(0);
    hash.checked_rem(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_java_puts_them() {
        for (group, expected) in [
            ("", 0),
            ("a", 97 % 50),
            ("ab", 3105 % 50),
            // "polygenelubricants".hashCode() is Integer.MIN_VALUE.
            ("polygenelubricants", 0),
            // A negative hash, −415094610; Kafka 4.3.1 put the group there.
            ("wire-28636-0", 10),
            // 'ü' is one unit, the emoji a surrogate pair: 252, then 0xd83d and 0xde00.
            ("ü", 252 % 50),
            ("😀", (0xd83d * 31 + 0xde00) % 50),
        ] {
            assert_eq!(partition_for(group, 50), expected, "{group}");
        }
        assert_eq!(partition_for("any", 1), 0);
        assert_eq!(partition_for("any", 0), 0, "never divides by nothing");
    }
}
