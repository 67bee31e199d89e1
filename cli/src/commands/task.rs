//! `belay task`.

use belay_gateway::json;
use belay_proto::v1::{
    CancelSubtaskRequest, CancelTaskRequest, GetTaskRequest, ListTasksRequest, OrderTerms, PauseTaskRequest,
    ResumeTaskRequest, RetrySubtaskRequest, RetryTaskRequest, RollbackTaskRequest, SkipSubtaskRequest, Task,
    TaskOperation, TaskState, TaskStatus,
};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use jiff::tz::TimeZone;

use super::{
    Context, task_log,
    terms::{self, DryRun, Ordered, Version},
};
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
    #[command(after_help = "Examples:\n  belay task list --host web-1 --status failed\n  \
                      belay task list --name restart --sort createTime,asc --limit 1000")]
    List {
        /// Only those of this host: its id or its name.
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// Only those in this state; may be given more than once.
        #[arg(long, value_enum)]
        status: Vec<Status>,
        /// Only those with this text in their name, in whichever case.
        #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
        name: String,
        /// In this order: `id`, `createTime` or `startTime`, with `,asc` or `,desc`. Default: `id,desc`.
        #[arg(long, value_name = "FIELD,ORDER", default_value_t, hide_default_value = true)]
        sort: String,
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
    #[command(after_help = "Examples:\n  belay task log 30443\n  belay task log -f 30443 32073")]
    Log(task_log::Args),
    /// Run once more what failed, and go on; also after a cancel, or where a rollback is stuck.
    #[command(after_help = "Examples:\n  belay task retry 30443\n  belay task retry 30443 32073")]
    Retry {
        /// The task's id.
        id: i64,
        /// Only this step: the subtask's id.
        subtask: Option<i64>,
        #[command(flatten)]
        args: OrderArgs,
    },
    /// Undo what a failed or cancelled task has done, the last step first.
    #[command(after_help = "Example:\n  belay task rollback 30443 --reason \"wrong window\"")]
    Rollback {
        /// The task's id.
        id: i64,
        #[command(flatten)]
        args: OrderArgs,
    },
    /// Cancel a running task: nothing begins any more, and what had begun is awaited. Nothing is undone.
    #[command(after_help = "Examples:\n  belay task cancel 30443\n  belay task cancel 30443 32073")]
    Cancel {
        /// The task's id.
        id: i64,
        /// Only this step, which has failed then: the subtask's id.
        subtask: Option<i64>,
        #[command(flatten)]
        args: OrderArgs,
    },
    /// Let no further step begin until somebody resumes the task. What runs goes on to its end.
    #[command(after_help = "Example:\n  belay task pause 30443 --reason \"let me look\"")]
    Pause {
        /// The task's id.
        id: i64,
        /// Why, for the audit trail.
        #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        terms: TermArgs,
    },
    /// Go on with a task that was paused.
    #[command(after_help = "Example:\n  belay task resume 30443")]
    Resume {
        /// The task's id.
        id: i64,
        #[command(flatten)]
        args: OrderArgs,
    },
    /// Take a failed step for done, and go on.
    #[command(after_help = "Example:\n  belay task skip 30443 32072 --reason \"checked by hand\"")]
    Skip {
        /// The task's id.
        id: i64,
        /// The subtask's id.
        subtask: i64,
        #[command(flatten)]
        args: OrderArgs,
    },
}

/// Why, and whether to wait.
#[derive(Debug, ClapArgs)]
pub(crate) struct OrderArgs {
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    /// Do not wait until the task ended.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    terms: TermArgs,
}

/// On which terms.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct TermArgs {
    #[command(flatten)]
    version: Version,
    #[command(flatten)]
    dry_run: DryRun,
}

impl TermArgs {
    /// As the wire has them.
    pub(super) fn wire(self) -> Option<OrderTerms> {
        terms::wire(OrderTerms {
            dry_run: self.dry_run.dry_run,
            expected_versions: self.version.if_version,
            ..OrderTerms::default()
        })
    }
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
        Command::List { host, status, name, sort, limit } => {
            let asked = ListTasksRequest {
                statuses: status.iter().map(|status| TaskStatus::from(*status).into()).collect(),
                name,
                sort,
                ..ListTasksRequest::default()
            };
            list(host.as_deref(), asked, limit, context).await
        }
        Command::Get { id } => get(id, context).await,
        Command::Watch { id } => watch(id, context).await,
        Command::Log(args) => task_log::run(args, context).await,
        Command::Retry { id, subtask, args } => order(Verb::Retry(subtask), id, args, context).await,
        Command::Rollback { id, args } => order(Verb::Rollback, id, args, context).await,
        Command::Cancel { id, subtask, args } => order(Verb::Cancel(subtask), id, args, context).await,
        Command::Pause { id, reason, terms } => {
            order(Verb::Pause, id, OrderArgs { reason, no_wait: true, terms }, context).await
        }
        Command::Resume { id, args } => order(Verb::Resume, id, args, context).await,
        Command::Skip { id, subtask, args } => order(Verb::Skip(subtask), id, args, context).await,
    }
}

