//! Which topic names are legal, and which collide (`org.apache.kafka.common.internals.Topic`).
//!
//! Pure. The messages are Kafka's, for tools show them to people.

/// Longest legal topic name, in characters: file names hold it beside a partition number.
pub const TOPIC_NAME_CHARS_MAX: usize = 249;

/// Checks a name.
///
/// # Errors
/// Kafka's sentence for `INVALID_TOPIC_EXCEPTION`.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    let reason = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.chars().count() > TOPIC_NAME_CHARS_MAX {
        format!(
            "the length of '{name}' is longer than the max allowed length {TOPIC_NAME_CHARS_MAX}"
        )
    } else if !name.bytes().all(is_legal) {
        format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        )
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {reason}"))
}

fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// What a name becomes where metrics cannot tell `.` from `_`: two of the same collide.
pub(super) fn collision_name(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether a name can collide with another at all.
pub(super) fn has_collision_chars(name: &str) -> bool {
    name.contains(['.', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_by_kafka() {
        let long = "a".repeat(250);
        for (name, wanted) in [
            ("my.topic-1_x", None),
            (&long[..249], None),
            ("", Some("the empty string is not allowed")),
            (".", Some("'.' is not allowed")),
            ("..", Some("'..' is not allowed")),
            (
                "a b",
                Some("other than ASCII alphanumerics, '.', '_' and '-'"),
            ),
            ("ä", Some("other than ASCII alphanumerics")),
            (&long, Some("is longer than the max allowed length 249")),
        ] {
            match (check_topic_name(name), wanted) {
                (Ok(()), None) => {}
                (Err(message), Some(wanted)) => {
                    assert!(message.starts_with("Topic name is invalid: "), "{message}");
                    assert!(message.contains(wanted), "{message}");
                }
                (got, wanted) => panic!("{name}: {got:?}, wanted {wanted:?}"),
            }
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        let collide = |one, other| collision_name(one) == collision_name(other);
        assert!(collide("my.topic_x", "my_topic.x"));
        assert!(!collide("my.topic", "my-topic"));
        assert!(!collide("a.", "a"));
    }
}
