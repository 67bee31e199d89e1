//! Lists of tasks: one page of them, how many there are, and where the next page begins. All of it is one moment.
//!
//! What a list costs does not depend on how many tasks there are. Tasks have a name of a short list and one of three
//! states, and triggers keep a count of each pair, for every host and for all of them. The counts say which names match a
//! filter and how many tasks there are; each pair is one stretch of an index in which tasks are in the order asked for, and
//! the engine merges these stretches until the page is full.

use std::collections::{HashMap, HashSet};

use belay_proto::{HostId, TaskId, Trace, UserId};
use jiff::Timestamp;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, ExprTrait, Order, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, Select, TransactionTrait,
    sea_query::{Expr, Query, SelectStatement, UnionType},
};

use super::{
    Result, Store,
    entity::{edge, event, subtask, task, task_count, task_host},
    id, micros,
    tasks::{OF_MANY, assemble, damaged, take_in},
    time, word,
};
use crate::task::{Batch, Task, TaskStatus};

/// A task with more steps than this is listed without them, so that the largest page still fits into one message.
const MOST_STEPS: u64 = 50;
/// A task with more events than this is listed as if its steps were too many: a list does not read through them.
const MOST_EVENTS: u64 = 2_000;

/// Which tasks. Each part that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TaskFilter {
    pub(crate) host: Option<HostId>,
    /// Empty for every state.
    pub(crate) statuses: Vec<TaskStatus>,
    /// A part of the name, in whichever case; empty for every name.
    pub(crate) name: String,
}

/// What tasks are sorted by. Those that are equal in it are in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortBy {
    Id,
    CreateTime,
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskSort {
    pub(crate) by: SortBy,
    pub(crate) descending: bool,
}

/// Where a task stands in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) id: TaskId,
    pub(crate) create_time: Timestamp,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageStart {
    /// After so many tasks.
    Offset(u64),
    /// After the task that stands or stood here.
    After(Position),
}

/// Which part of which list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskStretch {
    pub(crate) filter: TaskFilter,
    pub(crate) sort: TaskSort,
    pub(crate) start: PageStart,
    pub(crate) size: u64,
}

/// The hosts that are in reach of whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reached {
    /// All, and all that ever were.
    Every,
    /// These. A task that has another one too is none of theirs.
    These(Vec<HostId>),
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct TaskPage {
    pub(crate) tasks: Vec<Listed>,
    /// How many tasks the whole list has.
    pub(crate) total: u64,
    /// Where the next page begins; `None` on the last one.
    pub(crate) next: Option<Position>,
}

/// A task in a list.
#[derive(Debug)]
pub(crate) enum Listed {
    /// With all of its steps.
    Whole(Box<Task>),
    /// Without its steps, which are too many.
    Row(Box<TaskRow>),
}

/// What is known of a task without its steps and its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskRow {
    pub(crate) id: TaskId,
    pub(crate) name: String,
    /// Its host, where it is for one alone.
    pub(crate) host: Option<HostId>,
    pub(crate) status: TaskStatus,
    pub(crate) creator_id: UserId,
    pub(crate) creator: String,
    pub(crate) executor: String,
    pub(crate) trace: Trace,
    pub(crate) reason: String,
    pub(crate) create_time: Timestamp,
    pub(crate) finish_time: Option<Timestamp>,
    pub(crate) prohibit_rollback: bool,
    /// How it goes, where it is for many hosts.
    pub(crate) batch: Option<Batch>,
}

impl Store {
    /// One page of the tasks whose hosts are all in reach.
    pub(crate) async fn tasks(&self, stretch: &TaskStretch, reached: &Reached) -> Result<TaskPage> {
        // Hazard D27: what is read together is of one moment.
        let moment = self.read.begin().await?;
        let counts = counts(&moment, &stretch.filter, reached).await?;
        let total = counts.iter().map(|count| count.count.unsigned_abs()).sum();
        let (ids, more) = ids(&moment, &counts, stretch, reached, total).await?;
        let tasks = read_many(&moment, &ids).await?;
        moment.commit().await?;
        let next = tasks.last().filter(|_| more).map(Listed::position);
        Ok(TaskPage { tasks, total, next })
    }
}

impl Listed {
    fn position(&self) -> Position {
        match self {
            Self::Whole(task) => Position { id: task.id, create_time: task.create_time },
            Self::Row(row) => Position { id: row.id, create_time: row.create_time },
        }
    }
}

