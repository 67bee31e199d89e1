//! Orders to many hosts.

use belay_proto::v1::{
    BatchRestartHostAgentsRequest, BatchRestartHostAgentsResponse, BatchStartHostAgentsRequest,
    BatchStartHostAgentsResponse, BatchStopHostAgentsRequest, BatchStopHostAgentsResponse, PlanBatchRequest,
    PlanBatchResponse, batch_service_server::BatchService,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    batch,
    convert::{batch_order, batch_verb, plan_to_wire},
    task::batch::BatchVerb,
};

#[tonic::async_trait]
impl BatchService for Api {
    async fn batch_stop_host_agents(
        &self,
        request: Request<BatchStopHostAgentsRequest>,
    ) -> Result<Response<BatchStopHostAgentsResponse>, Status> {
        let (caller, BatchStopHostAgentsRequest { order }) = self.admitted(request).await?;
        let task =
            batch::order(&self.app, &caller, BatchVerb::Stop, batch_order(BatchVerb::Stop, order)?).await?;
        Ok(Response::new(BatchStopHostAgentsResponse { task: Some(self.told(&task)) }))
    }

    async fn batch_restart_host_agents(
        &self,
        request: Request<BatchRestartHostAgentsRequest>,
    ) -> Result<Response<BatchRestartHostAgentsResponse>, Status> {
        let (caller, BatchRestartHostAgentsRequest { order }) = self.admitted(request).await?;
        let task =
            batch::order(&self.app, &caller, BatchVerb::Restart, batch_order(BatchVerb::Restart, order)?)
                .await?;
        Ok(Response::new(BatchRestartHostAgentsResponse { task: Some(self.told(&task)) }))
    }

    async fn batch_start_host_agents(
        &self,
        request: Request<BatchStartHostAgentsRequest>,
    ) -> Result<Response<BatchStartHostAgentsResponse>, Status> {
        let (caller, BatchStartHostAgentsRequest { order }) = self.admitted(request).await?;
        let task =
            batch::order(&self.app, &caller, BatchVerb::Start, batch_order(BatchVerb::Start, order)?).await?;
        Ok(Response::new(BatchStartHostAgentsResponse { task: Some(self.told(&task)) }))
    }

    async fn plan_batch(
        &self,
        request: Request<PlanBatchRequest>,
    ) -> Result<Response<PlanBatchResponse>, Status> {
        let (caller, PlanBatchRequest { verb, order }) = self.admitted(request).await?;
        let verb = batch_verb(verb)?;
        let plan = batch::plan(&self.app, &caller, verb, batch_order(verb, order)?).await?;
        Ok(Response::new(PlanBatchResponse { plan: Some(plan_to_wire(plan)) }))
    }
}
