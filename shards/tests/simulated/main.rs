//! Whole shards on the simulated world: catalogue, logs and mesh together, with kills and power
//! cuts between any two steps. Owns the broker in a box; each module holds one family of tests.

mod catalogue;
mod clock;
mod cluster;
mod dirs;
mod dirs_short;
mod groups;
mod history;
mod incarnations;
mod incarnations_model;
mod moves;
mod moves_asked;
mod moves_cleaned;
mod moves_images;
mod moves_kept;
mod moves_lost;
mod moves_served;
mod new_topics;
mod reading;
mod serving;
mod shortages;
mod shortages_script;
mod slow_cleaner;
mod ways_back;
