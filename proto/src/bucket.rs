//! An amount that may be spent at once, and comes back steadily.

use std::time::{Duration, Instant};

/// An amount that may be spent at once, and comes back steadily. Pure: time is given.
#[derive(Debug)]
pub struct Bucket {
    most: f64,
    per_second: f64,
    /// Below zero where more was spent than there was.
    left: f64,
    at: Instant,
}

impl Bucket {
    /// With all that it may hold: so much, of which so much comes back in a second.
    pub fn full((most, per_second): (f64, f64), now: Instant) -> Self {
        Self { most, per_second, left: most, at: now }
    }

    /// Spends, and tells after what time that is paid.
    pub fn take(&mut self, amount: f64, now: Instant) -> Duration {
        self.refill(now);
        self.left -= amount;
        self.until(0.0)
    }

    /// Spends where there is enough. Gives whether there was.
    pub fn try_take(&mut self, amount: f64, now: Instant) -> bool {
        self.refill(now);
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }

    /// After what time so much would be there.
    pub fn wait(&mut self, amount: f64, now: Instant) -> Duration {
        self.refill(now);
        self.until(amount)
    }

    /// Whether, when it was last looked at, at least half of all was there.
    pub fn is_half_full(&self) -> bool {
        self.left >= self.most / 2.0
    }

    /// Whether all that it may hold is there by now.
    pub fn is_full(&self, now: Instant) -> bool {
        self.left + self.gained(now) >= self.most
    }

    fn until(&self, level: f64) -> Duration {
        let missing = (level - self.left).max(0.0);
        Duration::from_secs_f64((missing / self.per_second).min(3600.0))
    }

    fn refill(&mut self, now: Instant) {
        self.left = (self.left + self.gained(now)).min(self.most);
        self.at = self.at.max(now);
    }

    fn gained(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.at).as_secs_f64() * self.per_second
    }
}
