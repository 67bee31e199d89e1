//! `belay agent`: all processes of a host as one; or, with `--config`, the agent program itself.

use std::path::PathBuf;

use belay_gateway::json;
use belay_proto::v1::{
    GetHostAgentRequest, HostAgent, HostAgentStatus, OrderTerms, RestartHostAgentRequest,
    StartHostAgentRequest, StopHostAgentRequest, Task,
};
use clap::{Args as ClapArgs, Subcommand};

use super::{
    Context,
    host::clones,
    process, service, task,
    terms::{self, DryRun, NotStartedAfter, Ordered},
};
use crate::{client::Client, failure::Failure, follow, names, output::fields, words};

/// What to do with agents.
#[derive(Debug, ClapArgs)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  belay agent status --host web-1\n  belay agent --config /etc/belay/agent.toml"
)]
pub(crate) struct Args {
    /// Run the agent of this host with these settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only tell whether it would run, as a new program is asked before it takes over.
    #[arg(long, hide = true, requires = "config")]
    would_run: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Args {
    /// Whether the agent program itself is meant.
    pub(crate) fn is_service(&self) -> bool {
        self.config.is_some()
    }
}

/// What to do with the agent of a host.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the agent of a host with its processes.
    #[command(after_help = "Example:\n  belay agent status --check || echo something is wrong")]
    Status {
        /// The host, by id or name. May be left out where there is one host only.
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// Exit with 1 unless the agent is AVAILABLE.
        #[arg(long)]
        check: bool,
    },
    /// Stop all processes of a host, and prove that all of each is gone. The agent program stays.
    #[command(after_help = "Example:\n  belay agent stop --host web-1 --reason \"kernel update\"")]
    Stop(OrderArgs),
    /// Start all processes of a host.
    #[command(after_help = "Example:\n  belay agent start --host web-1")]
    Start(OrderArgs),
    /// Stop all processes of a host, and start them again when all of each is proven gone.
    #[command(after_help = "Example:\n  belay agent restart --host web-1 --reason \"new configuration\"")]
    Restart(RestartArgs),
}

/// Which host, why, and which of its processes.
#[derive(Debug, ClapArgs)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    after: NotStartedAfter,
}

/// Which host, and why.
#[derive(Debug, ClapArgs)]
pub(crate) struct OrderArgs {
    /// The host, by id or name. May be left out where there is one host only.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Why, for the audit trail and the task.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    /// Do not wait until the task ended.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Does it.
pub(crate) async fn run(args: Args, context: &Context) -> Result<(), Failure> {
    match args {
        Args { config: Some(config), would_run, command: _ } => {
            service::agent(config, would_run, context).await
        }
        Args { config: None, command: Some(command), .. } => match command {
            Command::Status { host, check } => status(host.as_deref(), check, context).await,
            Command::Stop(args) => order(Verb::Stop, args, NotStartedAfter::default(), context).await,
            Command::Start(args) => order(Verb::Start, args, NotStartedAfter::default(), context).await,
            Command::Restart(RestartArgs { order: args, after }) => {
                order(Verb::Restart, args, after, context).await
            }
        },
        Args { config: None, command: None, .. } => {
            Err(Failure::usage("what about the agent?").hint("see `belay agent --help`"))
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Verb {
    Stop,
    Start,
    Restart,
}

impl Verb {
    /// Orders it, and answers with the accepted task.
    pub(crate) async fn order(
        self,
        client: &Client,
        host_id: i64,
        reason: String,
        terms: Option<OrderTerms>,
    ) -> Result<Ordered<Task>, Failure> {
        let (task, preview) = match self {
            Self::Stop => {
                let answer = client.stop_host_agent(StopHostAgentRequest { host_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Start => {
                let answer =
                    client.start_host_agent(StartHostAgentRequest { host_id, reason, terms }).await?;
                (answer.task, answer.preview)
            }
            Self::Restart => {
                let request = RestartHostAgentRequest { host_id, reason, terms };
                let answer = client.restart_host_agent(request).await?;
                (answer.task, answer.preview)
            }
        };
        Ordered::read(task, preview, "the server does not say which task it accepted")
    }
}

async fn status(host: Option<&str>, check: bool, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let host = names::host(&client, host).await?;
    let agent = client.get_host_agent(GetHostAgentRequest { host_id: host.id }).await?.agent;
    let agent = agent.ok_or_else(|| Failure::unknown("the server does not say how the agent is"))?;

    let words = words::host_agent_status(agent.status);
    let available = agent.status == HostAgentStatus::Available as i32;
    let text =
        format!("{}{}", detail(&names::host_words(&host), &agent), clones(std::slice::from_ref(&host)));
    context.answer(|zone| json::HostAgent::new(agent, zone), || text)?;
    if check && !available {
        return Err(Failure::failed(format!("the agent of host {} is {words}", names::host_words(&host))));
    }
    Ok(())
}

fn detail(host: &str, agent: &HostAgent) -> String {
    let about = fields([
        ("agent", format!("of host {host}")),
        ("status", words::host_agent_status(agent.status)),
        ("version", agent.version.clone()),
        ("address", agent.inner_ip_address.clone()),
        ("last report", words::time(agent.last_available_time.as_ref())),
        ("program", agent.install_home.clone()),
        ("logs", agent.log_home.clone()),
        ("processes", words::tracking(agent)),
    ]);
    format!("{about}\n{}", process::table(&agent.processes))
}

async fn order(
    verb: Verb,
    args: OrderArgs,
    after: NotStartedAfter,
    context: &Context,
) -> Result<(), Failure> {
    let OrderArgs { host, reason, no_wait, dry_run } = args;
    let terms =
        OrderTerms { dry_run: dry_run.dry_run, not_started_after: after.wire(), ..OrderTerms::default() };
    let client = context.client().await?;
    let host = names::host(&client, host.as_deref()).await?;
    let accepted = match verb.order(&client, host.id, reason, terms::wire(terms)).await? {
        Ordered::Done(task) => task,
        Ordered::Planned(preview) => return terms::answer(preview, context),
    };
    if no_wait {
        return task::answer(accepted, context);
    }

    task::to_the_end(&client, accepted.id, context, follow::outcome).await
}
