//! Changes of users: checked, in the audit trail, and forgotten by the verifier.

use belay_proto::{Trace, all};

use crate::{
    access::{Caller, Grant, Hasher, Overloaded, Role, User},
    app::App,
    error::Error,
    grants::MOST_GRANTS,
    store::{AuditEntry, Store, StoreError},
};

/// The name of the first user.
pub(crate) const FIRST_USER: &str = "admin";

const LONGEST_NAME: usize = 64;
const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=256;

/// Adds the first user to a new database, with every right.
pub(crate) async fn create_first(store: &Store, hasher: &Hasher, password: String) -> Result<(), Error> {
    let trace = Trace::from_random(uuid::Uuid::new_v4().into_bytes());
    let audit =
        AuditEntry::new(FIRST_USER.into(), "CreateUser", target(FIRST_USER), String::new(), trace).done();
    let hash = hash(hasher, password).await?;
    store.add_user(FIRST_USER, &[Grant::everywhere(Role::Admin)], hash, audit).await?;
    Ok(())
}

/// Adds a user.
pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    name: String,
    given: Vec<Grant>,
    password: String,
) -> Result<User, Error> {
    let some_role = match given.len() {
        0 => Err(Error::invalid("roles", "there is none; give at least one")),
        1..=MOST_GRANTS => Ok(()),
        more => Err(Error::invalid("grants", format!("there are {more}, and a user may have {MOST_GRANTS}"))),
    };
    all((check_name(&name), check_password(&password), some_role))?;
    let audit = entry(caller, "CreateUser", &name);
    let hash = hash(&app.verifier.hasher, password).await?;
    match app.store.add_user(&name, &given, hash, audit.clone()).await {
        Ok(user) => Ok(user),
        Err(StoreError::NameTaken) => Err(app.refused(audit, Error::UserExists(name)).await),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a user.
pub(crate) async fn delete(app: &App, caller: &Caller, name: String) -> Result<(), Error> {
    let audit = entry(caller, "DeleteUser", &name);
    match app.store.delete_user(&name, audit.clone()).await {
        Ok(()) => {
            app.verifier.forget(&name);
            Ok(())
        }
        Err(StoreError::Missing) => Err(app.refused(audit, Error::UserUnknown(name)).await),
        Err(StoreError::LastAdmin) => Err(app.refused(audit, Error::LastAdmin(name)).await),
        Err(error) => Err(error.into()),
    }
}

/// Sets the caller's own password, or as ADMIN anyone's.
pub(crate) async fn set_password(
    app: &App,
    caller: &Caller,
    name: String,
    password: String,
) -> Result<(), Error> {
    let audit = entry(caller, "SetPassword", &name);
    if name != caller.user.name && !caller.user.rights.is_admin() {
        let denied = caller.lacks("the role ADMIN to set another user's password".to_owned());
        return Err(app.refused(audit.denied(), denied).await);
    }
    check_password(&password)?;
    let hash = hash(&app.verifier.hasher, password).await?;
    match app.store.set_password(&name, hash, audit.clone()).await {
        Ok(()) => {
            app.verifier.forget(&name);
            Ok(())
        }
        Err(StoreError::Missing) => Err(app.refused(audit, Error::UserUnknown(name)).await),
        Err(error) => Err(error.into()),
    }
}

fn entry(caller: &Caller, action: &'static str, name: &str) -> AuditEntry {
    AuditEntry::of(caller, action, target(name), String::new()).done()
}

/// How the audit trail names a user, of whom nothing is known but how somebody calls them.
pub(crate) fn target(name: &str) -> String {
    format!("users/{}", name.escape_default().take(LONGEST_NAME).collect::<String>())
}

fn check_name(name: &str) -> Result<(), Error> {
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric());
    if first
        && name.len() <= LONGEST_NAME
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
    {
        return Ok(());
    }
    Err(Error::invalid(
        "name",
        format!("it must be 1 to {LONGEST_NAME} of a-z A-Z 0-9 . _ -, a letter or digit first"),
    ))
}

fn check_password(password: &str) -> Result<(), Error> {
    match PASSWORD_BYTES.contains(&password.len()) {
        true => Ok(()),
        false => {
            let what = format!("it must have {} to {} bytes", PASSWORD_BYTES.start(), PASSWORD_BYTES.end());
            Err(Error::invalid("password", what))
        }
    }
}

async fn hash(hasher: &Hasher, password: String) -> Result<String, Error> {
    let hashed = hasher.hash(password).await.map_err(|Overloaded| Error::Overloaded)?;
    hashed.ok_or_else(|| Error::Internal("a password could not be hashed".into()))
}
