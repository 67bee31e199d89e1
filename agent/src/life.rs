//! The life of one declared process: a pure state machine.
//!
//! stopped → starting → running → stopping → stopped, with back-off between an ending that nobody wanted and the next
//! start, and failed where it could not be started, ended too often or could not be stopped. An instance lives as long as
//! anything of its tree does: a main process that went away and left children is still running.

mod backoff;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::backoff::Backoff;
use crate::{
    config::ProcessConfig,
    process::{Exit, Phase, RungReport},
    signal::Signal,
    stop::{self, Ladder, Plan, Scope, Step, Time},
};

/// How long a new instance must live before its start counts as done, where nothing else shows that it is ready: one that
/// dies of a wrong argument or a taken port does so at once.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

/// Whether a process that ended by itself is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// However it ended.
    #[default]
    Always,
    /// Unless all went well.
    OnFailure,
    /// Never.
    Never,
}

/// What of the configuration decides about a life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    restart: Restart,
    success_codes: Vec<i32>,
    final_codes: Vec<i32>,
    backoff: Backoff,
    stop: Plan,
    /// How long it may take to become ready, where something shows that.
    ready: Option<Duration>,
}

impl From<&ProcessConfig> for Rules {
    fn from(config: &ProcessConfig) -> Self {
        Self {
            restart: config.restart,
            success_codes: config.success_codes.clone(),
            final_codes: config.final_codes.clone(),
            backoff: config.backoff,
            stop: Plan::from(&config.stop),
            ready: config.ready.as_ref().map(|ready| ready.timeout),
        }
    }
}

impl Rules {
    /// Whether an instance that ended so is followed by another.
    pub(crate) fn want_another_after(&self, exit: Exit) -> bool {
        if matches!(exit, Exit::Code(code) if self.final_codes.contains(&code)) {
            return false;
        }
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure => !self.is_success(exit),
            Restart::Never => false,
        }
    }

    /// The longest that a stop takes, from its beginning to giving up.
    pub(crate) fn stop_budget(&self) -> Duration {
        self.stop.budget()
    }

    /// The longest that it takes a new instance to become ready.
    pub(crate) fn start_budget(&self) -> Duration {
        self.ready.unwrap_or(SETTLE)
    }

    fn is_success(&self, exit: Exit) -> bool {
        matches!(exit, Exit::Code(code) if self.success_codes.contains(&code))
    }
}

/// What happens to a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// An operator wants it stopped, by a time, or at once.
    Stop { by: Option<Time>, force: bool },
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
    /// It is ready.
    Ready,
    /// It was running, and does not work: it can not become ready, fails its probe, or has too much memory.
    Broken { why: String },
    /// The hook before its stop has ended.
    HookEnded,
    /// The main process is gone, other members of the tree are not.
    MainExited { exit: Exit },
    /// The tree is empty. `exit` where the main process went last. On `ports` its sockets are still listened on.
    Emptied { exit: Option<Exit>, ports: Vec<u16> },
    /// The system refused to signal it.
    Refused { why: String },
    /// The leftovers of a stop that gave up were looked at.
    Surveyed,
    /// Time passed.
    Time,
}

/// What is to be done because of it, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Make a new instance.
    Spawn,
    /// Find out when it is ready.
    Probe,
    /// Keep an eye on whether it works.
    Watch,
    /// A new instance has settled: look at it.
    Look,
    /// Run the hook before the stop, until then at the longest.
    Hook { until: Time },
    /// Wait: the stop has reached a rung on which nothing is sent.
    Pause,
    /// Send a stop signal.
    Ask(Signal, Scope),
    /// Send SIGKILL to the whole tree.
    Kill,
    /// See what is left alive.
    Survey,
    /// The instance is proven gone: report how it ended, and what its stop went through if there was one.
    Gone { exit: Exit, stopped: Option<Stopped> },
    /// How often it ended in a row has changed, or what follows from that.
    Rest,
    /// Whoever waits for the stop has an answer.
    StopsEnd(Result<(), Fault>),
    /// Whoever waits for a start has an answer.
    StartsEnd(Result<(), Fault>),
}

