//! Operations that were ordered on the hosts themselves: done before this server hears of them.

use belay_proto::{HostId, ProcessId, Trace};
use jiff::Timestamp;
use sea_orm::{EntityTrait, Set};
use uuid::Uuid;

use super::{
    AuditEntry, OperationOutcome, Result, Store, audit,
    entity::{host_lock, operation},
    hosts::set_agent_state,
    micros,
    operations::{as_number, columns},
};
use crate::host::AgentState;

/// An operation that was ordered on a host itself, and has ended.
#[derive(Debug, Clone)]
pub(crate) struct LocalRecord {
    pub(crate) id: Uuid,
    /// The RPC's name at the agent, as if it had been ordered here.
    pub(crate) verb: &'static str,
    pub(crate) host: HostId,
    pub(crate) process: Option<ProcessId>,
    pub(crate) trace: Trace,
    pub(crate) begun: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) outcome: OperationOutcome,
}

impl Store {
    /// Writes down an operation with its audit record, and what it makes of the agent as a whole unless a task holds the
    /// host. Gives what it made of it; `None` where the operation is known already, and nothing is written.
    pub(crate) async fn record_local(
        &self,
        record: LocalRecord,
        agent_state: Option<AgentState>,
        audit: AuditEntry,
    ) -> Result<Option<Option<AgentState>>> {
        let LocalRecord { id, verb, host, process, trace, begun, ended, outcome } = record;
        let change = self.change().await?;
        if operation::Entity::find_by_id(id.to_string()).one(&change).await?.is_some() {
            return Ok(None);
        }
        let is_held = host_lock::Entity::find_by_id(host.get()).one(&change).await?.is_some();
        let agent_state = agent_state.filter(|_| !is_held);
        if let Some(state) = agent_state {
            set_agent_state(&change, host, state, ended).await?;
        }
        let (state, outcome, message, finish_time) = columns(outcome, ended);
        let row = operation::ActiveModel {
            id: Set(id.to_string()),
            verb: Set(verb.into()),
            host_id: Set(host.get()),
            process_id: Set(process.map(ProcessId::get)),
            task_id: Set(None),
            epoch: Set(as_number(self.epoch())?),
            state: Set(state.into()),
            outcome: Set(outcome),
            message: Set(message),
            trace: Set(trace.traceparent()),
            create_time: Set(micros(begun)),
            finish_time: Set(finish_time),
        };
        operation::Entity::insert(row).exec_without_returning(&change).await?;
        audit::append(&change, audit, Some(id), None).await?;
        change.commit().await?;
        Ok(Some(agent_state))
    }
}
