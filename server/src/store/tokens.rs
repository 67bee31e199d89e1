//! Bearer tokens, by digest: what is shown of one is never enough to use it.

use belay_proto::UserId;
use jiff::Timestamp;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, Set,
    sea_query::Expr,
};

use super::{
    AuditEntry, Result, Store, StoreError, audit,
    entity::{token, user},
    grants, micros, time, users,
};
use crate::access::{Grant, User};

/// Digits of a digest that name a token. No two tokens of a fleet have them in common.
pub(crate) const TOKEN_ID: usize = 16;

/// A token, without what is secret of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The first digits of its digest.
    pub(crate) id: String,
    /// The name of its user.
    pub(crate) user: String,
    /// What it is for.
    pub(crate) name: String,
    /// What it may at the most, where it may less than its user.
    pub(crate) narrowed: Option<Vec<Grant>>,
    pub(crate) create_time: Timestamp,
    pub(crate) expire_time: Timestamp,
    pub(crate) last_used_time: Option<Timestamp>,
}

/// A token to keep.
#[derive(Debug, Clone)]
pub(crate) struct NewToken {
    pub(crate) digest: String,
    pub(crate) name: String,
    pub(crate) narrowed: Option<Vec<Grant>>,
    pub(crate) expire: Timestamp,
}

impl Store {
    /// The user of a token that has not ended, with the rights of the token, and when it ends.
    pub(crate) async fn user_by_token(
        &self,
        digest: &str,
        now: Timestamp,
    ) -> Result<Option<(User, Timestamp)>> {
        let Some(token) = token::Entity::find_by_id(digest).one(&self.read).await? else {
            return Ok(None);
        };
        if token.expire_time <= micros(now) {
            return Ok(None);
        }
        let Some(row) = user::Entity::find_by_id(token.user_id).one(&self.read).await? else {
            return Ok(None);
        };
        let (mut user, _) = users::read(row)?;
        user.rights.narrowed = token.grants.as_deref().map(grants::read).transpose()?;
        Ok(Some((user, time(token.expire_time)?)))
    }

    /// Keeps a token's digest.
    ///
    /// # Errors
    /// [`StoreError::Missing`] without such a user, [`StoreError::TooManyTokens`] where it has `most` of them.
    pub(crate) async fn add_token(
        &self,
        user: UserId,
        new: NewToken,
        most: u64,
        audit: AuditEntry,
    ) -> Result<()> {
        let now = audit.time;
        let change = self.change().await?;
        token::Entity::delete_many().filter(token::Column::ExpireTime.lte(micros(now))).exec(&change).await?;
        // It may have been deleted meanwhile.
        user::Entity::find_by_id(user.get()).one(&change).await?.ok_or(StoreError::Missing)?;
        let had = token::Entity::find().filter(token::Column::UserId.eq(user.get())).count(&change).await?;
        if had >= most {
            return Err(StoreError::TooManyTokens);
        }
        let row = token::ActiveModel {
            digest: Set(new.digest),
            user_id: Set(user.get()),
            expire_time: Set(micros(new.expire)),
            create_time: Set(micros(now)),
            name: Set(new.name),
            grants: Set(new.narrowed.as_deref().map(grants::write).transpose()?),
            last_used_time: Set(None),
        };
        token::Entity::insert(row).exec_without_returning(&change).await?;
        audit::commit(change, audit).await
    }

    /// The tokens of a user that have not ended, the oldest first.
    pub(crate) async fn tokens(&self, user: &User, now: Timestamp) -> Result<Vec<Token>> {
        let rows = token::Entity::find()
            .filter(token::Column::UserId.eq(user.id.get()))
            .filter(token::Column::ExpireTime.gt(micros(now)))
            .order_by_asc(token::Column::CreateTime)
            .order_by_asc(token::Column::Digest)
            .all(&self.read)
            .await?;
        rows.into_iter().map(|row| read(row, &user.name)).collect()
    }

    /// The user of the token with this id.
    pub(crate) async fn user_of_token(&self, id: &str) -> Result<Option<User>> {
        let Some(row) = named(id).one(&self.read).await? else {
            return Ok(None);
        };
        let user = user::Entity::find_by_id(row.user_id).one(&self.read).await?;
        Ok(user.map(users::read).transpose()?.map(|(user, _)| user))
    }

    /// Ends a token.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) async fn delete_token(&self, id: &str, audit: AuditEntry) -> Result<()> {
        let change = self.change().await?;
        let row = named(id).one(&change).await?.ok_or(StoreError::Missing)?;
        token::Entity::delete_by_id(row.digest).exec(&change).await?;
        audit::commit(change, audit).await
    }

    /// Notes when tokens, by digest, were last used.
    pub(crate) async fn save_token_use(&self, uses: &[(String, Timestamp)]) -> Result<()> {
        let change = self.change().await?;
        for (digest, time) in uses {
            token::Entity::update_many()
                .col_expr(token::Column::LastUsedTime, Expr::value(micros(*time)))
                .filter(token::Column::Digest.eq(digest))
                .exec(&change)
                .await?;
        }
        Ok(change.commit().await?)
    }
}

/// The token with an id, which has to be checked: no part of it is a pattern.
fn named(id: &str) -> sea_orm::Select<token::Entity> {
    token::Entity::find().filter(token::Column::Digest.starts_with(id))
}

/// Ends every token of a user.
pub(super) async fn delete_of(change: &DatabaseTransaction, user: UserId) -> Result<()> {
    token::Entity::delete_many().filter(token::Column::UserId.eq(user.get())).exec(change).await?;
    Ok(())
}

fn read(row: token::Model, user: &str) -> Result<Token> {
    Ok(Token {
        id: row.digest.chars().take(TOKEN_ID).collect(),
        user: user.to_owned(),
        name: row.name,
        narrowed: row.grants.as_deref().map(grants::read).transpose()?,
        create_time: time(row.create_time)?,
        expire_time: time(row.expire_time)?,
        last_used_time: row.last_used_time.map(time).transpose()?,
    })
}
