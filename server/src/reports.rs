//! The streams on which agents report: who they are, what they run, and that they are alive.

use std::{pin::Pin, sync::Arc, time::Duration};

use belay_proto::{
    HostId, Problem, Reason,
    fleet::v1::{ReportRequest, ReportResponse, Welcome, fleet_service_server::FleetService},
};
use jiff::Timestamp;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, info, warn};

use crate::{
    app::App,
    clones::Agent,
    convert::{Report, report},
    error::Error,
    fleet::OFFLINE_AFTER,
    host::{Facts, target},
    local::{self, LocalOperation},
    order,
    store::Declared,
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

type Acknowledgements = mpsc::Sender<Result<ReportResponse, Status>>;

impl Reports {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Takes in who reports. Gives the token that ends the stream when a newer one takes its place.
    async fn welcome(
        &self,
        facts: Facts,
        machine: String,
        declared: Vec<Declared>,
    ) -> Result<(HostId, CancellationToken), Error> {
        let app = &self.app;
        let now = Timestamp::now();
        let agent = Agent::of(&facts, machine);
        let stream = app.shutdown.child_token();
        app.fleet.refuse_deleted(&facts)?;
        if let Some(id) = app.fleet.connect_beside(&facts.identity, &agent, &stream) {
            return Ok((id, stream));
        }
        let (host, processes) = match app.fleet.recognize(&facts, &declared, now) {
            Some(recorded) => recorded,
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
        info!(host = %id, name = facts.name, address = facts.address, incarnation = facts.incarnation, "Agent connected.");
        let (unsettled, connected) = (app.clone(), stream.clone());
        app.background
            .spawn(async move { connected.run_until_cancelled(order::settle_unknown(&unsettled, id)).await });
        Ok((id, stream))
    }

    /// An agent is the one that its certificate names, and no other (hazard S16).
    fn check_part(&self, part: &Part, facts: &Facts) -> Result<(), Error> {
        let Part::Agent(host) = part else {
            return Err(Error::Internal("who is no agent was let through to report".into()));
        };
        match self.app.fleet.host_of(&facts.identity) {
            Some(own) if own == *host => Ok(()),
            _ => {
                warn!(%host, identity = facts.identity, name = facts.name, "An agent shows the certificate of another host.");
                Err(Error::Refused(
                    Problem::new(
                        Reason::CertificateRefused,
                        format!("the certificate is that of host {host}, and this agent is another one"),
                    )
                    .target(target(*host))
                    .hint("join with a token of its own: `belay host token create`")
                    .chinese(
                        format!("该证书属于主机 {host}，而这是另一个 Agent"),
                        "请用它自己的令牌加入：`belay host token create`",
                    ),
                ))
            }
        }
    }

    /// How the authorities stand; empty where plain text is spoken.
    fn standing(&self) -> String {
        self.app.trust.as_ref().map(|trust| trust.standing().borrow().clone()).unwrap_or_default()
    }

    /// Reads a stream until it ends, falls silent, or is replaced.
    async fn follow(
        &self,
        host: HostId,
        incarnation: &str,
        stream: &CancellationToken,
        mut reports: Streaming<ReportRequest>,
        acknowledge: Acknowledgements,
    ) -> Result<(), Status> {
        let patience = self.app.heartbeat * OFFLINE_AFTER;
        let mut untaken: Option<(u64, LocalOperation)> = None;
        loop {
            let next = tokio::select! {
                next = timeout(patience, reports.message()) => next,
                () = stream.cancelled() => return Err(match self.app.shutdown.is_cancelled() {
                    true => Error::ShuttingDown.into(),
                    false => Status::aborted("a newer stream of this agent took its place"),
                }),
            };
            let Ok(next) = next else {
                return Err(Status::deadline_exceeded(format!("no report for {patience:?}")));
            };
            let Some(message) = next? else { return Ok(()) };
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
                && let Some((sequence, operation)) = untaken.take()
            {
                // What is not written down is not acknowledged: the agent tells it again.
                local::take_in(&self.app, host, operation).await?;
                taken.push(sequence);
            }
            for sequence in taken {
                let acknowledged = ReportResponse { sequence, welcome: None, authorities: self.standing() };
                if acknowledge.send(Ok(acknowledged)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

#[tonic::async_trait]
impl FleetService for Reports {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<ReportResponse, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let part = request.extensions().get::<Part>().cloned();
        let mut reports = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, reports.message())
            .await
            .map_err(|_| Error::invalid("report", format!("no hello within {HELLO_TIMEOUT:?}")))??;
        let standing = first.as_ref().map(standing).unwrap_or_default();
        let Some((sequence, Report::Hello(facts, machine, declared))) = first.map(report).transpose()? else {
            return Err(Error::invalid("report", "the first message must be a hello").into());
        };
        if let Some(part) = &part {
            self.check_part(part, &facts)?;
            trust::confirm(&self.app, part, &standing).await?;
        }
        let incarnation = facts.incarnation.clone();
        let (host, stream) = self.welcome(*facts, machine, declared).await?;

        let (acknowledge, acknowledged) = mpsc::channel(ACKNOWLEDGEMENTS);
        let heartbeat_interval = self.app.heartbeat.try_into().ok();
        let welcome = Some(Welcome { host_id: host.get(), heartbeat_interval });
        // The channel is new and has room.
        let authorities = self.standing();
        let _ = acknowledge.try_send(Ok(ReportResponse { sequence, welcome, authorities }));

        let this = self.clone();
        let follow = async move {
            let end = this.follow(host, &incarnation, &stream, reports, acknowledge.clone()).await;
            this.app.fleet.disconnect(host, &incarnation, &stream);
            stream.cancel();
            match end {
                Ok(()) => info!(%host, "Agent disconnected."),
                Err(status) => {
                    warn!(%host, reason = status.message(), "Agent disconnected.");
                    // It may be gone already.
                    let _ = acknowledge.try_send(Err(status));
                }
            }
        };
        self.app.background.spawn(follow.in_current_span());
        Ok(Response::new(Box::pin(ReceiverStream::new(acknowledged))))
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
