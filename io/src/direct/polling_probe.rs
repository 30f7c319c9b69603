//! The probe of a device's polling: glommio sees a written file first, and then judges the device rightly.
//!
//! Owns the state of each probe and its waiters. Runs on its shard; the probed file is made on a helper thread.

use super::{DirectWorld, names, plain};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::task::{Poll, Waker};

/// The state of one device's probe.
pub(super) enum PollingProbe {
    /// In progress; with the tasks that wait for it.
    Running(Vec<Waker>),
    Done,
}

/// Ends the probe when dropped, even unfinished, and wakes its waiters.
struct PollingProbeEnd<'a> {
    world: &'a DirectWorld,
    device: u64,
}

impl Drop for PollingProbeEnd<'_> {
    fn drop(&mut self) {
        let before = self
            .world
            .inner
            .devices
            .borrow_mut()
            .insert(self.device, PollingProbe::Done);
        if let Some(PollingProbe::Running(waiting)) = before {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl DirectWorld {
    /// Shows glommio a written file of the device before the first real one. It decides by the first file a thread
    /// opens whether the device can be polled, and takes an empty or sparse one for yes: every write then spins for
    /// milliseconds.
    pub(super) async fn probe_polling(&self, device: u64, dir: &Path) {
        let first = poll_fn(|context| {
            let mut devices = self.inner.devices.borrow_mut();
            match devices.get_mut(&device) {
                None => {
                    devices.insert(device, PollingProbe::Running(Vec::new()));
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
            return;
        }
        let ending = PollingProbeEnd {
            world: self,
            device,
        };
        if let Err(error) = self.show_written_file(dir).await {
            // A read-only directory needs no probe; the cost is CPU only.
            tracing::warn!(dir = %dir.display(), %error, "the device's polling was not judged");
        }
        drop(ending);
    }

    async fn show_written_file(&self, dir: &Path) -> io::Result<()> {
        let owned = dir.to_owned();
        let probe = move || names::written_probe(&owned);
        let probe = self.on_names(dir, probe).await?;
        let path = names::descriptor_path(probe.as_raw_fd());
        let opened = glommio::io::OpenOptions::new()
            .read(true)
            .dma_open(path)
            .await;
        opened.map_err(plain)?.close().await.map_err(plain)
    }
}
