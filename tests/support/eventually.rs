//! Waiting for what comes by itself, with an end.
//!
//! Owns the one loop that sleeps and looks again.

use std::thread;
use std::time::{Duration, Instant};

use super::client::PATIENCE;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until `look` gives something; gives that.
///
/// # Panics
/// When nothing came within a minute, saying that it was `what`.
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
