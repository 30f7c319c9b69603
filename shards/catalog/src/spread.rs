//! In which log directory a new partition is put.
//!
//! Pure: counts what the image says. Runs on the designated shard, while topics are made.

use std::collections::BTreeMap;

use chronik_protocol::Uuid;

use super::image::Image;

/// Chooses directories for new partitions: the one with the fewest (`LogManager#nextLogDirs`).
pub(crate) struct Spread {
    counts: BTreeMap<Uuid, usize>,
}

impl Spread {
    /// Among these directories, as full as the image says.
    pub(crate) fn over(directories: &[Uuid], image: &Image) -> Spread {
        let mut counts: BTreeMap<Uuid, usize> = directories
            .iter()
            .map(|directory| (*directory, 0))
            .collect();
        if counts.len() > 1 {
            let partitions = image.topics().flat_map(|topic| &topic.partitions);
            for directory in partitions.flat_map(|info| &info.directories) {
                if let Some(count) = counts.get_mut(directory) {
                    *count += 1;
                }
            }
        }
        Spread { counts }
    }

    /// The next one's; the zero id where there is none.
    pub(crate) fn next(&mut self) -> Uuid {
        let least = self.counts.iter_mut().min_by_key(|(_, count)| **count);
        least.map_or(Uuid::ZERO, |(directory, count)| {
            *count += 1;
            *directory
        })
    }
}
