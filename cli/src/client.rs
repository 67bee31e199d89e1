//! The way to the server: one connection, and for every call credentials, a new trace and a deadline.

use std::time::Duration;

use belay_proto::{
    Reason, Trace,
    tls::{Connector, PapersError, read_certificates},
    v1::{
        access_key_service_client::AccessKeyServiceClient,
        agent_process_service_client::AgentProcessServiceClient, audit_service_client::AuditServiceClient,
        batch_service_client::BatchServiceClient, diagnosis_service_client::DiagnosisServiceClient,
        enrolment_service_client::EnrolmentServiceClient, host_agent_service_client::HostAgentServiceClient,
        host_service_client::HostServiceClient, reference_service_client::ReferenceServiceClient,
        task_service_client::TaskServiceClient, trust_service_client::TrustServiceClient,
        user_service_client::UserServiceClient, *,
    },
};
use secrecy::ExposeSecret;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

use crate::{
    failure::Failure,
    target::{Origin, Target},
};

mod lists;

/// How long a call may take that is answered at once.
const QUICK: Duration = Duration::from_secs(10);
/// How long an order may take that is answered when its effect is proven. The server gives up before that and says so.
const PROVEN: Duration = Duration::from_secs(700);
/// How long an order to many hosts may take: it is answered when all of it is written down.
const MANY: Duration = Duration::from_secs(60);
/// The largest answer. A batch of 2000 hosts has 10,004 subtasks, which is near the default of 4 MiB, and above it where many
/// of them tell why they failed.
const LARGEST: usize = 32 << 20;
/// How long it may take to get a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to the server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    address: String,
    authorization: AsciiMetadataValue,
    credentials_origin: Origin,
    timeout: Option<Duration>,
}

impl Client {
    /// Connects. `timeout` replaces the usual deadline of each call.
    pub(crate) async fn connect(target: &Target, timeout: Option<Duration>) -> Result<Self, Failure> {
        let Target { address, ca_file, credentials, origin, credentials_origin } = target;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| {
                Failure::caused(format!("`{address}`, named by {origin}, is no server"), &error)
            })?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true);
        let mut authorization = AsciiMetadataValue::try_from(credentials.authorization().expose_secret())
            .map_err(|_| Failure::usage("the credentials hold a character that can not be sent"))?;
        authorization.set_sensitive(true);
        let connected = match ca_file {
            None => endpoint.connect().await,
            Some(file) => {
                let unusable = |error: PapersError| {
                    Failure::caused(format!("cannot use the authorities in `{}`", file.display()), &error)
                };
                let authorities = read_certificates(file).map_err(unusable)?;
                endpoint.connect_with_connector(Connector::user(&authorities).map_err(unusable)?).await
            }
        };
        let channel = connected.map_err(|error| {
            let hint = match origin {
                Origin::Up(data) => format!("see what `belay up --data {}` prints", data.display()),
                _ if ca_file.is_some() => {
                    "is it running, is this its gRPC address, and is the file of authorities the one of its fleet?".to_owned()
                }
                _ => "is it running, and is this its gRPC address? A server that speaks TLS needs `--ca-file FILE`".to_owned(),
            };
            let caused =
                Failure::caused(format!("cannot reach the server at `{address}`, named by {origin}"), &error);
            Failure::unknown(caused.message).hint(hint)
        })?;
        Ok(Self {
            channel,
            address: address.clone(),
            authorization,
            credentials_origin: credentials_origin.clone(),
            timeout,
        })
    }

    /// Follows a task: as it is, then after each change, until it ended.
    pub(crate) async fn watch_task(&self, task_id: i64) -> Result<Watch, Failure> {
        let trace = new_trace()?;
        // The deadline of a call ends a stream too, and a task may take its time.
        let request = self.request(WatchTaskRequest { task_id, ..Default::default() }, trace, None);
        match TaskServiceClient::new(self.channel.clone())
            .max_decoding_message_size(LARGEST)
            .watch_task(request)
            .await
        {
            Ok(response) => Ok(Watch { stream: response.into_inner(), trace, client: self.clone() }),
            Err(status) => Err(self.failure(&status, trace)),
        }
    }

    /// Follows the log of a step: the lines that are there, then those that are written, until its task ended.
    pub(crate) async fn watch_subtask_log(
        &self,
        request: WatchSubtaskLogRequest,
    ) -> Result<StepLog, Failure> {
        let trace = new_trace()?;
        // As above.
        let request = self.request(request, trace, None);
        match TaskServiceClient::new(self.channel.clone()).watch_subtask_log(request).await {
            Ok(response) => Ok(StepLog { stream: response.into_inner(), trace, client: self.clone() }),
            Err(status) => Err(self.failure(&status, trace)),
        }
    }

    /// Reads a log, and follows it where asked.
    pub(crate) async fn read_log(&self, request: ReadAgentProcessLogRequest) -> Result<Log, Failure> {
        let trace = new_trace()?;
        // Nobody knows how long a log is.
        let request = self.request(request, trace, None);
        match AgentProcessServiceClient::new(self.channel.clone()).read_agent_process_log(request).await {
            Ok(response) => Ok(Log { stream: response.into_inner(), trace, client: self.clone() }),
            Err(status) => Err(self.failure(&status, trace)),
        }
    }

    /// One call, whichever it is.
    async fn call<Message, Answer, Sent>(
        &self,
        message: Message,
        deadline: Duration,
        send: impl FnOnce(Channel, Request<Message>) -> Sent,
    ) -> Result<Answer, Failure>
    where
        Sent: Future<Output = Result<Response<Answer>, Status>>,
    {
        let trace = new_trace()?;
        let deadline = self.timeout.unwrap_or(deadline);
        let request = self.request(message, trace, Some(deadline));
        send(self.channel.clone(), request)
            .await
            .map(Response::into_inner)
            .map_err(|status| self.failure(&status, trace))
    }

    fn request<Message>(
        &self,
        message: Message,
        trace: Trace,
        deadline: Option<Duration>,
    ) -> Request<Message> {
        let mut request = Request::new(message);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        request.metadata_mut().insert("authorization", self.authorization.clone());
        trace.into_metadata(request.metadata_mut());
        request
    }

    fn failure(&self, status: &Status, trace: Trace) -> Failure {
        let failure = Failure::of_status(status, trace, &self.address);
        match failure.reason {
            Some(Reason::Unauthenticated) => {
                failure.hint(format!("they came from {}", self.credentials_origin))
            }
            _ => failure,
        }
    }
}

