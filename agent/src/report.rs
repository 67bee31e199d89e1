//! The agent's one stream to the server: a hello with all processes, then changes as they happen, and heartbeats.
//!
//! Nothing is queued for a server that is away: each new stream begins with everything, and on a stream only "what
//! changed since" is ever asked for. What was ordered on the host itself is in the journal until the server has
//! acknowledged it.

use std::{fs, path::PathBuf, time::Duration};

use belay_proto::{
    fail_point,
    fleet::v1::{self as pb, fleet_service_client::FleetServiceClient, report_request::Report},
    tls,
};
use blake2::{
    Blake2sMac256,
    digest::{KeyInit, Mac},
};
use jiff::Timestamp;
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    auth::ShowToken,
    convert,
    error::Chain,
    membership::Membership,
    supervisor::{News, Supervisor},
};

/// How long after a change others may follow that are reported with it.
const GATHER: Duration = Duration::from_millis(5);

/// How often a server that says nothing about it hears from the agent.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a server may ask for.
const HEARTBEATS: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(60);

/// A server that has not acknowledged anything for so many heartbeats is taken for gone.
const SILENCE: u32 = 3;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a welcome may take. A server to which a whole fleet comes back may need some time for it, and what it does for
/// an agent that gives up is in vain. With a connection and a pause it is less than the server's `clone_silence`.
const WELCOME: Duration = Duration::from_secs(10);

/// Finds out that the other side of a connection is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The first and the longest pause before the next attempt to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What makes the digest of a machine's id one of Belay's.
const MACHINE_KEY: &[u8] = b"belay host of an agent";

/// Bytes of it that are shown: enough for a person to tell machines apart.
const MACHINE_DIGEST: usize = 6;

/// Reports on the stream that wait to be sent: more only means that the server does not read.
const REPORT_QUEUE: usize = 4;

/// From then on the end of a stream in good order is the server's wish for another connection, not a fault.
const CALM: Duration = Duration::from_millis(500);

/// What a reporter needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Reporting {
    /// The server's URL.
    pub server: String,
    /// How the server and the agent know each other.
    pub membership: Membership,
    /// Is told how the fleet's authorities stand, as the server says it.
    pub authorities: watch::Sender<String>,
    /// Who reports. Its list of processes is filled in anew for each stream.
    pub hello: pb::Hello,
}

/// Whether the server hears of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// It does.
    Reporting,
    /// It does not.
    Broken {
        /// Why.
        why: String,
    },
}

impl Default for Link {
    fn default() -> Self {
        Self::Broken { why: "the agent has just begun".to_owned() }
    }
}

/// What can be said of this host, for a hello.
pub(crate) fn describe_host() -> pb::Hello {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let program: Option<PathBuf> = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(|program| program.parent());
    pb::Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        operating_system: format!("{} {}", text(uname.sysname()), text(uname.release())),
        operating_system_release: distribution().unwrap_or_default(),
        architecture: text(uname.machine()),
        install_home: folder.map(|f| f.display().to_string()).unwrap_or_default(),
        machine: fs::read_to_string("/etc/machine-id").map(|id| machine(&id)).unwrap_or_default(),
        ..pb::Hello::default()
    }
}

/// Reports until it is dropped. Tells each change between connected and not once, whatever it takes to get there. `link`
/// always says how it is now.
pub(crate) async fn report(supervisor: Supervisor, reporting: Reporting, link: watch::Sender<Link>) {
    let mut failures = 0;
    let mut told = false;
    loop {
        let ended = match connect(&supervisor, &reporting).await {
            Ok(mut stream) => {
                info!(server = reporting.server, host = stream.host_id, "Reporting to the server.");
                (failures, told) = (0, false);
                link.send_replace(Link::Reporting);
                let began = Instant::now();
                match stream.run(&supervisor).await {
                    Ended::Closed if began.elapsed() >= CALM => Ended::Renewed,
                    ended => ended,
                }
            }
            Err(error) => error,
        };
        if let Ended::Redeclared = ended {
            // Nothing is wrong: the next stream begins with all that is declared now.
            continue;
        }
        if let Ended::Renewed = ended {
            debug!(server = reporting.server, "The server asks for another connection.");
            sleep(pause_before_connecting(0)).await;
            continue;
        }
        link.send_replace(Link::Broken { why: Chain(&ended).to_string() });
        if told {
            debug!(server = reporting.server, error = %Chain(&ended), "Not reporting to the server.");
        } else {
            warn!(server = reporting.server, error = %Chain(&ended), "Not reporting to the server; it is tried again for ever.");
            told = true;
        }
        sleep(pause_before_connecting(failures)).await;
        failures += 1;
    }
}

