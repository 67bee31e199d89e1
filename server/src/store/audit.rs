//! The audit trail. Records are only ever added, in the transaction of what they allow, until they are old (`retention.rs`).

use belay_proto::{TaskId, Trace};
use jiff::Timestamp;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Set};
use uuid::Uuid;

use super::{
    Result, Store,
    entity::{audit, operation, task},
    keys, micros, time,
};
use crate::access::Caller;

/// One order, before it is in the trail.
#[derive(Debug, Clone)]
pub(crate) struct AuditEntry {
    pub(crate) time: Timestamp,
    /// Who: the user's name.
    pub(crate) principal: String,
    /// What: the RPC's name.
    pub(crate) action: &'static str,
    /// On what, say `hosts/20/agent`.
    pub(crate) target: String,
    /// Why, in the caller's words.
    pub(crate) reason: String,
    /// Whether the caller may.
    pub(crate) allowed: bool,
    /// How it ended where that is known at once; empty where an operation or a task will tell.
    pub(crate) outcome: String,
    pub(crate) trace: Trace,
}

impl AuditEntry {
    /// A call that its caller may make, now. How it ends, an operation or a task will tell.
    pub(crate) fn of(caller: &Caller, action: &'static str, target: String, reason: String) -> Self {
        Self {
            time: Timestamp::now(),
            principal: caller.user.name.clone(),
            action,
            target,
            reason,
            allowed: true,
            outcome: String::new(),
            trace: caller.trace,
        }
    }

    /// The same of a call that is done in the commit that writes it down.
    #[must_use]
    pub(crate) fn done(self) -> Self {
        Self { outcome: "DONE".into(), ..self }
    }
}

/// One record of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub(crate) id: i64,
    pub(crate) time: Timestamp,
    pub(crate) principal: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) reason: String,
    pub(crate) allowed: bool,
    pub(crate) outcome: String,
    pub(crate) trace_id: String,
    pub(crate) operation_id: String,
}

impl Store {
    /// Adds a record of an order that has no effect, such as one that is refused.
    pub(crate) async fn audit(&self, entry: AuditEntry) -> Result<()> {
        let change = self.change().await?;
        insert(&change, entry, None, None).await?;
        Ok(change.commit().await?)
    }

    /// Records below an id, newest first. The outcome of an order is read from its operation or task.
    pub(crate) async fn audit_records(&self, before: Option<i64>, size: u64) -> Result<Vec<AuditRow>> {
        let mut records = audit::Entity::find().order_by_desc(audit::Column::Id).limit(size);
        if let Some(before) = before {
            records = records.filter(audit::Column::Id.lt(before));
        }
        let rows = records.all(&self.read).await?;
        let operations: Vec<_> =
            rows.iter().map(|row| &row.operation_id).filter(|id| !id.is_empty()).cloned().collect();
        let operations =
            operation::Entity::find().filter(operation::Column::Id.is_in(operations)).all(&self.read).await?;
        let tasks: Vec<_> = rows.iter().filter_map(|row| row.task_id).collect();
        let tasks = task::Entity::find().filter(task::Column::Id.is_in(tasks)).all(&self.read).await?;
        rows.into_iter()
            .map(|row| {
                let operation = operations.iter().find(|operation| operation.id == row.operation_id);
                let task = tasks.iter().find(|task| Some(task.id) == row.task_id);
                let outcome = match (operation, task) {
                    (Some(operation), _) => operation.outcome.clone(),
                    (None, Some(task)) if task.finish_time.is_some() => task.status.clone(),
                    (None, Some(_)) => String::new(),
                    (None, None) => row.outcome,
                };
                Ok(AuditRow {
                    id: row.id,
                    time: time(row.time)?,
                    principal: row.principal,
                    action: row.action,
                    target: row.target,
                    reason: row.reason,
                    allowed: row.decision == ALLOW,
                    outcome,
                    trace_id: row.trace_id,
                    operation_id: row.operation_id,
                })
            })
            .collect()
    }
}

const ALLOW: &str = "ALLOW";
const DENY: &str = "DENY";

/// Adds the record of an order as a part of the change that it makes. The key under which it was sent, where it was one,
/// then names it.
pub(super) async fn append(
    change: &DatabaseTransaction,
    entry: AuditEntry,
    operation: Option<Uuid>,
    task: Option<TaskId>,
) -> Result<()> {
    let record = insert(change, entry, operation, task).await?;
    keys::note_effect(change, record).await
}

async fn insert(
    change: &DatabaseTransaction,
    entry: AuditEntry,
    operation: Option<Uuid>,
    task: Option<TaskId>,
) -> Result<i64> {
    let AuditEntry { time, principal, action, target, reason, allowed, outcome, trace } = entry;
    let row = audit::ActiveModel {
        time: Set(micros(time)),
        principal: Set(principal),
        action: Set(action.into()),
        target: Set(target),
        reason: Set(reason),
        decision: Set(if allowed { ALLOW } else { DENY }.into()),
        outcome: Set(outcome),
        trace_id: Set(trace.to_string()),
        operation_id: Set(operation.map(|id| id.to_string()).unwrap_or_default()),
        task_id: Set(task.map(TaskId::get)),
        ..Default::default()
    };
    Ok(audit::Entity::insert(row).exec(change).await?.last_insert_id)
}
