//! Hosts and process identities.

use std::{collections::BTreeMap, sync::Arc};

use belay_proto::{HostId, HostTypeId, IdcId};
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder, Set, sea_query::Expr,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    AuditEntry, Result, Store, StoreError, audit, enrolment,
    entity::{host, host_type, idc, process},
    id, micros,
    reference::{Places, place_of},
    time, word,
};
use crate::{
    host::{AgentState, Facts, Host, Profile},
    labels::Labels,
    maintenance::Maintenance,
    process::{Observed, Process},
    reference::Place,
};

/// How many rows are written by one transaction, or named by one statement, where there may be thousands.
const AT_A_TIME: usize = 250;
/// Of so many processes of a host it is remembered that its agent once declared them.
const MOST_UNDECLARED: usize = 1000;

/// A process as its agent declares it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    pub(crate) alias: String,
    pub(crate) operable: bool,
    pub(crate) log_file_pattern: String,
    pub(crate) observed: Observed,
}

/// What an operator says of a host.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HostChange {
    /// All labels that operators have set.
    Labels(Labels),
    /// Its maintenance, or that there is none.
    Maintenance(Option<Maintenance>),
}

/// All that operators say that a host is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProfileChange {
    pub(crate) idc: Option<IdcId>,
    pub(crate) host_type: Option<HostTypeId>,
    pub(crate) profile: Profile,
}

impl Store {
    /// Every host with its processes, as an earlier server left them.
    pub(crate) async fn fleet(&self) -> Result<Vec<(Host, Vec<Process>)>> {
        let hosts = host::Entity::find().order_by_asc(host::Column::Id).all(&self.read).await?;
        let mut of_hosts: BTreeMap<HostId, Vec<Process>> = BTreeMap::new();
        for row in process::Entity::find().order_by_asc(process::Column::Id).all(&self.read).await? {
            let process = read_process(row)?;
            of_hosts.entry(process.host).or_default().push(process);
        }
        let places = Places::all(&self.read).await?;
        let with_processes = |row| {
            let host = read_host(&row, places.of(&row)?)?;
            let processes = of_hosts.remove(&host.id).unwrap_or_default();
            Ok((host, processes))
        };
        hosts.into_iter().map(with_processes).collect()
    }

    /// Takes in an agent that reports itself: its host gets an id at the first time, and so does each process.
    /// What the agent does not declare any more keeps its id, marked so.
    pub(crate) async fn register(
        &self,
        facts: &Facts,
        declared: &[Declared],
        now: Timestamp,
    ) -> Result<(Host, Vec<Process>)> {
        let change = self.change().await?;
        let recorded = register(&change, facts, declared, now).await?;
        change.commit().await?;
        Ok(recorded)
    }

    /// Takes in many agents at once, and says in their order what is recorded of them: all of them or none.
    pub(crate) async fn register_all(
        &self,
        agents: &[(&Facts, &[Declared])],
        now: Timestamp,
    ) -> Result<Vec<(Host, Vec<Process>)>> {
        let mut recorded = Vec::with_capacity(agents.len());
        if agents.is_empty() {
            return Ok(recorded);
        }
        let change = self.change().await?;
        for (facts, declared) in agents {
            recorded.push(register(&change, facts, declared, now).await?);
        }
        change.commit().await?;
        Ok(recorded)
    }

