//! Changes of the keys that requests are signed with: one's own, or as ADMIN anyone's. Whose key it is that somebody else
//! names is not told, nor whether there is one.

use secrecy::SecretString;

use crate::{
    access::{Caller, User},
    app::App,
    error::Error,
    store::{AccessKey, AuditEntry, StoreError},
};

/// Bytes of an id and of a secret; each is shown as twice as many hexadecimal digits.
const ID: usize = 8;
const SECRET: usize = 16;
/// Characters of what a caller names, in the audit trail.
const LONGEST_TARGET: usize = 128;

/// Makes a key, and gives it with its secret.
pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    user: String,
) -> Result<(AccessKey, SecretString), Error> {
    let name = if user.is_empty() { caller.user.name.clone() } else { user };
    let audit = entry(caller, "CreateAccessKey", &format!("users/{name}/accessKeys"));
    let user = match whose(app, caller, &name).await? {
        Whose::Mine(user) => user,
        Whose::Foreign => return Err(app.refused(audit.denied(), foreign(caller)).await),
        Whose::Nobodys => return Err(app.refused(audit, Error::UserUnknown(name)).await),
    };
    let id = hex(&random::<ID>()?);
    let secret = SecretString::from(hex(&random::<SECRET>()?));
    let sealed = app.verifier.vault.seal(&id, user.id.get(), &secret);
    let sealed = sealed.map_err(|error| Error::Internal(error.to_string()))?;
    let made = AuditEntry { target: format!("{}/{id}", audit.target), ..audit.clone() };
    let most = app.max_access_keys;
    match app.store.add_access_key(&user, &id, sealed, most, made).await {
        Ok(key) => Ok((key, secret)),
        Err(StoreError::Missing) => Err(app.refused(audit, Error::UserUnknown(name)).await),
        Err(StoreError::TooManyAccessKeys) => {
            Err(app.refused(audit, Error::TooManyAccessKeys { user: name, most }).await)
        }
        Err(error) => Err(error.into()),
    }
}

/// The keys of a user.
pub(crate) async fn list(app: &App, caller: &Caller, user: String) -> Result<Vec<AccessKey>, Error> {
    let name = if user.is_empty() { caller.user.name.clone() } else { user };
    app.verifier.save_uses().await;
    match whose(app, caller, &name).await? {
        Whose::Mine(user) => Ok(app.store.access_keys(&user).await?),
        Whose::Foreign => Err(foreign(caller)),
        Whose::Nobodys => Err(Error::UserUnknown(name)),
    }
}

/// Says whether a key may be used.
pub(crate) async fn enable(
    app: &App,
    caller: &Caller,
    id: String,
    enabled: bool,
) -> Result<AccessKey, Error> {
    let action = if enabled { "EnableAccessKey" } else { "DisableAccessKey" };
    let (owner, audit) = owner(app, caller, action, &id).await?;
    match app.store.enable_access_key(&owner, &id, enabled, audit.clone()).await {
        Ok(key) => Ok(key),
        Err(StoreError::Missing) => Err(app.refused(audit, Error::AccessKeyUnknown(id)).await),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a key.
pub(crate) async fn delete(app: &App, caller: &Caller, id: String) -> Result<(), Error> {
    let (_, audit) = owner(app, caller, "DeleteAccessKey", &id).await?;
    match app.store.delete_access_key(&id, audit.clone()).await {
        Ok(()) => Ok(()),
        Err(StoreError::Missing) => Err(app.refused(audit, Error::AccessKeyUnknown(id)).await),
        Err(error) => Err(error.into()),
    }
}

/// Whose keys a caller means.
enum Whose {
    /// Its own, or those of another user where it may.
    Mine(User),
    /// Those of another user, or of nobody, where it may not.
    Foreign,
    /// There is no such user.
    Nobodys,
}

async fn whose(app: &App, caller: &Caller, name: &str) -> Result<Whose, Error> {
    if name == caller.user.name {
        return Ok(Whose::Mine(caller.user.clone()));
    }
    if !caller.user.rights.is_admin() {
        return Ok(Whose::Foreign);
    }
    let found = app.store.user_by_name(name).await?;
    Ok(found.map_or(Whose::Nobodys, |(user, _)| Whose::Mine(user)))
}

/// The user of a key that the caller may change. Another user's is as unknown as one that there is not.
async fn owner(
    app: &App,
    caller: &Caller,
    action: &'static str,
    id: &str,
) -> Result<(User, AuditEntry), Error> {
    let found = app.store.sealed_access_key(id).await?.map(|key| key.user);
    let audit = |name: &str| entry(caller, action, &format!("users/{name}/accessKeys/{id}"));
    match found {
        Some(user) if user.id == caller.user.id || caller.user.rights.is_admin() => {
            let audit = audit(&user.name);
            Ok((user, audit))
        }
        Some(user) => Err(app.refused(audit(&user.name).denied(), Error::AccessKeyUnknown(shown(id))).await),
        None => Err(app.refused(audit(&caller.user.name), Error::AccessKeyUnknown(shown(id))).await),
    }
}

fn foreign(caller: &Caller) -> Error {
    caller.lacks("the role ADMIN for another user's access keys".to_owned())
}

fn entry(caller: &Caller, action: &'static str, target: &str) -> AuditEntry {
    AuditEntry::of(caller, action, shown(target), String::new()).done()
}

/// What a caller sent, short and without what could not be printed.
fn shown(text: &str) -> String {
    text.escape_default().take(LONGEST_TARGET).collect()
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
