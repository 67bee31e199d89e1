//! What an operator may do with a task: one table for every verb and every state, and the way an order goes.

mod chinese; // what a caller is told, in Chinese

use std::{fmt, sync::Arc};

use belay_proto::{HostId, Problem, Reason, SubtaskId, TaskId, fail_point, planted};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{
    Event, Task,
    executor::{agent_state_after, follow_up},
    next::Lane,
    state::{Kind, TaskState},
};
use crate::{
    access::Caller,
    app::App,
    batch::world,
    error::Error,
    host::AgentState,
    store::{AuditEntry, Draft, StoreError, nothing_to_note},
    terms::{Given, Preview, Terms, check_version, until_ended},
};

/// What is ordered of a task. The word is in the database: it is never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verb {
    /// Run again what failed, or go on with what was cancelled or is stuck.
    Retry,
    /// Undo what was done, the last first.
    Rollback,
    /// Begin nothing any more, and end what runs.
    Cancel,
    /// Run one failed step again.
    RetrySubtask,
    /// Take one failed step for done.
    SkipSubtask,
    /// End one running step; it has failed then.
    CancelSubtask,
    /// Begin nothing until it is resumed.
    Pause,
    /// Go on with what was paused. Of a batch, waves up to this one, from 0, need not be seen healthy any more.
    Resume(usize),
    /// Let a wave begin, from 0, and those before it.
    Approve(usize),
}

/// Why a verb is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The task as a whole is in the wrong state.
    Task,
    /// The task was made without a way back.
    Prohibited,
    /// The step is in the wrong state.
    Subtask,
    /// The step is in a state in which it can not be skipped.
    Skip,
    /// Nobody paused the task.
    NotPaused,
    /// No wave waits to be approved, or another one than was named.
    NoApproval,
}

/// Whether a verb may be applied. This is the whole table: nothing else decides about it.
///
/// `step` is the state of the step that the verb names, where it names one.
///
/// # Errors
/// [`Refused`], and nothing happens.
pub(crate) fn check(
    verb: Verb,
    task: TaskState,
    prohibit_rollback: bool,
    step: Option<Kind>,
) -> Result<(), Refused> {
    use TaskState as T;
    match verb {
        Verb::Retry => match task {
            T::Failed | T::Cancelled | T::Stuck | T::RollbackStuck => Ok(()),
            T::Running | T::Paused | T::Canceling | T::RollingBack | T::Successful | T::RolledBack => {
                Err(Refused::Task)
            }
        },
        Verb::Rollback => match task {
            T::Failed | T::Cancelled | T::Stuck
                if prohibit_rollback && !planted("rollback-not-prohibited") =>
            {
                Err(Refused::Prohibited)
            }
            T::Failed | T::Cancelled | T::Stuck => Ok(()),
            T::Running
            | T::Paused
            | T::Canceling
            | T::RollingBack
            | T::RollbackStuck
            | T::Successful
            | T::RolledBack => Err(Refused::Task),
        },
        Verb::Pause | Verb::Resume(_) | Verb::Approve(_) => match (verb, task) {
            (_, T::Running) | (Verb::Resume(_) | Verb::Approve(_), T::Paused) => Ok(()),
            (
                _,
                T::Paused
                | T::Canceling
                | T::RollingBack
                | T::Failed
                | T::Cancelled
                | T::Stuck
                | T::RollbackStuck
                | T::Successful
                | T::RolledBack,
            ) => Err(Refused::Task),
        },
        Verb::Cancel => match task {
            T::Running | T::Paused => Ok(()),
            T::Canceling
            | T::RollingBack
            | T::Failed
            | T::Cancelled
            | T::Stuck
            | T::RollbackStuck
            | T::Successful
            | T::RolledBack => Err(Refused::Task),
        },
        Verb::RetrySubtask | Verb::SkipSubtask => {
            let failed = match task {
                T::Running | T::Paused | T::Failed | T::Cancelled | T::Stuck => Kind::Failed,
                T::RollingBack | T::RollbackStuck => Kind::UndoFailed,
                T::Canceling | T::Successful | T::RolledBack => return Err(Refused::Task),
            };
            match verb {
                _ if step == Some(failed) => Ok(()),
                Verb::SkipSubtask => Err(Refused::Skip),
                _ => Err(Refused::Subtask),
            }
        }
        Verb::CancelSubtask => match task {
            T::Running | T::Paused if step == Some(Kind::Running) => Ok(()),
            T::Running | T::Paused => Err(Refused::Subtask),
            T::Canceling
            | T::RollingBack
            | T::Failed
            | T::Cancelled
            | T::Stuck
            | T::RollbackStuck
            | T::Successful
            | T::RolledBack => Err(Refused::Task),
        },
    }
}

