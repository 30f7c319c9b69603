//! The exclusive lock of a data directory.
//!
//! Owns both kinds of lock that brokers take on the same file: `flock(2)`, which excludes another broker in this
//! process, and the record lock of `fcntl(2)`, which is Java's `FileLock`. The two kinds do not see each other.
//! Runs on the starting thread.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// The exclusive lock of a data directory; held until dropped or the process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    path: PathBuf,
    /// True when the lock created the file, and so removes it.
    is_new: bool,
}

impl DirectoryLock {
    /// Locks `path`, a file that is created if missing and contains the holder's process id.
    ///
    /// # Errors
    /// `WouldBlock` with one sentence if another process holds it; otherwise those of the file.
    pub fn acquire(path: &Path) -> io::Result<DirectoryLock> {
        loop {
            let is_new = !path.exists();
            let mut file = options().create(true).open(path)?;
            if let Some(holder) = try_lock(&file)? {
                return Err(held(path, &holder));
            }
            // The former holder may have removed the file between the two calls.
            if !is_at(&file, path) {
                continue;
            }
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())?;
            let path = path.to_owned();
            return Ok(DirectoryLock { file, path, is_new });
        }
    }

    /// Fails when a process holds the lock. Never keeps the lock or creates the file.
    ///
    /// # Errors
    /// As [`DirectoryLock::acquire`].
    pub fn check_free(path: &Path) -> io::Result<()> {
        let file = match options().open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match try_lock(&file)? {
            Some(holder) => Err(held(path, &holder)),
            None => Ok(()),
        }
    }

    /// Releases the lock, and removes the file if the lock created it.
    ///
    /// # Errors
    /// Those of the file's removal.
    pub fn withdraw(self) -> io::Result<()> {
        match self.is_new && is_at(&self.file, &self.path) {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).truncate(false);
    options
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

/// Takes both locks; else returns the holder.
fn try_lock(file: &File) -> io::Result<Option<String>> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::AGAIN) => return Ok(Some(named_in(file))),
        Err(error) => return Err(error.into()),
    }
    let mut lock = whole_file();
    match record_lock(file, libc::F_OFD_SETLK, &mut lock) {
        Ok(()) => Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            record_lock(file, libc::F_OFD_GETLK, &mut lock)?;
            Ok(Some(match lock.l_pid {
                pid if pid > 0 => pid.to_string(),
                _ => named_in(file),
            }))
        }
        Err(error) => Err(error),
    }
}

fn whole_file() -> libc::flock {
    // SAFETY: a plain record of numbers, for which zeros are a value: the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// The lock belongs to the open file, not to the process, where any close would end it.
fn record_lock(file: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call, and the kernel reads and writes one `flock`, which
    // is borrowed exclusively.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The process id in the file, for the message only.
fn named_in(mut file: &File) -> String {
    let mut holder = String::new();
    let _unread = file
        .rewind()
        .and_then(|()| file.take(32).read_to_string(&mut holder));
    match holder.trim() {
        "" => "unknown".to_owned(),
        holder => holder.to_owned(),
    }
}

fn held(path: &Path, holder: &str) -> io::Error {
    let message = format!(
        "{} is held by process {holder}: stop that process, or choose another data directory",
        path.display(),
    );
    io::Error::new(io::ErrorKind::WouldBlock, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        DirectoryLock::check_free(&path).unwrap();
        assert!(!path.exists());
        let lock = DirectoryLock::acquire(&path).unwrap();
        for refused in [
            DirectoryLock::acquire(&path).unwrap_err(),
            DirectoryLock::check_free(&path).unwrap_err(),
        ] {
            assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
            let holder = format!("process {}:", std::process::id());
            assert!(refused.to_string().contains(&holder), "{refused}");
        }
        drop(lock);
        assert!(path.exists());
        DirectoryLock::acquire(&path).unwrap().withdraw().unwrap();
        assert!(path.exists(), "it was there before");
        fs::remove_file(&path).unwrap();
        DirectoryLock::acquire(&path).unwrap().withdraw().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_as_java_takes_it_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, b"").unwrap();
        // Another open file, locked in the other kind only.
        let java = options().open(&path).unwrap();
        record_lock(&java, libc::F_OFD_SETLK, &mut whole_file()).unwrap();
        let refused = DirectoryLock::acquire(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(java);
        let held = DirectoryLock::acquire(&path).unwrap();
        let java = options().open(&path).unwrap();
        let refused = record_lock(&java, libc::F_OFD_SETLK, &mut whole_file()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        drop(held);
    }
}
