//! Frames that are not requests: each closes its own connection, without any other effect.

use chronik_protocol::ApiKey;
use chronik_protocol::ErrorCode;
use chronik_protocol::codec::Reader;
use chronik_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, ResponseHeader};
use chronik_protocol::{Message, Request};

use crate::neighbours::Neighbour;
use crate::subject::Subject;
use crate::support::calls::{code, produce_request};
use crate::support::client::{frame, frame_of, framed};

/// The same bytes in every run.
fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| random.u8(..)).collect()
}

/// A request for `key` v`version` whose body is these bytes.
fn request(key: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    frame_of(key, version, 1, body)
}

/// Frames that end where a request would have to go on, or that claim more than they hold.
fn lying_frames() -> Vec<(String, Vec<u8>)> {
    let mut cases = vec![
        ("an empty frame".to_owned(), framed(&[])),
        ("a frame of one byte".to_owned(), framed(&[0])),
        ("half a header".to_owned(), framed(&[0, 3, 0, 1, 0, 0])),
        (
            "a header without a client id".to_owned(),
            framed(&[0, 3, 0, 1, 0, 0, 0, 1]),
        ),
        (
            "a client id that ends later than the frame".to_owned(),
            framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, b'a']),
        ),
        (
            "Metadata v1 without a body".to_owned(),
            request(ApiKey::Metadata, 1, &[]),
        ),
        (
            "Metadata v1 with 2^31 topics".to_owned(),
            request(ApiKey::Metadata, 1, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "Metadata v1 with −5 topics".to_owned(),
            request(ApiKey::Metadata, 1, &(-5_i32).to_be_bytes()),
        ),
        (
            "Metadata v12 with 2^32 topics in a varint".to_owned(),
            request(
                ApiKey::Metadata,
                12,
                &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0],
            ),
        ),
        (
            "Metadata v12 with a varint that never ends".to_owned(),
            request(ApiKey::Metadata, 12, &[0xff; 40]),
        ),
        (
            "Metadata v12 with 2^28 tagged fields".to_owned(),
            request(ApiKey::Metadata, 12, &[0, 1, 0, 0xff, 0xff, 0xff, 0x7f]),
        ),
        (
            "CreateTopics v7 with a name that is no UTF-8".to_owned(),
            request(
                ApiKey::CreateTopics,
                7,
                &[2, 3, 0xff, 0xfe, 0, 0, 0, 1, 0, 1, 1, 1, 0],
            ),
        ),
    ];
    let whole = frame(&produce_request("t", 0, -1, vec![0; 100]), 9, 1);
    for cut in [5, 20, 40, 60, 100] {
        let body = &whole[4..whole.len() - cut];
        cases.push((
            format!("a produce request that lacks {cut} bytes"),
            framed(body),
        ));
    }
    for seed in 1..=40 {
        let bytes = random_bytes(seed, 1 + (seed as usize * 37) % 500);
        cases.push((
            format!("random bytes in a frame, seed {seed}"),
            framed(&bytes),
        ));
    }
    cases
}

#[test]
fn a_frame_that_is_no_request_closes_its_own_connection_only() {
    let subject = Subject::start();
    let mut neighbour = Neighbour::of(&subject);
    for (case, bytes) in lying_frames() {
        if subject.is_outside() && case.contains("−5") {
            // Kafka takes any negative count for null.
            continue;
        }
        let mut client = subject.connect();
        client.send_bytes(&bytes);
        client.expect_closed_after(&case);
        neighbour.works_after(&case);
    }
    neighbour.memory_is_bounded();
}

