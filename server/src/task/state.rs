//! The state of a task: a pure fold of its log.

use std::collections::{BTreeMap, BTreeSet};

use belay_proto::{HostId, Reason, SubtaskId, planted};
use jiff::Timestamp;

use super::{Attempt, Before, Event, Operation, TaskStatus, Verb};

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(super) steps: BTreeMap<i64, StepState>,
    pub(super) mode: Mode,
    /// Why nothing begins, where it was paused.
    pub(super) paused: Option<String>,
    /// How many waves somebody approved, beside the first.
    pub(super) approved: usize,
    /// How many waves were healthy for as long as they had to be.
    pub(super) healthy: usize,
    /// The places of hosts that are left alone.
    pub(super) skipped: BTreeSet<usize>,
    /// By the host's number.
    before: BTreeMap<i64, Before>,
    last_change: Option<Timestamp>,
}

/// What is being done with the task as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    #[default]
    Execute,
    Retry,
    Cancel,
    Rollback,
}

/// Where one step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepState {
    pub(crate) status: StepStatus,
    /// What is being done with it, or was done last.
    pub(crate) operation: Operation,
    /// The number of its attempt, from 1.
    pub(crate) attempt: i32,
    /// The number of the attempt to undo it, from 1.
    pub(crate) undo: i32,
    pub(crate) start_time: Option<Timestamp>,
    pub(crate) finish_time: Option<Timestamp>,
    /// How often in a row the attempt was resumed and crashed its runner again.
    pub(crate) resumed: u32,
}

/// What a step is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepStatus {
    /// It waits, for an upstream step or to be taken.
    Waiting,
    /// An attempt runs, or ran when a server was ended.
    Running(Attempt),
    /// The attempt was told to end.
    Canceling(Attempt),
    /// It failed.
    Failed {
        reason: String,
        message: String,
        /// It kept crashing its runner.
        stuck: bool,
    },
    /// It is done.
    Successful,
    /// It waits to be undone, because of steps after it or to be taken.
    ToUndo,
    /// An attempt to undo it runs, or ran when a server was ended.
    Undoing(Attempt),
    /// It is undone.
    Undone,
    /// It could not be undone.
    UndoFailed { reason: String, message: String },
}

/// The same without what goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Waiting,
    Running,
    Canceling,
    Failed,
    Successful,
    ToUndo,
    Undoing,
    Undone,
    UndoFailed,
}

/// How a task stands, in full. The documents know three words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// It goes on.
    Running,
    /// It begins nothing until a person says so. What had begun goes on.
    Paused,
    /// It was cancelled, and what had begun has not ended yet.
    Canceling,
    /// What was done is being undone.
    RollingBack,
    /// A step failed.
    Failed,
    /// It was cancelled, and not all of it was done.
    Cancelled,
    /// A step kept crashing its runner.
    Stuck,
    /// A step could not be undone.
    RollbackStuck,
    /// Every step is done.
    Successful,
    /// All that was done is undone.
    RolledBack,
}

