//! Following a task until it ended, over every loss of the server on the way: a task is durable, and so is the wait.

use std::time::Duration;

use belay_proto::{
    Exit,
    v1::{GetSubtaskLogRequest, LogLine, Subtask, SubtaskStatus, Task, TaskOperation, TaskState, TaskStatus},
};
use tokio::time::{Instant, sleep};

use crate::{
    client::{Client, Watch},
    failure::Failure,
    progress::Progress,
    signals::Signals,
    words,
};

/// How long the server may be away while a task is followed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is tried meanwhile.
const RETRY: Duration = Duration::from_millis(500);

/// What a person who follows a task sees and is told.
pub(crate) struct Manner<'a> {
    /// What is seen until the next change.
    pub(crate) meanwhile: &'a dyn Fn(Option<&Task>) -> Vec<String>,
    /// What is told to one who stops waiting.
    pub(crate) left: Failure,
}

/// Follows a task, and hands over each change with the task as it was before. Answers with the task as it ended.
pub(crate) async fn follow(
    client: &Client,
    task_id: i64,
    progress: &mut Progress,
    changed: impl FnMut(&mut Progress, Option<&Task>, &Task) -> Result<(), Failure>,
) -> Result<Task, Failure> {
    let manner = Manner {
        meanwhile: &|_| vec![format!("task {task_id}")],
        left: Failure::unknown(format!("stopped waiting; task {task_id} goes on"))
            .hint(format!("see how it ends with `belay task watch {task_id}`")),
    };
    follow_as(client, task_id, &manner, progress, changed).await
}

/// The same in a manner of one's own.
pub(crate) async fn follow_as(
    client: &Client,
    task_id: i64,
    manner: &Manner<'_>,
    progress: &mut Progress,
    mut changed: impl FnMut(&mut Progress, Option<&Task>, &Task) -> Result<(), Failure>,
) -> Result<Task, Failure> {
    let mut signals = Signals::listen()?;
    let mut follower = Follower { client, task_id, watch: None, heard: Instant::now() };
    let mut last: Option<Task> = None;
    loop {
        let next = async {
            tokio::select! {
                next = follower.next() => next,
                _ = signals.next() => Err(manner.left.clone()),
            }
        };
        let task = progress.during_lines(&(manner.meanwhile)(last.as_ref()), next).await?;
        changed(progress, last.as_ref(), &task)?;
        if is_over(&task) {
            return Ok(task);
        }
        last = Some(task);
    }
}

/// What changed from one look at a task to the next, one line for each step.
pub(crate) fn changes(before: Option<&Task>, after: &Task) -> Vec<String> {
    let earlier = |id: i64| before.and_then(|task| task.subtasks.iter().find(|subtask| subtask.id == id));
    let mut lines: Vec<String> = after
        .subtasks
        .iter()
        .filter_map(|subtask| {
            let now = words::subtask_status(subtask.status);
            match earlier(subtask.id) {
                Some(earlier) if earlier.status == subtask.status => None,
                Some(earlier) => {
                    Some(format!("{}: {} -> {now}", subtask.name, words::subtask_status(earlier.status)))
                }
                None => Some(format!("{}: {now}", subtask.name)),
            }
        })
        .collect();
    let now = words::task_state(after);
    if before.map(words::task_state).as_ref() != Some(&now) {
        lines.push(format!("task {} `{}`: {now}", after.id, after.name));
    }
    lines
}

/// How a command ends whose task ended so: where it failed, with the reason.
pub(crate) fn outcome(task: &Task) -> Result<(), Failure> {
    if task.status == TaskStatus::Successful as i32 {
        return Ok(());
    }
    let why = match failed(task).and_then(|subtask| subtask.error.as_ref().map(|error| (subtask, error))) {
        Some((subtask, error)) => format!(": `{}`: {} ({})", subtask.name, error.message, error.reason),
        None => String::new(),
    };
    let id = task.id;
    let onwards = format!("go on with `belay task retry {id}`, or go back with `belay task rollback {id}`");
    let (how, next) = match task.state() {
        TaskState::Cancelled => ("was cancelled", onwards),
        TaskState::Stuck => ("is stuck", onwards),
        TaskState::RollbackStuck => {
            let next = format!(
                "remove the cause and go on with `belay task retry {id}`, or give the step up with `belay task skip {id} \
                 SUBTASK`"
            );
            ("could not be rolled back", next)
        }
        _ => ("failed", onwards),
    };
    Err(Failure::failed(format!("task {id} `{}` {how}{why}", task.name))
        .hint(format!("see every step's log with `belay task log {id}`; {next}")))
}

