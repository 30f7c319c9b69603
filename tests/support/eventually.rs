//! Waiting with an end for a state that comes by itself.
//!
//! Owns the one loop that sleeps and looks again.

use std::thread;
use std::time::{Duration, Instant};

use super::client::PATIENCE;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Repeats `look` until it returns `Some`.
///
/// # Panics
/// When that takes more than a minute, naming `what`.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "waited a minute in vain: {what}"
        );
        thread::sleep(PAUSE);
    }
}
