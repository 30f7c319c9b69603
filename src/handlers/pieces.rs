//! Answers made piece by piece: of arrays whose elements may be many times what asked for them.
//!
//! Lives on the shard of the connection. A piece is encoded as soon as it is known, so that of an
//! answer there are never more than its bytes and one element; they are counted by the shard's budget
//! as they are made, others have their turn in between, and an element that is asked for again and
//! again is there once. Large answers are made one at a time, and not while too many wait to be taken.
//! Knows no API: the handlers say what the elements are.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use bytes::Bytes;
use chronik_io::World;
use chronik_protocol::codec::Structure;
use chronik_protocol::{EncodeError, Message, Writer};

use super::beside::beside;
use super::call::Call;
use super::context::Context;
use super::slice::Slice;
use crate::server::budget::ReplyCharge;
use crate::server::service::Reply;
use crate::server::turns::Turn;

/// Bytes of one answer. Kafka's end is that of its heap, or of the length's 31 bits; most clients take
/// no more than this in one response (`receive.message.max.bytes`).
const ANSWER_BYTES_MAX: usize = 100 << 20;
/// From this many bytes on an answer waits for its turn, and is counted.
const LARGE_ANSWER_BYTES: usize = 256 << 10;
/// An element that is there before is not copied from this many bytes on.
const SHARED_BYTES_MIN: usize = 512;
/// Keys from which on it is found out beside the shard which are asked for again.
const KEYS_AT_ONCE: usize = 1_000;
/// Bytes that are cut off as one part.
const PART_BYTES: usize = 256 << 10;

/// An answer on its way; see the module's text.
pub(super) struct Pieces<'a, W> {
    context: &'a Context<W>,
    version: i16,
    writer: Writer,
    parts: Vec<Bytes>,
    /// Bytes in `parts`.
    cut: usize,
    charges: Vec<ReplyCharge>,
    charged: usize,
    turn: Option<Turn<'a>>,
    slice: Slice,
    is_flexible: bool,
    failed: Option<String>,
}

impl<'a, W: World> Pieces<'a, W> {
    /// Begins the answer `M` to `call`: throttle time, if its version has one, and an array of `count`
    /// elements; [`Pieces::push`] writes these.
    pub(super) fn of_array<M: Message>(
        context: &'a Context<W>,
        call: &Call,
        has_throttle_time: bool,
        count: usize,
    ) -> Self {
        let version = call.version;
        let is_flexible = M::FLEXIBLE.is_some_and(|range| range.contains(&version));
        let mut pieces = Self {
            context,
            version,
            writer: Writer::with_capacity(256),
            parts: Vec::new(),
            cut: 0,
            charges: Vec::new(),
            charged: 0,
            turn: None,
            slice: Slice::begin(&context.world),
            is_flexible,
            failed: None,
        };
        if let Err(error) = call.put_header(&mut pieces.writer) {
            pieces.failed = Some(error.to_string());
        }
        if has_throttle_time {
            pieces.writer.put_i32(call.throttle_ms);
        }
        match (i32::try_from(count), is_flexible) {
            (Ok(count), false) => pieces.writer.put_i32(count),
            (Ok(count), true) => pieces.writer.put_uvarint(count.unsigned_abs() + 1),
            (Err(_), _) => pieces.failed = Some("too many elements".to_owned()),
        }
        pieces
    }

    /// One element as bytes, to be pushed more than once.
    pub(super) fn encoded(&mut self, element: &impl Structure) -> Bytes {
        let mut writer = Writer::with_capacity(64);
        if let Err(error) = element.encode(&mut writer, self.version) {
            self.fail(&error);
        }
        writer.into_bytes()
    }

    /// The next element.
    pub(super) async fn push(&mut self, element: &impl Structure) {
        if self.failed.is_none()
            && let Err(error) = element.encode(&mut self.writer, self.version)
        {
            self.fail(&error);
        }
        self.settle().await;
    }

    /// The next element, encoded beside the shard because it is long.
    pub(super) async fn push_long(&mut self, element: impl Structure + Send + 'static) {
        let version = self.version;
        let encode = move || {
            let mut writer = Writer::with_capacity(PART_BYTES);
            let encoded = element.encode(&mut writer, version);
            encoded.map(|()| writer.into_bytes())
        };
        match beside(&self.context.world, true, encode).await {
            Ok(bytes) => self.push_encoded(&bytes).await,
            Err(error) => self.fail(&error),
        }
    }

    /// The next element, as it was encoded before.
    pub(super) async fn push_encoded(&mut self, element: &Bytes) {
        if self.failed.is_none() {
            if element.len() < SHARED_BYTES_MIN {
                self.writer.put_slice(element);
            } else {
                self.cut_part();
                self.cut += element.len();
                self.parts.push(element.clone());
            }
        }
        self.settle().await;
    }