/// A task that is being followed.
#[derive(Debug)]
pub(crate) struct Watch {
    stream: Streaming<WatchTaskResponse>,
    trace: Trace,
    client: Client,
}

impl Watch {
    /// The task after its next change. `None` when it ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Task>, Failure> {
        match self.stream.message().await {
            Ok(change) => Ok(change.and_then(|change| change.task)),
            Err(status) => Err(self.client.failure(&status, self.trace)),
        }
    }
}

/// The log of a step that is being followed.
#[derive(Debug)]
pub(crate) struct StepLog {
    stream: Streaming<WatchSubtaskLogResponse>,
    trace: Trace,
    client: Client,
}

impl StepLog {
    /// The next lines. `None` when the task ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<LogLine>>, Failure> {
        match self.stream.message().await {
            Ok(piece) => Ok(piece.map(|piece| piece.lines)),
            Err(status) => Err(self.client.failure(&status, self.trace)),
        }
    }
}

/// A log that is being read.
#[derive(Debug)]
pub(crate) struct Log {
    stream: Streaming<ReadAgentProcessLogResponse>,
    trace: Trace,
    client: Client,
}

impl Log {
    /// The next piece. `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<ReadAgentProcessLogResponse>, Failure> {
        self.stream.message().await.map_err(|status| self.client.failure(&status, self.trace))
    }
}

/// Gives the client a method for each call.
macro_rules! calls {
    ($($deadline:ident $service:ident::$call:ident($request:ident) -> $answer:ident;)*) => {
        impl Client {
            $(pub(crate) async fn $call(&self, request: $request) -> Result<$answer, Failure> {
                self.call(request, $deadline, |channel, request| async move {
                    $service::new(channel).max_decoding_message_size(LARGEST).$call(request).await
                })
                .await
            })*
        }
    };
}