/// The log of the subtask that failed; empty where none did.
pub(crate) async fn log_of_failure(client: &Client, task: &Task) -> Result<Vec<LogLine>, Failure> {
    match failed(task) {
        Some(subtask) => {
            let request = GetSubtaskLogRequest {
                task_id: task.id,
                subtask_id: subtask.id,
                ..GetSubtaskLogRequest::default()
            };
            Ok(client.get_subtask_log(request).await?.lines)
        }
        None => Ok(Vec::new()),
    }
}

/// A line of a log for a person.
pub(crate) fn log_line(line: &LogLine) -> String {
    let LogLine { time, attempt, level, message, operation: _, number: _, dropped: _ } = line;
    let undo = if line.operation() == TaskOperation::Rollback { "undo " } else { "" };
    format!("{} {level:<5} [{undo}{attempt}] {message}", words::time_millis(time.as_ref()))
}

struct Follower<'a> {
    client: &'a Client,
    task_id: i64,
    watch: Option<Watch>,
    heard: Instant,
}

impl Follower<'_> {
    /// The task after its next change. Keeps what it has when it is dropped on the way.
    async fn next(&mut self) -> Result<Task, Failure> {
        loop {
            let lost = match self.hear().await {
                Ok(Some(task)) => {
                    self.heard = Instant::now();
                    return Ok(task);
                }
                // A server that ends closes its streams before the task has ended.
                Ok(None) => {
                    Failure::unknown(format!("the server does not say how task {} goes on", self.task_id))
                        .hint(format!("try again with `belay task watch {}`", self.task_id))
                }
                Err(failure) => failure,
            };
            if lost.exit != Exit::Unknown || self.heard.elapsed() > PATIENCE {
                return Err(lost);
            }
            self.watch = None;
            sleep(RETRY).await;
        }
    }

    async fn hear(&mut self) -> Result<Option<Task>, Failure> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(self.client.watch_task(self.task_id).await?),
        };
        watch.next().await
    }
}

fn is_over(task: &Task) -> bool {
    match TaskStatus::try_from(task.status) {
        Ok(TaskStatus::Failed | TaskStatus::Successful) => true,
        Ok(TaskStatus::Running | TaskStatus::Unspecified) | Err(_) => false,
    }
}

fn failed(task: &Task) -> Option<&Subtask> {
    task.subtasks.iter().find(|subtask| subtask.status == SubtaskStatus::Failed as i32)
}

#[cfg(test)]
mod tests {
    use belay_proto::v1::SubtaskError;

    use super::*;

    fn task(status: TaskStatus, subtasks: &[SubtaskStatus]) -> Task {
        let subtask = |(at, status): (usize, &SubtaskStatus)| Subtask {
            id: at as i64 + 1,
            name: format!("Step {}", at + 1),
            status: *status as i32,
            error: (*status == SubtaskStatus::Failed).then(|| SubtaskError {
                reason: "LEFTOVERS".to_owned(),
                message: "pid 7 is alive".to_owned(),
            }),
            ..Subtask::default()
        };
        Task {
            id: 30,
            name: "Stop OCP agent".to_owned(),
            status: status as i32,
            subtasks: subtasks.iter().enumerate().map(subtask).collect(),
            ..Task::default()
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        use SubtaskStatus::*;
        let first = task(TaskStatus::Running, &[Ready, Pending]);
        let second = task(TaskStatus::Running, &[Successful, Ready]);
        let third = task(TaskStatus::Successful, &[Successful, Successful]);
        assert_eq!(
            changes(None, &first),
            ["Step 1: READY", "Step 2: PENDING", "task 30 `Stop OCP agent`: RUNNING"]
        );
        assert_eq!(
            changes(Some(&first), &second),
            ["Step 1: READY -> SUCCESSFUL", "Step 2: PENDING -> READY"]
        );
        assert_eq!(
            changes(Some(&second), &third),
            ["Step 2: READY -> SUCCESSFUL", "task 30 `Stop OCP agent`: SUCCESSFUL"]
        );
    }

    #[test]
    fn a_failed_task_says_which_step_and_why() {
        let failure = outcome(&task(TaskStatus::Failed, &[SubtaskStatus::Successful, SubtaskStatus::Failed]));
        let failure = failure.expect_err("it failed");
        assert_eq!(failure.exit, Exit::Failed);
        assert_eq!(failure.message, "task 30 `Stop OCP agent` failed: `Step 2`: pid 7 is alive (LEFTOVERS)");
        assert!(outcome(&task(TaskStatus::Successful, &[])).is_ok());
    }
}
