//! `belay batch`: orders to the agents of many hosts.

mod order; // what is ordered, shown before it is done, and confirmed
mod show; // how batches and plans read to a person
mod watch; // following a batch until it ended

use belay_gateway::json;
use belay_proto::v1::{
    ApproveWaveRequest, BatchOrder, BatchRestartHostAgentsRequest, BatchStartHostAgentsRequest,
    BatchStopHostAgentsRequest, BatchVerb, CancelTaskRequest, GetTaskRequest, OrderTerms, PauseTaskRequest,
    ResumeTaskRequest, RetryTaskRequest, Task, TaskState, TaskStatus,
};
use clap::{Args as ClapArgs, Subcommand, value_parser};

use super::{
    Context,
    task::{Status, TermArgs},
    terms::{self, Ordered},
};
use crate::{cli, client::Client, failure::Failure, words};
use show::Names;

/// What to do with the agents of many hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Stop all processes of many hosts, and prove that all of each is gone.
    #[command(after_help = "Examples:\n  belay batch stop --host web-1,web-2\n  \
                      belay batch stop --select zone=z1 --dry-run\n  \
                      belay batch stop --select zone=z1 --waves 1,10%,rest --stop-after 3 --reason \"kernel update\"")]
    Stop(order::Args),
    /// Stop all processes of many hosts, and start those of each host again when all of them are proven gone.
    #[command(
        after_help = "Examples:\n  belay batch restart --select role=db --one-at-a-time zone --healthy-for 30s\n  \
                      belay batch restart --select all --parallel 10% --budget cluster=obtest:1 --absent wait:10m"
    )]
    Restart(order::Args),
    /// Start all processes of many hosts.
    #[command(after_help = "Example:\n  belay batch start --host 1,2,3 --confirm 3")]
    Start(order::Args),
    /// Show a batch with its hosts.
    #[command(
        after_help = "Example:\n  belay batch get 30444 -o json | jq '.hosts[] | select(.state == \"FAILED\")'"
    )]
    Get {
        /// The batch's id: that of its task.
        id: i64,
    },
    /// List the newest batches, among the newest 1000 tasks.
    #[command(after_help = "Example:\n  belay batch list --status running")]
    List {
        /// Only those in this state; may be given more than once.
        #[arg(long, value_enum)]
        status: Vec<Status>,
        /// At most this many.
        #[arg(long, default_value = "20", value_parser = cli::limit, value_name = "NUMBER")]
        limit: usize,
    },
    /// Follow a batch until it ended; exit with 1 where it failed. Ctrl-C leaves it going on.
    #[command(after_help = "Example:\n  belay batch watch 30444 && echo done")]
    Watch {
        /// The batch's id.
        id: i64,
    },
    /// Let no further host begin until somebody resumes it. Hosts under way go on to their end.
    #[command(after_help = "Example:\n  belay batch pause 30444 --reason \"alarm in z2\"")]
    Pause {
        /// The batch's id.
        id: i64,
        /// Why, for the audit trail.
        #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        terms: TermArgs,
    },
    /// Go on with a batch that was paused, by a person or by itself.
    #[command(after_help = "Example:\n  belay batch resume 30444")]
    Resume {
        /// The batch's id.
        id: i64,
        #[command(flatten)]
        args: OrderArgs,
    },
    /// Let the next wave begin, which waits for it.
    #[command(
        after_help = "Example:\n  belay batch approve 30444 --wave 2 --reason \"the first one is well\""
    )]
    Approve {
        /// The batch's id.
        id: i64,
        /// Only if it is this wave that waits.
        #[arg(long, value_parser = value_parser!(i32).range(2..), value_name = "NUMBER")]
        wave: Option<i32>,
        #[command(flatten)]
        args: OrderArgs,
    },
    /// Cancel a batch: no host begins any more, and what had begun is awaited. Nothing is undone.
    #[command(after_help = "Example:\n  belay batch cancel 30444 --reason \"wrong hosts\"")]
    Cancel {
        /// The batch's id.
        id: i64,
        #[command(flatten)]
        args: OrderArgs,
    },
    /// Run once more, in the same batch, what failed, and go on from there.
    #[command(after_help = "Example:\n  belay batch retry 30444")]
    Retry {
        /// The batch's id.
        id: i64,
        #[command(flatten)]
        args: OrderArgs,
    },
    /// Order the same, as a new batch, of the hosts of an ended one that failed, were skipped or did not begin.
    #[command(
        after_help = "Examples:\n  belay batch rerun 30444 --dry-run\n  belay batch rerun 30444 --parallel 1"
    )]
    Rerun {
        /// The id of the batch that ended.
        id: i64,
        #[command(flatten)]
        how: order::How,
    },
}

/// Why, and whether to wait.
#[derive(Debug, ClapArgs)]
pub(crate) struct OrderArgs {
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    /// Do not wait until the batch ended.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    terms: TermArgs,
}

/// What is done with all processes of each host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Stop,
    Restart,
    Start,
}