calls! {
    QUICK HostServiceClient::list_hosts(ListHostsRequest) -> ListHostsResponse;
    QUICK HostServiceClient::get_host(GetHostRequest) -> GetHostResponse;
    QUICK HostServiceClient::update_host_labels(UpdateHostLabelsRequest) -> UpdateHostLabelsResponse;
    QUICK HostServiceClient::set_host_maintenance(SetHostMaintenanceRequest) -> SetHostMaintenanceResponse;
    QUICK HostServiceClient::update_host_profile(UpdateHostProfileRequest) -> UpdateHostProfileResponse;
    MANY EnrolmentServiceClient::batch_create_hosts(BatchCreateHostsRequest) -> BatchCreateHostsResponse;
    MANY EnrolmentServiceClient::delete_host(DeleteHostRequest) -> DeleteHostResponse;
    MANY EnrolmentServiceClient::batch_delete_hosts(BatchDeleteHostsRequest) -> BatchDeleteHostsResponse;
    QUICK ReferenceServiceClient::list_regions(ListRegionsRequest) -> ListRegionsResponse;
    QUICK ReferenceServiceClient::create_region(CreateRegionRequest) -> CreateRegionResponse;
    QUICK ReferenceServiceClient::delete_region(DeleteRegionRequest) -> DeleteRegionResponse;
    QUICK ReferenceServiceClient::list_idcs(ListIdcsRequest) -> ListIdcsResponse;
    QUICK ReferenceServiceClient::create_idc(CreateIdcRequest) -> CreateIdcResponse;
    QUICK ReferenceServiceClient::delete_idc(DeleteIdcRequest) -> DeleteIdcResponse;
    QUICK ReferenceServiceClient::list_host_types(ListHostTypesRequest) -> ListHostTypesResponse;
    QUICK ReferenceServiceClient::create_host_type(CreateHostTypeRequest) -> CreateHostTypeResponse;
    QUICK ReferenceServiceClient::delete_host_type(DeleteHostTypeRequest) -> DeleteHostTypeResponse;
    QUICK HostAgentServiceClient::get_host_agent(GetHostAgentRequest) -> GetHostAgentResponse;
    QUICK HostAgentServiceClient::stop_host_agent(StopHostAgentRequest) -> StopHostAgentResponse;
    QUICK HostAgentServiceClient::start_host_agent(StartHostAgentRequest) -> StartHostAgentResponse;
    QUICK HostAgentServiceClient::restart_host_agent(RestartHostAgentRequest) -> RestartHostAgentResponse;
    MANY BatchServiceClient::batch_stop_host_agents(BatchStopHostAgentsRequest) -> BatchStopHostAgentsResponse;
    MANY BatchServiceClient::batch_restart_host_agents(BatchRestartHostAgentsRequest) -> BatchRestartHostAgentsResponse;
    MANY BatchServiceClient::batch_start_host_agents(BatchStartHostAgentsRequest) -> BatchStartHostAgentsResponse;
    MANY BatchServiceClient::plan_batch(PlanBatchRequest) -> PlanBatchResponse;
    QUICK AgentProcessServiceClient::list_agent_processes(ListAgentProcessesRequest) -> ListAgentProcessesResponse;
    QUICK AgentProcessServiceClient::get_agent_process(GetAgentProcessRequest) -> GetAgentProcessResponse;
    PROVEN AgentProcessServiceClient::stop_agent_process(StopAgentProcessRequest) -> StopAgentProcessResponse;
    PROVEN AgentProcessServiceClient::start_agent_process(StartAgentProcessRequest) -> StartAgentProcessResponse;
    PROVEN AgentProcessServiceClient::restart_agent_process(RestartAgentProcessRequest) -> RestartAgentProcessResponse;
    QUICK TaskServiceClient::list_tasks(ListTasksRequest) -> ListTasksResponse;
    QUICK TaskServiceClient::get_task(GetTaskRequest) -> GetTaskResponse;
    QUICK TaskServiceClient::get_subtask_log(GetSubtaskLogRequest) -> GetSubtaskLogResponse;
    QUICK TaskServiceClient::retry_task(RetryTaskRequest) -> RetryTaskResponse;
    QUICK TaskServiceClient::rollback_task(RollbackTaskRequest) -> RollbackTaskResponse;
    QUICK TaskServiceClient::cancel_task(CancelTaskRequest) -> CancelTaskResponse;
    QUICK TaskServiceClient::pause_task(PauseTaskRequest) -> PauseTaskResponse;
    QUICK TaskServiceClient::resume_task(ResumeTaskRequest) -> ResumeTaskResponse;
    QUICK TaskServiceClient::approve_wave(ApproveWaveRequest) -> ApproveWaveResponse;
    QUICK TaskServiceClient::retry_subtask(RetrySubtaskRequest) -> RetrySubtaskResponse;
    QUICK TaskServiceClient::skip_subtask(SkipSubtaskRequest) -> SkipSubtaskResponse;
    QUICK TaskServiceClient::cancel_subtask(CancelSubtaskRequest) -> CancelSubtaskResponse;
    QUICK UserServiceClient::list_users(ListUsersRequest) -> ListUsersResponse;
    QUICK UserServiceClient::create_user(CreateUserRequest) -> CreateUserResponse;
    QUICK UserServiceClient::delete_user(DeleteUserRequest) -> DeleteUserResponse;
    QUICK UserServiceClient::set_password(SetPasswordRequest) -> SetPasswordResponse;
    QUICK UserServiceClient::grant_role(GrantRoleRequest) -> GrantRoleResponse;
    QUICK UserServiceClient::revoke_role(RevokeRoleRequest) -> RevokeRoleResponse;
    QUICK UserServiceClient::create_token(CreateTokenRequest) -> CreateTokenResponse;
    QUICK UserServiceClient::list_tokens(ListTokensRequest) -> ListTokensResponse;
    QUICK UserServiceClient::revoke_token(RevokeTokenRequest) -> RevokeTokenResponse;
    QUICK AccessKeyServiceClient::create_access_key(CreateAccessKeyRequest) -> CreateAccessKeyResponse;
    QUICK AccessKeyServiceClient::list_access_keys(ListAccessKeysRequest) -> ListAccessKeysResponse;
    QUICK AccessKeyServiceClient::enable_access_key(EnableAccessKeyRequest) -> EnableAccessKeyResponse;
    QUICK AccessKeyServiceClient::disable_access_key(DisableAccessKeyRequest) -> DisableAccessKeyResponse;
    QUICK AccessKeyServiceClient::delete_access_key(DeleteAccessKeyRequest) -> DeleteAccessKeyResponse;
    QUICK DiagnosisServiceClient::diagnose(DiagnoseRequest) -> DiagnoseResponse;
    QUICK TrustServiceClient::create_join_token(CreateJoinTokenRequest) -> CreateJoinTokenResponse;
    QUICK TrustServiceClient::list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensResponse;
    QUICK TrustServiceClient::revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenResponse;
    QUICK TrustServiceClient::get_authorities(GetAuthoritiesRequest) -> GetAuthoritiesResponse;
    QUICK TrustServiceClient::rotate_authority(RotateAuthorityRequest) -> RotateAuthorityResponse;
    QUICK AuditServiceClient::list_audit_records(ListAuditRecordsRequest) -> ListAuditRecordsResponse;
    MANY AuditServiceClient::verify_audit(VerifyAuditRequest) -> VerifyAuditResponse;
}

fn new_trace() -> Result<Trace, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::caused("the system gives no random bytes", &error))?;
    Ok(Trace::from_random(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    /// The largest batch is above what a gRPC client takes by default.
    #[tokio::test]
    async fn the_largest_batch_arrives() {
        let error = SubtaskError { reason: "LEFTOVERS".to_owned(), message: "x".repeat(500) };
        let step = Subtask { error: Some(error), ..Subtask::default() };
        let task = Some(Task { subtasks: vec![step; 10_004], ..Task::default() });
        let fake = Fake::default();
        fake.answer("GetTask", &GetTaskResponse { task: task.clone() });
        fake.answer("WatchTask", &WatchTaskResponse { task, ..Default::default() });
        let client = fake.client().await;
        let read = client.get_task(GetTaskRequest { task_id: 7 }).await.expect("an answer").task;
        assert_eq!(read.expect("a task").subtasks.len(), 10_004);
        let watched = client.watch_task(7).await.expect("a watch").next().await.expect("an answer");
        assert_eq!(watched.expect("a task").subtasks.len(), 10_004);
    }
}
