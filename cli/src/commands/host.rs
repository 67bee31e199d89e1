//! `belay host`.

mod enrol;
mod token;

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use belay_gateway::json;
use belay_proto::{
    check_label_key, check_label_value,
    v1::{
        AgentClone, GetHostRequest, Host, HostMaintenance, HostPolicy, OrderPreview,
        SetHostMaintenanceRequest, UpdateHostLabelsRequest,
    },
};
use clap::{Args as ClapArgs, Subcommand};
use jiff::Timestamp;

use super::{
    Context,
    terms::{self, DryRun, Ordered},
};
use crate::{
    cli,
    failure::Failure,
    names,
    output::{Table, fields},
    words,
};

/// What to do with hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List hosts: all, or those with certain labels, in certain states, or that are called so.
    #[command(after_help = "Examples:\n  belay host list -o json | jq '.contents[].name'\n  \
                      belay host list --select 'zone=z1,cluster!=obtest,role in (db,web),!retired'\n  \
                      belay host list --select belay/region=hz --status OFFLINE,NEW --sort name,desc\n  \
                      belay host list --keyword 10.0.3.")]
    List(enrol::ListArgs),
    /// Show one host.
    #[command(after_help = "Example:\n  belay host get web-1")]
    Get {
        /// The host, by id or name.
        host: String,
    },
    /// Set labels of a host, as in `zone=z1`, and remove them, as in `zone-`. They weigh more than what its agent says.
    #[command(after_help = "Example:\n  belay host label web-1 zone=z1 role-")]
    Label {
        /// The host, by id or name.
        host: String,
        /// What to set (`KEY=VALUE`) or remove (`KEY-`).
        #[arg(required = true, value_parser = label, value_name = "KEY=VALUE|KEY-")]
        labels: Vec<Label>,
        /// Why, for the audit trail.
        #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Leave a host out of orders to many hosts, or take it in again. Orders that name it alone work as ever.
    #[command(
        after_help = "Examples:\n  belay host maintenance web-1 --on --reason \"new disk\" --until 2h\n  \
                      belay host maintenance web-1 --off"
    )]
    Maintenance(MaintenanceArgs),
    /// Add hosts on which an agent runs, or is about to: each is taken in by a task. Belay does not install agents.
    #[command(after_help = "Examples:\n  belay host create 10.0.3.7 --idc hz-1 --type m1 --alias db7\n  \
                      belay host create 10.0.3.7 10.0.3.8 --idc hz-1 --type m1 --agent-port 9500 --no-wait")]
    Create(enrol::CreateArgs),
    /// Say where a host stands, of which type it is, and what else it is called.
    #[command(after_help = "Examples:\n  belay host set web-1 --idc hz-1 --type m1\n  \
                      belay host set web-1 --alias '' --idc none")]
    Set(enrol::SetArgs),
    /// Delete hosts whose agents have ended. All of them or none.
    #[command(after_help = "Examples:\n  belay host delete web-1 --reason retired\n  \
                      belay host delete web-1 web-2 --force --reason 'the rack is gone'")]
    Delete(enrol::DeleteArgs),
    /// Make, list and revoke the tokens with which agents and gateways join.
    #[command(subcommand)]
    Token(token::Command),
}

/// Whether the maintenance of a host begins or ends.
#[derive(Debug, ClapArgs)]
pub(crate) struct MaintenanceArgs {
    /// The host, by id or name.
    host: String,
    /// It begins.
    #[arg(long, required_unless_present = "off", requires = "reason")]
    on: bool,
    /// It ends.
    #[arg(long, conflicts_with_all = ["on", "until"])]
    off: bool,
    /// Why, for whoever finds the host left out, and for the audit trail.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long from now on it lasts. Default: until it is ended.
    #[arg(long, value_parser = cli::duration, value_name = "DURATION")]
    until: Option<Duration>,
    #[command(flatten)]
    dry_run: DryRun,
}

/// One label to set or to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    key: String,
    /// What to set it to. `None` removes it.
    value: Option<String>,
}

