//! The streams on which agents report: who they are, what they run, and that they are alive.

use std::{
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use belay_proto::{
    HostId, Problem, Reason,
    fleet::v1::{ReportRequest, ReportResponse, Welcome, fleet_service_server::FleetService},
    listen, planted,
    tls::Identity,
};
use jiff::Timestamp;
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, info, warn};

use crate::{
    app::App,
    clones::Agent,
    convert::{Hello, Report, report},
    error::Error,
    fleet::OFFLINE_AFTER,
    flood::Verdict,
    host::{Facts, target},
    local::{self, LocalOperation},
    order,
    trust::{self, Part},
};

/// How long an agent has to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Acknowledgements under way: an agent that does not read them is not read either.
const ACKNOWLEDGEMENTS: usize = 8;

/// Takes the reports of agents.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    app: Arc<App>,
}

/// Who reports on a stream.
struct Reporter {
    host: HostId,
    identity: String,
    incarnation: String,
    /// Of the certificate that it showed.
    generation: u64,
}

/// How a stream came to its end.
enum Over {
    /// The agent has ended it.
    Ended,
    /// Its connection is old, and the agent is to report on another one.
    Old,
}

type Acknowledgements = mpsc::Sender<Result<ReportResponse, Status>>;

impl Reports {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Takes in who reports. Gives the token that ends the stream when a newer one takes its place.
    async fn welcome(&self, hello: Hello) -> Result<(HostId, CancellationToken), Error> {
        let Hello { facts, machine, declared, policy, time } = hello;
        let app = &self.app;
        let now = Timestamp::now();
        refuse_own_address(app, &facts)?;
        let agent = Agent::of(&facts, machine);
        let stream = app.shutdown.child_token();
        app.fleet.refuse_deleted(&facts)?;
        if let Some(id) = app.fleet.connect_beside(&facts.identity, &agent, &stream) {
            return Ok((id, stream));
        }
        let (host, processes) = match app.fleet.recognize(&facts, &declared, now) {
            Some(recorded) => recorded,
            None if app.fleet.with_agent(&facts).is_none() && !app.floods.newcomer(Instant::now()) => {
                return Err(too_many("agents that were never heard before"));
            }
            None => app.registrar.register(facts.clone(), declared.clone()).await?,
        };
        let id = host.id;
        if let Ok(before) = app.fleet.host(id)
            && before.host.facts.address != facts.address
        {
            app.agents.forget(&before.host.facts.address);
        }
        let mut declared = declared;
        let observed = processes
            .into_iter()
            .map(|process| {
                let place = declared.iter().position(|declared| declared.alias == process.alias);
                let seen = place.map(|place| declared.swap_remove(place).observed);
                (process, seen)
            })
            .collect();
        if !app.fleet.connect(host, agent, observed, now, stream.clone()) {
            return Err(Error::Refused(
                Problem::new(Reason::HostWrongState, format!("host {id} is being deleted"))
                    .target(target(id))
                    .hint("come again in a moment"),
            ));
        }
        app.fleet.set_conduct(id, policy, time.map(|time| time.duration_since(now)));
        info!(host = %id, name = facts.name, address = facts.address, incarnation = facts.incarnation, "Agent connected.");
        let (unsettled, connected) = (app.clone(), stream.clone());
        app.background
            .spawn(async move { connected.run_until_cancelled(order::settle_unknown(&unsettled, id)).await });
        Ok((id, stream))
    }

    /// Waits where an agent says more than it may: what it says next waits at its own end then. Who does not let up is cut
    /// off (hazard A13).
    async fn slow_down(
        &self,
        host: HostId,
        identity: &str,
        bytes: usize,
        stream: &CancellationToken,
    ) -> Result<(), Status> {
        match self.app.floods.report(identity, bytes, Instant::now()) {
            Verdict::Take => Ok(()),
            Verdict::Slow(wait) => {
                self.app.fleet.note_trouble(host, SAYS_TOO_MUCH, Instant::now());
                // A stream that ends meanwhile ends where it is read.
                let _ = stream.run_until_cancelled(sleep(wait)).await;
                Ok(())
            }
            Verdict::Cut => {
                self.app.fleet.note_trouble(host, SAYS_TOO_MUCH, Instant::now());
                Err(too_many("reports of this agent").into())
            }
        }
    }

