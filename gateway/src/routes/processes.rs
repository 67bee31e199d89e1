//! Single processes of a host's agent.

use belay_proto::{
    all,
    v1::{
        self, GetAgentProcessRequest, ListAgentProcessesRequest, RestartAgentProcessRequest,
        StartAgentProcessRequest, StopAgentProcessRequest,
    },
};
use http::header::ETAG;

use super::preview_or;
use crate::{
    envelope::{Answer, Done},
    extract::{HostPath, Json, OrderBody, Path, ProcessPath, Query, RestartBody, StopBody, Terms, tag},
    json::{AgentProcess, AgentProcessDetail, Paged},
    upstream::{Call, told},
};

/// `GET /compute/hosts/{hostId}/agent/processes`
pub(super) async fn list(call: Call, Path(path): Path<HostPath>, query: Query) -> Answer {
    let (page, size) = all((query.page(), query.size()))?;
    let request = call.request(ListAgentProcessesRequest { host_id: path.host.get(), page, size });
    let reply = call.processes().list_agent_processes(request).await?.into_inner();
    let process = |process| AgentProcess::new(process, call.zone());
    Done::with(&Paged {
        contents: reply.processes.into_iter().map(process).collect(),
        page: told(reply.page)?.into(),
    })
}

/// `GET /compute/hosts/{hostId}/agent/processes/{agentProcessId}/detail`
pub(super) async fn get(call: Call, Path(path): Path<ProcessPath>) -> Answer {
    let request = call
        .request(GetAgentProcessRequest { host_id: path.host.get(), agent_process_id: path.process.get() });
    let process = told(call.processes().get_agent_process(request).await?.into_inner().process)?;
    let generation = tag(process.generation);
    Ok(Done::with(&AgentProcessDetail::new(process, call.zone()))?.header(ETAG, generation))
}

/// `POST /compute/hosts/{hostId}/agent/processes/{agentProcessId}/stop`
pub(super) async fn stop(
    call: Call,
    terms: Terms,
    Path(path): Path<ProcessPath>,
    Json(body): Json<StopBody>,
) -> Answer {
    let request = call.request(StopAgentProcessRequest {
        host_id: path.host.get(),
        agent_process_id: path.process.get(),
        terms: terms.with_dry_run(body.dry_run)?.of_process()?,
        force: body.force(),
        reason: body.reason(),
    });
    let reply = call.processes().stop_agent_process(request).await?.into_inner();
    answer(&call, reply.process, reply.preview)
}

/// `POST /compute/hosts/{hostId}/agent/processes/{agentProcessId}/start`
pub(super) async fn start(
    call: Call,
    terms: Terms,
    Path(path): Path<ProcessPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let request = call.request(StartAgentProcessRequest {
        host_id: path.host.get(),
        agent_process_id: path.process.get(),
        terms: terms.with_dry_run(body.dry_run)?.of_process()?,
        reason: body.reason(),
    });
    let reply = call.processes().start_agent_process(request).await?.into_inner();
    answer(&call, reply.process, reply.preview)
}

/// `POST /compute/hosts/{hostId}/agent/processes/{agentProcessId}/restart`
pub(super) async fn restart(
    call: Call,
    terms: Terms,
    Path(path): Path<ProcessPath>,
    Json(body): Json<RestartBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?.not_started_after(body.not_started_after.as_deref())?;
    let request = call.request(RestartAgentProcessRequest {
        host_id: path.host.get(),
        agent_process_id: path.process.get(),
        terms: terms.of_process()?,
        reason: body.reason(),
    });
    let reply = call.processes().restart_agent_process(request).await?.into_inner();
    answer(&call, reply.process, reply.preview)
}

/// The process as it is after the order; or what the order would do.
fn answer(call: &Call, process: Option<v1::AgentProcess>, preview: Option<v1::OrderPreview>) -> Answer {
    preview_or(preview, || {
        let process = told(process)?;
        let generation = tag(process.generation);
        Ok(Done::with(&AgentProcess::new(process, call.zone()))?.header(ETAG, generation))
    })
}