/// Which task, which step of it where the verb names one, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskOrder {
    pub(crate) task: TaskId,
    pub(crate) subtask: Option<SubtaskId>,
    pub(crate) reason: String,
    pub(crate) terms: Terms,
}

/// Orders something of a task: commits it with its audit record, and then lets it take effect. Answers with the task as it
/// is then, or where that is asked for, as it is when it has ended; what the order leads to goes on. Or tells what the order
/// would do, where only that is wanted.
///
/// # Errors
/// Where there is no such task or step, where [`check`] says no, or where another task holds the host meanwhile.
pub(crate) async fn order_task(
    app: &Arc<App>,
    caller: &Caller,
    order: TaskOrder,
    verb: Verb,
) -> Result<Given<Task>, Error> {
    if order.terms.dry_run {
        nothing_to_note();
        return plan(app, caller, &order, verb).await.map(Given::Planned);
    }
    let wait = order.terms.wait;
    let (this, caller) = (app.clone(), caller.clone());
    let task = app.to_the_end(async move { accept(&this, &caller, order, verb).await }).await?;
    until_ended(app, task, wait).await.map(Given::Taken)
}

/// What an order to a task would do: which of its steps would begin at once.
async fn plan(app: &App, caller: &Caller, order: &TaskOrder, verb: Verb) -> Result<Preview, Error> {
    let TaskOrder { task: id, subtask, reason: _, terms } = order;
    let task = app.store.task(*id).await?.ok_or(Error::TaskUnknown(*id))?;
    check_version(&terms.versions, &task)?;
    let (event, _) = decided(&task, verb, *subtask, &caller.user.name)?;
    let now = Timestamp::now();
    let mut state = task.state.clone();
    state.apply(now, &event);
    // A task that had ended holds its hosts again.
    if !task.standing().is_open() && state.standing(&task.graph).is_open() {
        for &host in task.hosts() {
            if let Some(holder) = app.fleet.host(host)?.task.filter(|holder| *holder != task.id) {
                return Err(Error::HostHeld { host, task: holder, forced: None });
            }
        }
    }
    info!(task = %task.id, verb = verb.as_str(), "Dry run.");
    let outlook = state.outlook(&task.graph, &world(app, &task.graph, now));
    let begins = outlook.work.iter().filter(|work| work.attempt.is_none());
    let names = begins.filter_map(|work| task.graph.steps.get(work.place)).map(|step| step.name.clone());
    let mut steps: Vec<_> = names.collect();
    steps.dedup();
    let after = state.standing(&task.graph).as_str();
    let warnings = vec![format!("the task is {} and would be {after}", task.standing().as_str())];
    let (action, target) = (verb.action(), target(task.id, *subtask));
    Ok(Preview { steps, warnings, ..Preview::of_change(action, target) })
}

