//! Owns the load loop: one thread, non-blocking sockets on one epoll instance, requests sent when
//! they are due and replies measured from that moment.
//!
//! Never waits for a reply before sending what is due (open loop), never builds or decodes a
//! message while measuring: frames are made beforehand, replies are checked at fixed places.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::connection::{Completion, Connection};
use crate::frames::Frame;
use crate::process::Usage;

/// Latencies above this are recorded as this, µs.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Ready sockets taken per system call.
const EVENTS_PER_WAIT: usize = 128;
/// How long replies may still come in after the last request was sent.
const DRAIN: Duration = Duration::from_secs(10);
/// Most requests of a fixed rate that may be unanswered at once; beyond it the broker is simply
/// too slow for the rate and memory would be spent on a queue that only grows.
const UNANSWERED_MAX: usize = 200_000;

/// When the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many requests a second over all connections, whatever the replies do.
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
    /// Where the broker listens.
    pub(crate) address: SocketAddr,
    /// Connections opened before the first request, at least 1.
    pub(crate) connections: usize,
    /// When requests are sent.
    pub(crate) pace: Pace,
    /// Load that is not measured, first.
    pub(crate) warm_up: Duration,
    /// Length of the measured window.
    pub(crate) measured: Duration,
    /// Record bytes after which the window ends early, so that a fast broker does not fill the disk.
    pub(crate) bytes_max: u64,
}

/// What one run showed.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// From when a request was due to its reply, µs; requests due inside the window.
    pub(crate) latency_us: Histogram<u64>,
    /// Length of the window.
    pub(crate) elapsed: Duration,
    /// Requests answered inside the window.
    pub(crate) requests: u64,
    /// Records in them.
    pub(crate) records: u64,
    /// Record value bytes in them.
    pub(crate) bytes: u64,
    /// Replies with an error, in the whole run, and the first error code among them.
    pub(crate) failures: u64,
    /// The first Kafka error code that came back.
    pub(crate) first_error: Option<i16>,
    /// Processor time spent during the window.
    pub(crate) usage: Usage,
    /// Requests of a fixed rate that were never answered.
    pub(crate) unanswered: u64,
}

/// Runs `load` with `frames` in turn; `probe` reads the processor time at both ends of the window.
///
/// # Errors
/// When a connection fails or is closed by the broker.
pub(crate) fn run(load: &Load, frames: &[Frame], probe: impl Fn() -> Usage) -> io::Result<Outcome> {
    let mut generator = Generator::connect(load, frames)?;
    let at_start = generator.run_until_window(&probe)?;
    generator.run_window()?;
    generator.outcome.usage = probe() - at_start;
    generator.drain()?;
    Ok(generator.outcome)
}

struct Generator<'a> {
    load: &'a Load,
    frames: &'a [Frame],
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    connections: Vec<Connection>,
    completions: Vec<Completion>,
    started: Instant,
    /// Requests made so far: number `n` goes to connection `n % connections` with frame
    /// `n % frames` when the rate is fixed.
    made: u64,
    window: Option<Window>,
    outcome: Outcome,
}

#[derive(Clone, Copy)]
struct Window {
    start_ns: u64,
    end_ns: u64,
}

