//! How a task for many hosts goes, as it was made: in which waves, how many hosts at once, and what holds it up.

use std::{collections::BTreeSet, time::Duration};

use belay_proto::HostId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::terms::Effect;

/// How a batch goes. All amounts are counts of hosts by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) verb: BatchVerb,
    /// How many hosts each wave has. They add up to all of them.
    pub(crate) waves: Vec<usize>,
    /// At most so many hosts at once.
    pub(crate) parallel: usize,
    /// Once so many hosts have failed, no further one begins.
    pub(crate) stop_after: Option<usize>,
    /// The same for each wave. Empty where failures in one wave stop nothing.
    pub(crate) stop_after_in_wave: Vec<usize>,
    /// Every wave but the first begins when somebody approves it.
    pub(crate) approve_waves: bool,
    /// Every wave but the first begins when the one before was healthy for so long.
    pub(crate) healthy_for: Option<Duration>,
    pub(crate) absent: Absent,
    pub(crate) budgets: Vec<Budget>,
}

/// What a batch does with each host. The word is in the database: it is never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BatchVerb {
    Stop,
    Restart,
    Start,
}

impl BatchVerb {
    /// What it does to each process.
    pub(crate) fn effect(self) -> Effect {
        match self {
            Self::Stop => Effect::Stop,
            Self::Restart => Effect::Restart,
            Self::Start => Effect::Start,
        }
    }
}

/// What becomes of a host whose agent does not report when it is its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Absent {
    /// It has failed.
    Fail,
    /// It is left alone.
    Skip,
    /// It is waited for until then, and has failed after that.
    WaitUntil(Timestamp),
}

/// Never more than so many of some hosts down at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budget {
    /// Which hosts, by labels.
    pub(crate) selector: String,
    /// How many: a count, or a share of them.
    pub(crate) max_down: Amount,
}

/// A count of hosts, or a share of them in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Amount {
    Count(usize),
    Percent(u8),
}

/// What a batch has to know of the fleet, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    /// Hosts of the batch whose agents have not reported for a while.
    pub(crate) absent: BTreeSet<HostId>,
    /// Those whose agents do not report at this moment. They may be back in the next one, when the server was restarted, say.
    pub(crate) missing: BTreeSet<HostId>,
    /// For each budget, in its order.
    pub(crate) budgets: Vec<Spent>,
}

/// What is left of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Spent {
    /// Which hosts it is about.
    pub(crate) members: BTreeSet<HostId>,
    /// Which of them are down, whatever the batch does.
    pub(crate) down: BTreeSet<HostId>,
}

impl Batch {
    /// Which wave a host is in, by its place.
    pub(crate) fn wave_of(&self, lane: usize) -> usize {
        let mut end = 0;
        let wave = self.waves.iter().position(|size| {
            end += size;
            lane < end
        });
        wave.unwrap_or_default()
    }

    /// The places of the hosts of each wave.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.waves.iter().scan(0, |begin, size| {
            let range = *begin..*begin + size;
            *begin = range.end;
            Some(range)
        })
    }
}

impl Amount {
    /// Reads `3`, `10%` or `rest`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither a count of hosts from 1, as `3`, nor a share, as `10%`");
        let amount = match text.trim().strip_suffix('%') {
            _ if text.trim() == "rest" => Self::Percent(100),
            Some(share) => Self::Percent(share.trim().parse().map_err(|_| wrong())?),
            None => Self::Count(text.trim().parse().map_err(|_| wrong())?),
        };
        match amount {
            Self::Count(0) | Self::Percent(0 | 101..) => Err(wrong()),
            amount => Ok(amount),
        }
    }

    /// How many that is of so many hosts: rounded down, and at least one.
    pub(crate) fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(share) => (all.saturating_mul(share.into()) / 100).max(1),
        }
    }
}

impl BatchVerb {
    /// In a sentence.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Start => "start",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_count_or_a_share() {
        let of = |text: &str, all| Amount::parse(text).map(|amount| amount.of(all));
        assert_eq!(of("3", 100), Ok(3));
        assert_eq!(of("10%", 100), Ok(10));
        assert_eq!(of(" 10 % ", 19), Ok(1));
        assert_eq!(of("10%", 3), Ok(1));
        assert_eq!(of("rest", 7), Ok(7));
        assert_eq!(of("100%", 7), Ok(7));
        for wrong in ["", "0", "0%", "101%", "-1", "ten", "1.5", "%", "10%%"] {
            assert!(of(wrong, 10).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_is_in_one_wave() {
        let waves = vec![1, 3, 2];
        let batch = Batch {
            verb: BatchVerb::Stop,
            waves,
            parallel: 1,
            stop_after: None,
            stop_after_in_wave: Vec::new(),
            approve_waves: false,
            healthy_for: None,
            absent: Absent::Fail,
            budgets: Vec::new(),
        };
        let of: Vec<_> = (0..6).map(|lane| batch.wave_of(lane)).collect();
        assert_eq!(of, [0, 1, 1, 1, 2, 2]);
        assert_eq!(batch.ranges().collect::<Vec<_>>(), [0..1, 1..4, 4..6]);
    }
}
