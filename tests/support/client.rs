//! A small blocking Kafka client: one connection, one frame at a time, any bytes at all.
//!
//! Never retries and never hides an error: the test sees the broker's answer.

use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use chronik_protocol::codec::{Reader, Writer};
use chronik_protocol::frame::encode_request;
use chronik_protocol::messages::{RequestHeader, ResponseHeader};
use chronik_protocol::{ApiKey, Message, Request};

/// How long a reply may take before the test fails: bounds a hang, measures nothing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The client id.
const CLIENT_ID: &str = "chronik-test";

/// Every reply of a test is below this.
const REPLY_BYTES_MAX: usize = 256 << 20;

/// One connection to a broker.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When the connection is refused.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects, for a test in which the broker may be gone.
    ///
    /// # Errors
    /// The socket's.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            correlation_id: 0,
        })
    }

    /// The socket, for everything this client lacks.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request and returns its reply.
    ///
    /// # Panics
    /// When the connection ends or the reply is malformed.
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.try_call(request, version)
            .unwrap_or_else(|error| panic!("{} v{version}: {error}", R::NAME))
    }

    /// Sends a request and returns its reply, for a test in which the connection may end.
    ///
    /// # Errors
    /// The socket's; `UnexpectedEof` when the broker closed the connection; `InvalidData` when the
    /// reply cannot be read.
    pub fn try_call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        let correlation_id = self.try_send(request, version)?;
        self.try_receive::<R>(correlation_id, version)
    }

    /// Sends a request without waiting and returns its correlation id.
    ///
    /// # Panics
    /// When the connection has ended.
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.try_send(request, version)
            .unwrap_or_else(|error| panic!("send {} v{version}: {error}", R::NAME))
    }

    /// As [`Self::send`].
    ///
    /// # Errors
    /// The socket's.
    pub fn try_send<R: Request>(&mut self, request: &R, version: i16) -> io::Result<i32> {
        self.correlation_id += 1;
        self.stream
            .write_all(&frame(request, version, self.correlation_id))?;
        Ok(self.correlation_id)
    }

    /// Waits for the reply to the request with this correlation id, which must be the next one.
    ///
    /// # Panics
    /// When the connection ends or another reply comes.
    pub fn receive<R: Request>(&mut self, correlation_id: i32, version: i16) -> R::Response {
        self.try_receive::<R>(correlation_id, version)
            .unwrap_or_else(|error| panic!("reply to {} v{version}: {error}", R::NAME))
    }

    /// As [`Self::receive`].
    ///
    /// # Errors
    /// As [`Self::try_call`].
    pub fn try_receive<R: Request>(
        &mut self,
        correlation_id: i32,
        version: i16,
    ) -> io::Result<R::Response> {
        let mut reader = Reader::new(self.try_receive_frame()?);
        let header_version = R::KEY.response_header_version(version);
        let header = ResponseHeader::decode(&mut reader, header_version).map_err(invalid)?;
        if header.correlation_id != correlation_id {
            let found = header.correlation_id;
            return Err(invalid(format!(
                "reply {found} instead of {correlation_id}"
            )));
        }
        let response = R::Response::decode(&mut reader, version).map_err(invalid)?;
        reader.finish().map_err(invalid)?;
        Ok(response)
    }

    /// Sends raw bytes.
    ///
    /// # Panics
    /// When the connection has ended.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .expect("the broker takes bytes");
    }

    /// Sends raw bytes to a broker that may close the connection meanwhile.
    pub fn send_bytes_if_open(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) => assert!(is_closed(&error), "send: {error}"),
        }
    }

    /// Waits for one frame and returns it without its length.
    ///
    /// # Errors
    /// The socket's; `UnexpectedEof` when the broker closed the connection.
    pub fn try_receive_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > REPLY_BYTES_MAX {
            return Err(invalid(format!("a reply of {length} bytes")));
        }
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// Shuts down the sending side; reading goes on.
    pub fn close_sending(&mut self) {
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) => {}
            Err(error) => assert!(is_closed(&error), "shutdown: {error}"),
        }
    }

    /// Waits until the broker closes the connection, which it must do after `case`.
    ///
    /// # Panics
    /// When the broker sends anything instead, or leaves the connection open.
    pub fn expect_closed_after(&mut self, case: &str) {
        match self.try_receive_frame() {
            Ok(frame) => panic!(
                "{case}: a reply of {} bytes, not a closed connection",
                frame.len()
            ),
            Err(error) => assert!(
                is_closed(&error),
                "{case}: the connection stays open: {error}"
            ),
        }
    }
}

/// A whole request frame, its length in front.
///
/// # Panics
/// When the version cannot carry the request.
pub fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    encode_request(correlation_id, Some(CLIENT_ID.into()), request, version)
        .unwrap_or_else(|error| panic!("encode {} v{version}: {error}", R::NAME))
        .concat()
}

/// A request frame with a right header around any body.
pub fn frame_of(key: ApiKey, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader {
        request_api_key: key.as_i16(),
        request_api_version: version,
        correlation_id,
        client_id: Some(CLIENT_ID.into()),
        ..Default::default()
    };
    let mut writer = Writer::new();
    header
        .encode(&mut writer, key.request_header_version(version))
        .unwrap_or_else(|error| panic!("encode the header of {key:?} v{version}: {error}"));
    framed(&[&writer.into_bytes()[..], body].concat())
}

/// Any bytes with their length in front.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).expect("a frame below 2 GiB");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// True when the peer has closed the connection.
pub fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
    )
}

fn invalid(reason: impl Debug) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{reason:?}"))
}