/// Why a stream could not be had, or ended.
#[derive(Debug, Error)]
enum Ended {
    #[error("the URL of the server can not be used")]
    Url(#[source] tonic::transport::Error),
    #[error("the URL of the server can not be used for TLS")]
    NotTls,
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    #[error("the server refused the report: {} ({:?})", .0.message(), .0.code())]
    Refused(Status),
    #[error("the connection broke before the server answered: {why}; {hint}")]
    Broken { why: String, hint: &'static str },
    #[error("the server did not answer in time")]
    Silent,
    #[error("the server ended the stream")]
    Closed,
    #[error("other processes are declared now")]
    Redeclared,
    #[error("the server asked for another connection")]
    Renewed,
    #[error("the agent shuts down")]
    ShuttingDown,
}

/// An open stream on which the server has welcomed the agent.
struct Stream {
    host_id: i64,
    heartbeat: Duration,
    /// The number of the last report.
    sequence: u64,
    /// The last revision that was reported.
    revision: u64,
    reports: mpsc::Sender<pb::ReportRequest>,
    answers: Streaming<pb::ReportResponse>,
    changes: watch::Receiver<u64>,
    news: watch::Receiver<News>,
    /// How often the processes had been declared anew when the hello was made.
    redeclared: u64,
    /// The report of an operation of the host itself that is not acknowledged yet: its number and the operation. One at a
    /// time, so that nothing has to be remembered of a stream that is lost.
    unacknowledged: Option<(u64, Uuid)>,
    beats: u64,
    /// Is told how the fleet's authorities stand.
    authorities: watch::Sender<String>,
}

async fn connect(supervisor: &Supervisor, reporting: &Reporting) -> Result<Stream, Ended> {
    let Reporting { server, membership, .. } = reporting;
    let endpoint = match membership {
        Membership::Token(_) => Endpoint::from_shared(server.clone()).map_err(Ended::Url)?,
        Membership::Tls(_) => tls::endpoint(server).map_err(|_| Ended::NotTls)?,
    };
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE / 2)
        .keep_alive_while_idle(true);
    let channel = membership.connect(&endpoint).await.map_err(Ended::Connect)?;
    let mut client: FleetServiceClient<InterceptedService<Channel, ShowToken>> =
        FleetServiceClient::with_interceptor(channel, ShowToken::new(membership.token()));
    // Taken before the inventory is: what changes in between is reported twice rather than never.
    let changes = supervisor.revision();
    let revision = *changes.borrow();
    let news = supervisor.news();
    let redeclared = news.borrow().redeclared;
    let processes = supervisor.inventory().await.map_err(|_| Ended::ShuttingDown)?;
    let policy = supervisor.policy().await.map_err(|_| Ended::ShuttingDown)?;
    let hello = pb::Hello {
        processes: processes.into_iter().map(convert::observed).collect(),
        policy: convert::policy(policy),
        time: Some(convert::timestamp(Timestamp::now())),
        authorities: membership.standing(),
        ..reporting.hello.clone()
    };
    let (reports, queue) = mpsc::channel(REPORT_QUEUE);
    let first = pb::ReportRequest { sequence: 1, report: Some(Report::Hello(hello)) };
    fail_point(|| "report.hello");
    // The queue is empty and its other end is here.
    let _ = reports.send(first).await;
    let opening = async {
        let mut answers = client.report(ReceiverStream::new(queue)).await?.into_inner();
        let answer = answers.message().await?;
        Ok::<_, Status>((answers, answer))
    };
    let opened = timeout(WELCOME, opening).await.map_err(|_| Ended::Silent)?;
    let (answers, answer) = opened.map_err(|status| broken(membership, status))?;
    fail_point(|| "report.welcomed");
    if let Some(answer) = &answer {
        take_in(&reporting.authorities, &answer.authorities);
    }
    let welcome = answer.and_then(|answer| answer.welcome).ok_or(Ended::Closed)?;
    let heartbeat = welcome
        .heartbeat_interval
        .and_then(|interval| Duration::try_from(interval).ok())
        .unwrap_or(HEARTBEAT);
    Ok(Stream {
        host_id: welcome.host_id,
        heartbeat: heartbeat.clamp(*HEARTBEATS.start(), *HEARTBEATS.end()),
        sequence: 1,
        revision,
        reports,
        answers,
        changes,
        news,
        redeclared,
        unacknowledged: None,
        beats: 0,
        authorities: reporting.authorities.clone(),
    })
}

/// Who speaks something else, or refuses our certificate, hangs up without an answer.
fn broken(membership: &Membership, status: Status) -> Ended {
    if std::error::Error::source(&status).is_none() {
        return Ended::Refused(status);
    }
    let causes = std::iter::successors(std::error::Error::source(&status), |cause| cause.source());
    let why = causes.fold(status.message().to_owned(), |told, cause| format!("{told}: {cause}"));
    let hint = match membership {
        Membership::Token(_) => {
            "it may speak TLS: then write `https://` in `server`, and let this agent join with a token of `belay host token create`"
        }
        Membership::Tls(_) => {
            "where its log says that this certificate is refused, let this agent join with a new token of \
             `belay host token create`, or bring another own certificate"
        }
    };
    Ended::Broken { why, hint }
}

impl Stream {
    async fn run(&mut self, supervisor: &Supervisor) -> Ended {
        let mut beat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = self.heartbeat * SILENCE + CONNECT;
        let mut heard = Instant::now();
        if let Err(ended) = self.send_local_operation(supervisor).await {
            return ended;
        }
        loop {
            let sent = tokio::select! {
                answer = self.answers.message() => match answer {
                    Ok(Some(pb::ReportResponse { sequence, welcome: _, authorities })) => {
                        heard = Instant::now();
                        take_in(&self.authorities, &authorities);
                        self.acknowledged(supervisor, sequence).await
                    }
                    Ok(None) => Err(Ended::Closed),
                    Err(status) if status.code() == Code::Unknown => Err(Ended::Closed),
                    Err(status) => Err(Ended::Refused(status)),
                },
                changed = self.changes.changed() => match changed {
                    Ok(()) => {
                        // What happens to a hundred processes at once is one report, not a hundred.
                        sleep(GATHER).await;
                        self.send_changes(supervisor).await
                    }
                    Err(_) => Err(Ended::ShuttingDown),
                },
                news = self.news.changed() => match news {
                    Ok(()) if self.news.borrow_and_update().redeclared != self.redeclared => {
                        Err(Ended::Redeclared)
                    }
                    Ok(()) => self.send_local_operation(supervisor).await,
                    Err(_) => Err(Ended::ShuttingDown),
                },
                _ = beat.tick() => self.beat(supervisor, heard.elapsed() > silence).await,
            };
            if let Err(ended) = sent {
                return ended;
            }
        }
    }

