//! What glommio learns of a device with the first file a thread opens there: its properties and whether it can be
//! polled.
//!
//! Owns the state of each device's probe and its waiters. It sees to it that glommio judges polling by a written
//! file, and that a shortage while it reads the properties is an error of the opening: glommio panics. Runs on its
//! shard; files are made and read on a helper thread.

use super::{DirectWorld, OPENING_TRIES, directory_number, names, plain};
use crate::log_queue::quietly;
use glommio::io::DmaFile;
use rustix::io::Errno;
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::pin;
use std::task::{Poll, Waker};

/// The devices that files of this shard lie on.
#[derive(Default)]
pub(super) struct Devices {
    probes: RefCell<BTreeMap<u64, PollingProbe>>,
    /// Devices whose properties glommio has read, and reads no more.
    known: RefCell<BTreeSet<u64>>,
}

/// The state of one device's probe.
enum PollingProbe {
    /// In progress; with the tasks that wait for it.
    Running(Vec<Waker>),
    Done,
}

/// Ends the probe when dropped and wakes its waiters; unless it is done, one of them begins anew.
struct PollingProbeEnd<'a> {
    devices: &'a Devices,
    device: u64,
    is_done: bool,
}

impl Drop for PollingProbeEnd<'_> {
    fn drop(&mut self) {
        let mut probes = self.devices.probes.borrow_mut();
        let before = match self.is_done {
            true => probes.insert(self.device, PollingProbe::Done),
            false => probes.remove(&self.device),
        };
        drop(probes);
        if let Some(PollingProbe::Running(waiting)) = before {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl DirectWorld {
    /// Lets this shard learn all it needs of the device of `dir`, so that no later opening there depends on more than
    /// a descriptor for its file.
    ///
    /// # Errors
    /// If the directory cannot be reached, or descriptors or memory are short; see
    /// [`is_not_now`](crate::is_not_now).
    pub async fn learn_device(&self, dir: &Path) -> io::Result<()> {
        let owned = dir.to_owned();
        let device = move || Ok(std::fs::metadata(&owned)?.dev());
        let device = self.on_names(dir, device).await?;
        let probe = async || self.probe_polling(device, dir).await;
        self.with_retries(OPENING_TRIES, probe).await
    }

    /// Shows glommio a written file of the device before the first real one. It decides by the first file a thread
    /// opens whether the device can be polled, and takes an empty or sparse one for yes: every write then spins for
    /// milliseconds.
    ///
    /// # Errors
    /// If descriptors or memory are short: the next opening probes again.
    pub(super) async fn probe_polling(&self, device: u64, dir: &Path) -> io::Result<()> {
        let devices = &self.inner.devices;
        let first = poll_fn(|context| {
            let mut probes = devices.probes.borrow_mut();
            match probes.get_mut(&device) {
                None => {
                    probes.insert(device, PollingProbe::Running(Vec::new()));
                    Poll::Ready(true)
                }
                Some(PollingProbe::Done) => Poll::Ready(false),
                Some(PollingProbe::Running(waiting)) => {
                    waiting.push(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        if !first.await {
            return Ok(());
        }
        let mut ending = PollingProbeEnd {
            devices,
            device,
            is_done: false,
        };
        match self.show_written_file(device, dir).await {
            Err(error) if is_short(&error) => return Err(error),
            // A read-only or full directory needs no probe; the cost is CPU only.
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "the device's polling was not judged");
            }
            Ok(()) => {}
        }
        ending.is_done = true;
        Ok(())
    }

    async fn show_written_file(&self, device: u64, dir: &Path) -> io::Result<()> {
        let owned = dir.to_owned();
        let probe = move || names::written_probe(&owned);
        // Not again at once: the opening is tried again as a whole.
        let helper = &self.inner.names;
        let probe = helper.run_for(directory_number(dir), probe).await?;
        let mut how = glommio::io::OpenOptions::new();
        how.read(true);
        let opened = self.open_descriptor(device, &how, probe.as_raw_fd());
        opened.await?.close().await.map_err(plain)
    }

    /// Opens the file of an open descriptor once more, for direct I/O. Through the descriptor, not a path: glommio
    /// looks the path up three times, and a rename in between would give it another file or a panic.
    ///
    /// # Errors
    /// Those of open(2), and a shortage while glommio reads the device's properties.
    pub(super) async fn open_descriptor(
        &self,
        device: u64,
        how: &glommio::io::OpenOptions,
        descriptor: RawFd,
    ) -> io::Result<DmaFile> {
        let known = &self.inner.devices.known;
        if !known.borrow().contains(&device) {
            let look = move || names::look_at_device(device);
            self.inner.names.run_for(0, look).await?;
        }
        let _permit = self.inner.opening_permits.take().await;
        let _io = self.begin_io();
        let mut opening = pin!(how.dma_open(names::descriptor_path(descriptor)));
        // Whoever takes the last descriptor after that look makes glommio panic all the same.
        let opened = poll_fn(|context| {
            let polled = quietly(|| opening.as_mut().poll(context));
            polled.unwrap_or_else(|panic| Poll::Ready(Err(why(panic.as_ref()).into())))
        });
        let file = opened.await.map_err(plain)?;
        known.borrow_mut().insert(device);
        Ok(file)
    }
}

/// True when a lack may end that has nothing to do with the directory. Its being full says nothing of the next
/// opening: files there are opened and read without a probe.
fn is_short(error: &io::Error) -> bool {
    const SHORT: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN];
    let errno = Errno::from_io_error(error);
    error.kind() == io::ErrorKind::OutOfMemory || errno.is_some_and(|errno| SHORT.contains(&errno))
}

/// The error that made glommio panic while it opened a file; it tells the number only in words.
fn why(panic: &(dyn Any + Send)) -> io::Error {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
    let said = said.unwrap_or("a file cannot be opened");
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
        let error = io::Error::from(errno);
        let number = errno.raw_os_error();
        let forms = [format!("os error {number})"), format!("code: {number},")];
        if forms.iter().any(|form| said.contains(form)) {
            return error;
        }
    }
    io::Error::other(said.to_owned())
}

#[cfg(test)]
mod tests {
    use super::why;
    use crate::descriptors::is_out_of_descriptors;
    use rustix::io::Errno;
    use std::io;
    use std::panic::catch_unwind;

    /// What glommio says, in both of its forms.
    #[test]
    fn the_panic_of_a_shortage_is_its_error() {
        let error = || io::Error::from(Errno::MFILE);
        let formatted = catch_unwind(|| panic!("reading /sys ({})", error())).unwrap_err();
        assert!(is_out_of_descriptors(&why(formatted.as_ref())));
        let unwrapped = catch_unwind(|| panic!("{:?}", error())).unwrap_err();
        assert!(is_out_of_descriptors(&why(unwrapped.as_ref())));
        let other = catch_unwind(|| panic!("Invalid value x")).unwrap_err();
        let other = why(other.as_ref());
        assert!(!crate::is_not_now(&other) && other.to_string() == "Invalid value x");
    }
}
