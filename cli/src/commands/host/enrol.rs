//! Hosts that are listed, added, described and deleted.

use belay_gateway::json;
use belay_proto::v1::{
    BatchCreateHostsRequest, BatchDeleteHostsRequest, DeleteHostRequest, HostKind, HostStatus, HostToCreate,
    ListHostsRequest, ServiceType, Task, UpdateHostProfileRequest,
};
use clap::{ArgGroup, Args, ValueEnum};

use super::answer;
use crate::{
    commands::{
        Context,
        reference::{Kind, find},
        task,
        terms::{self, DryRun},
    },
    failure::Failure,
    follow, names,
    output::{Table, say},
    words,
};

/// Which hosts to list, and in which order.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only hosts with such labels: requirements joined by commas, all of which must hold. Where a host stands is in
    /// `belay/region`, `belay/idc` and `belay/type`, and with `-id` behind it by its id.
    #[arg(long, value_name = "SELECTOR")]
    select: Option<String>,
    /// Only hosts in one of these states, joined by commas.
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',', value_name = "STATUS")]
    status: Vec<Status>,
    /// Only hosts whose name, alias, address or processes hold this text.
    #[arg(long, value_name = "TEXT")]
    keyword: Option<String>,
    /// Only hosts with a service of one of these types.
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',', value_name = "TYPE")]
    service: Vec<Service>,
    /// Only hosts without a service of these types.
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',', value_name = "TYPE")]
    no_service: Vec<Service>,
    /// By id, name, alias, innerIpAddress, status, createTime or updateTime; with `,desc` the other way round.
    #[arg(long, value_name = "FIELD[,asc|desc]")]
    sort: Option<String>,
}

/// A state of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum Status {
    /// Added, and its agent was never heard.
    New,
    /// Its agent reports.
    Available,
    /// Its agent does not report.
    Offline,
}

/// A type of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
enum Service {
    /// The agent of the host.
    OcpAgent,
}

/// What kind of machine a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MachineKind {
    /// A physical machine.
    Physical,
    /// A container.
    Container,
    /// A cloud server.
    Ecs,
}

/// Which hosts to add.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The IP address of each host, at which its agent listens.
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// The port of the agents. Default: 9441.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    agent_port: Option<u16>,
    /// The data centre in which they stand, by id or name.
    #[arg(long, value_name = "IDC")]
    idc: String,
    /// Their host type, by id or name.
    #[arg(long = "type", value_name = "TYPE")]
    host_type: String,
    /// What kind of machine they are.
    #[arg(long, value_enum, default_value = "physical", value_name = "KIND")]
    kind: MachineKind,
    /// A port that containers publish, as in `8080:8080`; may be given more than once.
    #[arg(long = "publish-port", value_name = "PORTS")]
    publish_ports: Vec<String>,
    /// What else the host is called. Only where it is one host.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    alias: String,
    /// What there is to say of them.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    description: String,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    /// Answer with the accepted tasks, and do not wait for their ends.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What to say of a host.
#[derive(Debug, Args)]
// A group of its own: the one that the struct makes has the host in it too.
#[command(group(
    ArgGroup::new("said").required(true).multiple(true).args(["idc", "host_type", "alias", "description"])
))]
pub(crate) struct SetArgs {
    /// The host, by id or name.
    host: String,
    /// The data centre in which it stands, by id or name; `none` takes it out of its own.
    #[arg(long, value_name = "IDC")]
    idc: Option<String>,
    /// Its host type, by id or name; `none` leaves it without one.
    #[arg(long = "type", value_name = "TYPE")]
    host_type: Option<String>,
    /// What else it is called.
    #[arg(long, value_name = "TEXT")]
    alias: Option<String>,
    /// What there is to say of it.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    dry_run: DryRun,
}

/// Which hosts to delete.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The hosts, by id or name.
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
    /// Also hosts that are lost: what ran there may still run, and is nobody's then. A host whose agent lives is never
    /// deleted.
    #[arg(long)]
    force: bool,
    /// Why, for the audit trail.
    #[arg(long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    dry_run: DryRun,
}

