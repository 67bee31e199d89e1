//! The stop ladder: which signal is next. A pure function of state, event and time.
//!
//! ask (the stop signal) → wait for the end of the grace → SIGKILL → wait for the proof → give up.
//!
//! That the tree is empty ends a ladder at any rung. This is the business of the life of the process, which drops it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The main process and its process group: it may want to end its children in its own order.
    Group,
    /// Whoever of the tree has not been asked yet: nobody else is left to ask them.
    Rest,
}

/// What a ladder is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The main process is gone, other members of the tree are not.
    MainExited,
    /// Time passed.
    Time,
}

/// What a ladder wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send the stop signal.
    Ask(Scope),
    /// Send SIGKILL to the whole tree.
    Kill,
    /// See what is left, and call the stop failed.
    GiveUp,
}

/// When a ladder does what. Absolute, so that a restart of the agent does not grant a fresh grace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deadlines {
    /// The stop signal was sent.
    pub began: Time,
    /// The grace ends.
    pub kill_at: Time,
    /// The stop has failed.
    pub give_up_at: Time,
}

impl Deadlines {
    /// The deadlines of a stop that begins now. `by` can only shorten them.
    pub(crate) fn new(now: Time, grace: Duration, by: Option<Time>) -> Self {
        let natural = now + grace + PROOF;
        let give_up_at = by.map_or(natural, |by| by.clamp(now, natural));
        // A budget too short for both is shared between asking and proving.
        let proof = PROOF.min((give_up_at - now) / 2);
        Self { began: now, kill_at: (now + grace).min(give_up_at - proof), give_up_at }
    }
}

/// One stop of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ladder {
    deadlines: Deadlines,
    rung: Rung,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rung {
    /// The stop signal was sent.
    Asked { rest_too: bool },
    /// SIGKILL was sent.
    Killed { again_at: Time },
    /// Nothing more can be done.
    GaveUp { killed: bool },
}

impl Ladder {
    /// The ladder of an instance that was never asked. Its first step is to ask.
    pub(crate) fn begin(deadlines: Deadlines) -> (Self, Step) {
        let rung = Rung::Asked { rest_too: false };
        (Self { deadlines, rung }, Step::Ask(Scope::Group))
    }

    /// The ladder of an instance that was asked before this life of the agent. Nobody is asked twice: whether the others
    /// were is not known, so they are not asked at all.
    pub(crate) fn resume(deadlines: Deadlines, now: Time) -> Self {
        let deadlines = Deadlines {
            // Even where everything is overdue, the last kill must have a chance to be proven.
            give_up_at: match now > deadlines.kill_at {
                true => deadlines.give_up_at.max(now + PROOF),
                false => deadlines.give_up_at,
            },
            ..deadlines
        };
        let rung = Rung::Asked { rest_too: true };
        Self { deadlines, rung }
    }

    /// The ladder of a second stop of an instance that outlived the first: it was asked, it had its grace.
    pub(crate) fn again(now: Time) -> (Self, Step) {
        let ladder = Self {
            deadlines: Deadlines { began: now, kill_at: now, give_up_at: now + PROOF },
            rung: Rung::Killed { again_at: now + KILL_AGAIN },
        };
        (ladder, Step::Kill)
    }

    /// What to do now.
    pub(crate) fn on(&mut self, event: Event, now: Time) -> Option<Step> {
        let Deadlines { kill_at, give_up_at, .. } = self.deadlines;
        match (self.rung, event) {
            (Rung::GaveUp { .. }, _) => None,
            (Rung::Asked { rest_too: false }, Event::MainExited) if now < kill_at => {
                self.rung = Rung::Asked { rest_too: true };
                Some(Step::Ask(Scope::Rest))
            }
            (Rung::Asked { .. }, _) if now >= kill_at => {
                self.rung = Rung::Killed { again_at: now + KILL_AGAIN };
                Some(Step::Kill)
            }
            (Rung::Killed { .. }, _) if now >= give_up_at => {
                self.rung = Rung::GaveUp { killed: true };
                Some(Step::GiveUp)
            }
            (Rung::Killed { again_at }, _) if now >= again_at => {
                self.rung = Rung::Killed { again_at: now + KILL_AGAIN };
                Some(Step::Kill)
            }
            (Rung::Asked { .. } | Rung::Killed { .. }, _) => None,
        }
    }

    /// The system refused to signal: nothing more can be done.
    pub(crate) fn refused(&mut self) -> Option<Step> {
        let killed = self.escalated();
        match std::mem::replace(&mut self.rung, Rung::GaveUp { killed }) {
            Rung::GaveUp { .. } => None,
            Rung::Asked { .. } | Rung::Killed { .. } => Some(Step::GiveUp),
        }
    }