async fn accept(app: &Arc<App>, caller: &Caller, order: TaskOrder, verb: Verb) -> Result<Task, Error> {
    let TaskOrder { task: id, subtask, reason, terms } = order;
    let audit = AuditEntry::of(caller, verb.action(), target(id, subtask), reason);
    let audit = AuditEntry { outcome: ACCEPTED.into(), ..audit };
    let Some(mut task) = app.store.task(id).await? else {
        return Err(app.refused(audit, Error::TaskUnknown(id)).await);
    };
    fail_point(|| format!("verb.{}.before", verb.as_str()));
    let by = caller.user.name.clone();
    let (now, entry) = (audit.time, audit.clone());
    let decide = |task: &Task, draft: &mut Draft| {
        check_version(&terms.versions, task)?;
        decide(task, draft, verb, subtask, &by)?;
        draft.audit = Some(entry.clone());
        Ok(())
    };
    let appended = match app.store.append(&mut task, None, now, decide).await {
        Ok(Ok(appended)) => appended,
        Ok(Err(refusal)) => return Err(app.refused(audit, refusal).await),
        Err(StoreError::Held { host, task: holder }) => {
            let held = Error::HostHeld { host, task: holder, forced: None };
            return Err(app.refused(audit, held).await);
        }
        Err(error) => return Err(Error::Store(error)),
    };
    fail_point(|| format!("verb.{}.after", verb.as_str()));
    info!(task = %task.id, verb = verb.as_str(), reason = audit.reason, "Order to a task accepted.");
    if let Some(appended) = appended {
        follow_up(app, &task, &appended, now);
    }
    app.run(&task);
    Ok(task)
}

/// What a verb changes, or why it may not.
fn decide(
    task: &Task,
    draft: &mut Draft,
    verb: Verb,
    subtask: Option<SubtaskId>,
    by: &str,
) -> Result<(), Error> {
    let (event, agent_state) = decided(task, verb, subtask, by)?;
    draft.agent_states.extend(agent_state);
    draft.add(event);
    Ok(())
}

/// What a verb adds to the log, and what it makes of the agent of a host.
fn decided(
    task: &Task,
    verb: Verb,
    subtask: Option<SubtaskId>,
    by: &str,
) -> Result<(Event, Option<(HostId, AgentState)>), Error> {
    let step = match subtask {
        None => None,
        Some(id) => Some(task.step(id).ok_or(Error::SubtaskUnknown { task: task.id, subtask: id })?),
    };
    let kind = step.map(|step| task.state.step(step.id).status.kind());
    let standing = task.standing();
    let allowed = check(verb, standing, task.prohibit_rollback, kind).and_then(|()| numbered(task, verb));
    let verb = allowed
        .map_err(|refused| Error::Refused(refusal(refused, verb, task.id, standing, subtask.zip(kind))))?;
    let skipped = step.filter(|_| verb == Verb::SkipSubtask && kind == Some(Kind::Failed));
    let agent_state =
        skipped.and_then(|step| Some((task.host_of(step)?, agent_state_after(step.node, false)?)));
    Ok((Event::Ordered { verb, subtask: subtask.map(SubtaskId::get), by: by.to_owned() }, agent_state))
}

/// A verb that is about a wave, with the number of the one that it is about now.
fn numbered(task: &Task, verb: Verb) -> Result<Verb, Refused> {
    let graph = &task.graph;
    let wave = || {
        let batch = graph.batch.as_ref()?;
        let lanes: Vec<Lane> = (0..graph.lanes.len()).map(|lane| task.state.lane(graph, lane)).collect();
        Some((batch, task.state.current_wave(batch, &lanes)?))
    };
    match verb {
        Verb::Resume(_) if !task.state.is_paused() => Err(Refused::NotPaused),
        Verb::Resume(_) => Ok(Verb::Resume(wave().map_or(0, |(_, wave)| wave))),
        Verb::Approve(named) => match wave() {
            Some((batch, wave))
                if task.state.needs_approval(batch, wave)
                    && (named == 0 || named == wave || planted("any-wave-approved")) =>
            {
                Ok(Verb::Approve(wave))
            }
            _ => Err(Refused::NoApproval),
        },
        verb => Ok(verb),
    }
}

