//! How long a process that ends by itself waits for its next start.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause.
const CAP: Duration = Duration::from_secs(30);

/// The pause before the next start, after so many endings in a row. `roll` is a random number in `0.0..1.0`: half of the
/// pause is left to chance, so that what fell together does not rise together.
pub(super) fn pause(endings: u32, roll: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(endings.min(16)).unwrap_or(u32::MAX));
    doubled.min(CAP).mul_f64(0.5 + roll.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_cap() {
        assert_eq!(pause(0, 0.0), Duration::from_millis(250));
        assert_eq!(pause(0, 1.0), Duration::from_millis(500));
        assert_eq!(pause(3, 1.0), Duration::from_secs(4));
        assert_eq!(pause(u32::MAX, 1.0), CAP);
    }
}
