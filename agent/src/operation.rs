//! Operations: accepted orders, and what becomes of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
    /// Only where the one process that it is for is at one of these generations. Empty means whichever it is at.
    pub generations: Vec<u64>,
    /// Of a restart of one process: one that runs and was started after this is left as it is.
    pub not_started_after: Option<Timestamp>,
    /// The trace of the call.
    pub trace: String,
}

impl Order {
    /// An order that a person gives on the host itself, now.
    pub(crate) fn local(verb: Verb, force: bool, target: Target, principal: String) -> Self {
        let id = Uuid::now_v7();
        let trace = Trace::of_operation(id.into_bytes()).to_string();
        Self {
            id,
            epoch: None,
            principal,
            budget: None,
            verb,
            force,
            target,
            generations: Vec::new(),
            not_started_after: None,
            trace,
        }
    }
}

/// An order that was accepted, as it is written down before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// The operation's id.
    pub id: Uuid,
    /// What is to be done.
    pub verb: Verb,
    /// Whether a stop kills without asking.
    #[serde(default)]
    pub force: bool,
    /// To which processes.
    pub queue: Queue,
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
    /// Who was wanted running before it.
    #[serde(default)]
    pub wanted: BTreeSet<Alias>,
    /// Those that are left alone because it was cancelled before their turn; `None` where it was not cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<BTreeSet<Alias>>,
    /// Those that it is for and leaves alone, because this host protects them from it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub spared: BTreeSet<Alias>,
}

impl Accepted {
    /// Whether it was cancelled before the turn of this process.
    pub(crate) fn leaves_alone(&self, alias: &Alias) -> bool {
        self.cancelled.as_ref().is_some_and(|left_alone| left_alone.contains(alias))
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Why it failed; `None` where it did not.
    pub failure: Option<Failure>,
    /// Each process that it concerned, as it was then; none where that is not remembered any more.
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
    /// Whether it is the agent's own, at its start: of that nobody asks for the outcome, and nothing is written down.
    pub is_own: bool,
    /// Those that have not ended, each with those before it that have not.
    left: Queue,
    /// Those that got their turn.
    turned: BTreeSet<Alias>,
    failures: Vec<(Alias, Reason, String)>,
    changed: BTreeSet<Alias>,
    /// Tells whoever waits.
    pub ended: watch::Sender<Option<Outcome>>,
}

impl Running {
    /// An operation of which nothing was done yet.
    pub(crate) fn new(accepted: Accepted, number: u64, span: tracing::Span) -> Self {
        let mut operation = Self {
            left: accepted.queue.clone(),
            changed: accepted.changes.clone(),
            accepted,
            number,
            span,
            is_own: false,
            turned: BTreeSet::new(),
            failures: Vec::new(),
            ended: watch::Sender::new(None),
        };
        for alias in operation.accepted.cancelled.clone().into_iter().flatten() {
            operation.leave_alone(alias);
        }
        let spared = operation.accepted.spared.iter();
        operation.failures.extend(spared.map(|alias| {
            let message = format!("`{alias}` was left as it is: the policy of this host protects it");
            (alias.clone(), Reason::ProcessProtected, message)
        }));
        operation
    }

    /// Gives a turn to those for whom nobody before them is left, and tells who they are.
    pub(crate) fn next_turns(&mut self) -> Vec<Alias> {
        let ready = self.left.heads().filter(|alias| !self.turned.contains(*alias));
        let ready: Vec<_> = ready.cloned().collect();
        self.turned.extend(ready.iter().cloned());
        ready
    }

    /// Those that have had their turn and have not ended.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = &Alias> {
        self.turned.iter().filter(|alias| self.left.holds(alias))
    }

    /// Those that have not ended.
    pub(crate) fn left(&self) -> &Queue {
        &self.left
    }

    /// Whether all have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    /// Takes in how it went for one process. Says whether it was waited for.
    pub(crate) fn take(&mut self, alias: &Alias, result: Result<(), (Reason, String)>) -> bool {
        if !self.turned.contains(alias) || !self.left.remove(alias) {
            return false;
        }
        if let Err((reason, message)) = result {
            if reason == Reason::Superseded {
                self.changed.remove(alias);
            }
            self.failures.push((alias.clone(), reason, message));
        }
        true
    }

    /// Takes out those that had no turn yet, and tells who they are.
    pub(crate) fn cancel(&mut self) -> Vec<Alias> {
        let waiting = self.left.aliases().filter(|alias| !self.turned.contains(*alias));
        let waiting: Vec<_> = waiting.cloned().collect();
        self.accepted.cancelled.get_or_insert_default().extend(waiting.iter().cloned());
        for alias in &waiting {
            self.leave_alone(alias.clone());
        }
        waiting
    }

