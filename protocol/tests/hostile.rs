//! Malicious bytes: no panic, and no more memory than a small multiple of the bytes sent.
//!
//! A counting allocator watches, so these tests have a process of their own and take turns.

mod support;

use bytes::Bytes;
use chronik_protocol::codec::{HEAP_BYTES_BASE, HEAP_BYTES_PER_BYTE, TAGS_MAX};
use chronik_protocol::messages::{
    FetchRequest, MetadataRequest, ProduceRequest, SaslAuthenticateRequest,
};
use chronik_protocol::{DecodeError, Message, Reader};
use fastrand::Rng;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::{Mutex, MutexGuard};
use support::wire::{Maker, uvarint};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Bytes that decoding (not the frame itself) may allocate: the promise of `Reader`, and a little for the frame's
/// reference count.
fn allowed(frame_bytes: usize) -> usize {
    frame_bytes * HEAP_BYTES_PER_BYTE + HEAP_BYTES_BASE + 4096
}

/// Decodes; returns the bytes allocated: the least of three runs, since the test harness's threads allocate now
/// and then.
fn decode<M: Message>(version: i16, bytes: &[u8]) -> (Result<M, DecodeError>, usize) {
    let once = || {
        let bytes = Bytes::copy_from_slice(bytes);
        let region = Region::new(ALLOCATOR);
        let mut reader = Reader::new(bytes);
        let message = M::decode(&mut reader, version);
        let finished = message.and_then(|message| reader.finish().map(|()| message));
        (finished, region.change().bytes_allocated)
    };
    let times = [once(), once(), once()];
    let least = times.into_iter().min_by_key(|(_, allocated)| *allocated);
    least.expect("three times")
}

fn refused<M: Message>(version: i16, bytes: &[u8]) -> DecodeError {
    let (result, allocated) = decode::<M>(version, bytes);
    assert!(
        allocated <= allowed(bytes.len()),
        "{allocated} bytes for {}",
        bytes.len()
    );
    match result {
        Ok(_) => panic!("{} {version} was taken", M::NAME),
        Err(error) => error,
    }
}

#[test]
fn a_huge_count_allocates_nothing() {
    let _turn = turn();
    // The four bytes that made other codecs ask for 154 GB.
    let bytes = [0x7f, 0xff, 0xff, 0xff];
    let (result, allocated) = decode::<MetadataRequest>(1, &bytes);
    assert!(matches!(
        result,
        Err(DecodeError::CountTooLarge {
            count: 0x7fff_ffff,
            ..
        })
    ));
    assert!(allocated < 1024, "{allocated}");

    // The same in the compact form, and one more than 32 bits hold.
    let compact = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let error = refused::<MetadataRequest>(9, &compact);
    assert!(
        matches!(error, DecodeError::CountTooLarge { .. }),
        "{error}"
    );
    let error = refused::<MetadataRequest>(9, &[0xff, 0xff, 0xff, 0xff, 0x1f]);
    assert!(
        matches!(error, DecodeError::VarintOverflow { .. }),
        "{error}"
    );
    let error = refused::<MetadataRequest>(1, &[0xff, 0xff, 0xff, 0xfe]);
    assert!(
        matches!(error, DecodeError::InvalidLength { length: -2, .. }),
        "{error}"
    );
}

#[test]
fn dense_arrays_stop_at_the_budget() {
    let _turn = turn();
    // Ten megabytes of the smallest topics there are: empty name, no tags.
    let count = 5_000_000u64;
    let mut bytes = Vec::new();
    uvarint(&mut bytes, count + 1);
    for _ in 0..count {
        bytes.extend([1, 0]);
    }
    bytes.extend([0, 0, 0, 0]);
    let error = refused::<MetadataRequest>(9, &bytes);
    assert!(
        matches!(error, DecodeError::BudgetExceeded { .. }),
        "{error}"
    );
}

#[test]
fn an_honest_large_request_fits_the_budget() {
    let _turn = turn();
    for (version, length) in [(1, 1), (9, 3), (12, 12)] {
        let count = 30_000u64;
        let mut bytes = Vec::new();
        if version >= 9 {
            uvarint(&mut bytes, count + 1);
        } else {
            bytes.extend((count as u32).to_be_bytes());
        }
        for _ in 0..count {
            if version >= 10 {
                bytes.extend([0; 16]);
            }
            if version >= 9 {
                uvarint(&mut bytes, length + 1);
            } else {
                bytes.extend((length as u16).to_be_bytes());
            }
            bytes.extend(vec![b'x'; length as usize]);
            if version >= 9 {
                bytes.push(0);
            }
        }
        match version {
            1 => {}
            9 => bytes.extend([1, 0, 0, 0]),
            _ => bytes.extend([1, 0, 0]),
        }
        let (result, allocated) = decode::<MetadataRequest>(version, &bytes);
        let request = result.unwrap_or_else(|error| panic!("version {version}: {error}"));
        assert_eq!(request.topics.map(|topics| topics.len()), Some(30_000));
        assert!(allocated <= allowed(bytes.len()));
    }
}

