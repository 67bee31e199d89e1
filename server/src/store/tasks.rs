//! Tasks: the definition and the log of each, and which one holds which host.

use std::{cmp::Reverse, collections::HashMap, sync::Arc, time::Duration};

use belay_proto::{HostId, TaskId, Trace, UserId, fail_point, planted};
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, Set,
};
use uuid::Uuid;

use super::{
    AuditEntry, Change, Claim, Draft, Result, Store, StoreError,
    append::{add, until},
    audit,
    entity::{edge, event, host_lock, subtask, task, task_host},
    id, micros,
    operations::as_number,
    time, word,
};
use crate::task::{
    Batch, Event, Graph, Node, State, Step, Task, TaskStatus,
    dag::{Dag, Definition},
};

/// What stands for the host of a task that has many. They are in a table of their own.
pub(super) const OF_MANY: i64 = -1;
/// What stands for the host of a step that is not that of one of many.
const NO_LANE: i64 = -1;
/// How many rows one statement inserts: an engine takes only so many values at once.
const ROWS: usize = 500;

/// A task that is about to be taken.
#[derive(Debug, Clone)]
pub(crate) struct NewTask {
    pub(crate) dag: Dag,
    /// Its hosts, in the order in which they begin.
    pub(crate) hosts: Vec<HostId>,
    /// How it goes, where it is for many hosts.
    pub(crate) batch: Option<Batch>,
    /// Who runs it.
    pub(crate) holder: Uuid,
    pub(crate) creator_id: UserId,
    pub(crate) creator: String,
    pub(crate) executor: String,
    pub(crate) trace: Trace,
    pub(crate) reason: String,
    /// Of a restart: what was started after this and runs is left as it is.
    pub(crate) not_started_after: Option<Timestamp>,
}

/// A task that was taken.
#[derive(Debug, Clone)]
pub(crate) struct TakenTask {
    /// As it was accepted.
    pub(crate) accepted: Task,
    /// As it is now that it has begun.
    pub(crate) task: Task,
    /// The claim of who runs it.
    pub(crate) claim: Claim,
}

impl Store {
    /// The hosts of a task; none where there is no such task. It takes as much to say either.
    pub(crate) async fn hosts_of_task(&self, of: TaskId) -> Result<Vec<HostId>> {
        let row = task::Entity::find_by_id(of.get()).one(&self.read).await?;
        let many = task_host::Entity::find()
            .filter(task_host::Column::TaskId.eq(of.get()))
            .order_by_asc(task_host::Column::Place)
            .all(&self.read)
            .await?;
        match row {
            None => Ok(Vec::new()),
            Some(row) if row.host_id == OF_MANY => many.into_iter().map(|row| id(row.host_id)).collect(),
            Some(row) => Ok(vec![id(row.host_id)?]),
        }
    }

    /// Takes a task, claimed by who runs it, with the hosts that it holds, its audit record, and what `begin` adds to its log.
    ///
    /// # Errors
    /// [`StoreError::Held`] where another task holds one of the hosts.
    pub(crate) async fn add_task(
        &self,
        new: NewTask,
        lease: Duration,
        audit: AuditEntry,
        begin: impl FnOnce(&Task, &mut Draft),
    ) -> Result<TakenTask> {
        let now = audit.time;
        let change = self.change().await?;
        let (accepted, mut claim) = insert_task(&change, self.epoch(), new, lease, audit).await?;
        let mut draft = Draft::new(State::default(), now);
        begin(&accepted, &mut draft);
        let added = add(&change, &accepted, draft, &mut claim.log_ends, self.epoch()).await?;
        fail_point(|| "take.written");
        change.commit().await?;
        let task = Task { state: added.state, seen: added.seen, ..accepted.clone() };
        Ok(TakenTask { accepted, task, claim })
    }

    /// The task of an id.
    pub(crate) async fn task(&self, task: TaskId) -> Result<Option<Task>> {
        match task::Entity::find_by_id(task.get()).one(&self.read).await? {
            Some(row) => Ok(Some(read_whole(&self.read, row).await?)),
            None => Ok(None),
        }
    }

