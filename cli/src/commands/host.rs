//! `belay host`.

use belay_gateway::json;
use belay_proto::v1::Host;
use clap::Subcommand;

use super::Context;
use crate::{failure::Failure, output::Table, words};

/// What to do with hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List all hosts.
    #[command(after_help = "Example:\n  belay host list -o json | jq '.contents[].name'")]
    List,
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List => list(context).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let hosts = context.client().await?.hosts().await?;
    let text = table(&hosts);
    context.answer(
        |zone| json::Listed { contents: hosts.into_iter().map(|host| json::Host::new(host, zone)).collect() },
        || text,
    )
}

fn table(hosts: &[Host]) -> String {
    let mut table = Table::new(["ID", "NAME", "ADDRESS", "STATUS", "AGENT", "VERSION", "REPORT AGE", "TASK"]);
    for host in hosts {
        table.row([
            host.id.to_string(),
            host.name.clone(),
            host.inner_ip_address.clone(),
            words::host_status(host.status),
            words::host_agent_status(host.agent_status),
            host.agent_version.clone(),
            words::duration(host.report_age.as_ref()),
            if host.task_id == 0 { String::new() } else { host.task_id.to_string() },
        ]);
    }
    table.render()
}
