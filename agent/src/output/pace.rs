//! How often a growing file is looked at, and how much of it is worth keeping. Both are pure.

use std::time::Duration;

use tokio::time::Instant;

use super::files::Limits;

/// A file that a flood goes into is looked at this often.
pub(super) const FASTEST: Duration = Duration::from_millis(10);

/// A file that grows slowly is looked at this often: what it does not say of itself meanwhile, a flood that begins, is
/// all that the files may become too large by. All such files are looked at at the same moments.
pub(super) const SLOWEST: Duration = Duration::from_millis(200);

/// The same where somebody follows.
const FOLLOWED: Duration = Duration::from_millis(20);

/// Looks at a file that has begun to grow.
#[derive(Debug)]
pub(super) struct Pace {
    last: Duration,
}

impl Pace {
    /// That of a file of which nothing is known but that it was written to.
    pub(super) fn new() -> Self {
        Self { last: FASTEST }
    }

    /// The pause before the next look at a file with room for so many bytes, into which so many were written in the
    /// pause before. `None` when it may be left to say itself that it grows.
    pub(super) fn next(&mut self, grown: u64, room: u64, followed: bool) -> Option<Duration> {
        if grown == 0 {
            return None;
        }
        let until_full = self.last.as_secs_f64() * room as f64 / grown as f64;
        let slowest = if followed { FOLLOWED } else { SLOWEST };
        let longest = slowest.min(self.last * 4).max(FASTEST);
        let wanted = Duration::try_from_secs_f64(until_full / 2.0).unwrap_or(longest);
        self.last = wanted.clamp(FASTEST, longest);
        Some(self.last)
    }
}

/// What is kept in the long run, in bytes a second; bursts may be larger. A flood is not kept: to copy all of it would
/// burn the processor and the disk for what is thrown away the moment after.
const REFILL: f64 = (16 << 20) as f64;

/// What a rotation costs beside the bytes that it copies.
const FIXED_COST: u64 = 256 << 10;

/// How many bytes may be copied now.
#[derive(Debug)]
pub(super) struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: f64::MAX, at: now }
    }

    /// Takes what a rotation costs, where there is as much.
    pub(super) fn take(&mut self, limits: Limits, now: Instant) -> bool {
        let cost = (limits.max_size + FIXED_COST) as f64;
        // Enough for everything that can be kept: a burst that fits into the files is kept whole.
        let full = cost * f64::from(limits.files);
        let refilled = self.left + REFILL * now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = refilled.min(full);
        let enough = self.left >= cost;
        if enough {
            self.left -= cost;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_flood_is_looked_at_often_and_a_trickle_seldom() {
        let mut flood = Pace::new();
        assert_eq!(flood.next(20 * MIB, 0, false), Some(FASTEST));
        let mut trickle = Pace::new();
        let pauses: Vec<_> =
            (0..4).map(|_| trickle.next(100, 10 * MIB, false).unwrap().as_millis()).collect();
        assert_eq!(pauses, [40, 160, 200, 200]);
        assert_eq!(trickle.next(100, 10 * MIB, true), Some(FOLLOWED));
        assert_eq!(trickle.next(0, 10 * MIB, false), None);
    }

    #[test]
    fn a_burst_is_kept_whole_and_a_flood_is_not() {
        let limits = Limits { max_size: 10 * MIB, files: 4 };
        let began = Instant::now();
        let mut budget = Budget::new(began);
        let kept = |budget: &mut Budget, millis| {
            let now = began + Duration::from_millis(millis);
            (0..100).filter(|_| budget.take(limits, now)).count()
        };
        assert_eq!(kept(&mut budget, 0), 4);
        assert_eq!(kept(&mut budget, 1000), 1);
        assert_eq!(kept(&mut budget, 100_000), 4);
        assert!(!Budget::new(began).take(Limits { files: 0, ..limits }, began));
    }
}
