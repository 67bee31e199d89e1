//! The life of one declared process: a pure state machine.
//!
//! stopped → starting → running → stopping → stopped, with back-off between an ending that nobody wanted and the next
//! start, and failed where it could not be started or could not be stopped. An instance lives as long as anything of its
//! tree does: a main process that went away and left children is still running.

mod backoff;

use std::time::Duration;

use serde::Deserialize;

pub use self::backoff::Backoff;
use crate::{
    process::{Exit, Phase},
    stop::{self, Deadlines, Ladder, Scope, Step, Time},
};

/// How long a new instance must live before its start counts as done: one that dies of a wrong argument or a taken port
/// does so at once.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

/// A spell after which earlier endings are forgotten.
const HEALTHY: Duration = Duration::from_secs(10);

/// Whether a process that ended by itself is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// However it ended.
    #[default]
    Always,
    /// Unless it exited with 0.
    OnFailure,
    /// Never.
    Never,
}

impl Restart {
    /// Whether an instance that ended so is followed by another.
    pub fn wants_another_after(self, exit: Exit) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit != Exit::Code(0),
            Self::Never => false,
        }
    }
}

/// What of the configuration decides about a life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Whether it is started again.
    pub restart: Restart,
    /// From the stop signal to SIGKILL.
    pub grace: Duration,
}

/// What happens to a process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// An operator wants it stopped, by a time.
    Stop { by: Option<Time> },
    /// An operator wants it running.
    Start,
    /// An operator wants a new instance of it.
    Restart { by: Option<Time> },
    /// What an operator wants is known, its turn comes later.
    Wish { running: bool },
    /// A new instance runs its program.
    Started,
    /// No new instance could be made.
    NotStarted { why: String },
    /// The main process is gone, other members of the tree are not.
    MainExited { exit: Exit },
    /// The tree is empty. `exit` where the main process went last.
    Emptied { exit: Option<Exit> },
    /// The system refused to signal it.
    Refused { why: String },
    /// The leftovers of a stop that gave up were looked at.
    Surveyed,
    /// Time passed.
    Time,
}

/// What is to be done because of it, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Make a new instance.
    Spawn,
    /// Send the stop signal. With the deadlines that are to be written down first.
    Ask(Scope, Deadlines),
    /// Send SIGKILL to the whole tree.
    Kill,
    /// See what is left alive.
    Survey,
    /// The instance is proven gone: report how it ended.
    Gone {
        exit: Exit,
        /// Where it was stopped: since when, and whether SIGKILL was needed.
        stopped: Option<(Time, bool)>,
    },
    /// A new instance has settled: look at it.
    Look,
    /// Whoever waits for the stop has an answer.
    StopsEnd(Result<(), Fault>),
    /// Whoever waits for a start has an answer.
    StartsEnd(Result<(), Fault>),
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// A newer order took its place.
    Superseded,
    /// Something is still alive.
    Leftovers,
    /// The system refused to signal it.
    Refused { why: String },
    /// It could not be started, or ended at once.
    NotStarted { why: String },
}

/// The moment of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// When it is.
    pub now: Time,
    /// A random number in `0.0..1.0`.
    pub roll: f64,
}

/// The life of one process.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    rules: Rules,
    state: State,
    /// Whether an operator wants it running.
    desired: bool,
    /// By when the stop that interrupted a start must have ended.
    stop_by: Option<Time>,
    /// Whether this instance got its stop signal.
    asked: bool,
    /// How the main process of this instance ended, where others outlive it.
    exit: Option<Exit>,
    /// How often in a row it ended too soon.
    endings: u32,
}

#[derive(Debug, Clone)]
enum State {
    Stopped,
    Starting,
    Running { since: Time, settled: bool },
    Stopping { ladder: Ladder, refused: Option<String> },
    Backoff { until: Time },
    Failed { alive: bool },
}

impl Life {
    /// A process of which nothing is alive.
    pub(crate) fn stopped(rules: Rules, desired: bool) -> Self {
        Self { rules, state: State::Stopped, desired, stop_by: None, asked: false, exit: None, endings: 0 }
    }

    /// A process that was taken back alive, from an earlier life of the agent.
    pub(crate) fn running(rules: Rules, desired: bool, now: Time) -> Self {
        let state = State::Running { since: now, settled: true };
        Self { state, ..Self::stopped(rules, desired) }
    }

    /// A process that was taken back in the middle of a stop.
    pub(crate) fn stopping(rules: Rules, desired: bool, deadlines: Deadlines, now: Time) -> Self {
        let state = State::Stopping { ladder: Ladder::resume(deadlines, now), refused: None };
        Self { state, asked: true, ..Self::stopped(rules, desired) }
    }

