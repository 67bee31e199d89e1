//! Single processes of a host's agent.

use belay_proto::{
    all,
    v1::{
        GetAgentProcessRequest, ListAgentProcessesRequest, RestartAgentProcessRequest,
        StartAgentProcessRequest, StopAgentProcessRequest,
    },
};

use crate::{
    envelope::{Answer, Done},
    extract::{HostPath, Json, OrderBody, Path, ProcessPath, Query, StopBody},
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
    let reply = call.processes().get_agent_process(request).await?.into_inner();
    Done::with(&AgentProcessDetail::new(told(reply.process)?, call.zone()))
}

/// `POST /compute/hosts/{hostId}/agent/processes/{agentProcessId}/stop`
pub(super) async fn stop(call: Call, Path(path): Path<ProcessPath>, Json(body): Json<StopBody>) -> Answer {
    let request = call.request(StopAgentProcessRequest {
        host_id: path.host.get(),
        agent_process_id: path.process.get(),
        force: body.force(),
        reason: body.reason(),
    });
    let reply = call.processes().stop_agent_process(request).await?.into_inner();
    Done::with(&AgentProcess::new(told(reply.process)?, call.zone()))
}

/// `POST /compute/hosts/{hostId}/agent/processes/{agentProcessId}/start`
pub(super) async fn start(call: Call, Path(path): Path<ProcessPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(StartAgentProcessRequest {
        host_id: path.host.get(),
        agent_process_id: path.process.get(),
        reason: body.reason(),
    });
    let reply = call.processes().start_agent_process(request).await?.into_inner();
    Done::with(&AgentProcess::new(told(reply.process)?, call.zone()))
}

/// `POST /compute/hosts/{hostId}/agent/processes/{agentProcessId}/restart`
pub(super) async fn restart(
    call: Call,
    Path(path): Path<ProcessPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let request = call.request(RestartAgentProcessRequest {
        host_id: path.host.get(),
        agent_process_id: path.process.get(),
        reason: body.reason(),
    });
    let reply = call.processes().restart_agent_process(request).await?.into_inner();
    Done::with(&AgentProcess::new(told(reply.process)?, call.zone()))
}
