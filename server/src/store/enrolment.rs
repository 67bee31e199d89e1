//! Hosts that are added before their agents are heard, and hosts that are deleted.

use std::time::Duration;

use belay_proto::{HostId, HostTypeId, IdcId, TaskId, fail_point};
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, Set, sea_query::OnConflict,
};

use super::{
    AuditEntry, Claim, Declared, NewTask, Result, Store, StoreError, audit,
    entity::{deleted_agent, host, host_lock, process},
    hosts::{check_place, encode, facts_of, of_identity, read_host, update_host, with_processes},
    id, join, micros,
    reference::place_of,
    tasks::insert_task,
};
use crate::{
    host::{AgentState, Facts, Host, Profile, expected_identity, target},
    process::Process,
    task::Task,
};

/// How many rows one statement names.
const AT_A_TIME: usize = 250;

/// Hosts that are about to be added.
#[derive(Debug, Clone)]
pub(crate) struct NewHosts {
    pub(crate) idc: IdcId,
    pub(crate) host_type: HostTypeId,
    /// The address of the agent of each, as `HOST:PORT`, and what is said of it.
    pub(crate) hosts: Vec<(String, Profile)>,
}

/// An agent of which the host was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) host: HostId,
    /// Who deleted it.
    pub(crate) by: String,
}

impl Store {
    /// Adds hosts, each held by a task of its own and with an audit record of its own: all of them or none.
    ///
    /// # Errors
    /// [`StoreError::NoIdc`], [`StoreError::NoHostType`], or [`StoreError::HostExists`] where a host has one of the addresses.
    pub(crate) async fn add_hosts(
        &self,
        new: NewHosts,
        task_of: impl Fn(HostId) -> NewTask,
        lease: Duration,
        audit: AuditEntry,
    ) -> Result<Vec<(Host, Task, Claim)>> {
        let NewHosts { idc, host_type, hosts } = new;
        let change = self.change().await?;
        check_place(&change, Some(idc), Some(host_type)).await?;
        let mut added = Vec::with_capacity(hosts.len());
        for (address, profile) in hosts {
            if let Some(other) = of_address(&change, &address).await? {
                return Err(StoreError::HostExists { host: id(other.id)?, what: address });
            }
            let mut row = facts_of(&Facts::expected_at(address))?;
            row.agent_state = Set(AgentState::Available.as_str().into());
            row.idc_id = Set(Some(idc.get()));
            row.type_id = Set(Some(host_type.get()));
            row.profile = Set(Some(encode(&profile)?));
            row.create_time = Set(micros(audit.time));
            row.update_time = Set(micros(audit.time));
            let row = row.insert(&change).await?;
            let host = read_host(&row, place_of(&change, &row).await?)?;
            let audit = AuditEntry { target: target(host.id), ..audit.clone() };
            let (task, claim) = insert_task(&change, self.epoch(), task_of(host.id), lease, audit).await?;
            added.push((host, task, claim));
        }
        fail_point(|| "hosts.add.written");
        change.commit().await?;
        Ok(added)
    }

    /// Takes an agent in as the agent of a host that was added before. Nothing is changed where it was taken in as that
    /// already. That its host was deleted once is forgotten.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::HostExists`] where the host has another agent, or the agent another host.
    pub(crate) async fn bind(
        &self,
        host: HostId,
        facts: &Facts,
        declared: &[Declared],
        now: Timestamp,
    ) -> Result<(Host, Vec<Process>)> {
        let change = self.change().await?;
        let row = host::Entity::find_by_id(host.get()).one(&change).await?.ok_or(StoreError::Missing)?;
        let known = of_identity(&change, &facts.identity).await?;
        match known {
            Some(other) if other.id != row.id => {
                return Err(StoreError::HostExists {
                    host: id(other.id)?,
                    what: format!("the agent {}", facts.identity),
                });
            }
            None if row.identity != expected_identity(&row.address) => {
                return Err(StoreError::HostExists { host, what: format!("the agent {}", row.identity) });
            }
            _ => {}
        }
        forgive(&change, &facts.identity).await?;
        let row = update_host(&change, row, facts, now).await?;
        let bound = with_processes(&change, row, declared, now).await?;
        fail_point(|| "host.bind.written");
        change.commit().await?;
        fail_point(|| "host.bind.committed");
        Ok(bound)
    }

