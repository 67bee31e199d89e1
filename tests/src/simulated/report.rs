//! How a simulated agent reports: the same messages, limits and pauses as `agent/src/report.rs`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use belay_proto::fleet::v1::{
    Heartbeat, Hello, ProcessesChanged, ReportRequest, ReportResponse,
    fleet_service_client::FleetServiceClient, report_request::Report,
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, transport::Endpoint};

use super::{agent::Agent, lock};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a welcome may take.
const WELCOME: Duration = Duration::from_secs(10);
/// Finds out that the other side of a connection is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A server that has not acknowledged anything for so many heartbeats is taken for gone.
const SILENCE: u32 = 3;

/// Reports until it is dropped.
pub(super) async fn report(agent: Arc<Agent>) {
    // Also where it is dropped in the middle.
    let _gone = Gone(agent.clone());
    let mut failures = 0;
    loop {
        if let Ok(stream) = connect(&agent).await {
            failures = 0;
            stream.run(&agent).await;
        } else {
            lock(&agent.shared.connections).failures.push(Instant::now());
        }
        agent.host.send_replace(None);
        sleep((agent.shared.simulation.pause)(failures)).await;
        failures += 1;
    }
}

struct Gone(Arc<Agent>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.host.send_replace(None);
    }
}

/// The stream is over, whatever the reason.
struct Over;

struct Stream {
    reports: mpsc::Sender<ReportRequest>,
    answers: Streaming<ReportResponse>,
    heartbeat: Duration,
    sequence: u64,
    /// The last revision that was reported.
    revision: u64,
}

async fn connect(agent: &Agent) -> Result<Stream, Over> {
    let endpoint = Endpoint::from_shared(format!("http://{}", agent.shared.server)).expect("an address");
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE / 2)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(|_| Over)?;
    let (hello, revision) = hello(agent);
    let (reports, queue) = mpsc::channel(4);
    let first = ReportRequest { sequence: 1, report: Some(Report::Hello(hello)) };
    reports.send(first).await.map_err(|_| Over)?;
    let mut request = Request::new(ReceiverStream::new(queue));
    let token = format!("Bearer {}", agent.shared.token).parse().expect("a token");
    request.metadata_mut().insert("authorization", token);
    lock(&agent.shared.connections).hellos.push(Instant::now());
    let opening = async {
        let mut answers = FleetServiceClient::new(channel).report(request).await?.into_inner();
        let answer = answers.message().await?;
        Ok::<_, tonic::Status>((answers, answer))
    };
    let (answers, answer) = timeout(WELCOME, opening).await.map_err(|_| Over)?.map_err(|_| Over)?;
    let welcome = answer.and_then(|answer| answer.welcome).ok_or(Over)?;
    lock(&agent.shared.connections).welcomes.push(Instant::now());
    agent.host.send_replace(Some(welcome.host_id));
    let heartbeat = welcome.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
    Ok(Stream { reports, answers, heartbeat: heartbeat.expect("a heartbeat"), sequence: 1, revision })
}

/// Who it is, and the revision up to which that tells everything.
pub(super) fn hello(agent: &Agent) -> (Hello, u64) {
    let memory = lock(&agent.memory);
    let hello = Hello {
        identity: agent.identity.to_string(),
        incarnation: lock(&agent.incarnation).to_string(),
        // Each simulated agent is on a machine of its own.
        boot_id: agent.identity.to_string(),
        version: "simulated".to_owned(),
        address: agent.address.to_string(),
        name: agent.name(),
        operating_system: "Linux 6.1.0".to_owned(),
        operating_system_release: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        architecture: "x86_64".to_owned(),
        install_home: "/usr/bin".to_owned(),
        log_home: "/var/log".to_owned(),
        processes: memory.changed_since(0),
        tracker: "cgroup".to_owned(),
        tracker_reason: String::new(),
        machine: String::new(),
        labels: (agent.shared.simulation.labels)(agent.number).into_iter().collect(),
        policy: None,
        time: None,
        authorities: String::new(),
    };
    (hello, memory.revision())
}

impl Stream {
    async fn run(mut self, agent: &Agent) {
        // The first beat of each is at another moment, as with agents that began at another time.
        let first = self.heartbeat.mul_f64(f64::from(agent.identity.as_fields().0) / f64::from(u32::MAX));
        let mut beat = interval_at(tokio::time::Instant::now() + first, self.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = self.heartbeat * SILENCE + CONNECT;
        let mut heard = Instant::now();
        let mut changes = agent.changes.subscribe();
        changes.mark_changed();
        loop {
            let told = tokio::select! {
                answer = self.answers.message() => {
                    heard = Instant::now();
                    answer.ok().flatten().map(drop).ok_or(Over)
                }
                _ = changes.changed() => self.tell_changes(agent).await,
                _ = beat.tick() => match heard.elapsed() > silence {
                    true => Err(Over),
                    false => self.send(Report::Heartbeat(Heartbeat {})).await,
                },
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn tell_changes(&mut self, agent: &Agent) -> Result<(), Over> {
        let (processes, revision) = {
            let memory = lock(&agent.memory);
            (memory.changed_since(self.revision), memory.revision())
        };
        self.revision = revision;
        match processes.is_empty() {
            true => Ok(()),
            false => self.send(Report::ProcessesChanged(ProcessesChanged { processes })).await,
        }
    }

    async fn send(&mut self, report: Report) -> Result<(), Over> {
        self.sequence += 1;
        let report = ReportRequest { sequence: self.sequence, report: Some(report) };
        match timeout(CONNECT, self.reports.send(report)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }
}
