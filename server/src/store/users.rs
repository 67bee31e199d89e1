//! Users and their bearer tokens.

use belay_proto::UserId;
use jiff::Timestamp;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    Set,
};

use super::{
    AuditEntry, Result, Store, StoreError, access_keys, audit,
    entity::{token, user},
    id, micros, time, word,
};
use crate::access::{Role, User};

impl Store {
    /// Whether nobody was added yet.
    pub(crate) async fn has_no_user(&self) -> Result<bool> {
        Ok(user::Entity::find().count(&self.read).await? == 0)
    }

    /// Every user, by name.
    pub(crate) async fn users(&self) -> Result<Vec<User>> {
        let rows = user::Entity::find().order_by_asc(user::Column::Name).all(&self.read).await?;
        rows.into_iter().map(|row| Ok(read(row)?.0)).collect()
    }

    /// The user of a name, with the hash of its password.
    pub(crate) async fn user_by_name(&self, name: &str) -> Result<Option<(User, String)>> {
        user::Entity::find().filter(user::Column::Name.eq(name)).one(&self.read).await?.map(read).transpose()
    }

    /// The user of a token that has not ended, and when it ends.
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
        Ok(Some((read(row)?.0, time(token.expire_time)?)))
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`].
    pub(crate) async fn add_user(
        &self,
        name: &str,
        roles: &[Role],
        password_hash: String,
        audit: AuditEntry,
    ) -> Result<User> {
        let now = audit.time;
        let change = self.change().await?;
        if user::Entity::find().filter(user::Column::Name.eq(name)).one(&change).await?.is_some() {
            return Err(StoreError::NameTaken);
        }
        let row = user::ActiveModel {
            name: Set(name.into()),
            password_hash: Set(password_hash),
            roles: Set(roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",")),
            create_time: Set(micros(now)),
            update_time: Set(micros(now)),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        audit::append(&change, audit, None, None).await?;
        change.commit().await?;
        Ok(read(row)?.0)
    }

    /// Deletes a user with its tokens and access keys.
    ///
    /// # Errors
    /// [`StoreError::Missing`] or [`StoreError::LastAdmin`].
    pub(crate) async fn delete_user(&self, name: &str, audit: AuditEntry) -> Result<()> {
        let change = self.change().await?;
        let rows = user::Entity::find().all(&change).await?;
        let users = rows.into_iter().map(|row| Ok(read(row)?.0)).collect::<Result<Vec<_>>>()?;
        let user = users.iter().find(|user| user.name == name).ok_or(StoreError::Missing)?;
        let admins = users.iter().filter(|user| user.roles.contains(&Role::Admin)).count();
        if admins == 1 && user.roles.contains(&Role::Admin) {
            return Err(StoreError::LastAdmin);
        }
        delete_tokens(&change, user.id).await?;
        access_keys::delete_of(&change, user.id).await?;
        user::Entity::delete_by_id(user.id.get()).exec(&change).await?;
        audit::append(&change, audit, None, None).await?;
        Ok(change.commit().await?)
    }

    /// Sets a user's password, and ends its tokens.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub(crate) async fn set_password(
        &self,
        name: &str,
        password_hash: String,
        audit: AuditEntry,
    ) -> Result<()> {
        let now = audit.time;
        let change = self.change().await?;
        let row = user::Entity::find()
            .filter(user::Column::Name.eq(name))
            .one(&change)
            .await?
            .ok_or(StoreError::Missing)?;
        delete_tokens(&change, id(row.id)?).await?;
        user::Entity::update(user::ActiveModel {
            id: Set(row.id),
            password_hash: Set(password_hash),
            update_time: Set(micros(now)),
            ..Default::default()
        })
        .exec(&change)
        .await?;
        audit::append(&change, audit, None, None).await?;
        Ok(change.commit().await?)
    }

    /// Keeps a token's digest.
    pub(crate) async fn add_token(
        &self,
        user: UserId,
        digest: String,
        expire: Timestamp,
        audit: AuditEntry,
    ) -> Result<()> {
        let now = audit.time;
        let change = self.change().await?;
        token::Entity::delete_many().filter(token::Column::ExpireTime.lte(micros(now))).exec(&change).await?;
        let row = token::ActiveModel {
            digest: Set(digest),
            user_id: Set(user.get()),
            expire_time: Set(micros(expire)),
            create_time: Set(micros(now)),
        };
        token::Entity::insert(row).exec_without_returning(&change).await?;
        audit::append(&change, audit, None, None).await?;
        Ok(change.commit().await?)
    }
}

async fn delete_tokens(change: &DatabaseTransaction, user: UserId) -> Result<()> {
    token::Entity::delete_many().filter(token::Column::UserId.eq(user.get())).exec(change).await?;
    Ok(())
}

pub(super) fn read(row: user::Model) -> Result<(User, String)> {
    let user = User {
        id: id(row.id)?,
        name: row.name,
        roles: row.roles.split(',').map(|role| word(role, Role::parse)).collect::<Result<_>>()?,
        create_time: time(row.create_time)?,
        update_time: time(row.update_time)?,
    };
    Ok((user, row.password_hash))
}