    /// An agent is the one that its certificate names, and no other (hazard S16).
    fn check_part(&self, part: &Part, facts: &Facts) -> Result<(), Error> {
        let Part::Agent(host) = part else {
            return Err(Error::Internal("who is no agent was let through to report".into()));
        };
        let is_own = self.app.trust.as_ref().is_some_and(|trust| trust.is_own());
        // A host that was created waits for the agent at its address. It has joined as that one, unless nobody joins.
        let known = match is_own {
            true => self.app.fleet.with_agent(facts),
            false => self.app.fleet.host_of(&facts.identity),
        };
        match known {
            Some(own) if own == *host => Ok(()),
            _ => {
                warn!(%host, identity = facts.identity, name = facts.name, "An agent shows the certificate of another host.");
                Err(Error::Refused(
                    Problem::new(
                        Reason::CertificateRefused,
                        format!("the certificate is that of host {host}, and this agent is another one"),
                    )
                    .target(target(*host))
                    .hint(match is_own {
                        true => "bring a certificate of its own host; a new host is created first, with the address of its agent",
                        false => "join with a token of its own: `belay host token create`",
                    })
                    .chinese(
                        format!("该证书属于主机 {host}，而这是另一个 Agent"),
                        match is_own {
                            true => "请提供属于该主机自己的证书；新主机须先用其 Agent 的地址创建",
                            false => "请用它自己的令牌加入：`belay host token create`",
                        },
                    ),
                ))
            }
        }
    }

    /// The generation of a host's certificate that is in force; 0 where plain text is spoken.
    fn generation(&self, host: HostId) -> u64 {
        self.app.trust.as_ref().map_or(0, |trust| trust.generation(host))
    }

    /// How the authorities stand; empty where plain text is spoken.
    fn standing(&self) -> String {
        self.app.trust.as_ref().map(|trust| trust.standing().borrow().clone()).unwrap_or_default()
    }

    /// Reads a stream until it ends, falls silent, or is replaced.
    async fn follow(
        &self,
        Reporter { host, identity, incarnation, generation }: &Reporter,
        stream: &CancellationToken,
        connection: Option<&listen::Caller>,
        mut reports: Streaming<ReportRequest>,
        acknowledge: Acknowledgements,
    ) -> Result<Over, Status> {
        let host = *host;
        let patience = self.app.heartbeat * OFFLINE_AFTER;
        let mut untaken: Option<(u64, LocalOperation)> = None;
        loop {
            let next = tokio::select! {
                next = timeout(patience, reports.message()) => next,
                () = stream.cancelled() => return Err(match self.app.shutdown.is_cancelled() {
                    true => Error::ShuttingDown.into(),
                    false => Status::aborted("a newer stream of this agent took its place"),
                }),
                () = is_old(connection) => return Ok(Over::Old),
            };
            let Ok(next) = next else {
                return Err(Status::deadline_exceeded(format!("no report for {patience:?}")));
            };
            let Some(message) = next? else { return Ok(Over::Ended) };
            if let Some(trust) = &self.app.trust
                && trust.generation(host) != *generation
                && !planted("lower-generation-reports")
            {
                let identity = Identity::Host { id: host, generation: *generation };
                return Err(trust.superseded(&identity).into());
            }
            self.slow_down(host, identity, message.encoded_len(), stream).await?;
            let mut taken = Vec::with_capacity(2);
            let observed = match report(message)? {
                (sequence, Report::Changed(observed)) => {
                    taken.push(sequence);
                    observed
                }
                (sequence, Report::Local(operation)) => {
                    // A second one before the first is acknowledged is told again on the next stream.
                    untaken.get_or_insert((sequence, operation));
                    Vec::new()
                }
                (_, Report::Hello(..)) => {
                    return Err(Error::invalid("report", "a hello is the first message only").into());
                }
            };
            self.app.fleet.report(host, incarnation, stream, observed, Timestamp::now());
            // Of which host it is, is not known while another agent has the same identity.
            if untaken.is_some()
                && self.app.fleet.reachable(host).is_ok()
                && self.app.floods.local(identity, Instant::now())
                && let Some((sequence, operation)) = untaken.take()
            {
                // What is not written down is not acknowledged: the agent tells it again.
                local::take_in(&self.app, host, operation).await?;
                taken.push(sequence);
            }
            for sequence in taken {
                let acknowledged = ReportResponse { sequence, welcome: None, authorities: self.standing() };
                if acknowledge.send(Ok(acknowledged)).await.is_err() {
                    return Ok(Over::Ended);
                }
            }
        }
    }
}

/// Ends when the agent is to report on another connection, which it makes at once when its stream ends in good order.
async fn is_old(connection: Option<&listen::Caller>) {
    match connection {
        Some(connection) => connection.should_end().await,
        None => pending().await,
    }
}

/// What is shown of an agent that floods.
const SAYS_TOO_MUCH: &str =
    "it sends more reports than an agent has reason to; it is read slowly, and cut off where it goes on";