    /// An element for each of `keys`, in their order. `ask` gives those of some keys at a time, and of a
    /// key that is named again and again only once.
    pub(super) async fn push_each<K: Hash + Eq + Clone + Send + 'static, E: Structure>(
        &mut self,
        keys: &[K],
        at_once: usize,
        mut ask: impl AsyncFnMut(Vec<K>) -> Vec<E>,
    ) {
        let all = keys.to_vec();
        let among = move || {
            // Here, for the next new one may stand behind hundreds of thousands of repetitions.
            let mut seen = HashSet::new();
            let firsts = all.iter().filter(|key| seen.insert(*key)).cloned();
            let firsts: Vec<K> = firsts.collect();
            (Repeated::among(all.into_iter()), firsts)
        };
        let is_large = keys.len() >= KEYS_AT_ONCE;
        let (mut repeated, firsts) = beside(&self.context.world, is_large, among).await;
        let mut firsts = firsts.into_iter();
        let mut known = VecDeque::new();
        for key in keys {
            if self.failed.is_some() {
                return;
            }
            if let Some(made) = repeated.made(key) {
                self.push_encoded(&made).await;
                continue;
            }
            if known.is_empty() {
                let asked = firsts.by_ref().take(at_once).collect();
                known.extend(ask(asked).await);
            }
            match known.pop_front() {
                Some(element) => repeated.push(self, key, &element).await,
                None => self.failed = Some("is answered with too few elements".to_owned()),
            }
        }
    }

    /// Whether there is no use in going on.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    fn fail(&mut self, error: &EncodeError) {
        self.failed.get_or_insert_with(|| error.to_string());
    }

    fn bytes(&self) -> usize {
        self.cut + self.writer.len()
    }

    /// Counts what was made, and waits for a turn or lets others have theirs.
    async fn settle(&mut self) {
        if self.writer.len() >= PART_BYTES {
            self.cut_part();
        }
        let bytes = self.bytes();
        if bytes > ANSWER_BYTES_MAX {
            self.failed.get_or_insert_with(|| {
                format!("cannot be answered: more than {ANSWER_BYTES_MAX} bytes were asked for")
            });
        }
        if bytes >= LARGE_ANSWER_BYTES && self.turn.is_none() && self.failed.is_none() {
            self.turn = Some(self.context.large_answer.lock().await);
            self.context.budget.reply_room().await;
        }
        // What waits for its turn is not counted: it would keep the one away whose turn it is.
        if self.turn.is_some() && bytes - self.charged >= PART_BYTES {
            let budget = &self.context.budget;
            self.charges.push(budget.charge_reply(bytes - self.charged));
            self.charged = bytes;
        }
        self.slice.breathe(&self.context.world).await;
    }

    fn cut_part(&mut self) {
        let writer = std::mem::take(&mut self.writer);
        self.cut += writer.len();
        self.parts.extend(writer.into_parts());
    }

    /// The whole answer.
    pub(super) fn finish(mut self, call: &Call) -> Reply {
        if self.is_flexible {
            self.writer.put_uvarint(0);
        }
        if let Some(reason) = self.failed {
            return call.close(&reason);
        }
        self.cut_part();
        let Ok(length) = i32::try_from(self.cut) else {
            return call.close("cannot be answered: the answer is too long");
        };
        self.parts
            .insert(0, Bytes::copy_from_slice(&length.to_be_bytes()));
        Reply::Send(self.parts)
    }
}

/// Which elements are asked for more than once, and their bytes once they are known.
pub(super) struct Repeated<K>(HashMap<K, Option<Bytes>>);

impl<K: Hash + Eq> Repeated<K> {
    /// Of all keys those that come again.
    pub(super) fn among(keys: impl Iterator<Item = K>) -> Self {
        let mut seen: HashMap<K, bool> = HashMap::new();
        for key in keys {
            seen.entry(key)
                .and_modify(|again| *again = true)
                .or_insert(false);
        }
        let again = seen.into_iter().filter(|(_, again)| *again);
        Self(again.map(|(key, _)| (key, None)).collect())
    }

    /// The bytes of an element that was made before.
    pub(super) fn made(&self, key: &K) -> Option<Bytes> {
        self.0.get(key).cloned().flatten()
    }

    /// Writes an element, and keeps its bytes if it comes again.
    pub(super) async fn push<W: World>(
        &mut self,
        pieces: &mut Pieces<'_, W>,
        key: &K,
        element: &impl Structure,
    ) {
        match self.0.get_mut(key) {
            None => pieces.push(element).await,
            Some(kept) => {
                let bytes = pieces.encoded(element);
                pieces.push_encoded(&bytes).await;
                *kept = Some(bytes);
            }
        }
    }
}
