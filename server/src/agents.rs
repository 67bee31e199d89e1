//! The only way out to a host: orders to its agent, and questions.
//!
//! An order is known by its operation id, so it may be sent again after a lost connection: the agent joins the work that
//! is under way, or answers with the outcome that it remembers. That is how an unknown outcome becomes a known one.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belay_proto::{
    HostId, Problem, Reason, Trace,
    agent::v1::{
        self as pb, agent_service_client::AgentServiceClient,
        introduction_service_client::IntroductionServiceClient,
    },
    tls::is_another,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Code, Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    api::LARGEST_OF_AGENT,
    convert::{Introduced, Operation, OperationState, introduced, inventory, planned, time},
    error::Error,
    fleet::{Fleet, Reachable},
    process::Observed,
    read_log::{Begin, Piece, ReadLog},
    terms::{Effect, Expected, PlannedProcess},
    trust::Trust,
};

/// How long a connection to an agent may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// A dead connection is found out within the sum of these two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Pauses between tries after a lost connection: from the first, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How much of a log may be on its way from an agent while nobody takes it, in bytes.
const LOG_WINDOW: u32 = 128 << 10;

/// What an agent is ordered to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Stop the process of this alias, as its settings say.
    Stop(String),
    /// Kill it at once, also where a stop of it is under way.
    ForceStop(String),
    /// Start it.
    Start(String),
    /// Stop it, then start it.
    Restart(String),
    /// Stop every process.
    StopAll,
    /// Start every process.
    StartAll,
    /// Stop these, base processes too.
    StopThese(Vec<String>),
    /// Start these, base processes too.
    StartThese(Vec<String>),
}

impl Verb {
    /// Whether the process is meant to run afterwards.
    pub(crate) fn starts(&self) -> bool {
        match self {
            Self::Start(_) | Self::Restart(_) | Self::StartAll | Self::StartThese(_) => true,
            Self::Stop(_) | Self::ForceStop(_) | Self::StopAll | Self::StopThese(_) => false,
        }
    }

    /// What it does to a process.
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Stop(_) | Self::ForceStop(_) | Self::StopAll | Self::StopThese(_) => Effect::Stop,
            Self::Start(_) | Self::StartAll | Self::StartThese(_) => Effect::Start,
            Self::Restart(_) => Effect::Restart,
        }
    }

    /// The RPC's name at the agent.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Stop(_) | Self::ForceStop(_) => "StopProcess",
            Self::Start(_) => "StartProcess",
            Self::Restart(_) => "RestartProcess",
            Self::StopAll => "StopAllProcesses",
            Self::StartAll => "StartAllProcesses",
            Self::StopThese(_) => "StopProcesses",
            Self::StartThese(_) => "StartProcesses",
        }
    }
}

/// One accepted order.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) verb: Verb,
    pub(crate) principal: String,
    pub(crate) trace: Trace,
    /// By when the agent must have ended the work. `None` leaves it to the stop settings there.
    pub(crate) budget: Option<Duration>,
    /// What the process must be, where it is for one.
    pub(crate) expected: Expected,
    /// Whether an earlier server may have sent it.
    pub(crate) resumed: bool,
}

impl Order {
    fn asked(&self) -> Asked {
        let (alias, stops) = match &self.verb {
            Verb::Stop(alias) | Verb::ForceStop(alias) => (Some(alias.clone()), true),
            Verb::Start(alias) | Verb::Restart(alias) => (Some(alias.clone()), false),
            Verb::StopAll | Verb::StopThese(_) => (None, true),
            Verb::StartAll | Verb::StartThese(_) => (None, false),
        };
        Asked { id: self.id, alias, stops }
    }
}

/// Why an order or a question has no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The agent said no.
    Refused(Problem),
    /// Nothing was heard: it may have arrived, or not.
    Lost(Status),
    /// What was heard can not be: it can not be read, or contradicts what was asked (hazard A14). It is no outcome.
    Wrong(String),
}

impl NoAnswer {
    /// What a caller is told of an agent that was asked and gave no answer.
    pub(crate) fn into_error(self, fleet: &Fleet, host: HostId) -> Error {
        match (self, fleet.reachable(host)) {
            (Self::Refused(problem), _) => Error::Agent(problem),
            (Self::Wrong(what), _) => Error::WrongAnswer { host, what },
            (Self::Lost(_), Err(cloned @ Error::AgentCloned { .. })) => cloned,
            (Self::Lost(status), _) => {
                let age = fleet.host(host).ok().and_then(|view| view.silence());
                Error::AgentUnreachable { host, age, source: Some(Box::new(status)) }
            }
        }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(problem) => write!(f, "{}", problem.message),
            Self::Lost(status) => write!(f, "{}", status.message()),
            Self::Wrong(what) => write!(f, "its answer can not be: {what}"),
        }
    }
}

