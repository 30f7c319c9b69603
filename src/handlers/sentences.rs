//! Sentences beside error codes, in answers that can have one for every partition a client names.

use chronik_protocol::Str;

/// Bytes of sentences in one answer. A request names partitions in four bytes each, and each sentence
/// about one has a hundred: what is above goes without, the codes say enough.
const SENTENCES_BYTES_MAX: usize = 1 << 20;

/// The sentences of one answer.
pub(super) struct Sentences {
    left: usize,
}

impl Sentences {
    /// None so far.
    pub(super) fn new() -> Self {
        Self {
            left: SENTENCES_BYTES_MAX,
        }
    }

    /// The sentence, if there is still room; it is made only then.
    pub(super) fn say(&mut self, sentence: impl FnOnce() -> String) -> Option<Str> {
        if self.left == 0 {
            return None;
        }
        let sentence = sentence();
        self.left = self.left.saturating_sub(sentence.len());
        Some(Str::from(sentence))
    }
}
