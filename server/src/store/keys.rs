//! Idempotency keys: under which key an order was sent, what it did, and the first answer to it.
//!
//! A key is taken by a commit of its own, before its order is carried out. The commit that makes the order's effect notes
//! that effect at the key, by its audit record. So a key without an answer tells after a crash whether anything was done.

use std::future::Future;

use belay_proto::{HostId, ProcessId, TaskId, UserId, planted};
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Set, sea_query::Expr,
};

use super::{
    Result, Store, StoreError,
    audit::carried as noted,
    entity::{audit, idempotency_key as keys, operation},
    id, micros,
};

tokio::task_local! {
    static KEY: KeyId;
}

/// The record of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyId(i64);

/// Runs an order under its key: the change that it commits is noted there.
pub(crate) fn under_key<F: Future>(key: KeyId, work: F) -> impl Future<Output = F::Output> {
    KEY.scope(key, work)
}

/// Lets work that is about to be spawned go on under the key of whoever spawns it, if any.
pub(crate) fn carried<T>(work: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    let key = KEY.try_get().ok();
    let work = noted(work);
    async move {
        match key {
            Some(key) => under_key(key, work).await,
            None => work.await,
        }
    }
}

/// A key that an order was sent under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewKey {
    pub(crate) user: UserId,
    /// The digest of the key.
    pub(crate) digest: String,
    /// The digest of the request.
    pub(crate) request: String,
    /// When it is forgotten.
    pub(crate) expire: Timestamp,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nothing was done under it: the order is to be carried out.
    First(KeyId),
    /// The first answer.
    Answered(AnswerRow),
    /// It was sent with another request.
    Other,
    /// The order had an effect, and no answer is kept.
    Unanswered(KeyId),
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnswerRow {
    /// The gRPC code.
    pub(crate) code: i32,
    /// The message of a refusal.
    pub(crate) message: String,
    /// The encoded response, or the details of a refusal.
    pub(crate) body: Vec<u8>,
}

/// What became of an order that was sent under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Became {
    /// A task, or an order to one.
    Task(TaskId),
    /// An order to a process that is done.
    Done(HostId, ProcessId),
    /// An order to a process that failed, with its stable reason and a sentence.
    Failed { host: HostId, process: ProcessId, reason: String, message: String },
    /// An order whose outcome is not known, by its target and its trace id.
    Unknown { target: String, trace_id: String },
}

