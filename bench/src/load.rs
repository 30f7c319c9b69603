//! The description of a run of load, and its results.
//!
//! Plain values; `generator.rs` runs it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::consumer::Consumption;
use crate::process::Usage;

/// The greatest latency recorded, µs; a longer one counts as this.
const LATENCY_US_MAX: u64 = 60_000_000;

/// The rule for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// A fixed rate over all connections, whatever the replies do.
    Fixed {
        /// Requests a second, at least 1.
        requests_per_second: u32,
    },
    /// Each connection keeps this many requests unanswered.
    Closed {
        /// Requests in flight per connection, at least 1.
        in_flight: usize,
    },
}

/// One run of load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The broker's address.
    pub(crate) address: SocketAddr,
    /// Connections that produce, opened before the first request; 0 when nothing is produced.
    pub(crate) connections: usize,
    /// The rule for the next request.
    pub(crate) pace: Pace,
    /// The consumers of the run, if any.
    pub(crate) consumption: Option<Consumption>,
    /// Length of the unmeasured load in front.
    pub(crate) warm_up: Duration,
    /// Length of the measured window.
    pub(crate) measured: Duration,
    /// Bytes, of record values produced or of batches consumed, after which the window ends early,
    /// so that a fast broker does not fill the disk.
    pub(crate) bytes_max: u64,
}

/// The results of one run.
#[derive(Clone, Debug)]
pub(crate) struct LoadResult {
    /// From when a request was due to its reply, µs; requests due inside the window.
    pub(crate) latency_us: Histogram<u64>,
    /// From when a request was due until a consumer had its batch, µs; requests due inside the
    /// window. Empty unless something is produced and consumed.
    pub(crate) end_to_end_us: Histogram<u64>,
    /// From sending a fetch to its complete reply, µs, the broker's waiting for data included;
    /// fetches sent inside the window.
    pub(crate) fetch_us: Histogram<u64>,
    /// Length of the window.
    pub(crate) elapsed: Duration,
    /// Requests answered inside the window.
    pub(crate) requests: u64,
    /// Records in them.
    pub(crate) records: u64,
    /// Record value bytes in them.
    pub(crate) bytes: u64,
    /// Fetch replies inside the window.
    pub(crate) fetches: u64,
    /// Records in them.
    pub(crate) fetched_records: u64,
    /// Bytes of their batches.
    pub(crate) fetched_bytes: u64,
    /// Replies with an error, in the whole run.
    pub(crate) failures: u64,
    /// The first Kafka error code that came back.
    pub(crate) first_error: Option<i16>,
    /// Costs during the window.
    pub(crate) usage: Usage,
    /// The broker's resident memory before the load, bytes; 0 when unknown.
    pub(crate) resident_before_bytes: u64,
    /// The most resident memory seen in the window, bytes.
    pub(crate) resident_bytes_max: u64,
    /// Requests of the window that were never answered.
    pub(crate) unanswered: u64,
    /// Batches that were acknowledged and never consumed, or the other way round.
    pub(crate) unpaired: u64,
    /// Requests answered inside the window on each connection, ascending.
    pub(crate) served: Vec<u64>,
}

impl LoadResult {
    /// Results of nothing.
    ///
    /// # Errors
    /// Only when the histogram refuses its bounds.
    pub(crate) fn empty() -> io::Result<Self> {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .map_err(|error| io::Error::other(error.to_string()))
        };
        Ok(Self {
            latency_us: histogram()?,
            end_to_end_us: histogram()?,
            fetch_us: histogram()?,
            elapsed: Duration::ZERO,
            requests: 0,
            records: 0,
            bytes: 0,
            fetches: 0,
            fetched_records: 0,
            fetched_bytes: 0,
            failures: 0,
            first_error: None,
            usage: Usage::default(),
            resident_before_bytes: 0,
            resident_bytes_max: 0,
            unanswered: 0,
            unpaired: 0,
            served: Vec::new(),
        })
    }

    /// Processor time of unrelated processes, as a share of one core. Above a tenth it affects the figures.
    pub(crate) fn others_share(&self) -> f64 {
        self.usage.others().as_secs_f64() / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// True when every request was answered without an error and every acknowledged batch was consumed.
    pub(crate) fn is_sound(&self) -> bool {
        self.failures == 0 && self.unanswered == 0 && self.unpaired == 0
    }
}