/// Does it.
pub(crate) async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args, context).await,
        Command::Get { host } => get(&host, context).await,
        Command::Label { host, labels, reason, dry_run } => {
            let (set, remove) = sort(labels)?;
            let client = context.client().await?;
            let host_id = names::host(&client, Some(&host)).await?.id;
            let request = UpdateHostLabelsRequest { host_id, set, remove, reason, terms: dry_run.wire() };
            let answered = client.update_host_labels(request).await?;
            answer(answered.host, answered.preview, context)
        }
        Command::Maintenance(args) => set_maintenance(args, context).await,
        Command::Create(args) => enrol::create(args, context).await,
        Command::Set(args) => enrol::set(args, context).await,
        Command::Delete(args) => enrol::delete(args, context).await,
        Command::Token(command) => token::run(command, context).await,
    }
}

async fn list(args: enrol::ListArgs, context: &Context) -> Result<(), Failure> {
    let hosts = context.client().await?.listed_hosts(args.request()).await?;
    let text = table(&hosts);
    context.answer(
        |zone| json::Listed {
            contents: hosts.into_iter().map(|host| json::HostDetail::new(host, zone)).collect(),
        },
        || text,
    )
}

async fn get(host: &str, context: &Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let host_id = names::host(&client, Some(host)).await?.id;
    let host = client.get_host(GetHostRequest { host_id }).await?.host;
    answer(host, None, context)
}

async fn set_maintenance(args: MaintenanceArgs, context: &Context) -> Result<(), Failure> {
    let MaintenanceArgs { host, on, off: _, reason, until, dry_run } = args;
    let client = context.client().await?;
    let host_id = names::host(&client, Some(&host)).await?.id;
    let duration = until.map(prost_types::Duration::try_from).transpose();
    let request = SetHostMaintenanceRequest {
        host_id,
        on: Some(on),
        reason: reason.unwrap_or_default(),
        duration: duration.map_err(|_| Failure::usage("`--until` is too long"))?,
        terms: dry_run.wire(),
    };
    let answered = client.set_host_maintenance(request).await?;
    answer(answered.host, answered.preview, context)
}

fn answer(host: Option<Host>, preview: Option<OrderPreview>, context: &Context) -> Result<(), Failure> {
    let host = match Ordered::read(host, preview, "the server does not say how the host is")? {
        Ordered::Done(host) => host,
        Ordered::Planned(preview) => return terms::answer(preview, context),
    };
    let text = detail(&host);
    context.answer(|zone| json::HostDetail::new(host, zone), || text)
}

/// Reads `KEY=VALUE` or `KEY-`.
fn label(text: &str) -> Result<Label, String> {
    let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => (key, Some(value)),
        (None, Some(key)) => (key, None),
        (None, None) => return Err("write `KEY=VALUE` to set it, or `KEY-` to remove it".to_owned()),
    };
    check_label_key(key).map_err(|fault| fault.to_string())?;
    check_label_value(value.unwrap_or_default()).map_err(|fault| fault.to_string())?;
    Ok(Label { key: key.to_owned(), value: value.map(str::to_owned) })
}

/// What to set and what to remove. A key that is named twice could mean either.
fn sort(labels: Vec<Label>) -> Result<(HashMap<String, String>, Vec<String>), Failure> {
    let (mut set, mut remove) = (HashMap::new(), Vec::new());
    for Label { key, value } in labels {
        if set.contains_key(&key) || remove.contains(&key) {
            return Err(Failure::usage(format!("the label `{key}` is named twice")));
        }
        match value {
            Some(value) => drop(set.insert(key, value)),
            None => remove.push(key),
        }
    }
    Ok((set, remove))
}

fn table(hosts: &[Host]) -> String {
    let mut table = Table::new([
        "ID",
        "NAME",
        "ADDRESS",
        "STATUS",
        "AGENT",
        "VERSION",
        "REPORT AGE",
        "TASK",
        "MAINTENANCE",
        "IDC",
        "LABELS",
    ]);
    for host in hosts {
        table.row([
            host.id.to_string(),
            host.name.clone(),
            host.inner_ip_address.clone(),
            words::host_status(host.status),
            words::host_agent_status(host.agent_status),
            host.agent_version.clone(),
            words::duration(host.report_age.as_ref()),
            task(host),
            host.maintenance.as_ref().map(|maintenance| maintenance.reason.clone()).unwrap_or_default(),
            host.idc.as_ref().map(|idc| idc.name.clone()).unwrap_or_default(),
            labels(&own(&host.labels)),
        ]);
    }
    format!("{}{}", table.render(), clones(hosts))
}