const OPENS_TOO_OFTEN: &str = "it connects again and again; most of its streams are refused";

fn too_many(what: &str) -> Error {
    Error::Refused(
        Problem::new(Reason::Overloaded, format!("too many {what}"))
            .hint("see what the agent logs, and whether two agents have one identity")
            .retry_after(Duration::from_secs(10)),
    )
}

/// Refuses an agent that says it is reached at this server's own address: every order for it would come back here, with the
/// fleet's token (hazard S27).
fn refuse_own_address(app: &App, facts: &Facts) -> Result<(), Error> {
    let Ok(told) = facts.address.parse::<SocketAddr>() else { return Ok(()) };
    let (ours, theirs) = (app.address.ip().to_canonical(), told.ip().to_canonical());
    let same_machine = theirs == ours || ours.is_unspecified() && theirs.is_loopback();
    match same_machine && told.port() == app.address.port() {
        false => Ok(()),
        true => Err(Error::invalid("address", format!("{told} is the address of the server itself"))),
    }
}

/// The standing of the authorities that an agent says it has.
fn standing(report: &ReportRequest) -> String {
    use belay_proto::fleet::v1::report_request::Report::Hello;
    match &report.report {
        Some(Hello(hello)) => hello.authorities.clone(),
        _ => String::new(),
    }
}

#[tonic::async_trait]
impl FleetService for Reports {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<ReportResponse, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let connection = request.extensions().get().cloned();
        let part = request.extensions().get::<Part>().cloned();
        let generation = match part {
            Some(Part::Agent(host)) => self.generation(host),
            _ => 0,
        };
        #[allow(clippy::disallowed_methods)] // an agent names nothing of a caller's
        let mut reports = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, reports.message())
            .await
            .map_err(|_| Error::invalid("report", format!("no hello within {HELLO_TIMEOUT:?}")))??;
        let bytes = first.as_ref().map_or(0, Message::encoded_len);
        let standing = first.as_ref().map(standing).unwrap_or_default();
        let Some((sequence, Report::Hello(hello))) = first.map(report).transpose()? else {
            return Err(Error::invalid("report", "the first message must be a hello").into());
        };
        let (identity, incarnation) = (hello.facts.identity.clone(), hello.facts.incarnation.clone());
        match self.app.floods.hello(&identity, bytes, Instant::now()) {
            Verdict::Take => {}
            Verdict::Slow(wait) => sleep(wait).await,
            Verdict::Cut => {
                if let Some(host) = self.app.fleet.with_agent(&hello.facts) {
                    self.app.fleet.note_trouble(host, OPENS_TOO_OFTEN, Instant::now());
                }
                return Err(too_many("streams of this agent").into());
            }
        }
        if let Some(part) = &part {
            self.check_part(part, &hello.facts)?;
            trust::confirm(&self.app, part, &standing).await?;
        }
        let (host, stream) = self.welcome(*hello).await?;

        let (acknowledge, acknowledged) = mpsc::channel(ACKNOWLEDGEMENTS);
        let heartbeat_interval = self.app.heartbeat.try_into().ok();
        let welcome = Some(Welcome { host_id: host.get(), heartbeat_interval });
        // The channel is new and has room.
        let authorities = self.standing();
        let _ = acknowledge.try_send(Ok(ReportResponse { sequence, welcome, authorities }));

        let this = self.clone();
        let reporter = Reporter { host, identity, incarnation, generation };
        let follow = async move {
            let end =
                this.follow(&reporter, &stream, connection.as_ref(), reports, acknowledge.clone()).await;
            let acknowledge = match end {
                // The end of the answers is what the agent hears. It is taken to be there until it has had its time to come
                // again, or has.
                Ok(Over::Old) => {
                    drop(acknowledge);
                    let patience = this.app.heartbeat * OFFLINE_AFTER;
                    if timeout(patience, stream.cancelled()).await.is_ok() {
                        return;
                    }
                    None
                }
                Ok(Over::Ended) | Err(_) => Some(acknowledge),
            };
            this.app.fleet.disconnect(host, &reporter.incarnation, &stream);
            stream.cancel();
            match end {
                Ok(_) => info!(%host, "Agent disconnected."),
                Err(status) => {
                    warn!(%host, reason = status.message(), "Agent disconnected.");
                    // It may be gone already.
                    let _ = acknowledge.map(|acknowledge| acknowledge.try_send(Err(status)));
                }
            }
        };
        self.app.background.spawn(follow.in_current_span());
        Ok(Response::new(Box::pin(ReceiverStream::new(acknowledged))))
    }
}
