//! Every message of Kafka, one structure for all its versions, generated from `schema/`.
//!
//! Each message has a module with its structures under Kafka's names; the message itself is
//! also here: `messages::ProduceRequest`, `messages::produce_request::TopicProduceData`.
//! Nullable fields are `Option`; defaults are Kafka's.

// The generator favours plain, uniform text over the shortest form of each line: every
// function takes the same arguments, every condition is written the same way.
#![allow(unused_variables, clippy::nonminimal_bool)]

mod prelude {
    pub(super) use crate::codec::{
        DecodeError, EncodeError, Message, Reader, Structure, UnknownTaggedFields, Writer,
        min_str_bytes,
    };
    pub(super) use crate::{Records, Str, Uuid};
    pub(super) use bytes::Bytes;
    pub(super) use std::ops::RangeInclusive;
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
