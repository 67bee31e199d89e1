//! The agent of a host, as a whole.

use belay_proto::v1::{
    GetHostAgentRequest, RestartHostAgentRequest, StartHostAgentRequest, StopHostAgentRequest,
};

use crate::{
    envelope::{Answer, Done},
    extract::{HostPath, Json, OrderBody, Path},
    json::{HostAgent, TaskInstance},
    upstream::{Call, told},
};

/// `GET /compute/hosts/{hostId}/agent`
pub(super) async fn get(call: Call, Path(path): Path<HostPath>) -> Answer {
    let request = call.request(GetHostAgentRequest { host_id: path.host.get() });
    let reply = call.agents().get_host_agent(request).await?.into_inner();
    Done::with(&HostAgent::new(told(reply.agent)?, call.zone()))
}

/// `POST /compute/hosts/{hostId}/agent/stop`
pub(super) async fn stop(call: Call, Path(path): Path<HostPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(StopHostAgentRequest { host_id: path.host.get(), reason: body.reason() });
    let reply = call.agents().stop_host_agent(request).await?.into_inner();
    Done::with(&TaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /compute/hosts/{hostId}/agent/start`
pub(super) async fn start(call: Call, Path(path): Path<HostPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(StartHostAgentRequest { host_id: path.host.get(), reason: body.reason() });
    let reply = call.agents().start_host_agent(request).await?.into_inner();
    Done::with(&TaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /compute/hosts/{hostId}/agent/restart`
pub(super) async fn restart(call: Call, Path(path): Path<HostPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(RestartHostAgentRequest { host_id: path.host.get(), reason: body.reason() });
    let reply = call.agents().restart_host_agent(request).await?.into_inner();
    Done::with(&TaskInstance::new(told(reply.task)?, call.zone()))
}
