//! Why a log cannot be opened, closed or removed.
//!
//! A value only; it says whether the same may succeed later, and decides nothing.

use std::io;
use std::path::{Path, PathBuf};

use chronik_protocol::Uuid;

/// Why a partition's log cannot be opened, closed or removed.
#[derive(Debug)]
pub enum LogError {
    /// The disk refused.
    Io {
        /// What was being done, with the path.
        what: String,
        /// The disk's answer.
        source: io::Error,
    },
    /// The directory belongs to another topic of the same name.
    TopicIdMismatch {
        /// The partition's directory.
        dir: PathBuf,
        /// From the catalogue.
        expected: Uuid,
        /// From `partition.metadata`.
        found: Uuid,
    },
    /// The directory it lies in cannot be used, or is not among `log.dirs`.
    Homeless(Vec<Uuid>),
    /// Something is short now ([`chronik_io::is_not_now`]): it may be tried again.
    NotNow {
        /// The partition's directory.
        dir: PathBuf,
        /// What it is short of.
        why: String,
    },
    /// The log has failed before; only a restart can tell what the disk holds.
    Failed {
        /// The partition's directory.
        dir: PathBuf,
        /// The first failure.
        why: String,
    },
}

impl LogError {
    /// The disk refused `what` (a verb) of `path`.
    pub fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        let what = format!("{what} {}", path.display());
        move |source| LogError::Io { what, source }
    }
}

impl LogError {
    /// Whether the same may succeed later, without anything being mended.
    pub fn is_not_now(&self) -> bool {
        match self {
            Self::Io { source, .. } => chronik_io::is_not_now(source),
            Self::NotNow { .. } => true,
            Self::TopicIdMismatch { .. } | Self::Homeless(_) | Self::Failed { .. } => false,
        }
    }
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::TopicIdMismatch {
                dir,
                expected,
                found,
            } => write!(
                f,
                "{} belongs to topic id {found}, not {expected}: move it away",
                dir.display()
            ),
            Self::Homeless(ids) => {
                let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
                write!(
                    f,
                    "the log directory with the id {} is not in use: see log.dirs",
                    ids.join(" or ")
                )
            }
            Self::NotNow { dir, why } => write!(f, "{} is short: {why}", dir.display()),
            Self::Failed { dir, why } => write!(f, "{} has failed: {why}", dir.display()),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
