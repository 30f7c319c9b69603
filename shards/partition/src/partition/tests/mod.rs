//! The partition against a simulated disk that loses, fills up and fails, and against a real one.

mod checkpoints;
mod compaction;
mod emptied;
mod faults;
mod files;
mod golden;
mod history;
mod images;
mod judged;
mod queries;
mod real_disk;
mod retention;
mod rig;
mod transactions;
