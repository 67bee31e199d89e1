//! Adding to the audit trail. Records are only ever added, in the transaction of what they allow, until they are old
//! (`retention.rs`). Each follows the one before (`chain.rs`).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use belay_proto::{TaskId, Trace};
use jiff::Timestamp;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel};
use uuid::Uuid;

use super::{Change, Result, Store, chain::Head, entity::audit, keys, micros};
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
    /// What somebody may do, now. How it ends, an operation or a task will tell.
    pub(crate) fn new(
        principal: String,
        action: &'static str,
        target: String,
        reason: String,
        trace: Trace,
    ) -> Self {
        let (time, outcome) = (Timestamp::now(), String::new());
        Self { time, principal, action, target, reason, allowed: true, outcome, trace }
    }

    /// A call that its caller may make.
    pub(crate) fn of(caller: &Caller, action: &'static str, target: String, reason: String) -> Self {
        Self::new(caller.user.name.clone(), action, target, reason, caller.trace)
    }

    /// The same of a call that is done in the commit that writes it down.
    #[must_use]
    pub(crate) fn done(self) -> Self {
        Self { outcome: "DONE".into(), ..self }
    }

    /// The same of a call that its caller may not make.
    #[must_use]
    pub(crate) fn denied(self) -> Self {
        Self { allowed: false, ..self }
    }
}

/// Runs an order, and says whether it left a record in the trail.
pub(crate) async fn attempted<F: Future>(order: F) -> (F::Output, bool) {
    let noted = Noted::default();
    let output = NOTED.scope(noted.clone(), order).await;
    (output, noted.0.load(Ordering::Acquire))
}

/// Says that the order which runs here needs no record of its own: nothing was ordered, or it is in the trail already.
pub(crate) fn nothing_to_note() {
    // Outside orders there is nobody to tell.
    let _ = NOTED.try_with(|noted| noted.0.store(true, Ordering::Release));
}

/// Lets work that is about to be spawned leave its record for the order that runs here, if any.
pub(super) fn carried<T>(work: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    let noted = NOTED.try_get().ok();
    async move {
        match noted {
            Some(noted) => NOTED.scope(noted, work).await,
            None => work.await,
        }
    }
}

/// Whether the order that runs has left a record.
#[derive(Debug, Clone, Default)]
struct Noted(Arc<AtomicBool>);

tokio::task_local! {
    static NOTED: Noted;
}

impl Store {
    /// Adds a record of an order that has no effect, such as one that is refused.
    pub(crate) async fn audit(&self, entry: AuditEntry) -> Result<()> {
        let change = self.change().await?;
        insert(&change, entry, None, None).await?;
        Ok(change.commit().await?)
    }
}

pub(super) const ALLOW: &str = "ALLOW";
pub(super) const DENY: &str = "DENY";

/// Adds the record of an order as a part of the change that it makes. The key under which it was sent, where it was one,
/// then names it.
pub(super) async fn append(
    change: &Change,
    entry: AuditEntry,
    operation: Option<Uuid>,
    task: Option<TaskId>,
) -> Result<()> {
    let record = insert(change, entry, operation, task).await?;
    keys::note_effect(change, record).await
}

/// Makes a change stay, with the record of the order that makes it.
pub(super) async fn commit(change: Change, entry: AuditEntry) -> Result<()> {
    append(&change, entry, None, None).await?;
    Ok(change.commit().await?)
}

async fn insert(
    change: &Change,
    entry: AuditEntry,
    operation: Option<Uuid>,
    task: Option<TaskId>,
) -> Result<i64> {
    let AuditEntry { time, principal, action, target, reason, allowed, outcome, trace } = entry;
    let before = change.head().await?;
    let id = before.id + 1;
    let mut row = audit::Model {
        id,
        time: micros(time),
        principal,
        action: action.into(),
        target,
        reason,
        decision: if allowed { ALLOW } else { DENY }.into(),
        outcome,
        trace_id: trace.to_string(),
        operation_id: operation.map(|id| id.to_string()).unwrap_or_default(),
        task_id: task.map(TaskId::get),
        mac: None,
        settled: None,
        settled_mac: None,
    };
    let mac = change.chain.record(&before.mac, &row);
    row.mac = Some(mac.clone());
    let row = row.into_active_model().reset_all();
    audit::Entity::insert(row).exec_without_returning(change).await?;
    change.add(Head { id, mac, count: before.count + 1 });
    nothing_to_note();
    Ok(id)
}
