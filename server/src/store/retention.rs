//! Removing what is too old or too much, a little at a time: there is one writer, and it must not wait long for this.
//!
//! The row of a task goes first, and with it the task is gone for every reader. What belonged to it goes after that, in as
//! many pieces as it takes; `removed_tasks` remembers of whom there is something left, over a crash too. Ids are never used
//! again, and triggers keep the counts of tasks.

use std::collections::HashMap;

use belay_proto::planted;
use jiff::Timestamp;
use sea_orm::{
    ActiveValue::Unchanged, ColumnTrait, Condition, DatabaseTransaction, EntityTrait, ExprTrait, Iterable,
    PrimaryKeyToColumn, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Set, TryGetable, Value,
    sea_query::Expr,
};

use super::{
    Change, Result, Store,
    chain::Anchor,
    entity::{audit, edge, event, log, operation, removed_task, subtask, task, task_count, task_host},
    micros,
};
use crate::task::TaskStatus;

/// Tasks whose rows are removed together.
const TASKS: u64 = 50;
/// Rows of any other kind that are removed together.
const ROWS: u64 = 500;

impl Store {
    /// Removes some tasks that ended before `until`, and such as are more than the newest `most`; the first to end goes first.
    /// How many: where there are none, nothing is left to do.
    pub(crate) async fn remove_tasks(&self, until: Timestamp, most: u64) -> Result<u64> {
        let change = self.change().await?;
        let finished: Option<i64> = task_count::Entity::find()
            .select_only()
            .column_as(task_count::Column::Count.sum(), "count")
            .filter(task_count::Column::HostId.eq(0))
            .filter(task_count::Column::Status.ne(TaskStatus::Running.as_str()))
            .into_tuple()
            .one(&change)
            .await?
            .flatten();
        let excess = finished.unwrap_or_default().unsigned_abs().saturating_sub(most);
        let ended: Vec<(i64, i64)> = task::Entity::find()
            .select_only()
            .column(task::Column::Id)
            .column(task::Column::FinishTime)
            .filter(task::Column::FinishTime.is_not_null())
            .order_by_asc(task::Column::FinishTime)
            .order_by_asc(task::Column::Id)
            .limit(TASKS)
            .into_tuple()
            .all(&change)
            .await?;
        let is_old = |(place, (_, finish_time)): &(usize, (i64, i64))| {
            (*place as u64) < excess + u64::from(planted("one-task-less-kept"))
                || *finish_time < micros(until)
        };
        let old: Vec<i64> = ended.into_iter().enumerate().take_while(is_old).map(|(_, (id, _))| id).collect();
        if old.is_empty() {
            return Ok(0);
        }
        // What the trail read from the task it is told itself from now on.
        let ended = task::Entity::find()
            .select_only()
            .column(task::Column::Id)
            .column(task::Column::Status)
            .filter(task::Column::Id.is_in(old.iter().copied()));
        let ended: HashMap<i64, String> = ended.into_tuple().all(&change).await?.into_iter().collect();
        let of_them = audit::Column::TaskId.is_in(old.iter().copied());
        settle(&change, of_them, |row| ended.get(&row.task_id?).cloned()).await?;
        let removed = old.iter().map(|&task_id| removed_task::ActiveModel { task_id: Set(task_id) });
        removed_task::Entity::insert_many(removed).exec_without_returning(&change).await?;
        task::Entity::delete_many().filter(task::Column::Id.is_in(old.iter().copied())).exec(&change).await?;
        change.commit().await?;
        Ok(old.len() as u64)
    }

    /// Removes some of what belonged to removed tasks. How many rows: where there are none, nothing is left to do.
    pub(crate) async fn remove_what_is_left_of_tasks(&self) -> Result<u64> {
        let change = self.change().await?;
        let gone: Vec<i64> = removed_task::Entity::find()
            .select_only()
            .column(removed_task::Column::TaskId)
            .order_by_asc(removed_task::Column::TaskId)
            .limit(TASKS)
            .into_tuple()
            .all(&change)
            .await?;
        if gone.is_empty() {
            return Ok(0);
        }
        let of = |column: &dyn Fn(Vec<i64>) -> Expr| column(gone.clone());
        // The logs before the steps by which they are found.
        let steps = subtask::Entity::find()
            .select_only()
            .column(subtask::Column::Id)
            .filter(of(&|gone| subtask::Column::TaskId.is_in(gone)));
        let logs = Condition::all().add(log::Column::SubtaskId.in_subquery(steps.into_query()));
        let mut room = ROWS;
        room -= remove::<log::Entity, i64>(&change, logs, room).await?;
        if room > 0 {
            let steps = of(&|gone| subtask::Column::TaskId.is_in(gone));
            room -= remove::<subtask::Entity, i64>(&change, Condition::all().add(steps), room).await?;
        }
        if room > 0 {
            let edges = of(&|gone| edge::Column::TaskId.is_in(gone));
            room -= remove::<edge::Entity, i64>(&change, Condition::all().add(edges), room).await?;
        }
        if room > 0 {
            let events = of(&|gone| event::Column::TaskId.is_in(gone));
            room -= remove::<event::Entity, i64>(&change, Condition::all().add(events), room).await?;
        }
        if room > 0 {
            // What became of the others is still to be found out; they go with their own age.
            let settled = Condition::all()
                .add(of(&|gone| operation::Column::TaskId.is_in(gone)))
                .add(operation::Column::FinishTime.is_not_null());
            room -= remove::<operation::Entity, String>(&change, settled, room).await?;
        }
        let mut removed = ROWS - room;
        if room > 0 {
            let hosts = task_host::Entity::delete_many();
            hosts.filter(task_host::Column::TaskId.is_in(gone.iter().copied())).exec(&change).await?;
            let done = removed_task::Entity::delete_many().filter(removed_task::Column::TaskId.is_in(gone));
            removed += done.exec(&change).await?.rows_affected;
        }
        change.commit().await?;
        Ok(removed)
    }

