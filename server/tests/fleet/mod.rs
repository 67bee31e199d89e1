//! A whole server, and agents that are streams and calls of the test.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use belay_proto::{
    agent::v1::{ObservedProcess, ProcessPhase},
    fleet::v1::{
        Heartbeat, Hello, LocalOperation, ReportRequest, ReportResponse,
        fleet_service_client::FleetServiceClient, report_request::Report,
    },
    v1::{
        AuditRecord, GetHostAgentRequest, HostAgent, ListAuditRecordsRequest,
        audit_service_client::AuditServiceClient, host_agent_service_client::HostAgentServiceClient,
    },
};
use belay_server::{Config, Server, TlsMode, TlsSettings, run};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Status, Streaming, transport::Channel};
use uuid::Uuid;

/// How often agents report.
const HEARTBEAT: Duration = Duration::from_secs(1);

pub(crate) struct Fleet {
    pub(crate) channel: Channel,
    /// Where the server listens.
    pub(crate) address: SocketAddr,
    token: String,
    admin: String,
    _end: DropGuard,
    _folder: TempDir,
}

/// An agent's stream.
pub(crate) struct Stream {
    reports: mpsc::Sender<ReportRequest>,
    answers: Streaming<ReportResponse>,
    sequence: u64,
    pub(crate) host: i64,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            data: folder.path().join("data"),
            heartbeat: HEARTBEAT,
            clone_silence: Duration::ZERO,
            tls: TlsSettings { mode: TlsMode::Off, ..TlsSettings::default() },
            ..Config::default()
        };
        let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap().trim().to_owned();
        let server = Server::open(config.clone()).await.unwrap();
        let (token, password) = (read(config.fleet_token()), read(config.admin_password()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        tokio::spawn(run(listener, server, end.clone().cancelled_owned()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self {
            channel,
            address,
            token: format!("Bearer {token}"),
            admin: format!("Basic {}", STANDARD.encode(format!("admin:{password}"))),
            _end: end.drop_guard(),
            _folder: folder,
        }
    }

    /// The stream of the one agent of this fleet, welcomed.
    pub(crate) async fn connect(&self, processes: Vec<ObservedProcess>) -> Stream {
        self.hello(hello(processes)).await.unwrap()
    }

    /// The stream of an agent, welcomed.
    pub(crate) async fn hello(&self, hello: Hello) -> Result<Stream, Status> {
        let (reports, queue) = mpsc::channel(4);
        reports.send(ReportRequest { sequence: 1, report: Some(Report::Hello(hello)) }).await.unwrap();
        let mut client = FleetServiceClient::new(self.channel.clone());
        let request = with(&self.token, ReceiverStream::new(queue));
        let mut answers = client.report(request).await?.into_inner();
        let welcome = answers.message().await?.and_then(|answer| answer.welcome);
        let host = welcome.ok_or_else(|| Status::unavailable("no welcome"))?.host_id;
        Ok(Stream { reports, answers, sequence: 1, host })
    }

    pub(crate) async fn audit(&self) -> Vec<AuditRecord> {
        let mut client = AuditServiceClient::new(self.channel.clone());
        let request = with(&self.admin, ListAuditRecordsRequest::default());
        let records = client.list_audit_records(request).await.unwrap().into_inner();
        records.records
    }

    pub(crate) async fn agent(&self, host: i64) -> HostAgent {
        let mut client = HostAgentServiceClient::new(self.channel.clone());
        let request = self.as_admin(GetHostAgentRequest { host_id: host });
        client.get_host_agent(request).await.unwrap().into_inner().agent.unwrap()
    }

    pub(crate) fn as_admin<T>(&self, message: T) -> Request<T> {
        with(&self.admin, message)
    }
}

impl Stream {
    /// Reports, and waits for the acknowledgement.
    pub(crate) async fn tell(&mut self, report: Report) {
        self.try_tell(report).await.unwrap();
    }

    /// The same where the stream may end.
    pub(crate) async fn try_tell(&mut self, report: Report) -> Result<(), Status> {
        self.sequence += 1;
        let request = ReportRequest { sequence: self.sequence, report: Some(report) };
        self.reports.send(request).await.map_err(|_| Status::unavailable("it ended"))?;
        let answer = self.answers.message().await?.ok_or_else(|| Status::unavailable("it ended"))?;
        assert_eq!(answer.sequence, self.sequence);
        Ok(())
    }

    /// Reports, and waits for nothing.
    pub(crate) async fn send(&mut self, report: Report) {
        self.sequence += 1;
        self.reports.send(ReportRequest { sequence: self.sequence, report: Some(report) }).await.unwrap();
    }

    /// Says that the agent lives. Gives whether only that was acknowledged, and nothing that was sent before it.
    pub(crate) async fn acknowledged_beat(&mut self) -> bool {
        self.send(Report::Heartbeat(Heartbeat {})).await;
        tokio::time::sleep(HEARTBEAT / 10).await;
        let mut earlier = false;
        loop {
            let sequence = self.answers.message().await.unwrap().unwrap().sequence;
            earlier |= sequence < self.sequence;
            if sequence == self.sequence {
                break !earlier;
            }
        }
    }

    /// Says that the agent lives, until the stream ends.
    pub(crate) async fn beat(&mut self) -> Status {
        loop {
            tokio::time::sleep(HEARTBEAT / 4).await;
            if let Err(ended) = self.try_tell(Report::Heartbeat(Heartbeat {})).await {
                return ended;
            }
        }
    }
}

fn with<T>(authorization: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    request
}

/// The hello of a new life of the one agent of a fleet.
pub(crate) fn hello(processes: Vec<ObservedProcess>) -> Hello {
    Hello {
        identity: Uuid::from_u128(7).to_string(),
        incarnation: Uuid::new_v4().to_string(),
        boot_id: Uuid::from_u128(8).to_string(),
        address: "127.0.0.1:1".to_owned(),
        name: "host-1".to_owned(),
        processes,
        ..Default::default()
    }
}

pub(crate) fn process(alias: &str, revision: u64, wanted: bool) -> ObservedProcess {
    let phase = if wanted { ProcessPhase::Running } else { ProcessPhase::Stopped };
    ObservedProcess {
        alias: alias.to_owned(),
        revision,
        phase: phase.into(),
        desired_running: wanted,
        operable: true,
        ..Default::default()
    }
}

pub(crate) fn operation(verb: &str, aliases: &[&str]) -> LocalOperation {
    LocalOperation {
        operation_id: Uuid::now_v7().to_string(),
        principal: "local:root".to_owned(),
        verb: verb.to_owned(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        // Not so long ago that it would be forgotten.
        accept_time: Some(prost_types::Timestamp { seconds: jiff::Timestamp::now().as_second(), nanos: 0 }),
        reason: String::new(),
        message: String::new(),
    }
}
