//! The stop ladder: what is next. A pure function of state, event and time.
//!
//! hook → delay → each signal and its wait → SIGKILL → wait for the proof → give up. All of it fits into one budget, which
//! is absolute: a restart of the agent does not grant a fresh grace.
//!
//! That the tree is empty ends a ladder at any rung. This is the business of the life of the process, which drops it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    config::{Kill, StopConfig},
    process::RungReport,
    signal::Signal,
};

/// Time since the host booted, time asleep included. It is what deadlines are kept in: it outlives the agent, and nobody
/// can set it.
pub(crate) type Time = Duration;

/// From SIGKILL to giving up. The kernel ends a killed process at once unless it is in uninterruptible sleep.
pub(crate) const PROOF: Duration = Duration::from_secs(5);

/// What a stop may take beyond its ladder: to look at the leftovers, to write down the outcome and to answer.
pub(crate) const MARGIN: Duration = Duration::from_secs(1);

/// How often SIGKILL is repeated: without `cgroup.kill` a fork may slip through one round.
const KILL_AGAIN: Duration = Duration::from_millis(250);

/// Whom a stop signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// The main process and its process group: it may want to end its children in its own order.
    Group,
    /// Whoever of the tree has not got this signal yet: nobody else is left to ask them.
    Rest,
}

/// What a ladder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The hook has ended, however.
    HookEnded,
    /// The main process is gone, other members of the tree are not.
    MainExited,
    /// An operator wants no more patience.
    Force,
    /// Time passed.
    Time,
}

/// What a ladder wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Run the hook, until then at the longest.
    Hook { until: Time },
    /// Nothing but wait.
    Pause,
    /// Send a stop signal.
    Ask(Signal, Scope),
    /// Send SIGKILL to the whole tree.
    Kill,
    /// See what is left, and call the stop failed.
    GiveUp,
}

/// What a stop is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// How long the hook may take, where there is one.
    hook: Option<Duration>,
    /// The pause after it.
    delay: Duration,
    /// What asks the process to end, and how long each is waited for.
    signals: Vec<(Signal, Duration)>,
    /// Whether it is killed in the end.
    kills: bool,
}

impl From<&StopConfig> for Plan {
    fn from(config: &StopConfig) -> Self {
        Self {
            hook: config.before.as_ref().map(|hook| hook.timeout),
            delay: config.delay,
            signals: config.signals.iter().map(|rung| (rung.signal, rung.wait)).collect(),
            kills: config.kill == Kill::AfterGrace,
        }
    }
}

impl Plan {
    /// The longest that a stop takes, from its beginning to giving up.
    pub(crate) fn budget(&self) -> Duration {
        self.grace() + if self.kills { PROOF } else { Duration::ZERO }
    }

    /// Whether a process that did not end is killed.
    pub(crate) fn kills(&self) -> bool {
        self.kills
    }

    /// The last signal before SIGKILL, and how long it is waited for.
    #[cfg(test)]
    pub(crate) fn last_signal(&self) -> (Signal, Duration) {
        *self.signals.last().expect("a signal")
    }

    fn grace(&self) -> Duration {
        let waits: Duration = self.signals.iter().map(|(_, wait)| *wait).sum();
        self.hook.unwrap_or_default() + self.delay + waits
    }
}

/// One stop of one instance. It is written down at each rung, so that another life of the agent goes on with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Ladder {
    plan: Plan,
    began: Time,
    /// The asking ends.
    kill_at: Time,
    /// The stop has failed.
    give_up_at: Time,
    rung: Rung,
    /// Whether the main process is gone.
    main_gone: bool,
    /// What was done so far, and when.
    passed: Vec<(String, Time)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rung {
    /// The hook runs.
    Hook { until: Time },
    /// It is waited for the world to take notice.
    Delay { until: Time },
    /// A signal was sent, the one with this place in the plan.
    Asked { place: usize, until: Time, rest_too: bool },
    /// SIGKILL was sent.
    Killed { again_at: Time },
    /// Nothing more can be done.
    GaveUp { killed: bool },
}

impl Ladder {
    /// The ladder of a stop that begins now. `by` can only shorten it.
    pub(crate) fn begin(plan: Plan, now: Time, by: Option<Time>) -> (Self, Step) {
        let natural = now + plan.budget();
        let give_up_at = by.map_or(natural, |by| by.clamp(now, natural));
        // A budget too short for both is shared between asking and proving.
        let proof = if plan.kills { PROOF.min((give_up_at - now) / 2) } else { Duration::ZERO };
        let kill_at = (now + plan.grace()).min(give_up_at - proof);
        let rung = Rung::Hook { until: now };
        let mut ladder =
            Self { plan, began: now, kill_at, give_up_at, rung, main_gone: false, passed: Vec::new() };
        let step = ladder.first(now);
        (ladder, step)
    }

    /// The same ladder in another life of the agent. Nobody is asked twice: whether the children were asked too is not
    /// known, so they are not.
    pub(crate) fn resume(mut self, now: Time) -> Self {
        if let Rung::Asked { rest_too, .. } = &mut self.rung {
            *rest_too = true;
        }
        // Even where everything is overdue, the last kill must have a chance to be proven.
        if now > self.kill_at && self.plan.kills {
            self.give_up_at = self.give_up_at.max(now + PROOF);
        }
        self
    }

    /// The ladder of an instance that is killed without being asked: it had its grace, or an operator wants it so.
    pub(crate) fn kill(plan: Plan, now: Time) -> (Self, Step) {
        let mut ladder = Self {
            plan,
            began: now,
            kill_at: now,
            give_up_at: now + PROOF,
            rung: Rung::GaveUp { killed: false },
            main_gone: false,
            passed: Vec::new(),
        };
        let step = ladder.strike(now);
        (ladder, step)
    }