    fn leave_alone(&mut self, alias: Alias) {
        self.left.remove(&alias);
        self.changed.remove(&alias);
        let message = format!("`{alias}` was left alone: the order was cancelled before its turn");
        self.failures.push((alias, Reason::Cancelled, message));
    }

    /// Its end, as it is written down and told.
    pub(crate) fn outcome(&self, processes: Vec<Observed>, at: Timestamp) -> Outcome {
        // What is alive against the wish weighs more than what was spared, overtaken or cancelled.
        let mildness = |reason: &Reason| match reason {
            Reason::Superseded | Reason::Cancelled => 2,
            Reason::ProcessProtected => 1,
            _ => 0,
        };
        let worst = self.failures.iter().min_by_key(|(_, reason, _)| mildness(reason));
        let failure = worst.map(|(_, reason, _)| Failure {
            reason: reason.as_str().to_owned(),
            message: self
                .failures
                .iter()
                .map(|(_, _, message)| message.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        });
        let never_arrived = self.accepted.queue.is_empty() && self.accepted.cancelled.is_some();
        let failure = failure.or_else(|| never_arrived.then(cancelled_before_it_arrived));
        Outcome { failure, processes, changed: self.changed.clone(), at }
    }
}

/// Processes, each with those that come before it. Without circles: the configuration was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue(BTreeMap<Alias, BTreeSet<Alias>>);

impl Queue {
    /// These processes, with who comes before whom. Those before that are not in it themselves do not count.
    pub(crate) fn new(mut before: BTreeMap<Alias, BTreeSet<Alias>>) -> Self {
        let known: BTreeSet<_> = before.keys().cloned().collect();
        before.values_mut().for_each(|earlier| earlier.retain(|alias| known.contains(alias)));
        Self(before)
    }

    /// One process alone.
    pub(crate) fn one(alias: Alias) -> Self {
        Self(BTreeMap::from([(alias, BTreeSet::new())]))
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The same processes the other way round: who came first comes last.
    #[must_use]
    pub(crate) fn reversed(&self) -> Self {
        let mut reversed: BTreeMap<_, BTreeSet<Alias>> =
            self.0.keys().map(|alias| (alias.clone(), BTreeSet::new())).collect();
        for (alias, earlier) in &self.0 {
            for earlier in earlier {
                reversed.entry(earlier.clone()).or_default().insert(alias.clone());
            }
        }
        Self(reversed)
    }

    /// All of them.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &Alias> {
        self.0.keys()
    }

