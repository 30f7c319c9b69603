//! An expression made ready for matching, and the matching of whole names.
//!
//! Owns a nondeterministic automaton and the walk over it: time is states times characters, memory
//! is states, whatever the expression. Works in steps that are counted, so that a caller can bound how long
//! it is at it. Never looks at a topic.

use super::classes::is_word;
use super::syntax::{Node, NodeId, Place, Tree};

/// States of an automaton: some 3 MiB with what walking over it takes. An expression without
/// repetitions has about as many states as characters, and a name is matched by those that are left
/// after its first character.
pub(super) const STATES_MAX: usize = 64 * 1024;

type StateId = u32;

#[derive(Clone, Copy, Debug)]
enum State {
    /// A character of a class leads on.
    Class(u128, StateId),
    Split(StateId, StateId),
    At(Place, StateId),
    Match,
}

/// An automaton.
#[derive(Clone, Debug)]
pub(super) struct Program {
    states: Vec<State>,
    start: StateId,
}

/// An expression has more states than [`STATES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Program {
    /// Writes out an expression, its repetitions included.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub(super) fn of(tree: &Tree) -> Result<Program, TooLarge> {
        let mut writer = Writer {
            nodes: &tree.nodes,
            states: vec![State::Match],
        };
        let start = writer.write(tree.whole, 0)?;
        Ok(Program {
            states: writer.states,
            start,
        })
    }
}

#[cfg(test)]
impl Program {
    /// How many states there are.
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }
}

/// Writes from the end to the beginning: what follows a state is there before it.
struct Writer<'a> {
    nodes: &'a [Node],
    states: Vec<State>,
}

impl Writer<'_> {
    fn add(&mut self, state: State) -> Result<StateId, TooLarge> {
        if self.states.len() >= STATES_MAX {
            return Err(TooLarge);
        }
        self.states.push(state);
        // Below `STATES_MAX`.
        Ok((self.states.len() - 1) as StateId)
    }

    /// The first state of a node that is followed by `next`. As deep as groups are in each other.
    fn write(&mut self, node: NodeId, next: StateId) -> Result<StateId, TooLarge> {
        let nodes = self.nodes;
        match &nodes[node] {
            Node::Empty => Ok(next),
            Node::Class(set) => self.add(State::Class(*set, next)),
            Node::At(place) => self.add(State::At(*place, next)),
            Node::Sequence(parts) => {
                let mut first = next;
                for part in parts.iter().rev() {
                    first = self.write(*part, first)?;
                }
                Ok(first)
            }
            Node::Choice(branches) => {
                let mut first = None;
                for branch in branches.iter().rev() {
                    let branch = self.write(*branch, next)?;
                    first = Some(match first {
                        None => branch,
                        Some(others) => self.add(State::Split(branch, others))?,
                    });
                }
                Ok(first.unwrap_or(next))
            }
            Node::Repeat(inner, min, max) => self.repeat(*inner, (*min, *max), next),
        }
    }

    fn repeat(
        &mut self,
        inner: NodeId,
        (min, max): (u32, Option<u32>),
        next: StateId,
    ) -> Result<StateId, TooLarge> {
        let mut first = next;
        match max {
            None => {
                let around = self.add(State::Split(next, next))?;
                let again = self.write(inner, around)?;
                // `add` has just given its place.
                self.states[around as usize] = State::Split(again, next);
                first = around;
            }
            Some(max) => {
                for _ in min..max {
                    let once = self.write(inner, first)?;
                    first = self.add(State::Split(once, next))?;
                }
            }
        }
        for _ in 0..min {
            first = self.write(inner, first)?;
        }
        Ok(first)
    }
}

