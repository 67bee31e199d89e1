//! Operations: accepted orders, and what becomes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use belay_proto::{Problem, Reason, Trace};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    process::{Alias, Observed},
    stop::Time,
};

/// What an order wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verb {
    /// Stop.
    Stop,
    /// Start.
    Start,
    /// Stop, then start.
    Restart,
}

/// Which processes an order is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// One process.
    One(Alias),
    /// Every declared process.
    All,
    /// These.
    These(BTreeSet<Alias>),
}

/// An order as it arrives, checked for its form.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The operation's id.
    pub id: Uuid,
    /// The epoch of the server that orders. `None` where a person on the host does, who is never behind the times.
    pub epoch: Option<u64>,
    /// Who ordered.
    pub principal: String,
    /// How long the work may take.
    pub budget: Option<Duration>,
    /// What is to be done.
    pub verb: Verb,
    /// Whether a stop kills without asking.
    pub force: bool,
    /// To which processes.
    pub target: Target,
    /// The trace of the call.
    pub trace: String,
}

impl Order {
    /// An order that a person gives on the host itself, now.
    pub(crate) fn local(verb: Verb, force: bool, target: Target, principal: String) -> Self {
        let id = Uuid::now_v7();
        let trace = Trace::of_operation(id.into_bytes()).to_string();
        Self { id, epoch: None, principal, budget: None, verb, force, target, trace }
    }
}

/// An order that was accepted, as it is written down before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// The operation's id.
    pub id: Uuid,
    /// What is to be done.
    pub verb: Verb,
    /// To which processes: those of a wave at the same time, one wave after the other.
    pub waves: Vec<Vec<Alias>>,
    /// The epoch of the server that ordered, or the highest seen where a person on the host did.
    pub epoch: u64,
    /// Whether a person on the host ordered it.
    #[serde(default)]
    pub local: bool,
    /// Who ordered.
    pub principal: String,
    /// The trace of the first call.
    pub trace: String,
    /// When it was accepted.
    pub at: Timestamp,
    /// By when it must have ended.
    pub deadline: Time,
    /// How many instances there had been of each process.
    pub generations: BTreeMap<Alias, u64>,
    /// Whose state it is about to change.
    pub changes: BTreeSet<Alias>,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Why it failed; `None` where it did not.
    pub failure: Option<Failure>,
    /// Each process that it concerned, as it was then.
    pub processes: Vec<Observed>,
    /// Those whose state it changed.
    pub changed: BTreeSet<Alias>,
    /// When it ended.
    pub at: Timestamp,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The stable text of a [`Reason`].
    pub reason: String,
    /// The reason in a sentence.
    pub message: String,
}

/// An operation as it stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// Its id.
    pub id: Uuid,
    /// How it ended; `None` while it goes on.
    pub outcome: Option<Outcome>,
    /// Where it goes on: each process that it concerns, as it is.
    pub processes: Vec<Observed>,
}

/// An operation that goes on.
#[derive(Debug)]
pub(crate) struct Running {
    /// The order.
    pub accepted: Accepted,
    /// Its place in the order of acceptance. The last one to name a process wins.
    pub number: u64,
    /// The trace of the order, for whatever is logged on its behalf.
    pub span: tracing::Span,
    /// The current wave.
    wave: usize,
    /// Those of the current wave that have not ended.
    pending: BTreeSet<Alias>,
    failures: Vec<(Alias, Reason, String)>,
    changed: BTreeSet<Alias>,
    /// Tells whoever waits.
    pub ended: watch::Sender<Option<Outcome>>,
}

impl Running {
    /// An operation of which nothing was done yet.
    pub(crate) fn new(accepted: Accepted, number: u64, span: tracing::Span) -> Self {
        Self {
            pending: accepted.waves.first().into_iter().flatten().cloned().collect(),
            changed: accepted.changes.clone(),
            accepted,
            number,
            span,
            wave: 0,
            failures: Vec::new(),
            ended: watch::Sender::new(None),
        }
    }

