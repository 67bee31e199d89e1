//! What one user has left, as a pure function of what it sent and when.
//!
//! A window slides: in no stretch of its length does it let through more than its limit. It is counted in slots of a tenth of
//! its length, so that a day costs no more memory than ten seconds; a request is forgotten when its whole slot is that old,
//! which is up to a tenth later than it could be.

use std::time::Duration;

/// Slots of a window that are gone through before a request is forgotten, beside its own.
const SLOTS: u64 = 10;

/// How many requests there may be in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) span: Duration,
    pub(crate) limit: u32,
}

/// What a user is told: of the window in which the least is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// In how long there is more.
    pub(crate) reset: Duration,
    /// The length of that window.
    pub(crate) span: Duration,
}

/// What a user has sent.
#[derive(Debug)]
pub(crate) struct Usage {
    counts: Vec<Counts>,
    last: Duration,
}

/// What a user has sent in one window: a ring of slots, each with the number of the slot that it is for now.
#[derive(Debug, Default)]
struct Counts {
    slots: [(u64, u32); SLOTS as usize + 1],
}

impl Usage {
    /// A user who has sent nothing.
    pub(crate) fn of(windows: &[Window]) -> Self {
        Self { counts: windows.iter().map(|_| Counts::default()).collect(), last: Duration::ZERO }
    }

    /// When the last request was counted.
    pub(crate) fn last(&self) -> Duration {
        self.last
    }

    /// Counts a request in every window, or in none.
    ///
    /// # Errors
    /// The window that is longest full.
    pub(crate) fn take(&mut self, windows: &[Window], now: Duration) -> Result<Allowance, Allowance> {
        let seen = |counts: &Counts, window: &Window| counts.seen(*window, now);
        let full = self.counts.iter().zip(windows).map(|(counts, window)| seen(counts, window));
        if let Some(full) = full.filter(|told| told.remaining == 0).max_by_key(|told| told.reset) {
            return Err(full);
        }
        self.last = now;
        for (counts, window) in self.counts.iter_mut().zip(windows) {
            counts.count(*window, now);
        }
        let left = self.counts.iter().zip(windows).map(|(counts, window)| seen(counts, window));
        // Of two with as little left, the one that says to wait longer.
        let least = left.min_by_key(|told| (told.remaining, std::cmp::Reverse(told.reset)));
        Ok(least.unwrap_or(Allowance { limit: 0, remaining: 0, reset: Duration::ZERO, span: Duration::ZERO }))
    }
}

impl Counts {
    fn count(&mut self, window: Window, now: Duration) {
        let slot = slot(window, now);
        let entry = &mut self.slots[place(slot)];
        if entry.0 != slot {
            *entry = (slot, 0);
        }
        entry.1 += 1;
    }

    fn seen(&self, window: Window, now: Duration) -> Allowance {
        let slot = slot(window, now);
        let live = self.slots.iter().filter(|(of, count)| *count > 0 && of + SLOTS >= slot);
        let used = live.clone().map(|(_, count)| *count).fold(0, u32::saturating_add);
        let oldest = live.map(|(of, _)| *of).min();
        // The oldest slot is forgotten as a whole, at the end of the last slot in which it counts.
        let reset = oldest.map_or(Duration::ZERO, |of| begin(window, of + SLOTS + 1).saturating_sub(now));
        Allowance {
            limit: window.limit,
            remaining: window.limit.saturating_sub(used),
            reset,
            span: window.span,
        }
    }
}

/// The number of the slot that `now` is in.
fn slot(window: Window, now: Duration) -> u64 {
    let slot = now.as_millis() / length(window).as_millis().max(1);
    u64::try_from(slot).unwrap_or(u64::MAX)
}

/// When a slot begins.
fn begin(window: Window, slot: u64) -> Duration {
    let millis = length(window).as_millis().max(1).saturating_mul(u128::from(slot));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

fn length(window: Window) -> Duration {
    window.span / SLOTS as u32
}

fn place(slot: u64) -> usize {
    (slot % (SLOTS + 1)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN: Window = Window { span: Duration::from_secs(10), limit: 3 };
    const MINUTE: Window = Window { span: Duration::from_secs(60), limit: 5 };

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Limit, remainder and reset in seconds; of what is refused, there is no remainder.
    type Told = Result<(u32, u32, f64), (u32, f64)>;

    #[track_caller]
    fn check(windows: &[Window], steps: &[(f64, Told)]) {
        let mut usage = Usage::of(windows);
        for &(now, expected) in steps {
            let told = usage.take(windows, secs(now));
            let told = told
                .map(|told| (told.limit, told.remaining, told.reset.as_secs_f64()))
                .map_err(|told| (told.limit, told.reset.as_secs_f64()));
            assert_eq!(told, expected, "at {now} s");
        }
    }

    #[test]
    fn a_window_is_full_until_its_oldest_requests_are_too_old() {
        check(
            &[TEN],
            &[
                (0.5, Ok((3, 2, 10.5))),
                (4.0, Ok((3, 1, 7.0))),
                (4.0, Ok((3, 0, 7.0))),
                (4.0, Err((3, 7.0))),
                (10.9, Err((3, 0.1))),
                (11.0, Ok((3, 0, 4.0))),
                (11.0, Err((3, 4.0))),
                (15.0, Ok((3, 1, 7.0))),
                (1000.0, Ok((3, 2, 11.0))),
            ],
        );
    }

    /// The window in which the least is left is told, and what is refused is counted in none.
    #[test]
    fn every_window_must_have_room() {
        check(
            &[TEN, MINUTE],
            &[
                (0.0, Ok((3, 2, 11.0))),
                (0.0, Ok((3, 1, 11.0))),
                (0.0, Ok((3, 0, 11.0))),
                (0.0, Err((3, 11.0))),
                (0.0, Err((3, 11.0))),
                (11.0, Ok((5, 1, 55.0))),
                (11.0, Ok((5, 0, 55.0))),
                (11.0, Err((5, 55.0))),
                (65.9, Err((5, 0.1))),
                (66.0, Ok((3, 2, 11.0))),
            ],
        );
    }

    proptest! {
        /// Whenever requests come, no stretch of a window's length has more than its limit of those that were let through; and
        /// who waits as long as was told is let through.
        #[test]
        fn no_stretch_has_more_than_its_limit(pauses in prop::collection::vec(0_u64..6000, 1..200)) {
            let windows = [TEN, MINUTE];
            let mut usage = Usage::of(&windows);
            let mut now = Duration::ZERO;
            let mut let_through: Vec<Duration> = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                if let Err(told) = usage.take(&windows, now) {
                    now += told.reset;
                    prop_assert!(usage.take(&windows, now).is_ok(), "waited as told");
                }
                let_through.push(now);
                for window in windows {
                    let recent = let_through.iter().filter(|then| **then + window.span > now).count();
                    prop_assert!(recent <= window.limit as usize, "{recent} in {:?}", window.span);
                }
            }
        }
    }
}