    /// Notes what an operator says of a host.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) async fn change_host(&self, host: HostId, what: HostChange, audit: AuditEntry) -> Result<()> {
        let now = Set(micros(audit.time));
        let row = host::ActiveModel { id: Set(host.get()), update_time: now, ..Default::default() };
        let row = match what {
            HostChange::Labels(labels) => {
                host::ActiveModel { operator_labels: Set(encode_labels(&labels)?), ..row }
            }
            HostChange::Maintenance(maintenance) => {
                host::ActiveModel { maintenance: Set(maintenance.as_ref().map(encode).transpose()?), ..row }
            }
        };
        let change = self.change().await?;
        match host::Entity::update(row).exec(&change).await {
            Ok(_) => {}
            Err(DbErr::RecordNotUpdated) => return Err(StoreError::Missing),
            Err(error) => return Err(error.into()),
        }
        audit::commit(change, audit).await
    }

    /// Notes what an operator says that a host is, and tells where it stands then.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::NoIdc`] or [`StoreError::NoHostType`].
    pub(crate) async fn set_profile(
        &self,
        host: HostId,
        what: ProfileChange,
        audit: AuditEntry,
    ) -> Result<Place> {
        let ProfileChange { idc, host_type, profile } = what;
        let change = self.change().await?;
        check_place(&change, idc, host_type).await?;
        let row = host::ActiveModel {
            id: Set(host.get()),
            idc_id: Set(idc.map(IdcId::get)),
            type_id: Set(host_type.map(HostTypeId::get)),
            profile: Set(Some(encode(&profile)?)),
            update_time: Set(micros(audit.time)),
            ..Default::default()
        };
        let row = match host::Entity::update(row).exec(&change).await {
            Ok(row) => row,
            Err(DbErr::RecordNotUpdated) => return Err(StoreError::Missing),
            Err(error) => return Err(error.into()),
        };
        let place = place_of(&change, &row).await?;
        audit::commit(change, audit).await?;
        Ok(place)
    }

    /// Writes back what was last seen, so that a restarted server has something old to show. A few at a time, so that orders
    /// have their turn in between; and when hosts were last seen to the second, so that thousands of them are a few
    /// statements.
    pub(crate) async fn save_observations(
        &self,
        processes: &[Process],
        seen: &[(HostId, Timestamp)],
    ) -> Result<()> {
        for some in processes.chunks(AT_A_TIME) {
            let change = self.change().await?;
            for process in some {
                let observed = process.observed.as_ref().map(encode).transpose()?;
                // That of a host that was deleted meanwhile is not there.
                process::Entity::update_many()
                    .set(process::ActiveModel {
                        observed: Set(observed),
                        observed_time: Set(process.observed_time.map(micros)),
                        ..Default::default()
                    })
                    .filter(process::Column::Id.eq(process.id.get()))
                    .exec(&change)
                    .await?;
            }
            change.commit().await?;
        }
        if seen.is_empty() {
            return Ok(());
        }
        let mut at_seconds: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (host, at) in seen {
            at_seconds.entry(at.as_second()).or_default().push(host.get());
        }
        let change = self.change().await?;
        for (second, hosts) in at_seconds {
            for some in hosts.chunks(AT_A_TIME) {
                host::Entity::update_many()
                    .col_expr(host::Column::LastReportTime, Expr::value(second * 1_000_000))
                    .filter(host::Column::Id.is_in(some.iter().copied()))
                    .exec(&change)
                    .await?;
            }
        }
        Ok(change.commit().await?)
    }
}

/// Sets what the agent of a host is meant to be doing, as a part of another change. A host that was deleted has none.
pub(super) async fn set_agent_state(
    change: &DatabaseTransaction,
    host: HostId,
    state: AgentState,
    now: Timestamp,
) -> Result<()> {
    host::Entity::update_many()
        .set(host::ActiveModel {
            agent_state: Set(state.as_str().into()),
            update_time: Set(micros(now)),
            ..Default::default()
        })
        .filter(host::Column::Id.eq(host.get()))
        .exec(change)
        .await?;
    Ok(())
}

/// A host must not point to nothing.
pub(super) async fn check_place(
    change: &DatabaseTransaction,
    idc: Option<IdcId>,
    host_type: Option<HostTypeId>,
) -> Result<()> {
    if let Some(id) = idc
        && idc::Entity::find_by_id(id.get()).one(change).await?.is_none()
    {
        return Err(StoreError::NoIdc(id));
    }
    if let Some(id) = host_type
        && host_type::Entity::find_by_id(id.get()).one(change).await?.is_none()
    {
        return Err(StoreError::NoHostType(id));
    }
    Ok(())
}