/// Which tasks of a count are a host's: of those for one host, or of those for many. A change here has to go with one of the
/// triggers that count them.
fn of_host(host: HostId, count: &task_count::Model) -> Expr {
    match count.host_id {
        OF_MANY => task::Column::HostId.eq(OF_MANY).and(task::Column::Id.in_subquery(batches_of(host))),
        _ => task::Column::HostId.eq(host.get()),
    }
}

/// The ids of all batches that a host is part of.
fn batches_of(host: HostId) -> SelectStatement {
    let batches = task_host::Entity::find().select_only().column(task_host::Column::TaskId);
    batches.filter(task_host::Column::HostId.eq(host.get())).into_query()
}

/// Batches of a host, of which it has few, are counted as they are.
async fn count_batches(moment: &DatabaseTransaction, host: HostId) -> Result<Vec<task_count::Model>> {
    let counts: Vec<(String, String, i64)> = task::Entity::find()
        .select_only()
        .column(task::Column::Name)
        .column(task::Column::Status)
        .column_as(task::Column::Id.count(), "count")
        .filter(task::Column::Id.in_subquery(batches_of(host)))
        .group_by(task::Column::Name)
        .group_by(task::Column::Status)
        .into_tuple()
        .all(moment)
        .await?;
    let model = |(name, status, count)| task_count::Model { host_id: OF_MANY, name, status, count };
    Ok(counts.into_iter().map(model).collect())
}

/// Tasks of one host in reach, or of many that are all in reach. The ids are written out: there may be more of them than
/// values of a statement.
fn in_reach(hosts: &[HostId]) -> Expr {
    let ids: Vec<_> = hosts.iter().map(HostId::to_string).collect();
    // No host is an empty list, which not every engine reads.
    let ids = if ids.is_empty() { "0".to_owned() } else { ids.join(",") };
    let others = task_host::Entity::find().select_only().column(task_host::Column::TaskId);
    let others = others.filter(Expr::cust(format!("host_id NOT IN ({ids})"))).into_query();
    let of_many = task::Column::HostId.eq(OF_MANY).and(task::Column::Id.not_in_subquery(others));
    Expr::cust(format!("host_id IN ({ids})")).or(of_many)
}

/// Tasks of a host: those for it alone, and those for many.
fn of_this(host: HostId) -> Expr {
    task::Column::HostId.eq(host.get()).or(task::Column::Id.in_subquery(batches_of(host)))
}

/// Tasks in reach are counted as they are: no trigger knows who may see which.
async fn count_reached(
    moment: &DatabaseTransaction,
    host: Option<HostId>,
    reached: &[HostId],
) -> Result<Vec<task_count::Model>> {
    let mut tasks = task::Entity::find()
        .select_only()
        .column(task::Column::Name)
        .column(task::Column::Status)
        .column_as(task::Column::Id.count(), "count")
        .filter(in_reach(reached));
    if let Some(host) = host {
        tasks = tasks.filter(of_this(host));
    }
    let counts: Vec<(String, String, i64)> =
        tasks.group_by(task::Column::Name).group_by(task::Column::Status).into_tuple().all(moment).await?;
    let model = |(name, status, count)| task_count::Model { host_id: 0, name, status, count };
    Ok(counts.into_iter().map(model).collect())
}

/// The counts of all names and states that a filter lets through, without those of which there is no task.
async fn counts(
    moment: &DatabaseTransaction,
    filter: &TaskFilter,
    reached: &Reached,
) -> Result<Vec<task_count::Model>> {
    let TaskFilter { host, statuses, name } = filter;
    let counts = match reached {
        Reached::These(hosts) => count_reached(moment, *host, hosts).await?,
        Reached::Every => {
            let mut counts = task_count::Entity::find()
                .filter(task_count::Column::HostId.eq(host.map_or(0, HostId::get)))
                .filter(task_count::Column::Count.gt(0))
                .all(moment)
                .await?;
            if let Some(host) = host {
                counts.extend(count_batches(moment, *host).await?);
            }
            counts
        }
    };
    let name = name.to_lowercase();
    let matches = |count: &task_count::Model| {
        (statuses.is_empty() || statuses.iter().any(|status| status.as_str() == count.status))
            && count.name.to_lowercase().contains(&name)
    };
    Ok(counts.into_iter().filter(matches).collect())
}

