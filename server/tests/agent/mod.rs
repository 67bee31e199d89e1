//! An agent that answers what a test wants.

#![allow(clippy::disallowed_methods)] // what a server sends to an agent names nothing of a caller's

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use belay_proto::{
    agent::v1::{
        agent_service_server::{AgentService, AgentServiceServer},
        *,
    },
    fleet::v1::Hello,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, transport::Server};
use uuid::Uuid;

use crate::fleet::{Fleet, hello};

/// What it says of an operation: by the alias of the process and the operation's id.
type Say = Box<dyn Fn(&str, &str) -> Result<Option<Operation>, Status> + Send + Sync>;

/// An agent that a test plays.
#[derive(Clone)]
pub(crate) struct FakeAgent {
    address: String,
    incarnation: String,
    host: watch::Sender<i64>,
    /// Whether questions for the inventory wait.
    held: watch::Sender<bool>,
    played: Arc<Mutex<Played>>,
}

struct Played {
    stop: Say,
    operation: Say,
    stop_all: Say,
    cancel: Say,
    /// Whether it was told to cancel, and how often it was ordered to stop all processes after that.
    cancelled: bool,
    stopped_after_cancel: usize,
    processes: Vec<ObservedProcess>,
    /// Operation ids by the alias that was ordered.
    orders: BTreeMap<String, String>,
    asked: usize,
}

impl fmt::Debug for FakeAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeAgent").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FakeAgent {
    /// Serves, with what it says to a stop, and where it is asked for an operation.
    pub(crate) async fn start(
        stop: impl Fn(&str, &str) -> Result<Option<Operation>, Status> + Send + Sync + 'static,
        operation: impl Fn(&str, &str) -> Result<Option<Operation>, Status> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let played = Played {
            stop: Box::new(stop),
            operation: Box::new(operation),
            stop_all: Box::new(|_, _| Err(Status::unavailable("nothing is heard"))),
            cancel: Box::new(|_, _| Err(Status::unimplemented("an agent of before"))),
            cancelled: false,
            stopped_after_cancel: 0,
            processes: Vec::new(),
            orders: BTreeMap::new(),
            asked: 0,
        };
        let agent = Self {
            address: listener.local_addr().unwrap().to_string(),
            incarnation: Uuid::new_v4().to_string(),
            host: watch::channel(0).0,
            held: watch::channel(false).0,
            played: Arc::new(Mutex::new(played)),
        };
        let service = AgentServiceServer::new(agent.clone());
        tokio::spawn(
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
        );
        agent
    }

    /// Its hello.
    pub(crate) fn hello(&self, processes: Vec<ObservedProcess>) -> Hello {
        let (address, incarnation) = (self.address.clone(), self.incarnation.clone());
        Hello { address, incarnation, ..hello(processes) }
    }

    /// Reports as a living agent does, on one stream after the other, until what is given is dropped.
    pub(crate) fn report(
        &self,
        fleet: &Arc<Fleet>,
        processes: Vec<ObservedProcess>,
    ) -> AbortOnDropHandle<()> {
        let (agent, fleet) = (self.clone(), fleet.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                if let Ok(mut stream) = fleet.hello(agent.hello(processes.clone())).await {
                    agent.host.send_replace(stream.host);
                    stream.beat().await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }))
    }

    /// The id of its host, once it was welcomed.
    pub(crate) async fn host(&self) -> i64 {
        *self.host.subscribe().wait_for(|host| *host != 0).await.unwrap()
    }

    /// From now on it says this where it is asked for an operation.
    pub(crate) fn now_say(
        &self,
        say: impl Fn(&str, &str) -> Result<Option<Operation>, Status> + Send + Sync + 'static,
    ) {
        self.played.lock().unwrap().operation = Box::new(say);
    }

    /// From now on it says this to the stop of all processes, of which the operation is named by an empty alias.
    pub(crate) fn now_stop_all(
        &self,
        processes: Vec<ObservedProcess>,
        say: impl Fn(&str, &str) -> Result<Option<Operation>, Status> + Send + Sync + 'static,
    ) {
        let mut played = self.played.lock().unwrap();
        (played.processes, played.stop_all) = (processes, Box::new(say));
    }

    /// From now on it says this where an operation is cancelled. Until then it does not know the call.
    pub(crate) fn now_cancel(
        &self,
        say: impl Fn(&str, &str) -> Result<Option<Operation>, Status> + Send + Sync + 'static,
    ) {
        self.played.lock().unwrap().cancel = Box::new(say);
    }

    /// Whether it was told to cancel, and how often it was ordered to stop all processes after that.
    pub(crate) fn cancelled(&self) -> (bool, usize) {
        let played = self.played.lock().unwrap();
        (played.cancelled, played.stopped_after_cancel)
    }

    /// From now on questions for its inventory wait, or no longer do.
    pub(crate) fn hold_inventory(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Whether a process was ordered.
    pub(crate) fn has_order(&self, alias: &str) -> bool {
        self.played.lock().unwrap().orders.contains_key(alias)
    }

    /// The operation id of the order to a process.
    pub(crate) fn ordered(&self, alias: &str) -> String {
        self.played.lock().unwrap().orders[alias].clone()
    }

    /// How often it was asked for an operation.
    pub(crate) fn asked(&self) -> usize {
        self.played.lock().unwrap().asked
    }
}

