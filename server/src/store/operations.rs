//! Orders to agents: the intent before the effect, the outcome after it.

use belay_proto::{HostId, ProcessId, TaskId, Trace, planted};
use jiff::Timestamp;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Set};
use uuid::Uuid;

use super::{
    AuditEntry, Result, Store, StoreError, audit,
    entity::{host_lock, operation},
    hosts::set_agent_state,
    id, micros,
};
use crate::host::AgentState;

/// An order that is about to be sent.
#[derive(Debug, Clone)]
pub(crate) struct NewOperation {
    pub(crate) id: Uuid,
    /// The RPC's name at the agent.
    pub(crate) verb: &'static str,
    pub(crate) host: HostId,
    pub(crate) process: Option<ProcessId>,
    pub(crate) task: Option<TaskId>,
    pub(crate) trace: Trace,
    pub(crate) time: Timestamp,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OperationOutcome {
    /// Done, and proven.
    Done,
    /// Failed, with a stable reason and a sentence.
    Failed {
        /// The stable reason.
        reason: String,
        /// The sentence.
        message: String,
    },
    /// Sent perhaps, and not heard of. The agent will tell when it is back.
    Unknown,
}

/// An order whose outcome nobody waits for any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsettled {
    pub(crate) id: Uuid,
    /// The process, where it was one.
    pub(crate) process: Option<ProcessId>,
    /// Whether it was a stop.
    pub(crate) stops: bool,
}

const PENDING: &str = "PENDING";
const UNKNOWN: &str = "UNKNOWN";

impl Store {
    /// Commits the intent of an order to one process, with its audit record, and what it makes of the agent as a whole.
    ///
    /// # Errors
    /// [`StoreError::Held`] where a task holds the host.
    pub(crate) async fn accept(
        &self,
        operation: NewOperation,
        agent_state: Option<AgentState>,
        audit: AuditEntry,
    ) -> Result<()> {
        let change = self.change().await?;
        if let Some(held) = host_lock::Entity::find_by_id(operation.host.get()).one(&change).await? {
            return Err(StoreError::Held { host: operation.host, task: id(held.task_id)? });
        }
        if let Some(state) = agent_state {
            set_agent_state(&change, operation.host, state, operation.time).await?;
        }
        let operation_id = operation.id;
        insert(&change, operation, self.epoch()).await?;
        audit::append(&change, audit, Some(operation_id), None).await?;
        Ok(change.commit().await?)
    }

    /// Whether the intent of an order was committed.
    pub(crate) async fn is_accepted(&self, operation: Uuid) -> Result<bool> {
        Ok(operation::Entity::find_by_id(operation.to_string()).one(&self.read).await?.is_some())
    }

    /// Orders of a task to a host whose outcome is not known, but for the one that it is about to give again.
    pub(crate) async fn unsettled_of(
        &self,
        task: TaskId,
        host: HostId,
        but_for: Uuid,
    ) -> Result<Vec<Unsettled>> {
        let rows = operation::Entity::find()
            .filter(operation::Column::TaskId.eq(task.get()))
            .filter(operation::Column::HostId.eq(host.get()))
            .filter(operation::Column::Id.ne(but_for.to_string()))
            .filter(operation::Column::State.is_in([PENDING, UNKNOWN]))
            .order_by_asc(operation::Column::Id)
            .all(&self.read)
            .await?;
        rows.into_iter().map(unsettled).collect()
    }

    /// Notes what became of an order.
    pub(crate) async fn settle(
        &self,
        operation: Uuid,
        outcome: OperationOutcome,
        now: Timestamp,
    ) -> Result<()> {
        let change = self.change().await?;
        settle(&change, operation, outcome, now).await?;
        Ok(change.commit().await?)
    }

