//! The one way into the log of a task: catch up, decide, derive, all in one transaction.

use std::time::Duration;

use belay_proto::{HostId, SubtaskId, TaskId, fail_point, planted};
use jiff::Timestamp;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Set,
    sea_query::SimpleExpr,
};
use uuid::Uuid;

use super::{
    AuditEntry, Change, NewOperation, OperationOutcome, Result, Store, StoreError, audit,
    entity::{event, host_lock, task},
    hosts::set_agent_state,
    micros,
    operations::{self, as_number},
    task_logs::{LogEnds, insert_lines},
    tasks::{catch_up, damaged, hold, insert_returning},
};
use crate::{
    host::AgentState,
    task::{Event, Graph, LogLine, State, Task, TaskState, next::Lane},
};

/// What is about to be added to a task's log, with what goes with it.
#[derive(Debug)]
pub(crate) struct Draft {
    /// How the task stands with what was added so far.
    state: State,
    now: Timestamp,
    events: Vec<Event>,
    /// What agents are meant to be doing from now on.
    pub(crate) agent_states: Vec<(HostId, AgentState)>,
    /// Lines for the logs of steps.
    pub(crate) lines: Vec<(SubtaskId, LogLine)>,
    /// Orders that are about to be given. One that is there already stays as it is.
    pub(crate) operations: Vec<NewOperation>,
    /// What became of orders.
    pub(crate) settled: Vec<(Uuid, OperationOutcome)>,
    /// The order that it is.
    pub(crate) audit: Option<AuditEntry>,
}

impl Draft {
    pub(super) fn new(state: State, now: Timestamp) -> Self {
        Self {
            state,
            now,
            events: Vec::new(),
            agent_states: Vec::new(),
            lines: Vec::new(),
            operations: Vec::new(),
            settled: Vec::new(),
            audit: None,
        }
    }

    /// Adds an event.
    pub(crate) fn add(&mut self, event: Event) {
        self.state.apply(self.now, &event);
        self.events.push(event);
    }

    /// How the task stands with what was added so far.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    fn is_empty(&self) -> bool {
        let Self { state: _, now: _, events, agent_states, lines, operations, settled, audit } = self;
        events.is_empty()
            && agent_states.is_empty()
            && lines.is_empty()
            && operations.is_empty()
            && settled.is_empty()
            && audit.is_none()
    }
}

/// What followed from what was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    /// A task that had ended goes on, and holds its hosts again.
    pub(crate) opened: bool,
    /// The task has ended, and holds its hosts no more.
    pub(crate) ended: bool,
    /// What agents are meant to be doing from now on.
    pub(crate) agent_states: Vec<(HostId, AgentState)>,
}

/// The right to run a task, until another runner has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) holder: Uuid,
    /// Where the logs end that were written under it: nobody else writes them.
    pub(super) log_ends: LogEnds,
}

impl Claim {
    pub(super) fn new(holder: Uuid) -> Self {
        Self { holder, log_ends: LogEnds::default() }
    }
}

impl Store {
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
            || row.claim_epoch < epoch && !planted("claim-of-the-dead-counts")
            || row.claim_until < micros(now)
            || planted("claim-taken-away");
        if row.finish_time.is_some() || !is_free {
            return Ok(None);
        }
        task::Entity::update(task::ActiveModel {
            id: Set(task.get()),
            claim_holder: Set(holder.to_string()),
            claim_epoch: Set(epoch),
            claim_until: Set(until(now, lease)),
            ..Default::default()
        })
        .exec(&change)
        .await?;
        fail_point(|| "claim.written");
        change.commit().await?;
        fail_point(|| "claim.committed");
        Ok(Some(Claim::new(holder)))
    }

    /// Adds to a task's log what `decide` says of the task as it is in this transaction, with all that follows: the rows
    /// derived from the log, and which task holds which hosts. `task` is then as the log says. `None` where nothing was to be
    /// added.
    ///
    /// # Errors
    /// [`StoreError::ClaimLost`] where `claim` is not the one in force; [`StoreError::Held`] where a task that had ended is
    /// to go on, and another one holds a host of it. What `decide` refuses is given back as it is.
    pub(crate) async fn append<E>(
        &self,
        task: &mut Task,
        mut claim: Option<&mut Claim>,
        now: Timestamp,
        decide: impl FnOnce(&Task, &mut Draft) -> std::result::Result<(), E>,
    ) -> Result<std::result::Result<Option<Appended>, E>> {
        let change = self.change().await?;
        let (holder, last) = holder_and_last_event(&change, task.id).await?;
        if last > task.seen {
            catch_up(&change, task).await?;
        }
        if let Some(claim) = &claim
            && holder != claim.holder.to_string()
            && !planted("claim-not-checked")
        {
            return Err(StoreError::ClaimLost);
        }
        let mut draft = Draft::new(task.state.clone(), now);
        if let Err(refusal) = decide(task, &mut draft) {
            return Ok(Err(refusal));
        }
        if draft.is_empty() {
            return Ok(Ok(None));
        }
        // Not kept where this fails: then it is not known what was written.
        let mut log_ends =
            claim.as_mut().map(|claim| std::mem::take(&mut claim.log_ends)).unwrap_or_default();
        let Added { state, seen, appended, logged } =
            add(&change, task, draft, &mut log_ends, self.epoch()).await?;
        let ended = appended.ended;
        fail_point(|| if ended { "append.end.written" } else { "append.written" });
        change.commit().await?;
        fail_point(|| if ended { "append.end.committed" } else { "append.committed" });
        if let Some(claim) = claim {
            claim.log_ends = log_ends;
        }
        self.tell_of_lines(logged);
        (task.state, task.seen) = (state, seen);
        Ok(Ok(Some(appended)))
    }
}

