//! What is ordered of an agent, and asked.

use std::time::Duration;

use belay_proto::agent::v1::{agent_service_client::AgentServiceClient, *};
use tokio::task::JoinHandle;
use tonic::{Request, Status, Streaming, transport::Channel};

use super::{Host, TOKEN, operation_id};

/// What is ordered.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Stop(&'static str),
    Start(&'static str),
    Restart(&'static str),
    StopAll,
    StartAll,
    Cancel,
}

impl Host {
    /// Orders this under an id, as a server of this epoch.
    pub(crate) fn ask(
        &self,
        ask: Ask,
        id: &str,
        epoch: u64,
    ) -> impl Future<Output = Result<Operation, Status>> + Send + 'static {
        let mut client = self.client.clone();
        let order = order(id).map(|order| Order { epoch, ..order });
        async move {
            let operation = match ask {
                Ask::Stop(alias) => {
                    let request = StopProcessRequest { order, alias: alias.to_owned(), ..Default::default() };
                    client.stop_process(authorized(request, TOKEN)).await?.into_inner().operation
                }
                Ask::Start(alias) => {
                    let request = StartProcessRequest { order, alias: alias.to_owned() };
                    client.start_process(authorized(request, TOKEN)).await?.into_inner().operation
                }
                Ask::Restart(alias) => {
                    let request = RestartProcessRequest { order, alias: alias.to_owned() };
                    client.restart_process(authorized(request, TOKEN)).await?.into_inner().operation
                }
                Ask::StopAll => {
                    let request = StopAllProcessesRequest { order, ..Default::default() };
                    client.stop_all_processes(authorized(request, TOKEN)).await?.into_inner().operation
                }
                Ask::StartAll => {
                    let request = StartAllProcessesRequest { order };
                    client.start_all_processes(authorized(request, TOKEN)).await?.into_inner().operation
                }
                Ask::Cancel => {
                    let request = CancelOperationRequest { order };
                    client.cancel_operation(authorized(request, TOKEN)).await?.into_inner().operation
                }
            };
            Ok(operation.unwrap())
        }
    }

    /// Pieces of a log.
    pub(crate) async fn read_log(
        &self,
        request: ReadLogRequest,
    ) -> Result<Streaming<ReadLogResponse>, Status> {
        Ok(self.client.clone().read_log(authorized(request, TOKEN)).await?.into_inner())
    }

    pub(crate) async fn stop(&self, alias: &str) -> Result<Operation, Status> {
        self.stop_as(alias, &operation_id()).await
    }

    pub(crate) async fn stop_as(&self, alias: &str, id: &str) -> Result<Operation, Status> {
        stop(self.client.clone(), alias.to_owned(), order(id), TOKEN).await
    }

    pub(crate) async fn stop_in_epoch(&self, alias: &str, epoch: u64) -> Result<Operation, Status> {
        let order = order(&operation_id()).map(|order| Order { epoch, ..order });
        stop(self.client.clone(), alias.to_owned(), order, TOKEN).await
    }

    pub(crate) async fn stop_by(&self, alias: &str, principal: &str) -> Result<Operation, Status> {
        let order = order(&operation_id()).map(|order| Order { principal: principal.to_owned(), ..order });
        stop(self.client.clone(), alias.to_owned(), order, TOKEN).await
    }

    pub(crate) async fn stop_within(&self, alias: &str, budget: Duration) -> Result<Operation, Status> {
        let order = order(&operation_id()).map(|order| Order { budget: budget.try_into().ok(), ..order });
        stop(self.client.clone(), alias.to_owned(), order, TOKEN).await
    }

    pub(crate) async fn stop_with_token(
        &self,
        alias: &str,
        token: &'static str,
    ) -> Result<Operation, Status> {
        stop(self.client.clone(), alias.to_owned(), order(&operation_id()), token).await
    }

    pub(crate) fn stop_in_background(&self, alias: &str, id: &str) -> JoinHandle<Result<Operation, Status>> {
        tokio::spawn(stop(self.client.clone(), alias.to_owned(), order(id), TOKEN))
    }

    pub(crate) async fn start_process(&self, alias: &str) -> Result<Operation, Status> {
        let request = StartProcessRequest { order: order(&operation_id()), alias: alias.to_owned() };
        let response = self.client.clone().start_process(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn restart(&self, alias: &str) -> Result<Operation, Status> {
        let request = RestartProcessRequest { order: order(&operation_id()), alias: alias.to_owned() };
        let response = self.client.clone().restart_process(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn stop_all(&self) -> Result<Operation, Status> {
        let request = StopAllProcessesRequest { order: order(&operation_id()), ..Default::default() };
        let response = self.client.clone().stop_all_processes(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn start_all(&self) -> Result<Operation, Status> {
        let request = StartAllProcessesRequest { order: order(&operation_id()) };
        let response = self.client.clone().start_all_processes(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn operation(&self, id: &str) -> Result<Operation, Status> {
        let request = GetOperationRequest { operation_id: id.to_owned() };
        let response = self.client.clone().get_operation(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn process(&self, alias: &str) -> ObservedProcess {
        let all = self.inventory().await;
        all.into_iter().find(|process| process.alias == alias).unwrap()
    }

    pub(crate) async fn inventory(&self) -> Vec<ObservedProcess> {
        self.try_inventory().await.unwrap()
    }

    pub(crate) async fn try_inventory(&self) -> Result<Vec<ObservedProcess>, Status> {
        let request = authorized(GetInventoryRequest {}, TOKEN);
        let response = self.client.clone().get_inventory(request).await?;
        Ok(response.into_inner().processes)
    }
}

async fn stop(
    mut client: AgentServiceClient<Channel>,
    alias: String,
    order: Option<Order>,
    token: &'static str,
) -> Result<Operation, Status> {
    let request = StopProcessRequest { order, alias, ..Default::default() };
    let response = client.stop_process(authorized(request, token)).await?;
    Ok(response.into_inner().operation.unwrap())
}

fn order(id: &str) -> Option<Order> {
    Some(Order {
        operation_id: id.to_owned(),
        epoch: 1,
        principal: "test".to_owned(),
        budget: None,
        ..Order::default()
    })
}

fn authorized<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}
