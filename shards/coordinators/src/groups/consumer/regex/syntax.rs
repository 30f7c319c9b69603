//! RE2's syntax as RE2/J reads it, which is what Kafka hands expressions to.
//!
//! Owns the way from a pattern to a tree whose classes are sets of ASCII characters: topics have no
//! others in their names, so that `\pL` is 52 letters and what is not ASCII matches nothing. Takes time
//! and memory in the pattern's length only; repetitions are counted, not written out. Never matches.

use std::collections::BTreeSet;

use super::classes::{Set, of_char};
use super::escapes::{self, Cursor};

/// Groups inside of groups: RE2's bound (RE2/J goes on until its stack is used up).
const NESTING_MAX: usize = 1_000;
/// The greatest number in `{n,m}`.
const REPEAT_MAX: u32 = 1_000;

/// The place of a node in its [`Tree`].
pub(super) type NodeId = usize;

/// A part of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Nothing, which matches.
    Empty,
    /// One character of these.
    Class(Set),
    /// A place between two characters.
    At(Place),
    /// One after the other.
    Sequence(Vec<NodeId>),
    /// Any of them.
    Choice(Vec<NodeId>),
    /// The same again and again; `None`: without end.
    Repeat(NodeId, u32, Option<u32>),
}

/// Places that an expression can ask for. Names have one line, so lines begin where texts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Begin,
    End,
    WordBoundary,
    NoWordBoundary,
}

/// An expression. Children stand before their parents; none is [`Node::Empty`] but the whole, a branch or
/// what a place in a sequence was made of, so that what is written out takes room for its time.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) whole: NodeId,
}

/// What stands before the cursor and can be repeated, and what is open around it.
struct Level {
    /// Finished branches of a choice.
    branches: Vec<NodeId>,
    /// The branch under way.
    sequence: Vec<NodeId>,
    /// Whether upper and lower case are the same, when the level is left.
    fold_after: bool,
}

struct Parser<'a> {
    rest: Cursor<'a>,
    nodes: Vec<Node>,
    levels: Vec<Level>,
    fold: bool,
    names: BTreeSet<&'a str>,
}

/// Reads a pattern.
///
/// # Errors
/// RE2/J's words for what is wrong with it.
pub(super) fn parse(pattern: &str) -> Result<Tree, &'static str> {
    let mut parser = Parser {
        rest: Cursor::new(pattern),
        nodes: Vec::new(),
        levels: Vec::new(),
        fold: false,
        names: BTreeSet::new(),
    };
    parser.open(false)?;
    let mut repeated = false;
    while let Some(char) = parser.rest.peek() {
        repeated = parser.step(char, repeated)?;
    }
    if parser.levels.len() > 1 {
        return Err("missing closing )");
    }
    let whole = parser.close();
    Ok(Tree {
        nodes: parser.nodes,
        whole,
    })
}

impl<'a> Parser<'a> {
    fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn push(&mut self, node: Node) {
        let id = self.add(node);
        if let Some(level) = self.levels.last_mut() {
            level.sequence.push(id);
        }
    }

    fn push_char(&mut self, char: char) {
        let class = of_char(char, self.fold);
        self.push(Node::Class(class));
    }

