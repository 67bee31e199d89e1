//! Keys that requests are signed with, and the signatures that were used.

use belay_proto::UserId;
use jiff::{SignedDuration, Timestamp};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    Set, sea_query::Expr,
};

use super::{
    AuditEntry, Result, Store, StoreError, audit,
    entity::{access_key as keys, used_signature as used, user},
    micros, time, users,
};
use crate::access::User;

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessKey {
    pub(crate) id: String,
    /// The name of its user.
    pub(crate) user: String,
    pub(crate) enabled: bool,
    pub(crate) create_time: Timestamp,
    pub(crate) last_used_time: Option<Timestamp>,
}

/// What a signature is checked with.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) user: User,
    pub(crate) enabled: bool,
    /// The secret, sealed.
    pub(crate) secret: Vec<u8>,
}

/// A signature that is about to be used for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewSignature {
    /// The digest of key and signature.
    pub(crate) digest: String,
    /// The digest of the idempotency key that the order carries; empty without one.
    pub(crate) idempotency_key: String,
    /// From when on it is refused for its age.
    pub(crate) expire: Timestamp,
}

impl Store {
    /// Adds a key to a user.
    ///
    /// # Errors
    /// [`StoreError::Missing`] without such a user, [`StoreError::TooManyAccessKeys`] where it has `most` of them.
    pub(crate) async fn add_access_key(
        &self,
        user: &User,
        id: &str,
        secret: Vec<u8>,
        most: u32,
        audit: AuditEntry,
    ) -> Result<AccessKey> {
        let now = audit.time;
        let change = self.change().await?;
        // It may have been deleted meanwhile.
        user::Entity::find_by_id(user.id.get()).one(&change).await?.ok_or(StoreError::Missing)?;
        let had = keys::Entity::find().filter(keys::Column::UserId.eq(user.id.get())).count(&change).await?;
        if had >= u64::from(most) {
            return Err(StoreError::TooManyAccessKeys);
        }
        let row = keys::ActiveModel {
            id: Set(id.into()),
            user_id: Set(user.id.get()),
            secret: Set(secret),
            enabled: Set(true),
            create_time: Set(micros(now)),
            last_used_time: Set(None),
        };
        let row = row.insert(&change).await?;
        audit::commit(change, audit).await?;
        read(row, &user.name)
    }

    /// The keys of a user, the oldest first.
    pub(crate) async fn access_keys(&self, user: &User) -> Result<Vec<AccessKey>> {
        let rows = keys::Entity::find()
            .filter(keys::Column::UserId.eq(user.id.get()))
            .order_by_asc(keys::Column::CreateTime)
            .order_by_asc(keys::Column::Id)
            .all(&self.read)
            .await?;
        rows.into_iter().map(|row| read(row, &user.name)).collect()
    }

    /// What a signature with this key is checked with.
    pub(crate) async fn sealed_access_key(&self, id: &str) -> Result<Option<Sealed>> {
        let Some(row) = keys::Entity::find_by_id(id).one(&self.read).await? else {
            return Ok(None);
        };
        let Some(user) = user::Entity::find_by_id(row.user_id).one(&self.read).await? else {
            return Ok(None);
        };
        let (user, _) = users::read(user)?;
        Ok(Some(Sealed { user, enabled: row.enabled, secret: row.secret }))
    }

    /// Says whether a key may be used.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) async fn enable_access_key(
        &self,
        owner: &User,
        id: &str,
        enabled: bool,
        audit: AuditEntry,
    ) -> Result<AccessKey> {
        let change = self.change().await?;
        let row = keys::Entity::find_by_id(id).one(&change).await?.ok_or(StoreError::Missing)?;
        keys::Entity::update_many()
            .col_expr(keys::Column::Enabled, Expr::value(enabled))
            .filter(keys::Column::Id.eq(id))
            .exec(&change)
            .await?;
        audit::commit(change, audit).await?;
        read(keys::Model { enabled, ..row }, &owner.name)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) async fn delete_access_key(&self, id: &str, audit: AuditEntry) -> Result<()> {
        let change = self.change().await?;
        if keys::Entity::delete_by_id(id).exec(&change).await?.rows_affected == 0 {
            return Err(StoreError::Missing);
        }
        audit::commit(change, audit).await
    }

    /// Notes when keys were last used.
    pub(crate) async fn save_access_key_use(&self, uses: &[(String, Timestamp)]) -> Result<()> {
        let change = self.change().await?;
        for (id, time) in uses {
            keys::Entity::update_many()
                .col_expr(keys::Column::LastUsedTime, Expr::value(micros(*time)))
                .filter(keys::Column::Id.eq(id))
                .exec(&change)
                .await?;
        }
        Ok(change.commit().await?)
    }

    /// Takes a signature for an order that is about to be carried out. Says no where it was used before; but the same order
    /// may come again under the idempotency key that it came with first, as long as such a key is kept, for then it is
    /// answered and not carried out. The signatures of the past are forgotten meanwhile.
    pub(crate) async fn use_signature(
        &self,
        new: NewSignature,
        now: Timestamp,
        keys_are_kept: SignedDuration,
    ) -> Result<bool> {
        let change = self.change().await?;
        used::Entity::delete_many().filter(used::Column::ExpireTime.lte(micros(now))).exec(&change).await?;
        if let Some(row) = used::Entity::find_by_id(&new.digest).one(&change).await? {
            let same = !new.idempotency_key.is_empty() && row.idempotency_key == new.idempotency_key;
            return Ok(same && now.duration_since(time(row.create_time)?) < keys_are_kept);
        }
        let row = used::ActiveModel {
            digest: Set(new.digest),
            idempotency_key: Set(new.idempotency_key),
            create_time: Set(micros(now)),
            expire_time: Set(micros(new.expire)),
        };
        used::Entity::insert(row).exec_without_returning(&change).await?;
        change.commit().await?;
        Ok(true)
    }
}

/// Deletes the keys of a user who goes.
pub(super) async fn delete_of(change: &DatabaseTransaction, user: UserId) -> Result<()> {
    keys::Entity::delete_many().filter(keys::Column::UserId.eq(user.get())).exec(change).await?;
    Ok(())
}

fn read(row: keys::Model, user: &str) -> Result<AccessKey> {
    Ok(AccessKey {
        id: row.id,
        user: user.to_owned(),
        enabled: row.enabled,
        create_time: time(row.create_time)?,
        last_used_time: row.last_used_time.map(time).transpose()?,
    })
}
