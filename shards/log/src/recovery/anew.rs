//! Logs that begin: without any segment, or behind everything they hold.
//!
//! Runs on the partition's shard. Never decides that a log is to begin anew; it is told.

use chronik_io::{OpenMode, OpenOptions, World};
use tracing::warn;

use super::{Recovered, Recovery, RecoveryHint, Walked};
use crate::LogError;
use crate::directory::{FileKind, segment_path};
use crate::epochs::LeaderEpochs;
use crate::index::IndexBuilder;
use crate::producer_state::ProducerStates;
use crate::scan::ScanEnd;

impl<W: World> Recovery<'_, W> {
    /// A log without any segment: new, or its files are gone.
    pub(super) async fn begin(&mut self, hint: RecoveryHint) -> Result<Recovered<W>, LogError> {
        self.producers_from = 0;
        self.epochs_from = 0;
        let base_offset = hint.log_start_offset.max(0);
        let path = segment_path(self.dir, base_offset, FileKind::Log);
        let create = OpenOptions {
            mode: OpenMode::ReadWriteCreate,
            ..self.append_mode()
        };
        let file = self.world.open_file(&path, create).await;
        let file = file.map_err(LogError::io("creating", &path))?;
        let index = IndexBuilder::new(base_offset);
        let tail = Walked {
            file,
            index,
            end: ScanEnd::Exact,
            valid_bytes: 0,
            next_offset: base_offset,
            first_timestamp: None,
            last_batch: None,
        };
        let begun = self.finish(hint, base_offset, Vec::new(), tail).await?;
        // A clean stop leaves the files that Kafka expects beside a log, though nothing was appended.
        Ok(Recovered {
            dirty: true,
            ..begun
        })
    }

    /// What of the checkpoints a log from `first` to `end` bears out. A log that ends before the offset
    /// that may be read first keeps its records, where `LogLoader#load` removes them all: they were
    /// acknowledged, and the number may be another log's.
    pub(super) fn believed(&self, hint: RecoveryHint, first: i64, end: i64) -> RecoveryHint {
        let (log_start, recovery_point) = (hint.log_start_offset, hint.recovery_point);
        if end < log_start {
            warn!(
                dir = %self.dir.display(), log_start, log_end = end, kept_from = first,
                "the checkpoint of log starts names an offset behind the log's end; it is passed over, and every record kept"
            );
            return RecoveryHint {
                log_start_offset: first,
                ..hint
            };
        }
        if end < recovery_point {
            warn!(
                dir = %self.dir.display(), recovery_point, log_end = end,
                "the log ends before its recovery point: what was between is gone, or the checkpoint is another log's"
            );
        }
        hint
    }

    /// A log without a record ends before the offset that may be read first: all of it was deleted by
    /// DeleteRecords, and what said so outlived it (`LogLoader#load`).
    pub(super) async fn restart_at(
        &mut self,
        hint: RecoveryHint,
    ) -> Result<Recovered<W>, LogError> {
        let log_start = hint.log_start_offset;
        warn!(
            dir = %self.dir.display(), log_start,
            "the log holds no record and ends before its start offset; it begins there"
        );
        for segment in self.inventory.segments.clone() {
            self.inventory
                .remove_segment(self.world, self.dir, segment.base_offset)
                .await?;
            self.report.dropped_segments += 1;
        }
        self.producers = ProducerStates::default();
        self.epochs = LeaderEpochs::default();
        self.remembered = None;
        self.report.remembered = false;
        let hint = RecoveryHint {
            clean: false,
            recovery_point: 0,
            log_start_offset: log_start,
            durable: hint.durable,
        };
        self.begin(hint).await
    }
}
