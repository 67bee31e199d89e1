//! `belay task`.

use belay_gateway::json;
use belay_proto::v1::{GetSubtaskLogRequest, GetTaskRequest, LogLine, Subtask, Task, TaskStatus};
use clap::{Subcommand, ValueEnum};
use jiff::tz::TimeZone;
use serde_json::json as object;

use super::Context;
use crate::{
    cli,
    client::Client,
    failure::Failure,
    follow::{self, follow},
    names,
    output::{self, Format, Table, fields, plain},
    progress::Progress,
    words,
};

/// What to do with tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the newest tasks.
    #[command(after_help = "Example:\n  belay task list --host web-1 --status failed")]
    List {
        /// Only those of this host: its id or its name.
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// Only those in this state; may be given more than once.
        #[arg(long, value_enum)]
        status: Vec<Status>,
        /// At most this many.
        #[arg(long, default_value = "100", value_parser = cli::limit, value_name = "NUMBER")]
        limit: usize,
    },
    /// Show a task with its steps.
    #[command(after_help = "Example:\n  belay task get 30443 -o json")]
    Get {
        /// The task's id.
        id: i64,
    },
    /// Follow a task until it ended; exit with 1 where it failed.
    #[command(after_help = "Example:\n  belay task watch 30443 && echo done")]
    Watch {
        /// The task's id.
        id: i64,
    },
    /// Show what the steps of a task logged.
    #[command(after_help = "Examples:\n  belay task log 30443\n  belay task log 30443 32073")]
    Log {
        /// The task's id.
        id: i64,
        /// Only this step: the subtask's id.
        subtask: Option<i64>,
    },
}

/// A state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    /// It goes on.
    Running,
    /// A step failed.
    Failed,
    /// Every step is done.
    Successful,
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List { host, status, limit } => list(host.as_deref(), &status, limit, context).await,
        Command::Get { id } => get(id, context).await,
        Command::Watch { id } => watch(id, context).await,
        Command::Log { id, subtask } => log(id, subtask, context).await,
    }
}

/// Answers with a task.
pub(crate) fn answer(task: Task, context: &Context) -> Result<(), Failure> {
    let text = detail(&task);
    context.answer(|zone| json::WrappedTaskInstance::new(task, zone), || text)
}

impl From<Status> for TaskStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Running => Self::Running,
            Status::Failed => Self::Failed,
            Status::Successful => Self::Successful,
        }
    }
}

async fn list(
    host: Option<&str>,
    statuses: &[Status],
    limit: usize,
    context: &Context,
) -> Result<(), Failure> {
    let client = context.client().await?;
    let host_id = match host {
        Some(_) => names::host(&client, host).await?.id,
        None => 0,
    };
    let statuses: Vec<_> = statuses.iter().map(|status| TaskStatus::from(*status)).collect();
    let tasks = client.tasks(host_id, &statuses, limit).await?;
    let text = table(&tasks);
    context.answer(
        |zone| json::Listed {
            contents: tasks.into_iter().map(|task| json::BasicTaskInstance::new(task, zone)).collect(),
        },
        || text,
    )
}

async fn get(id: i64, context: &Context) -> Result<(), Failure> {
    let task = task(&context.client().await?, id).await?;
    answer(task, context)
}

async fn watch(id: i64, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let format = context.format;
    let changed = |_: &mut Progress, before: Option<&Task>, task: &Task| match format {
        Format::Table => follow::changes(before, task).iter().try_for_each(|line| output::line(&plain(line))),
        Format::Json => output::json(&json::WrappedTaskInstance::new(task.clone(), &TimeZone::system())),
    };
    let task = follow(&client, id, &mut Progress::new(), changed).await?;
    follow::outcome(&task)
}

async fn log(id: i64, subtask: Option<i64>, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let steps = match subtask {
        Some(subtask) => vec![Subtask { id: subtask, ..Subtask::default() }],
        None => task(&client, id).await?.subtasks,
    };
    let mut logs = Vec::new();
    for step in steps {
        let request = GetSubtaskLogRequest { task_id: id, subtask_id: step.id };
        logs.push((step, client.get_subtask_log(request).await?.lines));
    }
    let text: String = logs.iter().map(|(step, lines)| log_text(step, lines)).collect();
    match (subtask, logs.pop()) {
        // As the REST API answers for one step.
        (Some(_), Some((_, lines))) => context.answer(|zone| json::SubtaskLog::new(lines, zone), || text),
        (_, last) => {
            logs.extend(last);
            let contents = |zone: &TimeZone| {
                let log = |(step, lines): (Subtask, _)| object!({"id": step.id, "name": step.name, "log": json::SubtaskLog::new(lines, zone).log});
                json::Listed { contents: logs.into_iter().map(log).collect::<Vec<_>>() }
            };
            context.answer(contents, || text)
        }
    }
}

fn log_text(step: &Subtask, lines: &[LogLine]) -> String {
    let mut text = match step.name.is_empty() {
        true => String::new(),
        false => {
            plain(&format!("{} ({}): {}", step.name, step.id, words::subtask_status(step.status))) + "\n"
        }
    };
    for line in lines {
        text += &plain(&follow::log_line(line));
        text.push('\n');
    }
    text
}

async fn task(client: &Client, task_id: i64) -> Result<Task, Failure> {
    let task = client.get_task(GetTaskRequest { task_id }).await?.task;
    task.ok_or_else(|| Failure::unknown(format!("the server does not say how task {task_id} is")))
}

fn table(tasks: &[Task]) -> String {
    let mut table = Table::new(["ID", "NAME", "HOST", "STATUS", "CREATOR", "CREATED", "FINISHED"]);
    for task in tasks {
        table.row([
            task.id.to_string(),
            task.name.clone(),
            task.host_id.to_string(),
            words::task_status(task.status),
            task.creator.clone(),
            words::time(task.create_time.as_ref()),
            words::time(task.finish_time.as_ref()),
        ]);
    }
    table.render()
}

fn detail(task: &Task) -> String {
    let mut text = fields([
        ("task", format!("{} ({})", task.name, task.id)),
        ("status", words::task_status(task.status)),
        ("host", task.host_id.to_string()),
        ("creator", task.creator.clone()),
        ("reason", task.reason.clone()),
        ("created", words::time(task.create_time.as_ref())),
        ("finished", words::time(task.finish_time.as_ref())),
        ("trace", task.trace_id.clone()),
    ]);
    let mut steps = Table::new(["ID", "STEP", "STATUS", "ATTEMPT", "STARTED", "FINISHED", "ERROR"]);
    for step in &task.subtasks {
        let error = step.error.as_ref().map(|error| format!("{} ({})", error.message, error.reason));
        steps.row([
            step.id.to_string(),
            step.name.clone(),
            words::subtask_status(step.status),
            step.run_time.to_string(),
            words::time(step.start_time.as_ref()),
            words::time(step.finish_time.as_ref()),
            error.unwrap_or_default(),
        ]);
    }
    text.push('\n');
    text + &steps.render()
}
