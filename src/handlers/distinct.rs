//! What a request names more than once: the rules by which `Api::settle` takes repetitions out, as Kafka
//! 4.3 does it, where the request is decoded.
//!
//! Runs on the shard of the connection; pure; costs what the request names, once. Knows no API.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Of those that are named again and again, which counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    First,
    /// In the place of the first, as in a map that keeps the order of its keys.
    Last,
    /// Two of them, which is how the request is known to name them twice and refused for it.
    Two,
}

/// Below this many elements they are compared with each other: cheaper than a set, and enough for
/// what clients send.
const COMPARED_MAX: usize = 8;

/// Takes repeated elements out; the others keep their order.
pub(super) fn keep<T, K: Hash + Eq>(elements: &mut Vec<T>, rule: Keep, key: impl Fn(&T) -> K) {
    if elements.len() < 2 || (elements.len() <= COMPARED_MAX && all_differ(elements, &key)) {
        return;
    }
    match rule {
        Keep::First => {
            let mut seen = HashSet::with_capacity(elements.len());
            elements.retain(|element| seen.insert(key(element)));
        }
        Keep::Two => {
            let mut seen: HashMap<K, bool> = HashMap::with_capacity(elements.len());
            elements.retain(|element| match seen.get_mut(&key(element)) {
                Some(twice) => !std::mem::replace(twice, true),
                None => {
                    seen.insert(key(element), false);
                    true
                }
            });
        }
        Keep::Last => {
            let mut places: HashMap<K, usize> = HashMap::with_capacity(elements.len());
            let mut kept: Vec<T> = Vec::with_capacity(elements.len());
            for element in std::mem::take(elements) {
                let free = kept.len();
                let place = *places.entry(key(&element)).or_insert(free);
                match kept.get_mut(place) {
                    Some(earlier) => *earlier = element,
                    None => kept.push(element),
                }
            }
            *elements = kept;
        }
    }
}

fn all_differ<T, K: Eq>(elements: &[T], key: impl Fn(&T) -> K) -> bool {
    let mut rest = elements;
    while let Some((first, others)) = rest.split_first() {
        let own = key(first);
        if others.iter().any(|other| key(other) == own) {
            return false;
        }
        rest = others;
    }
    true
}

/// Takes repeated partitions out of an array of topics that may itself name a topic again.
pub(super) fn of_topics<T, P, K: Hash + Eq>(
    mut topics: Vec<T>,
    rule: Keep,
    topic_key: impl Fn(&T) -> K,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
    index: impl Fn(&P) -> i32,
) -> Vec<T> {
    if topics.len() < 2 {
        topics
            .iter_mut()
            .for_each(|topic| keep(partitions(topic), rule, &index));
        return topics;
    }
    let numbers = numbered(&topics, topic_key);
    let many = topics.len() > numbers.iter().max().map_or(0, |max| max + 1);
    if !many {
        topics
            .iter_mut()
            .for_each(|topic| keep(partitions(topic), rule, &index));
        return topics;
    }
    // A topic that is named again goes on where it was named first.
    let mut flat: Vec<(usize, usize, P)> = Vec::new();
    let mut was_empty = Vec::with_capacity(topics.len());
    for (place, (topic, number)) in topics.iter_mut().zip(&numbers).enumerate() {
        let own = std::mem::take(partitions(topic));
        was_empty.push(own.is_empty());
        flat.extend(own.into_iter().map(|partition| (place, *number, partition)));
    }
    // The place of an element that takes another's is that of the first.
    let mut first: HashMap<(usize, i32), usize> = HashMap::with_capacity(flat.len());
    for (place, number, partition) in &mut flat {
        let first = *first.entry((*number, index(partition))).or_insert(*place);
        if rule != Keep::Two {
            *place = first;
        }
    }
    keep(&mut flat, rule, |(_, number, partition)| {
        (*number, index(partition))
    });
    for (place, _, partition) in flat {
        if let Some(topic) = topics.get_mut(place) {
            partitions(topic).push(partition);
        }
    }
    let mut was_empty = was_empty.into_iter();
    topics.retain_mut(|topic| was_empty.next() == Some(true) || !partitions(topic).is_empty());
    topics
}

/// A number for each topic, the same for those of the same key, from 0 without gaps.
fn numbered<T, K: Hash + Eq>(topics: &[T], key: impl Fn(&T) -> K) -> Vec<usize> {
    if topics.len() <= COMPARED_MAX && all_differ(topics, &key) {
        return (0..topics.len()).collect();
    }
    let mut numbers: HashMap<K, usize> = HashMap::with_capacity(topics.len());
    let number = |topic: &T| {
        let next = numbers.len();
        *numbers.entry(key(topic)).or_insert(next)
    };
    topics.iter().map(number).collect()
}
