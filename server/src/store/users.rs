//! Users, and what they may.

use belay_proto::planted;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseTransaction, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    Set,
};

use super::{
    AuditEntry, Result, Store, StoreError, access_keys, audit, entity::user, grants, id, micros, time,
    tokens, word,
};
use crate::access::{Grant, Rights, Role, Scope, User};

/// How a grant changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrantChange {
    Give,
    Take,
}

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

    /// Adds a user.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`].
    pub(crate) async fn add_user(
        &self,
        name: &str,
        given: &[Grant],
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
            roles: Set(roles(given)),
            grants: Set(scoped(given)?),
            create_time: Set(micros(now)),
            update_time: Set(micros(now)),
            ..Default::default()
        };
        let row = row.insert(&change).await?;
        audit::commit(change, audit).await?;
        Ok(read(row)?.0)
    }

    /// Deletes a user with its tokens and access keys.
    ///
    /// # Errors
    /// [`StoreError::Missing`] or [`StoreError::LastAdmin`].
    pub(crate) async fn delete_user(&self, name: &str, audit: AuditEntry) -> Result<()> {
        let change = self.change().await?;
        let row = user::Entity::find().filter(user::Column::Name.eq(name)).one(&change).await?;
        let (user, _) = read(row.ok_or(StoreError::Missing)?)?;
        tokens::delete_of(&change, user.id).await?;
        access_keys::delete_of(&change, user.id).await?;
        user::Entity::delete_by_id(user.id.get()).exec(&change).await?;
        if user.rights.is_admin() {
            check_admin(&change).await?;
        }
        audit::commit(change, audit).await
    }

    /// Gives a user a grant, or takes one, and answers with the user as it is then. What it has already it keeps.
    ///
    /// # Errors
    /// [`StoreError::Missing`] without such a user; [`StoreError::NoSuchGrant`] where it has not what is taken, and
    /// [`StoreError::LastAdmin`] where nobody would be one any more; [`StoreError::TooManyGrants`].
    pub(crate) async fn change_grant(
        &self,
        name: &str,
        how: GrantChange,
        grant: &Grant,
        most: usize,
        audit: AuditEntry,
    ) -> Result<User> {
        let now = audit.time;
        let change = self.change().await?;
        let row = user::Entity::find().filter(user::Column::Name.eq(name)).one(&change).await?;
        let (mut user, _) = read(row.ok_or(StoreError::Missing)?)?;
        let was_admin = user.rights.is_admin();
        let own = &mut user.rights.own;
        match how {
            GrantChange::Give if own.contains(grant) => {}
            GrantChange::Give if own.len() >= most => return Err(StoreError::TooManyGrants),
            GrantChange::Give => own.push(grant.clone()),
            GrantChange::Take if own.contains(grant) => own.retain(|other| other != grant),
            GrantChange::Take => return Err(StoreError::NoSuchGrant),
        }
        user.update_time = now;
        user::Entity::update(user::ActiveModel {
            id: Set(user.id.get()),
            roles: Set(roles(&user.rights.own)),
            grants: Set(scoped(&user.rights.own)?),
            update_time: Set(micros(now)),
            ..Default::default()
        })
        .exec(&change)
        .await?;
        if was_admin {
            check_admin(&change).await?;
        }
        audit::commit(change, audit).await?;
        Ok(user)
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
        tokens::delete_of(&change, id(row.id)?).await?;
        user::Entity::update(user::ActiveModel {
            id: Set(row.id),
            password_hash: Set(password_hash),
            update_time: Set(micros(now)),
            ..Default::default()
        })
        .exec(&change)
        .await?;
        audit::commit(change, audit).await
    }
}

/// Somebody stays who may everything. Changes come one after the other, so that of two that each leave one, one is refused.
async fn check_admin(change: &DatabaseTransaction) -> Result<()> {
    for row in user::Entity::find().all(change).await? {
        if read(row)?.0.rights.is_admin() {
            return Ok(());
        }
    }
    if planted("last-admin-goes") {
        return Ok(());
    }
    Err(StoreError::LastAdmin)
}

/// The roles on every host.
fn roles(given: &[Grant]) -> String {
    let everywhere = given.iter().filter(|grant| grant.scope == Scope::Everywhere);
    everywhere.map(|grant| grant.role.as_str()).collect::<Vec<_>>().join(",")
}

/// The roles on some hosts.
fn scoped(given: &[Grant]) -> Result<Option<String>> {
    let some: Vec<_> = given.iter().filter(|grant| grant.scope != Scope::Everywhere).cloned().collect();
    if some.is_empty() { Ok(None) } else { grants::write(&some).map(Some) }
}

pub(super) fn read(row: user::Model) -> Result<(User, String)> {
    let roles = row.roles.split(',').filter(|role| !role.is_empty());
    let mut own =
        roles.map(|role| word(role, Role::parse).map(Grant::everywhere)).collect::<Result<Vec<_>>>()?;
    if let Some(some) = &row.grants {
        own.extend(grants::read(some)?);
    }
    let user = User {
        id: id(row.id)?,
        name: row.name,
        rights: Rights::of(own),
        create_time: time(row.create_time)?,
        update_time: time(row.update_time)?,
    };
    Ok((user, row.password_hash))
}
