//! Changes of what users may: in the audit trail, and in force with the next look.

use crate::{
    access::{Caller, Grant, User},
    app::App,
    error::Error,
    store::{AuditEntry, GrantChange, StoreError},
    users::target,
};

/// Grants that one user may have.
pub(crate) const MOST_GRANTS: usize = 32;

/// Gives a user a role.
pub(crate) async fn give(app: &App, caller: &Caller, name: String, grant: Grant) -> Result<User, Error> {
    change(app, caller, name, GrantChange::Give, grant).await
}

/// Takes a role from a user.
pub(crate) async fn take(app: &App, caller: &Caller, name: String, grant: Grant) -> Result<User, Error> {
    change(app, caller, name, GrantChange::Take, grant).await
}

async fn change(
    app: &App,
    caller: &Caller,
    name: String,
    how: GrantChange,
    grant: Grant,
) -> Result<User, Error> {
    // What is given or taken is said in the place of a reason.
    let audit = AuditEntry::of(caller, caller.rule.action(), target(&name), grant.to_string()).done();
    match app.store.change_grant(&name, how, &grant, MOST_GRANTS, audit.clone()).await {
        Ok(user) => {
            app.verifier.forget(&name);
            Ok(user)
        }
        Err(StoreError::Missing) => Err(app.refused(audit, Error::UserUnknown(name)).await),
        Err(StoreError::LastAdmin) => Err(app.refused(audit, Error::LastAdmin(name)).await),
        Err(StoreError::NoSuchGrant) => {
            let what = format!("the user has no grant `{grant}`; `belay user list` shows those that it has");
            Err(app.refused(audit, Error::invalid("grant", what)).await)
        }
        Err(StoreError::TooManyGrants) => {
            let what = format!("the user has {MOST_GRANTS} grants, and may have no more");
            Err(app.refused(audit, Error::invalid("grant", what)).await)
        }
        Err(error) => Err(error.into()),
    }
}
