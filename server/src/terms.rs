//! On which terms an order is given, and what is told of one that is only planned.

use std::{sync::Arc, time::Duration};

use belay_proto::{Problem, ProcessId, Reason, TaskId, planted};
use jiff::Timestamp;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep_until},
};

use crate::{app::App, error::Error, process::Observed, task::Task};

/// On which terms an order is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Only what it would do is wanted.
    pub(crate) dry_run: bool,
    /// What the process must be.
    pub(crate) expected: Expected,
    /// The versions of which the task must be at one. Empty means whichever it is at.
    pub(crate) versions: Vec<i64>,
    /// How long the answer may wait for the end of the task.
    pub(crate) wait: Option<Duration>,
}

/// What the process of an order must be. Its agent decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The generations of which it must be at one. Empty means whichever it is at.
    pub(crate) generations: Vec<u64>,
    /// Of a restart: what was started after this and runs is left as it is.
    pub(crate) not_started_after: Option<Timestamp>,
}

impl Expected {
    /// Refuses what its agent would refuse for certain: a generation only rises, so one that has passed does not come back. A
    /// higher one may have been seen by nobody but the agent.
    pub(crate) fn check(&self, seen: Option<&Observed>) -> Result<(), Problem> {
        let Some((seen, highest)) = seen.zip(self.generations.iter().max()) else {
            return Ok(());
        };
        if seen.generation <= *highest {
            return Ok(());
        }
        let listed = |or: &str| self.generations.iter().map(u64::to_string).collect::<Vec<_>>().join(or);
        let (listed, expected) = (listed(" or "), listed(" 或 "));
        let message = format!("the process is at generation {}, and {listed} was expected", seen.generation);
        Err(Problem::new(Reason::PreconditionFailedGeneration, message)
            .hint("read the process again, and order what is right for it as it is now")
            .chinese(
                format!("进程的代次是 {}，而请求期望的是 {expected}", seen.generation),
                "请重新查看该进程，然后按现在的情况下达操作",
            ))
    }
}

/// What an order does to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Stop,
    Start,
    Restart,
}

/// What became of an order: it was taken, or only planned.
#[derive(Debug)]
pub(crate) enum Given<T> {
    Taken(T),
    Planned(Preview),
}

impl<T> Given<T> {
    /// The same with more in what is planned.
    pub(crate) fn planned(mut self, tell: impl FnOnce(&mut Preview)) -> Self {
        if let Self::Planned(preview) = &mut self {
            tell(preview);
        }
        self
    }
}

/// What an order would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preview {
    /// The RPC's name, as the audit trail has it.
    pub(crate) action: &'static str,
    pub(crate) target: String,
    /// In the order in which they would have their turn.
    pub(crate) processes: Vec<PlannedProcess>,
    /// The names of the steps that would be run or undone.
    pub(crate) steps: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// What an order would do with one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedProcess {
    /// Absent where the server does not know it yet.
    pub(crate) id: Option<ProcessId>,
    pub(crate) alias: String,
    pub(crate) generation: u64,
    pub(crate) pid: i32,
    /// From 1; 0 where it would not be stopped.
    pub(crate) stop_turn: i32,
    /// From 1; 0 where it would not be started.
    pub(crate) start_turn: i32,
    /// Who stands on it, runs, and is left alone.
    pub(crate) dependents: Vec<String>,
}

impl Preview {
    /// What an order would do that is to no process.
    pub(crate) fn of_change(action: &'static str, target: String) -> Self {
        Self { action, target, processes: Vec::new(), steps: Vec::new(), warnings: Vec::new() }
    }

