//! What was ordered on a host itself, as its agent reports it, against a whole server.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use base64::{Engine, engine::general_purpose::STANDARD};
use belay_proto::{
    agent::v1::{ObservedProcess, ProcessPhase},
    fleet::v1::{
        Hello, LocalOperation, ProcessesChanged, ReportRequest, ReportResponse,
        fleet_service_client::FleetServiceClient, report_request::Report,
    },
    v1::{
        AuditDecision, AuditRecord, GetHostAgentRequest, HostAgentStatus, ListAuditRecordsRequest,
        audit_service_client::AuditServiceClient, host_agent_service_client::HostAgentServiceClient,
    },
};
use belay_server::{Config, Server, run};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Streaming, transport::Channel};
use uuid::Uuid;

struct Fleet {
    channel: Channel,
    token: String,
    admin: String,
    _end: DropGuard,
    _folder: TempDir,
}

/// An agent's stream.
struct Stream {
    reports: mpsc::Sender<ReportRequest>,
    answers: Streaming<ReportResponse>,
    sequence: u64,
    host: i64,
}

impl Fleet {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().join("data"), ..Config::default() };
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
            token: format!("Bearer {token}"),
            admin: format!("Basic {}", STANDARD.encode(format!("admin:{password}"))),
            _end: end.drop_guard(),
            _folder: folder,
        }
    }

    /// The stream of the one agent of this fleet, welcomed.
    async fn connect(&self, processes: Vec<ObservedProcess>) -> Stream {
        let (reports, queue) = mpsc::channel(4);
        let hello = Hello {
            identity: Uuid::from_u128(7).to_string(),
            incarnation: Uuid::new_v4().to_string(),
            boot_id: Uuid::from_u128(8).to_string(),
            address: "127.0.0.1:1".to_owned(),
            name: "host-1".to_owned(),
            processes,
            ..Default::default()
        };
        reports.send(ReportRequest { sequence: 1, report: Some(Report::Hello(hello)) }).await.unwrap();
        let mut client = FleetServiceClient::new(self.channel.clone());
        let request = with(&self.token, ReceiverStream::new(queue));
        let mut answers = client.report(request).await.unwrap().into_inner();
        let host = answers.message().await.unwrap().unwrap().welcome.unwrap().host_id;
        Stream { reports, answers, sequence: 1, host }
    }

    async fn audit(&self) -> Vec<AuditRecord> {
        let mut client = AuditServiceClient::new(self.channel.clone());
        let request = with(&self.admin, ListAuditRecordsRequest { before_id: 0, size: 0 });
        let records = client.list_audit_records(request).await.unwrap().into_inner().records;
        records.into_iter().filter(|record| record.principal.starts_with("local:")).collect()
    }

    async fn agent_status(&self, host: i64) -> HostAgentStatus {
        let mut client = HostAgentServiceClient::new(self.channel.clone());
        let request = with(&self.admin, GetHostAgentRequest { host_id: host });
        client.get_host_agent(request).await.unwrap().into_inner().agent.unwrap().status()
    }
}

impl Stream {
    /// Reports, and waits for the acknowledgement.
    async fn tell(&mut self, report: Report) {
        self.sequence += 1;
        let request = ReportRequest { sequence: self.sequence, report: Some(report) };
        self.reports.send(request).await.unwrap();
        assert_eq!(self.answers.message().await.unwrap().unwrap().sequence, self.sequence);
    }
}

fn with<T>(authorization: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    request
}

fn process(alias: &str, revision: u64, wanted: bool) -> ObservedProcess {
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

fn operation(verb: &str, aliases: &[&str]) -> LocalOperation {
    LocalOperation {
        operation_id: Uuid::now_v7().to_string(),
        principal: "local:root".to_owned(),
        verb: verb.to_owned(),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        accept_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        reason: String::new(),
        message: String::new(),
    }
}

/// Each operation is in the audit trail once, however often it is reported, with who ordered it and how it ended.
#[tokio::test]
async fn an_operation_of_a_host_is_audited_once() {
    let fleet = Fleet::start().await;
    let mut stream = fleet.connect(vec![process("a", 1, true), process("b", 1, true)]).await;
    let stop = operation("stop", &["a"]);
    let failed = LocalOperation {
        reason: "START_FAILED".to_owned(),
        message: "cannot start".to_owned(),
        ..operation("start", &["a", "b"])
    };
    for told in [&stop, &failed, &stop] {
        stream.tell(Report::LocalOperation(told.clone())).await;
    }
    // An acknowledgement was lost with its stream.
    let mut stream = fleet.connect(vec![process("a", 1, false), process("b", 1, true)]).await;
    stream.tell(Report::LocalOperation(failed.clone())).await;

    let records = fleet.audit().await;
    let [second, first] = &records[..] else { panic!("{records:#?}") };
    for (record, told) in [(first, &stop), (second, &failed)] {
        assert_eq!(record.principal, "local:root@host-1");
        assert_eq!(record.operation_id, told.operation_id);
        assert_eq!(record.decision(), AuditDecision::Allow);
        assert_eq!(record.time, told.accept_time);
        assert_eq!(record.trace_id.len(), 16);
    }
    assert_eq!((&first.action[..], &first.outcome[..]), ("StopAgentProcess", "DONE"));
    assert!(first.target.starts_with(&format!("hosts/{}/agent/processes/", stream.host)), "{first:?}");
    assert_eq!((&second.action[..], &second.outcome[..]), ("StartAgentProcess", "START_FAILED"));
    assert_eq!(second.target, format!("hosts/{}/agent", stream.host));
    assert!(second.reason.ends_with("a, b"), "{second:?}");
}

/// What the server says of the agent as a whole follows what people did on the host.
#[tokio::test]
async fn the_state_of_the_agent_follows() {
    let fleet = Fleet::start().await;
    let mut stream = fleet.connect(vec![process("a", 1, true), process("b", 1, true)]).await;
    assert_eq!(fleet.agent_status(stream.host).await, HostAgentStatus::Available);
    let stopped = vec![process("a", 2, false), process("b", 3, false)];
    stream.tell(Report::ProcessesChanged(ProcessesChanged { processes: stopped })).await;
    stream.tell(Report::LocalOperation(operation("stop", &["a", "b"]))).await;
    assert_eq!(fleet.agent_status(stream.host).await, HostAgentStatus::Stopped);
    let started = vec![process("a", 4, true)];
    stream.tell(Report::ProcessesChanged(ProcessesChanged { processes: started })).await;
    stream.tell(Report::LocalOperation(operation("start", &["a"]))).await;
    assert_eq!(fleet.agent_status(stream.host).await, HostAgentStatus::Available);
}
