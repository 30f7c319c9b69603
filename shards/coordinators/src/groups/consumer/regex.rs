//! Subscriptions by regular expression: RE2's, for the broker must not be made to backtrack.
//!
//! `syntax` reads what RE2/J reads and refuses what it refuses, in its words; `program` matches whole names,
//! in steps. Both are bounded by [`PATTERN_BYTES_MAX`] and `STATES_MAX`, whatever a client makes up, and
//! know ASCII only, as names of topics do. A pattern is checked when it comes; what it matches is looked for
//! after the answer, in slices by [`Resolution`]. Pure.

mod classes;
mod escapes;
mod program;
mod syntax;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_catalog::Image;
use chronik_protocol::{ErrorCode, Str};

use self::program::{Program, STATES_MAX, Walk};
use super::super::caller::Refusal;

/// Bytes of a pattern: what the record that keeps it has room for. Reading so many takes 1 ms at most.
const PATTERN_BYTES_MAX: usize = 32_767;
/// Topics that one slice looks at.
const TOPICS_PER_SLICE: usize = 512;
/// States that one slice looks at, some 5 ns each; those of one character are looked at in one go.
const STEPS_PER_SLICE: usize = 16 * 1024;
/// Groups that are at it at the same time, each with a program of 4 MiB at most.
const PROGRAMS_MAX: usize = 8;

/// Counts the programs that there are, over all groups: each holds one more reference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs(Arc<()>);

impl Programs {
    /// Whether there may be one more.
    fn has_room(&self) -> bool {
        // One is the counter's own.
        Arc::strong_count(&self.0) <= PROGRAMS_MAX
    }
}

/// What a pattern matches, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Names of topics.
    pub(crate) topics: BTreeSet<Str>,
    /// Offset of the image it was resolved against.
    pub(crate) version: i64,
    /// When the resolution began, ms since the epoch.
    pub(crate) timestamp_ms: i64,
}

/// Whether a pattern can be subscribed to.
///
/// # Errors
/// `INVALID_REGULAR_EXPRESSION` with Kafka's sentence and the engine's reason.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), Refusal> {
    read(pattern).map(|_| ()).map_err(|reason| {
        Refusal::new(
            ErrorCode::InvalidRegularExpression,
            format!(
                "SubscribedTopicRegex `{pattern}` is not a valid regular expression: {reason}."
            ),
        )
    })
}

/// A pattern as a tree that is not too large to be written out.
fn read(pattern: &str) -> Result<syntax::Tree, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, at most {PATTERN_BYTES_MAX} are accepted",
            pattern.len()
        ));
    }
    let tree = syntax::parse(pattern)?;
    if program::states(&tree) > STATES_MAX {
        return Err(format!(
            "written out it has more than {STATES_MAX} characters and choices"
        ));
    }
    Ok(tree)
}

fn compile(pattern: &str) -> Result<Walk, String> {
    let program = Program::of(&read(pattern)?);
    program
        .map(Walk::new)
        .map_err(|_| "it is too large".to_owned())
}

/// The patterns of a group on their way over the topics of one image, slice by slice. One of them is
/// compiled at a time: a group may have as many as it has members.
#[derive(Clone, Debug)]
pub(crate) struct Resolution {
    image: Arc<Image>,
    started_ms: i64,
    waiting: Vec<Str>,
    current: Option<Matching>,
    done: BTreeMap<Str, Resolved>,
}

/// What a slice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// There is more to do.
    More,
    /// Too many others are at it.
    Crowded,
    /// Every pattern is resolved.
    Done,
}

/// A pattern on its way.
#[derive(Clone, Debug)]
struct Matching {
    pattern: Str,
    walk: Walk,
    /// Counts this one.
    _program: Programs,
    /// First topic that has not been looked at.
    next: Str,
    matched: BTreeSet<Str>,
}

impl Resolution {
    /// Begins.
    pub(crate) fn new(patterns: Vec<Str>, image: Arc<Image>, now_ms: i64) -> Resolution {
        Resolution {
            image,
            started_ms: now_ms,
            waiting: patterns,
            current: None,
            done: BTreeMap::new(),
        }
    }

    /// Does one slice: at most one pattern made ready, some topics matched.
    pub(crate) fn advance(&mut self, programs: &Programs) -> Advance {
        if self.current.is_none() && !programs.has_room() {
            return Advance::Crowded;
        }
        let current = self.current.take();
        if let Some(mut matching) = current.or_else(|| self.begin_next(programs)) {
            if matching.advance(&self.image) {
                self.settle(matching.pattern, matching.matched);
            } else {
                self.current = Some(matching);
            }
        }
        match self.current.is_none() && self.waiting.is_empty() {
            true => Advance::Done,
            false => Advance::More,
        }
    }

    /// The next pattern. One that cannot be compiled (it was checked when it came, perhaps by another
    /// version of this broker) matches nothing.
    fn begin_next(&mut self, programs: &Programs) -> Option<Matching> {
        let pattern = self.waiting.pop()?;
        match compile(&pattern) {
            Ok(walk) => Some(Matching {
                pattern,
                walk,
                _program: programs.clone(),
                next: Str::default(),
                matched: BTreeSet::new(),
            }),
            Err(reason) => {
                tracing::error!(%pattern, %reason, "a subscription cannot be read; it matches nothing");
                self.settle(pattern, BTreeSet::new());
                None
            }
        }
    }

    fn settle(&mut self, pattern: Str, topics: BTreeSet<Str>) {
        let resolved = Resolved {
            topics,
            version: self.image.offset,
            timestamp_ms: self.started_ms,
        };
        self.done.insert(pattern, resolved);
    }

    /// What each pattern matches.
    pub(crate) fn finish(self) -> BTreeMap<Str, Resolved> {
        self.done
    }
}

impl Matching {
    /// Looks at some topics. `true` when it was the last of them.
    fn advance(&mut self, image: &Image) -> bool {
        let first = self.next.clone();
        let mut topics = image.topics_from(&first);
        let mut steps = STEPS_PER_SLICE;
        for topic in topics.by_ref().take(TOPICS_PER_SLICE) {
            self.next = topic.name.clone();
            if steps == 0 {
                return false;
            }
            match self.walk.go_on(topic.name.as_bytes(), &mut steps) {
                Some(true) => {
                    self.matched.insert(topic.name.clone());
                }
                Some(false) => {}
                None => return false,
            }
        }
        match topics.next() {
            Some(topic) => {
                self.next = topic.name.clone();
                false
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