impl State {
    /// Reads a whole log.
    #[cfg(test)]
    pub(crate) fn replay<'a>(log: impl IntoIterator<Item = &'a (Timestamp, Event)>) -> Self {
        let mut state = Self::default();
        for (time, event) in log {
            state.apply(*time, event);
        }
        state
    }

    /// Takes in one event. A result of an attempt that is not the running one changes nothing (hazards D09 and D10).
    pub(crate) fn apply(&mut self, time: Timestamp, event: &Event) {
        match event {
            Event::Started { subtask, attempt, operation, undo } => {
                let may_begin = if *undo { self.mode == Mode::Rollback } else { self.may_begin() };
                let begins = may_begin || planted("begun-after-cancel");
                let step = self.steps.entry(*subtask).or_insert_with(StepState::fresh);
                let attempt = Attempt { number: *attempt, operation: *operation, undo: *undo };
                step.status = match (&step.status, undo) {
                    (StepStatus::Waiting, false)
                        if begins && (attempt.number == step.attempt || planted("stray-begin-counts")) =>
                    {
                        StepStatus::Running(attempt)
                    }
                    (StepStatus::ToUndo, true) if begins && attempt.number == step.undo => {
                        step.operation = Operation::Rollback;
                        StepStatus::Undoing(attempt)
                    }
                    _ => return,
                };
                step.start_time = Some(time);
                step.finish_time = None;
                step.resumed = 0;
            }
            Event::Resumed { subtask, attempt, undo, epoch: _ } => {
                if let Some(step) = self.under_way(*subtask, *attempt, *undo) {
                    step.resumed += u32::from(!planted("crash-not-counted"));
                }
                return;
            }
            Event::Steady { subtask, attempt, undo } => {
                if let Some(step) = self.under_way(*subtask, *attempt, *undo) {
                    step.resumed = 0;
                }
                return;
            }
            Event::Noted { before, host } => {
                self.before.entry(*host).or_insert_with(|| before.clone());
                return;
            }
            Event::Absent { lanes } => self.skipped.extend(lanes),
            Event::Healthy { wave } => self.healthy = self.healthy.max(wave + 1),
            Event::Paused { why } => {
                self.paused.get_or_insert_with(|| why.clone());
            }
            Event::Succeeded { subtask, attempt, undo } => {
                let cancelled = self.mode == Mode::Cancel;
                let Some(step) = self.under_way(*subtask, *attempt, *undo) else {
                    return;
                };
                step.status = match &step.status {
                    StepStatus::Undoing(_) => StepStatus::Undone,
                    // Of a cancelled task what is done is done, and nothing begins after it. A step that was cancelled
                    // alone must not let the next one begin.
                    StepStatus::Canceling(_) if !cancelled && !planted("cancelled-step-leads-on") => {
                        StepStatus::Failed {
                            reason: Reason::Cancelled.as_str().into(),
                            message: "the step was cancelled when it was done already".into(),
                            stuck: false,
                        }
                    }
                    _ => StepStatus::Successful,
                };
                step.finish_time = Some(time);
            }
            Event::Failed { subtask, attempt, reason, message, undo, stuck } => {
                let Some(step) = self.under_way(*subtask, *attempt, *undo) else {
                    return;
                };
                let (reason, message) = (reason.clone(), message.clone());
                step.status = match &step.status {
                    StepStatus::Undoing(_) => StepStatus::UndoFailed { reason, message },
                    _ => StepStatus::Failed { reason, message, stuck: *stuck },
                };
                step.finish_time = Some(time);
            }
            Event::Ordered { verb, subtask, by } => self.order(*verb, *subtask, by, time),
        }
        self.last_change = Some(time);
    }

    /// Takes in what an operator ordered. Whether it may be is decided before it is in the log (`verb::check`).
    fn order(&mut self, verb: Verb, subtask: Option<i64>, by: &str, time: Timestamp) {
        match verb {
            Verb::Pause => {
                self.paused.get_or_insert_with(|| format!("paused by {by}"));
            }
            // Whoever resumes it has seen what was not healthy.
            Verb::Resume(wave) => {
                self.paused = None;
                self.healthy = self.healthy.max(wave);
            }
            Verb::Approve(wave) => {
                let wave = wave + usize::from(planted("approved-twice"));
                self.approved = self.approved.max(wave);
            }
            Verb::Retry => {
                if self.mode != Mode::Rollback {
                    self.mode = Mode::Retry;
                }
                // They may be back.
                if !planted("retry-leaves-alone") {
                    self.skipped.clear();
                }
                self.steps.values_mut().for_each(StepState::again);
            }
            Verb::Rollback => {
                self.mode = Mode::Rollback;
                self.paused = None;
                for step in self.steps.values_mut() {
                    if planted("failed-not-undone") && step.status.kind() == Kind::Failed {
                        continue;
                    }
                    if let StepStatus::Successful | StepStatus::Failed { .. } = step.status {
                        step.operation = Operation::Rollback;
                        step.status = StepStatus::ToUndo;
                    }
                }
            }
            Verb::Cancel => {
                self.mode = Mode::Cancel;
                self.paused = None;
                self.steps.values_mut().for_each(StepState::cancel);
            }
            Verb::RetrySubtask | Verb::SkipSubtask => {
                if self.mode == Mode::Cancel {
                    self.mode = Mode::Retry;
                }
                match (subtask.and_then(|id| self.steps.get_mut(&id)), verb) {
                    (Some(step), Verb::SkipSubtask) => step.skip(time),
                    (Some(step), _) => step.again(),
                    (None, _) => {}
                }
            }
            Verb::CancelSubtask => {
                if let Some(step) = subtask.and_then(|id| self.steps.get_mut(&id)) {
                    step.cancel();
                }
            }
        }
    }

    /// The same, as it would be if nobody had paused it.
    pub(super) fn as_resumed(&self) -> Self {
        Self { paused: None, ..self.clone() }
    }

    pub(super) fn may_begin(&self) -> bool {
        matches!(self.mode, Mode::Execute | Mode::Retry)
    }

    fn under_way(&mut self, subtask: i64, attempt: i32, undo: bool) -> Option<&mut StepState> {
        let step = self.steps.get_mut(&subtask)?;
        let running = step.status.attempt()?;
        let is_its = running.number == attempt && running.undo == undo;
        (is_its || planted("late-result-counts")).then_some(step)
    }

    /// Where a step stands.
    pub(crate) fn step(&self, id: SubtaskId) -> StepState {
        self.steps.get(&id.get()).cloned().unwrap_or_else(StepState::fresh)
    }

    pub(super) fn kind(&self, id: SubtaskId) -> Kind {
        self.steps.get(&id.get()).map_or(Kind::Waiting, |step| step.status.kind())
    }

    /// How a host was before the task ordered anything of it; `None` until it is about to.
    pub(crate) fn before(&self, host: HostId) -> Option<&Before> {
        self.before.get(&host.get()).or_else(|| self.before.get(&0))
    }

    /// What is being done with the task as a whole, or was done last.
    pub(crate) fn operation(&self) -> Operation {
        match self.mode {
            Mode::Execute => Operation::Execute,
            Mode::Retry => Operation::Retry,
            Mode::Cancel => Operation::Cancel,
            Mode::Rollback => Operation::Rollback,
        }
    }

    /// How often in a row a step was resumed and crashed its runner: the most of all steps that are under way.
    pub(crate) fn crashes(&self) -> u32 {
        let under_way = self.steps.values().filter(|step| step.status.attempt().is_some());
        under_way.map(|step| step.resumed).max().unwrap_or_default()
    }

    /// When the task last changed; once it has ended, when that was.
    pub(crate) fn last_change(&self) -> Option<Timestamp> {
        self.last_change
    }
}

