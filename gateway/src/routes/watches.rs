//! What is watched, as server-sent events.

use axum::{extract::State, response::Response};
use belay_proto::v1::{
    WatchAgentProcessesRequest, WatchHostsRequest, WatchTaskRequest, watch_agent_processes_response,
    watch_hosts_response,
};
use serde_json::json;

use super::Gateway;
use crate::{
    envelope::Refusal,
    extract::{HostPath, Path, ResumeToken, TaskPath},
    json::{AgentProcessDetail, HostDetail, WrappedTaskInstance},
    sse::{self, Event},
    upstream::Call,
};

/// `GET /compute/hosts/watch`
pub(super) async fn hosts(
    State(gateway): State<Gateway>,
    call: Call,
    ResumeToken(resume_token): ResumeToken,
) -> Result<Response, Refusal> {
    use watch_hosts_response::Event as Told;
    let request = call.lasting(WatchHostsRequest { resume_token });
    let stream = call.hosts().watch_hosts(request).await?.into_inner();
    let zone = call.zone().clone();
    Ok(sse::answer(&gateway, call, stream, move |told| {
        let id = told.resume_token;
        Some(match told.event? {
            Told::Begins(_) => Event::of(id, "begins", &json!({})),
            Told::Host(host) => Event::of(id, "host", &HostDetail::new(host, &zone)),
            Told::RemovedHostId(host) => Event::of(id, "removed", &json!({"id": host})),
        })
    }))
}

/// `GET /compute/hosts/{hostId}/agent/processes/watch`
pub(super) async fn processes(
    State(gateway): State<Gateway>,
    call: Call,
    Path(path): Path<HostPath>,
    ResumeToken(resume_token): ResumeToken,
) -> Result<Response, Refusal> {
    use watch_agent_processes_response::Event as Told;
    let request = call.lasting(WatchAgentProcessesRequest { host_id: path.host.get(), resume_token });
    let stream = call.processes().watch_agent_processes(request).await?.into_inner();
    let zone = call.zone().clone();
    Ok(sse::answer(&gateway, call, stream, move |told| {
        let id = told.resume_token;
        Some(match told.event? {
            Told::Begins(_) => Event::of(id, "begins", &json!({})),
            Told::Process(process) => Event::of(id, "process", &AgentProcessDetail::new(process, &zone)),
            Told::RemovedAgentProcessId(process) => Event::of(id, "removed", &json!({"id": process})),
        })
    }))
}

/// `GET /tasks/instances/{taskInstanceId}/watch`
pub(super) async fn task(
    State(gateway): State<Gateway>,
    call: Call,
    Path(path): Path<TaskPath>,
    ResumeToken(resume_token): ResumeToken,
) -> Result<Response, Refusal> {
    let request = call.lasting(WatchTaskRequest { task_id: path.task.get(), resume_token });
    let stream = call.tasks().watch_task(request).await?.into_inner();
    let zone = call.zone().clone();
    Ok(sse::answer(&gateway, call, stream, move |told| {
        Some(Event::of(told.resume_token, "task", &WrappedTaskInstance::new(told.task?, &zone)))
    }))
}
