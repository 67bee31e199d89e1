//! The maintenance of a host: while it lasts, the host is left out of orders to many hosts. Orders that name it alone work
//! as ever: who maintains a host stops and starts what runs there.

use std::{sync::Arc, time::Duration};

use belay_proto::HostId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    access::Caller,
    app::App,
    error::Error,
    fleet::HostView,
    host,
    store::{AuditEntry, HostChange},
};

/// Maintenance that was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maintenance {
    /// The name of the user who ordered it last.
    pub(crate) operator: String,
    pub(crate) reason: String,
    pub(crate) since: Timestamp,
    /// When it ends by itself.
    pub(crate) until: Option<Timestamp>,
}

impl Maintenance {
    /// Whether it is in force at a time.
    pub(crate) fn is_in_force(&self, at: Timestamp) -> bool {
        self.until.is_none_or(|until| at < until)
    }
}

/// What is ordered of the maintenance of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MaintenanceOrder {
    /// It begins, or goes on with another reason and end.
    Begin { reason: String, duration: Option<Duration> },
    /// It ends.
    End { reason: String },
}

/// Begins or ends the maintenance of a host, and answers with the host as it is then.
pub(crate) async fn set_maintenance(
    app: &Arc<App>,
    caller: &Caller,
    id: HostId,
    order: MaintenanceOrder,
) -> Result<HostView, Error> {
    let reason = match &order {
        MaintenanceOrder::Begin { reason, .. } | MaintenanceOrder::End { reason } => reason.clone(),
    };
    // The trail tells the two apart by their names.
    let action = match order {
        MaintenanceOrder::Begin { .. } => "BeginHostMaintenance",
        MaintenanceOrder::End { .. } => "EndHostMaintenance",
    };
    let audit = AuditEntry::of(caller, action, host::target(id), reason).done();
    let now = audit.time;
    // Held until memory has what the database has: of two orders the later one is what is shown.
    let _turn = app.fleet.turn_of_operators().await;
    let before = app.or_refused(&audit, app.fleet.host(id)).await?.host.maintenance;
    let maintenance = match order {
        MaintenanceOrder::End { .. } => None,
        MaintenanceOrder::Begin { reason, duration } => Some(Maintenance {
            operator: caller.user.name.clone(),
            reason,
            since: before.map_or(now, |before| before.since),
            until: duration.map(|duration| now + duration),
        }),
    };
    app.store.change_host(id, HostChange::Maintenance(maintenance.clone()), audit).await?;
    info!(host = %id, on = maintenance.is_some(), "Maintenance of a host was set.");
    app.fleet.set_maintenance(id, maintenance, now);
    app.fleet.host(id)
}
