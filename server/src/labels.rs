//! The labels of hosts: what an agent says of its host, and over that what operators say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use belay_proto::{HostId, check_labels, planted};
use tracing::info;

use crate::{
    access::Caller,
    app::App,
    error::Error,
    fleet::HostView,
    host::{self, Host},
    reference::RESERVED,
    store::{AuditEntry, HostChange},
};

/// Labels by key.
pub(crate) type Labels = BTreeMap<String, String>;

/// Which labels of a host to set and to remove, and why. No key is in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelOrder {
    pub(crate) set: Labels,
    pub(crate) remove: BTreeSet<String>,
    pub(crate) reason: String,
}

/// What a host is selected by: what its agent says, over that what operators set, and where it stands, which nobody else
/// says.
pub(crate) fn effective(host: &Host) -> Labels {
    let mut labels = host.facts.labels.clone();
    labels.extend(host.operator_labels.clone());
    labels.retain(|key, _| !key.starts_with(RESERVED));
    labels.extend(host.place.labels());
    labels
}

/// Sets and removes labels of a host, and answers with the host as it is then.
pub(crate) async fn update_labels(
    app: &Arc<App>,
    caller: &Caller,
    id: HostId,
    order: LabelOrder,
) -> Result<HostView, Error> {
    let LabelOrder { set, remove, reason } = order;
    let audit = AuditEntry::of(caller, "UpdateHostLabels", host::target(id), reason).done();
    // Held until memory has what the database has: what is changed is what the order before this one left.
    let _turn = app.fleet.turn_of_operators().await;
    let mut labels = app.or_refused(&audit, app.fleet.host(id)).await?.host.operator_labels;
    if let Some(key) = set.keys().find(|key| key.starts_with(RESERVED)) {
        let what = format!("`{key}` says where the host stands: set that with `belay host set`");
        return Err(app.refused(audit, Error::invalid("set", what)).await);
    }
    let own = check_own_scope(app, caller, |key| set.contains_key(key) || remove.contains(key)).await;
    app.or_refused(&audit.clone().denied(), own).await?;
    labels.retain(|key, _| !remove.contains(key));
    labels.extend(set);
    if let Err(fault) = check_labels(labels.iter().map(|(key, value)| (&key[..], &value[..]))) {
        return Err(app.refused(audit, Error::invalid("set", fault)).await);
    }
    let now = audit.time;
    app.store.change_host(id, HostChange::Labels(labels.clone()), audit).await?;
    info!(host = %id, labels = labels.len(), "Labels of a host were set.");
    app.fleet.set_operator_labels(id, labels, now);
    app.fleet.host(id)
}

/// Whoever has a role on some hosts does not say which hosts those are: labels that a scope depends on, of whomever, are
/// changed with a role on every host alone. `changes` says whether a label is.
///
/// # Errors
/// [`Error::Denied`].
pub(crate) async fn check_own_scope(
    app: &App,
    caller: &Caller,
    changes: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    if caller.reach.is_whole() || planted("own-scope-set") {
        return Ok(());
    }
    let depended = app.store.keys_of_scopes().await?;
    match depended.iter().find(|key| changes(key)) {
        None => Ok(()),
        Some(key) => {
            Err(caller.lacks(format!("a role on every host: scopes of roles depend on the label `{key}`")))
        }
    }
}
