//! Hosts that come to the fleet, and leave it.

use belay_proto::v1::{
    BatchCreateHostsRequest, BatchCreateHostsResponse, BatchDeleteHostsRequest, BatchDeleteHostsResponse,
    DeleteHostRequest, DeleteHostResponse, OrderPreview, enrolment_service_server::EnrolmentService,
};
use tonic::{Request, Response, Status};

use super::{Api, told};
use crate::{
    access::Caller,
    convert::{create_order, delete_order, given_to_wire},
    create,
    delete::{self, DeleteOrder},
    error::Error,
    terms::Terms,
};

#[tonic::async_trait]
impl EnrolmentService for Api {
    async fn batch_create_hosts(
        &self,
        request: Request<BatchCreateHostsRequest>,
    ) -> Result<Response<BatchCreateHostsResponse>, Status> {
        let (caller, message) = self.admitted(request).await?;
        let (order, terms) = create_order(message)?;
        let given = self
            .change(caller, &terms, "hosts".into(), async move |app, caller| {
                create::create(&app, &caller, order).await
            })
            .await?;
        let given = given.planned(|preview| preview.steps = create::steps());
        let (tasks, preview) =
            given_to_wire(given, |tasks| tasks.iter().map(|task| self.told(task)).collect());
        let tasks = tasks.unwrap_or_default();
        Ok(told(preview.is_some(), BatchCreateHostsResponse { tasks, preview }))
    }

    async fn delete_host(
        &self,
        request: Request<DeleteHostRequest>,
    ) -> Result<Response<DeleteHostResponse>, Status> {
        let (caller, DeleteHostRequest { host_id, force, reason, terms }) = self.admitted(request).await?;
        let preview = self.delete(caller, delete_order(vec![host_id], force, reason, terms)?).await?;
        Ok(told(preview.is_some(), DeleteHostResponse { preview }))
    }

    async fn batch_delete_hosts(
        &self,
        request: Request<BatchDeleteHostsRequest>,
    ) -> Result<Response<BatchDeleteHostsResponse>, Status> {
        let (caller, BatchDeleteHostsRequest { host_ids, force, reason, terms }) =
            self.admitted(request).await?;
        let preview = self.delete(caller, delete_order(host_ids, force, reason, terms)?).await?;
        Ok(told(preview.is_some(), BatchDeleteHostsResponse { preview }))
    }
}

impl Api {
    async fn delete(
        &self,
        caller: Caller,
        (order, terms): (DeleteOrder, Terms),
    ) -> Result<Option<OrderPreview>, Error> {
        let (hosts, which) = (order.hosts.clone(), delete::which(&order.hosts));
        let given = self
            .change(caller, &terms, which, async move |app, caller| {
                delete::delete(&app, &caller, order).await
            })
            .await?;
        let given = given.planned(|preview| preview.warnings = delete::warnings(&self.app, &hosts));
        Ok(given_to_wire(given, |()| ()).1)
    }
}
