//! `belay process`.

use belay_gateway::json;
use belay_proto::v1::{
    AgentProcess, AgentProcessStatus, GetAgentProcessRequest, Host, OrderTerms, RestartAgentProcessRequest,
    StartAgentProcessRequest, StopAgentProcessRequest,
};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{
    Context,
    terms::{self, DryRun, Generation, NotStartedAfter, Ordered},
};
use crate::{
    client::Client,
    failure::Failure,
    names,
    output::{Format, Table, fields, plain, write},
    progress::Progress,
    words,
};

/// What to do with processes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the processes of one host, or of all.
    #[command(after_help = "Examples:\n  belay process list\n  belay process list --host web-1 -o json")]
    List {
        /// Only those of this host: its id or its name.
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
    },
    /// Show all that is known of one process, and why it is as it is.
    #[command(
        visible_alias = "why",
        after_help = "Examples:\n  belay process why obstat2\n  \
                      belay process get --check obstat2 && echo it runs"
    )]
    Get {
        /// Its host, by id or name. May be left out where there is one host only.
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// The process, by id or alias.
        process: String,
        /// Exit with 1 unless it is STARTED.
        #[arg(long)]
        check: bool,
    },
    /// Stop processes, and prove that all of each is gone.
    #[command(after_help = "Examples:\n  belay process stop obstat2\n  \
                      belay process stop --host web-1 'ob_*' --reason \"disk is full\"\n  \
                      belay process stop --force obstat2")]
    Stop(StopArgs),
    /// Start processes.
    #[command(after_help = "Example:\n  belay process start --host web-1 obstat2 ob_cleaner")]
    Start(OrderArgs),
    /// Stop processes, prove that all of each is gone, and start them again.
    #[command(after_help = "Example:\n  belay process restart obstat2 --reason \"new settings\"")]
    Restart(RestartArgs),
}

/// Which processes, why, and how.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Kill them at once, without asking; also where a stop is under way.
    #[arg(long)]
    force: bool,
}

/// Which processes, why, and which of them.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    after: NotStartedAfter,
}

/// Which processes, and why.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// Their host, by id or name. May be left out where there is one host only.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Processes by id or alias, ordered one after the other. A pattern such as 'ob_*' means every operable one that it
    /// fits.
    #[arg(required = true, value_name = "PROCESS")]
    processes: Vec<String>,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    generation: Generation,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List { host } => list(host.as_deref(), context).await,
        Command::Get { host, process, check } => get(host.as_deref(), process, check, context).await,
        Command::Stop(StopArgs { order: args, force }) => {
            order(Verb::Stop { force }, args, NotStartedAfter::default(), context).await
        }
        Command::Start(args) => order(Verb::Start, args, NotStartedAfter::default(), context).await,
        Command::Restart(RestartArgs { order: args, after }) => {
            order(Verb::Restart, args, after, context).await
        }
    }
}

