//! Names of states and types by which ListGroups chooses groups.
//!
//! Pure; made beside the shard of whoever asks.

use chronik_protocol::Str;

/// What a group's state or type can be called; nothing else chooses any.
const NAMES: [&str; 8] = [
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Stable",
    "Assigning",
    "Reconciling",
    "classic",
    "consumer",
];

/// Names to choose groups by. A request may bring as many as it has room for: only those that a group
/// can have are kept, so that the coordinator never looks at more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameFilter {
    /// Names were given, known or not.
    is_set: bool,
    taken: Vec<&'static str>,
}

impl NameFilter {
    /// A filter of these names, whatever their case; none chooses all. Costs what is given.
    pub fn of(names: &[Str]) -> NameFilter {
        let is_given = |known: &&str| {
            let mut names = names.iter();
            names.any(|name| name.trim().eq_ignore_ascii_case(known))
        };
        NameFilter {
            is_set: !names.is_empty(),
            taken: NAMES.into_iter().filter(is_given).collect(),
        }
    }

    /// Chooses by one name.
    pub(crate) fn takes(&self, name: &str) -> bool {
        !self.is_set || self.taken.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::classic::ClassicState;
    use crate::groups::consumer::GroupState;

    #[test]
    fn a_filter_keeps_what_a_group_can_be_called() {
        let states = [
            ClassicState::Empty.name(),
            ClassicState::PreparingRebalance.name(),
            ClassicState::CompletingRebalance.name(),
            ClassicState::Stable.name(),
            GroupState::Empty.name(),
            GroupState::Assigning.name(),
            GroupState::Reconciling.name(),
            GroupState::Stable.name(),
        ];
        for name in states.into_iter().chain(["classic", "consumer"]) {
            let shouted = Str::from(format!(" {} ", name.to_uppercase()));
            assert!(NameFilter::of(&[shouted]).takes(name), "{name}");
            assert!(NameFilter::of(&[]).takes(name), "{name}");
        }
        let many: Vec<Str> = (0..10_000).map(|n: u32| Str::from(n.to_string())).collect();
        let filter = NameFilter::of(&many);
        assert!(
            !filter.takes("Stable"),
            "names that nobody has choose nobody"
        );
        assert_eq!(filter.taken.capacity(), 0, "and nothing of them is kept");
    }
}