    /// What to do now.
    pub(crate) fn on(&mut self, event: Event, now: Time) -> Option<Step> {
        self.main_gone |= event == Event::MainExited;
        match (self.rung, event) {
            (Rung::GaveUp { .. }, _) => None,
            (Rung::Killed { .. }, _) if now >= self.give_up_at => Some(self.give_up()),
            (Rung::Killed { again_at }, _) if now >= again_at => {
                self.rung = Rung::Killed { again_at: now + KILL_AGAIN };
                Some(Step::Kill)
            }
            (Rung::Killed { .. }, _) => None,
            (_, Event::Force) => {
                self.give_up_at = now + PROOF;
                Some(self.strike(now))
            }
            (Rung::Hook { .. } | Rung::Delay { .. }, _) if now >= self.kill_at => Some(self.ask_late(now)),
            (_, _) if now >= self.kill_at => Some(self.end_of_asking(now)),
            (Rung::Hook { .. }, Event::HookEnded) => Some(self.after_hook(now)),
            (Rung::Hook { until }, _) if now >= until => Some(self.after_hook(now)),
            (Rung::Delay { until }, _) if now >= until => Some(self.ask(0, now)),
            (Rung::Asked { place, until, .. }, _) if now >= until => Some(self.ask(place + 1, now)),
            (Rung::Asked { place, until, rest_too: false }, Event::MainExited) => {
                self.rung = Rung::Asked { place, until, rest_too: true };
                let signal = self.plan.signals.get(place).map(|(signal, _)| *signal);
                signal.map(|signal| Step::Ask(signal, Scope::Rest))
            }
            (Rung::Hook { .. } | Rung::Delay { .. } | Rung::Asked { .. }, _) => None,
        }
    }

    /// The system refused to signal: nothing more can be done.
    pub(crate) fn refused(&mut self) -> Option<Step> {
        match self.rung {
            Rung::GaveUp { .. } => None,
            _ => Some(self.give_up()),
        }
    }

    /// When time alone changes something.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        match self.rung {
            Rung::Hook { until } | Rung::Delay { until } | Rung::Asked { until, .. } => {
                Some(until.min(self.kill_at))
            }
            Rung::Killed { again_at } => Some(again_at.min(self.give_up_at)),
            Rung::GaveUp { .. } => None,
        }
    }

    /// When it began.
    pub(crate) fn began(&self) -> Time {
        self.began
    }

    /// Whether SIGKILL was sent.
    pub(crate) fn escalated(&self) -> bool {
        matches!(self.rung, Rung::Killed { .. } | Rung::GaveUp { killed: true })
    }

    /// What it went through until now, and how long each rung lasted.
    pub(crate) fn report(&self, now: Time) -> Vec<RungReport> {
        let ends = self.passed.iter().skip(1).map(|(_, at)| *at).chain([now]);
        let rungs = self.passed.iter().zip(ends);
        rungs
            .map(|((step, at), end)| RungReport { step: step.clone(), duration: end.saturating_sub(*at) })
            .collect()
    }

    fn first(&mut self, now: Time) -> Step {
        if now >= self.kill_at {
            return self.end_of_asking(now);
        }
        let Some(timeout) = self.plan.hook else {
            return self.after_hook(now);
        };
        let until = (now + timeout).min(self.signals_at());
        self.rung = Rung::Hook { until };
        self.pass("hook", now);
        Step::Hook { until }
    }

    fn after_hook(&mut self, now: Time) -> Step {
        let until = (now + self.plan.delay).min(self.signals_at());
        if until <= now {
            return self.ask(0, now);
        }
        self.rung = Rung::Delay { until };
        self.pass("delay", now);
        Step::Pause
    }

    /// When the first signal is sent at the latest: where the budget was cut, the signals keep their share of it.
    fn signals_at(&self) -> Time {
        let asking = self.kill_at - self.began;
        let waits: Duration = self.plan.signals.iter().map(|(_, wait)| *wait).sum();
        self.kill_at - waits.min(asking / 2).max(asking.saturating_sub(self.plan.grace() - waits))
    }

    fn ask(&mut self, place: usize, now: Time) -> Step {
        match self.plan.signals.get(place) {
            Some((signal, wait)) if now < self.kill_at => {
                let (signal, until) = (*signal, (now + *wait).min(self.kill_at));
                // Where the main process is gone, all are asked at once.
                self.rung = Rung::Asked { place, until, rest_too: self.main_gone };
                self.pass(&signal.to_string(), now);
                Step::Ask(signal, Scope::Group)
            }
            _ => self.end_of_asking(now),
        }
    }

    /// The time for asking went by while nobody looked: the agent was away, or asleep. Nobody is killed who was not asked.
    fn ask_late(&mut self, now: Time) -> Step {
        let wait = self.plan.signals.first().map_or(Duration::ZERO, |(_, wait)| *wait);
        self.kill_at = now + wait.clamp(KILL_AGAIN, PROOF);
        self.give_up_at = self.kill_at + if self.plan.kills { PROOF } else { Duration::ZERO };
        self.ask(0, now)
    }

    fn end_of_asking(&mut self, now: Time) -> Step {
        if self.plan.kills { self.strike(now) } else { self.give_up() }
    }

    fn strike(&mut self, now: Time) -> Step {
        self.rung = Rung::Killed { again_at: now + KILL_AGAIN };
        self.pass(&Signal::KILL.to_string(), now);
        Step::Kill
    }

    fn give_up(&mut self) -> Step {
        self.rung = Rung::GaveUp { killed: self.escalated() };
        Step::GiveUp
    }

    fn pass(&mut self, step: &str, now: Time) {
        self.passed.push((step.to_owned(), now));
    }
}

#[cfg(test)]
mod tests;