impl StepState {
    pub(super) fn fresh() -> Self {
        Self {
            status: StepStatus::Waiting,
            operation: Operation::Execute,
            attempt: 1,
            undo: 1,
            start_time: None,
            finish_time: None,
            resumed: 0,
        }
    }

    /// What failed is to be done again.
    fn again(&mut self) {
        match self.status {
            StepStatus::Failed { .. } => {
                self.attempt += i32::from(!planted("retry-is-no-attempt"));
                self.operation = Operation::Retry;
                self.status = StepStatus::Waiting;
            }
            StepStatus::UndoFailed { .. } => {
                self.undo += 1;
                self.status = StepStatus::ToUndo;
            }
            StepStatus::Waiting
            | StepStatus::Running(_)
            | StepStatus::Canceling(_)
            | StepStatus::Successful
            | StepStatus::ToUndo
            | StepStatus::Undoing(_)
            | StepStatus::Undone => {}
        }
    }

    /// What failed is taken for done.
    fn skip(&mut self, time: Timestamp) {
        self.status = match self.status {
            StepStatus::Failed { .. } => StepStatus::Successful,
            StepStatus::UndoFailed { .. } => StepStatus::Undone,
            StepStatus::Waiting
            | StepStatus::Running(_)
            | StepStatus::Canceling(_)
            | StepStatus::Successful
            | StepStatus::ToUndo
            | StepStatus::Undoing(_)
            | StepStatus::Undone => return,
        };
        self.operation = Operation::Skip;
        self.finish_time = Some(time);
    }

    /// What runs is to end.
    fn cancel(&mut self) {
        if let StepStatus::Running(attempt) = self.status {
            self.operation = Operation::Cancel;
            self.status = StepStatus::Canceling(attempt);
        }
    }
}

impl StepStatus {
    /// The attempt that is under way.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        match self {
            Self::Running(attempt) | Self::Canceling(attempt) | Self::Undoing(attempt) => Some(*attempt),
            Self::Waiting
            | Self::Failed { .. }
            | Self::Successful
            | Self::ToUndo
            | Self::Undone
            | Self::UndoFailed { .. } => None,
        }
    }

    /// The state without what goes with it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Waiting => Kind::Waiting,
            Self::Running(_) => Kind::Running,
            Self::Canceling(_) => Kind::Canceling,
            Self::Failed { .. } => Kind::Failed,
            Self::Successful => Kind::Successful,
            Self::ToUndo => Kind::ToUndo,
            Self::Undoing(_) => Kind::Undoing,
            Self::Undone => Kind::Undone,
            Self::UndoFailed { .. } => Kind::UndoFailed,
        }
    }
}

