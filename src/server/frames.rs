//! Cutting a byte stream into request frames.
//!
//! Lives on one shard, one per connection. Never allocates what a length prefix claims: memory
//! grows with the bytes that have come. Never looks behind the prefix.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The length in front of every frame, bytes.
const PREFIX_BYTES: usize = 4;
/// Shortest request: api key, api version, correlation id.
const FRAME_BYTES_MIN: usize = 8;
/// Free space offered to the first read of a quiet connection, bytes.
const READ_BYTES_MIN: usize = 4 << 10;
/// Free space offered to a busy connection between frames, bytes.
const READ_BYTES_MAX: usize = 64 << 10;
/// Memory of a frame that a connection keeps for the next one, bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// What has come of a frame may be given so many times its room.
const GROWTH: usize = 2;
/// The same for little of it while there is room enough, up to what is trusted.
const GROWTH_ROOMY: usize = 4;
/// Bytes behind the length that tell what a request is for.
const KIND_BYTES: usize = 2;
/// Room that a connection is given at once because it sent a frame as long before, bytes: more has to come first,
/// or a few that send a length and nothing else would hold what others need.
const TRUSTED_BYTES_MAX: usize = 1 << 20;

/// Why a stream cannot be cut any further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The prefix says more than `socket.request.max.bytes`.
    TooLong { bytes: i32, limit: usize },
    /// The prefix is negative or shorter than a request header.
    TooShort { bytes: i32 },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, limit } => {
                write!(
                    f,
                    "a frame of {bytes} bytes exceeds socket.request.max.bytes={limit}"
                )
            }
            Self::TooShort { bytes } => write!(f, "a frame of {bytes} bytes cannot hold a request"),
        }
    }
}

/// Bytes that came and are not yet frames.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: BytesMut,
    limit: usize,
    read_bytes: usize,
    /// Longest frame this connection has ever completed: trusted to come again.
    longest: usize,
    /// The frame that was cut out last, whose memory `bytes` may share.
    last: usize,
    /// Capacity that `bytes` may grow to beyond what is always allowed.
    room: usize,
    /// What came behind `bytes` while there was no room for more.
    taste: BytesMut,
}