fn detail(host: &Host) -> String {
    let about = fields([
        ("host", names::host_words(host)),
        ("alias", host.alias.clone()),
        ("description", host.description.clone()),
        ("agent at", host.agent_address.clone()),
        ("region", host.region.as_ref().map(|region| region.name.clone()).unwrap_or_default()),
        ("data centre", host.idc.as_ref().map(|idc| idc.name.clone()).unwrap_or_default()),
        ("host type", host.r#type.as_ref().map(|of| of.name.clone()).unwrap_or_default()),
        ("status", words::host_status(host.status)),
        ("agent", words::host_agent_status(host.agent_status)),
        ("version", host.agent_version.clone()),
        ("report age", words::duration(host.report_age.as_ref())),
        ("task", task(host)),
        ("maintenance", host.maintenance.as_ref().map(maintenance).unwrap_or_default()),
        ("its own policy", host.policy.as_ref().map(policy).unwrap_or_default()),
        ("trouble", host.agent_trouble.clone()),
        ("labels", labels(&own(&host.labels))),
        ("of them set here", labels(&host.operator_labels)),
        ("first seen", words::time(host.create_time.as_ref())),
    ]);
    format!("{about}{}", clones(std::slice::from_ref(host)))
}

fn task(host: &Host) -> String {
    if host.task_id == 0 { String::new() } else { host.task_id.to_string() }
}

fn maintenance(maintenance: &HostMaintenance) -> String {
    let HostMaintenance { operator, reason, begin_time, end_time } = maintenance;
    let end = match end_time {
        None => "until it is ended".to_owned(),
        end => format!("ends {}", words::until(end.as_ref(), Timestamp::now())),
    };
    format!("{reason}; by {operator} since {}, {end}", words::time(begin_time.as_ref()))
}

/// What the agent of a host refuses.
fn policy(policy: &HostPolicy) -> String {
    let HostPolicy { protected_processes, refuses_orders, reason, operator, begin_time } = policy;
    let mut told = Vec::new();
    if *refuses_orders {
        let since = match begin_time {
            Some(_) => format!(" since {} by {operator}", words::time(begin_time.as_ref())),
            None => String::new(),
        };
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        told.push(format!("takes no orders{since}{why}"));
    }
    if !protected_processes.is_empty() {
        told.push(format!("protects {}", protected_processes.join(", ")));
    }
    told.join("; ")
}

/// Labels without those that tell where the host stands, which is told beside them.
fn own(all: &HashMap<String, String>) -> HashMap<String, String> {
    let own = all.iter().filter(|(key, _)| !key.starts_with("belay/"));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Labels by rising key, such as `role=db,zone=z1`: a selector that means hosts like this one.
fn labels(labels: &HashMap<String, String>) -> String {
    let mut labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort_unstable();
    labels.join(",")
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

    #[track_caller]
    fn check(text: &[&str], expected: &str) {
        let told = text.iter().map(|text| label(text)).collect::<Result<Vec<_>, _>>().and_then(|labels| {
            let (set, remove) = sort(labels).map_err(|failure| failure.message)?;
            Ok(format!("{} -{}", self::labels(&set), remove.join(",")))
        });
        assert_eq!(told.unwrap_or_else(|fault| fault), expected);
    }

    #[test]
    fn labels_are_set_and_removed_by_one_command() {
        check(&["zone=z1", "role-", "tier="], "tier=,zone=z1 -role");
        check(
            &["zone=a-"],
            "the value `a-` is not 1 to 63 of a-z A-Z 0-9 - _ . with a letter or digit at both ends",
        );
        check(&["zone"], "write `KEY=VALUE` to set it, or `KEY-` to remove it");
        check(&["-"], "the key `` is not 1 to 63 of a-z A-Z 0-9 - _ . with a letter or digit at both ends");
        check(&["zone=z1", "zone-"], "the label `zone` is named twice");
        check(&["zone=z1", "zone=z2"], "the label `zone` is named twice");
    }

    #[test]
    fn what_a_host_refuses_is_shown() {
        let protects =
            HostPolicy { protected_processes: vec!["db".into(), "web".into()], ..Default::default() };
        assert_eq!(policy(&protects), "protects db, web");
        let both = HostPolicy { refuses_orders: true, reason: "new disk".into(), ..protects };
        assert_eq!(policy(&both), "takes no orders: new disk; protects db, web");
    }

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
