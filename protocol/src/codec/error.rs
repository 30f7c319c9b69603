//! Decode and encode errors: bytes from outside that are no message, values that have no bytes.

use std::error::Error;
use std::fmt;

/// Why a frame is not the message it claims to be: the peer's fault.
///
/// `field` is the `Structure.Field` the reader stood at, with Kafka's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The frame ends inside a value.
    Truncated {
        /// Where.
        field: &'static str,
        /// Bytes the value needs.
        needed: usize,
        /// Bytes left.
        remaining: usize,
    },
    /// A length that is negative (and not −1 for null) or does not fit an `i32`.
    InvalidLength {
        /// Where.
        field: &'static str,
        /// The length as sent.
        length: i64,
    },
    /// A count that the bytes left cannot hold.
    CountTooLarge {
        /// Where.
        field: &'static str,
        /// The count as sent.
        count: usize,
        /// Bytes left.
        remaining: usize,
        /// The fewest bytes one element takes.
        element_bytes_min: usize,
    },
    /// More elements, or more memory for them, than one message may ask for.
    BudgetExceeded {
        /// Where.
        field: &'static str,
        /// The count as sent.
        count: usize,
    },
    /// A null where the version forbids it.
    NullNotAllowed {
        /// Where.
        field: &'static str,
    },
    /// A variable-length integer longer than its type.
    VarintOverflow {
        /// Where.
        field: &'static str,
    },
    /// A string that is not UTF-8.
    InvalidUtf8 {
        /// Where.
        field: &'static str,
    },
    /// A tag that occurs twice in one structure.
    DuplicateTag {
        /// Where.
        field: &'static str,
        /// The tag.
        tag: u32,
    },
    /// More tagged fields in one structure than [`super::TAGS_MAX`].
    TooManyTags {
        /// Where.
        field: &'static str,
        /// The count as sent.
        count: u32,
    },
    /// Bytes behind the last field of a message or of a tagged field.
    TrailingBytes {
        /// Where.
        field: &'static str,
        /// How many.
        remaining: usize,
    },
    /// A version the codec does not have.
    UnsupportedVersion {
        /// Kafka's name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A record of a type that this log does not have.
    UnknownRecordType {
        /// The kind of record that was expected.
        set: &'static str,
        /// The type found.
        record_type: i16,
    },
    /// A number outside the range its place allows.
    OutOfRange {
        /// Where.
        field: &'static str,
        /// The number as sent.
        value: i64,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated {
                field,
                needed,
                remaining,
            } => {
                write!(f, "{field}: needs {needed} bytes, {remaining} left")
            }
            Self::InvalidLength { field, length } => write!(f, "{field}: length {length}"),
            Self::CountTooLarge {
                field,
                count,
                remaining,
                element_bytes_min,
            } => write!(
                f,
                "{field}: {count} elements of at least {element_bytes_min} bytes in {remaining}"
            ),
            Self::BudgetExceeded { field, count } => {
                write!(
                    f,
                    "{field}: {count} elements exceed the budget of one message"
                )
            }
            Self::NullNotAllowed { field } => write!(f, "{field}: null in a version without it"),
            Self::VarintOverflow { field } => write!(f, "{field}: varint too long"),
            Self::InvalidUtf8 { field } => write!(f, "{field}: not UTF-8"),
            Self::DuplicateTag { field, tag } => write!(f, "{field}: tag {tag} twice"),
            Self::TooManyTags { field, count } => write!(f, "{field}: {count} tagged fields"),
            Self::TrailingBytes { field, remaining } => {
                write!(f, "{field}: {remaining} bytes after the last field")
            }
            Self::UnsupportedVersion { message, version } => {
                write!(f, "{message}: no version {version}")
            }
            Self::UnknownRecordType { set, record_type } => {
                write!(f, "{set}: no record type {record_type}")
            }
            Self::OutOfRange { field, value } => write!(f, "{field}: {value} is out of range"),
        }
    }
}

impl Error for DecodeError {}

/// Why a value cannot be written in a version. An error and not an assertion: the client chooses the version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// A field is not at its default and the version does not have it.
    FieldNotInVersion {
        /// `Structure.Field`, Kafka's names.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A null where the version forbids it.
    NullNotAllowed {
        /// `Structure.Field`, Kafka's names.
        field: &'static str,
    },
    /// A string, byte string or array longer than its length field can say.
    TooLong {
        /// `Structure.Field`, Kafka's names.
        field: &'static str,
        /// Its length in bytes or elements.
        length: usize,
    },
    /// Unknown tagged fields in a version without tags.
    TagsNotInVersion {
        /// The version asked for.
        version: i16,
    },
    /// Unknown tagged fields out of order, or one that uses a known field's tag.
    TagOutOfOrder {
        /// The tag.
        tag: u32,
    },
    /// A version the codec does not have.
    UnsupportedVersion {
        /// Kafka's name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FieldNotInVersion { field, version } => {
                write!(f, "{field} is set but version {version} cannot carry it")
            }
            Self::NullNotAllowed { field } => write!(f, "{field} is null and must not be"),
            Self::TooLong { field, length } => write!(f, "{field}: {length} is too long"),
            Self::TagsNotInVersion { version } => {
                write!(f, "tagged fields in version {version}, which has none")
            }
            Self::TagOutOfOrder { tag } => write!(f, "tag {tag} is out of order or taken"),
            Self::UnsupportedVersion { message, version } => {
                write!(f, "{message}: no version {version}")
            }
        }
    }
}

impl Error for EncodeError {}
