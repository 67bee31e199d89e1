//! One simulated agent: its life, which the test begins and ends, and its answers to the server.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use belay_proto::{
    Problem, Reason,
    agent::v1::{
        self as pb, agent_service_server::AgentService, introduction_service_server::IntroductionService,
    },
};
use tokio::{sync::watch, time::sleep};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, metadata::MetadataMap};
use uuid::Uuid;

use super::{
    Script, Shared, listen, lock,
    operations::{Memory, Taken, Verb, Whom},
    report,
};

/// One simulated agent.
#[derive(Debug)]
pub struct SimulatedAgent {
    inner: Arc<Agent>,
    life: Mutex<Option<CancellationToken>>,
    /// Ends its reports alone.
    voice: Mutex<CancellationToken>,
}

/// What an agent is, through all its lives.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) identity: Uuid,
    pub(super) address: SocketAddr,
    pub(super) incarnation: Mutex<Uuid>,
    pub(super) memory: Mutex<Memory>,
    /// Rises when a process changes.
    pub(super) changes: watch::Sender<u64>,
    /// The id of the host, while it is welcomed.
    pub(super) host: watch::Sender<Option<i64>>,
}

impl SimulatedAgent {
    pub(super) async fn start(number: usize, shared: Arc<Shared>) -> Self {
        let listener = listen::bind(SocketAddr::from((shared.simulation.address, 0))).await;
        let memory = Memory::new(number, &shared.simulation.processes);
        let inner = Arc::new(Agent {
            number,
            identity: Uuid::new_v4(),
            address: listener.local_addr().expect("an address"),
            incarnation: Mutex::new(Uuid::new_v4()),
            changes: watch::Sender::new(memory.revision()),
            memory: Mutex::new(memory),
            host: watch::Sender::new(None),
            shared,
        });
        let agent = Self { inner, life: Mutex::new(None), voice: Mutex::default() };
        agent.live(listener);
        agent
    }

    /// What it makes of orders that arrive from now on.
    pub fn play(&self, script: Script) {
        lock(&self.inner.memory).script = script;
    }

    /// Whether a process of it runs.
    pub fn runs(&self, alias: &str) -> bool {
        lock(&self.inner.memory).runs(alias)
    }

    /// A process starts or ends by itself: nobody ordered it, so the ledger has nothing of it.
    pub fn happens(&self, alias: &str, running: bool) {
        let mut memory = lock(&self.inner.memory);
        memory.change(alias, running);
        self.inner.changes.send_replace(memory.revision());
    }

    /// The id of its host, while the server has it welcomed.
    pub fn host(&self) -> Option<i64> {
        *self.inner.host.borrow()
    }

    /// The id of its host, once the server has welcomed it.
    pub async fn wait_for_host(&self) -> i64 {
        let mut host = self.inner.host.subscribe();
        let welcomed = host.wait_for(Option::is_some).await.expect("its sender is in the agent");
        welcomed.expect("it is there")
    }

    /// Where it takes orders.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Its name, as the server shows it.
    pub fn name(&self) -> String {
        self.inner.name()
    }

    /// Goes away, as if its host had lost the network: it hears nothing and says nothing. What it has begun goes on.
    pub fn leave(&self) {
        if let Some(life) = lock(&self.life).take() {
            life.cancel();
        }
    }

    /// Reports no more, as if it could not reach the server, and takes orders still.
    pub fn fall_silent(&self) {
        lock(&self.voice).cancel();
    }

    /// Comes back after it has gone away, the same life of the program.
    pub async fn come_back(&self) {
        let mut life = lock(&self.life).take();
        assert!(life.take().is_none(), "it is there");
        let listener = listen::bind(self.inner.address).await;
        self.live(listener);
    }

    /// Comes back after it has gone away, as another life of the program: it remembers what was on its disk, and that is
    /// everything.
    pub async fn come_back_anew(&self) {
        *lock(&self.inner.incarnation) = Uuid::new_v4();
        self.come_back().await;
    }

    fn live(&self, listener: tokio::net::TcpListener) {
        let life = CancellationToken::new();
        tokio::spawn(life.clone().run_until_cancelled_owned(listen::serve(listener, self.inner.clone())));
        let voice = life.child_token();
        tokio::spawn(voice.clone().run_until_cancelled_owned(report::report(self.inner.clone())));
        *lock(&self.voice) = voice;
        *lock(&self.life) = Some(life);
    }
}

impl Drop for SimulatedAgent {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Agent {
    pub(super) fn name(&self) -> String {
        format!("simulated-{}", self.number)
    }

    /// Refuses who has not the fleet's token, and what is meant for another agent.
    fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let shown = metadata.get("authorization").map(|value| value.as_bytes());
        if shown != Some(format!("Bearer {}", self.shared.token).as_bytes()) {
            return Err(Problem::new(Reason::Unauthenticated, "the fleet's token is wrong").into());
        }
        let meant_for = metadata.get("belay-agent").map(|value| value.as_bytes());
        match meant_for.is_none_or(|meant_for| meant_for == self.identity.to_string().as_bytes()) {
            true => Ok(()),
            false => Err(Problem::new(Reason::WrongAgent, "this is the agent of another host").into()),
        }
    }