#[tonic::async_trait]
impl AgentService for FakeAgent {
    type ReadLogStream = Pin<Box<dyn Stream<Item = Result<ReadLogResponse, Status>> + Send>>;

    async fn stop_process(
        &self,
        request: Request<StopProcessRequest>,
    ) -> Result<Response<StopProcessResponse>, Status> {
        let StopProcessRequest { order, alias, .. } = request.into_inner();
        let id = order.unwrap().operation_id;
        let mut played = self.played.lock().unwrap();
        let first = played.orders.entry(alias.clone()).or_insert_with(|| id.clone());
        assert_eq!(*first, id, "it is the same order however often it is sent");
        let operation = (played.stop)(&alias, &id)?;
        Ok(Response::new(StopProcessResponse { operation }))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<GetOperationResponse>, Status> {
        let id = request.into_inner().operation_id;
        let mut played = self.played.lock().unwrap();
        played.asked += 1;
        let alias = played.orders.iter().find(|(_, known)| **known == id).map(|(alias, _)| alias.as_str());
        let operation = (played.operation)(alias.unwrap_or_default(), &id)?;
        Ok(Response::new(GetOperationResponse { operation }))
    }

    async fn start_process(
        &self,
        _: Request<StartProcessRequest>,
    ) -> Result<Response<StartProcessResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn restart_process(
        &self,
        _: Request<RestartProcessRequest>,
    ) -> Result<Response<RestartProcessResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn stop_all_processes(
        &self,
        request: Request<StopAllProcessesRequest>,
    ) -> Result<Response<StopAllProcessesResponse>, Status> {
        let id = request.into_inner().order.unwrap().operation_id;
        let mut played = self.played.lock().unwrap();
        let first = played.orders.entry(String::new()).or_insert_with(|| id.clone());
        assert_eq!(*first, id, "it is the same order however often it is sent");
        played.stopped_after_cancel += usize::from(played.cancelled);
        let operation = (played.stop_all)("", &id)?;
        Ok(Response::new(StopAllProcessesResponse { operation }))
    }

    async fn start_all_processes(
        &self,
        _: Request<StartAllProcessesRequest>,
    ) -> Result<Response<StartAllProcessesResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn stop_processes(
        &self,
        _: Request<StopProcessesRequest>,
    ) -> Result<Response<StopProcessesResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn start_processes(
        &self,
        _: Request<StartProcessesRequest>,
    ) -> Result<Response<StartProcessesResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<CancelOperationResponse>, Status> {
        let id = request.into_inner().order.unwrap().operation_id;
        let mut played = self.played.lock().unwrap();
        played.cancelled = true;
        let operation = (played.cancel)("", &id)?;
        Ok(Response::new(CancelOperationResponse { operation }))
    }

    async fn plan_order(&self, _: Request<PlanOrderRequest>) -> Result<Response<PlanOrderResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn get_inventory(
        &self,
        _: Request<GetInventoryRequest>,
    ) -> Result<Response<GetInventoryResponse>, Status> {
        // Its sender is in `self`.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        let processes = self.played.lock().unwrap().processes.clone();
        Ok(Response::new(GetInventoryResponse { processes, ..Default::default() }))
    }

    async fn read_log(&self, _: Request<ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        Err(Status::unimplemented("not played"))
    }
}