/// How many states an expression has, written out; no more than [`STATES_MAX`] and one.
pub(super) fn states(tree: &Tree) -> usize {
    let mut states: Vec<usize> = Vec::with_capacity(tree.nodes.len());
    for node in &tree.nodes {
        let all = |parts: &[NodeId]| {
            let sizes = parts.iter().map(|part| states[*part]);
            sizes.fold(0, usize::saturating_add)
        };
        let count = match node {
            Node::Empty => 0,
            Node::Class(_) | Node::At(_) => 1,
            Node::Sequence(parts) => all(parts),
            Node::Choice(branches) => all(branches).saturating_add(branches.len() - 1),
            Node::Repeat(inner, min, max) => {
                let inner = states[*inner];
                let (min, more) = match max {
                    Some(max) => (*min as usize, (max - min) as usize),
                    None => (*min as usize, 1),
                };
                let written = inner.saturating_mul(min.saturating_add(more));
                written.saturating_add(more)
            }
        };
        states.push(count.min(STATES_MAX));
    }
    // The end has a state of its own.
    states
        .get(tree.whole)
        .map_or(1, |count| count.saturating_add(1))
}

/// A walk over one automaton, name by name.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    program: Program,
    /// States that a character could lead on from.
    now: Vec<StateId>,
    next: Vec<StateId>,
    /// States to be looked at.
    open: Vec<StateId>,
    /// For each state the round in which it was last reached.
    reached: Vec<u32>,
    round: u32,
    /// Characters of the name under way that are done.
    at: usize,
    /// Whether the end was reached by them.
    matched: bool,
}

impl Walk {
    /// A walk.
    pub(super) fn new(program: Program) -> Walk {
        Walk {
            reached: vec![0; program.states.len()],
            program,
            now: Vec::new(),
            next: Vec::new(),
            open: Vec::new(),
            round: 0,
            at: 0,
            matched: false,
        }
    }

    /// Goes on with a name; whether the whole of it matches, or `None` when `steps` are used up: then it
    /// is to be called again with the same name. A step is a state that is looked at; those of one
    /// character are never cut in two.
    pub(super) fn go_on(&mut self, name: &[u8], steps: &mut usize) -> Option<bool> {
        if self.at == 0 {
            self.now.clear();
            self.new_round();
            self.matched = self.follow(self.program.start, name, 0, steps);
        }
        while let Some(byte) = name.get(self.at) {
            if self.now.is_empty() {
                self.at = 0;
                return Some(false);
            }
            if *steps == 0 && self.at > 0 {
                return None;
            }
            self.at += 1;
            self.advance(*byte, name, steps);
        }
        self.at = 0;
        Some(self.matched)
    }

    /// One character.
    fn advance(&mut self, byte: u8, name: &[u8], steps: &mut usize) {
        std::mem::swap(&mut self.now, &mut self.next);
        self.now.clear();
        self.new_round();
        self.matched = false;
        let from = std::mem::take(&mut self.next);
        *steps = steps.saturating_sub(from.len());
        for id in &from {
            if let State::Class(set, next) = self.program.states[*id as usize]
                && byte < 128
                && set >> byte & 1 == 1
            {
                self.matched |= self.follow(next, name, self.at, steps);
            }
        }
        self.next = from;
    }

    fn new_round(&mut self) {
        self.round = self.round.checked_add(1).unwrap_or_else(|| {
            self.reached.fill(0);
            1
        });
    }

    /// Notes every state that is reached without a character; whether the end is among them.
    fn follow(&mut self, state: StateId, name: &[u8], at: usize, steps: &mut usize) -> bool {
        let mut matched = false;
        self.open.push(state);
        while let Some(id) = self.open.pop() {
            let reached = &mut self.reached[id as usize];
            if std::mem::replace(reached, self.round) == self.round {
                continue;
            }
            *steps = steps.saturating_sub(1);
            match self.program.states[id as usize] {
                State::Class(..) => self.now.push(id),
                State::Split(one, other) => self.open.extend([other, one]),
                State::At(place, next) if is_at(place, name, at) => self.open.push(next),
                State::At(..) => {}
                State::Match => matched = true,
            }
        }
        matched
    }
}

fn is_at(place: Place, name: &[u8], at: usize) -> bool {
    let word_at = |at: Option<usize>| at.and_then(|at| name.get(at)).is_some_and(|b| is_word(*b));
    let boundary = word_at(at.checked_sub(1)) != word_at(Some(at));
    match place {
        Place::Begin => at == 0,
        Place::End => at == name.len(),
        Place::WordBoundary => boundary,
        Place::NoWordBoundary => !boundary,
    }
}
