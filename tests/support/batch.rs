//! A record batch that may be wrong in any way: every header field can be set after the right values are filled in,
//! and the checksum covers the result.
//!
//! Never uses the project's own batch code, which it tests.

/// One record; the batch gives it offset and timestamp deltas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestRecord {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub timestamp_delta: i64,
}

impl TestRecord {
    /// A record with a value only.
    pub fn of(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// The record's bytes in a batch, its length in front.
    pub fn encode(&self, offset_delta: i64) -> Vec<u8> {
        let mut body = vec![0];
        put_varint(&mut body, self.timestamp_delta);
        put_varint(&mut body, offset_delta);
        put_bytes(&mut body, self.key.as_deref());
        put_bytes(&mut body, self.value.as_deref());
        put_varint(&mut body, self.headers.len() as i64);
        for (name, value) in &self.headers {
            put_bytes(&mut body, Some(name));
            put_bytes(&mut body, value.as_deref());
        }
        let mut record = Vec::with_capacity(body.len() + 5);
        put_varint(&mut record, body.len() as i64);
        record.extend(body);
        record
    }
}

/// A batch of format 2, field by field.
#[derive(Clone, Debug)]
pub struct TestBatch {
    pub base_offset: i64,
    /// `None`: the true length.
    pub batch_length: Option<i32>,
    pub leader_epoch: i32,
    pub magic: i8,
    /// `None`: the true checksum.
    pub crc: Option<u32>,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
    /// The bytes after the header: records, compressed or not.
    pub payload: Vec<u8>,
}

impl TestBatch {
    /// A right, uncompressed batch of these records without a producer.
    pub fn of(records: &[TestRecord]) -> Self {
        let payload = (0..)
            .zip(records)
            .flat_map(|(delta, record)| record.encode(delta));
        let count = i32::try_from(records.len()).expect("a batch a test can hold");
        let deltas = records.iter().map(|record| record.timestamp_delta);
        Self {
            base_offset: 0,
            batch_length: None,
            leader_epoch: -1,
            magic: 2,
            crc: None,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: BASE_TIMESTAMP_MS,
            max_timestamp: BASE_TIMESTAMP_MS + deltas.max().unwrap_or(0),
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: count,
            payload: payload.collect(),
        }
    }

    /// A right batch with one record per value.
    pub fn of_values<V: Into<Vec<u8>>>(values: impl IntoIterator<Item = V>) -> Self {
        let records: Vec<_> = values.into_iter().map(TestRecord::of).collect();
        Self::of(&records)
    }

    /// The same batch from an idempotent producer.
    pub fn by_producer(mut self, id: i64, epoch: i16, sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, sequence);
        self
    }

    /// The same header around `payload`, marked with a codec's number (1 gzip … 4 zstd).
    pub fn compressed(mut self, codec: i16, payload: impl Into<Vec<u8>>) -> Self {
        self.attributes = (self.attributes & !7) | codec;
        self.payload = payload.into();
        self
    }

    /// The bytes of the batch.
    pub fn encode(&self) -> Vec<u8> {
        let mut checked = Vec::with_capacity(40 + self.payload.len());
        checked.extend(self.attributes.to_be_bytes());
        checked.extend(self.last_offset_delta.to_be_bytes());
        checked.extend(self.base_timestamp.to_be_bytes());
        checked.extend(self.max_timestamp.to_be_bytes());
        checked.extend(self.producer_id.to_be_bytes());
        checked.extend(self.producer_epoch.to_be_bytes());
        checked.extend(self.base_sequence.to_be_bytes());
        checked.extend(self.record_count.to_be_bytes());
        checked.extend(&self.payload);
        let true_length = i32::try_from(checked.len() + 9).expect("a batch below 2 GiB");
        let mut batch = Vec::with_capacity(checked.len() + 21);
        batch.extend(self.base_offset.to_be_bytes());
        batch.extend(self.batch_length.unwrap_or(true_length).to_be_bytes());
        batch.extend(self.leader_epoch.to_be_bytes());
        batch.push(self.magic.cast_unsigned());
        batch.extend(self.crc.unwrap_or_else(|| crc32c(&checked)).to_be_bytes());
        batch.extend(checked);
        batch
    }
}