impl FrameBuffer {
    /// Frames of at most `limit` bytes behind the prefix.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            limit,
            read_bytes: READ_BYTES_MIN,
            longest: 0,
            last: 0,
            room: 0,
            taste: BytesMut::new(),
        }
    }

    /// The next whole frame without its prefix, if it has come.
    ///
    /// # Errors
    /// When the prefix can be no request's; the stream is unusable from then on.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.frame_length()? else {
            return Ok(None);
        };
        if self.bytes.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.bytes.advance(PREFIX_BYTES);
        self.longest = self.longest.max(length);
        self.last = length;
        let frame = self.bytes.split_to(length).freeze();
        if length > KEPT_BYTES_MAX {
            self.let_go();
        }
        Ok(Some(frame))
    }

    /// Keeps nothing of the memory of a large frame that was cut out: what came behind it is moved.
    /// Otherwise that memory would be there as long as the connection, and counted by nobody.
    pub(crate) fn let_go(&mut self) {
        if self.last > READ_BYTES_MAX {
            self.last = 0;
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
    }

    fn frame_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let bytes = i32::from_be_bytes(*prefix);
        match usize::try_from(bytes) {
            Ok(length) if length > self.limit => Err(FrameError::TooLong {
                bytes,
                limit: self.limit,
            }),
            Ok(length) if length >= FRAME_BYTES_MIN => Ok(Some(length)),
            _ => Err(FrameError::TooShort { bytes }),
        }
    }

    /// Bytes held for a frame that has not come whole.
    #[cfg(test)]
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the frame that is coming, if its length is known.
    pub(crate) fn coming_bytes(&self) -> usize {
        match self.frame_length() {
            Ok(Some(length)) => PREFIX_BYTES + length,
            Ok(None) | Err(_) => 0,
        }
    }

    /// Bytes of that frame that have not come.
    pub(crate) fn missing_bytes(&self) -> usize {
        self.coming_bytes().saturating_sub(self.bytes.len())
    }

    /// What has come of that frame, without its prefix.
    pub(crate) fn begun(&self) -> &[u8] {
        self.bytes.get(PREFIX_BYTES..).unwrap_or_default()
    }

    /// Whether the room that the buffer was let to have is used up.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= self.room.max(READ_BYTES_MAX)
    }

    /// Capacity the next read needs, bytes; above what is held already, it grows the buffer. That is used up
    /// first, but who `is_trusted` may have as much at once as it has sent before, when it is known what for.
    pub(crate) fn wanted_capacity(&self, is_trusted: bool) -> usize {
        let have = self.bytes.len();
        let whole = self.coming_bytes();
        if whole <= READ_BYTES_MAX {
            return have
                .max(whole)
                .saturating_add(self.read_bytes)
                .min(READ_BYTES_MAX.max(whole));
        }
        let mut wanted = self.room.max(READ_BYTES_MAX);
        if self.is_full() {
            wanted = wanted.max(have.saturating_mul(GROWTH));
        }
        if is_trusted && self.begun().len() >= KIND_BYTES {
            let roomy = if self.is_full() {
                have.saturating_mul(GROWTH_ROOMY)
            } else {
                0
            };
            wanted = wanted.max(self.longest.max(roomy).min(TRUSTED_BYTES_MAX) + PREFIX_BYTES);
        }
        whole.min(wanted)
    }

    /// The buffer may have a capacity of `bytes` until it is told otherwise.
    pub(crate) fn let_grow(&mut self, bytes: usize) {
        self.room = bytes;
    }

    /// The buffer to read into, with room for at least one byte.
    pub(crate) fn for_read(&mut self) -> &mut BytesMut {
        let most = self.room.max(READ_BYTES_MAX);
        let wanted = self.wanted_capacity(true).min(most);
        let wanted = wanted.max(self.bytes.len() + 1);
        let missing = wanted - self.bytes.len();
        // A frame that was cut out still holds the front of the allocation, so `reserve` may
        // have to move the tail; a half-full tail is used up first.
        if self.bytes.capacity() - self.bytes.len() < missing.min(READ_BYTES_MIN)
            || self.is_growing()
        {
            self.bytes.reserve(missing);
        }
        &mut self.bytes
    }

    /// The buffer to read into while what has come waits for others; `None` when it has as much as is free.
    pub(crate) fn for_reading_ahead(&mut self) -> Option<&mut BytesMut> {
        self.room = 0;
        (!self.is_full()).then(|| self.for_read())
    }

    /// A little room that is not the frame's: to learn that something has come.
    pub(crate) fn for_taste(&mut self) -> &mut BytesMut {
        self.taste.reserve(READ_BYTES_MIN);
        &mut self.taste
    }

    /// Moves what was tasted to the frame it belongs to; whether there was anything.
    pub(crate) fn swallow(&mut self) -> bool {
        let taste = std::mem::take(&mut self.taste);
        if !taste.is_empty() {
            self.for_read();
            self.bytes.extend_from_slice(&taste);
        }
        !taste.is_empty()
    }

    /// Whether the unfinished frame needs more room than is left.
    fn is_growing(&self) -> bool {
        matches!(self.frame_length(), Ok(Some(length)) if PREFIX_BYTES + length > self.bytes.capacity())
    }

    /// Learns from a read how much to offer next time.
    pub(crate) fn note_read(&mut self, bytes: usize) {
        if bytes >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("small");
        [&length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn frames_come_out_whole_however_they_came_in() {
        let bodies: Vec<Vec<u8>> = (8..200).step_by(7).map(|length| vec![7; length]).collect();
        let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        for step in [1, 2, 3, 5, 64, stream.len()] {
            let mut buffer = FrameBuffer::new(1000);
            let mut seen = Vec::new();
            for chunk in stream.chunks(step) {
                buffer.for_read().extend_from_slice(chunk);
                buffer.note_read(chunk.len());
                while let Some(frame) = buffer.next_frame().expect("valid") {
                    seen.push(frame.to_vec());
                }
            }
            assert_eq!(seen, bodies, "in steps of {step}");
            assert_eq!(buffer.unfinished_bytes(), 0);
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for (prefix, error) in [
            (-1, FrameError::TooShort { bytes: -1 }),
            (0, FrameError::TooShort { bytes: 0 }),
            (7, FrameError::TooShort { bytes: 7 }),
            (
                1001,
                FrameError::TooLong {
                    bytes: 1001,
                    limit: 1000,
                },
            ),
            (
                i32::MAX,
                FrameError::TooLong {
                    bytes: i32::MAX,
                    limit: 1000,
                },
            ),
        ] {
            let mut buffer = FrameBuffer::new(1000);
            buffer.for_read().extend_from_slice(&prefix.to_be_bytes());
            assert_eq!(buffer.next_frame(), Err(error));
        }
    }

    #[test]
    fn a_large_prefix_alone_allocates_little() {
        let mut buffer = FrameBuffer::new(1 << 30);
        buffer
            .for_read()
            .extend_from_slice(&(1_i32 << 30).to_be_bytes());
        assert_eq!(buffer.next_frame(), Ok(None));
        assert!(buffer.for_read().capacity() <= 2 * READ_BYTES_MAX);
    }

    #[test]
    fn the_memory_of_a_large_frame_is_not_kept() {
        for (length, lets_go) in [(2 << 20, false), (100 << 10, true)] {
            let mut buffer = FrameBuffer::new(1 << 30);
            let body = vec![3_u8; length];
            let behind = framed(&[4; 20]);
            buffer.for_read().extend_from_slice(&framed(&body));
            buffer.for_read().extend_from_slice(&behind);
            assert_eq!(buffer.next_frame(), Ok(Some(Bytes::from(body))));
            if lets_go {
                buffer.let_go();
            }
            assert!(buffer.bytes.capacity() < READ_BYTES_MAX, "{length}");
            assert_eq!(buffer.next_frame(), Ok(Some(Bytes::from(vec![4; 20]))));
        }
    }

    #[test]
    fn nothing_grows_beyond_what_it_was_let_to() {
        let mut buffer = FrameBuffer::new(1 << 30);
        let body = vec![3_u8; 1 << 20];
        let framed = framed(&body);
        let (begin, behind) = framed.split_at(READ_BYTES_MAX);
        buffer.for_read().extend_from_slice(begin);
        assert!(buffer.for_read().capacity() <= 2 * READ_BYTES_MAX);
        buffer.for_taste().extend_from_slice(&behind[..100]);
        assert_eq!(buffer.unfinished_bytes(), READ_BYTES_MAX);
        buffer.let_grow(framed.len());
        assert!(buffer.swallow() && !buffer.swallow());
        assert!(buffer.for_read().capacity() > 2 * READ_BYTES_MAX);
        buffer.for_read().extend_from_slice(&behind[100..]);
        assert_eq!(buffer.next_frame(), Ok(Some(Bytes::from(body))));
    }

    #[test]
    fn room_grows_with_what_has_come() {
        let mut buffer = FrameBuffer::new(1 << 30);
        let body = vec![3_u8; 10 << 20];
        let room = |buffer: &mut FrameBuffer| {
            let wanted = buffer.wanted_capacity(true);
            buffer.let_grow(wanted);
            buffer.for_read().capacity()
        };
        for chunk in framed(&body).chunks(10_000) {
            let before = buffer.unfinished_bytes();
            let capacity = room(&mut buffer);
            let most = READ_BYTES_MAX + before * GROWTH_ROOMY;
            assert!(capacity <= 2 * most, "{before}");
            buffer.for_read().extend_from_slice(chunk);
        }
        assert_eq!(buffer.next_frame(), Ok(Some(Bytes::from(body))));
        // One of the same length is given what can be trusted at once, and no more, when it is known what for.
        buffer.let_grow(0);
        let length = (10_i32 << 20).to_be_bytes();
        buffer.for_read().extend_from_slice(&length);
        assert!(room(&mut buffer) <= 2 * READ_BYTES_MAX);
        buffer.for_read().extend_from_slice(&[0, 1]);
        let trusted = TRUSTED_BYTES_MAX..2 * TRUSTED_BYTES_MAX;
        assert!(trusted.contains(&room(&mut buffer)));
    }
}