    /// Whether it is among them.
    pub(crate) fn holds(&self, alias: &Alias) -> bool {
        self.0.contains_key(alias)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those before whom nobody comes.
    pub(crate) fn heads(&self) -> impl Iterator<Item = &Alias> {
        self.0.iter().filter(|(_, earlier)| earlier.is_empty()).map(|(alias, _)| alias)
    }

    /// Who has a turn when, from 1: each after all that come before it.
    pub(crate) fn turns(&self) -> BTreeMap<Alias, u32> {
        let (mut left, mut turns) = (self.clone(), BTreeMap::new());
        for turn in 1.. {
            let heads: Vec<_> = left.heads().cloned().collect();
            if heads.is_empty() {
                break;
            }
            for alias in heads {
                left.remove(&alias);
                turns.insert(alias, turn);
            }
        }
        turns
    }

    /// What the longest way through them takes.
    pub(crate) fn longest_way(&self, cost: impl Fn(&Alias) -> Duration) -> Duration {
        let mut known = HashMap::new();
        let ways = self.0.keys().map(|alias| self.way(alias, &cost, &Self::earlier, &mut known));
        ways.max().unwrap_or_default()
    }

    /// What the longest way from one of them to the end takes, itself counted. Nothing for whoever is not among them.
    pub(crate) fn way_from(&self, alias: &Alias, cost: impl Fn(&Alias) -> Duration) -> Duration {
        let known = self.0.get_key_value(alias);
        known.map_or(Duration::ZERO, |(alias, _)| self.way(alias, &cost, &Self::later, &mut HashMap::new()))
    }

    fn way<'a>(
        &'a self,
        alias: &'a Alias,
        cost: &impl Fn(&Alias) -> Duration,
        then: &impl Fn(&'a Self, &Alias) -> Vec<&'a Alias>,
        known: &mut HashMap<&'a Alias, Duration>,
    ) -> Duration {
        if let Some(way) = known.get(alias) {
            return *way;
        }
        let rest = then(self, alias).into_iter().map(|next| self.way(next, cost, then, known)).max();
        let way = cost(alias) + rest.unwrap_or_default();
        known.insert(alias, way);
        way
    }

    fn earlier(&self, alias: &Alias) -> Vec<&Alias> {
        self.0.get(alias).into_iter().flatten().collect()
    }

    fn later(&self, alias: &Alias) -> Vec<&Alias> {
        self.0.iter().filter(|(_, earlier)| earlier.contains(alias)).map(|(later, _)| later).collect()
    }

    /// Takes one out. Says whether it was there.
    fn remove(&mut self, alias: &Alias) -> bool {
        self.0.values_mut().for_each(|earlier| {
            earlier.remove(alias);
        });
        self.0.remove(alias).is_some()
    }
}

fn cancelled_before_it_arrived() -> Failure {
    let message = "the order was cancelled before it arrived".to_owned();
    Failure { reason: Reason::Cancelled.as_str().to_owned(), message }
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

    fn queue(pairs: &[(&str, &[&str])]) -> Queue {
        let aliases = |names: &[&str]| names.iter().map(|name| alias(name)).collect();
        Queue::new(pairs.iter().map(|(name, earlier)| (alias(name), aliases(earlier))).collect())
    }

    fn running(queue: Queue) -> Running {
        let accepted = Accepted {
            id: Uuid::nil(),
            verb: Verb::Stop,
            force: false,
            queue,
            epoch: 1,
            local: false,
            principal: String::new(),
            trace: String::new(),
            at: Timestamp::UNIX_EPOCH,
            deadline: Time::ZERO,
            generations: BTreeMap::new(),
            changes: [alias("a"), alias("b")].into(),
            wanted: BTreeSet::new(),
            cancelled: None,
            spared: BTreeSet::new(),
        };
        Running::new(accepted, 1, tracing::Span::none())
    }

    #[test]
    fn a_failure_does_not_hold_those_after_it() {
        let mut operation = running(queue(&[("a", &[]), ("b", &[]), ("c", &["a", "b"])]));
        assert_eq!(operation.next_turns(), [alias("a"), alias("b")]);
        assert!(!operation.take(&alias("c"), Ok(())), "it had no turn");
        let left = Err((Reason::Leftovers, "process 7 is alive".to_owned()));
        assert!(operation.take(&alias("a"), left));
        assert!(!operation.take(&alias("a"), Ok(())), "it has ended");
        assert_eq!(operation.next_turns(), []);
        assert!(operation.take(&alias("b"), Ok(())));
        assert_eq!(operation.next_turns(), [alias("c")]);
        assert_eq!(operation.under_way().collect::<Vec<_>>(), [&alias("c")]);
        assert!(operation.take(&alias("c"), Ok(())));
        assert!(operation.is_over());
        let outcome = operation.outcome(Vec::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(outcome.failure.unwrap().reason, "LEFTOVERS");
    }

    #[test]
    fn who_was_overtaken_changed_nothing() {
        let mut operation = running(queue(&[("a", &[])]));
        operation.next_turns();
        let overtaken = Err((Reason::Superseded, "overtaken".to_owned()));
        assert!(operation.take(&alias("a"), overtaken));
        let outcome = operation.outcome(Vec::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(outcome.changed, [alias("b")].into());
    }

    #[test]
    fn a_cancel_leaves_alone_who_had_no_turn() {
        let mut operation = running(queue(&[("a", &[]), ("b", &["a"])]));
        operation.next_turns();
        assert_eq!(operation.cancel(), [alias("b")]);
        assert!(!operation.is_over(), "what has begun goes on");
        assert!(operation.take(&alias("a"), Ok(())));
        assert!(operation.is_over());
        let outcome = operation.outcome(Vec::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(
            (outcome.failure.unwrap().reason, outcome.changed),
            ("CANCELLED".into(), [alias("a")].into())
        );
    }

    /// Nobody waits for somebody who does not concern it.
    #[test]
    fn a_stop_goes_the_other_way_round() {
        let start = queue(&[("db", &[]), ("app", &["db"]), ("web", &["app"]), ("cron", &["absent"])]);
        let mut stop = running(start.reversed());
        assert_eq!(stop.next_turns(), [alias("cron"), alias("web")]);
        assert!(stop.take(&alias("web"), Ok(())));
        assert_eq!(stop.next_turns(), [alias("app")]);
        let turns = start.turns().into_iter().map(|(alias, turn)| (String::from(alias), turn));
        let expected = [("app", 2), ("cron", 1), ("db", 1), ("web", 3)];
        assert_eq!(turns.collect::<Vec<_>>(), expected.map(|(name, turn)| (name.to_owned(), turn)));
        let second = |_: &Alias| Duration::from_secs(1);
        let way = |name| start.way_from(&alias(name), second).as_secs();
        assert_eq!(["app", "cron", "db", "web", "absent"].map(way), [2, 1, 3, 1, 0]);
        assert_eq!(start.longest_way(second).as_secs(), 3);
    }
}