    /// Removes some orders to agents that ended before `until`, but for those of tasks that are kept. How many.
    pub(crate) async fn remove_operations(&self, until: Timestamp) -> Result<u64> {
        let change = self.change().await?;
        let kept = task::Entity::find().select_only().column(task::Column::Id).filter(
            Expr::col((task::Entity, task::Column::Id))
                .equals((operation::Entity, operation::Column::TaskId)),
        );
        let old: Vec<String> = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .filter(operation::Column::FinishTime.lt(micros(until)))
            .filter(Expr::exists(kept.into_query()).not())
            .limit(ROWS)
            .into_tuple()
            .all(&change)
            .await?;
        if old.is_empty() {
            return Ok(0);
        }
        // As for tasks.
        let ended = operation::Entity::find()
            .select_only()
            .column(operation::Column::Id)
            .column(operation::Column::Outcome)
            .filter(operation::Column::Id.is_in(old.clone()));
        let ended: HashMap<String, String> = ended.into_tuple().all(&change).await?.into_iter().collect();
        let of_them = audit::Column::OperationId.is_in(old.clone());
        settle(&change, of_them, |row| ended.get(&row.operation_id).cloned()).await?;
        let removed =
            operation::Entity::delete_many().filter(operation::Column::Id.is_in(old)).exec(&change).await?;
        change.commit().await?;
        Ok(removed.rows_affected)
    }

    /// Removes some of the oldest audit records: those from before `until`, up to the first that is not, and such as are not
    /// of the newest `most`, each with the order that it is of, where what became of that is known. The trail then begins
    /// after them. How many.
    pub(crate) async fn remove_audit_records(&self, until: Timestamp, most: u64) -> Result<u64> {
        let change = self.change().await?;
        let oldest = audit::Entity::find().order_by_asc(audit::Column::Id).limit(ROWS);
        let oldest = oldest.all(&*change).await?;
        let newest = change.head().await?.id;
        // Ids of records rise by one.
        let below = newest.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
        let is_old = |row: &audit::Model| row.time < micros(until) || row.id <= below;
        let old: Vec<_> = oldest.into_iter().take_while(is_old).collect();
        let Some(last) = old.last() else {
            return Ok(0);
        };
        let anchor = change.chain.read_anchor(&*change).await?;
        // Where somebody has changed the anchor it stays as it is, for whoever verifies the trail; so do the records.
        let Some(Ok(anchor)) = anchor else {
            return Ok(0);
        };
        let count = anchor.count + i64::try_from(old.len()).unwrap_or(i64::MAX);
        let anchor = Anchor { id: last.id, mac: last.mac.clone().unwrap_or_default(), count, ..anchor };
        change.chain.anchor(&*change, &anchor).await?;
        let operations = old.iter().map(|row| row.operation_id.clone()).filter(|id| !id.is_empty());
        operation::Entity::delete_many()
            .filter(operation::Column::Id.is_in(operations))
            .filter(operation::Column::FinishTime.is_not_null())
            .exec(&change)
            .await?;
        let removed =
            audit::Entity::delete_many().filter(audit::Column::Id.lte(last.id)).exec(&change).await?;
        change.commit().await?;
        Ok(removed.rows_affected)
    }
}

/// Writes into audit records how their orders ended, under a MAC of its own.
async fn settle(change: &Change, which: Expr, ended: impl Fn(&audit::Model) -> Option<String>) -> Result<()> {
    let rows =
        audit::Entity::find().filter(which).filter(audit::Column::Settled.is_null()).all(&**change).await?;
    for row in rows {
        let Some(outcome) = ended(&row) else { continue };
        let mac = change.chain.outcome(row.id, row.mac.as_deref().unwrap_or_default(), &outcome);
        let mac = if planted("outcome-without-mac") { None } else { Some(mac) };
        let settled = audit::ActiveModel {
            id: Unchanged(row.id),
            settled: Set(Some(outcome)),
            settled_mac: Set(mac),
            ..Default::default()
        };
        audit::Entity::update(settled).exec(change).await?;
    }
    Ok(())
}

/// Removes at most so many rows by their key. How many.
async fn remove<E, K>(change: &DatabaseTransaction, which: Condition, most: u64) -> Result<u64>
where
    E: EntityTrait,
    K: TryGetable + Into<Value>,
    E::PrimaryKey: PrimaryKeyToColumn<Column = E::Column>,
{
    let Some(key) = E::PrimaryKey::iter().next().map(PrimaryKeyToColumn::into_column) else {
        return Ok(0);
    };
    let keys: Vec<K> =
        E::find().select_only().column(key).filter(which).limit(most).into_tuple().all(change).await?;
    if keys.is_empty() {
        return Ok(0);
    }
    Ok(E::delete_many().filter(key.is_in(keys)).exec(change).await?.rows_affected)
}
