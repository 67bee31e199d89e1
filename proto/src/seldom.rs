//! Lines of the log that anybody can cause, by calling or by connecting: so many in a time, and how many there were besides.
//! Whoever floods a part does not flood its log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Counts lines of one kind.
#[derive(Debug)]
pub struct Seldom {
    most: u32,
    span: Duration,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    begun: Option<Instant>,
    written: u32,
    unwritten: u64,
}

impl Seldom {
    /// Lets so many lines be written in so much time.
    pub fn new(most: u32, span: Duration) -> Self {
        Self { most, span, counted: Mutex::default() }
    }

    /// Whether one more line is written now; and then, how many were not since the last one that was.
    pub fn again(&self) -> Option<u64> {
        self.again_at(Instant::now())
    }

    fn again_at(&self, now: Instant) -> Option<u64> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.begun.is_none_or(|begun| now.duration_since(begun) >= self.span) {
            (counted.begun, counted.written) = (Some(now), 0);
        }
        if counted.written >= self.most {
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
        for most in [1, 100] {
            let span = Duration::from_secs(10);
            let (seldom, begun) = (Seldom::new(most, span), Instant::now());
            let written = (0..1_000_000).filter_map(|_| seldom.again_at(begun)).collect::<Vec<_>>();
            assert_eq!(written, vec![0; usize::try_from(most).expect("small")]);
            let later = begun + span;
            assert_eq!(seldom.again_at(later), Some(1_000_000 - u64::from(most)));
            assert_eq!(seldom.again_at(later), (most > 1).then_some(0));
        }
    }
}
