//! What newly resolved expressions change: records of what they match, and the group's next epoch if
//! that is something else than before (`handleRegularExpressionsResult`).

use std::collections::BTreeMap;

use chronik_catalog::Image;
use chronik_protocol::Str;

use super::super::records::GroupRecord;
use super::group::ConsumerGroup;
use super::hash::metadata_hash;
use super::records;
use super::regex::Resolved;
use super::subscription::topics_with;

/// Records of expressions that are still subscribed to.
pub(super) fn resolved(
    group: &ConsumerGroup,
    found: &BTreeMap<Str, Resolved>,
    image: &Image,
) -> Vec<GroupRecord> {
    let mut out = Vec::new();
    let mut bump = false;
    let mut changes: BTreeMap<&Str, i64> = BTreeMap::new();
    for (pattern, new) in found {
        if !group.regexes().contains_key(pattern) {
            continue;
        }
        let old = group.resolved.get(pattern);
        if old.map(|old| &old.topics) != Some(&new.topics) {
            bump |= old.is_some() || !new.topics.is_empty();
            for name in old.iter().flat_map(|old| &old.topics) {
                *changes.entry(name).or_default() -= 1;
            }
            for name in &new.topics {
                *changes.entry(name).or_default() += 1;
            }
        }
        out.push(records::regex(&group.id, pattern, new));
    }
    let hash = metadata_hash(image, topics_with(group, &changes).into_iter());
    if bump || hash != group.metadata_hash {
        let epoch = group.epoch.saturating_add(1);
        out.push(records::epoch(&group.id, epoch, hash));
    }
    out
}
