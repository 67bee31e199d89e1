//! The streams on which agents report: who they are, what they run, and that they are alive.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use belay_proto::{
    HostId, Problem, Reason,
    fleet::v1::{ReportRequest, ReportResponse, Welcome, fleet_service_server::FleetService},
    listen,
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

    /// Reads a stream until it ends, falls silent, or is replaced.
    async fn follow(
        &self,
        host: HostId,
        incarnation: &str,
        stream: &CancellationToken,
        connection: Option<&listen::Caller>,
        mut reports: Streaming<ReportRequest>,
        acknowledge: Acknowledgements,
    ) -> Result<Over, Status> {
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
                let acknowledged = ReportResponse { sequence, welcome: None };
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

#[tonic::async_trait]
impl FleetService for Reports {
    type ReportStream = Pin<Box<dyn Stream<Item = Result<ReportResponse, Status>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let connection = request.extensions().get().cloned();
        #[allow(clippy::disallowed_methods)] // an agent names nothing of a caller's
        let mut reports = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, reports.message())
            .await
            .map_err(|_| Error::invalid("report", format!("no hello within {HELLO_TIMEOUT:?}")))??;
        let Some((sequence, Report::Hello(facts, machine, declared))) = first.map(report).transpose()? else {
            return Err(Error::invalid("report", "the first message must be a hello").into());
        };
        let incarnation = facts.incarnation.clone();
        let (host, stream) = self.welcome(*facts, machine, declared).await?;

        let (acknowledge, acknowledged) = mpsc::channel(ACKNOWLEDGEMENTS);
        let heartbeat_interval = self.app.heartbeat.try_into().ok();
        let welcome = Some(Welcome { host_id: host.get(), heartbeat_interval });
        // The channel is new and has room.
        let _ = acknowledge.try_send(Ok(ReportResponse { sequence, welcome }));

        let this = self.clone();
        let follow = async move {
            let end = this
                .follow(host, &incarnation, &stream, connection.as_ref(), reports, acknowledge.clone())
                .await;
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
            this.app.fleet.disconnect(host, &incarnation, &stream);
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