/// What is ordered of a task, or of one of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Retry(Option<i64>),
    Rollback,
    Cancel(Option<i64>),
    Skip(i64),
    Pause,
    Resume,
}

impl Verb {
    async fn order(
        self,
        client: &Client,
        task_id: i64,
        reason: String,
        terms: Option<OrderTerms>,
    ) -> Result<Ordered<Task>, Failure> {
        let (task, preview) = match self {
            Self::Retry(None) => {
                let answer = client.retry_task(RetryTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Retry(Some(subtask_id)) => {
                let answer =
                    client.retry_subtask(RetrySubtaskRequest { task_id, subtask_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Rollback => {
                let answer = client.rollback_task(RollbackTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Cancel(None) => {
                let answer = client.cancel_task(CancelTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Cancel(Some(subtask_id)) => {
                let answer = client
                    .cancel_subtask(CancelSubtaskRequest { task_id, subtask_id, reason, terms })
                    .await?;
                (answer.task, answer.preview)
            }
            Self::Pause => {
                let answer = client.pause_task(PauseTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Resume => {
                let answer = client.resume_task(ResumeTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Skip(subtask_id) => {
                let answer =
                    client.skip_subtask(SkipSubtaskRequest { task_id, subtask_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
        };
        Ordered::read(task, preview, "the server does not say how the task is")
    }

    /// How the command ends whose task ended so.
    fn outcome(self, task: &Task) -> Result<(), Failure> {
        let cancelled_step = |id: i64| {
            let step = task.subtasks.iter().find(|step| step.id == id);
            step.is_some_and(|step| step.operation == TaskOperation::Cancel as i32)
        };
        match self {
            Self::Cancel(None) if task.state == TaskState::Cancelled as i32 => Ok(()),
            Self::Cancel(Some(subtask)) if cancelled_step(subtask) => Ok(()),
            Self::Cancel(_) => Err(Failure::failed(format!(
                "the cancel came too late: task {} is {}",
                task.id,
                words::task_state(task)
            ))),
            Self::Retry(_) | Self::Rollback | Self::Skip(_) | Self::Pause | Self::Resume => {
                follow::outcome(task)
            }
        }
    }
}

async fn order(verb: Verb, id: i64, args: OrderArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let task = match verb.order(&client, id, args.reason, args.terms.wire()).await? {
        Ordered::Done(task) => task,
        Ordered::Planned(preview) => return terms::answer(preview, context),
    };
    if args.no_wait {
        return answer(task, context);
    }
    to_the_end(&client, id, context, |task| verb.outcome(task)).await
}

/// Follows a task until it ended, and answers with it and with what `outcome` makes of it.
pub(crate) async fn to_the_end(
    client: &Client,
    id: i64,
    context: &Context,
    outcome: impl FnOnce(&Task) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut progress = Progress::new();
    let changed = |progress: &mut Progress, before: Option<&Task>, task: &Task| {
        follow::changes(before, task).iter().for_each(|line| progress.line(line));
        Ok(())
    };
    let ended = follow(client, id, &mut progress, changed).await?;
    let outcome = outcome(&ended);
    if outcome.is_err() {
        let lines = follow::log_of_failure(client, &ended).await.unwrap_or_default();
        lines.iter().for_each(|line| progress.line(&format!("  {}", follow::log_line(line))));
    }
    let printed = answer(ended, context);
    outcome.and(printed)
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
    asked: ListTasksRequest,
    limit: usize,
    context: &Context,
) -> Result<(), Failure> {
    let client = context.client().await?;
    let host_id = match host {
        Some(_) => names::host(&client, host).await?.id,
        None => 0,
    };
    let tasks = client.tasks(ListTasksRequest { host_id, ..asked }, limit).await?;
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

/// A task as it is.
pub(super) async fn task(client: &Client, task_id: i64) -> Result<Task, Failure> {
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
            words::task_state(task),
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
        ("status", words::task_state(task)),
        ("host", task.host_id.to_string()),
        ("creator", task.creator.clone()),
        ("reason", task.reason.clone()),
        ("created", words::time(task.create_time.as_ref())),
        ("finished", words::time(task.finish_time.as_ref())),
        ("trace", task.trace_id.clone()),
        ("version", task.version.to_string()),
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