/// The ids of a page, in order, and whether any come after it.
async fn ids(
    moment: &DatabaseTransaction,
    counts: &[task_count::Model],
    stretch: &TaskStretch,
    reached: &Reached,
    total: u64,
) -> Result<(Vec<i64>, bool)> {
    let TaskStretch { filter, sort, start, size } = stretch;
    let read = async |sort: TaskSort, after: Option<Position>, offset: u64, limit: u64| -> Result<Vec<i64>> {
        let query = match reached {
            Reached::Every => merged(filter, counts, sort, after, offset, limit),
            Reached::These(hosts) => of_reached(filter, counts, hosts, sort, after, offset, limit),
        };
        let Some(query) = query else {
            return Ok(Vec::new());
        };
        let rows = moment.query_all(&query).await?;
        Ok(rows.iter().map(|row| row.try_get("", "id")).collect::<std::result::Result<_, _>>()?)
    };
    match *start {
        PageStart::After(position) => {
            let mut ids = read(*sort, Some(position), 0, size.saturating_add(1)).await?;
            let more = ids.len() as u64 > *size;
            if more {
                ids.pop();
            }
            Ok((ids, more))
        }
        PageStart::Offset(offset) if offset >= total => Ok((Vec::new(), false)),
        PageStart::Offset(offset) => {
            let here = Ord::min(total - offset, *size);
            let behind = total - offset - here;
            // From whichever end is nearer.
            let ids = if offset <= behind {
                read(*sort, None, offset, here).await?
            } else {
                let backwards = TaskSort { descending: !sort.descending, ..*sort };
                let mut ids = read(backwards, None, behind, here).await?;
                ids.reverse();
                ids
            };
            Ok((ids, behind > 0))
        }
    }
}

/// The ids of tasks in one order: a stretch of an index for each pair of name and state, merged. `None` for no pair.
pub(super) fn merged(
    filter: &TaskFilter,
    counts: &[task_count::Model],
    sort: TaskSort,
    after: Option<Position>,
    offset: u64,
    limit: u64,
) -> Option<SelectStatement> {
    let mut stretches = counts.iter().map(|count| {
        let mut query = Query::select();
        query
            .column(task::Column::Id)
            .from(task::Entity)
            .and_where(task::Column::Name.eq(&count.name))
            .and_where(task::Column::Status.eq(&count.status));
        if sort.by == SortBy::CreateTime {
            query.column(task::Column::CreateTime);
        }
        if let Some(host) = filter.host {
            query.and_where(of_host(host, count));
        }
        if let Some(position) = after {
            behind(position, sort).into_iter().for_each(|condition| {
                query.and_where(condition);
            });
        }
        query
    });
    let mut query = stretches.next()?;
    stretches.for_each(|stretch| {
        query.union(UnionType::All, stretch);
    });
    let order = if sort.descending { Order::Desc } else { Order::Asc };
    if sort.by == SortBy::CreateTime {
        query.order_by(task::Column::CreateTime, order.clone());
    }
    query.order_by(task::Column::Id, order).limit(limit);
    if offset > 0 {
        query.offset(offset);
    }
    Some(query)
}

/// The same of tasks in reach, in one stretch: they are read as they are. A filter lets every pair of a name and a state
/// through that it lets through one by one.
fn of_reached(
    filter: &TaskFilter,
    counts: &[task_count::Model],
    hosts: &[HostId],
    sort: TaskSort,
    after: Option<Position>,
    offset: u64,
    limit: u64,
) -> Option<SelectStatement> {
    counts.first()?;
    let mut query = Query::select();
    query
        .column(task::Column::Id)
        .from(task::Entity)
        .and_where(task::Column::Name.is_in(counts.iter().map(|count| &count.name[..])))
        .and_where(task::Column::Status.is_in(counts.iter().map(|count| &count.status[..])))
        .and_where(in_reach(hosts));
    let more = filter.host.map(of_this).into_iter();
    more.chain(after.map(|position| behind(position, sort)).into_iter().flatten()).for_each(|condition| {
        query.and_where(condition);
    });
    let order = if sort.descending { Order::Desc } else { Order::Asc };
    if sort.by == SortBy::CreateTime {
        query.order_by(task::Column::CreateTime, order.clone());
    }
    query.order_by(task::Column::Id, order).limit(limit);
    if offset > 0 {
        query.offset(offset);
    }
    Some(query)
}

/// What comes after a position. Of two conditions the first is a range of an index.
fn behind(position: Position, sort: TaskSort) -> Vec<Expr> {
    use task::Column::{CreateTime, Id};
    let (id, at) = (position.id.get(), micros(position.create_time));
    match (sort.by, sort.descending) {
        (SortBy::Id, true) => vec![Id.lt(id)],
        (SortBy::Id, false) => vec![Id.gt(id)],
        (SortBy::CreateTime, true) => vec![CreateTime.lte(at), CreateTime.lt(at).or(Id.lt(id))],
        (SortBy::CreateTime, false) => vec![CreateTime.gte(at), CreateTime.gt(at).or(Id.gt(id))],
    }
}