/// What a stop went through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stopped {
    /// When it began.
    pub began: Time,
    /// Whether SIGKILL was needed.
    pub escalated: bool,
    /// Its rungs.
    pub rungs: Vec<RungReport>,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// A newer order took its place.
    Superseded,
    /// Something is still alive.
    Leftovers,
    /// Nothing of it is alive, and somebody else holds its sockets.
    PortsOpen { ports: Vec<u16> },
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

/// What of a life outlasts the agent's own, besides its instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// How often in a row it ended without a healthy spell in between.
    pub endings: u32,
    /// When it is started again, where it is in back-off.
    pub until: Option<Time>,
    /// Why it failed for good, where it has.
    pub failed: Option<String>,
}

/// The life of one process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Life {
    rules: Rules,
    state: State,
    /// Whether an operator wants it running.
    desired: bool,
    /// How the stop that interrupted a start is to be done.
    stop: Wanted,
    /// Whether this instance got its stop signal.
    asked: bool,
    /// How the main process of this instance ended, where others outlive it.
    exit: Option<Exit>,
    /// How often in a row it ended too soon.
    endings: u32,
    /// Why it does not run although it is wanted.
    trouble: String,
}

/// How a stop is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Wanted {
    by: Option<Time>,
    force: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Stopped,
    Starting,
    Running { since: Time, readiness: Readiness },
    Stopping { ladder: Ladder, refused: Option<String>, broken: bool },
    Backoff { until: Time },
    Failed { alive: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Readiness {
    /// Nothing shows it but that it lives.
    Settles {
        at: Time,
    },
    /// Something will show it.
    Expected {
        by: Time,
    },
    Ready,
}

impl Life {
    /// A process of which nothing is alive.
    pub(crate) fn stopped(rules: Rules, desired: bool) -> Self {
        Self {
            rules,
            state: State::Stopped,
            desired,
            stop: Wanted::default(),
            asked: false,
            exit: None,
            endings: 0,
            trouble: String::new(),
        }
    }

    /// A process that was taken back alive, from an earlier life of the agent.
    pub(crate) fn running(rules: Rules, desired: bool, now: Time) -> Self {
        let state = State::Running { since: now, readiness: Readiness::Ready };
        Self { state, ..Self::stopped(rules, desired) }
    }

    /// A process that was taken back in the middle of a stop.
    pub(crate) fn stopping(rules: Rules, desired: bool, ladder: Ladder, now: Time) -> Self {
        let state = State::Stopping { ladder: ladder.resume(now), refused: None, broken: false };
        Self { state, asked: true, ..Self::stopped(rules, desired) }
    }

    /// Goes on with what outlasted an earlier life of the agent.
    #[must_use]
    pub(crate) fn with_rest(mut self, rest: Rest) -> Self {
        let Rest { endings, until, failed } = rest;
        self.endings = endings;
        if matches!(self.state, State::Stopped) && self.desired {
            match (failed, until) {
                (Some(why), _) => self.fail(why),
                (None, Some(until)) => self.state = State::Backoff { until },
                (None, None) => {}
            }
        }
        self
    }

    /// What outlasts this life of the agent.
    pub(crate) fn rest(&self) -> Rest {
        Rest {
            endings: self.endings,
            until: self.next_start(),
            failed: matches!(self.state, State::Failed { alive: false }).then(|| self.trouble.clone()),
        }
    }

    /// Other rules hold from now on. A stop that is under way keeps its own.
    pub(crate) fn follow(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// What of the configuration decides about it.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Where it is in its life.
    pub(crate) fn phase(&self) -> Phase {
        match self.state {
            State::Stopped => Phase::Stopped,
            State::Starting => Phase::Starting,
            State::Running { readiness: Readiness::Ready, .. } => Phase::Running,
            State::Running { .. } => Phase::Starting,
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

    /// Why it does not run although it is wanted, or why it failed.
    pub(crate) fn trouble(&self) -> &str {
        match self.state {
            State::Backoff { .. } | State::Failed { .. } | State::Stopping { broken: true, .. } => {
                &self.trouble
            }
            _ => "",
        }
    }

    /// How often in a row it ended without a healthy spell in between.
    pub(crate) fn endings(&self) -> u32 {
        self.endings
    }

    /// When it is started again, where it is in back-off.
    pub(crate) fn next_start(&self) -> Option<Time> {
        match self.state {
            State::Backoff { until } => Some(until),
            _ => None,
        }
    }

    /// The stop that is under way.
    pub(crate) fn ladder(&self) -> Option<&Ladder> {
        match &self.state {
            State::Stopping { ladder, .. } => Some(ladder),
            _ => None,
        }
    }

    /// When time alone changes something.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        match &self.state {
            State::Running {
                readiness: Readiness::Settles { at: until } | Readiness::Expected { by: until },
                ..
            }
            | State::Backoff { until } => Some(*until),
            State::Stopping { ladder, .. } => ladder.wake_at(),
            State::Stopped | State::Starting | State::Running { .. } | State::Failed { .. } => None,
        }
    }

    /// Takes in what happened, and tells what is to be done.
    pub(crate) fn on(&mut self, event: Event, moment: Moment) -> Vec<Effect> {
        let now = moment.now;
        match event {
            Event::Stop { by, force } => self.stop(Wanted { by, force }, now),
            Event::Start => self.start(),
            Event::Restart { by } => self.restart(by, now),
            Event::Wish { running } => self.wish(running),
            Event::Started => self.started(now),
            Event::NotStarted { why } => self.not_started(why, moment),
            Event::Ready => self.ready(),
            Event::Broken { why } => self.broken(why, now),
            Event::HookEnded => self.climb(stop::Event::HookEnded, now),
            Event::MainExited { exit } => {
                self.exit = Some(exit);
                self.climb(stop::Event::MainExited, now)
            }
            Event::Emptied { exit, ports } => self.emptied(exit, ports, moment),
            Event::Refused { why } => self.refused(why),
            Event::Surveyed => self.gave_up(),
            Event::Time => self.time(now),
        }
    }

    fn wish(&mut self, running: bool) -> Vec<Effect> {
        self.desired = running;
        match self.state {
            State::Backoff { .. } | State::Failed { alive: false } if !running => {
                self.state = State::Stopped;
                self.endings = 0;
                vec![Effect::Rest, Effect::StartsEnd(Err(Fault::Superseded))]
            }
            _ if !running => vec![Effect::StartsEnd(Err(Fault::Superseded))],
            // A stop that waited for the start to interrupt it has come too late.
            State::Starting => vec![Effect::StopsEnd(Err(Fault::Superseded))],
            _ => Vec::new(),
        }
    }

    fn stop(&mut self, wanted: Wanted, now: Time) -> Vec<Effect> {
        self.desired = false;
        let mut effects = vec![Effect::StartsEnd(Err(Fault::Superseded))];
        match self.state {
            State::Stopped => effects.push(Effect::StopsEnd(Ok(()))),
            State::Backoff { .. } | State::Failed { alive: false } => {
                self.state = State::Stopped;
                self.endings = 0;
                effects.extend([Effect::Rest, Effect::StopsEnd(Ok(()))]);
            }
            // What is being made is stopped as soon as it is there.
            State::Starting => self.stop = wanted,
            State::Running { .. } | State::Failed { alive: true } => {
                effects.push(self.descend(wanted, now, false));
            }
            State::Stopping { .. } if wanted.force => effects.extend(self.climb(stop::Event::Force, now)),
            State::Stopping { .. } => {}
        }
        effects
    }

    fn start(&mut self) -> Vec<Effect> {
        self.desired = true;
        match &self.state {
            State::Stopped | State::Backoff { .. } | State::Failed { alive: false } => {
                self.endings = 0;
                self.spawn()
            }
            State::Running { readiness: Readiness::Ready, .. } => vec![Effect::StartsEnd(Ok(()))],
            State::Failed { alive: true } => vec![Effect::StartsEnd(Err(Fault::Leftovers))],
            // A stop that waited for the start to interrupt it has come too late.
            State::Starting => vec![Effect::StopsEnd(Err(Fault::Superseded))],
            State::Running { .. } => Vec::new(),
            State::Stopping { .. } => self.start_after_stop(),
        }
    }

    /// The stop that is under way is followed by a start without a pause: an operator wants it.
    fn start_after_stop(&mut self) -> Vec<Effect> {
        if let State::Stopping { broken, .. } = &mut self.state {
            *broken = false;
        }
        Vec::new()
    }

    fn restart(&mut self, by: Option<Time>, now: Time) -> Vec<Effect> {
        self.desired = true;
        match self.state {
            State::Running { .. } | State::Failed { alive: true } => {
                vec![self.descend(Wanted { by, force: false }, now, false)]
            }
            State::Stopping { .. } => self.start_after_stop(),
            State::Stopped | State::Starting | State::Backoff { .. } | State::Failed { alive: false } => {
                self.start()
            }
        }
    }

    /// Begins the stop of what is alive. `broken` where it is stopped because it does not work.
    fn descend(&mut self, Wanted { by, force }: Wanted, now: Time, broken: bool) -> Effect {
        let plan = self.rules.stop.clone();
        let (ladder, step) = match force || (self.asked && plan.kills()) {
            true => Ladder::kill(plan, now),
            false => Ladder::begin(plan, now, by),
        };
        self.state = State::Stopping { ladder, refused: None, broken };
        self.effect(step)
    }

    fn climb(&mut self, event: stop::Event, now: Time) -> Vec<Effect> {
        let State::Stopping { ladder, .. } = &mut self.state else {
            return Vec::new();
        };
        let step = ladder.on(event, now);
        step.map(|step| self.effect(step)).into_iter().collect()
    }

    fn effect(&mut self, step: Step) -> Effect {
        match step {
            Step::Hook { until } => Effect::Hook { until },
            Step::Pause => Effect::Pause,
            Step::Ask(signal, scope) => {
                self.asked = true;
                Effect::Ask(signal, scope)
            }
            Step::Kill => Effect::Kill,
            Step::GiveUp => Effect::Survey,
        }
    }

    fn spawn(&mut self) -> Vec<Effect> {
        self.state = State::Starting;
        self.stop = Wanted::default();
        vec![Effect::Spawn]
    }

    fn started(&mut self, now: Time) -> Vec<Effect> {
        self.asked = false;
        self.exit = None;
        let readiness = match self.rules.ready {
            None => Readiness::Settles { at: now + SETTLE },
            Some(timeout) => Readiness::Expected { by: now + timeout },
        };
        self.state = State::Running { since: now, readiness };
        match (self.desired, self.rules.ready) {
            (false, _) => vec![self.descend(self.stop, now, false)],
            (true, None) => Vec::new(),
            (true, Some(_)) => vec![Effect::Probe],
        }
    }

    fn not_started(&mut self, why: String, moment: Moment) -> Vec<Effect> {
        if !self.desired {
            self.state = State::Stopped;
            return vec![Effect::StopsEnd(Ok(()))];
        }
        let fault = Fault::NotStarted { why: why.clone() };
        match self.rules.restart {
            Restart::Never => self.fail(format!("it could not be started: {why}")),
            Restart::Always | Restart::OnFailure => {
                self.back_off(format!("it could not be started: {why}"), moment);
            }
        }
        vec![Effect::Rest, Effect::StartsEnd(Err(fault))]
    }

    fn ready(&mut self) -> Vec<Effect> {
        match &mut self.state {
            State::Running { readiness, .. } if *readiness != Readiness::Ready => {
                *readiness = Readiness::Ready;
                vec![Effect::Look, Effect::Watch, Effect::StartsEnd(Ok(()))]
            }
            _ => Vec::new(),
        }
    }

    fn broken(&mut self, why: String, now: Time) -> Vec<Effect> {
        let State::Running { readiness, .. } = &self.state else {
            return Vec::new();
        };
        let was_ready = *readiness == Readiness::Ready;
        self.trouble.clone_from(&why);
        let effect = self.descend(Wanted::default(), now, true);
        match was_ready {
            true => vec![effect],
            false => vec![Effect::StartsEnd(Err(Fault::NotStarted { why })), effect],
        }
    }

    fn emptied(&mut self, exit: Option<Exit>, ports: Vec<u16>, moment: Moment) -> Vec<Effect> {
        let exit = exit.or(self.exit.take()).unwrap_or(Exit::Unknown);
        self.asked = false;
        match &self.state {
            State::Running { since, readiness } => {
                let (since, readiness) = (*since, *readiness);
                let mut effects = vec![Effect::Gone { exit, stopped: None }];
                effects.extend(self.ended_by_itself(exit, since, readiness, moment));
                effects
            }
            State::Stopping { ladder, broken, .. } => {
                let stopped = Stopped {
                    began: ladder.began(),
                    escalated: ladder.escalated(),
                    rungs: ladder.report(moment.now),
                };
                let broken = *broken;
                let proof = if ports.is_empty() { Ok(()) } else { Err(Fault::PortsOpen { ports }) };
                let mut effects =
                    vec![Effect::Gone { exit, stopped: Some(stopped) }, Effect::StopsEnd(proof)];
                effects.extend(self.after_stop(broken, moment));
                effects
            }
            State::Failed { alive: true } => {
                let mut effects = vec![Effect::Gone { exit, stopped: None }];
                effects.extend(self.after_stop(false, moment));
                effects
            }
            State::Stopped | State::Starting | State::Backoff { .. } | State::Failed { alive: false } => {
                Vec::new()
            }
        }
    }

    fn after_stop(&mut self, broken: bool, moment: Moment) -> Vec<Effect> {
        if !self.desired {
            self.state = State::Stopped;
            return Vec::new();
        }
        if !broken {
            return self.spawn();
        }
        self.back_off(self.trouble.clone(), moment);
        vec![Effect::Rest]
    }

    fn ended_by_itself(
        &mut self,
        exit: Exit,
        since: Time,
        readiness: Readiness,
        moment: Moment,
    ) -> Vec<Effect> {
        if !self.desired {
            self.state = State::Stopped;
            return vec![Effect::StopsEnd(Ok(()))];
        }
        let lived = moment.now.saturating_sub(since);
        if lived >= self.rules.backoff.healthy {
            self.endings = 0;
        }
        let is_ready = readiness == Readiness::Ready;
        if self.rules.want_another_after(exit) {
            self.back_off(format!("it ended: {exit}"), moment);
        } else if exit == Exit::Unknown || self.rules.is_success(exit) {
            self.state = State::Stopped;
        } else {
            self.fail(format!("it ended: {exit}, and its settings leave it so"));
        }
        let mut effects = vec![Effect::Rest];
        if !is_ready {
            let why = format!("it ended after {} ms: {exit}", lived.as_millis());
            effects.push(Effect::StartsEnd(Err(Fault::NotStarted { why })));
        }
        effects
    }

    fn back_off(&mut self, why: String, moment: Moment) {
        let pause = self.rules.backoff.pause(self.endings, moment.roll);
        self.endings = self.endings.saturating_add(1);
        if self.rules.backoff.gives_up_after(self.endings) {
            let healthy = self.rules.backoff.healthy;
            self.fail(format!("{why}; {} times in a row, never after {healthy:?} of health", self.endings));
        } else {
            self.trouble = why;
            self.state = State::Backoff { until: moment.now + pause };
        }
    }

    fn fail(&mut self, why: String) {
        self.trouble = why;
        self.state = State::Failed { alive: false };
    }

    fn refused(&mut self, why: String) -> Vec<Effect> {
        let State::Stopping { ladder, refused, .. } = &mut self.state else {
            return Vec::new();
        };
        self.asked = ladder.escalated();
        *refused = Some(why);
        let step = ladder.refused();
        step.map(|step| self.effect(step)).into_iter().collect()
    }

    fn gave_up(&mut self) -> Vec<Effect> {
        let State::Stopping { refused, .. } = &self.state else {
            return Vec::new();
        };
        let fault = match refused {
            Some(why) => Fault::Refused { why: why.clone() },
            None => Fault::Leftovers,
        };
        self.trouble = match &fault {
            Fault::Refused { why } => format!("it could not be stopped: {why}"),
            _ => "it could not be stopped: something of it is still alive".to_owned(),
        };
        self.state = State::Failed { alive: true };
        vec![Effect::StopsEnd(Err(fault.clone())), Effect::StartsEnd(Err(fault))]
    }

    fn time(&mut self, now: Time) -> Vec<Effect> {
        match &self.state {
            State::Running { readiness: Readiness::Settles { at }, .. } if now >= *at => self.ready(),
            State::Running { since, readiness: Readiness::Expected { by } } if now >= *by => {
                let why = format!("it was not ready after {:?}", *by - *since);
                self.broken(why, now)
            }
            State::Stopping { .. } => self.climb(stop::Event::Time, now),
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