impl ListArgs {
    /// The list, as the wire has it, but for its page.
    pub(super) fn request(self) -> ListHostsRequest {
        let Self { select, status: status_list, keyword, service, no_service, sort } = self;
        let status = |status: Status| match status {
            Status::New => HostStatus::New.into(),
            Status::Available => HostStatus::Available.into(),
            Status::Offline => HostStatus::Offline.into(),
        };
        let service_type = |Service::OcpAgent| ServiceType::OcpAgent.into();
        ListHostsRequest {
            selector: select,
            statuses: status_list.into_iter().map(status).collect(),
            keyword: keyword.unwrap_or_default(),
            included_service_types: service.into_iter().map(service_type).collect(),
            excluded_service_types: no_service.into_iter().map(service_type).collect(),
            sort: sort.unwrap_or_default(),
            ..ListHostsRequest::default()
        }
    }
}

/// Adds hosts.
pub(super) async fn create(args: CreateArgs, context: &Context) -> Result<(), Failure> {
    let CreateArgs {
        addresses,
        agent_port,
        idc,
        host_type,
        kind,
        publish_ports,
        alias,
        description,
        reason,
        no_wait,
        dry_run,
    } = args;
    let client = context.client().await?;
    let host = |inner_ip_address| HostToCreate { inner_ip_address, ..HostToCreate::default() };
    let kind = match kind {
        MachineKind::Physical => HostKind::DedicatedPhysicalMachine,
        MachineKind::Container => HostKind::DedicatedContainer,
        MachineKind::Ecs => HostKind::DedicatedEcs,
    };
    let request = BatchCreateHostsRequest {
        hosts: addresses.into_iter().map(host).collect(),
        kind: kind.into(),
        publish_ports,
        idc_id: find(&client, Kind::Idc, &idc).await?,
        type_id: find(&client, Kind::HostType, &host_type).await?,
        alias,
        description,
        agent_port: agent_port.unwrap_or_default().into(),
        reason,
        terms: dry_run.wire(),
        ..BatchCreateHostsRequest::default()
    };
    let created = client.batch_create_hosts(request).await?;
    if let Some(preview) = created.preview {
        return terms::answer(preview, context);
    }
    let tasks = created.tasks;
    match &tasks[..] {
        [only] if !no_wait => task::to_the_end(&client, only.id, context, follow::outcome).await,
        _ => {
            let text = table(&tasks);
            context.answer(
                |zone| json::Listed {
                    contents: tasks.into_iter().map(|task| json::TaskInstance::new(task, zone)).collect(),
                },
                || text,
            )
        }
    }
}

/// Says what a host is.
pub(super) async fn set(args: SetArgs, context: &Context) -> Result<(), Failure> {
    let SetArgs { host, idc, host_type, alias, description, reason, dry_run } = args;
    let client = context.client().await?;
    let host_id = names::host(&client, Some(&host)).await?.id;
    let mut ids = [None, None];
    for (id, (kind, named)) in ids.iter_mut().zip([(Kind::Idc, idc), (Kind::HostType, host_type)]) {
        *id = match named.as_deref() {
            None => None,
            Some("none") => Some(0),
            Some(named) => Some(find(&client, kind, named).await?),
        };
    }
    let [idc_id, type_id] = ids;
    let terms = dry_run.wire();
    let request = UpdateHostProfileRequest { host_id, idc_id, type_id, alias, description, reason, terms };
    let answered = client.update_host_profile(request).await?;
    answer(answered.host, answered.preview, context)
}

/// Deletes hosts.
pub(super) async fn delete(args: DeleteArgs, context: &Context) -> Result<(), Failure> {
    let DeleteArgs { hosts, force, reason, dry_run } = args;
    let client = context.client().await?;
    let host_ids = names::hosts(&client, &hosts).await?;
    let terms = dry_run.wire();
    let preview = match host_ids[..] {
        [host_id] => client.delete_host(DeleteHostRequest { host_id, force, reason, terms }).await?.preview,
        _ => {
            let request = BatchDeleteHostsRequest { host_ids: host_ids.clone(), force, reason, terms };
            client.batch_delete_hosts(request).await?.preview
        }
    };
    if let Some(preview) = preview {
        return terms::answer(preview, context);
    }
    let named = host_ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    say(&format!("deleted: {named}\n"));
    Ok(())
}

fn table(tasks: &[Task]) -> String {
    let mut table = Table::new(["TASK", "HOST", "NAME", "STATE"]);
    for task in tasks {
        table.row([
            task.id.to_string(),
            task.host_id.to_string(),
            task.name.clone(),
            words::task_state(task),
        ]);
    }
    table.render()
}