/// What a caller is told whose order is refused.
fn refusal(
    refused: Refused,
    verb: Verb,
    task: TaskId,
    standing: TaskState,
    subtask: Option<(SubtaskId, Kind)>,
) -> Problem {
    let (done, stands) = (verb.done(), standing.as_str());
    let (chinese, chinese_hint) = chinese::refusal(refused, verb, task, standing, subtask);
    let (reason, message) = match (refused, subtask) {
        (Refused::NotPaused, _) => (Reason::TaskWrongState, format!("task {task} is not paused")),
        (Refused::NoApproval, _) => {
            (Reason::TaskWrongState, format!("task {task} has no such wave that waits to be approved"))
        }
        (Refused::Prohibited, _) => (Reason::RollbackProhibited, format!("task {task} has no way back")),
        (Refused::Subtask | Refused::Skip, Some((id, kind))) => {
            let reason =
                if refused == Refused::Skip { Reason::SkipRefused } else { Reason::SubtaskWrongState };
            (reason, format!("subtask {id} of task {task} is {} and can not be {done}", kind.as_str()))
        }
        (_, Some((id, _))) => {
            let message = format!("task {task} is {stands}, so its subtask {id} can not be {done}");
            (Reason::TaskWrongState, message)
        }
        (_, None) => (Reason::TaskWrongState, format!("task {task} is {stands} and can not be {done}")),
    };
    Problem::new(reason, message)
        .target(target(task, subtask.map(|(id, _)| id)))
        .hint(next_step(task, standing))
        .chinese(chinese, chinese_hint)
}

/// What can be done with a task that stands so.
fn next_step(task: TaskId, standing: TaskState) -> String {
    match standing {
        TaskState::Running => format!(
            "wait for it with `belay task watch {task}`, or cancel it first with `belay task cancel {task}`"
        ),
        TaskState::Paused => format!(
            "see what it waits for with `belay task get {task}`; `belay task resume {task}` goes on, `belay task approve \
             {task}` lets the next wave begin, `belay task cancel {task}` ends it"
        ),
        TaskState::Canceling | TaskState::RollingBack => {
            format!("wait for it with `belay task watch {task}`")
        }
        TaskState::Failed | TaskState::Cancelled | TaskState::Stuck => format!(
            "see its steps with `belay task get {task}`; `belay task retry {task}` goes on, `belay task rollback {task}` \
             goes back"
        ),
        TaskState::RollbackStuck => format!(
            "remove the cause, which `belay task get {task}` tells, then go on with `belay task retry {task}`; or give the \
             step up with `belay task skip {task} SUBTASK`"
        ),
        TaskState::Successful | TaskState::RolledBack => "it has ended; order anew".into(),
    }
}

/// What the audit trail says of a verb that was let in: how it ends is told by the task.
const ACCEPTED: &str = "ACCEPTED";

/// How a task or a step is named in targets and the audit trail.
pub(crate) fn target(task: TaskId, subtask: Option<SubtaskId>) -> String {
    match subtask {
        None => format!("tasks/{task}"),
        Some(subtask) => format!("tasks/{task}/subtasks/{subtask}"),
    }
}

