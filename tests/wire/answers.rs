//! The same odd requests to every API in every version, and what Apache Kafka 4.3.1 answers: codes,
//! nulls, and whether there is a message, from `answers.txt`.
//!
//! With `CHRONIK_TEST_BOOTSTRAP` the broker that runs there is held against the same file; with
//! `CHRONIK_RECORD_ANSWERS=FILE`, too, its answers are written there (a Kafka of its own, freshly
//! formatted, wants `tests/wire/answers.txt`). What is different here on purpose stands in [`DIFFERENT`].

mod admin;
mod data;
mod group;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chronik_protocol::frame::encode_request;
use chronik_protocol::messages::ApiVersionsRequest;
use chronik_protocol::{Request, Str, Uuid, versions};

use crate::subject::{Subject, unused_name};
use crate::support::calls::{create_topic, text};
use crate::support::client::Client;

/// What Kafka was found to answer: API, case, first and last version, answer, with tabs between.
const KAFKA: &str = include_str!("answers.txt");

/// Cases in which another answer than Kafka's is meant, and why.
const DIFFERENT: &[(&str, &str, &str)] = &[
    (
        "AlterConfigsRequest",
        "broker, no name",
        "keys that no broker knows are kept",
    ),
    (
        "AlterConfigsRequest",
        "topic, MISSING",
        "no topic comes before no setting",
    ),
    ("AlterConfigsRequest", "topic, broker -1", "as before"),
    ("AlterConfigsRequest", "topic, broker 1x", "as before"),
    ("AlterConfigsRequest", "topic, broker 77", "as before"),
    (
        "IncrementalAlterConfigsRequest",
        "topic, MISSING",
        "as before",
    ),
    (
        "IncrementalAlterConfigsRequest",
        "topic, broker -1",
        "as before",
    ),
    (
        "IncrementalAlterConfigsRequest",
        "topic, broker 1x",
        "as before",
    ),
    (
        "IncrementalAlterConfigsRequest",
        "topic, broker 77",
        "as before",
    ),
    (
        "IncrementalAlterConfigsRequest",
        "no such operation",
        "Kafka has no word for it",
    ),
    (
        "FetchRequest",
        "a session's first epoch",
        "a session of nothing is not kept",
    ),
    (
        "FindCoordinatorRequest",
        "a share without its name",
        "there are no share groups",
    ),
    (
        "MetadataRequest",
        "an id twice",
        "what is named twice is answered once",
    ),
    ("MetadataRequest", "neither", "Kafka stumbles"),
];

/// An unknown topic id.
pub(crate) const NO_ID: Uuid = Uuid(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);

/// Where the requests go, and what they speak of.
pub(crate) struct Ground {
    subject: Subject,
    client: Client,
    /// A topic of two partitions.
    pub(crate) topic: String,
    pub(crate) id: Uuid,
    /// A name that no topic has, and every group that is asked for.
    pub(crate) missing: String,
    /// By API and case, and by version.
    answers: BTreeMap<(String, i16), String>,
    /// The versions that the other side has.
    served: BTreeMap<i16, (i16, i16)>,
}

impl Ground {
    fn new() -> Ground {
        let subject = Subject::start();
        let mut client = subject.connect();
        let topic = unused_name();
        let id = create_topic(&mut client, &topic, 2, &[]);
        let keys = client.call(&ApiVersionsRequest::default(), 0).api_keys;
        let served = keys
            .iter()
            .map(|row| (row.api_key, (row.min_version, row.max_version)));
        Ground {
            served: served.collect(),
            subject,
            client,
            topic,
            id,
            missing: unused_name(),
            answers: BTreeMap::new(),
        }
    }

    pub(crate) fn topic(&self) -> Str {
        text(&self.topic)
    }

    pub(crate) fn missing(&self) -> Str {
        text(&self.missing)
    }

    /// Sends a request in every version that can say it and that both sides have.
    pub(crate) fn ask<R: Request>(&mut self, case: &str, request: &R)
    where
        R::Response: std::fmt::Debug,
    {
        self.ask_sorted(case, request, |_| {});
    }

