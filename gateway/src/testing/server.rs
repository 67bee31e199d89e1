//! Every service of `belay.v1`, answering what the test says, and remembering what was asked.

use std::{
    any::Any,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use belay_proto::v1::{
    self, access_key_service_server as access_keys, agent_process_service_server as processes,
    audit_service_server as audit, batch_service_server as batches, diagnosis_service_server as diagnosis,
    enrolment_service_server as enrolment, host_agent_service_server as agents, host_service_server as hosts,
    reference_service_server as reference, task_service_server as tasks, user_service_server as users,
};
use tokio::{net::TcpListener, sync::Notify};
use tonic::{
    Request, Response, Status,
    codegen::BoxStream,
    metadata::MetadataMap,
    transport::{Server, server::TcpIncoming},
};

/// What the server was asked.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The RPC, in snake case.
    pub(crate) rpc: &'static str,
    pub(crate) metadata: MetadataMap,
    /// The request message, as `Debug` shows it.
    pub(crate) message: String,
}

/// Answers every RPC with what was said last, or with an empty message.
#[derive(Default)]
pub(crate) struct Fake {
    seen: Mutex<Vec<Seen>>,
    reply: Mutex<Option<Reply>>,
    /// While set, calls wait for `release`.
    held: Mutex<bool>,
    pub(crate) arrived: Notify,
    pub(crate) release: Notify,
}

type Reply = Result<Box<dyn Any + Send>, Status>;

impl Fake {
    /// The next call is answered with `reply`, a response message.
    pub(crate) fn reply(&self, reply: impl Any + Send) {
        *lock(&self.reply) = Some(Ok(Box::new(reply)));
    }

    /// The next call fails.
    pub(crate) fn fail(&self, status: impl Into<Status>) {
        *lock(&self.reply) = Some(Err(status.into()));
    }

    /// The next calls wait for `release`.
    pub(crate) fn hold(&self) {
        *lock(&self.held) = true;
    }

    /// Those that wait go on, and the next ones do not wait.
    pub(crate) fn let_go(&self) {
        *lock(&self.held) = false;
        self.release.notify_waiters();
    }