    /// Those whose turn it is.
    pub(crate) fn current_wave(&self) -> Vec<Alias> {
        self.pending.iter().cloned().collect()
    }

    /// The current wave and those after it.
    pub(crate) fn remaining_waves(&self) -> &[Vec<Alias>] {
        self.accepted.waves.get(self.wave..).unwrap_or_default()
    }

    /// Takes in how it went for one process. Ignores what it does not wait for.
    pub(crate) fn take(&mut self, alias: &Alias, result: Result<(), (Reason, String)>) -> Progress {
        if !self.pending.remove(alias) {
            return Progress::Waits;
        }
        if let Err((reason, message)) = result {
            if reason == Reason::Superseded {
                self.changed.remove(alias);
            }
            self.failures.push((alias.clone(), reason, message));
        }
        while self.pending.is_empty() {
            self.wave += 1;
            match self.accepted.waves.get(self.wave) {
                Some(wave) => self.pending = wave.iter().cloned().collect(),
                None => return Progress::Ended,
            }
            if !self.pending.is_empty() {
                return Progress::NextWave;
            }
        }
        Progress::Waits
    }

    /// Its end, as it is written down and told.
    pub(crate) fn outcome(&self, processes: Vec<Observed>, at: Timestamp) -> Outcome {
        // What is alive against the wish weighs more than what was overtaken.
        let worst = self.failures.iter().min_by_key(|(_, reason, _)| matches!(reason, Reason::Superseded));
        let failure = worst.map(|(_, reason, _)| Failure {
            reason: reason.as_str().to_owned(),
            message: self
                .failures
                .iter()
                .map(|(_, _, message)| message.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        });
        Outcome { failure, processes, changed: self.changed.clone(), at }
    }
}

/// How an operation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Others of the wave have not ended.
    Waits,
    /// The next wave begins.
    NextWave,
    /// It has ended.
    Ended,
}

/// Says that an order comes from a server that was replaced.
pub(crate) fn stale_epoch(epoch: u64, highest: u64) -> Problem {
    Problem::new(
        Reason::StaleEpoch,
        format!("the order carries epoch {epoch}, and epoch {highest} was seen before"),
    )
    .hint("the server that sent it was replaced: send the order to the one that took over")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(text: &str) -> Alias {
        Alias::try_from(text.to_owned()).unwrap()
    }

    fn running(waves: &[&[&str]]) -> Running {
        let waves = waves.iter().map(|wave| wave.iter().map(|a| alias(a)).collect());
        let accepted = Accepted {
            id: Uuid::nil(),
            verb: Verb::Stop,
            waves: waves.collect(),
            epoch: 1,
            local: false,
            principal: String::new(),
            trace: String::new(),
            at: Timestamp::UNIX_EPOCH,
            deadline: Time::ZERO,
            generations: BTreeMap::new(),
            changes: [alias("a"), alias("b")].into(),
        };
        Running::new(accepted, 1, tracing::Span::none())
    }

    #[test]
    fn a_failure_does_not_hold_the_next_wave() {
        let mut operation = running(&[&["a", "b"], &["c"]]);
        let left = Err((Reason::Leftovers, "process 7 is alive".to_owned()));
        assert_eq!(operation.take(&alias("a"), left), Progress::Waits);
        assert_eq!(operation.take(&alias("a"), Ok(())), Progress::Waits);
        assert_eq!(operation.take(&alias("b"), Ok(())), Progress::NextWave);
        assert_eq!(operation.current_wave(), [alias("c")]);
        assert_eq!(operation.take(&alias("c"), Ok(())), Progress::Ended);
        let outcome = operation.outcome(Vec::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(outcome.failure.unwrap().reason, "LEFTOVERS");
    }

    #[test]
    fn who_was_overtaken_changed_nothing() {
        let mut operation = running(&[&["a"]]);
        let overtaken = Err((Reason::Superseded, "overtaken".to_owned()));
        assert_eq!(operation.take(&alias("a"), overtaken), Progress::Ended);
        let outcome = operation.outcome(Vec::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(outcome.changed, [alias("b")].into());
    }
}
