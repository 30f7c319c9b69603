//! Expressions against what RE2/J 1.8 says of them, and against the bounds.

use super::*;
use crate::groups::consumer::testing::image_of;

/// What RE2/J 1.8 (Kafka 4.3.1 has it) was found to say of patterns, some by hand, most at random:
/// pattern, tab, `matches` and the names of [`NAMES`] that it matches, or `refused` and why.
const VERDICTS: &str = include_str!("re2j.tsv");

const NAMES: &str = "a ab AB aB a.b a-b a_b A b B c x t1 t12 T9x aaa aab abc bc foo-bar foo.bar 123 \
                     1 12 _x -x Q a0 zzzz k K s S cab b2c tt12";

fn resolve(patterns: &[&str], names: &[&str]) -> Vec<Vec<String>> {
    let topics: Vec<_> = names.iter().zip(100..).map(|(n, id)| (*n, id, 1)).collect();
    let patterns: Vec<Str> = patterns.iter().map(|p| Str::from(*p)).collect();
    let mut resolution = Resolution::new(patterns.clone(), Arc::new(image_of(&topics)), 5);
    let programs = Programs::default();
    while resolution.advance(&programs) == Advance::More {}
    let resolved = resolution.finish();
    let names = patterns.iter().map(|pattern| {
        let topics = resolved[pattern].topics.iter();
        topics.map(Str::to_string).collect()
    });
    names.collect()
}

/// As a line of [`VERDICTS`] says it.
fn verdict(pattern: &str) -> String {
    match compile(pattern) {
        Ok(mut walk) => {
            let matched = NAMES.split(' ').filter(|name| {
                let mut steps = usize::MAX;
                walk.go_on(name.as_bytes(), &mut steps) == Some(true)
            });
            matched.fold("matches".to_owned(), |line, name| line + " " + name)
        }
        Err(reason) => format!("refused {reason}"),
    }
}

#[test]
fn patterns_mean_what_they_mean_for_kafka() {
    let mut wrong = Vec::new();
    for line in VERDICTS.lines() {
        let (pattern, expected) = line.split_once('\t').expect("two columns");
        // RE2/J calls a brace that nothing opened an error of its own.
        let expected = expected.replace("regexp/syntax: internal error", "unexpected )");
        let found = verdict(pattern);
        if found != expected {
            wrong.push(format!("{pattern}: {found}, not {expected}"));
        }
    }
    assert!(VERDICTS.lines().count() > 2_000);
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
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
}

#[test]
fn many_topics_take_many_slices() {
    let names: Vec<String> = (0..2000).map(|n| format!("t{n:04}")).collect();
    let topics: Vec<_> = names
        .iter()
        .zip(100..)
        .map(|(n, id)| (&**n, id, 1))
        .collect();
    let image = Arc::new(image_of(&topics));
    let patterns = vec![Str::from("t.*"), Str::from("t1.*")];
    let mut resolution = Resolution::new(patterns, image, 5);
    let programs = Programs::default();
    let mut slices = 1;
    while resolution.advance(&programs) == Advance::More {
        slices += 1;
    }
    assert!((8..20).contains(&slices), "{slices}");
    let resolved = resolution.finish();
    assert_eq!(resolved["t.*"].topics.len(), 2000);
    assert_eq!(resolved["t1.*"].topics.len(), 1000);
}

/// However much a pattern makes of a name, a slice looks at so many states, and those of one character.
#[test]
fn a_name_may_take_many_slices() {
    let name = "a".repeat(240);
    let image = Arc::new(image_of(&[(&*name, 1, 1), ("b", 2, 1)]));
    let pattern = "(?:(?:a?){100}){300}";
    let mut resolution = Resolution::new(vec![Str::from(pattern)], image, 5);
    let programs = Programs::default();
    let mut slices = 0;
    while resolution.advance(&programs) == Advance::More {
        slices += 1;
    }
    assert!(slices > 200, "{slices}");
    let resolved = resolution.finish();
    let matched: Vec<_> = resolved[pattern]
        .topics
        .iter()
        .map(Str::to_string)
        .collect();
    assert_eq!(matched, [name]);
}

#[test]
fn so_many_programs_there_are_and_no_more() {
    let image = Arc::new(image_of(&[(&*"a".repeat(200), 1, 1)]));
    let programs = Programs::default();
    let begin = || Resolution::new(vec![Str::from("(?:(?:a?){100}){300}")], image.clone(), 5);
    let mut busy: Vec<_> = (0..PROGRAMS_MAX).map(|_| begin()).collect();
    for resolution in &mut busy {
        assert_eq!(resolution.advance(&programs), Advance::More);
    }
    let mut late = begin();
    assert_eq!(late.advance(&programs), Advance::Crowded);
    assert_eq!(
        busy[0].advance(&programs),
        Advance::More,
        "it has a program"
    );
    busy.pop();
    assert_eq!(late.advance(&programs), Advance::More);
}

