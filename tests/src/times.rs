//! How long something took, many times.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

/// How long something took, many times: at least once. Shown as its percentiles.
#[derive(Debug, Clone)]
pub struct Times(Vec<Duration>);

impl Times {
    /// The time that so large a share of all stayed within, in milliseconds: 0.5 gives the median.
    pub fn at(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
    }
}

impl From<Vec<Duration>> for Times {
    fn from(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Self(times)
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [middle, late, last] = [0.5, 0.99, 1.0].map(|share| self.at(share));
        if self.0.len() < 100 {
            let first = self.at(0.0);
            return write!(f, "p50 {middle:>8.3} ms   min {first:>8.3} ms   max {last:>8.3} ms");
        }
        write!(f, "p50 {middle:>8.3} ms   p99 {late:>8.3} ms   max {last:>8.3} ms")
    }
}
