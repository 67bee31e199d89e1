//! How long a process that ends by itself waits for its next start.

use std::time::Duration;

use serde::Deserialize;

/// The pauses between an end and the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backoff {
    /// The first pause; each further one is twice as long. Default: 500ms.
    #[serde(with = "humantime_serde")]
    pub first: Duration,
    /// The longest pause. Default: 30s.
    #[serde(with = "humantime_serde")]
    pub longest: Duration,
    /// A spell after which earlier endings are forgotten. Default: 10s.
    #[serde(with = "humantime_serde")]
    pub healthy: Duration,
    /// After how many endings in a row it has failed for good, until an operator starts it. 0 means never. Default: 20.
    pub give_up_after: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            healthy: Duration::from_secs(10),
            give_up_after: 20,
        }
    }
}

impl Backoff {
    /// The pause before the next start, after so many endings in a row before this one. `roll` is a random number in
    /// `0.0..1.0`: half of the pause is left to chance, so that what fell together does not rise together.
    pub(super) fn pause(&self, endings: u32, roll: f64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(endings.min(16)).unwrap_or(u32::MAX));
        doubled.min(self.longest).mul_f64(0.5 + roll.clamp(0.0, 1.0) / 2.0)
    }

    /// Whether so many endings in a row are too many.
    pub(super) fn gives_up_after(&self, endings: u32) -> bool {
        self.give_up_after > 0 && endings >= self.give_up_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_cap() {
        let backoff = Backoff::default();
        assert_eq!(backoff.pause(0, 0.0), Duration::from_millis(250));
        assert_eq!(backoff.pause(0, 1.0), Duration::from_millis(500));
        assert_eq!(backoff.pause(3, 1.0), Duration::from_secs(4));
        assert_eq!(backoff.pause(u32::MAX, 1.0), backoff.longest);
    }
}
