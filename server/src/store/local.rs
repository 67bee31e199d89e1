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

/// What became of a report of such an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// It is written down, with what it makes of the agent as a whole.
    New(Option<AgentState>),
    /// It is known already, and nothing is written.
    Again,
    /// It is known already and said to be something else, in these words; nothing is written.
    Contradicts(String),
}

impl LocalRecord {
    /// What in it is not as it was written down before.
    fn contradiction(&self, known: &operation::Model) -> Option<String> {
        let (state, outcome, message, _) = columns(self.outcome.clone(), self.ended);
        // A trace that follows from the id is that of an operation which nobody ordered here.
        let is_local = known.task_id.is_none() && known.trace == self.trace.traceparent();
        let differences = [
            (known.host_id != self.host.get(), "its id is that of an operation of another host"),
            (!is_local, "its id is that of an order of this server"),
            (known.verb != self.verb, "it was reported before with another verb"),
            (
                known.process_id != self.process.map(ProcessId::get),
                "it was reported before of another process",
            ),
            (
                (&known.state[..], &known.outcome, &known.message) != (state, &outcome, &message),
                "it was reported before with another outcome",
            ),
        ];
        differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what.to_owned())
    }
}

impl Store {
    /// Writes down an operation with its audit record, and what it makes of the agent as a whole unless a task holds the
    /// host: once.
    pub(crate) async fn record_local(
        &self,
        record: LocalRecord,
        agent_state: Option<AgentState>,
        audit: AuditEntry,
    ) -> Result<Recorded> {
        let change = self.change().await?;
        if let Some(known) = operation::Entity::find_by_id(record.id.to_string()).one(&change).await? {
            return Ok(record.contradiction(&known).map_or(Recorded::Again, Recorded::Contradicts));
        }
        let LocalRecord { id, verb, host, process, trace, begun, ended, outcome } = record;
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
        Ok(Recorded::New(agent_state))
    }
}