    /// As [`Ground::ask`], for answers whose order means nothing: `sort` makes it one.
    pub(crate) fn ask_sorted<R: Request>(
        &mut self,
        case: &str,
        request: &R,
        sort: impl Fn(&mut R::Response),
    ) where
        R::Response: std::fmt::Debug,
    {
        let ours = versions::of(R::KEY).expect("an API that is served");
        let Some((min, max)) = self.served.get(&R::KEY.as_i16()).copied() else {
            return;
        };
        for version in ours.min.max(min)..=ours.max.min(max) {
            if encode_request(0, None, request, version).is_err() {
                continue;
            }
            let answer = match self.client.try_call(request, version) {
                Ok(mut response) => {
                    sort(&mut response);
                    self.tidy(&format!("{response:?}"))
                }
                Err(_) => {
                    self.client = self.subject.connect();
                    "no answer".to_owned()
                }
            };
            let case = format!("{}\t{case}", R::NAME);
            let twice = self.answers.insert((case, version), answer);
            assert!(twice.is_none(), "{}: a case is there twice", R::NAME);
        }
    }

    /// An answer without what is another at every run, and without the words of messages.
    fn tidy(&self, answer: &str) -> String {
        let known = [
            (self.topic.clone(), "TOPIC"),
            (self.missing.clone(), "MISSING"),
            (format!("{:?}", self.id), "ID"),
            (format!("{NO_ID:?}"), "NO-ID"),
            (format!("{:?}", Uuid::ZERO), "ZERO"),
        ];
        let mut answer = answer.to_owned();
        for (value, name) in known {
            answer = answer.replace(&value, name);
        }
        for (begin, end) in [
            ("essage: Some(\"", "\")"),
            ("cluster_id: Some(\"", "\")"),
            ("cluster_id: \"", "\""),
            ("port: ", ","),
            (", unknown_tagged_fields: ", "}"),
        ] {
            answer = blank(&answer, begin, end);
        }
        answer
    }
}

/// `answer` with `_` for what stands between `begin` and the next `end`.
fn blank(answer: &str, begin: &str, end: &str) -> String {
    let mut out = String::with_capacity(answer.len());
    let mut rest = answer;
    while let Some((before, after)) = rest.split_once(begin) {
        let cut = after.find(end).unwrap_or(after.len());
        let _ = write!(out, "{before}{begin}_");
        rest = &after[cut..];
    }
    out + rest
}

#[test]
fn odd_requests_get_kafkas_answers() {
    let mut ground = Ground::new();
    admin::ask_all(&mut ground);
    data::ask_all(&mut ground);
    group::ask_all(&mut ground);
    admin::delete(&mut ground);
    if let Some(path) = std::env::var_os("CHRONIK_RECORD_ANSWERS") {
        return std::fs::write(path, recorded(&ground.answers)).expect("a file to write");
    }
    let mut wrong = Vec::new();
    let mut compared = 0;
    for line in KAFKA.lines() {
        let [api, case, first, last, expected] = columns(line);
        let on_purpose = DIFFERENT.iter().any(|it| (it.0, it.1) == (api, case));
        if on_purpose && !ground.subject.is_outside() {
            continue;
        }
        let number = |text: &str| text.parse::<i16>().expect("a version");
        for version in number(first)..=number(last) {
            compared += 1;
            match ground.answers.get(&(format!("{api}\t{case}"), version)) {
                Some(found) if found == expected => {}
                found => wrong.push(format!(
                    "{api} {version}, {case}\n  kafka {expected}\n  found {found:?}"
                )),
            }
        }
    }
    for (api, case, why) in DIFFERENT {
        let found = KAFKA
            .lines()
            .any(|line| columns(line)[..2] == [*api, *case]);
        assert!(found, "no case {api} {case}: {why}");
    }
    assert!(compared > 1_500, "{compared} answers");
    assert!(
        wrong.is_empty(),
        "{} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn columns(line: &str) -> [&str; 5] {
    let columns: Vec<&str> = line.splitn(5, '\t').collect();
    columns.try_into().expect("five columns")
}

/// As `answers.txt` has it: neighbouring versions with one answer stand in one line.
fn recorded(answers: &BTreeMap<(String, i16), String>) -> String {
    let mut out = String::new();
    let mut answers = answers.iter().peekable();
    while let Some(((case, first), answer)) = answers.next() {
        let mut last = *first;
        while let Some(((_, next), _)) = answers
            .next_if(|((other, next), same)| other == case && *next == last + 1 && *same == answer)
        {
            last = *next;
        }
        let _ = writeln!(out, "{case}\t{first}\t{last}\t{answer}");
    }
    out
}
