//! The load loop: one thread, non-blocking sockets on one epoll instance; requests are sent when due and their
//! latency counts from then.
//!
//! An open loop: never waits for a reply before a request that is due. Never builds a request while measuring:
//! frames are made beforehand, replies are checked at fixed places.

use std::io;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::connection::{Completion, Connection};
use crate::consumer::{Consumer, Consumption, Fetched, Position};
use crate::end_to_end::{EndToEnd, Journey};
use crate::frames::Frame;
use crate::load::{Load, LoadResult, Pace};
use crate::process::{self, Subject};
use crate::progress::ProgressLine;

/// Runs `load`, with `frames` in turn, and watches `subject`.
///
/// # Errors
/// When a connection fails or is closed by the broker, or a fetch fails.
pub(crate) fn run(load: &Load, frames: &[Frame], subject: &Subject) -> io::Result<LoadResult> {
    Generator::connect(load, frames, subject)?.run()
}

/// Ready sockets taken per system call.
const EVENTS_PER_WAIT: usize = 128;
/// Time for outstanding replies after the last request was sent.
const DRAIN: Duration = Duration::from_secs(10);
/// Unanswered requests of a fixed rate at most. Beyond it the broker is too slow for the rate: later requests wait,
/// and their latency still counts from when they were due.
const UNANSWERED_MAX: usize = 200_000;
/// Time between two reads of the broker's memory, and of slow readers' sockets.
const TICK_NS: u64 = 250_000_000;

/// One run; see the module.
pub(crate) struct Generator<'a> {
    load: &'a Load,
    frames: &'a [Frame],
    subject: &'a Subject,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    /// Registered in epoll by index.
    connections: Vec<Connection>,
    /// Requests answered inside the window, by connection.
    served: Vec<u64>,
    /// Registered in epoll by index after the connections, except for slow readers.
    consumers: Vec<Consumer>,
    completions: Vec<Completion>,
    end_to_end: EndToEnd,
    /// True when each produced batch is also consumed here, at once and by one consumer.
    pairs_batches: bool,
    progress: ProgressLine,
    started: Instant,
    next_tick_ns: u64,
    /// Requests made so far: at a fixed rate, number `n` goes to connection `n % connections` with frame `n % frames`.
    made: u64,
    window: Option<Window>,
    outcome: LoadResult,
}

#[derive(Clone, Copy)]
struct Window {
    start_ns: u64,
    end_ns: u64,
}

impl Window {
    fn contains(self, moment_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&moment_ns)
    }
}

