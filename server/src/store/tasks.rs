//! Tasks: the definition and the log of each, and which one holds which host.

use std::time::Duration;

use belay_proto::{HostId, SubtaskId, TaskId, Trace, UserId};
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, Set,
};

use super::{
    AuditEntry, Result, Store, StoreError, audit,
    entity::{edge, event, host_lock, log, subtask, task},
    hosts::set_agent_state,
    id, micros, time, word,
};
use crate::{
    host::AgentState,
    task::{Event, Level, LogLine, Node, State, Step, Task, TaskStatus, dag::Dag},
};

/// A task that is about to be taken.
#[derive(Debug, Clone)]
pub(crate) struct NewTask {
    pub(crate) dag: Dag,
    pub(crate) host: HostId,
    pub(crate) creator_id: UserId,
    pub(crate) creator: String,
    pub(crate) executor: String,
    pub(crate) trace: Trace,
    pub(crate) reason: String,
}

/// What a new event changes beside the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Effects {
    /// What the agent of the host is meant to be doing from now on.
    pub(crate) agent_state: Option<AgentState>,
    /// How the task ended. It then holds its host no more.
    pub(crate) end: Option<TaskStatus>,
}

impl Store {
    /// Takes a task, with the host that it holds and its audit record.
    ///
    /// # Errors
    /// [`StoreError::Held`] where another task holds the host.
    pub(crate) async fn add_task(&self, new: NewTask, audit: AuditEntry) -> Result<Task> {
        let now = audit.time;
        let change = self.change().await?;
        if let Some(held) = host_lock::Entity::find_by_id(new.host.get()).one(&change).await? {
            return Err(StoreError::Held(id(held.task_id)?));
        }
        let row = task::ActiveModel {
            name: Set(new.dag.name.into()),
            host_id: Set(new.host.get()),
            status: Set(TaskStatus::Running.as_str().into()),
            creator_id: Set(new.creator_id.get()),
            creator: Set(new.creator),
            executor: Set(new.executor),
            trace: Set(new.trace.traceparent()),
            reason: Set(new.reason),
            create_time: Set(micros(now)),
            finish_time: Set(None),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        insert_steps(&change, row.id, &new.dag).await?;
        let lock = host_lock::ActiveModel { host_id: Set(new.host.get()), task_id: Set(row.id) };
        host_lock::Entity::insert(lock).exec_without_returning(&change).await?;
        audit::append(&change, audit, None, Some(id(row.id)?)).await?;
        let task = read_whole(&change, row).await?;
        change.commit().await?;
        Ok(task)
    }

    /// Appends to a task's log.
    pub(crate) async fn append(
        &self,
        task: &Task,
        event: &Event,
        now: Timestamp,
        effects: Effects,
    ) -> Result<()> {
        let change = self.change().await?;
        let row = event::ActiveModel {
            task_id: Set(task.id.get()),
            time: Set(micros(now)),
            event: Set(serde_json::to_string(event).map_err(|error| StoreError::Damaged(error.to_string()))?),
            ..Default::default()
        };
        event::Entity::insert(row).exec_without_returning(&change).await?;
        if let Some(state) = effects.agent_state {
            set_agent_state(&change, task.host, state, now).await?;
        }
        if let Some(status) = effects.end {
            task::Entity::update(task::ActiveModel {
                id: Set(task.id.get()),
                status: Set(status.as_str().into()),
                finish_time: Set(Some(micros(now))),
                ..Default::default()
            })
            .exec(&change)
            .await?;
            host_lock::Entity::delete_by_id(task.host.get()).exec(&change).await?;
        }
        Ok(change.commit().await?)
    }

    /// Writes a line into the log of a step.
    pub(crate) async fn log(&self, subtask: SubtaskId, line: LogLine) -> Result<()> {
        let change = self.change().await?;
        let row = log::ActiveModel {
            subtask_id: Set(subtask.get()),
            attempt: Set(line.attempt.into()),
            time: Set(micros(line.time)),
            level: Set(line.level.as_str().into()),
            message: Set(line.message),
            ..Default::default()
        };
        log::Entity::insert(row).exec_without_returning(&change).await?;
        Ok(change.commit().await?)
    }

    /// The task of an id.
    pub(crate) async fn task(&self, task: TaskId) -> Result<Option<Task>> {
        match task::Entity::find_by_id(task.get()).one(&self.read).await? {
            Some(row) => Ok(Some(read_whole(&self.read, row).await?)),
            None => Ok(None),
        }
    }

    /// Every task that has not ended, oldest first.
    pub(crate) async fn open_tasks(&self) -> Result<Vec<Task>> {
        let rows = task::Entity::find()
            .filter(task::Column::FinishTime.is_null())
            .order_by_asc(task::Column::Id)
            .all(&self.read)
            .await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            tasks.push(read_whole(&self.read, row).await?);
        }
        Ok(tasks)
    }

