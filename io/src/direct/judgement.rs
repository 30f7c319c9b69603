//! Whether a device can be polled, as glommio judges it: shown a written file first, it judges rightly.
//!
//! Owns who judges which device and who waits for that. Stays on its shard; the file is made on a helper
//! thread.

use super::{DirectWorld, names, plain};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::task::{Poll, Waker};

/// Whether glommio has judged a device.
pub(super) enum Judgement {
    /// Under way; these wait for it.
    Running(Vec<Waker>),
    Done,
}

/// Lets those who wait go on, also when the one who judges is dropped.
struct JudgementEnd<'a> {
    world: &'a DirectWorld,
    device: u64,
}

impl Drop for JudgementEnd<'_> {
    fn drop(&mut self) {
        let before = self
            .world
            .inner
            .devices
            .borrow_mut()
            .insert(self.device, Judgement::Done);
        if let Some(Judgement::Running(waiting)) = before {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl DirectWorld {
    /// Shows glommio a written file of the device before the first real one. It decides by the
    /// first file a thread opens whether the device can be polled, and takes an empty or sparse one
    /// for yes: every write then spins for milliseconds.
    pub(super) async fn judge_device(&self, device: u64, dir: &Path) {
        let first = poll_fn(|context| {
            let mut devices = self.inner.devices.borrow_mut();
            match devices.get_mut(&device) {
                None => {
                    devices.insert(device, Judgement::Running(Vec::new()));
                    Poll::Ready(true)
                }
                Some(Judgement::Done) => Poll::Ready(false),
                Some(Judgement::Running(waiting)) => {
                    waiting.push(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        if !first.await {
            return;
        }
        let ending = JudgementEnd {
            world: self,
            device,
        };
        if let Err(error) = self.show_written_file(dir).await {
            // Reading a directory that cannot be written is fine; it may only cost more CPU.
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