    /// What an order to processes would do, with what a careful person should know.
    pub(crate) fn of_processes(
        action: &'static str,
        target: String,
        steps: Vec<String>,
        mut processes: Vec<PlannedProcess>,
    ) -> Self {
        // Those to whom nothing happens come last.
        let turn = |planned: &PlannedProcess| match (planned.stop_turn, planned.start_turn) {
            (0, 0) => (2, 0),
            (0, start) => (1, start),
            (stop, _) => (0, stop),
        };
        processes.sort_by(|a, b| (turn(a), &a.alias).cmp(&(turn(b), &b.alias)));
        let mut warnings = Vec::new();
        for planned in processes.iter().filter(|planned| !planned.dependents.is_empty()) {
            let dependents =
                planned.dependents.iter().map(|alias| format!("`{alias}`")).collect::<Vec<_>>().join(", ");
            warnings.push(format!("{dependents} stands on `{}` and runs on without it", planned.alias));
        }
        if processes.iter().all(|planned| turn(planned).0 == 2) {
            warnings.push("nothing would change: every process is as the order wants it".into());
        }
        Self { action, target, processes, steps, warnings }
    }
}

/// Refuses an order that was given for another state of a task.
pub(crate) fn check_version(versions: &[i64], task: &Task) -> Result<(), Error> {
    if versions.is_empty() || versions.contains(&task.seen) || planted("version-not-checked") {
        return Ok(());
    }
    let listed = |or: &str| versions.iter().map(i64::to_string).collect::<Vec<_>>().join(or);
    let (listed, expected) = (listed(" or "), listed(" 或 "));
    let message = format!("task {} is at version {}, and {listed} was expected", task.id, task.seen);
    Err(Error::Refused(
        Problem::new(Reason::PreconditionFailedVersion, message)
            .hint(format!("read it again with `belay task get {}`, and order what is right now", task.id))
            .target(format!("tasks/{}", task.id))
            .chinese(
                format!("任务 {} 的版本是 {}，而请求期望的是 {expected}", task.id, task.seen),
                format!("请用 `belay task get {}` 重新查看，然后按现在的情况下达操作", task.id),
            ),
    ))
}

/// The task as it is when it has ended, or when the time is over, or when the server is about to end. Whoever does not wait
/// any more changes nothing.
pub(crate) async fn until_ended(app: &Arc<App>, task: Task, wait: Option<Duration>) -> Result<Task, Error> {
    let Some(wait) = wait.filter(|_| task.standing().is_open()) else {
        return Ok(task);
    };
    let deadline = Instant::now() + wait;
    tokio::select! {
        ended = ended(app, task.id) => ended?,
        () = sleep_until(deadline) => {}
        () = app.shutdown.cancelled() => {}
    }
    Ok(app.store.task(task.id).await?.unwrap_or(task))
}

async fn ended(app: &App, task: TaskId) -> Result<(), Error> {
    // Listening begins before the first look, so that no change in between is missed.
    let mut changes = app.task_changes.subscribe();
    while app.store.is_open(task).await? == Some(true) {
        loop {
            match changes.recv().await {
                Ok(changed) if changed != task => {}
                Ok(_) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(alias: &str, stop_turn: i32, start_turn: i32, dependents: &[&str]) -> PlannedProcess {
        PlannedProcess {
            id: None,
            alias: alias.into(),
            generation: 1,
            pid: 0,
            stop_turn,
            start_turn,
            dependents: dependents.iter().map(|&alias| alias.into()).collect(),
        }
    }

    #[test]
    fn processes_are_told_in_the_order_of_their_turns() {
        let processes = vec![
            planned("a", 0, 0, &[]),
            planned("b", 2, 1, &["web", "cron"]),
            planned("c", 1, 2, &[]),
            planned("d", 0, 1, &[]),
        ];
        let preview = Preview::of_processes("RestartHostAgent", String::new(), Vec::new(), processes);
        let order: Vec<_> = preview.processes.iter().map(|planned| planned.alias.as_str()).collect();
        assert_eq!(order, ["c", "b", "d", "a"]);
        assert_eq!(preview.warnings, ["`web`, `cron` stands on `b` and runs on without it"]);
        let nothing = vec![planned("a", 0, 0, &[])];
        let preview = Preview::of_processes("StopHostAgent", String::new(), Vec::new(), nothing);
        assert!(preview.warnings[0].contains("nothing would change"), "{preview:?}");
    }
}
