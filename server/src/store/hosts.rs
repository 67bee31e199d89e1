//! Hosts and process identities.

use belay_proto::HostId;
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, Set,
};

use super::{
    Result, Store, StoreError,
    entity::{host, process},
    id, micros, time, word,
};
use crate::{
    host::{AgentState, Facts, Host},
    process::{Observed, Process},
};

/// A process as its agent declares it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    pub(crate) alias: String,
    pub(crate) operable: bool,
    pub(crate) log_file_pattern: String,
    pub(crate) observed: Observed,
}

impl Store {
    /// Every host with its processes, as an earlier server left them.
    pub(crate) async fn fleet(&self) -> Result<Vec<(Host, Vec<Process>)>> {
        let hosts = host::Entity::find().order_by_asc(host::Column::Id).all(&self.read).await?;
        let mut fleet = Vec::with_capacity(hosts.len());
        for row in hosts {
            let processes = process::Entity::find()
                .filter(process::Column::HostId.eq(row.id))
                .order_by_asc(process::Column::Id)
                .all(&self.read)
                .await?;
            fleet.push((read_host(row)?, processes.into_iter().map(read_process).collect::<Result<_>>()?));
        }
        Ok(fleet)
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
        let known =
            host::Entity::find().filter(host::Column::Identity.eq(&facts.identity)).one(&change).await?;
        let row = match known {
            Some(row) => update_host(&change, row, facts, now).await?,
            None => insert_host(&change, facts, now).await?,
        };
        let mut processes = Vec::new();
        for row in process::Entity::find().filter(process::Column::HostId.eq(row.id)).all(&change).await? {
            let declaration = declared.iter().find(|process| process.alias == row.alias);
            processes.push(read_process(update_process(&change, row, declaration, now).await?)?);
        }
        for process in declared {
            if !processes.iter().any(|known| known.alias == process.alias) {
                processes.push(read_process(insert_process(&change, row.id, process, now).await?)?);
            }
        }
        change.commit().await?;
        Ok((read_host(row)?, processes))
    }

    /// Writes back what was last seen, so that a restarted server has something old to show.
    pub(crate) async fn save_observations(
        &self,
        processes: &[Process],
        seen: &[(HostId, Timestamp)],
    ) -> Result<()> {
        let change = self.change().await?;
        for process in processes {
            let observed = process.observed.as_ref().map(encode).transpose()?;
            process::Entity::update(process::ActiveModel {
                id: Set(process.id.get()),
                observed: Set(observed),
                observed_time: Set(process.observed_time.map(micros)),
                ..Default::default()
            })
            .exec(&change)
            .await?;
        }
        for (host, at) in seen {
            host::Entity::update(host::ActiveModel {
                id: Set(host.get()),
                last_report_time: Set(Some(micros(*at))),
                ..Default::default()
            })
            .exec(&change)
            .await?;
        }
        Ok(change.commit().await?)
    }
}

/// Sets what the agent of a host is meant to be doing, as a part of another change.
pub(super) async fn set_agent_state(
    change: &DatabaseTransaction,
    host: HostId,
    state: AgentState,
    now: Timestamp,
) -> Result<()> {
    host::Entity::update(host::ActiveModel {
        id: Set(host.get()),
        agent_state: Set(state.as_str().into()),
        update_time: Set(micros(now)),
        ..Default::default()
    })
    .exec(change)
    .await?;
    Ok(())
}

async fn insert_host(change: &DatabaseTransaction, facts: &Facts, now: Timestamp) -> Result<host::Model> {
    let mut row = facts_of(facts);
    row.agent_state = Set(AgentState::Available.as_str().into());
    row.last_report_time = Set(Some(micros(now)));
    row.create_time = Set(micros(now));
    row.update_time = Set(micros(now));
    Ok(row.insert(change).await?)
}

async fn update_host(
    change: &DatabaseTransaction,
    row: host::Model,
    facts: &Facts,
    now: Timestamp,
) -> Result<host::Model> {
    let same = read_facts(&row) == *facts;
    let mut new = facts_of(facts);
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

fn facts_of(facts: &Facts) -> host::ActiveModel {
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
    } = facts.clone();
    host::ActiveModel {
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
        ..Default::default()
    }
}

fn read_facts(row: &host::Model) -> Facts {
    Facts {
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
    }
}

fn read_host(row: host::Model) -> Result<Host> {
    Ok(Host {
        id: id(row.id)?,
        facts: read_facts(&row),
        agent_state: word(&row.agent_state, AgentState::parse)?,
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

fn encode(observed: &Observed) -> Result<String> {
    serde_json::to_string(observed).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn decode(text: &str) -> Result<Observed> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged(error.to_string()))
}