#[test]
fn tag_floods_are_refused() {
    let _turn = turn();
    // A SaslAuthenticate body of no bytes, then ever more tagged fields.
    let flood = |count: u32| {
        let mut bytes = vec![1];
        uvarint(&mut bytes, u64::from(count));
        for tag in 0..count {
            uvarint(&mut bytes, u64::from(tag) + 100);
            bytes.push(0);
        }
        bytes
    };
    let (taken, _) = decode::<SaslAuthenticateRequest>(2, &flood(TAGS_MAX));
    assert_eq!(
        taken.expect("at the limit").unknown_tagged_fields.len(),
        TAGS_MAX as usize
    );
    let error = refused::<SaslAuthenticateRequest>(2, &flood(TAGS_MAX + 1));
    assert!(matches!(error, DecodeError::TooManyTags { .. }), "{error}");
    let error = refused::<SaslAuthenticateRequest>(2, &flood(5_000_000));
    assert!(matches!(error, DecodeError::TooManyTags { .. }), "{error}");

    // The same tag twice, known or not, small or large.
    let error = refused::<SaslAuthenticateRequest>(2, &[1, 2, 5, 0, 5, 0]);
    assert!(
        matches!(error, DecodeError::DuplicateTag { tag: 5, .. }),
        "{error}"
    );
    let error = refused::<SaslAuthenticateRequest>(2, &[1, 2, 100, 0, 100, 0]);
    assert!(
        matches!(error, DecodeError::DuplicateTag { tag: 100, .. }),
        "{error}"
    );
    // A tag whose value is longer than the frame.
    let error = refused::<SaslAuthenticateRequest>(2, &[1, 1, 5, 9]);
    assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
}

#[test]
fn a_known_tag_is_exactly_as_long_as_it_says() {
    let _turn = turn();
    // A Fetch request whose ClusterId (tag 0) is "a" in a field of three bytes.
    let mut body = vec![0; 4 + 4 + 4 + 1 + 4 + 4];
    body.extend([1, 1, 1]); // no topics, none forgotten, empty rack
    body.extend([1, 0, 3, 2, b'a', 0]);
    let error = refused::<FetchRequest>(15, &body);
    assert!(
        matches!(error, DecodeError::TrailingBytes { remaining: 1, .. }),
        "{error}"
    );
    let short = body.len() - 3;
    body.truncate(short - 1);
    body.extend([2, 2, b'a']);
    let (taken, _) = decode::<FetchRequest>(15, &body);
    assert_eq!(taken.expect("sound").cluster_id, Some("a".into()));
}

#[test]
fn strings_must_be_text_of_a_sane_length() {
    let _turn = turn();
    let error = refused::<MetadataRequest>(1, &[0, 0, 0, 1, 0, 2, 0xc3, 0x28]);
    assert!(matches!(error, DecodeError::InvalidUtf8 { .. }), "{error}");
    let error = refused::<MetadataRequest>(1, &[0, 0, 0, 1, 0xff, 0xff]);
    assert!(
        matches!(error, DecodeError::NullNotAllowed { .. }),
        "{error}"
    );
    let mut long = vec![2];
    uvarint(&mut long, 40_001);
    long.extend(vec![b'x'; 40_000]);
    long.extend([0, 1, 0, 0, 0]);
    let error = refused::<MetadataRequest>(9, &long);
    assert!(
        matches!(error, DecodeError::InvalidLength { length: 40_000, .. }),
        "{error}"
    );
}

#[test]
fn a_lying_records_length_does_not_copy() {
    let _turn = turn();
    // Produce 3: no transactional id, acks, timeout, one topic "t", one partition with 1 MiB.
    let mut body = vec![
        0xff, 0xff, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1,
    ];
    body.extend([0, 0, 0, 0]);
    body.extend((1u32 << 20).to_be_bytes());
    body.extend(vec![1; 1 << 20]);
    let (taken, allocated) = decode::<ProduceRequest>(3, &body);
    assert!(taken.is_ok());
    assert!(allocated < 4096, "{allocated}: the records were copied");
    body.truncate(body.len() - 1);
    let error = refused::<ProduceRequest>(3, &body);
    assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
}

#[test]
fn random_bytes_and_damaged_messages_stay_inside_the_bounds() {
    let _turn = turn();
    let mut random = Rng::with_seed(7);
    for message in &support::schemas() {
        for version in message.versions.iter() {
            let mut bytes = Maker::new(message, version, random.u64(..)).bytes();
            for _ in 0..3 {
                if let Some(byte) = bytes.get_mut(random.usize(..4096)) {
                    *byte = random.u8(..);
                }
                let frame = Bytes::copy_from_slice(&bytes);
                let region = Region::new(ALLOCATOR);
                let result = support::transcode(&message.name, version, &frame);
                let allocated = region.change().bytes_allocated;
                // Writing the value again and the error's text allocate too, a few times the size.
                let most = allowed(bytes.len()) + 8 * bytes.len() + 4096;
                assert!(
                    allocated <= most,
                    "{} {version}: {allocated}, {result:?}",
                    message.name
                );
            }
            let noise: Vec<u8> = (0..200).map(|_| random.u8(..)).collect();
            let frame = Bytes::from(noise);
            let region = Region::new(ALLOCATOR);
            let _ = support::transcode(&message.name, version, &frame);
            let allocated = region.change().bytes_allocated;
            assert!(
                allocated <= allowed(200) + 8192,
                "{} {version}: {allocated}",
                message.name
            );
        }
    }
}
