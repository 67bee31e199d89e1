//! Tasks: the definition and the log of each, and which one holds which host.

use std::time::Duration;

use belay_proto::{HostId, TaskId, Trace, UserId};
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, Set,
};
use uuid::Uuid;

use super::{
    AuditEntry, Result, Store, StoreError, audit,
    entity::{edge, event, host_lock, subtask, task},
    hosts::set_agent_state,
    id, micros,
    operations::as_number,
    time, word,
};
use crate::{
    host::AgentState,
    task::{Event, Node, State, Step, Task, TaskState, TaskStatus, dag::Dag},
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

/// What is added to a task's log, with what goes with it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) events: Vec<Event>,
    /// What the agent of the host is meant to be doing from now on.
    pub(crate) agent_state: Option<AgentState>,
    /// The order that it is.
    pub(crate) audit: Option<AuditEntry>,
}

impl Change {
    /// One event, and nothing with it.
    pub(crate) fn of(event: Event) -> Self {
        Self { events: vec![event], agent_state: None, audit: None }
    }
}

/// What followed from what was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    /// A task that had ended goes on, and holds its host again.
    pub(crate) opened: bool,
    /// The task has ended, and holds its host no more.
    pub(crate) ended: bool,
    /// What the agent of the host is meant to be doing from now on, where that has changed.
    pub(crate) agent_state: Option<AgentState>,
}

/// The right to run a task, until another runner has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) holder: Uuid,
}

impl Store {
    /// Takes a task, with the host that it holds and its audit record.
    ///
    /// # Errors
    /// [`StoreError::Held`] where another task holds the host.
    pub(crate) async fn add_task(&self, new: NewTask, audit: AuditEntry) -> Result<Task> {
        let now = audit.time;
        let change = self.change().await?;
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
            prohibit_rollback: Set(new.dag.prohibit_rollback),
            claim_holder: Set(String::new()),
            claim_epoch: Set(0),
            claim_until: Set(0),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        hold(&change, new.host, id(row.id)?).await?;
        insert_steps(&change, row.id, &new.dag).await?;
        audit::append(&change, audit, None, Some(id(row.id)?)).await?;
        let task = read_whole(&change, row).await?;
        change.commit().await?;
        Ok(task)
    }