impl Verb {
    /// Every verb.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 9] = [
        Self::Retry,
        Self::Rollback,
        Self::Cancel,
        Self::RetrySubtask,
        Self::SkipSubtask,
        Self::CancelSubtask,
        Self::Pause,
        Self::Resume(0),
        Self::Approve(0),
    ];

    /// The RPC's name.
    fn action(self) -> &'static str {
        match self {
            Self::Retry => "RetryTask",
            Self::Rollback => "RollbackTask",
            Self::Cancel => "CancelTask",
            Self::RetrySubtask => "RetrySubtask",
            Self::SkipSubtask => "SkipSubtask",
            Self::CancelSubtask => "CancelSubtask",
            Self::Pause => "PauseTask",
            Self::Resume(_) => "ResumeTask",
            Self::Approve(_) => "ApproveWave",
        }
    }

    /// For logs and messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Retry | Self::RetrySubtask => "retry",
            Self::Rollback => "rollback",
            Self::Cancel | Self::CancelSubtask => "cancel",
            Self::SkipSubtask => "skip",
            Self::Pause => "pause",
            Self::Resume(_) => "resume",
            Self::Approve(_) => "approve",
        }
    }

    /// What was done, in a sentence.
    pub(crate) fn done(self) -> &'static str {
        match self {
            Self::Retry | Self::RetrySubtask => "retried",
            Self::Rollback => "rolled back",
            Self::Cancel | Self::CancelSubtask => "cancelled",
            Self::SkipSubtask => "skipped",
            Self::Pause => "paused",
            Self::Resume(_) => "resumed",
            Self::Approve(_) => "approved",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every verb in every state: what is not listed here is refused (hazards D11, D12 and D16).
    #[test]
    fn the_table_is_this_one() {
        use Kind as K;
        use TaskState as T;
        let mut allowed = Vec::new();
        for verb in Verb::ALL {
            for task in TaskState::ALL {
                for kind in Kind::ALL.into_iter().map(Some).chain([None]) {
                    let names_one =
                        matches!(verb, Verb::RetrySubtask | Verb::SkipSubtask | Verb::CancelSubtask);
                    if names_one == kind.is_none() {
                        continue;
                    }
                    if check(verb, task, false, kind).is_ok() {
                        allowed.push((verb, task, kind));
                    }
                }
            }
        }
        // A verb of the whole task does not look at steps.
        let whole: Vec<_> =
            allowed.iter().filter(|(_, _, kind)| kind.is_none()).map(|(v, t, _)| (*v, *t)).collect();
        assert_eq!(
            whole,
            [
                (Verb::Retry, T::Failed),
                (Verb::Retry, T::Cancelled),
                (Verb::Retry, T::Stuck),
                (Verb::Retry, T::RollbackStuck),
                (Verb::Rollback, T::Failed),
                (Verb::Rollback, T::Cancelled),
                (Verb::Rollback, T::Stuck),
                (Verb::Cancel, T::Running),
                (Verb::Cancel, T::Paused),
                (Verb::Pause, T::Running),
                (Verb::Resume(0), T::Running),
                (Verb::Resume(0), T::Paused),
                (Verb::Approve(0), T::Running),
                (Verb::Approve(0), T::Paused),
            ]
        );
        let single: Vec<_> =
            allowed.into_iter().filter_map(|(verb, task, kind)| Some((verb, task, kind?))).collect();
        let again = |verb| {
            [
                (verb, T::Running, K::Failed),
                (verb, T::Paused, K::Failed),
                (verb, T::RollingBack, K::UndoFailed),
                (verb, T::Failed, K::Failed),
                (verb, T::Cancelled, K::Failed),
                (verb, T::Stuck, K::Failed),
                (verb, T::RollbackStuck, K::UndoFailed),
            ]
        };
        let mut expected = [again(Verb::RetrySubtask), again(Verb::SkipSubtask)].concat();
        expected.push((Verb::CancelSubtask, T::Running, K::Running));
        expected.push((Verb::CancelSubtask, T::Paused, K::Running));
        assert_eq!(single, expected);
    }

    /// Hazard D12.
    #[test]
    fn what_has_no_way_back_is_not_rolled_back() {
        for task in TaskState::ALL {
            let refused = check(Verb::Rollback, task, true, None);
            let expected = match check(Verb::Rollback, task, false, None) {
                Ok(()) => Refused::Prohibited,
                Err(refused) => refused,
            };
            assert_eq!(refused, Err(expected), "{task:?}");
            for verb in [Verb::Retry, Verb::Cancel] {
                assert_eq!(check(verb, task, true, None), check(verb, task, false, None));
            }
        }
    }
}