    /// When time alone changes something.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        match self.rung {
            Rung::Asked { .. } => Some(self.deadlines.kill_at),
            Rung::Killed { again_at } => Some(again_at.min(self.deadlines.give_up_at)),
            Rung::GaveUp { .. } => None,
        }
    }

    /// When it does what.
    pub(crate) fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// Whether SIGKILL was sent.
    pub(crate) fn escalated(&self) -> bool {
        match self.rung {
            Rung::Asked { .. } => false,
            Rung::Killed { .. } => true,
            Rung::GaveUp { killed } => killed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(secs: u64) -> Time {
        Time::from_secs(secs)
    }

    #[track_caller]
    fn check(grace: u64, budget: Option<u64>, kill_at: u64, give_up_at: u64) {
        let now = secs(100);
        let deadlines = Deadlines::new(now, secs(grace), budget.map(|budget| now + secs(budget)));
        assert_eq!(deadlines.kill_at, now + secs(kill_at));
        assert_eq!(deadlines.give_up_at, now + secs(give_up_at));
    }

    /// Hazard D29: a grace longer than the budget is cut, and the proof keeps its share.
    #[test]
    fn everything_fits_into_the_budget() {
        check(10, None, 10, 15);
        check(10, Some(60), 10, 15);
        check(10, Some(12), 7, 12);
        check(600, Some(20), 15, 20);
        check(10, Some(4), 2, 4);
        check(0, None, 0, 5);
        check(10, Some(0), 0, 0);
    }

    /// Hazard P10.
    #[test]
    fn kills_when_the_grace_is_over_and_gives_up_when_that_does_not_help() {
        let (mut ladder, first) = Ladder::begin(Deadlines::new(secs(0), secs(10), None));
        assert_eq!(first, Step::Ask(Scope::Group));
        assert_eq!(ladder.on(Event::Time, secs(9)), None);
        assert_eq!(ladder.on(Event::Time, secs(10)), Some(Step::Kill));
        assert_eq!(ladder.on(Event::Time, secs(10)), None);
        assert_eq!(ladder.on(Event::Time, secs(11)), Some(Step::Kill));
        assert_eq!(ladder.on(Event::Time, secs(15)), Some(Step::GiveUp));
        assert_eq!(ladder.on(Event::Time, secs(16)), None);
        assert_eq!(ladder.wake_at(), None);
    }

    #[test]
    fn what_the_main_process_leaves_behind_is_asked_once() {
        let (mut ladder, _) = Ladder::begin(Deadlines::new(secs(0), secs(10), None));
        assert_eq!(ladder.on(Event::MainExited, secs(1)), Some(Step::Ask(Scope::Rest)));
        assert_eq!(ladder.on(Event::MainExited, secs(1)), None);
    }

    /// Hazards A01 and D30.
    #[test]
    fn a_resumed_stop_keeps_its_deadline() {
        let deadlines = Deadlines::new(secs(0), secs(10), None);
        let ladder = Ladder::resume(deadlines, secs(7));
        assert_eq!(ladder.wake_at(), Some(secs(10)));
        let mut late = Ladder::resume(deadlines, secs(60));
        assert_eq!(late.on(Event::Time, secs(60)), Some(Step::Kill));
        assert_eq!(late.on(Event::Time, secs(65)), Some(Step::GiveUp));
    }

    proptest! {
        /// Whatever happens, nobody is asked twice or killed early, and the ladder ends by its deadline.
        #[test]
        fn a_ladder_is_fair_and_bounded(
            grace in 0_u64..20_000,
            budget in proptest::option::of(0_u64..40_000),
            resumed in any::<bool>(),
            events in proptest::collection::vec((any::<bool>(), 0_u64..3_000), 1..200),
        ) {
            let mut now = secs(1_000);
            let deadlines = Deadlines::new(
                now,
                Duration::from_millis(grace),
                budget.map(|budget| now + Duration::from_millis(budget)),
            );
            prop_assert!(deadlines.began <= deadlines.kill_at && deadlines.kill_at <= deadlines.give_up_at);
            let (mut ladder, mut steps) = match resumed {
                true => (Ladder::resume(deadlines, now), vec![]),
                false => {
                    let (ladder, step) = Ladder::begin(deadlines);
                    (ladder, vec![step])
                }
            };
            for (main_exited, pause) in events {
                now += Duration::from_millis(pause);
                let event = if main_exited { Event::MainExited } else { Event::Time };
                let step = ladder.on(event, now);
                if step == Some(Step::Kill) {
                    prop_assert!(now >= deadlines.kill_at);
                }
                if step == Some(Step::GiveUp) {
                    prop_assert!(now >= deadlines.give_up_at);
                }
                steps.extend(step);
            }
            let asked = |scope| steps.iter().filter(|step| **step == Step::Ask(scope)).count();
            prop_assert!(asked(Scope::Group) == usize::from(!resumed));
            prop_assert!(asked(Scope::Rest) <= usize::from(!resumed));
            prop_assert!(steps.iter().filter(|step| **step == Step::GiveUp).count() <= 1);
        }
    }
}