#[test]
fn a_length_no_request_can_have_closes_the_connection() {
    let subject = Subject::start();
    let mut neighbour = Neighbour::of(&subject);
    // socket.request.max.bytes is 100 MiB unless configured.
    for length in [-1, i32::MIN, i32::MAX, 1 << 30, (100 << 20) + 1] {
        let case = format!("a length of {length}");
        let mut client = subject.connect();
        client.send_bytes_if_open(&length.to_be_bytes());
        client.expect_closed_after(&case);
        neighbour.works_after(&case);
    }
    for seed in 100..140 {
        let case = format!("random bytes without a frame, seed {seed}");
        let mut client = subject.connect();
        client.send_bytes_if_open(&random_bytes(seed, 4096));
        // Whatever length they happen to claim, no more comes.
        client.close_sending();
        client.expect_closed_after(&case);
        neighbour.works_after(&case);
    }
    neighbour.memory_is_bounded();
}

#[test]
fn an_api_or_version_that_does_not_exist_closes_the_connection() {
    let subject = Subject::start();
    let mut neighbour = Neighbour::of(&subject);
    let header = |key: i16, version: i16| {
        let mut bytes = Vec::new();
        bytes.extend(key.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0, 1, b'c', 0]);
        bytes.extend([0; 64]);
        framed(&bytes)
    };
    let unknown = [
        (999, 0),
        (-1, 0),
        (i16::MAX, i16::MAX),
        (i16::MIN, 0),
        (4, 0),
        (7, 0),
    ];
    // 4 to 7 are gone with ZooKeeper; Vote and its kin belong to a controller's listener.
    let controller_only = [(52, 0), (53, 0), (56, 2), (58, 0), (62, 0), (63, 0)];
    let versions = [
        (0, 99),
        (0, -1),
        (1, 19),
        (1, 99),
        (3, 14),
        (3, -1),
        (19, 8),
        (20, 7),
        (2, 12),
    ];
    for (key, version) in unknown.into_iter().chain(controller_only).chain(versions) {
        let case = format!("API {key} v{version}");
        let mut client = subject.connect();
        client.send_bytes(&header(key, version));
        client.expect_closed_after(&case);
        neighbour.works_after(&case);
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let subject = Subject::start();
    for version in [20, 99, i16::MAX] {
        let mut client = subject.connect();
        // An unknown body: it is not read.
        client.send_bytes(&frame_of_unknown_version(version, &[0xff; 30]));
        let mut reader = Reader::new(client.try_receive_frame().expect("a reply"));
        let header = ResponseHeader::decode(&mut reader, 0).expect("a header of version 0");
        assert_eq!(header.correlation_id, 77);
        let response = ApiVersionsResponse::decode(&mut reader, 0).expect("a body of version 0");
        reader.finish().expect("nothing behind it");
        assert_eq!(code(response.error_code), ErrorCode::UnsupportedVersion);
        let own = response
            .api_keys
            .iter()
            .find(|api| api.api_key == ApiKey::ApiVersions.as_i16());
        let own = own.expect("the range of ApiVersions itself");
        assert!(
            own.min_version == 0 && (3..version).contains(&own.max_version),
            "{own:?}"
        );
        // The client now asks again on the same connection.
        let again = client.call(&ApiVersionsRequest::default(), 0);
        assert_eq!(code(again.error_code), ErrorCode::None);
    }
}

/// ApiVersions requests have a flexible header from version 3 on, known or not.
fn frame_of_unknown_version(version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((ApiVersionsRequest::KEY.as_i16()).to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(77_i32.to_be_bytes());
    bytes.extend([0, 4]);
    bytes.extend(b"test");
    bytes.push(0);
    bytes.extend(body);
    framed(&bytes)
}

#[test]
fn a_client_software_name_that_is_none_is_refused() {
    let subject = Subject::start();
    let mut client = subject.connect();
    for (name, version) in [
        ("", "1"),
        ("a b", "1"),
        ("name", ""),
        ("-name", "1"),
        ("name", "1/2"),
    ] {
        let request = ApiVersionsRequest {
            client_software_name: name.into(),
            client_software_version: version.into(),
            ..Default::default()
        };
        let response = client.call(&request, 3);
        assert_eq!(
            code(response.error_code),
            ErrorCode::InvalidRequest,
            "{name:?} {version:?}"
        );
    }
}