impl<'a> Generator<'a> {
    /// Opens all connections.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub(crate) fn connect(
        load: &'a Load,
        frames: &'a [Frame],
        subject: &'a Subject,
    ) -> io::Result<Self> {
        process::raise_open_files();
        // A due request must not wait for the 50 µs of Linux's default timer slack, which would be counted as the
        // broker's.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(load.connections);
        for number in 0..load.connections {
            let connection = Connection::open(load.address)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, connection.socket(), data, epoll::EventFlags::IN)?;
            connections.push(connection);
        }
        let consumers = load.consumption.as_ref().map_or_else(
            || Ok(Vec::new()),
            |consumption| connect_consumers(load, consumption, &epoll),
        )?;
        let is_answered = frames.first().is_some_and(Frame::is_answered);
        let keeps_up = load
            .consumption
            .as_ref()
            .is_some_and(|consumption| consumption.bytes_per_tick.is_none());
        Ok(Self {
            load,
            frames,
            subject,
            epoll,
            events: Vec::with_capacity(EVENTS_PER_WAIT),
            served: vec![0; connections.len()],
            connections,
            consumers,
            completions: Vec::new(),
            end_to_end: EndToEnd::default(),
            pairs_batches: is_answered && keeps_up,
            progress: ProgressLine::new(load.warm_up + load.measured),
            started: Instant::now(),
            next_tick_ns: 0,
            made: 0,
            window: None,
            outcome: LoadResult::empty()?,
        })
    }

    /// Warms up, measures, and receives the outstanding replies.
    ///
    /// # Errors
    /// When a connection fails or is closed by the broker, or a fetch fails.
    pub(crate) fn run(mut self) -> io::Result<LoadResult> {
        self.outcome.resident_before_bytes = self.subject.resident_bytes().unwrap_or_default();
        self.started = Instant::now();
        for number in 0..self.consumers.len() {
            self.ask(number)?;
        }
        if let Pace::Closed { in_flight } = self.load.pace {
            for number in 0..self.connections.len() {
                for _ in 0..in_flight {
                    self.send_next(number, 0);
                }
                self.flush(number)?;
            }
        }
        self.run_until(nanoseconds(self.load.warm_up))?;
        self.run_window()?;
        self.drain()?;
        self.progress.finish();
        self.served.sort_unstable();
        self.outcome.served = self.served;
        Ok(self.outcome)
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.started.elapsed())
    }

    fn run_window(&mut self) -> io::Result<()> {
        let before = self.subject.usage();
        let start_ns = self.now_ns();
        let end_ns = start_ns + nanoseconds(self.load.measured);
        self.window = Some(Window { start_ns, end_ns });
        self.run_until(end_ns)?;
        let end_ns = self.now_ns();
        self.window = Some(Window { start_ns, end_ns });
        self.outcome.elapsed = Duration::from_nanos(end_ns - start_ns);
        self.outcome.usage = self.subject.usage() - before;
        self.look_at_memory();
        Ok(())
    }

    /// Sends due requests and takes replies until `end_ns`, until `bytes_max` are transferred or until everything to
    /// read has been read.
    fn run_until(&mut self, end_ns: u64) -> io::Result<()> {
        loop {
            let now_ns = self.now_ns();
            let transferred = self.outcome.bytes.max(self.outcome.fetched_bytes);
            if now_ns >= end_ns || transferred >= self.load.bytes_max || self.everything_is_read() {
                return Ok(());
            }
            if now_ns >= self.next_tick_ns {
                self.tick(now_ns)?;
            }
            let wake_ns = self.send_due(now_ns)?.min(end_ns).min(self.next_tick_ns);
            let patience = Duration::from_nanos(wake_ns.saturating_sub(self.now_ns()));
            self.take_events(patience, true)?;
        }
    }

    fn everything_is_read(&self) -> bool {
        self.connections.is_empty() && self.consumers.iter().all(Consumer::is_done)
    }

    fn tick(&mut self, now_ns: u64) -> io::Result<()> {
        self.next_tick_ns = now_ns + TICK_NS;
        self.look_at_memory();
        self.progress.show(now_ns, &self.outcome);
        if self.slow_bytes().is_some() {
            for number in 0..self.consumers.len() {
                self.read(number)?;
            }
        }
        Ok(())
    }

    fn look_at_memory(&mut self) {
        if let (Some(_), Some(bytes)) = (self.window, self.subject.resident_bytes()) {
            self.outcome.resident_bytes_max = self.outcome.resident_bytes_max.max(bytes);
        }
    }

    fn slow_bytes(&self) -> Option<usize> {
        self.load.consumption.as_ref()?.bytes_per_tick
    }

    /// Sends the due requests of a fixed rate; returns when the next one is due.
    fn send_due(&mut self, now_ns: u64) -> io::Result<u64> {
        let Pace::Fixed {
            requests_per_second,
        } = self.load.pace
        else {
            return Ok(u64::MAX);
        };
        let connections = self.connections.len() as u64;
        if connections == 0 {
            return Ok(u64::MAX);
        }
        let interval_ns = 1_000_000_000 / u64::from(requests_per_second.max(1));
        loop {
            let due_ns = self.made * interval_ns;
            if due_ns > now_ns {
                return Ok(due_ns);
            }
            let number = (self.made % connections) as usize;
            if self.connections[number].unanswered() * self.connections.len() > UNANSWERED_MAX {
                // The reply that makes room wakes the loop.
                return Ok(u64::MAX);
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

    /// Waits for ready sockets, takes their replies and, with `go_on`, sends more: consumers always, producers in a
    /// closed loop.
    fn take_events(&mut self, patience: Duration, go_on: bool) -> io::Result<()> {
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
            if let Some(consumer) = number.checked_sub(self.connections.len()) {
                self.read(consumer)?;
                continue;
            }
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(number)?;
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.take_replies(number, go_on)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn take_replies(&mut self, number: usize, go_on: bool) -> io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        self.connections[number].receive(self.frames, &mut completions)?;
        let now_ns = self.now_ns();
        for completion in completions.drain(..) {
            self.record(number, &completion, now_ns);
            if go_on && matches!(self.load.pace, Pace::Closed { .. }) {
                self.send_next(number, now_ns);
            }
        }
        self.completions = completions;
        self.flush(number)
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        let connection = &mut self.connections[number];
        if connection.flush(self.frames, &mut completions)? {
            let flags = if connection.is_blocked() {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            let data = epoll::EventData::new_u64(number as u64);
            epoll::modify(&self.epoll, connection.socket(), data, flags)?;
        }
        if !completions.is_empty() {
            let now_ns = self.now_ns();
            for completion in completions.drain(..) {
                self.record(number, &completion, now_ns);
            }
        }
        self.completions = completions;
        Ok(())
    }

    fn record(&mut self, number: usize, completion: &Completion, now_ns: u64) {
        let frame = &self.frames[completion.frame];
        if completion.error != 0 {
            self.outcome.failures += 1;
            self.outcome.first_error.get_or_insert(completion.error);
        } else if let (Some(base_offset), true) = (completion.base_offset, self.pairs_batches) {
            let journey = self
                .end_to_end
                .produced(frame.partition, base_offset, completion.due_ns);
            self.record_journey(journey);
        }
        let Some(window) = self.window else { return };
        if now_ns < window.end_ns {
            self.served[number] += 1;
            self.outcome.requests += 1;
            self.outcome.records += frame.records;
            self.outcome.bytes += frame.value_bytes;
        }
        if window.contains(completion.due_ns) {
            let latency_us = now_ns.saturating_sub(completion.due_ns) / 1_000;
            self.outcome.latency_us.saturating_record(latency_us);
        }
    }

    fn record_journey(&mut self, journey: Option<Journey>) {
        let (Some(journey), Some(window)) = (journey, self.window) else {
            return;
        };
        if window.contains(journey.due_ns) {
            let latency_us = journey.consumed_ns.saturating_sub(journey.due_ns) / 1_000;
            self.outcome.end_to_end_us.saturating_record(latency_us);
        }
    }

    /// Reads a consumer's socket and sends the next fetch when a reply is complete.
    fn read(&mut self, number: usize) -> io::Result<()> {
        let bytes_max = self.slow_bytes().unwrap_or(usize::MAX);
        if let Some(fetched) = self.consumers[number].receive(bytes_max)? {
            self.record_fetched(&fetched);
            if !self.consumers[number].is_done() {
                self.ask(number)?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, number: usize) -> io::Result<()> {
        let now_ns = self.now_ns();
        self.consumers[number].send(now_ns)
    }

    fn record_fetched(&mut self, fetched: &Fetched) {
        let now_ns = self.now_ns();
        if self.pairs_batches {
            for batch in &fetched.batches {
                let journey = self
                    .end_to_end
                    .consumed(batch.partition, batch.base_offset, now_ns);
                self.record_journey(journey);
            }
        }
        let Some(window) = self.window else { return };
        if now_ns < window.end_ns {
            self.outcome.fetches += 1;
            self.outcome.fetched_records += fetched.records;
            self.outcome.fetched_bytes += fetched.bytes;
        }
        if window.contains(fetched.sent_ns) {
            let latency_us = now_ns.saturating_sub(fetched.sent_ns) / 1_000;
            self.outcome.fetch_us.saturating_record(latency_us);
        }
    }

    /// Receives outstanding replies, for the latencies of the window's last requests.
    fn drain(&mut self) -> io::Result<()> {
        let deadline_ns = self.now_ns() + nanoseconds(DRAIN);
        while self.unanswered() > 0 || self.unpaired() > 0 {
            let now_ns = self.now_ns();
            if now_ns >= deadline_ns {
                break;
            }
            self.take_events(Duration::from_nanos(deadline_ns - now_ns), false)?;
        }
        self.outcome.unanswered = self.unanswered();
        self.outcome.unpaired = self.unpaired();
        Ok(())
    }

    fn unanswered(&self) -> u64 {
        let connections = self.connections.iter();
        connections
            .map(|connection| connection.unanswered() as u64)
            .sum()
    }

    /// Batches still to be consumed, or to be acknowledged.
    fn unpaired(&self) -> u64 {
        self.end_to_end.unpaired() as u64
    }
}

fn connect_consumers(
    load: &Load,
    consumption: &Consumption,
    epoll: &OwnedFd,
) -> io::Result<Vec<Consumer>> {
    let mut shares: Vec<Vec<Position>> = vec![Vec::new(); consumption.connections];
    let count = consumption.positions.len().max(shares.len());
    // With more connections than partitions, several read the same one.
    for (number, position) in (0..count).zip(consumption.positions.iter().cycle()) {
        let share = number % shares.len();
        shares[share].push(*position);
    }
    let mut consumers = Vec::with_capacity(shares.len());
    for (number, positions) in shares.into_iter().enumerate() {
        let consumer = Consumer::open(load.address, consumption, positions)?;
        if consumption.bytes_per_tick.is_none() {
            let data = epoll::EventData::new_u64((load.connections + number) as u64);
            epoll::add(epoll, consumer.socket(), data, epoll::EventFlags::IN)?;
        }
        consumers.push(consumer);
    }
    Ok(consumers)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
