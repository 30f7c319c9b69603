//! How many shards are started, and whether each keeps to a core of its own.
//!
//! Runs on the main thread at start. Decides only what the settings leave open.

use crate::config::Config;

/// The shards of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// Executors.
    pub(crate) shards: usize,
    /// Each on a core of its own; else the kernel moves them where there is room.
    pub(crate) pinned: bool,
}

impl Cores {
    /// What `config` says, and else: a broker that listens on loopback only shares the machine with
    /// all its clients and leaves them half of the `allowed` cores, and the kernel the choice of
    /// which; one that others reach takes every core and keeps to it. Measured on two cores with the
    /// clients beside it: one shard serves more than two of them there, with half the latency.
    pub(crate) fn choose(config: &Config, allowed: usize) -> Self {
        let shared = config
            .listeners
            .iter()
            .all(|listener| listener.bind.ip().is_loopback());
        let by_default = if shared { allowed.div_ceil(2) } else { allowed };
        let shards = config
            .shards
            .map_or(by_default, std::num::NonZeroUsize::get);
        let pinned = config.pinned.unwrap_or(!shared) && shards <= allowed;
        Self { shards, pinned }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layer;

    fn chosen(settings: &[(&str, &str)], allowed: usize) -> (usize, bool) {
        let mut layer = Layer::named("test");
        for (key, value) in settings {
            layer.set(*key, *value);
        }
        let config = Config::from_layers(&[layer]).expect("settings");
        let Cores { shards, pinned } = Cores::choose(&config, allowed);
        (shards, pinned)
    }

    #[test]
    fn clients_on_the_same_machine_get_half_of_it() {
        assert_eq!(chosen(&[], 1), (1, false));
        assert_eq!(chosen(&[], 2), (1, false));
        assert_eq!(
            chosen(&[("listeners", "PLAINTEXT://[::1]:9092")], 7),
            (4, false)
        );
    }

    #[test]
    fn a_machine_of_its_own_is_used_whole() {
        let everywhere = [
            ("listeners", "PLAINTEXT://0.0.0.0:9092"),
            ("advertised.listeners", "PLAINTEXT://b:9092"),
        ];
        assert_eq!(chosen(&everywhere, 8), (8, true));
    }

    #[test]
    fn settings_win_but_two_shards_are_not_pinned_to_one_core() {
        let pinned = |shards| {
            [
                ("chronik.shards", shards),
                ("chronik.shards.pinned", "true"),
            ]
        };
        assert_eq!(chosen(&pinned("2"), 2), (2, true));
        assert_eq!(chosen(&pinned("3"), 2), (3, false));
    }
}
