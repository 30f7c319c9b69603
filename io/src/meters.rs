//! Meters with one writer: counters, gauges and histograms that any thread reads without stopping the writer.
//!
//! Each meter belongs to the one thread that writes it, usually a shard. A write is a plain load and a plain
//! store, no locked instruction, so a second writer would lose counts (never memory safety). A reader sees each
//! number whole, but not all numbers of the same moment. Owns no names and no registry.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows. Wraps after 2^64.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`. The writer's alone.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// The count now, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the number. The writer's alone.
    #[inline]
    pub fn set(&self, to: u64) {
        self.0.store(to, Relaxed);
    }

    /// Keeps the greater of the number and `to`: for peaks. The writer's alone.
    #[inline]
    pub fn raise(&self, to: u64) {
        if to > self.get() {
            self.set(to);
        }
    }

    /// The number now, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Steps between two powers of two, as a power of two: a recorded value is off by 1/32 at most.
const STEP_BITS: u32 = 5;
const STEPS: usize = 1 << STEP_BITS;
/// The powers of two above `STEPS`.
const POWERS: usize = 31;
const PLACES: usize = (POWERS + 1) * STEPS;

/// The greatest value a [`Histogram`] tells apart: 2^36 - 1, 19 hours in microseconds.
pub const HISTOGRAM_VALUE_MAX: u64 = (1 << (STEP_BITS as usize + POWERS)) - 1;

/// Counts of values, usually microseconds. 8 KiB; a value above [`HISTOGRAM_VALUE_MAX`] counts as that.
#[derive(Debug)]
pub struct Histogram {
    places: Box<[AtomicU64]>,
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            sum: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts one value. The writer's alone.
    #[inline]
    pub fn record(&self, value: u64) {
        if let Some(place) = self.places.get(place_of(value)) {
            place.store(place.load(Relaxed).wrapping_add(1), Relaxed);
        }
        self.sum.add(value);
    }

    /// The sum of all recorded values, exact until it wraps.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    /// A copy for quantiles and counts, from any thread. Values are the middle of their step.
    pub fn snapshot(&self) -> hdrhistogram::Histogram<u64> {
        let mut copy = hdrhistogram::Histogram::new_with_bounds(1, HISTOGRAM_VALUE_MAX, 2)
            .expect("the bounds are constants within the library's own");
        self.add_to(&mut copy);
        copy
    }

    /// Adds this histogram to a copy of another, to report several shards as one.
    pub fn add_to(&self, copy: &mut hdrhistogram::Histogram<u64>) {
        for (place, count) in self.places.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                copy.saturating_record_n(middle_of(place), count);
            }
        }
    }
}

#[inline]
fn place_of(value: u64) -> usize {
    let value = value.min(HISTOGRAM_VALUE_MAX);
    if value < STEPS as u64 {
        return value as usize;
    }
    let shift = value.ilog2() - STEP_BITS;
    (shift as usize + 1) * STEPS + ((value >> shift) as usize - STEPS)
}

fn middle_of(place: usize) -> u64 {
    if place < STEPS {
        return place as u64;
    }
    let shift = place / STEPS - 1;
    let low = ((place % STEPS + STEPS) as u64) << shift;
    low + ((1_u64 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_within_a_thirty_second_of_itself() {
        let mut value = 0_u64;
        while value < HISTOGRAM_VALUE_MAX {
            let told = middle_of(place_of(value));
            assert!(
                told.abs_diff(value) <= value / 32,
                "{value} is told as {told}"
            );
            value += 1 + value / 97;
        }
        assert_eq!(place_of(HISTOGRAM_VALUE_MAX), PLACES - 1);
        assert_eq!(place_of(u64::MAX), PLACES - 1);
        let places: Vec<usize> = (0..PLACES)
            .map(|place| place_of(middle_of(place)))
            .collect();
        assert_eq!(
            places,
            (0..PLACES).collect::<Vec<_>>(),
            "each place is its own"
        );
    }

    #[test]
    fn quantiles_of_a_copy_are_those_of_what_was_recorded() {
        let meter = Histogram::default();
        (1..=10_000).for_each(|value| meter.record(value));
        let copy = meter.snapshot();
        assert_eq!(copy.len(), 10_000);
        assert_eq!(meter.sum(), 50_005_000);
        for (quantile, wanted) in [(0.5, 5_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let told = copy.value_at_quantile(quantile) as f64;
            assert!(
                (told / wanted - 1.0).abs() < 0.04,
                "{quantile}: {told}, not {wanted}"
            );
        }
        let mut both = copy;
        meter.add_to(&mut both);
        assert_eq!(both.len(), 20_000);
    }

    #[test]
    fn another_thread_reads_while_the_writer_writes() {
        let counter = Counter::default();
        let peak = Gauge::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut last = 0;
                while last < 100_000 {
                    let now = counter.get();
                    assert!(now >= last, "a counter only grows");
                    last = now;
                }
                peak.get()
            });
            for number in 1..=100_000_u64 {
                peak.raise(number);
                peak.raise(number / 2);
                counter.add(1);
            }
            assert!(reader.join().is_ok_and(|peak| peak > 0));
        });
        assert_eq!((counter.get(), peak.get()), (100_000, 100_000));
    }
}