impl Store {
    /// Takes a key for an order that is about to be carried out, or tells what is known of it. An expired key is as good
    /// as a new one.
    ///
    /// # Errors
    /// [`StoreError::TooManyKeys`] where `most` keys of the user are kept.
    pub(crate) async fn take_key(&self, new: NewKey, now: Timestamp, most: u64) -> Result<Taken> {
        let change = self.change().await?;
        let of_user = || match planted("key-of-all-users") {
            false => keys::Entity::find().filter(keys::Column::UserId.eq(new.user.get())),
            true => keys::Entity::find(),
        };
        if let Some(row) = of_user().filter(keys::Column::Digest.eq(&new.digest)).one(&change).await? {
            if row.expire_time > micros(now) || planted("key-never-expires") {
                return known(row, &new.request);
            }
            keys::Entity::delete_by_id(row.id).exec(&change).await?;
        }
        if of_user().filter(keys::Column::ExpireTime.gt(micros(now))).count(&change).await?
            >= most + u64::from(planted("one-key-more"))
        {
            return Err(StoreError::TooManyKeys);
        }
        let row = keys::ActiveModel {
            user_id: Set(new.user.get()),
            digest: Set(new.digest),
            request: Set(new.request),
            expire_time: Set(micros(new.expire)),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        change.commit().await?;
        Ok(Taken::First(KeyId(row.id)))
    }

    /// Keeps the answer to the order of a key.
    pub(crate) async fn keep_answer(&self, key: KeyId, answer: AnswerRow) -> Result<()> {
        let change = self.change().await?;
        keys::Entity::update_many()
            .col_expr(keys::Column::Code, Expr::value(i64::from(answer.code)))
            .col_expr(keys::Column::Message, Expr::value(answer.message))
            .col_expr(keys::Column::Body, Expr::value(answer.body))
            .filter(keys::Column::Id.eq(key.0))
            .exec(&change)
            .await?;
        Ok(change.commit().await?)
    }

    /// Forgets a key whose order had no effect. Says whether that is so.
    pub(crate) async fn free_key(&self, key: KeyId) -> Result<bool> {
        let change = self.change().await?;
        let unused = keys::Entity::delete_by_id(key.0).filter(keys::Column::AuditId.is_null());
        let freed = unused.exec(&change).await?.rows_affected > 0;
        change.commit().await?;
        Ok(freed)
    }

    /// Forgets expired keys, `most` at the most, so that no order waits long. Says how many.
    pub(crate) async fn forget_keys(&self, now: Timestamp, most: u64) -> Result<u64> {
        let expired = keys::Entity::find()
            .select_only()
            .column(keys::Column::Id)
            .filter(keys::Column::ExpireTime.lte(micros(now)))
            .order_by_asc(keys::Column::ExpireTime)
            .limit(most);
        let expired: Vec<i64> = expired.into_tuple().all(&self.read).await?;
        if expired.is_empty() {
            return Ok(0);
        }
        let change = self.change().await?;
        let these = keys::Entity::delete_many().filter(keys::Column::Id.is_in(expired));
        let forgotten = these.exec(&change).await?.rows_affected;
        change.commit().await?;
        Ok(forgotten)
    }

    /// What became of the order of a key. `None` where it had no effect.
    pub(crate) async fn became(&self, key: KeyId) -> Result<Option<Became>> {
        let row = keys::Entity::find_by_id(key.0).one(&self.read).await?;
        let Some(record) = row.and_then(|row| row.audit_id) else {
            return Ok(None);
        };
        let record = audit::Entity::find_by_id(record).one(&self.read).await?.ok_or(StoreError::Missing)?;
        if let Some(task) = record.task_id.or_else(|| task_of(&record.target)) {
            return Ok(Some(Became::Task(id(task)?)));
        }
        let operation = operation::Entity::find_by_id(record.operation_id).one(&self.read).await?;
        let told = operation.and_then(|row| row.process_id.map(|process| (row, process)));
        Ok(Some(match told {
            Some((row, process)) if row.state == "DONE" => Became::Done(id(row.host_id)?, id(process)?),
            Some((row, process)) if row.state == "FAILED" => Became::Failed {
                host: id(row.host_id)?,
                process: id(process)?,
                reason: row.outcome,
                message: row.message,
            },
            _ => Became::Unknown { target: record.target, trace_id: record.trace_id },
        }))
    }
}

fn known(row: keys::Model, request: &str) -> Result<Taken> {
    Ok(match (row.code, row.audit_id) {
        _ if row.request != request && !planted("other-request-answered") => Taken::Other,
        (Some(code), _) => Taken::Answered(AnswerRow {
            code: i32::try_from(code).map_err(|_| StoreError::Damaged(format!("the code {code}")))?,
            message: row.message.unwrap_or_default(),
            body: row.body.unwrap_or_default(),
        }),
        (None, Some(_)) => Taken::Unanswered(KeyId(row.id)),
        (None, None) => Taken::First(KeyId(row.id)),
    })
}

/// The task of a target such as `tasks/7/subtasks/9`.
fn task_of(target: &str) -> Option<i64> {
    target.strip_prefix("tasks/")?.split('/').next()?.parse().ok()
}

/// Notes at the key of the order that runs, if any, what the order did: by the first of its audit records.
pub(super) async fn note_effect(change: &DatabaseTransaction, record: i64) -> Result<()> {
    let Ok(key) = KEY.try_get() else {
        return Ok(());
    };
    if planted("effect-not-noted") {
        return Ok(());
    }
    keys::Entity::update_many()
        .col_expr(keys::Column::AuditId, Expr::value(record))
        .filter(keys::Column::Id.eq(key.0))
        .filter(keys::Column::AuditId.is_null())
        .exec(change)
        .await?;
    Ok(())
}