    /// Takes in what was added to a task's log since it was read.
    pub(crate) async fn catch_up(&self, task: &mut Task) -> Result<()> {
        catch_up(&self.read, task).await
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

/// Takes a task as a part of another change.
pub(super) async fn insert_task(
    change: &Change,
    epoch: u64,
    new: NewTask,
    lease: Duration,
    audit: AuditEntry,
) -> Result<(Task, Claim)> {
    let NewTask {
        dag,
        hosts,
        batch,
        holder,
        creator_id,
        creator,
        executor,
        trace,
        reason,
        not_started_after,
    } = new;
    let now = audit.time;
    let only = match (&batch, &hosts[..]) {
        (None, [host]) => host.get(),
        _ => OF_MANY,
    };
    let batch = batch.map(|batch| serde_json::to_string(&batch)).transpose().map_err(damaged)?;
    let row = task::ActiveModel {
        name: Set(dag.name.into()),
        host_id: Set(only),
        status: Set(TaskStatus::Running.as_str().into()),
        creator_id: Set(creator_id.get()),
        creator: Set(creator),
        executor: Set(executor),
        trace: Set(trace.traceparent()),
        reason: Set(reason),
        create_time: Set(micros(now)),
        finish_time: Set(None),
        prohibit_rollback: Set(dag.prohibit_rollback),
        claim_holder: Set(holder.to_string()),
        claim_epoch: Set(as_number(epoch)?),
        claim_until: Set(until(now, lease)),
        batch: Set(batch),
        not_started_after: Set(not_started_after.map(micros)),
        ..Default::default()
    };
    let row = row.insert(change).await?;
    let task = id(row.id)?;
    hold(change, &hosts, task).await?;
    let of_many = match only {
        OF_MANY => insert_hosts(change, row.id, &hosts).await?,
        _ => Vec::new(),
    };
    let (steps, edges) = insert_steps(change, row.id, &dag, hosts.len()).await?;
    audit::append(change, audit, None, Some(task)).await?;
    Ok((assemble(row, steps, edges, of_many)?, Claim::new(holder)))
}

/// The last step gets the lowest id and series, as in the documented examples. In a batch every step but a barrier is there
/// once for each host. Gives the rows of all steps, in their order, and of all edges.
async fn insert_steps(
    change: &DatabaseTransaction,
    task: i64,
    dag: &Dag,
    hosts: usize,
) -> Result<(Vec<subtask::Model>, Vec<edge::Model>)> {
    let lanes = |step: &Definition| match (dag.is_batch, step.node) {
        (false, _) | (true, Node::Wait) => vec![NO_LANE],
        (true, _) => (0..hosts).map(|lane| i64::try_from(lane).unwrap_or(NO_LANE)).collect(),
    };
    let copies: Vec<(usize, i64)> = dag
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(node, step)| lanes(step).into_iter().map(move |lane| (node, lane)))
        .collect();
    let row = |(series, &(node, lane)): (usize, &(usize, i64))| {
        let step = &dag.nodes[node];
        Ok(subtask::ActiveModel {
            task_id: Set(task),
            node: Set(step.node.as_str().into()),
            name: Set(step.name.into()),
            class_name: Set(step.class_name.into()),
            series_id: Set(small(series)?),
            timeout: Set(small(step.timeout.as_secs())?),
            undo: Set(step.undo.map(Node::as_str).unwrap_or_default().into()),
            lane: Set(lane),
            ..Default::default()
        })
    };
    let rows = copies.iter().rev().enumerate().map(row).collect::<Result<Vec<_>>>()?;
    let mut steps: Vec<subtask::Model> = insert_returning(change, rows).await?;
    steps.sort_unstable_by_key(|step| Reverse(step.series_id));
    let mut of_node = vec![Vec::new(); dag.nodes.len()];
    for ((node, lane), step) in copies.into_iter().zip(&steps) {
        of_node[node].push((lane, step.id));
    }
    let mut edges = Vec::new();
    for &(upstream, downstream) in &dag.edges {
        for &(above, upstream_id) in &of_node[upstream] {
            // Steps of one host hang together; a barrier is drawn between those of all.
            let drawn = of_node[downstream]
                .iter()
                .filter(|(below, _)| above == *below || above.min(*below) == NO_LANE);
            edges.extend(drawn.map(|&(_, downstream_id)| edge::ActiveModel {
                task_id: Set(task),
                upstream_id: Set(upstream_id),
                downstream_id: Set(downstream_id),
                ..Default::default()
            }));
        }
    }
    Ok((steps, insert_returning(change, edges).await?))
}

/// Inserts rows, many with each statement, and gives them as they are then, in no certain order.
pub(super) async fn insert_returning<E, A>(
    change: &DatabaseTransaction,
    rows: Vec<A>,
) -> Result<Vec<E::Model>>
where
    E: EntityTrait,
    E::Model: IntoActiveModel<A>,
    A: ActiveModelTrait<Entity = E> + Send,
{
    let mut inserted = Vec::with_capacity(rows.len());
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let some = E::insert_many(rows.by_ref().take(ROWS));
        inserted.extend(some.exec_with_returning(change).await?);
    }
    Ok(inserted)
}

/// Inserts rows, many with each statement.
pub(super) async fn insert_all<E, A>(change: &DatabaseTransaction, rows: Vec<A>) -> Result<()>
where
    E: EntityTrait,
    A: ActiveModelTrait<Entity = E> + Send,
{
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        E::insert_many(rows.by_ref().take(ROWS)).exec_without_returning(change).await?;
    }
    Ok(())
}

/// Gives the rows, in the order of the hosts.
async fn insert_hosts(
    change: &DatabaseTransaction,
    task: i64,
    hosts: &[HostId],
) -> Result<Vec<task_host::Model>> {
    let row = |(place, host): (usize, &HostId)| {
        Ok(task_host::ActiveModel { task_id: Set(task), place: Set(small(place)?), host_id: Set(host.get()) })
    };
    let rows = hosts.iter().enumerate().map(row).collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<task_host::Model> = insert_returning(change, rows).await?;
    rows.sort_unstable_by_key(|row| row.place);
    Ok(rows)
}