    /// What was asked since this was last called.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.seen))
    }

    async fn answer<M: std::fmt::Debug, R: Default + 'static>(
        &self,
        rpc: &'static str,
        request: Request<M>,
    ) -> Result<Response<R>, Status> {
        let (metadata, _, message) = request.into_parts();
        lock(&self.seen).push(Seen { rpc, metadata, message: format!("{message:?}") });
        let held = *lock(&self.held);
        if held {
            self.arrived.notify_one();
            self.release.notified().await;
        }
        match lock(&self.reply).take() {
            None => Ok(Response::new(R::default())),
            Some(Err(status)) => Err(status),
            Some(Ok(reply)) => Ok(Response::new(*reply.downcast().expect("a reply of this RPC"))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

macro_rules! service {
    ($service:path { $($rpc:ident($request:ident) -> $response:ident;)* } $($more:item)*) => {
        #[tonic::async_trait]
        impl $service for Shared {
            $(
                async fn $rpc(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                    self.0.answer(stringify!($rpc), request).await
                }
            )*
            $($more)*
        }
    };
}

#[derive(Clone)]
struct Shared(Arc<Fake>);

service! { hosts::HostService {
    list_hosts(ListHostsRequest) -> ListHostsResponse;
    get_host(GetHostRequest) -> GetHostResponse;
    update_host_labels(UpdateHostLabelsRequest) -> UpdateHostLabelsResponse;
    set_host_maintenance(SetHostMaintenanceRequest) -> SetHostMaintenanceResponse;
    update_host_profile(UpdateHostProfileRequest) -> UpdateHostProfileResponse;
}
    type WatchHostsStream = BoxStream<v1::WatchHostsResponse>;

    async fn watch_hosts(&self, _: Request<v1::WatchHostsRequest>) -> Result<Response<Self::WatchHostsStream>, Status> {
        Err(Status::unimplemented("not played"))
    }
}
service! { enrolment::EnrolmentService {
    batch_create_hosts(BatchCreateHostsRequest) -> BatchCreateHostsResponse;
    delete_host(DeleteHostRequest) -> DeleteHostResponse;
    batch_delete_hosts(BatchDeleteHostsRequest) -> BatchDeleteHostsResponse;
} }
service! { reference::ReferenceService {
    list_regions(ListRegionsRequest) -> ListRegionsResponse;
    get_region(GetRegionRequest) -> GetRegionResponse;
    create_region(CreateRegionRequest) -> CreateRegionResponse;
    delete_region(DeleteRegionRequest) -> DeleteRegionResponse;
    list_idcs(ListIdcsRequest) -> ListIdcsResponse;
    get_idc(GetIdcRequest) -> GetIdcResponse;
    create_idc(CreateIdcRequest) -> CreateIdcResponse;
    delete_idc(DeleteIdcRequest) -> DeleteIdcResponse;
    list_host_types(ListHostTypesRequest) -> ListHostTypesResponse;
    get_host_type(GetHostTypeRequest) -> GetHostTypeResponse;
    create_host_type(CreateHostTypeRequest) -> CreateHostTypeResponse;
    delete_host_type(DeleteHostTypeRequest) -> DeleteHostTypeResponse;
} }
service! { agents::HostAgentService {
    get_host_agent(GetHostAgentRequest) -> GetHostAgentResponse;
    stop_host_agent(StopHostAgentRequest) -> StopHostAgentResponse;
    start_host_agent(StartHostAgentRequest) -> StartHostAgentResponse;
    restart_host_agent(RestartHostAgentRequest) -> RestartHostAgentResponse;
} }
service! { batches::BatchService {
    batch_stop_host_agents(BatchStopHostAgentsRequest) -> BatchStopHostAgentsResponse;
    batch_restart_host_agents(BatchRestartHostAgentsRequest) -> BatchRestartHostAgentsResponse;
    batch_start_host_agents(BatchStartHostAgentsRequest) -> BatchStartHostAgentsResponse;
    plan_batch(PlanBatchRequest) -> PlanBatchResponse;
} }
service! { processes::AgentProcessService {
    list_agent_processes(ListAgentProcessesRequest) -> ListAgentProcessesResponse;
    get_agent_process(GetAgentProcessRequest) -> GetAgentProcessResponse;
    stop_agent_process(StopAgentProcessRequest) -> StopAgentProcessResponse;
    start_agent_process(StartAgentProcessRequest) -> StartAgentProcessResponse;
    restart_agent_process(RestartAgentProcessRequest) -> RestartAgentProcessResponse;
}
    type WatchAgentProcessesStream = BoxStream<v1::WatchAgentProcessesResponse>;

    async fn watch_agent_processes(
        &self,
        _: Request<v1::WatchAgentProcessesRequest>,
    ) -> Result<Response<Self::WatchAgentProcessesStream>, Status> {
        Err(Status::unimplemented("not played"))
    }

    type ReadAgentProcessLogStream = BoxStream<v1::ReadAgentProcessLogResponse>;

    async fn read_agent_process_log(
        &self,
        _: Request<v1::ReadAgentProcessLogRequest>,
    ) -> Result<Response<Self::ReadAgentProcessLogStream>, Status> {
        Err(Status::unimplemented("no route leads here"))
    }
}
service! { users::UserService {
    list_users(ListUsersRequest) -> ListUsersResponse;
    create_user(CreateUserRequest) -> CreateUserResponse;
    delete_user(DeleteUserRequest) -> DeleteUserResponse;
    set_password(SetPasswordRequest) -> SetPasswordResponse;
    grant_role(GrantRoleRequest) -> GrantRoleResponse;
    revoke_role(RevokeRoleRequest) -> RevokeRoleResponse;
    create_token(CreateTokenRequest) -> CreateTokenResponse;
    list_tokens(ListTokensRequest) -> ListTokensResponse;
    revoke_token(RevokeTokenRequest) -> RevokeTokenResponse;
} }
service! { access_keys::AccessKeyService {
    create_access_key(CreateAccessKeyRequest) -> CreateAccessKeyResponse;
    list_access_keys(ListAccessKeysRequest) -> ListAccessKeysResponse;
    enable_access_key(EnableAccessKeyRequest) -> EnableAccessKeyResponse;
    disable_access_key(DisableAccessKeyRequest) -> DisableAccessKeyResponse;
    delete_access_key(DeleteAccessKeyRequest) -> DeleteAccessKeyResponse;
} }
service! { diagnosis::DiagnosisService {
    diagnose(DiagnoseRequest) -> DiagnoseResponse;
} }

service! { audit::AuditService {
    list_audit_records(ListAuditRecordsRequest) -> ListAuditRecordsResponse;
    verify_audit(VerifyAuditRequest) -> VerifyAuditResponse;
} }
service! { tasks::TaskService {
    list_tasks(ListTasksRequest) -> ListTasksResponse;
    get_task(GetTaskRequest) -> GetTaskResponse;
    get_subtask_log(GetSubtaskLogRequest) -> GetSubtaskLogResponse;
    retry_task(RetryTaskRequest) -> RetryTaskResponse;
    rollback_task(RollbackTaskRequest) -> RollbackTaskResponse;
    cancel_task(CancelTaskRequest) -> CancelTaskResponse;
    pause_task(PauseTaskRequest) -> PauseTaskResponse;
    resume_task(ResumeTaskRequest) -> ResumeTaskResponse;
    approve_wave(ApproveWaveRequest) -> ApproveWaveResponse;
    retry_subtask(RetrySubtaskRequest) -> RetrySubtaskResponse;
    skip_subtask(SkipSubtaskRequest) -> SkipSubtaskResponse;
    cancel_subtask(CancelSubtaskRequest) -> CancelSubtaskResponse;
}
    type WatchTaskStream = BoxStream<v1::WatchTaskResponse>;

    async fn watch_task(&self, _: Request<v1::WatchTaskRequest>) -> Result<Response<Self::WatchTaskStream>, Status> {
        Err(Status::unimplemented("no route leads here"))
    }

    type WatchSubtaskLogStream = BoxStream<v1::WatchSubtaskLogResponse>;

    async fn watch_subtask_log(
        &self,
        _: Request<v1::WatchSubtaskLogRequest>,
    ) -> Result<Response<Self::WatchSubtaskLogStream>, Status> {
        Err(Status::unimplemented("no route leads here"))
    }
}

/// Serves all of it on a port of its own.
pub(super) async fn spawn(fake: Arc<Fake>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shared = Shared(fake);
    let served = Server::builder()
        .add_service(hosts::HostServiceServer::new(shared.clone()))
        .add_service(enrolment::EnrolmentServiceServer::new(shared.clone()))
        .add_service(reference::ReferenceServiceServer::new(shared.clone()))
        .add_service(agents::HostAgentServiceServer::new(shared.clone()))
        .add_service(batches::BatchServiceServer::new(shared.clone()))
        .add_service(processes::AgentProcessServiceServer::new(shared.clone()))
        .add_service(users::UserServiceServer::new(shared.clone()))
        .add_service(access_keys::AccessKeyServiceServer::new(shared.clone()))
        .add_service(audit::AuditServiceServer::new(shared.clone()))
        .add_service(diagnosis::DiagnosisServiceServer::new(shared.clone()))
        .add_service(tasks::TaskServiceServer::new(shared))
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(async move { drop(served.await) });
    address
}
