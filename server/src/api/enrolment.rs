//! Hosts that come to the fleet, and leave it.

use belay_proto::v1::{
    BatchCreateHostsRequest, BatchCreateHostsResponse, BatchDeleteHostsRequest, BatchDeleteHostsResponse,
    DeleteHostRequest, DeleteHostResponse, enrolment_service_server::EnrolmentService,
};
use tonic::{Request, Response, Status};

use super::Api;
use crate::{
    convert::{create_order, delete_order},
    create::create,
    delete::delete,
};

#[tonic::async_trait]
impl EnrolmentService for Api {
    async fn batch_create_hosts(
        &self,
        request: Request<BatchCreateHostsRequest>,
    ) -> Result<Response<BatchCreateHostsResponse>, Status> {
        let (caller, message) = self.admitted(request).await?;
        let order = create_order(message)?;
        let app = self.app.clone();
        let tasks = self.app.to_the_end(async move { create(&app, &caller, order).await }).await?;
        let tasks = tasks.iter().map(|task| self.told(task)).collect();
        Ok(Response::new(BatchCreateHostsResponse { tasks }))
    }

    async fn delete_host(
        &self,
        request: Request<DeleteHostRequest>,
    ) -> Result<Response<DeleteHostResponse>, Status> {
        let (caller, DeleteHostRequest { host_id, force, reason }) = self.admitted(request).await?;
        let order = delete_order(vec![host_id], force, reason)?;
        let app = self.app.clone();
        self.app.to_the_end(async move { delete(&app, &caller, "DeleteHost", order).await }).await?;
        Ok(Response::new(DeleteHostResponse {}))
    }

    async fn batch_delete_hosts(
        &self,
        request: Request<BatchDeleteHostsRequest>,
    ) -> Result<Response<BatchDeleteHostsResponse>, Status> {
        let (caller, BatchDeleteHostsRequest { host_ids, force, reason }) = self.admitted(request).await?;
        let order = delete_order(host_ids, force, reason)?;
        let app = self.app.clone();
        self.app.to_the_end(async move { delete(&app, &caller, "BatchDeleteHosts", order).await }).await?;
        Ok(Response::new(BatchDeleteHostsResponse {}))
    }
}