/// What was added to a task's log.
pub(super) struct Added {
    /// How the task stands with it.
    pub(super) state: State,
    /// The last event of the log.
    pub(super) seen: i64,
    pub(super) appended: Appended,
    /// Logs of steps that have new lines.
    pub(super) logged: Vec<SubtaskId>,
}

/// Adds a draft to the log of a task, with all that follows from it.
pub(super) async fn add(
    change: &Change,
    task: &Task,
    draft: Draft,
    log_ends: &mut LogEnds,
    epoch: u64,
) -> Result<Added> {
    let Draft { state, events, mut agent_states, lines, operations, settled, audit, now } = draft;
    let seen = insert_events(change, task, &events, now).await?.unwrap_or(task.seen);
    let (before, after) = match events.is_empty() {
        true => (TaskState::Running, TaskState::Running),
        false => (task.standing(), state.standing(&task.graph)),
    };
    let opened = !before.is_open() && after.is_open();
    let ended = before.is_open() && !after.is_open();
    let has_ended = before != after && !after.is_open();
    let may_end_a_host =
        |event: &Event| matches!(event, Event::Failed { .. } | Event::Succeeded { undo: true, .. });
    if has_ended || events.iter().any(may_end_a_host) {
        agent_states.extend(agent_states_at_end(&task.graph, &task.state, &state, has_ended));
    }
    if opened && !planted("host-not-held-again") {
        hold(change, task.hosts(), task.id).await?;
    }
    if opened || has_ended {
        task::Entity::update(task::ActiveModel {
            id: Set(task.id.get()),
            status: Set(after.status().as_str().into()),
            finish_time: Set((!after.is_open() || planted("reopened-stays-ended")).then_some(micros(now))),
            claim_holder: Set(String::new()),
            ..Default::default()
        })
        .exec(change)
        .await?;
    }
    if ended && !planted("host-not-freed") {
        let own = host_lock::Entity::delete_many().filter(host_lock::Column::TaskId.eq(task.id.get()));
        own.exec(change).await?;
    }
    for (host, state) in &agent_states {
        set_agent_state(change, *host, *state, now).await?;
    }
    for operation in operations {
        operations::insert_once(change, operation, epoch).await?;
    }
    for (operation, outcome) in settled {
        operations::settle(change, operation, outcome, now).await?;
    }
    let logged = insert_lines(change, lines, log_ends).await?;
    if let Some(audit) = audit.filter(|_| !planted("order-not-audited")) {
        audit::append(change, audit, None, None).await?;
    }
    let appended = Appended { opened, ended, agent_states };
    Ok(Added { state, seen, appended, logged })
}

/// Until when a claim holds that is made now.
pub(super) fn until(now: Timestamp, lease: Duration) -> i64 {
    micros(now).saturating_add(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX))
}

/// Who has the claim of a task, and the last event in its log.
async fn holder_and_last_event(change: &DatabaseTransaction, task: TaskId) -> Result<(String, i64)> {
    let last = event::Entity::find()
        .select_only()
        .column_as(event::Column::Id.max(), "last")
        .filter(event::Column::TaskId.eq(task.get()));
    let found: Option<(String, Option<i64>)> = task::Entity::find_by_id(task.get())
        .select_only()
        .column(task::Column::ClaimHolder)
        .expr_as(SimpleExpr::SubQuery(None, Box::new(last.into_query().into())), "last")
        .into_tuple()
        .one(change)
        .await?;
    let (holder, last) = found.ok_or(StoreError::Missing)?;
    Ok((holder, last.unwrap_or_default()))
}

/// Gives the id of the last one.
async fn insert_events(
    change: &DatabaseTransaction,
    task: &Task,
    events: &[Event],
    now: Timestamp,
) -> Result<Option<i64>> {
    let row = |event: &Event| {
        Ok(event::ActiveModel {
            task_id: Set(task.id.get()),
            time: Set(micros(now)),
            event: Set(serde_json::to_string(event).map_err(damaged)?),
            ..Default::default()
        })
    };
    let rows = insert_returning(change, events.iter().map(row).collect::<Result<_>>()?).await?;
    Ok(rows.into_iter().map(|row: event::Model| row.id).max())
}

/// What agents are meant to be doing once their part of a task has ended so without success: what they were before where
/// nothing was ordered, or all is undone; else they can be ordered again. Of a host that failed that is so at once, of the
/// others when the task has ended.
fn agent_states_at_end(
    graph: &Graph,
    before: &State,
    now: &State,
    has_ended: bool,
) -> Vec<(HostId, AgentState)> {
    let at_end = |(lane, host): (usize, &HostId)| {
        let noted = now.before(*host).map(|before| before.agent);
        let stands = now.lane(graph, lane);
        let is_new = before.lane(graph, lane) != stands;
        let state = match stands {
            Lane::Successful | Lane::Skipped => None,
            Lane::Undone | Lane::Failed if !is_new && !has_ended => None,
            Lane::Undone => noted,
            Lane::Failed if now.has_ordered(graph, lane) => Some(AgentState::Available),
            _ if !has_ended => None,
            _ if now.has_ordered(graph, lane) || planted("agent-not-as-it-was") => {
                Some(AgentState::Available)
            }
            _ => noted,
        };
        state.map(|state| (*host, state))
    };
    graph.hosts.iter().enumerate().filter_map(at_end).collect()
}
