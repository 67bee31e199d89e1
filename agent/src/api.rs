//! gRPC in: decode, call, encode.

use belay_proto::{
    Problem, Trace,
    agent::v1::{self as pb, agent_service_server::AgentService},
    fail_point,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, metadata::MetadataMap};
use tracing::{Instrument, info_span};
use uuid::Uuid;

use crate::{
    convert::{self, What, Whom},
    output::Outputs,
    supervisor::Supervisor,
};

/// Takes the server's orders.
pub(crate) struct Api {
    supervisor: Supervisor,
    outputs: Outputs,
    identity: String,
    incarnation: String,
}

impl Api {
    /// The service of the agent with this identity, in this life of its program.
    pub(crate) fn new(supervisor: Supervisor, outputs: Outputs, identity: Uuid, incarnation: Uuid) -> Self {
        Self { supervisor, outputs, identity: identity.to_string(), incarnation: incarnation.to_string() }
    }

    async fn order(
        &self,
        metadata: &MetadataMap,
        order: Option<pb::Order>,
        what: What,
        whom: Whom,
    ) -> Result<Option<pb::Operation>, Status> {
        let trace = trace_of(metadata);
        let order = convert::order(order, what, whom, trace)?;
        let span = info_span!("call", trace_id = %trace);
        let standing = self.supervisor.order(order).instrument(span).await?;
        fail_point(|| "order.answers");
        Ok(Some(convert::operation(standing)))
    }
}

#[tonic::async_trait]
impl AgentService for Api {
    async fn stop_process(
        &self,
        request: Request<pb::StopProcessRequest>,
    ) -> Result<Response<pb::StopProcessResponse>, Status> {
        let (metadata, _, pb::StopProcessRequest { order, alias, mode }) = request.into_parts();
        let operation = self.order(&metadata, order, What::Stop(mode), Whom::One(alias)).await?;
        Ok(Response::new(pb::StopProcessResponse { operation }))
    }

    async fn start_process(
        &self,
        request: Request<pb::StartProcessRequest>,
    ) -> Result<Response<pb::StartProcessResponse>, Status> {
        let (metadata, _, pb::StartProcessRequest { order, alias }) = request.into_parts();
        let operation = self.order(&metadata, order, What::Start, Whom::One(alias)).await?;
        Ok(Response::new(pb::StartProcessResponse { operation }))
    }

    async fn restart_process(
        &self,
        request: Request<pb::RestartProcessRequest>,
    ) -> Result<Response<pb::RestartProcessResponse>, Status> {
        let (metadata, _, pb::RestartProcessRequest { order, alias }) = request.into_parts();
        let operation = self.order(&metadata, order, What::Restart, Whom::One(alias)).await?;
        Ok(Response::new(pb::RestartProcessResponse { operation }))
    }

    async fn stop_all_processes(
        &self,
        request: Request<pb::StopAllProcessesRequest>,
    ) -> Result<Response<pb::StopAllProcessesResponse>, Status> {
        let (metadata, _, pb::StopAllProcessesRequest { order, mode }) = request.into_parts();
        let operation = self.order(&metadata, order, What::Stop(mode), Whom::All).await?;
        Ok(Response::new(pb::StopAllProcessesResponse { operation }))
    }

    async fn start_all_processes(
        &self,
        request: Request<pb::StartAllProcessesRequest>,
    ) -> Result<Response<pb::StartAllProcessesResponse>, Status> {
        let (metadata, _, pb::StartAllProcessesRequest { order }) = request.into_parts();
        let operation = self.order(&metadata, order, What::Start, Whom::All).await?;
        Ok(Response::new(pb::StartAllProcessesResponse { operation }))
    }

    async fn stop_processes(
        &self,
        request: Request<pb::StopProcessesRequest>,
    ) -> Result<Response<pb::StopProcessesResponse>, Status> {
        let (metadata, _, pb::StopProcessesRequest { order, aliases }) = request.into_parts();
        let mode = pb::StopMode::Unspecified.into();
        let operation = self.order(&metadata, order, What::Stop(mode), Whom::These(aliases)).await?;
        Ok(Response::new(pb::StopProcessesResponse { operation }))
    }

    async fn start_processes(
        &self,
        request: Request<pb::StartProcessesRequest>,
    ) -> Result<Response<pb::StartProcessesResponse>, Status> {
        let (metadata, _, pb::StartProcessesRequest { order, aliases }) = request.into_parts();
        let operation = self.order(&metadata, order, What::Start, Whom::These(aliases)).await?;
        Ok(Response::new(pb::StartProcessesResponse { operation }))
    }

    async fn cancel_operation(
        &self,
        request: Request<pb::CancelOperationRequest>,
    ) -> Result<Response<pb::CancelOperationResponse>, Status> {
        let (metadata, _, pb::CancelOperationRequest { order }) = request.into_parts();
        let trace = trace_of(&metadata);
        // What it was to do matters only where it never arrived, and then nothing is done.
        let order = convert::order(order, What::Stop(pb::StopMode::Unspecified.into()), Whom::All, trace)?;
        let span = info_span!("call", trace_id = %trace);
        let operation = Some(convert::operation(self.supervisor.cancel(order).instrument(span).await?));
        fail_point(|| "cancel.answers");
        Ok(Response::new(pb::CancelOperationResponse { operation }))
    }

    async fn get_operation(
        &self,
        request: Request<pb::GetOperationRequest>,
    ) -> Result<Response<pb::GetOperationResponse>, Status> {
        let pb::GetOperationRequest { operation_id } = request.into_inner();
        let id = convert::operation_id(&operation_id)?;
        let operation = Some(convert::operation(self.supervisor.operation(id).await?));
        Ok(Response::new(pb::GetOperationResponse { operation }))
    }

    async fn plan_order(
        &self,
        request: Request<pb::PlanOrderRequest>,
    ) -> Result<Response<pb::PlanOrderResponse>, Status> {
        let planned = self.supervisor.plan(convert::planned_order(request.into_inner())?).await?;
        let processes = planned.into_iter().map(convert::planned).collect();
        Ok(Response::new(pb::PlanOrderResponse { processes }))
    }

    async fn get_inventory(
        &self,
        request: Request<pb::GetInventoryRequest>,
    ) -> Result<Response<pb::GetInventoryResponse>, Status> {
        let pb::GetInventoryRequest {} = request.into_inner();
        let processes = self.supervisor.inventory().await?;
        Ok(Response::new(pb::GetInventoryResponse {
            identity: self.identity.clone(),
            incarnation: self.incarnation.clone(),
            processes: processes.into_iter().map(convert::observed).collect(),
        }))
    }

    type ReadLogStream = ReceiverStream<Result<pb::ReadLogResponse, Status>>;

    async fn read_log(
        &self,
        request: Request<pb::ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let (metadata, _, message) = request.into_parts();
        let span = info_span!("call", trace_id = %trace_of(&metadata));
        let reader = self.outputs.read(convert::wanted(message)?).instrument(span.clone()).await?;
        let encode = |piece: Result<_, Problem>| piece.map(convert::piece).map_err(Status::from);
        Ok(Response::new(span.in_scope(|| reader.stream(encode))))
    }
}

/// The trace of a call; a new one where the caller has none.
fn trace_of(metadata: &MetadataMap) -> Trace {
    let new = || Trace::from_random(Uuid::new_v4().into_bytes());
    Trace::from_metadata(metadata).unwrap_or_else(new)
}