impl Kind {
    /// Every one.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Running,
        Self::Canceling,
        Self::Failed,
        Self::Successful,
        Self::ToUndo,
        Self::Undoing,
        Self::Undone,
        Self::UndoFailed,
    ];

    /// For messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "PENDING",
            Self::Running => "RUNNING",
            Self::Canceling => "CANCELING",
            Self::Failed => "FAILED",
            Self::Successful => "SUCCESSFUL",
            Self::ToUndo => "waiting to be undone",
            Self::Undoing => "being undone",
            Self::Undone => "undone",
            Self::UndoFailed => "FAILED to be undone",
        }
    }
}

impl TaskState {
    /// Every one.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 10] = [
        Self::Running,
        Self::Paused,
        Self::Canceling,
        Self::RollingBack,
        Self::Failed,
        Self::Cancelled,
        Self::Stuck,
        Self::RollbackStuck,
        Self::Successful,
        Self::RolledBack,
    ];

    /// Whether it goes on, and holds its host.
    pub(crate) fn is_open(self) -> bool {
        self.status() == TaskStatus::Running
    }

    /// The documented word.
    pub(crate) fn status(self) -> TaskStatus {
        match self {
            Self::Running | Self::Paused | Self::Canceling | Self::RollingBack => TaskStatus::Running,
            Self::Failed | Self::Cancelled | Self::Stuck | Self::RollbackStuck => TaskStatus::Failed,
            Self::Successful | Self::RolledBack => TaskStatus::Successful,
        }
    }

    /// For messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Canceling => "CANCELING",
            Self::RollingBack => "ROLLING_BACK",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Stuck => "STUCK",
            Self::RollbackStuck => "ROLLBACK_STUCK",
            Self::Successful => "SUCCESSFUL",
            Self::RolledBack => "ROLLED_BACK",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::task::next::Work;
    use crate::task::{Graph, Node, Step, World};

    fn id(number: i64) -> SubtaskId {
        SubtaskId::try_from(number).expect("above 0")
    }

    /// The documented shape of a stop: 3 → 2 → 1.
    fn chain() -> Graph {
        let step = |number: i64, node, upstreams: &[i64], downstreams: &[i64]| Step {
            id: id(number),
            node,
            undo: None,
            name: String::new(),
            class_name: String::new(),
            series_id: 0,
            timeout: Duration::from_secs(1),
            lane: 0,
            upstreams: upstreams.iter().copied().map(id).collect(),
            downstreams: downstreams.iter().copied().map(id).collect(),
            needs: Vec::new(),
            carries: Vec::new(),
        };
        let steps = vec![
            step(3, Node::PrepareStop, &[], &[2]),
            step(2, Node::StopAll, &[3], &[1]),
            step(1, Node::FinishStop, &[2], &[]),
        ];
        Graph::new(steps, vec![HostId::try_from(20).expect("above 0")], None)
    }

    fn started(subtask: i64, attempt: i32) -> Event {
        Event::Started { subtask, attempt, operation: Uuid::nil(), undo: false }
    }

    fn undone(subtask: i64) -> [Event; 2] {
        let (attempt, undo) = (1, true);
        [
            Event::Started { subtask, attempt, operation: Uuid::nil(), undo },
            Event::Succeeded { subtask, attempt, undo },
        ]
    }

    fn succeeded(subtask: i64, attempt: i32) -> Event {
        Event::Succeeded { subtask, attempt, undo: false }
    }

    fn failed(subtask: i64, attempt: i32) -> Event {
        let (reason, message) = ("LEFTOVERS".into(), "pid 7 lives".into());
        Event::Failed { subtask, attempt, reason, message, undo: false, stuck: false }
    }

    fn ordered(verb: Verb, subtask: Option<i64>) -> Event {
        Event::Ordered { verb, subtask, by: "admin".into() }
    }

    fn replay(events: &[Event]) -> State {
        let log: Vec<_> = events.iter().map(|event| (Timestamp::UNIX_EPOCH, event.clone())).collect();
        State::replay(&log)
    }

    #[track_caller]
    fn check(events: &[Event], expected: &str) {
        let state = replay(events);
        let work = |work: &Work| {
            let cancelled = if work.cancelled { "cancel " } else { "" };
            let undo = if work.undo { "undo " } else { "" };
            let resume = if work.attempt.is_some() { "resume " } else { "run " };
            format!("{cancelled}{resume}{undo}{}", work.step)
        };
        let told = match &state.outlook(&chain(), &World::default()).work[..] {
            [] => state.standing(&chain()).as_str().to_owned(),
            next => next.iter().map(work).collect::<Vec<_>>().join(", "),
        };
        assert_eq!(told, expected, "{events:?}");
    }

    #[test]
    fn one_step_after_the_other() {
        check(&[], "run 3");
        check(&[started(3, 1)], "resume 3");
        check(&[started(3, 1), succeeded(3, 1)], "run 2");
        check(&[started(3, 1), succeeded(3, 1), started(2, 1), succeeded(2, 1)], "run 1");
        check(&[started(3, 1), failed(3, 1)], "FAILED");
        let whole = [(3, 1), (2, 1), (1, 1)]
            .map(|(step, attempt)| [started(step, attempt), succeeded(step, attempt)]);
        check(&whole.concat(), "SUCCESSFUL");
    }

    /// Hazards D09 and D10: the result of an attempt that was replaced is no result.
    #[test]
    fn a_late_result_changes_nothing() {
        let retry = ordered(Verb::Retry, None);
        check(&[started(3, 1), failed(3, 1), retry.clone()], "run 3");
        check(&[started(3, 1), failed(3, 1), retry.clone(), started(3, 2), succeeded(3, 1)], "resume 3");
        check(&[started(3, 1), failed(3, 1), started(3, 1)], "FAILED");
        check(&[started(3, 1), failed(3, 1), succeeded(3, 1)], "FAILED");
        check(&[succeeded(3, 1)], "run 3");
    }

    /// Hazard D14: a skip wins over a result that comes after it.
    #[test]
    fn a_skipped_step_stays_skipped() {
        let skipped = [started(3, 1), failed(3, 1), ordered(Verb::SkipSubtask, Some(3))];
        check(&skipped, "run 2");
        check(&[&skipped[..], &[failed(3, 1)]].concat(), "run 2");
    }

    /// Hazard D15: whichever comes first, there is one end.
    #[test]
    fn a_cancel_ends_the_task_once() {
        let cancel = ordered(Verb::Cancel, None);
        check(&[started(3, 1), cancel.clone()], "cancel resume 3");
        check(&[started(3, 1), cancel.clone(), succeeded(3, 1)], "CANCELLED");
        check(&[started(3, 1), cancel.clone(), succeeded(3, 1), started(2, 1)], "CANCELLED");
        check(&[started(3, 1), succeeded(3, 1), cancel.clone()], "CANCELLED");
        let mut whole = [3, 2, 1].map(|step| [started(step, 1), succeeded(step, 1)]).concat();
        whole.insert(5, cancel.clone());
        check(&whole, "SUCCESSFUL");
        check(&[started(3, 1), ordered(Verb::CancelSubtask, Some(3)), succeeded(3, 1)], "FAILED");
        check(&[started(3, 1), cancel, failed(3, 1), ordered(Verb::Retry, None)], "run 3");
    }

    #[test]
    fn a_rollback_goes_backwards() {
        let so_far =
            [started(3, 1), succeeded(3, 1), started(2, 1), failed(2, 1), ordered(Verb::Rollback, None)];
        check(&so_far, "run undo 2");
        check(&[&so_far[..], &undone(2)].concat(), "run undo 3");
        check(&[&so_far[..], &undone(2), &undone(3)].concat(), "ROLLED_BACK");
        let mut stuck = [&so_far[..], &undone(2)].concat();
        let (reason, message) = ("LEFTOVERS".into(), String::new());
        stuck[6] = Event::Failed { subtask: 2, attempt: 1, reason, message, undo: true, stuck: false };
        check(&stuck, "ROLLBACK_STUCK");
        check(&[&stuck[..], &[ordered(Verb::Retry, None)]].concat(), "run undo 2");
        check(&[&stuck[..], &[ordered(Verb::SkipSubtask, Some(2))]].concat(), "run undo 3");
    }

    /// Logs of before there were verbs are read as they were meant.
    #[test]
    fn an_old_log_is_read() {
        let old = [
            r#"{"kind":"started","subtask":3,"attempt":1,"operation":"00000000-0000-0000-0000-000000000000"}"#,
            r#"{"kind":"resumed","subtask":3,"attempt":1,"epoch":4}"#,
            r#"{"kind":"failed","subtask":3,"attempt":1,"reason":"TIMED_OUT","message":"late"}"#,
        ];
        let events: Vec<Event> = old.iter().map(|event| serde_json::from_str(event).expect("read")).collect();
        check(&events[..2], "resume 3");
        assert_eq!(replay(&events[..2]).crashes(), 1);
        check(&events, "FAILED");
    }
}