/// What becomes of a batch that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Pause,
    Resume,
    /// The wave, or 0 for the one that waits.
    Approve(i32),
    Cancel,
    Retry,
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Stop(args) => order::run(Verb::Stop, args, context).await,
        Command::Restart(args) => order::run(Verb::Restart, args, context).await,
        Command::Start(args) => order::run(Verb::Start, args, context).await,
        Command::Get { id } => get(id, context).await,
        Command::List { status, limit } => list(&status, limit, context).await,
        Command::Watch { id } => {
            let client = context.client().await?;
            batch(&client, id).await?;
            watch::run(&client, id, context).await
        }
        Command::Pause { id, reason, terms } => {
            let args = OrderArgs { reason, no_wait: true, terms };
            order_one(Order::Pause, id, args, context).await
        }
        Command::Resume { id, args } => order_one(Order::Resume, id, args, context).await,
        Command::Approve { id, wave, args } => {
            order_one(Order::Approve(wave.unwrap_or_default()), id, args, context).await
        }
        Command::Cancel { id, args } => order_one(Order::Cancel, id, args, context).await,
        Command::Retry { id, args } => order_one(Order::Retry, id, args, context).await,
        Command::Rerun { id, how } => {
            let client = context.client().await?;
            let ended = batch(&client, id).await?;
            order::rerun(&ended, how, &client, context).await
        }
    }
}

impl Verb {
    fn from_wire(verb: BatchVerb) -> Option<Self> {
        match verb {
            BatchVerb::Stop => Some(Self::Stop),
            BatchVerb::Restart => Some(Self::Restart),
            BatchVerb::Start => Some(Self::Start),
            BatchVerb::Unspecified => None,
        }
    }

    fn wire(self) -> BatchVerb {
        match self {
            Self::Stop => BatchVerb::Stop,
            Self::Restart => BatchVerb::Restart,
            Self::Start => BatchVerb::Start,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Start => "start",
        }
    }

    /// Orders it, and answers with the accepted batch.
    async fn order(self, client: &Client, order: BatchOrder) -> Result<Task, Failure> {
        let order = Some(order);
        let task = match self {
            Self::Stop => client.batch_stop_host_agents(BatchStopHostAgentsRequest { order }).await?.task,
            Self::Restart => {
                client.batch_restart_host_agents(BatchRestartHostAgentsRequest { order }).await?.task
            }
            Self::Start => client.batch_start_host_agents(BatchStartHostAgentsRequest { order }).await?.task,
        };
        task.ok_or_else(|| Failure::unknown("the server does not say which batch it accepted"))
    }
}

impl Order {
    async fn order(
        self,
        client: &Client,
        task_id: i64,
        reason: String,
        terms: Option<OrderTerms>,
    ) -> Result<Ordered<Task>, Failure> {
        let (task, preview) = match self {
            Self::Pause => {
                let answer = client.pause_task(PauseTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Resume => {
                let answer = client.resume_task(ResumeTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Approve(wave) => {
                let answer = client.approve_wave(ApproveWaveRequest { task_id, reason, wave, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Cancel => {
                let answer = client.cancel_task(CancelTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Retry => {
                let answer = client.retry_task(RetryTaskRequest { task_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
        };
        Ordered::read(task, preview, "the server does not say how the batch is")
    }

    /// How the command ends whose batch ended so.
    fn outcome(self, task: &Task, names: &Names) -> Result<(), Failure> {
        match self {
            Self::Cancel if task.state() == TaskState::Cancelled => Ok(()),
            Self::Cancel => Err(Failure::failed(format!(
                "the cancel came too late: batch {} is {}",
                task.id,
                words::task_state(task)
            ))),
            Self::Pause | Self::Resume | Self::Approve(_) | Self::Retry => show::outcome(task, names),
        }
    }
}

async fn order_one(order: Order, id: i64, args: OrderArgs, context: &Context) -> Result<(), Failure> {
    let OrderArgs { reason, no_wait, terms } = args;
    let client = context.client().await?;
    // A task of another kind is not ordered by mistake.
    batch(&client, id).await?;
    let task = match order.order(&client, id, reason, terms.wire()).await? {
        Ordered::Done(task) => task,
        Ordered::Planned(preview) => return terms::answer(preview, context),
    };
    if no_wait {
        return answer(task, &client, context).await;
    }
    watch::to_the_end(&client, id, context, |task, names| order.outcome(task, names)).await
}

async fn get(id: i64, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let task = batch(&client, id).await?;
    answer(task, &client, context).await
}

async fn list(statuses: &[Status], limit: usize, context: &Context) -> Result<(), Failure> {
    let statuses: Vec<_> = statuses.iter().map(|status| TaskStatus::from(*status)).collect();
    let tasks = context.client().await?.batches(&statuses, limit).await?;
    let text = show::table(&tasks);
    context.answer(
        |_| json::Listed { contents: tasks.into_iter().filter_map(json::Batch::of).collect() },
        || text,
    )
}

/// The batch with this id.
async fn batch(client: &Client, task_id: i64) -> Result<Task, Failure> {
    let task = client.get_task(GetTaskRequest { task_id }).await?.task;
    let task =
        task.ok_or_else(|| Failure::unknown(format!("the server does not say how batch {task_id} is")))?;
    match task.batch {
        Some(_) => Ok(task),
        None => Err(Failure::not_found(format!("task {task_id} is not a batch of hosts"))
            .hint(format!("see it with `belay task get {task_id}`"))),
    }
}

async fn answer(task: Task, client: &Client, context: &Context) -> Result<(), Failure> {
    let names = Names::of(client).await;
    answer_with(task, &names, context)
}

/// Answers with a batch.
fn answer_with(task: Task, names: &Names, context: &Context) -> Result<(), Failure> {
    let batch =
        task.batch.as_ref().ok_or_else(|| Failure::unknown("the server does not say how the hosts are"))?;
    let text = show::detail(&task, batch, names);
    context.answer(|_| json::Batch::of(task), || text)
}

#[cfg(test)]
mod tests;
