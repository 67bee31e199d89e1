//! Lines of the log that anybody can cause by calling: so many in a time, and how many there were besides.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The time in which lines are counted, and how many of it are written. Enough to see who does what, and not enough to fill a
/// disk: some 2 kB a second.
const SPAN: Duration = Duration::from_secs(10);
const MOST: u32 = 100;

/// Counts lines of one kind.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    begun: Option<Instant>,
    written: u32,
    unwritten: u64,
}

impl Seldom {
    /// Whether one more line is written now; and then, how many were not since the last one that was.
    pub(super) fn again(&self) -> Option<u64> {
        self.again_at(Instant::now())
    }

    fn again_at(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.begun.is_none_or(|begun| now.duration_since(begun) >= SPAN) {
            (counted.begun, counted.written) = (Some(now), 0);
        }
        if counted.written >= MOST {
            counted.unwritten += 1;
            return None;
        }
        counted.written += 1;
        Some(std::mem::take(&mut counted.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard L11: a flood of refused calls is no flood of lines, and is seen all the same.
    #[test]
    fn a_flood_is_counted_and_not_written() {
        let (seldom, begun) = (Seldom::default(), Instant::now());
        let written = (0..1_000_000).filter_map(|_| seldom.again_at(begun)).collect::<Vec<_>>();
        assert_eq!(written, [0; MOST as usize]);
        let later = begun + SPAN;
        assert_eq!(seldom.again_at(later), Some(1_000_000 - u64::from(MOST)));
        assert_eq!(seldom.again_at(later), Some(0));
    }
}
