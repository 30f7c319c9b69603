//! What the world is short of now and may have again later.
//!
//! Owns the one classification of such errors. Decides nothing: whoever meets one refuses or waits,
//! says so once, and tries again; nothing is offline for it.

use rustix::io::Errno;
use std::io;

/// Whether an operation failed for want of space, of a descriptor or of memory: nothing is wrong with
/// the file, and the same may succeed later. A write or sync of a log's own bytes is no such case:
/// what the disk holds after one that failed is not known, whatever the error.
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
