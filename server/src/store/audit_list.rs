//! Reading the audit trail, a page at a time. However few records a filter lets through, a page costs a bounded time: then it
//! is short, and tells where to go on.

use std::cmp::{max, min};

use jiff::Timestamp;
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, ExprTrait, Order, QueryFilter, QueryOrder, QuerySelect,
    TransactionTrait, sea_query::Expr,
};

use super::{
    Result, Store,
    audit::{ALLOW, DENY},
    chain::hex,
    entity::{audit, operation, task},
    micros, time,
};

/// Records that are looked at for one page where a filter leaves some out.
const LOOKED_AT: i64 = 50_000;

/// How an order ended, as `outcome_of` tells it.
const OUTCOME: &str = "COALESCE(audit.settled, \
    (SELECT o.outcome FROM operations o WHERE audit.operation_id <> '' AND o.id = audit.operation_id), \
    (SELECT CASE WHEN t.finish_time IS NULL THEN '' ELSE t.status END FROM tasks t WHERE t.id = audit.task_id), \
    audit.outcome) = ?";

/// Which records are meant. What is not said lets all through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditFilter {
    pub(crate) principal: Option<String>,
    pub(crate) action: Option<String>,
    /// A target, or all that is below it: `hosts/20` is also `hosts/20/agent`.
    pub(crate) target: Option<String>,
    pub(crate) allowed: Option<bool>,
    pub(crate) outcome: Option<String>,
    pub(crate) trace_id: Option<String>,
    /// From this time on.
    pub(crate) from: Option<Timestamp>,
    /// Before this time.
    pub(crate) until: Option<Timestamp>,
}

/// Which part of the trail is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditStretch {
    pub(crate) filter: AuditFilter,
    pub(crate) oldest_first: bool,
    /// The record after which it begins, in that order; `None` from the beginning.
    pub(crate) after: Option<i64>,
    pub(crate) size: u64,
}

/// A part of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditPage {
    pub(crate) records: Vec<AuditRow>,
    /// After which record the next page begins; `None` where there is none.
    pub(crate) next: Option<i64>,
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
    /// In hex digits.
    pub(crate) mac: String,
}

impl AuditFilter {
    fn condition(&self) -> Condition {
        let Self { principal, action, target, allowed, outcome, trace_id, from, until } = self;
        let target = target.as_ref().map(|target| {
            let column = audit::Column::Target;
            // What begins with `target/`: `0` comes right after `/`.
            let below = column.gte(format!("{target}/")).and(column.lt(format!("{target}0")));
            column.eq(target).or(below)
        });
        Condition::all()
            .add_option(principal.as_ref().map(|text| audit::Column::Principal.eq(text)))
            .add_option(action.as_ref().map(|text| audit::Column::Action.eq(text)))
            .add_option(target)
            .add_option(allowed.map(|allowed| audit::Column::Decision.eq(if allowed { ALLOW } else { DENY })))
            .add_option(outcome.as_ref().map(|text| Expr::cust_with_values(OUTCOME, [text.clone()])))
            .add_option(trace_id.as_ref().map(|text| audit::Column::TraceId.eq(text)))
            .add_option(from.map(|from| audit::Column::Time.gte(micros(from))))
            .add_option(until.map(|until| audit::Column::Time.lt(micros(until))))
    }
}

impl Store {
    /// A page of the trail.
    pub(crate) async fn audit_page(&self, stretch: &AuditStretch) -> Result<AuditPage> {
        let AuditStretch { filter, oldest_first, after, size } = stretch;
        // Hazard D27: what is read together is of one moment.
        let moment = self.read.begin().await?;
        let ends: Option<(Option<i64>, Option<i64>)> = audit::Entity::find()
            .select_only()
            .column_as(audit::Column::Id.min(), "first")
            .column_as(audit::Column::Id.max(), "last")
            .into_tuple()
            .one(&moment)
            .await?;
        let Some((Some(first), Some(last))) = ends else {
            return Ok(AuditPage { records: Vec::new(), next: None });
        };
        // Both ends of what is looked at, themselves included.
        let (low, high) = match (oldest_first, after) {
            (true, after) => {
                let low = after.map_or(first, |after| max(after.saturating_add(1), first));
                (low, min(low.saturating_add(LOOKED_AT - 1), last))
            }
            (false, after) => {
                let high = after.map_or(last, |after| min(after.saturating_sub(1), last));
                (max(high.saturating_sub(LOOKED_AT - 1), first), high)
            }
        };
        let order = if *oldest_first { Order::Asc } else { Order::Desc };
        let rows = audit::Entity::find()
            .filter(audit::Column::Id.gte(low))
            .filter(audit::Column::Id.lte(high))
            .filter(filter.condition())
            .order_by(audit::Column::Id, order)
            .limit(*size)
            .all(&moment)
            .await?;
        let full = rows.len() as u64 == *size;
        let seen = match (rows.last(), full, oldest_first) {
            (Some(row), true, _) => row.id,
            (_, _, true) => high,
            (_, _, false) => low,
        };
        let more = if *oldest_first { seen < last } else { seen > first };
        let records = shown(&moment, rows).await?;
        moment.commit().await?;
        Ok(AuditPage { records, next: more.then_some(seen) })
    }

    /// Records below an id, newest first.
    #[cfg(test)]
    pub(crate) async fn audit_records(&self, before: Option<i64>, size: u64) -> Result<Vec<AuditRow>> {
        let filter = AuditFilter::default();
        let stretch = AuditStretch { filter, oldest_first: false, after: before, size };
        Ok(self.audit_page(&stretch).await?.records)
    }
}

/// Records as they are shown. The outcome of an order is read from its operation or task, until these are forgotten.
async fn shown(db: &impl sea_orm::ConnectionTrait, rows: Vec<audit::Model>) -> Result<Vec<AuditRow>> {
    let operations: Vec<_> =
        rows.iter().map(|row| &row.operation_id).filter(|id| !id.is_empty()).cloned().collect();
    let operations =
        operation::Entity::find().filter(operation::Column::Id.is_in(operations)).all(db).await?;
    let tasks: Vec<_> = rows.iter().filter_map(|row| row.task_id).collect();
    let tasks = task::Entity::find().filter(task::Column::Id.is_in(tasks)).all(db).await?;
    let outcome_of = |row: &audit::Model| {
        let operation = operations.iter().find(|operation| operation.id == row.operation_id);
        let task = tasks.iter().find(|task| Some(task.id) == row.task_id);
        match (&row.settled, operation, task) {
            (Some(settled), _, _) => settled.clone(),
            (None, Some(operation), _) => operation.outcome.clone(),
            (None, None, Some(task)) if task.finish_time.is_some() => task.status.clone(),
            (None, None, Some(_)) => String::new(),
            (None, None, None) => row.outcome.clone(),
        }
    };
    rows.into_iter()
        .map(|row| {
            Ok(AuditRow {
                outcome: outcome_of(&row),
                id: row.id,
                time: time(row.time)?,
                principal: row.principal,
                action: row.action,
                target: row.target,
                reason: row.reason,
                allowed: row.decision == ALLOW,
                trace_id: row.trace_id,
                operation_id: row.operation_id,
                mac: hex(&row.mac.unwrap_or_default()),
            })
        })
        .collect()
}