/// Takes in an agent as a part of another change.
async fn register(
    change: &DatabaseTransaction,
    facts: &Facts,
    declared: &[Declared],
    now: Timestamp,
) -> Result<(Host, Vec<Process>)> {
    let row = match of_identity(change, &facts.identity).await? {
        Some(row) => update_host(change, row, facts, now).await?,
        None => match enrolment::expecting(change, facts).await? {
            Some(row) => update_host(change, row, facts, now).await?,
            None => insert_host(change, facts, now).await?,
        },
    };
    with_processes(change, row, declared, now).await
}

/// The host of the agent with this identity.
pub(super) async fn of_identity(db: &impl ConnectionTrait, identity: &str) -> Result<Option<host::Model>> {
    Ok(host::Entity::find().filter(host::Column::Identity.eq(identity)).one(db).await?)
}

/// Takes in the processes of a host, as its agent declares them.
pub(super) async fn with_processes(
    change: &DatabaseTransaction,
    row: host::Model,
    declared: &[Declared],
    now: Timestamp,
) -> Result<(Host, Vec<Process>)> {
    let mut processes = Vec::new();
    for row in process::Entity::find().filter(process::Column::HostId.eq(row.id)).all(change).await? {
        let declaration = declared.iter().find(|process| process.alias == row.alias);
        processes.push(read_process(update_process(change, row, declaration, now).await?)?);
    }
    for process in declared {
        if !processes.iter().any(|known| known.alias == process.alias) {
            processes.push(read_process(insert_process(change, row.id, process, now).await?)?);
        }
    }
    forget_surplus(change, &mut processes).await?;
    let place = place_of(change, &row).await?;
    Ok((read_host(&row, place)?, processes))
}

/// Forgets those that were declared the longest ago, where there are too many of them: an agent that declares others with
/// each hello must not fill the database (hazard A13). Their ids are never given again.
async fn forget_surplus(change: &DatabaseTransaction, processes: &mut Vec<Process>) -> Result<()> {
    let mut undeclared: Vec<_> =
        processes.iter().filter(|process| !process.declared).map(|it| (it.update_time, it.id)).collect();
    if undeclared.len() <= MOST_UNDECLARED {
        return Ok(());
    }
    undeclared.sort_unstable();
    let surplus: Vec<_> =
        undeclared[..undeclared.len() - MOST_UNDECLARED].iter().map(|(_, id)| *id).collect();
    for some in surplus.chunks(AT_A_TIME) {
        let ids = some.iter().map(|id| id.get());
        process::Entity::delete_many().filter(process::Column::Id.is_in(ids)).exec(change).await?;
    }
    processes.retain(|process| !surplus.contains(&process.id));
    Ok(())
}

async fn insert_host(change: &DatabaseTransaction, facts: &Facts, now: Timestamp) -> Result<host::Model> {
    let mut row = facts_of(facts)?;
    row.agent_state = Set(AgentState::Available.as_str().into());
    row.last_report_time = Set(Some(micros(now)));
    row.create_time = Set(micros(now));
    row.update_time = Set(micros(now));
    Ok(row.insert(change).await?)
}

pub(super) async fn update_host(
    change: &DatabaseTransaction,
    row: host::Model,
    facts: &Facts,
    now: Timestamp,
) -> Result<host::Model> {
    let same = read_facts(&row)? == *facts;
    let mut new = facts_of(facts)?;
    new.id = Set(row.id);
    new.last_report_time = Set(Some(micros(now)));
    if !same {
        new.update_time = Set(micros(now));
    }
    Ok(new.update(change).await?)
}

async fn insert_process(
    change: &DatabaseTransaction,
    host: i64,
    declared: &Declared,
    now: Timestamp,
) -> Result<process::Model> {
    let row = process::ActiveModel {
        host_id: Set(host),
        alias: Set(declared.alias.clone()),
        declared: Set(true),
        operable: Set(declared.operable),
        log_file_pattern: Set(declared.log_file_pattern.clone()),
        observed: Set(None),
        observed_time: Set(None),
        create_time: Set(micros(now)),
        update_time: Set(micros(now)),
        ..Default::default()
    };
    Ok(row.insert(change).await?)
}

