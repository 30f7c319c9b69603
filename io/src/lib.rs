//! `chronik-io`: cores, files, sockets, channels, time, meters. The only user of glommio and of `unsafe`.
//!
//! The broker's storage and time go through [`World`], its network through [`net::Stream`], its calls between
//! cores through [`mesh`]. World and stream have a real form (glommio, io_uring) and a seeded one in memory that
//! tears writes, fills disks and cuts power; the mesh runs on both. Knows not one Kafka word.

pub mod append;
#[cfg(test)]
mod behaviour_tests;
mod cpus;
pub mod descriptors;
pub mod direct;
pub mod executor;
mod fatal;
mod log_bridge;
pub mod log_queue;
pub mod mapping;
mod memory;
pub mod mesh;
pub mod meters;
pub mod net;
mod open_names;
pub mod preflight;
pub mod process;
mod ring_setup;
pub mod shortage;
pub mod signals;
pub mod simulated;
pub mod storage;
mod watchdog;
pub mod world;

pub use append::{
    AppendError, AppendFile, AppendOptions, Completed, JobResult, SyncJob, SyncMethod, SyncMode,
    WriteJob, ZeroJob,
};
pub use direct::{DirectFile, DirectMapping, DirectWorld};
pub use executor::{ExecutorOptions, Running, ShardSeat};
pub use mapping::Mapping;
pub use mesh::{Call, Endpoint, Lost, Mesh, MeshOptions, Remote, RemoteCall, Responder};
pub use net::{DirectStream, Listener, Standing, Stream};
pub use shortage::is_not_now;
pub use storage::{BLOCK_BYTES, BlockBuffer, File};
pub use world::{DirEntry, OpenMode, OpenOptions, World};
