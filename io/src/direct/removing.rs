//! Removal of files, the long ones in steps.
//!
//! Owns the steps; the system calls run on a helper thread of their own. Removing a file of 1 GiB takes ext4 half
//! a second, and every sync of a directory meanwhile waits for its journal. So the name goes first, durably, and
//! the file is then cut piece by piece; each piece is a job of its own, so that removals take turns. A file still
//! held elsewhere is not cut: it goes when its holder closes it.

use super::{DirectWorld, names};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes cut at a time: 40 ms (ext4 with discard). A shorter file goes at once.
pub(super) const PIECE_BYTES: u64 = 64 << 20;

impl DirectWorld {
    async fn on_removals<T: Send + 'static>(
        &self,
        work: impl Fn() -> io::Result<T> + Send + Sync + 'static,
    ) -> io::Result<T> {
        self.on(&self.inner.removals, 0, work).await
    }

    /// Removes a file, see [`crate::World::remove_file`].
    pub(super) async fn remove_one(&self, path: &Path) -> io::Result<()> {
        let entered = self.inner.name_order.enter(&[path]).await;
        let left = self.remove_name(path).await?;
        drop(entered);
        self.free(left).await;
        Ok(())
    }

    /// Removes a directory, see [`crate::World::remove_dir_all`].
    pub(super) async fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let _entered = self.inner.name_order.enter(&[path]).await;
        let is_held = self.inner.files.names.is_held(path);
        self.inner.files.removed(path);
        if !is_held {
            for long in self.long_files(path).await? {
                let left = self.remove_name(&long).await?;
                self.free(left).await;
            }
        }
        let path = path.to_owned();
        self.on_removals(move || names::remove_dir_all(&path)).await
    }

    async fn long_files(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let path = path.to_owned();
        self.on_removals(move || names::files_longer_than(&path, PIECE_BYTES))
            .await
    }

    /// Removes the name; returns the open file to free, and its length.
    async fn remove_name(&self, path: &Path) -> io::Result<Option<(File, u64)>> {
        let is_held = self.inner.files.names.is_held(path);
        self.inner.files.removed(path);
        let (path, keeps_from) = (
            path.to_owned(),
            if is_held { u64::MAX } else { PIECE_BYTES },
        );
        self.on_removals(move || names::remove_file(&path, keeps_from))
            .await
    }

    /// Cuts a file without a name, piece by piece.
    async fn free(&self, file: Option<(File, u64)>) {
        let Some((file, mut len)) = file else { return };
        let file = Arc::new(file);
        while len > 0 {
            len = len.saturating_sub(PIECE_BYTES);
            let file = Arc::clone(&file);
            let cut = self.on_removals(move || {
                file.set_len(len)?;
                file.sync_data()
            });
            if let Err(error) = cut.await {
                // The kernel then frees the rest on close.
                tracing::debug!(%error, "a removed file was not cut away in steps");
                return;
            }
        }
    }
}