async fn update_process(
    change: &DatabaseTransaction,
    row: process::Model,
    declaration: Option<&Declared>,
    now: Timestamp,
) -> Result<process::Model> {
    let (declared, operable, pattern) = match declaration {
        Some(process) => (true, process.operable, process.log_file_pattern.clone()),
        None => (false, row.operable, row.log_file_pattern.clone()),
    };
    if (row.declared, row.operable, &row.log_file_pattern) == (declared, operable, &pattern) {
        return Ok(row);
    }
    let mut new = row.into_active_model();
    new.declared = Set(declared);
    new.operable = Set(operable);
    new.log_file_pattern = Set(pattern);
    new.update_time = Set(micros(now));
    Ok(new.update(change).await?)
}

pub(super) fn facts_of(facts: &Facts) -> Result<host::ActiveModel> {
    let Facts {
        identity,
        incarnation,
        boot_id,
        version,
        address,
        name,
        operating_system,
        operating_system_release,
        architecture,
        install_home,
        log_home,
        tracker,
        tracker_reason,
        labels,
    } = facts.clone();
    Ok(host::ActiveModel {
        identity: Set(identity),
        incarnation: Set(incarnation),
        boot_id: Set(boot_id),
        version: Set(version),
        address: Set(address),
        name: Set(name),
        operating_system: Set(operating_system),
        operating_system_release: Set(operating_system_release),
        architecture: Set(architecture),
        install_home: Set(install_home),
        log_home: Set(log_home),
        tracker: Set(tracker),
        tracker_reason: Set(tracker_reason),
        labels: Set(encode_labels(&labels)?),
        ..Default::default()
    })
}

fn read_facts(row: &host::Model) -> Result<Facts> {
    Ok(Facts {
        identity: row.identity.clone(),
        incarnation: row.incarnation.clone(),
        boot_id: row.boot_id.clone(),
        version: row.version.clone(),
        address: row.address.clone(),
        name: row.name.clone(),
        operating_system: row.operating_system.clone(),
        operating_system_release: row.operating_system_release.clone(),
        architecture: row.architecture.clone(),
        install_home: row.install_home.clone(),
        log_home: row.log_home.clone(),
        tracker: row.tracker.clone(),
        tracker_reason: row.tracker_reason.clone(),
        labels: read_labels(row.labels.as_deref())?,
    })
}

pub(super) fn read_host(row: &host::Model, place: Place) -> Result<Host> {
    Ok(Host {
        id: id(row.id)?,
        facts: read_facts(row)?,
        place: Arc::new(place),
        profile: Arc::new(row.profile.as_deref().map(decode).transpose()?.unwrap_or_default()),
        agent_state: word(&row.agent_state, AgentState::parse)?,
        operator_labels: read_labels(row.operator_labels.as_deref())?,
        maintenance: row.maintenance.as_deref().map(decode).transpose()?,
        last_report_time: row.last_report_time.map(time).transpose()?,
        create_time: time(row.create_time)?,
        update_time: time(row.update_time)?,
    })
}

fn read_process(row: process::Model) -> Result<Process> {
    Ok(Process {
        id: id(row.id)?,
        host: id(row.host_id)?,
        alias: row.alias,
        declared: row.declared,
        operable: row.operable,
        log_file_pattern: row.log_file_pattern,
        create_time: time(row.create_time)?,
        update_time: time(row.update_time)?,
        observed: row.observed.as_deref().map(decode).transpose()?,
        observed_time: row.observed_time.map(time).transpose()?,
        fresh: false,
    })
}

/// `None` where there is none: that is what hosts of before have.
fn encode_labels(labels: &Labels) -> Result<Option<String>> {
    (!labels.is_empty()).then(|| encode(labels)).transpose()
}

fn read_labels(text: Option<&str>) -> Result<Labels> {
    Ok(text.map(decode).transpose()?.unwrap_or_default())
}

pub(super) fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged(error.to_string()))
}
