//! Shortages: resources the machine lacks now and may have again later.
//!
//! Owns the one classification of such errors. Decides nothing: the caller refuses or waits, reports it once, and
//! tries again; nothing goes offline for it.

use rustix::io::Errno;
use std::cell::Cell;
use std::io;

/// So long nothing must have been refused before a shortage is over, ns: at the edge of one, refusals and
/// successes alternate within milliseconds.
const QUIET_NS: u64 = 1_000_000_000;

/// When to speak of a shortage: once when it begins, and once when it is over.
#[derive(Debug, Default)]
pub(crate) struct ShortageReport(Cell<Option<Refusals>>);

#[derive(Clone, Copy, Debug)]
struct Refusals {
    count: u64,
    last_ns: u64,
}

impl ShortageReport {
    /// Notes a refusal; true when a shortage begins with it.
    pub(crate) fn refused(&self, now_ns: u64) -> bool {
        let before = self.0.get().map_or(0, |refusals| refusals.count);
        self.0.set(Some(Refusals {
            count: before + 1,
            last_ns: now_ns,
        }));
        before == 0
    }

    /// Notes a success; how many refusals there were, when the shortage is over with it.
    pub(crate) fn given(&self, now_ns: impl FnOnce() -> u64) -> Option<u64> {
        let Refusals { count, last_ns } = self.0.get()?;
        let is_over = now_ns().saturating_sub(last_ns) >= QUIET_NS;
        is_over.then(|| {
            self.0.set(None);
            count
        })
    }
}

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
    fn a_shortage_is_spoken_of_twice() {
        let report = ShortageReport::default();
        assert_eq!(report.given(|| 0), None);
        for at in 0..1_000 {
            assert_eq!(report.refused(at), at == 0);
            assert_eq!(report.given(|| at), None);
        }
        assert_eq!(report.given(|| 998 + QUIET_NS), None);
        assert_eq!(report.given(|| 999 + QUIET_NS), Some(1_000));
        assert_eq!(report.given(|| 2 * QUIET_NS), None);
        assert!(report.refused(2 * QUIET_NS));
    }

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