/// The timestamp of a test's first record, ms since 1970: a fixed day in the past.
pub const BASE_TIMESTAMP_MS: i64 = 1_750_000_000_000;

/// A batch of a broker's answer, decoded where it is not compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub attributes: i16,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub last_offset_delta: i32,
    pub record_count: i32,
    /// The bytes after the header.
    pub payload: Vec<u8>,
}

impl ReadBatch {
    /// Every whole batch in a fetched record set; an incomplete one at the end is left out, as in a consumer.
    ///
    /// # Panics
    /// When a checksum or a format is wrong.
    pub fn all(mut records: &[u8]) -> Vec<Self> {
        let mut batches = Vec::new();
        while records.len() >= 61 {
            let length = 12 + usize::try_from(i32_at(records, 8)).expect("a positive length");
            let Some((batch, rest)) = records.split_at_checked(length) else {
                break;
            };
            assert_eq!(batch[16], 2, "the format of a batch that was sent");
            let crc = u32::from_be_bytes(*batch[17..].first_chunk().expect("61 bytes"));
            assert_eq!(
                crc,
                crc32c(&batch[21..]),
                "the checksum of a batch that was sent"
            );
            batches.push(Self {
                base_offset: i64_at(batch, 0),
                leader_epoch: i32_at(batch, 12),
                attributes: i16_at(batch, 21),
                last_offset_delta: i32_at(batch, 23),
                base_timestamp: i64_at(batch, 27),
                max_timestamp: i64_at(batch, 35),
                producer_id: i64_at(batch, 43),
                producer_epoch: i16_at(batch, 51),
                base_sequence: i32_at(batch, 53),
                record_count: i32_at(batch, 57),
                payload: batch[61..].to_vec(),
            });
            records = rest;
        }
        batches
    }

    /// Offset and value of every record, of an uncompressed batch.
    ///
    /// # Panics
    /// When a record does not lie within the batch.
    pub fn values(&self) -> Vec<(i64, Vec<u8>)> {
        let records = self.records().into_iter();
        records.map(|(offset, _, value)| (offset, value)).collect()
    }

    /// Offset and key of every record, of an uncompressed batch.
    ///
    /// # Panics
    /// As [`ReadBatch::values`].
    pub fn keys(&self) -> Vec<(i64, Vec<u8>)> {
        let records = self.records().into_iter();
        records.map(|(offset, key, _)| (offset, key)).collect()
    }

    /// Offset, key and value of every record; null reads as empty.
    fn records(&self) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
        let mut rest = &self.payload[..];
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = usize::try_from(take_varint(&mut rest)).expect("a record's length");
            let (mut record, after) = rest.split_at(length);
            rest = after;
            record = &record[1..];
            let _timestamp_delta = take_varint(&mut record);
            let offset = self.base_offset + take_varint(&mut record);
            let key = take_bytes(&mut record).unwrap_or_default().to_vec();
            let value = take_bytes(&mut record).unwrap_or_default().to_vec();
            records.push((offset, key, value));
        }
        records
    }
}

/// CRC-32C (Castagnoli), bit by bit: slow, and independent of the library the broker uses.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !bytes.iter().fold(!0, |crc, byte| {
        (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize]
    })
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

/// Appends a zigzag varint of a record.
pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(bytes.unwrap_or_default());
}

fn take_varint(from: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (first, rest) = from.split_first().expect("a whole varint");
        *from = rest;
        value |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first & 0x80 == 0 {
            return (value >> 1).cast_signed() ^ -((value & 1).cast_signed());
        }
    }
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(from)).ok()?;
    let (bytes, rest) = from.split_at(length);
    *from = rest;
    Some(bytes)
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(*bytes[at..].first_chunk().expect("a whole header"))
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(*bytes[at..].first_chunk().expect("a whole header"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(*bytes[at..].first_chunk().expect("a whole header"))
}
