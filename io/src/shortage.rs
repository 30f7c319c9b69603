//! Shortages: resources the machine lacks now and may have again later.
//!
//! Owns the one classification of such errors. Decides nothing: the caller refuses or waits, reports it once, and
//! tries again; nothing goes offline for it.

use rustix::io::Errno;
use std::io;

/// True when an operation failed for want of space, of a descriptor or of memory: the file is sound, and the
/// operation may succeed later. Not for a write or sync of a log's own bytes: after a failed one the content of
/// the disk is unknown, whatever the error.
#[must_use]
pub fn is_not_now(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
    const SHORT: [Errno; 6] = [
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::AGAIN,
    ];
    let errno = Errno::from_io_error(error);
    matches!(error.kind(), OutOfMemory | QuotaExceeded | StorageFull)
        || errno.is_some_and(|errno| SHORT.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortages_pass_and_failures_do_not() {
        for errno in [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
        ] {
            assert!(is_not_now(&errno.into()), "{errno}");
        }
        assert!(is_not_now(&io::ErrorKind::StorageFull.into()));
        for errno in [Errno::IO, Errno::ROFS, Errno::NOENT, Errno::ACCESS] {
            assert!(!is_not_now(&errno.into()), "{errno}");
        }
        assert!(!is_not_now(&io::Error::other("a short write")));
    }
}
