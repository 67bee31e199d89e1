//! Hosts.

use belay_proto::{
    all,
    v1::{
        GetHostRequest, ListHostsRequest, SetHostMaintenanceRequest, UpdateHostLabelsRequest,
        UpdateHostProfileRequest,
    },
};

use super::preview_or;
use crate::{
    envelope::{Answer, Done},
    extract::{HostPath, Json, LabelsBody, MaintenanceBody, Path, ProfileBody, Query, Terms},
    json::{Host, HostDetail, Paged},
    upstream::{Call, told},
};

/// `GET /compute/hosts`
pub(super) async fn list(call: Call, query: Query) -> Answer {
    let (page, size, selector, statuses, keyword, included_service_types, excluded_service_types, sort) =
        all((
            query.page(),
            query.size(),
            query.maybe_text("selector"),
            query.host_statuses(),
            query.text(&["keyword"]),
            query.service_types("includedServiceType"),
            query.service_types("excludedServiceType"),
            query.text(&["sort"]),
        ))?;
    let request = call.request(ListHostsRequest {
        page,
        size,
        selector,
        statuses,
        keyword,
        included_service_types,
        excluded_service_types,
        sort,
    });
    let reply = call.hosts().list_hosts(request).await?.into_inner();
    Done::with(&Paged {
        contents: reply.hosts.into_iter().map(|host| Host::new(host, call.zone())).collect(),
        page: told(reply.page)?.into(),
    })
}

/// `GET /compute/hosts/{hostId}`
pub(super) async fn get(call: Call, Path(path): Path<HostPath>) -> Answer {
    let request = call.request(GetHostRequest { host_id: path.host.get() });
    let reply = call.hosts().get_host(request).await?.into_inner();
    Done::with(&Host::new(told(reply.host)?, call.zone()))
}

/// `POST /compute/hosts/{hostId}/labels`
pub(super) async fn update_labels(
    call: Call,
    terms: Terms,
    Path(path): Path<HostPath>,
    Json(body): Json<LabelsBody>,
) -> Answer {
    let LabelsBody { set, remove, reason, dry_run } = body;
    let request = call.request(UpdateHostLabelsRequest {
        host_id: path.host.get(),
        set: set.unwrap_or_default(),
        remove: remove.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
        terms: terms.with_dry_run(dry_run)?.of_change()?,
    });
    let reply = call.hosts().update_host_labels(request).await?.into_inner();
    preview_or(reply.preview, || Done::with(&HostDetail::new(told(reply.host)?, call.zone())))
}

/// `POST /compute/hosts/{hostId}/maintenance`
pub(super) async fn set_maintenance(
    call: Call,
    terms: Terms,
    Path(path): Path<HostPath>,
    Json(body): Json<MaintenanceBody>,
) -> Answer {
    let MaintenanceBody { on, reason, duration_seconds, dry_run } = body;
    let request = call.request(SetHostMaintenanceRequest {
        host_id: path.host.get(),
        on,
        reason: reason.unwrap_or_default(),
        duration: duration_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        terms: terms.with_dry_run(dry_run)?.of_change()?,
    });
    let reply = call.hosts().set_host_maintenance(request).await?.into_inner();
    preview_or(reply.preview, || Done::with(&HostDetail::new(told(reply.host)?, call.zone())))
}

/// `POST /compute/hosts/{hostId}/profile`
pub(super) async fn update_profile(
    call: Call,
    terms: Terms,
    Path(path): Path<HostPath>,
    Json(body): Json<ProfileBody>,
) -> Answer {
    let ProfileBody { idc_id, type_id, alias, description, reason, dry_run } = body;
    let request = call.request(UpdateHostProfileRequest {
        host_id: path.host.get(),
        idc_id,
        type_id,
        alias,
        description,
        reason: reason.unwrap_or_default(),
        terms: terms.with_dry_run(dry_run)?.of_change()?,
    });
    let reply = call.hosts().update_host_profile(request).await?.into_inner();
    preview_or(reply.preview, || Done::with(&HostDetail::new(told(reply.host)?, call.zone())))
}
