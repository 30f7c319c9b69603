//! Subscriptions by regular expression: RE2's, for the broker must not be made to backtrack.
//!
//! The `regex` crate is an engine of the same kind: linear in pattern times text. Two things of RE2
//! are translated or bounded here: `\Q…\E`, and classes such as `\w`, which are ASCII in RE2 (topic
//! names are ASCII, so only the size of the program differs). Pure; compiling is bounded by
//! [`PROGRAM_BYTES_MAX`], matching is done in slices by [`Resolution`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chronik_protocol::{ErrorCode, Str};
use regex::bytes::{Regex, RegexBuilder};

use super::super::step::Refusal;
use crate::catalog::Image;

/// Bytes of a pattern; Kafka has no bound but the request's.
const PATTERN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a compiled pattern, and of what matching it may cache.
const PROGRAM_BYTES_MAX: usize = 512 * 1024;
/// Topics that one slice matches, some 100 ns each.
const MATCHES_PER_SLICE: usize = 512;

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
    compile(pattern).map(|_| ()).map_err(|reason| {
        Refusal::new(
            ErrorCode::InvalidRegularExpression,
            format!(
                "SubscribedTopicRegex `{pattern}` is not a valid regular expression: {reason}."
            ),
        )
    })
}

/// A pattern that matches whole names only.
fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, at most {PATTERN_BYTES_MAX} are accepted",
            pattern.len()
        ));
    }
    let pattern = unquoted(pattern);
    // By itself first: `a)|(b` must not become sound by what is put around it.
    build(&pattern)?;
    build(&format!("^(?:{pattern})$"))
}

fn build(pattern: &str) -> Result<Regex, String> {
    let builder = |unicode| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(PROGRAM_BYTES_MAX)
            .dfa_size_limit(PROGRAM_BYTES_MAX)
            .build()
    };
    // Classes by Unicode property need the larger tables; everything else is ASCII as in RE2.
    builder(false)
        .or_else(|_| builder(true))
        .map_err(|error| reason(&error))
}

/// The engine shows the pattern with a mark under the place; the sentence comes last.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(bytes) => {
            format!("compiled it would take more than {bytes} bytes")
        }
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// `\Q…\E` as RE2 reads it: everything between stands for itself.
fn unquoted(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains("\\Q") {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, escaped) = rest.split_at(at);
        out.push_str(before);
        if let Some(quoted) = escaped.strip_prefix("\\Q") {
            let (literal, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(literal));
            rest = after;
        } else {
            // The backslash and what it escapes, whatever that is.
            let mut chars = escaped.char_indices();
            let end = chars.nth(2).map_or(escaped.len(), |(end, _)| end);
            let (pair, after) = escaped.split_at(end);
            out.push_str(pair);
            rest = after;
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
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

/// A pattern on its way.
#[derive(Clone, Debug)]
struct Matching {
    pattern: Str,
    regex: Regex,
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

    /// Does one slice: at most one pattern compiled, some topics matched. `true` when all is done.
    pub(crate) fn advance(&mut self) -> bool {
        if let Some(mut matching) = self.current.take().or_else(|| self.begin_next()) {
            if matching.advance(&self.image) {
                self.settle(matching.pattern, matching.matched);
            } else {
                self.current = Some(matching);
            }
        }
        self.current.is_none() && self.waiting.is_empty()
    }

    /// The next pattern. One that cannot be compiled (it was checked when it came, perhaps by another
    /// version of this broker) matches nothing.
    fn begin_next(&mut self) -> Option<Matching> {
        let pattern = self.waiting.pop()?;
        match compile(&pattern) {
            Ok(regex) => Some(Matching {
                pattern,
                regex,
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
        for topic in topics.by_ref().take(MATCHES_PER_SLICE) {
            if self.regex.is_match(topic.name.as_bytes()) {
                self.matched.insert(topic.name.clone());
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
mod tests {
    use super::*;
    use crate::groups::consumer::testing::image_of;

    fn resolve(patterns: &[&str], names: &[&str]) -> Vec<Vec<String>> {
        let topics: Vec<_> = names.iter().zip(100..).map(|(n, id)| (*n, id, 1)).collect();
        let patterns: Vec<Str> = patterns.iter().map(|p| Str::from(*p)).collect();
        let mut resolution = Resolution::new(patterns.clone(), Arc::new(image_of(&topics)), 5);
        while !resolution.advance() {}
        let resolved = resolution.finish();
        let names = patterns.iter().map(|pattern| {
            let topics = resolved[pattern].topics.iter();
            topics.map(Str::to_string).collect()
        });
        names.collect()
    }

    #[test]
    fn whole_names_are_matched() {
        let names = ["a", "ab", "abc", "b.c", "bxc"];
        assert_eq!(resolve(&["a|ab"], &names), [["a", "ab"]]);
        assert_eq!(resolve(&["b.c"], &names), [["b.c", "bxc"]]);
        assert_eq!(resolve(&["\\Qb.c\\E"], &names), [["b.c"]]);
        assert_eq!(
            resolve(&["\\Qb.\\E\\w", "z"], &names),
            [vec!["b.c"], vec![]]
        );
        assert_eq!(resolve(&["(?i)AB{0,1}"], &names), [["a", "ab"]]);
        assert_eq!(resolve(&["\\p{L}+"], &names), [["a", "ab", "abc", "bxc"]]);
        assert_eq!(resolve(&["\\\\Q"], &names), [Vec::<String>::new()]);
    }

    #[test]
    fn many_topics_take_many_slices() {
        let names: Vec<String> = (0..2000).map(|n| format!("t{n:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let topics: Vec<_> = names.iter().zip(100..).map(|(n, id)| (*n, id, 1)).collect();
        let image = Arc::new(image_of(&topics));
        let mut resolution = Resolution::new(vec![Str::from("t.*"), Str::from("t1.*")], image, 5);
        let mut slices = 1;
        while !resolution.advance() {
            slices += 1;
        }
        assert_eq!(slices, 8);
        let resolved = resolution.finish();
        assert_eq!(resolved["t.*"].topics.len(), 2000);
        assert_eq!(resolved["t1.*"].topics.len(), 1000);
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_a_reason() {
        for (pattern, reason) in [
            ("[", "unclosed"),
            ("a)|(b", "unopened"),
            ("(?<x", "unclosed"),
            ("(?=a)", "look-around"),
            ("((a{500}){500}){500}", "bytes"),
        ] {
            let refusal = check_pattern(pattern).expect_err(pattern);
            assert_eq!(refusal.code, ErrorCode::InvalidRegularExpression);
            let message = refusal.message.expect("a sentence");
            assert!(message.starts_with(&format!("SubscribedTopicRegex `{pattern}` is not")));
            assert!(message.contains(reason), "{message}");
        }
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        assert!(check_pattern(&long).is_err());
        for sound in ["", "a.*", "\\w{1,200}", "[[:alpha:]]+", "\\Qa+b"] {
            assert!(check_pattern(sound).is_ok(), "{sound}");
        }
    }
}