/// Reads tasks in this order, with a fixed number of queries.
async fn read_many(moment: &DatabaseTransaction, ids: &[i64]) -> Result<Vec<Listed>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let large = large(moment, ids).await?;
    let small: Vec<i64> = ids.iter().copied().filter(|id| !large.contains(id)).collect();
    let rows = task::Entity::find().filter(task::Column::Id.is_in(ids.iter().copied())).all(moment).await?;
    let mut rows: HashMap<i64, task::Model> = rows.into_iter().map(|row| (row.id, row)).collect();
    let steps = subtask::Entity::find()
        .filter(subtask::Column::TaskId.is_in(small.clone()))
        .order_by_desc(subtask::Column::SeriesId);
    let mut steps = by_task(moment, steps, |row| row.task_id).await?;
    let edges = edge::Entity::find().filter(edge::Column::TaskId.is_in(small.clone()));
    let mut edges = by_task(moment, edges, |row| row.task_id).await?;
    let events =
        event::Entity::find().filter(event::Column::TaskId.is_in(small)).order_by_asc(event::Column::Id);
    let mut events = by_task(moment, events, |row| row.task_id).await?;
    let hosts = task_host::Entity::find()
        .filter(task_host::Column::TaskId.is_in(ids.iter().copied().filter(|id| !large.contains(id))))
        .order_by_asc(task_host::Column::Place);
    let mut hosts = by_task(moment, hosts, |row| row.task_id).await?;
    let mut tasks = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(row) = rows.remove(id) else { continue };
        if large.contains(id) {
            tasks.push(Listed::Row(Box::new(read_row(row)?)));
            continue;
        }
        let edges = edges.remove(id).unwrap_or_default();
        let hosts = hosts.remove(id).unwrap_or_default();
        let mut task = assemble(row, steps.remove(id).unwrap_or_default(), edges, hosts)?;
        for event in events.remove(id).unwrap_or_default() {
            take_in(&mut task, event)?;
        }
        tasks.push(Listed::Whole(Box::new(task)));
    }
    Ok(tasks)
}

/// Which of these tasks have too many steps, or too long a log, for a list. Looks no further than that bound.
async fn large(moment: &DatabaseTransaction, ids: &[i64]) -> Result<HashSet<i64>> {
    let nth_step = Query::select()
        .column((subtask::Entity, subtask::Column::Id))
        .from(subtask::Entity)
        .and_where(
            Expr::col((subtask::Entity, subtask::Column::TaskId)).equals((task::Entity, task::Column::Id)),
        )
        .limit(1)
        .offset(MOST_STEPS)
        .take();
    let nth_event = Query::select()
        .column((event::Entity, event::Column::Id))
        .from(event::Entity)
        .and_where(Expr::col((event::Entity, event::Column::TaskId)).equals((task::Entity, task::Column::Id)))
        .limit(1)
        .offset(MOST_EVENTS)
        .take();
    let large = task::Entity::find()
        .select_only()
        .column(task::Column::Id)
        .filter(task::Column::Id.is_in(ids.iter().copied()))
        .filter(Expr::exists(nth_step).or(Expr::exists(nth_event)));
    Ok(large.into_tuple().all(moment).await?.into_iter().collect())
}

async fn by_task<E: EntityTrait>(
    moment: &DatabaseTransaction,
    rows: Select<E>,
    task_of: impl Fn(&E::Model) -> i64,
) -> Result<HashMap<i64, Vec<E::Model>>> {
    let mut by_task: HashMap<i64, Vec<E::Model>> = HashMap::new();
    for row in rows.all(moment).await? {
        by_task.entry(task_of(&row)).or_default().push(row);
    }
    Ok(by_task)
}

fn read_row(row: task::Model) -> Result<TaskRow> {
    Ok(TaskRow {
        id: id(row.id)?,
        name: row.name,
        host: Some(row.host_id).filter(|host| *host != OF_MANY).map(id).transpose()?,
        status: word(&row.status, TaskStatus::parse)?,
        creator_id: id(row.creator_id)?,
        creator: row.creator,
        executor: row.executor,
        trace: word(&row.trace, Trace::parse)?,
        reason: row.reason,
        create_time: time(row.create_time)?,
        finish_time: row.finish_time.map(time).transpose()?,
        prohibit_rollback: row.prohibit_rollback,
        batch: row.batch.as_deref().map(serde_json::from_str).transpose().map_err(damaged)?,
    })
}

/// A count as triggers would have made it.
#[cfg(test)]
pub(super) fn count(host_id: i64, name: &str, status: &str) -> task_count::Model {
    task_count::Model { host_id, name: name.into(), status: status.into(), count: 1 }
}