    /// Looks at everything each second time, and says what changed, or that nothing did.
    async fn beat(&mut self, supervisor: &Supervisor, silent: bool) -> Result<(), Ended> {
        if silent {
            return Err(Ended::Silent);
        }
        // That a process ends is known without a look: this is for its ports and its memory.
        self.beats += 1;
        if self.beats.is_multiple_of(2) {
            supervisor.look().await.map_err(|_| Ended::ShuttingDown)?;
        }
        match self.changes.has_changed() {
            Ok(true) => self.send_changes(supervisor).await,
            Ok(false) => self.send(Report::Heartbeat(pb::Heartbeat {})).await,
            Err(_) => Err(Ended::ShuttingDown),
        }
    }

    async fn send_changes(&mut self, supervisor: &Supervisor) -> Result<(), Ended> {
        let upto = *self.changes.borrow_and_update();
        let changed = supervisor.changed_since(self.revision).await;
        let changed = changed.map_err(|_| Ended::ShuttingDown)?;
        self.revision = changed.iter().map(|p| p.revision).fold(upto, u64::max);
        if changed.is_empty() {
            return Ok(());
        }
        fail_point(|| "report.changes");
        let processes = changed.into_iter().map(convert::observed).collect();
        self.send(Report::ProcessesChanged(pb::ProcessesChanged { processes })).await
    }