    /// Takes an order in, and answers when it has ended. The work goes on when the caller goes away.
    async fn order(
        self: &Arc<Self>,
        metadata: &MetadataMap,
        order: Option<pb::Order>,
        verb: Verb,
        whom: Whom,
    ) -> Result<Option<pb::Operation>, Status> {
        self.admit(metadata)?;
        let id = order.as_ref().map(|order| order.operation_id.clone()).unwrap_or_default();
        let taken = lock(&self.memory).order(order, verb, whom, &self.shared.orders)?;
        let mut ended = match taken {
            Taken::Known(ended) => ended,
            Taken::New(script, ended) => {
                self.begin(id, script);
                ended
            }
        };
        let gone = |_| Status::unavailable("the agent is gone");
        Ok(ended.wait_for(Option::is_some).await.map_err(gone)?.clone())
    }

    fn begin(self: &Arc<Self>, id: String, script: Script) {
        match script {
            Script::AtOnce => self.conclude(&id, None),
            Script::Fails(reason, message) => self.conclude(&id, Some((reason, message))),
            Script::Never => {}
            Script::After(time) => {
                let this = self.clone();
                tokio::spawn(async move {
                    sleep(time).await;
                    this.conclude(&id, None);
                });
            }
        }
    }

    fn conclude(&self, id: &str, failure: Option<(Reason, String)>) {
        let mut memory = lock(&self.memory);
        memory.conclude(id, failure, &self.shared.orders);
        self.changes.send_replace(memory.revision());
    }
}

/// The agent's side of the protocol.
#[derive(Debug, Clone)]
pub(super) struct Service(pub(super) Arc<Agent>);

macro_rules! orders {
    ($($rpc:ident($request:ident { $($field:ident),* }) -> $response:ident: $verb:expr, $whom:expr;)*) => {
        #[tonic::async_trait]
        impl AgentService for Service {
            $(
                async fn $rpc(
                    &self,
                    request: Request<pb::$request>,
                ) -> Result<Response<pb::$response>, Status> {
                    let (metadata, _, pb::$request { order, $($field),* }) = request.into_parts();
                    let operation = self.0.order(&metadata, order, $verb, $whom).await?;
                    Ok(Response::new(pb::$response { operation }))
                }
            )*

            async fn cancel_operation(
                &self,
                request: Request<pb::CancelOperationRequest>,
            ) -> Result<Response<pb::CancelOperationResponse>, Status> {
                let (metadata, _, pb::CancelOperationRequest { order }) = request.into_parts();
                self.0.admit(&metadata)?;
                let operation = lock(&self.0.memory).cancel(order, &self.0.shared.orders)?;
                Ok(Response::new(pb::CancelOperationResponse { operation: Some(operation) }))
            }

            async fn get_operation(
                &self,
                request: Request<pb::GetOperationRequest>,
            ) -> Result<Response<pb::GetOperationResponse>, Status> {
                let (metadata, _, pb::GetOperationRequest { operation_id }) = request.into_parts();
                self.0.admit(&metadata)?;
                let operation = Some(lock(&self.0.memory).standing(&operation_id)?);
                Ok(Response::new(pb::GetOperationResponse { operation }))
            }

            async fn plan_order(
                &self,
                _: Request<pb::PlanOrderRequest>,
            ) -> Result<Response<pb::PlanOrderResponse>, Status> {
                Err(Status::unimplemented("a simulated agent plans nothing"))
            }

            async fn get_inventory(
                &self,
                request: Request<pb::GetInventoryRequest>,
            ) -> Result<Response<pb::GetInventoryResponse>, Status> {
                self.0.admit(request.metadata())?;
                Ok(Response::new(pb::GetInventoryResponse {
                    identity: self.0.identity.to_string(),
                    incarnation: lock(&self.0.incarnation).to_string(),
                    processes: lock(&self.0.memory).changed_since(0),
                }))
            }

            type ReadLogStream = Pin<Box<dyn Stream<Item = Result<pb::ReadLogResponse, Status>> + Send>>;

            async fn read_log(
                &self,
                _: Request<pb::ReadLogRequest>,
            ) -> Result<Response<Self::ReadLogStream>, Status> {
                Err(Problem::new(Reason::LogUnknown, "a simulated agent has no logs").into())
            }
        }
    };
}

orders! {
    stop_process(StopProcessRequest { alias, mode }) -> StopProcessResponse: stop(mode), Whom::One(alias);
    start_process(StartProcessRequest { alias }) -> StartProcessResponse: Verb::Start, Whom::One(alias);
    restart_process(RestartProcessRequest { alias }) -> RestartProcessResponse: Verb::Restart, Whom::One(alias);
    stop_all_processes(StopAllProcessesRequest { mode }) -> StopAllProcessesResponse: stop(mode), Whom::All;
    start_all_processes(StartAllProcessesRequest {}) -> StartAllProcessesResponse: Verb::Start, Whom::All;
    stop_processes(StopProcessesRequest { aliases }) -> StopProcessesResponse: Verb::Stop, Whom::These(aliases);
    start_processes(StartProcessesRequest { aliases }) -> StartProcessesResponse: Verb::Start, Whom::These(aliases);
}

#[tonic::async_trait]
impl IntroductionService for Service {
    async fn introduce(
        &self,
        request: Request<pb::IntroduceRequest>,
    ) -> Result<Response<pb::IntroduceResponse>, Status> {
        self.0.admit(request.metadata())?;
        let (hello, _) = report::hello(&self.0);
        let server = format!("http://{}", self.0.shared.server);
        Ok(Response::new(pb::IntroduceResponse { hello: Some(hello), server }))
    }
}

fn stop(mode: i32) -> Verb {
    if mode == i32::from(pb::StopMode::Force) { Verb::ForceStop } else { Verb::Stop }
}
