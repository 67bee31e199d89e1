//! What operators say that a host is: where it stands, of which type it is, what it is called.

use std::sync::Arc;

use belay_proto::{HostId, HostTypeId, IdcId, Problem};
use tracing::info;

use crate::{
    access::Caller,
    app::App,
    error::Error,
    fleet::HostView,
    host::{self, Profile},
    labels::check_own_scope,
    reference::{RESERVED, host_type_unknown, idc_unknown},
    store::{AuditEntry, ProfileChange, StoreError},
};

/// What is said of a host. What is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProfileOrder {
    /// `Some(None)` takes it out of its data centre.
    pub(crate) idc: Option<Option<IdcId>>,
    /// `Some(None)` leaves it without a type.
    pub(crate) host_type: Option<Option<HostTypeId>>,
    pub(crate) alias: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) reason: String,
}

/// Sets what is said of a host, and answers with the host as it is then.
pub(crate) async fn update_profile(
    app: &Arc<App>,
    caller: &Caller,
    id: HostId,
    order: ProfileOrder,
) -> Result<HostView, Error> {
    let ProfileOrder { idc, host_type, alias, description, reason } = order;
    let audit = AuditEntry::of(caller, "UpdateHostProfile", host::target(id), reason).done();
    // Held until memory has what the database has: what is changed is what the order before this one left.
    let _turn = app.fleet.turn_of_operators().await;
    let before = app.or_refused(&audit, app.fleet.host(id)).await?.host;
    // Where a host stands and what it is are labels too.
    let moves = idc.is_some() || host_type.is_some();
    let own = check_own_scope(app, caller, |key| moves && key.starts_with(RESERVED)).await;
    app.or_refused(&audit.clone().denied(), own).await?;
    let said = Profile::clone(&before.profile);
    let profile = Profile {
        alias: alias.unwrap_or(said.alias),
        description: description.unwrap_or(said.description),
        ..said
    };
    let change = ProfileChange {
        idc: idc.unwrap_or_else(|| before.place.idc.as_ref().map(|idc| idc.id)),
        host_type: host_type.unwrap_or_else(|| before.place.host_type.as_ref().map(|of| of.id)),
        profile: profile.clone(),
    };
    let now = audit.time;
    let place = match app.store.set_profile(id, change, audit.clone()).await {
        Ok(place) => place,
        Err(StoreError::Missing) => return Err(app.refused(audit, Error::HostUnknown(id)).await),
        Err(error) => match no_place(&error) {
            Some(problem) => return Err(app.refused(audit, Error::Refused(problem)).await),
            None => return Err(Error::Store(error)),
        },
    };
    info!(host = %id, "What a host is was set.");
    app.fleet.set_profile(id, place, profile, now);
    app.fleet.host(id)
}

/// What is said where a host would point to nothing. `None` where something else is wrong.
pub(crate) fn no_place(error: &StoreError) -> Option<Problem> {
    let (unknown, field) = match error {
        StoreError::NoIdc(idc) => (idc_unknown(*idc), "idc_id"),
        StoreError::NoHostType(host_type) => (host_type_unknown(*host_type), "type_id"),
        _ => return None,
    };
    let problem = Problem::from(&unknown);
    let what = problem.message.clone();
    Some(problem.field(field, what))
}