    /// Says what was ordered on the host itself, unless the last such report is still to be acknowledged.
    async fn send_local_operation(&mut self, supervisor: &Supervisor) -> Result<(), Ended> {
        if self.unacknowledged.is_some() {
            return Ok(());
        }
        let operation = supervisor.unreported().await.map_err(|_| Ended::ShuttingDown)?;
        let Some(operation) = operation else {
            return Ok(());
        };
        let id = operation.accepted.id;
        // First what came of it: the server sees the operation in the light of that.
        self.send_changes(supervisor).await?;
        self.send(Report::LocalOperation(convert::local_operation(operation))).await?;
        self.unacknowledged = Some((self.sequence, id));
        fail_point(|| "report.local");
        Ok(())
    }

    /// The server has taken a report in.
    async fn acknowledged(&mut self, supervisor: &Supervisor, sequence: u64) -> Result<(), Ended> {
        let Some((_, id)) = self.unacknowledged.take_if(|(reported, _)| *reported == sequence) else {
            return Ok(());
        };
        fail_point(|| "report.acknowledged");
        supervisor.reported(id).await.map_err(|_| Ended::ShuttingDown)?;
        self.send_local_operation(supervisor).await
    }

    async fn send(&mut self, report: Report) -> Result<(), Ended> {
        self.sequence += 1;
        let report = pb::ReportRequest { sequence: self.sequence, report: Some(report) };
        // A queue that stays full means that nothing goes through.
        match timeout(CONNECT, self.reports.send(report)).await {
            Ok(sent) => sent.map_err(|_| Ended::Closed),
            Err(_) => Err(Ended::Silent),
        }
    }
}

/// Passes on how the authorities stand, where that is news.
fn take_in(authorities: &watch::Sender<String>, told: &str) {
    authorities.send_if_modified(|known| {
        let is_news = known != told;
        if is_news {
            told.clone_into(known);
        }
        is_news
    });
}

/// How long an agent waits before it tries to connect to its server: exponential, with all of it left to chance, so that a
/// fleet does not come back all at once.
///
/// `failures` is how many attempts in a row have failed.
pub fn pause_before_connecting(failures: u32) -> Duration {
    let (first, longest) = PAUSES;
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    let limit = first.saturating_mul(factor).min(longest);
    let roll = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    limit.mul_f64(roll)
}

/// A digest of the machine's id, in which the id can not be found: machine-id(5) asks that it is not shown itself. Empty
/// where the machine has none yet.
fn machine(id: &str) -> String {
    let id = id.trim();
    if id.is_empty() || id == "uninitialized" {
        return String::new();
    }
    // The key is shorter than the longest that is taken.
    let Ok(mut digest) = Blake2sMac256::new_from_slice(MACHINE_KEY) else {
        return String::new();
    };
    digest.update(id.as_bytes());
    let digest = digest.finalize().into_bytes();
    digest.iter().take(MACHINE_DIGEST).map(|byte| format!("{byte:02x}")).collect()
}

/// The distribution as it calls itself, say `Debian GNU/Linux 12 (bookworm)`.
fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_by_a_digest() {
        let id = "0123456789abcdef0123456789abcdef";
        let told = machine(&format!("{id}\n"));
        assert_eq!(told, machine(id));
        assert!(told.len() == 2 * MACHINE_DIGEST && !id.contains(&told), "{told}");
        assert_ne!(told, machine("1123456789abcdef0123456789abcdef"));
        assert_eq!((machine(""), machine("uninitialized\n")), (String::new(), String::new()));
    }
}
