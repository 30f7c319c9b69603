//! Owns what is said where not the right directories are named: one of several alone, one whose disk is not
//! there, a file, a directory that is no broker's, one in which a broker is at work; and on a machine where
//! they cannot be looked into.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::refusals::{self, Made, doctor, refused};
use crate::support::calls::read_values;
use crate::support::{Broker, Scratch, free_port};
use crate::{chronik, connect};

/// What the doctor prints, and whether it has nothing against a start.
fn told(dirs: &[&Path]) -> (String, bool) {
    let output = doctor(dirs, &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (said, output.status.success())
}

fn joined(dirs: &[&Path]) -> String {
    let names: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    names.join(",")
}

fn start(dirs: &[&Path]) -> Broker {
    chronik(Path::new(&joined(dirs))).start()
}

/// All that a broker has said when it has stopped.
fn log_of(mut broker: Broker) -> String {
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    broker.log()
}

/// Lines of the broker's log or of the doctor with all of these words.
fn lines<'a>(said: &'a str, words: &[&str]) -> Vec<&'a str> {
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    said.lines().filter(has_all).collect()
}

fn properties(dir: &Path) -> String {
    fs::read_to_string(dir.join("meta.properties")).expect("it is there")
}

fn directory_id(dir: &Path) -> String {
    let text = properties(dir);
    let mut lines = text.lines();
    let id = lines.find_map(|line| line.strip_prefix("directory.id="));
    id.expect("it has one").to_owned()
}

#[test]
fn a_directory_without_the_metadata_log_is_not_taken_for_a_new_one() {
    let mut made = Made::new(2);
    let dirs = made.copy(false);
    let (first, second) = (&*dirs[0], &*dirs[1]);
    let id = directory_id(second);
    let words = ["node 1", &id, "without the metadata log", "has it first"];
    refused(&[second], &[], &words);
    // Nor is one that only lost its partitions since.
    let emptied = &made.copy(false)[1];
    for entry in fs::read_dir(emptied).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            fs::remove_dir_all(path).expect("removed");
        }
    }
    refused(&[emptied], &[], &words);
    // Nor behind one that was formatted for the same cluster.
    let formatted = made.scratch.join("formatted");
    fs::create_dir(&formatted).expect("made");
    fs::write(formatted.join("meta.properties"), properties(first)).expect("written");
    refused(&[&formatted, second], &[], &words);

    // Together they are what they were; and what was only formatted is taken.
    let broker = start(&[first, second]);
    let mut client = connect(&broker);
    for partition in 0..4 {
        assert_eq!(read_values(&mut client, "t", partition, 0).len(), 1);
    }
    broker.stop();
    start(&[&formatted]).stop();
}

#[test]
fn a_directory_that_is_not_there_is_told_once_with_all_that_is_offline() {
    let mut made = Made::new(2);
    let dirs = made.copy(false);
    let (first, second) = (&*dirs[0], &*dirs[1]);
    let id = directory_id(second);
    let empty = made.scratch.join("empty");
    fs::create_dir(&empty).expect("made");
    let name = empty.display().to_string();
    let missing = [
        &*id,
        "is missing",
        "2 partitions of 1 topic are offline",
        "mount it",
    ];
    let instead = [
        &*id,
        &*name,
        "is empty",
        "2 partitions of 1 topic are offline",
        "mount it",
    ];
    let cases: [(&[&Path], &[&str]); 3] = [
        (&[first], &missing),
        (&[first, &empty], &instead),
        // It has an identity now, and holds nothing of what is missing.
        (&[first, &empty], &missing),
    ];
    for (dirs, words) in cases {
        let (said, is_sound) = told(dirs);
        assert!(is_sound, "{said}");
        let warnings = lines(&said, words);
        assert_eq!(warnings.len(), 1, "{said}");
        assert!(warnings[0].starts_with("warning"), "{said}");
        let log = log_of(start(dirs));
        assert_eq!(lines(&log, &[" ERROR "]).len(), 1, "{log}");
        assert_eq!(lines(&log, words).len(), 1, "{log}");
    }
    let (said, is_sound) = told(&[first, second]);
    assert!(
        is_sound && lines(&said, &["is missing"]).is_empty(),
        "{said}"
    );
    let log = log_of(start(&[first, second]));
    assert!(lines(&log, &[" ERROR "]).is_empty(), "{log}");
}

#[test]
fn a_file_is_no_directory_wherever_it_is_named() {
    let made = Made::new(1);
    let file = made.scratch.join("file");
    fs::write(&file, "text").expect("written");
    for dirs in [&[&*file][..], &[&*made.dirs[0], &file]] {
        refused(dirs, &[], &["file: ", "a file", "not a directory"]);
        let (said, _) = told(dirs);
        let refusals = lines(&said, &["refused"]);
        assert_eq!(refusals.len(), 1, "{said}");
        assert!(refusals[0].contains("is a file, not a directory"), "{said}");
    }
    let below = file.join("below");
    refusals::told(
        &[&made.dirs[0], &below],
        &[],
        &["file/below: ", "not a directory"],
    );
}

#[test]
fn the_doctor_tells_an_empty_directory_from_one_with_files_and_from_one_in_use() {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    let (said, is_sound) = told(&[&data]);
    let words = ["data: ", "empty: a start makes a new broker here"];
    assert!(is_sound && lines(&said, &words).len() == 1, "{said}");

    fs::create_dir(&data).expect("made");
    fs::write(data.join("letter.txt"), "text").expect("written");
    let (said, is_sound) = told(&[&data]);
    let words = ["warning", "data: ", "letter.txt", "no log directory"];
    assert!(is_sound && lines(&said, &words).len() == 1, "{said}");
    assert!(!said.contains("empty: "), "{said}");

    let broker = start(&[&data]);
    broker.wait_for_line("ready");
    let (said, is_sound) = told(&[&data]);
    assert!(!is_sound && said.contains("in use"), "{said}");
    assert!(!said.contains("killed"), "{said}");
    let log = log_of(broker);
    let words = ["WARN", "data: ", "letter.txt", "no log directory"];
    assert_eq!(lines(&log, &words).len(), 1, "{log}");
    assert!(told(&[&data]).1);
}

#[test]
fn the_doctor_goes_on_where_too_little_memory_may_be_locked() {
    let scratch = Scratch::new();
    let data = scratch.join("data");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -l 256 && exec \"$0\" \"$@\""]);
    let port = free_port().to_string();
    command.args([env!("CARGO_BIN_EXE_chronik"), "doctor", "--port", &port]);
    let output = command.arg("--data").arg(&data).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    for words in [
        &["refused", "memlock", "ulimit -l"][..],
        &["warning", "not looked into"],
        &["ok ", "127.0.0.1"],
        &["ok ", "data: "],
    ] {
        assert_eq!(lines(&said, words).len(), 1, "{words:?} in {said}");
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    for text in [&said, &errors] {
        assert!(!text.contains("MemLock"), "{text}");
    }
}
