//! Kafka's wire protocol and record formats, without any input or output.
//!
//! Owns the message schemas and the codecs generated from them ([`messages`]), the bounded reader and
//! writer under them ([`codec`]), frames and headers ([`frame`]), the table of versions the broker speaks
//! ([`versions`]), error codes, configurations ([`configs`]), the records of Kafka's internal logs
//! ([`records_of`]), and record batches ([`record`]). Runs on any core. Never opens a file or a socket, never
//! asks the time, and never allocates what a length prefix claims.

pub mod codec;
pub mod configs;
mod error_code;
pub mod frame;
mod keys;
pub mod messages;
pub mod record;
pub mod records_of;
mod rope;
mod text;
mod uuid;
pub mod versions;

pub use codec::{DecodeError, EncodeError, Message, Reader, Writer};
pub use error_code::{ErrorCode, UnknownErrorCode};
pub use keys::{ApiKey, Request, UnknownApiKey};
pub use rope::Records;
pub use text::Str;
pub use uuid::{InvalidUuid, Uuid};
