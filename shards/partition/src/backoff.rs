//! How long to wait before something is tried again that the world is too short for now.
//!
//! Owns the one schedule. Pure; who waits sets a deadline.

/// The first wait, ms.
const FIRST_MS: u64 = 500;
/// The longest, ms: a shortage that ends is noticed within it.
const LAST_MS: u64 = 30_000;

/// When the next try is due after `failures` in a row, on the monotonic clock, ns.
pub fn due_ns(now_ns: u64, failures: u32) -> u64 {
    let factor = 1_u64
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u64::MAX);
    let wait_ms = FIRST_MS.saturating_mul(factor).min(LAST_MS);
    now_ns.saturating_add(wait_ms.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::due_ns;

    #[test]
    fn waits_grow_up_to_a_bound() {
        let waits: Vec<u64> = [1, 2, 3, 7, 8, 64, 200]
            .map(|failures| due_ns(0, failures) / 1_000_000)
            .to_vec();
        assert_eq!(waits, [500, 1_000, 2_000, 30_000, 30_000, 30_000, 30_000]);
        assert_eq!(due_ns(u64::MAX, 9), u64::MAX);
    }
}