/// The processes as a table, each with its host where there are several.
pub(crate) fn table(processes: &[AgentProcess]) -> String {
    let mut table =
        Table::new(["HOST", "ID", "ALIAS", "STATUS", "PHASE", "PID", "ALIVE FOR", "PORTS", "OPERABLE"]);
    for process in processes {
        let alive = process.pid != 0;
        table.row([
            process.host_id.to_string(),
            process.id.to_string(),
            process.alias.clone(),
            words::process_status(process.status),
            words::phase(process.phase),
            if alive { process.pid.to_string() } else { String::new() },
            if alive { words::duration(process.elapsed_time.as_ref()) } else { String::new() },
            process.ports.clone().unwrap_or_default(),
            if process.operable { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.render()
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Stop { force: bool },
    Start,
    Restart,
}

impl Verb {
    fn going_on(self) -> &'static str {
        match self {
            Self::Stop { force: false } => "stopping",
            Self::Stop { force: true } => "killing",
            Self::Start => "starting",
            Self::Restart => "restarting",
        }
    }

    /// Orders it, and answers with the process as it is when that is proven.
    async fn order(
        self,
        client: &Client,
        host_id: i64,
        agent_process_id: i64,
        reason: String,
        terms: Option<OrderTerms>,
    ) -> Result<Ordered<AgentProcess>, Failure> {
        let (process, preview) = match self {
            Self::Stop { force } => {
                let request = StopAgentProcessRequest { host_id, agent_process_id, reason, force, terms };
                let answer = client.stop_agent_process(request).await?;
                (answer.process, answer.preview)
            }
            Self::Start => {
                let request = StartAgentProcessRequest { host_id, agent_process_id, reason, terms };
                let answer = client.start_agent_process(request).await?;
                (answer.process, answer.preview)
            }
            Self::Restart => {
                let request = RestartAgentProcessRequest { host_id, agent_process_id, reason, terms };
                let answer = client.restart_agent_process(request).await?;
                (answer.process, answer.preview)
            }
        };
        Ordered::read(process, preview, "the server does not say how the process is now")
    }
}

async fn list(host: Option<&str>, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let hosts = match host {
        Some(_) => vec![names::host(&client, host).await?],
        None => client.hosts().await?,
    };
    let mut processes = Vec::new();
    for host in hosts {
        processes.extend(client.processes(host.id).await?);
    }
    let text = table(&processes);
    context.answer(
        |zone| json::Listed {
            contents: processes.into_iter().map(|process| json::AgentProcess::new(process, zone)).collect(),
        },
        || text,
    )
}

async fn get(host: Option<&str>, process: String, check: bool, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let host = names::host(&client, host).await?;
    let mut found = names::processes(&client, &host, &[process]).await?;
    let (Some(found), true) = (found.pop(), found.is_empty()) else {
        return Err(Failure::usage("more than one process is meant").hint("name one by its id or alias"));
    };
    let request = GetAgentProcessRequest { host_id: host.id, agent_process_id: found.id };
    let process = client.get_agent_process(request).await?.process;
    let process = process.ok_or_else(|| Failure::unknown("the server does not say how the process is"))?;

    let text = detail(&host, &process);
    let runs = process.status == AgentProcessStatus::Started as i32;
    let name = process.alias.clone();
    context.answer(|zone| json::AgentProcessDetail::new(process, zone), || text)?;
    if check && !runs { Err(Failure::failed(format!("`{name}` is not running"))) } else { Ok(()) }
}

fn detail(host: &Host, process: &AgentProcess) -> String {
    let leftovers: Vec<_> = process
        .leftovers
        .iter()
        .map(|leftover| format!("pid {}: {}", leftover.pid, leftover.command))
        .collect();
    let last_exit = process.last_exit.as_ref();
    let observed = match &process.observed_age {
        Some(age) => format!("{} ago", words::duration(Some(age))),
        None => "not since the server started".to_owned(),
    };
    let about = fields([
        ("process", format!("{} ({}) on host {}", process.alias, process.id, names::host_words(host))),
        ("why", words::why(process)),
        (
            "status",
            format!("{}, phase {}", words::process_status(process.status), words::phase(process.phase)),
        ),
        ("trouble", process.trouble.clone()),
        ("endings", words::endings(process)),
        ("next start", words::until(process.next_start_time.as_ref(), Timestamp::now())),
        ("wanted", if process.desired_running { "running" } else { "stopped" }.to_owned()),
        ("observed", observed),
        ("pid", if process.pid == 0 { String::new() } else { process.pid.to_string() }),
        (
            "alive for",
            if process.pid == 0 { String::new() } else { words::duration(process.elapsed_time.as_ref()) },
        ),
        ("user", process.user.clone().unwrap_or_default()),
        ("command", process.start_command.clone().unwrap_or_default()),
        ("ports", process.ports.clone().unwrap_or_default()),
        ("tracked", if process.pid == 0 { "" } else { words::tracked(process) }.to_owned()),
        ("not applied", process.not_applied.join("; ")),
        ("instances", process.generation.to_string()),
        ("last exit", last_exit.map(words::exit).unwrap_or_default()),
        ("its stop", last_exit.map(words::ladder).unwrap_or_default()),
        ("it used", last_exit.map(words::used).unwrap_or_default()),
        ("leftovers", leftovers.join("; ")),
        ("last alive", words::time(process.last_active_time.as_ref())),
        ("logs", process.log_file_pattern.clone()),
        (
            "operable",
            if process.operable { "yes" } else { "no: only the agent as a whole stops it" }.to_owned(),
        ),
    ]);
    let output: String = last_exit
        .map(|exit| exit.last_output.iter().map(|line| format!("  {}\n", plain(line))).collect())
        .unwrap_or_default();
    match &output[..] {
        "" => about,
        lines => format!("{about}\nlast output before that exit:\n{lines}"),
    }
}

/// Orders each process in turn. A failure does not keep the others from being ordered; the exit code is the first one's.
async fn order(
    verb: Verb,
    args: OrderArgs,
    after: NotStartedAfter,
    context: &Context,
) -> Result<(), Failure> {
    let OrderArgs { host, processes, reason, generation, dry_run } = args;
    let terms = terms::wire(OrderTerms {
        dry_run: dry_run.dry_run,
        expected_generations: generation.if_generation,
        not_started_after: after.wire(),
        ..OrderTerms::default()
    });
    let client = context.client().await?;
    let host = names::host(&client, host.as_deref()).await?;
    let meant = names::processes(&client, &host, &processes).await?;

    let mut progress = Progress::new();
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for process in &meant {
        let what = format!("{} `{}`", verb.going_on(), process.alias);
        let ordered = verb.order(&client, host.id, process.id, reason.clone(), terms.clone());
        match progress.during(&what, ordered).await {
            Ok(Ordered::Done(process)) => done.push(process),
            Ok(Ordered::Planned(preview)) => terms::answer(preview, context)?,
            Err(failure) => failures.push(failure),
        }
    }

    let printed = print(done, context);
    match &failures[..] {
        [] => printed,
        [only] => Err(only.clone()),
        [first, ..] => {
            failures.iter().for_each(|failure| failure.report(context.format));
            Err(Failure::told(first.exit))
        }
    }
}

/// A table of all; or one JSON object for each, as the REST API answers to each order.
fn print(processes: Vec<AgentProcess>, context: &Context) -> Result<(), Failure> {
    if processes.is_empty() {
        return Ok(());
    }
    match context.format {
        Format::Table => write(&table(&processes)),
        Format::Json => processes.into_iter().try_for_each(|process| {
            context.answer(|zone| json::AgentProcess::new(process, zone), String::new)
        }),
    }
}

#[cfg(test)]
mod tests {
    use belay_proto::v1::{ExitReport, Rung};
    use prost_types::Duration;

    use super::*;

    #[test]
    fn a_process_in_trouble_tells_all_of_it() {
        let seconds = |seconds| Some(Duration { seconds, nanos: 0 });
        let rung = |step: &str, duration| Rung { step: step.to_owned(), duration };
        let process = AgentProcess {
            alias: "obstat2".to_owned(),
            phase: 3,
            desired_running: true,
            trouble: "it exited with 3 before it was ready".to_owned(),
            endings: 4,
            next_start_time: Some(prost_types::Timestamp { seconds: i64::from(u32::MAX), nanos: 0 }),
            not_applied: vec!["nice = -5: not permitted".to_owned()],
            last_exit: Some(ExitReport {
                pid: 7,
                exit_code: Some(3),
                rungs: vec![rung("SIGTERM", seconds(30)), rung("SIGKILL", None)],
                cpu_time: seconds(2),
                last_output: vec!["no such file: \u{1b}[2J".to_owned(), "giving up".to_owned()],
                ..ExitReport::default()
            }),
            ..AgentProcess::default()
        };
        let text = detail(&Host::default(), &process);
        for line in [
            "trouble      it exited with 3 before it was ready\n",
            "endings      4 in a row without a healthy spell\n",
            "next start   in ",
            "not applied  nice = -5: not permitted\n",
            "last exit    pid 7 exited with 3\n",
            "its stop     SIGTERM 30s, then SIGKILL\n",
            "it used      2s of CPU time\n",
            "\nlast output before that exit:\n  no such file: \u{fffd}[2J\n  giving up\n",
        ] {
            assert!(text.contains(line), "`{line}` is not in:\n{text}");
        }
        let quiet = detail(&Host::default(), &AgentProcess::default());
        assert!(!quiet.contains("last output"), "{quiet}");
    }
}