async fn read_whole(db: &impl sea_orm::ConnectionTrait, row: task::Model) -> Result<Task> {
    let steps = subtask::Entity::find()
        .filter(subtask::Column::TaskId.eq(row.id))
        .order_by_desc(subtask::Column::SeriesId)
        .all(db)
        .await?;
    let edges = edge::Entity::find().filter(edge::Column::TaskId.eq(row.id)).all(db).await?;
    let mut hosts = Vec::new();
    if row.host_id == OF_MANY {
        let of_it = task_host::Entity::find().filter(task_host::Column::TaskId.eq(row.id));
        hosts = of_it.order_by_asc(task_host::Column::Place).all(db).await?;
    }
    let mut task = assemble(row, steps, edges, hosts)?;
    catch_up(db, &mut task).await?;
    Ok(task)
}

/// A task of which nothing has happened yet, made of its rows. `hosts` is for a task that has many.
pub(super) fn assemble(
    row: task::Model,
    steps: Vec<subtask::Model>,
    edges: Vec<edge::Model>,
    hosts: Vec<task_host::Model>,
) -> Result<Task> {
    let (mut upstreams, mut downstreams) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
    for edge in edges {
        upstreams.entry(edge.downstream_id).or_default().push(id(edge.upstream_id)?);
        downstreams.entry(edge.upstream_id).or_default().push(id(edge.downstream_id)?);
    }
    let batch: Option<Batch> = row.batch.as_deref().map(serde_json::from_str).transpose().map_err(damaged)?;
    let mut read_step = |step: subtask::Model| {
        Ok::<_, StoreError>(Step {
            id: id(step.id)?,
            node: Node::parse(&step.node),
            undo: Some(&step.undo[..]).filter(|undo| !undo.is_empty()).map(Node::parse),
            name: step.name,
            class_name: step.class_name,
            series_id: small(step.series_id)?,
            timeout: Duration::from_secs(small(step.timeout)?),
            lane: match (&batch, step.lane) {
                (None, NO_LANE) => 0,
                (_, lane) => usize::try_from(lane).unwrap_or(usize::MAX),
            },
            upstreams: upstreams.remove(&step.id).unwrap_or_default(),
            downstreams: downstreams.remove(&step.id).unwrap_or_default(),
            needs: Vec::new(),
            carries: Vec::new(),
        })
    };
    let steps = steps.into_iter().map(&mut read_step).collect::<Result<_>>()?;
    let hosts = match row.host_id {
        OF_MANY => hosts.into_iter().map(|row| id(row.host_id)).collect::<Result<_>>()?,
        only => vec![id(only)?],
    };
    Ok(Task {
        id: id(row.id)?,
        name: row.name,
        creator_id: id(row.creator_id)?,
        creator: row.creator,
        executor: row.executor,
        trace: word(&row.trace, Trace::parse)?,
        reason: row.reason,
        create_time: time(row.create_time)?,
        not_started_after: row.not_started_after.map(time).transpose()?,
        graph: Arc::new(Graph::new(steps, hosts, batch)),
        prohibit_rollback: row.prohibit_rollback,
        state: State::default(),
        seen: 0,
    })
}

/// Takes in what was added to a task's log since it was read.
pub(super) async fn catch_up(db: &impl sea_orm::ConnectionTrait, task: &mut Task) -> Result<()> {
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
    let event: Event = serde_json::from_str(&row.event).map_err(damaged)?;
    task.state.apply(time(row.time)?, &event);
    task.seen = row.id;
    Ok(())
}

/// Lets a task hold its hosts.
pub(super) async fn hold(change: &DatabaseTransaction, hosts: &[HostId], task: TaskId) -> Result<()> {
    for hosts in hosts.chunks(ROWS) {
        let some = host_lock::Column::HostId.is_in(hosts.iter().map(|host| host.get()));
        if let Some(held) =
            host_lock::Entity::find().filter(some).one(change).await?.filter(|_| !planted("held-hosts-taken"))
        {
            return Err(StoreError::Held { host: id(held.host_id)?, task: id(held.task_id)? });
        }
    }
    let lock = |host: &HostId| host_lock::ActiveModel { host_id: Set(host.get()), task_id: Set(task.get()) };
    insert_all::<host_lock::Entity, _>(change, hosts.iter().map(lock).collect()).await
}

pub(super) fn damaged(error: serde_json::Error) -> StoreError {
    StoreError::Damaged(error.to_string())
}

/// Fits a number into the type that it is shown as.
pub(super) fn small<A: Copy + std::fmt::Display, B: TryFrom<A>>(number: A) -> Result<B> {
    B::try_from(number).map_err(|_| StoreError::Damaged(format!("the number {number}")))
}
