//! `chronik-coordinators`: the state machines that are replayed from internal topics. Today those of groups.
//!
//! Pure: no file, no clock, no channel, nothing that awaits, and no word of the logs its records are kept in;
//! it gives effects and takes their results. Run by the shard that owns the coordinators (the designated one).
//! Never changes the catalogue: it reads images.

pub mod groups;
pub mod limits;
#[cfg(test)]
mod seeded;
pub mod unfold;
