//! `belay host`.

use std::fmt::Write as _;

use belay_gateway::json;
use belay_proto::v1::{AgentClone, Host};
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
    format!("{}{}", table.render(), clones(hosts))
}

/// The agents that report the identity of a host at the same time, where there is more than one. Empty where there is none
/// such.
pub(crate) fn clones(hosts: &[Host]) -> String {
    let mut text = String::new();
    for host in hosts.iter().filter(|host| !host.clones.is_empty()) {
        let mut table = Table::new(["NAME", "ADDRESS", "MACHINE", "BOOT", "REPORT AGE"]);
        for clone in &host.clones {
            let AgentClone { name, address, machine, boot_id, report_age } = clone.clone();
            table.row([name, address, machine, boot_id, words::duration(report_age.as_ref())]);
        }
        // Writing to a String can not fail.
        let _ = write!(
            text,
            "\nThese agents report the identity of host {}; no order for it is taken until one is left:\n{}",
            host.id,
            table.render()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard A10.
    #[test]
    fn agents_with_one_identity_are_shown() {
        let clone = |name: &str, address: &str| AgentClone {
            name: name.into(),
            address: address.into(),
            machine: "25d1a0".into(),
            boot_id: "b7".into(),
            report_age: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
        };
        let clones_of_it = vec![clone("web-1", "10.0.0.5:9441"), clone("web-2", "10.0.0.6:9441")];
        let cloned = Host { id: 20, clones: clones_of_it, ..Host::default() };
        assert_eq!(
            clones(&[Host::default(), cloned]),
            "\nThese agents report the identity of host 20; no order for it is taken until one is left:\n\
             NAME   ADDRESS        MACHINE  BOOT  REPORT AGE\n\
             web-1  10.0.0.5:9441  25d1a0   b7    2s\n\
             web-2  10.0.0.6:9441  25d1a0   b7    2s\n"
        );
        assert_eq!(clones(&[Host::default()]), "");
    }
}
