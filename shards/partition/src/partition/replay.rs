//! Putting batches back that an earlier process had acknowledged and not written yet.
//!
//! Runs on the partition's shard while it is opened, before anything is served from it. A batch is
//! put back as it was, offsets and epoch included, if it begins exactly where the log ends; what the
//! log has already is passed over, and a gap ends it, for what lies behind one was never promised.
//! Durable when it returns, so that doing it twice, or half, changes nothing.

use bytes::Bytes;
use chronik_io::World;
use chronik_log::LogError;
use chronik_log::segment::BatchFacts;
use chronik_protocol::record::{BATCH_PREFIX_BYTES, BatchHeader, Scan, scan};
use tracing::{info, warn};

use super::behind::Behind;
use super::{Now, Partition, Shared};
use crate::cache::{BatchCache, CacheLimits};
use crate::write_behind::WriteBehind;

/// Where the first of these batches begins.
pub(super) fn first_offset(batches: &[Bytes]) -> Option<i64> {
    match scan(batches.first()?) {
        Scan::Complete(header) => Some(header.base_offset),
        _ => None,
    }
}

impl<W: World> Partition<W> {
    /// Puts back what is missing at the log's end; see the module's text. Gives the number of batches.
    ///
    /// # Errors
    /// [`LogError::Failed`] when the disk refuses, also for want of space.
    pub(super) async fn replay(&mut self, batches: &[Bytes]) -> Result<u64, LogError> {
        let now = Now {
            wall_ms: self.world.now_ms(),
            mono_ns: self.world.monotonic_ns(),
        };
        let (mut put_back, mut known, mut bytes) = (0, 0, 0);
        for batch in batches {
            let Scan::Complete(header) = scan(batch) else {
                break;
            };
            if header.next_offset() <= self.log_end() {
                known += 1;
                continue;
            }
            if header.base_offset != self.log_end() {
                break;
            }
            self.put_back(&header, batch, now).await?;
            put_back += 1;
            bytes += batch.len();
        }
        let passed_over = batches.len() - known - put_back;
        if passed_over > 0 {
            warn!(
                partition = self.name(),
                passed_over,
                log_end = self.log_end(),
                "batches written behind do not continue the log; they were not promised"
            );
        }
        if put_back == 0 {
            return Ok(0);
        }
        self.flush.begin(self.log_end());
        self.perform_all(now).await?;
        let log_end = self.log_end();
        if self.durable_offset() != log_end {
            return Err(self.not_put_back("it could not be made durable"));
        }
        self.high_watermark = log_end;
        self.behind = Behind::new(log_end);
        info!(
            partition = self.name(),
            batches = put_back,
            bytes,
            log_end,
            "put back what was written behind"
        );
        Ok(put_back as u64)
    }

    async fn put_back(
        &mut self,
        header: &BatchHeader,
        batch: &Bytes,
        now: Now,
    ) -> Result<(), LogError> {
        let facts = BatchFacts {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
            size_bytes: u32::try_from(batch.len()).unwrap_or(u32::MAX),
            crc: header.crc,
        };
        if self.active.should_roll(&facts, &self.config, now.wall_ms) {
            self.rolling.begin(facts.base_offset);
            self.perform_all(now).await?;
            if self.active.base_offset() != facts.base_offset {
                return Err(self.short("no new segment could be created"));
            }
        }
        let size = u64::from(facts.size_bytes);
        if self.active.room() < size {
            self.active.reserve(size);
            self.perform_all(now).await?;
        }
        if self.active.room() < size {
            return Err(self.short("the disk is full"));
        }
        let Some((prefix, body)) = batch.split_first_chunk::<BATCH_PREFIX_BYTES>() else {
            return Err(self.not_put_back("a batch is too short"));
        };
        self.put(header, &facts, (prefix, body), now)
            .map_err(|failed| self.not_put_back(&failed.to_string()))
    }

    /// Performs whatever is due until nothing is.
    async fn perform_all(&mut self, now: Now) -> Result<(), LogError> {
        let mut cache = BatchCache::new(CacheLimits {
            tail_bytes: 0,
            cold_bytes: 0,
            index_bytes: 0,
        });
        let (mut write_behind, mut events) = (WriteBehind::off(), Vec::new());
        let mut jobs = Vec::new();
        loop {
            self.take_jobs(&mut jobs);
            if jobs.is_empty() {
                break;
            }
            for job in jobs.drain(..) {
                let done = job.perform().await;
                let mut shared = Shared {
                    cache: &mut cache,
                    write_behind: &mut write_behind,
                    events: &mut events,
                };
                self.complete(&mut shared, done, now);
            }
            // Nobody is served yet, so nobody waits for them.
            events.clear();
        }
        match &self.failure {
            Some(why) => Err(self.not_put_back(why)),
            None => Ok(()),
        }
    }

    fn short(&self, why: &str) -> LogError {
        LogError::NotNow {
            dir: self.dir.clone(),
            why: format!("batches written behind are not put back yet: {why}"),
        }
    }

    fn not_put_back(&self, why: &str) -> LogError {
        LogError::Failed {
            dir: self.dir.clone(),
            why: format!("batches written behind were not put back: {why}"),
        }
    }

    /// The log begins here from now on, at the latest at its end.
    pub(super) fn raise_log_start(&mut self, offset: i64) {
        let offset = offset.min(self.log_end());
        if offset > self.log_start {
            self.log_start = offset;
            self.epochs_to_save |= self.epochs.truncate_from_start(offset);
        }
        self.remove_below_log_start();
    }
}