    /// Follows other rules from now on. A stop that is under way goes on as it began.
    pub(crate) fn follow(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Where it is in its life.
    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            // Until the program runs there is nothing of it.
            State::Stopped | State::Starting => Phase::Stopped,
            State::Running { .. } => Phase::Running,
            State::Stopping { .. } => Phase::Stopping,
            State::Backoff { .. } => Phase::Backoff,
            State::Failed { .. } => Phase::Failed,
        }
    }

    /// Whether an operator wants it running.
    pub(crate) fn desired(&self) -> bool {
        self.desired
    }

    /// Whether nothing of it is alive or about to be, without a fault.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Whether something of it is alive, and nobody is stopping it.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// When time alone changes something.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        match &self.state {
            State::Running { since, settled: false } => Some(*since + SETTLE),
            State::Stopping { ladder, .. } => ladder.wake_at(),
            State::Backoff { until } => Some(*until),
            State::Stopped | State::Starting | State::Running { .. } | State::Failed { .. } => None,
        }
    }

    /// Takes in what happened, and tells what is to be done.
    pub(crate) fn on(&mut self, event: Event, moment: Moment) -> Vec<Effect> {
        match event {
            Event::Stop { by } => self.stop(by, moment.now),
            Event::Start => self.start(),
            Event::Restart { by } => self.restart(by, moment.now),
            Event::Wish { running } => self.wish(running),
            Event::Started => self.started(moment.now),
            Event::NotStarted { why } => self.not_started(why, moment),
            Event::MainExited { exit } => {
                self.exit = Some(exit);
                self.climb(Some(stop::Event::MainExited), moment.now)
            }
            Event::Emptied { exit } => self.emptied(exit, moment),
            Event::Refused { why } => self.refused(why),
            Event::Surveyed => self.gave_up(),
            Event::Time => self.time(moment.now),
        }
    }

    fn wish(&mut self, running: bool) -> Vec<Effect> {
        self.desired = running;
        match self.state {
            State::Backoff { .. } if !running => {
                self.state = State::Stopped;
                Vec::new()
            }
            // A stop that waited for the start to interrupt it has come too late.
            State::Starting if running => vec![Effect::StopsEnd(Err(Fault::Superseded))],
            _ => Vec::new(),
        }
    }

    fn stop(&mut self, by: Option<Time>, now: Time) -> Vec<Effect> {
        self.desired = false;
        let mut effects = vec![Effect::StartsEnd(Err(Fault::Superseded))];
        match self.state {
            State::Stopped | State::Backoff { .. } | State::Failed { alive: false } => {
                self.state = State::Stopped;
                effects.push(Effect::StopsEnd(Ok(())));
            }
            // What is being made is stopped as soon as it is there.
            State::Starting => self.stop_by = by,
            State::Running { .. } | State::Failed { alive: true } => effects.extend(self.descend(by, now)),
            State::Stopping { .. } => {}
        }
        effects
    }

    fn start(&mut self) -> Vec<Effect> {
        self.desired = true;
        match self.state {
            State::Stopped | State::Backoff { .. } | State::Failed { alive: false } => {
                self.endings = 0;
                self.spawn()
            }
            State::Running { settled: true, .. } => vec![Effect::StartsEnd(Ok(()))],
            State::Failed { alive: true } => vec![Effect::StartsEnd(Err(Fault::Leftovers))],
            // A stop that waited for the start to interrupt it has come too late.
            State::Starting => vec![Effect::StopsEnd(Err(Fault::Superseded))],
            State::Running { settled: false, .. } | State::Stopping { .. } => Vec::new(),
        }
    }

    fn restart(&mut self, by: Option<Time>, now: Time) -> Vec<Effect> {
        self.desired = true;
        match self.state {
            State::Running { .. } | State::Failed { alive: true } => self.descend(by, now),
            // Its stop is followed by a start.
            State::Stopping { .. } => Vec::new(),
            State::Stopped | State::Starting | State::Backoff { .. } | State::Failed { alive: false } => {
                self.start()
            }
        }
    }

    /// Begins the stop of what is alive.
    fn descend(&mut self, by: Option<Time>, now: Time) -> Vec<Effect> {
        let (ladder, step) = match self.asked {
            true => Ladder::again(now),
            false => Ladder::begin(Deadlines::new(now, self.rules.grace, by)),
        };
        let effect = self.effect(step, ladder.deadlines());
        self.state = State::Stopping { ladder, refused: None };
        vec![effect]
    }

    fn climb(&mut self, event: Option<stop::Event>, now: Time) -> Vec<Effect> {
        let State::Stopping { ladder, .. } = &mut self.state else {
            return Vec::new();
        };
        let step = match event {
            Some(event) => ladder.on(event, now),
            None => ladder.refused(),
        };
        let deadlines = ladder.deadlines();
        step.map(|step| self.effect(step, deadlines)).into_iter().collect()
    }

    fn effect(&mut self, step: Step, deadlines: Deadlines) -> Effect {
        match step {
            Step::Ask(scope) => {
                self.asked = true;
                Effect::Ask(scope, deadlines)
            }
            Step::Kill => Effect::Kill,
            Step::GiveUp => Effect::Survey,
        }
    }

    fn spawn(&mut self) -> Vec<Effect> {
        self.state = State::Starting;
        self.stop_by = None;
        vec![Effect::Spawn]
    }

    fn started(&mut self, now: Time) -> Vec<Effect> {
        self.asked = false;
        self.exit = None;
        self.state = State::Running { since: now, settled: false };
        match self.desired {
            true => Vec::new(),
            false => self.descend(self.stop_by, now),
        }
    }

    fn not_started(&mut self, why: String, moment: Moment) -> Vec<Effect> {
        if !self.desired {
            self.state = State::Stopped;
            return vec![Effect::StopsEnd(Ok(()))];
        }
        self.state = match self.rules.restart {
            Restart::Never => State::Failed { alive: false },
            Restart::Always | Restart::OnFailure => self.back_off(moment),
        };
        vec![Effect::StartsEnd(Err(Fault::NotStarted { why }))]
    }

    fn emptied(&mut self, exit: Option<Exit>, moment: Moment) -> Vec<Effect> {
        let exit = exit.or(self.exit.take()).unwrap_or(Exit::Unknown);
        self.asked = false;
        match &self.state {
            State::Running { since, settled } => {
                let (since, settled) = (*since, *settled);
                let mut effects = vec![Effect::Gone { exit, stopped: None }];
                effects.extend(self.ended_by_itself(exit, since, settled, moment));
                effects
            }
            State::Stopping { ladder, .. } => {
                let stopped = Some((ladder.deadlines().began, ladder.escalated()));
                let mut effects = vec![Effect::Gone { exit, stopped }, Effect::StopsEnd(Ok(()))];
                effects.extend(self.after_stop());
                effects
            }
            State::Failed { alive: true } => {
                let mut effects = vec![Effect::Gone { exit, stopped: None }];
                effects.extend(self.after_stop());
                effects
            }
            State::Stopped | State::Starting | State::Backoff { .. } | State::Failed { alive: false } => {
                Vec::new()
            }
        }
    }

    fn after_stop(&mut self) -> Vec<Effect> {
        if self.desired {
            self.spawn()
        } else {
            self.state = State::Stopped;
            Vec::new()
        }
    }

    fn ended_by_itself(&mut self, exit: Exit, since: Time, settled: bool, moment: Moment) -> Vec<Effect> {
        if !self.desired {
            self.state = State::Stopped;
            return vec![Effect::StopsEnd(Ok(()))];
        }
        if moment.now.saturating_sub(since) >= HEALTHY {
            self.endings = 0;
        }
        self.state = match (self.rules.restart.wants_another_after(exit), settled) {
            (true, _) => self.back_off(moment),
            (false, true) => State::Stopped,
            (false, false) if exit == Exit::Code(0) => State::Stopped,
            (false, false) => State::Failed { alive: false },
        };
        let why = format!("it ended within {} ms: {exit}", SETTLE.as_millis());
        match settled {
            true => Vec::new(),
            false => vec![Effect::StartsEnd(Err(Fault::NotStarted { why }))],
        }
    }

    fn back_off(&mut self, moment: Moment) -> State {
        let until = moment.now + Backoff::default().pause(self.endings, moment.roll);
        self.endings = self.endings.saturating_add(1);
        State::Backoff { until }
    }

    fn refused(&mut self, why: String) -> Vec<Effect> {
        if let State::Stopping { ladder, refused } = &mut self.state {
            self.asked = ladder.escalated();
            *refused = Some(why);
        }
        self.climb(None, Time::ZERO)
    }

    fn gave_up(&mut self) -> Vec<Effect> {
        let State::Stopping { refused, .. } = &self.state else {
            return Vec::new();
        };
        let fault = match refused {
            Some(why) => Fault::Refused { why: why.clone() },
            None => Fault::Leftovers,
        };
        self.state = State::Failed { alive: true };
        vec![Effect::StopsEnd(Err(fault.clone())), Effect::StartsEnd(Err(fault))]
    }

    fn time(&mut self, now: Time) -> Vec<Effect> {
        match &mut self.state {
            State::Running { since, settled } if !*settled && now >= *since + SETTLE => {
                *settled = true;
                vec![Effect::Look, Effect::StartsEnd(Ok(()))]
            }
            State::Stopping { .. } => self.climb(Some(stop::Event::Time), now),
            State::Backoff { until } if now >= *until => self.spawn(),
            State::Stopped
            | State::Starting
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Failed { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