    /// Orders to one process of this host whose outcome nobody waits for any more: of an earlier server, or lost on the
    /// way. What an open task ordered, the task itself resolves.
    pub(crate) async fn unsettled(&self, host: HostId) -> Result<Vec<Unsettled>> {
        let open = host_lock::Entity::find()
            .select_only()
            .column(host_lock::Column::TaskId)
            .filter(host_lock::Column::HostId.eq(host.get()));
        let of_no_open_task = Condition::any()
            .add(operation::Column::TaskId.is_null())
            .add(operation::Column::TaskId.not_in_subquery(open.into_query()));
        let orphaned = Condition::all()
            .add(operation::Column::State.eq(PENDING))
            .add(operation::Column::Epoch.lt(as_number(self.epoch())?))
            .add(of_no_open_task);
        let rows = operation::Entity::find()
            .filter(operation::Column::HostId.eq(host.get()))
            .filter(Condition::any().add(operation::Column::State.eq(UNKNOWN)).add(orphaned))
            .order_by_asc(operation::Column::Id)
            .all(&self.read)
            .await?;
        rows.into_iter().map(unsettled).collect()
    }
}

/// Inserts the intent of an order that a task gives. A task that is resumed gives the same one again.
pub(super) async fn insert_once(
    change: &sea_orm::DatabaseTransaction,
    operation: NewOperation,
    epoch: u64,
) -> Result<()> {
    if operation::Entity::find_by_id(operation.id.to_string()).one(change).await?.is_none() {
        insert(change, operation, epoch).await?;
    }
    Ok(())
}

/// Notes what became of an order.
pub(super) async fn settle(
    change: &sea_orm::DatabaseTransaction,
    operation: Uuid,
    outcome: OperationOutcome,
    now: Timestamp,
) -> Result<()> {
    let (state, outcome, message, finish_time) = columns(outcome, now);
    operation::Entity::update(operation::ActiveModel {
        id: Set(operation.to_string()),
        state: Set(state.into()),
        outcome: Set(outcome),
        message: Set(message),
        finish_time: Set(finish_time),
        ..Default::default()
    })
    .exec(change)
    .await?;
    Ok(())
}

fn unsettled(row: operation::Model) -> Result<Unsettled> {
    Ok(Unsettled {
        id: row.id.parse().map_err(|_| StoreError::Damaged(format!("the operation id `{}`", row.id)))?,
        process: row.process_id.map(id).transpose()?,
        stops: row.verb.starts_with("Stop"),
    })
}

/// What an outcome is in the row of its operation: state, outcome, message, and when it ended.
pub(super) fn columns(
    outcome: OperationOutcome,
    now: Timestamp,
) -> (&'static str, String, String, Option<i64>) {
    match outcome {
        OperationOutcome::Done => ("DONE", "DONE".to_owned(), String::new(), Some(micros(now))),
        OperationOutcome::Failed { reason, message } => ("FAILED", reason, message, Some(micros(now))),
        OperationOutcome::Unknown if planted("unknown-is-failed") => {
            ("FAILED", String::new(), String::new(), Some(micros(now)))
        }
        OperationOutcome::Unknown => (UNKNOWN, String::new(), String::new(), None),
    }
}

pub(super) fn as_number(epoch: u64) -> Result<i64> {
    i64::try_from(epoch).map_err(|_| StoreError::Damaged(format!("the epoch {epoch}")))
}

async fn insert(change: &sea_orm::DatabaseTransaction, operation: NewOperation, epoch: u64) -> Result<()> {
    let NewOperation { id, verb, host, process, task, trace, time } = operation;
    let row = operation::ActiveModel {
        id: Set(id.to_string()),
        verb: Set(verb.into()),
        host_id: Set(host.get()),
        process_id: Set(process.map(ProcessId::get)),
        task_id: Set(task.map(TaskId::get)),
        epoch: Set(as_number(epoch)?),
        state: Set(PENDING.into()),
        outcome: Set(String::new()),
        message: Set(String::new()),
        trace: Set(trace.traceparent()),
        create_time: Set(micros(time)),
        finish_time: Set(None),
    };
    operation::Entity::insert(row).exec_without_returning(change).await?;
    Ok(())
}