    /// Deletes hosts with their processes, each with an audit record of its own, and remembers their agents: all of them or
    /// none. Their tasks, orders and audit records stay.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Held`] where a task holds one of them.
    pub(crate) async fn delete_hosts(&self, hosts: &[HostId], audit: AuditEntry) -> Result<()> {
        let change = self.change().await?;
        for hosts in hosts.chunks(AT_A_TIME) {
            let ids = || hosts.iter().map(|host| host.get());
            let held = host_lock::Entity::find().filter(host_lock::Column::HostId.is_in(ids()));
            if let Some(held) = held.one(&change).await? {
                return Err(StoreError::Held { host: id(held.host_id)?, task: id::<TaskId>(held.task_id)? });
            }
            let rows = host::Entity::find().filter(host::Column::Id.is_in(ids())).all(&change).await?;
            if rows.len() != hosts.len() {
                return Err(StoreError::Missing);
            }
            for row in rows {
                let audit = AuditEntry { target: target(id(row.id)?), ..audit.clone() };
                let is_known = row.identity != expected_identity(&row.address);
                let deleted = deleted_agent::ActiveModel {
                    identity: Set(row.identity),
                    host_id: Set(row.id),
                    name: Set(row.name),
                    principal: Set(audit.principal.clone()),
                    delete_time: Set(micros(audit.time)),
                };
                if is_known {
                    let again = OnConflict::column(deleted_agent::Column::Identity)
                        .update_columns([
                            deleted_agent::Column::HostId,
                            deleted_agent::Column::Name,
                            deleted_agent::Column::Principal,
                            deleted_agent::Column::DeleteTime,
                        ])
                        .to_owned();
                    let insert = deleted_agent::Entity::insert(deleted).on_conflict(again);
                    insert.exec_without_returning(&change).await?;
                }
                audit::append(&change, audit, None, None).await?;
            }
            let of_them = process::Entity::delete_many().filter(process::Column::HostId.is_in(ids()));
            of_them.exec(&change).await?;
            host::Entity::delete_many().filter(host::Column::Id.is_in(ids())).exec(&change).await?;
            join::delete_members(&change, hosts).await?;
        }
        fail_point(|| "hosts.delete.written");
        change.commit().await?;
        fail_point(|| "hosts.delete.committed");
        Ok(())
    }

    /// Every agent of which the host was deleted, by identity.
    pub(crate) async fn deleted_agents(&self) -> Result<Vec<(String, Deleted)>> {
        let rows = deleted_agent::Entity::find().all(&self.read).await?;
        let read = |row: deleted_agent::Model| {
            Ok((row.identity, Deleted { host: id(row.host_id)?, by: row.principal }))
        };
        rows.into_iter().map(read).collect()
    }
}

/// The host that waits for an agent at the address of this one, which is forgiven then that its host was deleted.
///
/// # Errors
/// [`StoreError::HostDeleted`] where no host waits for it, and its own was deleted.
pub(super) async fn expecting(change: &DatabaseTransaction, facts: &Facts) -> Result<Option<host::Model>> {
    if let Some(row) = of_identity(change, &expected_identity(&facts.address)).await? {
        forgive(change, &facts.identity).await?;
        return Ok(Some(row));
    }
    match deleted_agent::Entity::find_by_id(&facts.identity).one(change).await? {
        Some(row) => Err(StoreError::HostDeleted { host: id(row.host_id)?, by: row.principal }),
        None => Ok(None),
    }
}

pub(super) async fn forgive(change: &DatabaseTransaction, identity: &str) -> Result<()> {
    deleted_agent::Entity::delete_by_id(identity).exec(change).await?;
    Ok(())
}

async fn of_address(change: &DatabaseTransaction, address: &str) -> Result<Option<host::Model>> {
    Ok(host::Entity::find().filter(host::Column::Address.eq(address)).one(change).await?)
}