/// What an answer about an order must be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) id: Uuid,
    /// The one process that was ordered; `None` where it was all of them.
    pub(crate) alias: Option<String>,
    /// Whether nothing of it may be alive when the order is done.
    pub(crate) stops: bool,
}

/// The agents of the fleet, as the server calls them.
#[derive(Debug)]
pub(crate) struct Agents {
    /// What agents are shown. `None` where they see a certificate.
    token: Option<MetadataValue<Ascii>>,
    trust: Option<Arc<Trust>>,
    epoch: u64,
    /// By address, host and generation: what was another agent's is never called as this one.
    channels: Mutex<HashMap<Line, Channel>>,
}

/// To whom a connection is: where, which host, and which generation of its certificate.
type Line = (String, HostId, u64);

impl Agents {
    /// Calls agents in TLS as the server of the fleet, or without that with the fleet's token, in the name of this epoch.
    ///
    /// # Errors
    /// Where the token has characters that can not be sent.
    pub(crate) fn new(token: &str, trust: Option<Arc<Trust>>, epoch: u64) -> Result<Self, Error> {
        let token = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Error::Internal("the fleet's token has characters that cannot be sent".into()))?;
        let token = Some(token).filter(|_| trust.is_none());
        Ok(Self { token, trust, epoch, channels: Mutex::default() })
    }

    /// Has an order carried out: sends it, and after a lost connection sends it again under the same operation id, for
    /// as long as `patience`. `deadline` bounds the whole.
    ///
    /// What may have arrived is sent again to another life of the agent only when it is that of the same host, for all that
    /// can be known (hazard A10): a copy would do it a second time, on a wrong host.
    pub(crate) async fn carry_out(
        &self,
        fleet: &Fleet,
        host: HostId,
        order: &Order,
        patience: Duration,
        deadline: Instant,
    ) -> Result<Operation, NoAnswer> {
        let mut lost_since: Option<Instant> = None;
        let mut sent_to: Option<String> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let lost = match self.send(fleet, host, order, &mut sent_to, deadline).await {
                Ok(operation) if operation.state != OperationState::Running => return Ok(operation),
                Ok(_) => NoAnswer::Wrong("the operation goes on, and that is no answer to an order".into()),
                Err(NoAnswer::Refused(problem)) => return Err(NoAnswer::Refused(problem)),
                // No byte of it was sent by anybody: that is no unknown outcome.
                Err(NoAnswer::Lost(status))
                    if lost_since.is_none() && !order.resumed && is_another(&status) =>
                {
                    return Err(NoAnswer::Refused(another_agent(host)));
                }
                Err(lost) => lost,
            };
            let since = *lost_since.get_or_insert_with(|| {
                warn!(%host, operation = %order.id, error = %lost, "No answer from the agent; asking again.");
                Instant::now()
            });
            if since.elapsed() + pause > patience || Instant::now() + pause > deadline {
                return Err(lost);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// What became of an operation. `None` where the order never arrived.
    pub(crate) async fn operation(
        &self,
        fleet: &Fleet,
        host: HostId,
        asked: &Asked,
    ) -> Result<Option<Operation>, NoAnswer> {
        let agent = reachable(fleet, host)?;
        let mut client = self.client(&agent)?;
        let operation_id = asked.id.to_string();
        let request = self.request(&agent, pb::GetOperationRequest { operation_id }, None);
        let answer = bounded(Instant::now() + QUESTION_TIMEOUT, client.get_operation(request)).await;
        match answer {
            Ok(answer) => Ok(Some(read(answer.operation, asked)?)),
            Err(NoAnswer::Refused(problem)) if problem.reason == Reason::OperationUnknown => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the agent leave alone what it has not begun of an order, and tells how the order stands then. One that never
    /// arrived has failed from then on. An agent of before this was possible is only asked.
    pub(crate) async fn cancel(
        &self,
        fleet: &Fleet,
        host: HostId,
        order: &Order,
    ) -> Result<Operation, NoAnswer> {
        self.cancel_unknown(fleet, host, &order.asked(), &order.principal).await
    }

    /// The same for an order of which only the id is left.
    pub(crate) async fn cancel_unknown(
        &self,
        fleet: &Fleet,
        host: HostId,
        asked: &Asked,
        principal: &str,
    ) -> Result<Operation, NoAnswer> {
        // A copy of the agent would say of every order that it never arrived.
        if !fleet.in_doubt_for(host).is_zero() {
            return Err(lost(Error::AgentDoubted(host)));
        }
        let agent = reachable(fleet, host)?;
        let mut client = self.client(&agent)?;
        let order = Some(pb::Order {
            operation_id: asked.id.to_string(),
            epoch: self.epoch,
            principal: principal.to_owned(),
            ..pb::Order::default()
        });
        let request = self.request(&agent, pb::CancelOperationRequest { order }, None);
        match bounded(Instant::now() + QUESTION_TIMEOUT, client.cancel_operation(request)).await {
            Ok(answer) => read(answer.operation, asked),
            Err(NoAnswer::Lost(status)) if status.code() == Code::Unimplemented => {
                let known = self.operation(fleet, host, asked).await?;
                known.ok_or_else(|| {
                    NoAnswer::Refused(Problem::new(Reason::Cancelled, "cancelled; the order never arrived"))
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Every process of a host, looked at now.
    pub(crate) async fn inventory(
        &self,
        fleet: &Fleet,
        host: HostId,
        trace: Trace,
    ) -> Result<Vec<(String, Observed)>, NoAnswer> {
        let agent = reachable(fleet, host)?;
        let mut client = self.client(&agent)?;
        let request = self.request(&agent, pb::GetInventoryRequest {}, Some(trace));
        let answer = bounded(Instant::now() + QUESTION_TIMEOUT, client.get_inventory(request)).await?;
        inventory(answer.processes).map_err(NoAnswer::Wrong)
    }

    /// What an order to the process of this alias would do, or with an empty one an order to all of them, by what the agent
    /// says. Nothing is done.
    pub(crate) async fn plan(
        &self,
        fleet: &Fleet,
        host: HostId,
        effect: Effect,
        alias: &str,
        expected: &Expected,
        trace: Trace,
    ) -> Result<Vec<PlannedProcess>, NoAnswer> {
        let agent = reachable(fleet, host)?;
        let mut client = self.client(&agent)?;
        let verb = match effect {
            Effect::Stop => pb::PlannedVerb::Stop,
            Effect::Start => pb::PlannedVerb::Start,
            Effect::Restart => pb::PlannedVerb::Restart,
        };
        let request = pb::PlanOrderRequest {
            verb: verb.into(),
            alias: alias.to_owned(),
            expected_generations: expected.generations.clone(),
            not_started_after: expected.not_started_after.map(time),
        };
        let request = self.request(&agent, request, Some(trace));
        match bounded(Instant::now() + QUESTION_TIMEOUT, client.plan_order(request)).await {
            Ok(answer) => {
                let ids = fleet.processes(host).unwrap_or_default();
                let id = |alias: &str| ids.iter().find(|known| known.alias == alias).map(|known| known.id);
                let read = |wire| planned(wire, &id).map_err(NoAnswer::Wrong);
                answer.processes.into_iter().map(read).collect()
            }
            Err(NoAnswer::Lost(status)) if status.code() == Code::Unimplemented => {
                let message = format!("the agent of host {host} is of a version that has no dry run");
                Err(NoAnswer::Refused(
                    Problem::new(Reason::RouteUnknown, message).hint("bring the agent up to date"),
                ))
            }
            Err(error) => Err(error),
        }
    }

    /// Who runs at an address at which the agent of a host is to be. Without TLS that may be anybody.
    pub(crate) async fn introduce(
        &self,
        host: HostId,
        address: &str,
        trace: Trace,
    ) -> Result<Introduced, NoAnswer> {
        let channel = self.connect(endpoint(address)?, host);
        let mut client = IntroductionServiceClient::new(channel).max_decoding_message_size(LARGEST_OF_AGENT);
        let request = self.signed(pb::IntroduceRequest {}, Some(trace));
        let answer = bounded(Instant::now() + QUESTION_TIMEOUT, client.introduce(request)).await?;
        introduced(answer).map_err(|error| NoAnswer::Wrong(error.to_string()))
    }

    /// Whether the agent with this identity answers at an address, within so long.
    pub(crate) async fn lives(&self, host: HostId, address: &str, identity: &str, within: Duration) -> bool {
        let agent = Reachable {
            host,
            address: address.to_owned(),
            identity: identity.to_owned(),
            incarnation: String::new(),
        };
        let Ok(channel) = endpoint(address).map(|endpoint| self.connect(endpoint, host)) else {
            return false;
        };
        let mut client = AgentServiceClient::new(channel).max_decoding_message_size(LARGEST_OF_AGENT);
        let request = self.request(&agent, pb::GetInventoryRequest {}, None);
        bounded(Instant::now() + within, client.get_inventory(request)).await.is_ok()
    }

    /// Reads a log, over a connection of its own: a reader that does not take what it asked for fills that one, and
    /// never the one of orders.
    pub(crate) async fn read_log(
        &self,
        fleet: &Fleet,
        alias: &str,
        read: &ReadLog,
        trace: Trace,
    ) -> Result<Log, NoAnswer> {
        use pb::read_log_request::From;
        let agent = fleet.reporting(read.host).map_err(lost)?;
        let endpoint = endpoint(&agent.address)?
            .initial_stream_window_size(LOG_WINDOW)
            .initial_connection_window_size(LOG_WINDOW);
        let channel = self.connect(endpoint, agent.host);
        let request = pb::ReadLogRequest {
            alias: alias.to_owned(),
            file: read.file.clone(),
            from: match read.begin {
                Begin::Start => None,
                Begin::Offset(offset) => Some(From::Offset(offset)),
                Begin::LastLines(lines) => Some(From::LastLines(lines)),
            },
            follow: read.follow,
        };
        let request = self.request(&agent, request, Some(trace));
        let mut client = AgentServiceClient::new(channel);
        let pieces = bounded(Instant::now() + QUESTION_TIMEOUT, client.read_log(request)).await?;
        Ok(Log { pieces })
    }

    async fn send(
        &self,
        fleet: &Fleet,
        host: HostId,
        order: &Order,
        sent_to: &mut Option<String>,
        deadline: Instant,
    ) -> Result<Operation, NoAnswer> {
        let agent = reachable(fleet, host)?;
        let is_new_there = match sent_to {
            None => order.resumed,
            Some(incarnation) => *incarnation != agent.incarnation,
        };
        if is_new_there && !fleet.in_doubt_for(host).is_zero() {
            return Err(lost(Error::AgentDoubted(host)));
        }
        *sent_to = Some(agent.incarnation.clone());
        let mut client = self.client(&agent)?;
        let wire = Some(pb::Order {
            operation_id: order.id.to_string(),
            epoch: self.epoch,
            principal: order.principal.clone(),
            budget: order.budget.and_then(|budget| budget.try_into().ok()),
            expected_generations: order.expected.generations.clone(),
            not_started_after: order.expected.not_started_after.map(time),
        });
        debug!(%host, operation = %order.id, verb = order.verb.name(), "Order sent.");
        let trace = Some(order.trace);
        let operation = match order.verb.clone() {
            Verb::Stop(alias) => {
                let mode = pb::StopMode::Unspecified.into();
                let request =
                    self.request(&agent, pb::StopProcessRequest { order: wire, alias, mode }, trace);
                bounded(deadline, client.stop_process(request)).await?.operation
            }
            Verb::ForceStop(alias) => {
                let mode = pb::StopMode::Force.into();
                let request =
                    self.request(&agent, pb::StopProcessRequest { order: wire, alias, mode }, trace);
                bounded(deadline, client.stop_process(request)).await?.operation
            }
            Verb::Start(alias) => {
                let request = self.request(&agent, pb::StartProcessRequest { order: wire, alias }, trace);
                bounded(deadline, client.start_process(request)).await?.operation
            }
            Verb::Restart(alias) => {
                let request = self.request(&agent, pb::RestartProcessRequest { order: wire, alias }, trace);
                bounded(deadline, client.restart_process(request)).await?.operation
            }
            Verb::StopAll => {
                let mode = pb::StopMode::Unspecified.into();
                let request = self.request(&agent, pb::StopAllProcessesRequest { order: wire, mode }, trace);
                bounded(deadline, client.stop_all_processes(request)).await?.operation
            }
            Verb::StartAll => {
                let request = self.request(&agent, pb::StartAllProcessesRequest { order: wire }, trace);
                bounded(deadline, client.start_all_processes(request)).await?.operation
            }
            Verb::StopThese(aliases) => {
                let request = self.request(&agent, pb::StopProcessesRequest { order: wire, aliases }, trace);
                bounded(deadline, client.stop_processes(request)).await?.operation
            }
            Verb::StartThese(aliases) => {
                let request = self.request(&agent, pb::StartProcessesRequest { order: wire, aliases }, trace);
                bounded(deadline, client.start_processes(request)).await?.operation
            }
        };
        read(operation, &order.asked())
    }

    /// One connection for each address, made when it is first needed and again when it is lost.
    fn client(&self, agent: &Reachable) -> Result<AgentServiceClient<Channel>, NoAnswer> {
        let generation = self.trust.as_ref().map_or(0, |trust| trust.generation(agent.host));
        let line = (agent.address.clone(), agent.host, generation);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(&line) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.connect(endpoint(&agent.address)?, agent.host);
                channels.insert(line, channel.clone());
                channel
            }
        };
        Ok(AgentServiceClient::new(channel).max_decoding_message_size(LARGEST_OF_AGENT))
    }

    /// Forgets the connection to an address that an agent has left.
    pub(crate) fn forget(&self, address: &str) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|(known, ..), _| known != address);
    }

    /// A connection that is made when it is needed: in TLS, to the agent of this host alone.
    fn connect(&self, endpoint: Endpoint, host: HostId) -> Channel {
        match &self.trust {
            Some(trust) => endpoint.connect_with_connector_lazy(trust.connector(host)),
            None => endpoint.connect_lazy(),
        }
    }

    fn request<T>(&self, agent: &Reachable, message: T, trace: Option<Trace>) -> Request<T> {
        let mut request = self.signed(message, trace);
        // An identity is a UUID, which metadata can carry.
        if let Ok(identity) = agent.identity.parse() {
            request.metadata_mut().insert("belay-agent", identity);
        }
        request
    }

    /// A call to an agent of the fleet.
    fn signed<T>(&self, message: T, trace: Option<Trace>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(trace) = trace {
            trace.into_metadata(request.metadata_mut());
        }
        request
    }
}

/// A log that is being read. When it is dropped, its agent stops.
#[derive(Debug)]
pub(crate) struct Log {
    pieces: Streaming<pb::ReadLogResponse>,
}

impl Log {
    /// The next piece. `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, NoAnswer> {
        let next = self.pieces.message().await.map_err(no_answer)?;
        Ok(next.map(|pb::ReadLogResponse { offset, data }| Piece { offset, data }))
    }
}

fn endpoint(address: &str) -> Result<Endpoint, NoAnswer> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| NoAnswer::Lost(Status::unavailable(format!("`{address}`: {error}"))))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

fn reachable(fleet: &Fleet, host: HostId) -> Result<Reachable, NoAnswer> {
    fleet.reachable(host).map_err(lost)
}

fn lost(error: Error) -> NoAnswer {
    NoAnswer::Lost(Status::unavailable(error.to_string()))
}

async fn bounded<T>(
    deadline: Instant,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, NoAnswer> {
    match timeout_at(deadline, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(no_answer(status)),
        Err(_) => Err(NoAnswer::Lost(Status::new(Code::DeadlineExceeded, "no answer in time"))),
    }
}

fn no_answer(status: Status) -> NoAnswer {
    match Problem::from_status(&status) {
        Some(problem) if problem.reason != Reason::ShuttingDown => NoAnswer::Refused(problem),
        _ => NoAnswer::Lost(status),
    }
}

/// What the certificate shows of whoever answers where the agent of a host should.
fn another_agent(host: HostId) -> Problem {
    Problem::new(
        Reason::WrongAgent,
        format!("another agent answers at the address of the agent of host {host}; nothing was done"),
    )
    .target(format!("hosts/{host}"))
    .hint("where two agents report the same address, give each its own `advertise`; see `belay host list`")
}

/// Reads what an agent says of an operation, and holds it against what was asked.
fn read(operation: Option<pb::Operation>, asked: &Asked) -> Result<Operation, NoAnswer> {
    let read = operation.ok_or_else(|| "it has no operation".to_owned()).and_then(Operation::read);
    let checked = read.and_then(|operation| operation.check(asked).map(|()| operation));
    checked.map_err(NoAnswer::Wrong)
}
