//! The agent of a host, as a whole.

use belay_proto::v1::{
    self, GetHostAgentRequest, RestartHostAgentRequest, StartHostAgentRequest, StopHostAgentRequest,
};

use super::{accepted, preview_or};
use crate::{
    envelope::{Answer, Done},
    extract::{HostPath, Json, OrderBody, Path, RestartBody, Terms},
    json::HostAgent,
    upstream::{Call, told},
};

/// `GET /compute/hosts/{hostId}/agent`
pub(super) async fn get(call: Call, Path(path): Path<HostPath>) -> Answer {
    let request = call.request(GetHostAgentRequest { host_id: path.host.get() });
    let reply = call.agents().get_host_agent(request).await?.into_inner();
    Done::with(&HostAgent::new(told(reply.agent)?, call.zone()))
}

/// `POST /compute/hosts/{hostId}/agent/stop`
pub(super) async fn stop(
    call: Call,
    terms: Terms,
    Path(path): Path<HostPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (host_id, wire) = (path.host.get(), terms.of_hosts()?);
    let message = StopHostAgentRequest { host_id, terms: wire, reason: body.reason() };
    let request = call.request_within(message, terms.wait());
    let reply = call.agents().stop_host_agent(request).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// `POST /compute/hosts/{hostId}/agent/start`
pub(super) async fn start(
    call: Call,
    terms: Terms,
    Path(path): Path<HostPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (host_id, wire) = (path.host.get(), terms.of_hosts()?);
    let message = StartHostAgentRequest { host_id, terms: wire, reason: body.reason() };
    let request = call.request_within(message, terms.wait());
    let reply = call.agents().start_host_agent(request).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// `POST /compute/hosts/{hostId}/agent/restart`
pub(super) async fn restart(
    call: Call,
    terms: Terms,
    Path(path): Path<HostPath>,
    Json(body): Json<RestartBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?.not_started_after(body.not_started_after.as_deref())?;
    let (host_id, wire) = (path.host.get(), terms.of_hosts()?);
    let message = RestartHostAgentRequest { host_id, terms: wire, reason: body.reason() };
    let request = call.request_within(message, terms.wait());
    let reply = call.agents().restart_host_agent(request).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// The task; or what the order would do.
fn answer(call: &Call, terms: &Terms, task: Option<v1::Task>, preview: Option<v1::OrderPreview>) -> Answer {
    preview_or(preview, || accepted(call, terms, told(task)?))
}