#[test]
fn what_is_no_pattern_is_refused_with_kafkas_reason() {
    for (pattern, reason) in [
        ("[", "missing closing ]"),
        ("a)|(b", "unexpected )"),
        ("(?<x", "invalid named capture"),
        ("(?=a)", "invalid or unsupported Perl syntax"),
        ("a{1001}", "invalid repeat count"),
        ("((a{500}){500}){500}", "written out it has more than 65536"),
    ] {
        let refusal = check_pattern(pattern).expect_err(pattern);
        assert_eq!(refusal.code, ErrorCode::InvalidRegularExpression);
        let message = refusal.message.expect("a sentence");
        let begin = format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression: ");
        assert!(
            message.starts_with(&format!("{begin}{reason}")),
            "{message}"
        );
    }
    let long = "a".repeat(PATTERN_BYTES_MAX);
    assert!(check_pattern(&long).is_ok());
    assert!(check_pattern(&(long + "a")).is_err());
}

#[test]
fn large_patterns_that_re2_takes_are_taken() {
    let many: Vec<_> = (0..1_400).map(|n| format!("topic{n:05}")).collect();
    let more: Vec<_> = (0..5_000).map(|n| format!("t{n}")).collect();
    let deep = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    let repeated = |depth: usize| format!("{}a{}", "(?:".repeat(depth), "?)".repeat(depth));
    for pattern in [
        &many.join("|"),
        &more.join("|"),
        "\\pL{40}",
        "\\pL{1000}",
        "(?i)[a-z\\pL]{1000}",
        "(\\w{1,100}){1,30}",
        "(?:.{1,10}){1,100}",
        "(.*a){200}",
        &deep(1_000),
        &repeated(1_000),
        &"a?".repeat(10_000),
        &"()".repeat(10_000),
        &"(|)*".repeat(5_000),
    ] {
        assert!(check_pattern(pattern).is_ok(), "{pattern}");
        assert!(compile(pattern).is_ok(), "{pattern}");
    }
    let names = ["topic00000", "topic01399", "topic01400", "t4999"];
    let joined = many.join("|");
    assert_eq!(resolve(&[&joined], &names), [["topic00000", "topic01399"]]);
    for deeper in [deep(1_001), deep(16_000), "(".repeat(32_000)] {
        assert!(check_pattern(&deeper).is_err());
    }
}

/// What is counted is what is written out, and no pattern takes more room than that or writes for ever.
#[test]
fn the_size_is_known_before_it_is_written() {
    let lines = VERDICTS.lines().filter_map(|line| line.split_once('\t'));
    for (pattern, _) in lines {
        let Ok(tree) = syntax::parse(pattern) else {
            continue;
        };
        let program = Program::of(&tree).expect("a small pattern");
        assert_eq!(program.len(), program::states(&tree), "{pattern}");
    }
    let void = format!("({}a{{1000}}){{1000}}", "()".repeat(16_000));
    assert!(check_pattern(&void).is_err());
}

/// A random pattern that the `regex` crate reads as RE2 does.
fn random_pattern(random: &mut impl FnMut(usize) -> usize, depth: usize) -> String {
    const ATOMS: [&str; 14] = [
        "a", "b", "c", "1", "-", "\\.", ".", "[a-c]", "[^a]", "\\w", "\\d", "\\W", "(?i)A", "()",
    ];
    const REPEATS: [&str; 9] = ["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?", "{0}"];
    const AROUND: [(&str, &str); 7] = [
        ("(?i:", ")"),
        ("(", ")"),
        ("^", ""),
        ("", "$"),
        ("\\b", ""),
        ("", "\\B"),
        ("\\A", "\\z"),
    ];
    let inner = |random: &mut _| random_pattern(random, depth.saturating_sub(1));
    match if depth == 0 { 0 } else { random(10) } {
        0..=2 => ATOMS[random(ATOMS.len())].to_owned(),
        3..=5 => inner(random) + &inner(random),
        6 => format!("({}|{})", inner(random), inner(random)),
        7 | 8 => format!("(?:{}){}", inner(random), REPEATS[random(REPEATS.len())]),
        _ => {
            let (before, after) = AROUND[random(AROUND.len())];
            format!("{before}{}{after}", inner(random))
        }
    }
}

#[test]
fn another_engine_sees_the_same_names() {
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below.max(1)
    };
    let (mut yes, mut no) = (0, 0);
    for _ in 0..5_000 {
        let pattern = random_pattern(&mut random, 5);
        let other = regex::bytes::RegexBuilder::new(&format!("^(?:{pattern})$"))
            .unicode(false)
            .build()
            .expect("a pattern that both read");
        let mut walk = compile(&pattern).expect("a pattern that both read");
        for _ in 0..20 {
            let length = random(6);
            let name: Vec<u8> = (0..length).map(|_| b"abcABC1-._"[random(10)]).collect();
            let mut steps = usize::MAX;
            let found = walk.go_on(&name, &mut steps) == Some(true);
            let text = String::from_utf8_lossy(&name);
            assert_eq!(found, other.is_match(&name), "{pattern} and {text}");
            match found {
                true => yes += 1,
                false => no += 1,
            }
        }
    }
    assert!(yes > 2_000 && no > 20_000, "{yes} matches, {no} others");
}