impl<'a> Generator<'a> {
    fn connect(load: &'a Load, frames: &'a [Frame]) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(load.connections);
        for number in 0..load.connections {
            let connection = Connection::open(load.address)?;
            epoll::add(
                &epoll,
                connection.socket(),
                epoll::EventData::new_u64(number as u64),
                epoll::EventFlags::IN,
            )?;
            connections.push(connection);
        }
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            load,
            frames,
            epoll,
            events: Vec::with_capacity(EVENTS_PER_WAIT),
            connections,
            completions: Vec::new(),
            started: Instant::now(),
            made: 0,
            window: None,
            outcome: Outcome {
                latency_us,
                elapsed: Duration::ZERO,
                requests: 0,
                records: 0,
                bytes: 0,
                failures: 0,
                first_error: None,
                usage: Usage::default(),
                unanswered: 0,
            },
        })
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.started.elapsed())
    }

    fn run_until_window(&mut self, probe: &impl Fn() -> Usage) -> io::Result<Usage> {
        if let Pace::Closed { in_flight } = self.load.pace {
            for number in 0..self.connections.len() {
                for _ in 0..in_flight {
                    self.send_next(number, 0);
                }
                self.flush(number)?;
            }
        }
        let start_ns = nanoseconds(self.load.warm_up);
        self.run_until(start_ns, u64::MAX)?;
        let usage = probe();
        let start_ns = self.now_ns();
        let end_ns = start_ns + nanoseconds(self.load.measured);
        self.window = Some(Window { start_ns, end_ns });
        Ok(usage)
    }

    fn run_window(&mut self) -> io::Result<()> {
        let Some(window) = self.window else {
            return Ok(());
        };
        self.run_until(window.end_ns, self.load.bytes_max)?;
        let ended_ns = self.now_ns();
        self.window = Some(Window {
            end_ns: ended_ns,
            ..window
        });
        self.outcome.elapsed = Duration::from_nanos(ended_ns - window.start_ns);
        Ok(())
    }

    /// Sends what is due and takes replies until `end_ns` or until `bytes_max` were acknowledged.
    fn run_until(&mut self, end_ns: u64, bytes_max: u64) -> io::Result<()> {
        loop {
            let now_ns = self.now_ns();
            if now_ns >= end_ns || self.outcome.bytes >= bytes_max {
                return Ok(());
            }
            let wake_ns = self.send_due(now_ns)?.min(end_ns);
            let patience = Duration::from_nanos(wake_ns.saturating_sub(self.now_ns()));
            self.take_events(patience, true)?;
        }
    }

    /// Sends the requests of a fixed rate that are due and returns when the next one is.
    fn send_due(&mut self, now_ns: u64) -> io::Result<u64> {
        let Pace::Fixed {
            requests_per_second,
        } = self.load.pace
        else {
            return Ok(u64::MAX);
        };
        let interval_ns = 1_000_000_000 / u64::from(requests_per_second.max(1));
        loop {
            let due_ns = self.made * interval_ns;
            if due_ns > now_ns {
                return Ok(due_ns);
            }
            let number = (self.made % self.connections.len() as u64) as usize;
            if self.connections[number].unanswered() * self.connections.len() > UNANSWERED_MAX {
                return Err(io::Error::other("the broker is too slow for this rate"));
            }
            self.send_next(number, due_ns);
            self.flush(number)?;
        }
    }

    fn send_next(&mut self, number: usize, due_ns: u64) {
        let frame = (self.made % self.frames.len() as u64) as usize;
        self.made += 1;
        self.connections[number].enqueue(frame, due_ns, self.frames);
    }

    /// Waits for sockets to become ready, takes their replies and, in a closed loop with
    /// `replace`, sends a new request for every reply.
    fn take_events(&mut self, patience: Duration, replace: bool) -> io::Result<()> {
        let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            // Copied out: the kernel's structure is packed.
            let (data, flags) = (event.data, event.flags);
            let number = data.u64() as usize;
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(number)?;
            }
            if !flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                continue;
            }
            let mut completions = std::mem::take(&mut self.completions);
            self.connections[number].receive(self.frames, &mut completions)?;
            let now_ns = self.now_ns();
            for completion in completions.drain(..) {
                self.record(&completion, now_ns);
                if replace && matches!(self.load.pace, Pace::Closed { .. }) {
                    self.send_next(number, now_ns);
                }
            }
            self.completions = completions;
            self.flush(number)?;
        }
        self.events = events;
        Ok(())
    }

    fn record(&mut self, completion: &Completion, now_ns: u64) {
        if completion.error != 0 {
            self.outcome.failures += 1;
            self.outcome.first_error.get_or_insert(completion.error);
        }
        let Some(window) = self.window else { return };
        if now_ns < window.end_ns {
            let frame = &self.frames[completion.frame];
            self.outcome.requests += 1;
            self.outcome.records += frame.records;
            self.outcome.bytes += frame.value_bytes;
        }
        if (window.start_ns..window.end_ns).contains(&completion.due_ns) {
            let latency_us = now_ns.saturating_sub(completion.due_ns) / 1_000;
            self.outcome.latency_us.saturating_record(latency_us);
        }
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        if connection.flush(self.frames)? {
            let flags = if connection.is_blocked() {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            let data = epoll::EventData::new_u64(number as u64);
            epoll::modify(&self.epoll, connection.socket(), data, flags)?;
        }
        Ok(())
    }

    /// Takes the replies that are still to come, for the latencies of the window's last requests.
    fn drain(&mut self) -> io::Result<()> {
        let deadline_ns = self.now_ns() + nanoseconds(DRAIN);
        while self
            .connections
            .iter()
            .any(|connection| connection.unanswered() > 0)
        {
            let now_ns = self.now_ns();
            if now_ns >= deadline_ns {
                break;
            }
            self.take_events(Duration::from_nanos(deadline_ns - now_ns), false)?;
        }
        let unanswered = self
            .connections
            .iter()
            .map(|connection| connection.unanswered() as u64);
        self.outcome.unanswered = unanswered.sum();
        Ok(())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