    /// Claims a task that is open, or renews the claim: for `lease`, which another runner waits for. A server that had the
    /// database before is gone, so what it claimed is free. `None` where another runner has the task, or it has ended.
    pub(crate) async fn claim(
        &self,
        task: TaskId,
        holder: Uuid,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Option<Claim>> {
        let change = self.change().await?;
        let Some(row) = task::Entity::find_by_id(task.get()).one(&change).await? else {
            return Ok(None);
        };
        let epoch = as_number(self.epoch())?;
        let is_free = row.claim_holder.is_empty()
            || row.claim_holder == holder.to_string()
            || row.claim_epoch < epoch
            || row.claim_until < micros(now);
        if row.finish_time.is_some() || !is_free {
            return Ok(None);
        }
        let lease = i64::try_from(lease.as_micros()).unwrap_or(i64::MAX);
        task::Entity::update(task::ActiveModel {
            id: Set(task.get()),
            claim_holder: Set(holder.to_string()),
            claim_epoch: Set(epoch),
            claim_until: Set(micros(now).saturating_add(lease)),
            ..Default::default()
        })
        .exec(&change)
        .await?;
        change.commit().await?;
        Ok(Some(Claim { holder }))
    }

    /// Adds to a task's log what `decide` says of the task as it is in this transaction, with all that follows: the rows
    /// derived from the log, and which task holds the host. `task` is then as the log says.
    ///
    /// # Errors
    /// [`StoreError::ClaimLost`] where `claim` is not the one in force; [`StoreError::Held`] where a task that had ended is
    /// to go on, and another one holds the host. What `decide` refuses is given back as it is.
    pub(crate) async fn append<E>(
        &self,
        task: &mut Task,
        claim: Option<&Claim>,
        now: Timestamp,
        decide: impl FnOnce(&Task) -> std::result::Result<Option<Change>, E>,
    ) -> Result<std::result::Result<Option<Appended>, E>> {
        let change = self.change().await?;
        catch_up(&change, task).await?;
        if let Some(claim) = claim {
            let row =
                task::Entity::find_by_id(task.id.get()).one(&change).await?.ok_or(StoreError::Missing)?;
            if row.claim_holder != claim.holder.to_string() {
                return Err(StoreError::ClaimLost);
            }
        }
        let Change { events, mut agent_state, audit } = match decide(task) {
            Ok(Some(wanted)) => wanted,
            Ok(None) => return Ok(Ok(None)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let before = task.standing();
        let (mut state, mut seen) = (task.state.clone(), task.seen);
        for event in events {
            let text =
                serde_json::to_string(&event).map_err(|error| StoreError::Damaged(error.to_string()))?;
            let row = event::ActiveModel {
                task_id: Set(task.id.get()),
                time: Set(micros(now)),
                event: Set(text),
                ..Default::default()
            };
            seen = row.insert(&change).await?.id;
            state.apply(now, &event);
        }
        let after = state.standing(&task.steps);
        let opened = !before.is_open() && after.is_open();
        let ended = before.is_open() && !after.is_open();
        if before != after && !after.is_open() && after != TaskState::Successful {
            agent_state = agent_state_at_end(&state, &task.steps, after);
        }
        if opened {
            hold(&change, task.host, task.id).await?;
        }
        if opened || before != after && !after.is_open() {
            task::Entity::update(task::ActiveModel {
                id: Set(task.id.get()),
                status: Set(after.status().as_str().into()),
                finish_time: Set((!after.is_open()).then_some(micros(now))),
                claim_holder: Set(String::new()),
                ..Default::default()
            })
            .exec(&change)
            .await?;
        }
        if ended {
            let own = host_lock::Entity::delete_by_id(task.host.get());
            own.filter(host_lock::Column::TaskId.eq(task.id.get())).exec(&change).await?;
        }
        if let Some(state) = agent_state {
            set_agent_state(&change, task.host, state, now).await?;
        }
        if let Some(audit) = audit {
            audit::append(&change, audit, None, None).await?;
        }
        change.commit().await?;
        (task.state, task.seen) = (state, seen);
        Ok(Ok(Some(Appended { opened, ended, agent_state })))
    }

    /// The task of an id.
    pub(crate) async fn task(&self, task: TaskId) -> Result<Option<Task>> {
        match task::Entity::find_by_id(task.get()).one(&self.read).await? {
            Some(row) => Ok(Some(read_whole(&self.read, row).await?)),
            None => Ok(None),
        }
    }

    /// Every task that has not ended, oldest first, and each for itself: one that can not be read hides no other.
    pub(crate) async fn open_tasks(&self) -> Result<Vec<(TaskId, Result<Task>)>> {
        let rows = task::Entity::find()
            .filter(task::Column::FinishTime.is_null())
            .order_by_asc(task::Column::Id)
            .all(&self.read)
            .await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            tasks.push((id(row.id)?, read_whole(&self.read, row).await));
        }
        Ok(tasks)
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
            undo: Set(step.undo.map(Node::as_str).unwrap_or_default().into()),
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
    let mut task = assemble(row, steps, &edges)?;
    catch_up(db, &mut task).await?;
    Ok(task)
}

/// A task of which nothing has happened yet, made of its rows.
pub(super) fn assemble(row: task::Model, steps: Vec<subtask::Model>, edges: &[edge::Model]) -> Result<Task> {
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
        steps: steps.into_iter().map(|row| read_step(row, edges)).collect::<Result<_>>()?,
        prohibit_rollback: row.prohibit_rollback,
        state: State::default(),
        seen: 0,
    })
}

/// Takes in what was added to a task's log since it was read.
async fn catch_up(db: &impl sea_orm::ConnectionTrait, task: &mut Task) -> Result<()> {
    let events = event::Entity::find()
        .filter(event::Column::TaskId.eq(task.id.get()))
        .filter(event::Column::Id.gt(task.seen))
        .order_by_asc(event::Column::Id)
        .all(db)
        .await?;
    events.into_iter().try_for_each(|row| take_in(task, row))
}

/// Takes in one more event of a task's log.
pub(super) fn take_in(task: &mut Task, row: event::Model) -> Result<()> {
    let event: Event =
        serde_json::from_str(&row.event).map_err(|error| StoreError::Damaged(error.to_string()))?;
    task.state.apply(time(row.time)?, &event);
    task.seen = row.id;
    Ok(())
}

/// Lets a task hold a host.
async fn hold(change: &DatabaseTransaction, host: HostId, task: TaskId) -> Result<()> {
    if let Some(held) = host_lock::Entity::find_by_id(host.get()).one(change).await? {
        return Err(StoreError::Held(id(held.task_id)?));
    }
    let lock = host_lock::ActiveModel { host_id: Set(host.get()), task_id: Set(task.get()) };
    host_lock::Entity::insert(lock).exec_without_returning(change).await?;
    Ok(())
}

/// What the agent of the host is meant to be doing once a task has ended so without success: what it was before where
/// nothing was ordered, or all is undone; else it can be ordered again.
fn agent_state_at_end(state: &State, steps: &[Step], end: TaskState) -> Option<AgentState> {
    let before = state.before().map(|before| before.agent);
    match end {
        TaskState::RolledBack => before,
        _ if state.has_ordered(steps) => Some(AgentState::Available),
        _ => before,
    }
}

fn read_step(row: subtask::Model, edges: &[edge::Model]) -> Result<Step> {
    let of = |pairs: Vec<i64>| pairs.into_iter().map(id).collect::<Result<_>>();
    Ok(Step {
        id: id(row.id)?,
        node: Node::parse(&row.node),
        undo: Some(&row.undo[..]).filter(|undo| !undo.is_empty()).map(Node::parse),
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
pub(super) fn small<A: Copy + std::fmt::Display, B: TryFrom<A>>(number: A) -> Result<B> {
    B::try_from(number).map_err(|_| StoreError::Damaged(format!("the number {number}")))
}
