//! How much one user may ask.

use std::time::Duration;

use serde::Deserialize;

use crate::throttle::Window;

/// How many requests one user may send in a time, and how many wrong passwords may be tried. Agents are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// Whether requests are counted. Default: true.
    pub enabled: bool,
    /// Requests in any 10 s; 0 for any number. Default: 20,000.
    pub per_10s: u32,
    /// Requests in any minute; 0 for any number. Default: 100,000.
    pub per_minute: u32,
    /// Requests in any hour; 0 for any number. Default: 4,000,000.
    pub per_hour: u32,
    /// Requests in any day; 0 for any number. Default: 50,000,000.
    pub per_day: u32,
    /// Wrong passwords for one name from one address in a minute, whether or not there is such a user, and ten times as many
    /// from all addresses together; 0 for any number. Default: 20.
    pub wrong_passwords: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            enabled: true,
            per_10s: 20_000,
            per_minute: 100_000,
            per_hour: 4_000_000,
            per_day: 50_000_000,
            wrong_passwords: 20,
        }
    }
}

impl RateLimit {
    /// The windows in which requests are counted; none where nothing is limited.
    pub(crate) fn windows(&self) -> Vec<Window> {
        let limits =
            [(10, self.per_10s), (60, self.per_minute), (3600, self.per_hour), (86_400, self.per_day)];
        let counted = limits.into_iter().filter(|(_, limit)| self.enabled && *limit > 0);
        counted.map(|(seconds, limit)| Window { span: Duration::from_secs(seconds), limit }).collect()
    }
}