    /// One page of tasks, newest first, and how many there are on all pages.
    pub(crate) async fn tasks(
        &self,
        host: Option<HostId>,
        statuses: &[TaskStatus],
        offset: u64,
        size: u64,
    ) -> Result<(Vec<Task>, u64)> {
        let mut filter = Condition::all();
        if let Some(host) = host {
            filter = filter.add(task::Column::HostId.eq(host.get()));
        }
        if !statuses.is_empty() {
            filter = filter.add(task::Column::Status.is_in(statuses.iter().map(|status| status.as_str())));
        }
        let query = task::Entity::find().filter(filter);
        let total = query.clone().count(&self.read).await?;
        let rows = query.order_by_desc(task::Column::Id).offset(offset).limit(size).all(&self.read).await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            tasks.push(read_whole(&self.read, row).await?);
        }
        Ok((tasks, total))
    }

    /// The log of a step, oldest line first.
    pub(crate) async fn subtask_log(&self, subtask: SubtaskId) -> Result<Vec<LogLine>> {
        let rows = log::Entity::find()
            .filter(log::Column::SubtaskId.eq(subtask.get()))
            .order_by_asc(log::Column::Id)
            .all(&self.read)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(LogLine {
                    time: time(row.time)?,
                    attempt: small(row.attempt)?,
                    level: word(&row.level, Level::parse)?,
                    message: row.message,
                })
            })
            .collect()
    }
}

/// The last step gets the lowest id and series, as in the documented examples.
async fn insert_steps(change: &DatabaseTransaction, task: i64, dag: &Dag) -> Result<()> {
    let mut ids = vec![0; dag.nodes.len()];
    for (series, place) in (0..dag.nodes.len()).rev().enumerate() {
        let step = &dag.nodes[place];
        let row = subtask::ActiveModel {
            task_id: Set(task),
            node: Set(step.node.as_str().into()),
            name: Set(step.name.into()),
            class_name: Set(step.class_name.into()),
            series_id: Set(small(series)?),
            timeout: Set(small(step.timeout.as_secs())?),
            ..Default::default()
        };
        ids[place] = row.insert(change).await?.id;
    }
    for &(upstream, downstream) in &dag.edges {
        let row = edge::ActiveModel {
            task_id: Set(task),
            upstream_id: Set(ids[upstream]),
            downstream_id: Set(ids[downstream]),
            ..Default::default()
        };
        edge::Entity::insert(row).exec_without_returning(change).await?;
    }
    Ok(())
}

async fn read_whole(db: &impl sea_orm::ConnectionTrait, row: task::Model) -> Result<Task> {
    let steps = subtask::Entity::find()
        .filter(subtask::Column::TaskId.eq(row.id))
        .order_by_desc(subtask::Column::SeriesId)
        .all(db)
        .await?;
    let edges = edge::Entity::find().filter(edge::Column::TaskId.eq(row.id)).all(db).await?;
    let events = event::Entity::find()
        .filter(event::Column::TaskId.eq(row.id))
        .order_by_asc(event::Column::Id)
        .all(db)
        .await?;
    let log = events
        .into_iter()
        .map(|row| {
            let event: Event =
                serde_json::from_str(&row.event).map_err(|error| StoreError::Damaged(error.to_string()))?;
            Ok((time(row.time)?, event))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Task {
        id: id(row.id)?,
        name: row.name,
        host: id(row.host_id)?,
        creator_id: id(row.creator_id)?,
        creator: row.creator,
        executor: row.executor,
        trace: word(&row.trace, Trace::parse)?,
        reason: row.reason,
        create_time: time(row.create_time)?,
        steps: steps.into_iter().map(|row| read_step(row, &edges)).collect::<Result<_>>()?,
        state: State::replay(&log),
    })
}

fn read_step(row: subtask::Model, edges: &[edge::Model]) -> Result<Step> {
    let of = |pairs: Vec<i64>| pairs.into_iter().map(id).collect::<Result<_>>();
    Ok(Step {
        id: id(row.id)?,
        node: word(&row.node, Node::parse)?,
        name: row.name,
        class_name: row.class_name,
        series_id: small(row.series_id)?,
        timeout: Duration::from_secs(small(row.timeout)?),
        upstreams: of(edges
            .iter()
            .filter(|edge| edge.downstream_id == row.id)
            .map(|e| e.upstream_id)
            .collect())?,
        downstreams: of(edges
            .iter()
            .filter(|edge| edge.upstream_id == row.id)
            .map(|e| e.downstream_id)
            .collect())?,
    })
}

/// Fits a number into the type that it is shown as.
fn small<A: Copy + std::fmt::Display, B: TryFrom<A>>(number: A) -> Result<B> {
    B::try_from(number).map_err(|_| StoreError::Damaged(format!("the number {number}")))
}