    /// Reads one thing; whether it was a repetition, which cannot be repeated.
    fn step(&mut self, char: char, repeated: bool) -> Result<bool, &'static str> {
        match char {
            '(' => self.open_group()?,
            '|' => {
                self.rest.skip(1);
                self.end_branch();
            }
            ')' => {
                self.rest.skip(1);
                if self.levels.len() < 2 {
                    return Err("unexpected )");
                }
                let group = self.close();
                if let Some(level) = self.levels.last_mut() {
                    level.sequence.push(group);
                }
            }
            '^' => self.push_after(1, Node::At(Place::Begin)),
            '$' => self.push_after(1, Node::At(Place::End)),
            '.' => self.push_after(1, Node::Class(!0)),
            '[' => {
                let class = escapes::class(&mut self.rest, self.fold)?;
                self.push(Node::Class(class));
            }
            '*' | '+' | '?' => {
                self.rest.skip(1);
                let (min, max) = match char {
                    '*' => (0, None),
                    '+' => (1, None),
                    _ => (0, Some(1)),
                };
                self.repeat(min, max, repeated)?;
                return Ok(true);
            }
            '{' => match self.counts()? {
                Some((min, max)) => {
                    self.repeat(min, max, repeated)?;
                    return Ok(true);
                }
                None => {
                    self.rest.skip(1);
                    self.push_char('{');
                    // Not a repetition, but RE2/J remembers it as one.
                    return Ok(true);
                }
            },
            '\\' => self.escape()?,
            other => {
                self.rest.skip(other.len_utf8());
                self.push_char(other);
            }
        }
        Ok(false)
    }

    fn push_after(&mut self, bytes: usize, node: Node) {
        self.rest.skip(bytes);
        self.push(node);
    }

    fn open(&mut self, fold_after: bool) -> Result<(), &'static str> {
        if self.levels.len() > NESTING_MAX {
            return Err("expression nests too deeply");
        }
        self.levels.push(Level {
            branches: Vec::new(),
            sequence: Vec::new(),
            fold_after,
        });
        Ok(())
    }

    fn end_branch(&mut self) {
        let sequence = self.levels.last_mut();
        let sequence = sequence.map(|level| std::mem::take(&mut level.sequence));
        let mut sequence = sequence.unwrap_or_default();
        sequence.retain(|part| self.nodes[*part] != Node::Empty);
        let branch = match sequence {
            one if one.len() == 1 => one[0],
            none if none.is_empty() => self.add(Node::Empty),
            more => self.add(Node::Sequence(more)),
        };
        if let Some(level) = self.levels.last_mut() {
            level.branches.push(branch);
        }
    }

    /// Leaves a level; the node of what was in it.
    fn close(&mut self) -> NodeId {
        self.end_branch();
        let Some(level) = self.levels.pop() else {
            return self.add(Node::Empty);
        };
        self.fold = level.fold_after;
        match level.branches {
            one if one.len() == 1 => one[0],
            more => self.add(Node::Choice(more)),
        }
    }

    fn repeat(&mut self, min: u32, max: Option<u32>, repeated: bool) -> Result<(), &'static str> {
        if self.rest.peek() == Some('?') {
            // Which match is preferred does not matter where whole names are matched.
            self.rest.skip(1);
        }
        if repeated {
            return Err("invalid nested repetition operator");
        }
        let last = self
            .levels
            .last_mut()
            .and_then(|level| level.sequence.pop());
        let Some(last) = last else {
            return Err("missing argument to repetition operator");
        };
        match max {
            Some(0) => self.push(Node::Empty),
            _ if self.nodes[last] == Node::Empty => self.push(Node::Empty),
            Some(1) if min == 1 => {
                if let Some(level) = self.levels.last_mut() {
                    level.sequence.push(last);
                }
            }
            _ => self.push(Node::Repeat(last, min, max)),
        }
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}`; `None` where the brace stands for itself.
    fn counts(&mut self) -> Result<Option<(u32, Option<u32>)>, &'static str> {
        let mut after = self.rest;
        after.skip(1);
        let Some(min) = after.number() else {
            return Ok(None);
        };
        let max = if after.peek() == Some(',') {
            after.skip(1);
            match after.peek() {
                Some('}') => None,
                _ => match after.number() {
                    Some(max) => Some(max),
                    None => return Ok(None),
                },
            }
        } else {
            Some(min)
        };
        if after.peek() != Some('}') {
            return Ok(None);
        }
        after.skip(1);
        let too_many = min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX);
        if too_many || max.is_some_and(|max| max < min) {
            return Err("invalid repeat count");
        }
        self.rest = after;
        Ok(Some((min, max)))
    }

    fn escape(&mut self) -> Result<(), &'static str> {
        let place = match self.rest.peek_second() {
            Some('A') => Place::Begin,
            Some('z') => Place::End,
            Some('b') => Place::WordBoundary,
            Some('B') => Place::NoWordBoundary,
            Some('Q') => {
                self.rest.skip(2);
                for char in self.rest.until("\\E").chars() {
                    self.push_char(char);
                }
                return Ok(());
            }
            _ => {
                let class = match escapes::named_class(&mut self.rest, self.fold)? {
                    Some(class) => class,
                    None => of_char(escapes::char(&mut self.rest)?, self.fold),
                };
                self.push(Node::Class(class));
                return Ok(());
            }
        };
        self.push_after(2, Node::At(place));
        Ok(())
    }

    fn open_group(&mut self) -> Result<(), &'static str> {
        let group = self.rest;
        self.rest.skip(1);
        if self.rest.peek() != Some('?') {
            return self.open(self.fold);
        }
        self.rest.skip(1);
        let is_named = group.starts_with("(?P<") || group.starts_with("(?<");
        if is_named {
            if self.rest.peek() == Some('P') {
                self.rest.skip(1);
            }
            self.rest.skip(1);
            return self.open_named();
        }
        self.flags()
    }

    fn open_named(&mut self) -> Result<(), &'static str> {
        let name = self.rest.before(">").ok_or("invalid named capture")?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_word) {
            return Err("invalid named capture");
        }
        if !self.names.insert(name) {
            return Err("duplicate capture group name");
        }
        self.open(self.fold)
    }

    /// `(?flags)` and `(?flags:`. Of the flags only `i` makes a difference to whole names of one line.
    fn flags(&mut self) -> Result<(), &'static str> {
        const ERROR: &str = "invalid or unsupported Perl syntax";
        let before = self.fold;
        let mut fold = before;
        let (mut on, mut any) = (true, false);
        loop {
            let char = self.rest.peek().ok_or(ERROR)?;
            self.rest.skip(char.len_utf8());
            match char {
                'i' => fold = on,
                'm' | 's' | 'U' => {}
                '-' if on => {
                    on = false;
                    any = false;
                    continue;
                }
                ':' | ')' if on || any => {
                    self.fold = fold;
                    return match char {
                        ':' => self.open(before),
                        _ => Ok(()),
                    };
                }
                _ => return Err(ERROR),
            }
            any = true;
        }
    }
}
