//! Agents that lie or flood, against a whole server: they hurt their own host at most.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[allow(dead_code, reason = "each test program needs a part of it")]
mod agent;
mod fleet;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use belay_proto::{
    Problem, Reason,
    agent::v1::{ExitReport, ObservedProcess, Operation, OperationState},
    fleet::v1::{Heartbeat, Hello, LocalPolicy, OrderRefusal, ProcessesChanged, report_request::Report},
    v1::{
        BatchOrder, BatchVerb, DiagnoseRequest, FindingLevel, GetHostRequest, Host, ListHostsRequest,
        OrderTerms, PlanBatchRequest, RestartHostAgentRequest, StartAgentProcessRequest,
        StopAgentProcessRequest, StopHostAgentRequest,
        agent_process_service_client::AgentProcessServiceClient, batch_service_client::BatchServiceClient,
        diagnosis_service_client::DiagnosisServiceClient, host_agent_service_client::HostAgentServiceClient,
        host_service_client::HostServiceClient,
    },
};
use tonic::{Code, Status};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use uuid::Uuid;

use crate::{
    agent::FakeAgent,
    fleet::{Fleet, hello, operation, process},
};

fn reason(status: &Status) -> Option<Reason> {
    Problem::from_status(status).map(|problem| problem.reason)
}

/// The hello of another agent than the one of the fleet.
fn other(number: u128, processes: Vec<ObservedProcess>) -> Hello {
    Hello {
        identity: Uuid::from_u128(number).to_string(),
        address: format!("127.0.0.1:{number}"),
        name: format!("host-{number}"),
        ..hello(processes)
    }
}

async fn host(fleet: &Fleet, host_id: i64) -> Host {
    let mut client = HostServiceClient::new(fleet.channel.clone());
    let answer = client.get_host(fleet.as_admin(GetHostRequest { host_id })).await.unwrap();
    answer.into_inner().host.unwrap()
}

async fn process_id(fleet: &Fleet, host: i64, alias: &str) -> i64 {
    let agent = fleet.agent(host).await;
    agent.processes.iter().find(|process| process.alias == alias).unwrap().id
}

/// An agent that ends what it is ordered to stop.
async fn honest() -> FakeAgent {
    let gone = |alias: &str, id: &str| {
        Ok(Some(Operation {
            id: id.to_owned(),
            state: OperationState::Done.into(),
            processes: vec![process(alias, 9, false)],
            ..Default::default()
        }))
    };
    FakeAgent::start(gone, gone).await
}

async fn stop(fleet: &Fleet, host_id: i64, alias: &str) -> Result<(), Status> {
    let agent_process_id = process_id(fleet, host_id, alias).await;
    let request = StopAgentProcessRequest { host_id, agent_process_id, ..Default::default() };
    let mut client = AgentProcessServiceClient::new(fleet.channel.clone());
    client.stop_agent_process(fleet.as_admin(request)).await.map(drop)
}

/// Hazard A13: a flood is slowed by not being read, then cut, and shown; orders for other hosts and lists go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_reports_is_slowed_cut_and_shown() {
    let fleet = Arc::new(Fleet::start().await);
    let agent = honest().await;
    let names: Vec<_> = (0..40).map(|number| format!("w{number}")).collect();
    let _reporting = agent.report(&fleet, names.iter().map(|name| process(name, 1, true)).collect());
    let bystander = agent.host().await;

    let mut flooder = fleet.hello(other(1000, vec![process("a", 1, true)])).await.unwrap();
    let flooded = flooder.host;
    let began = Instant::now();
    let flood = tokio::spawn(async move {
        let mut taken = 0_u64;
        loop {
            let changed = ProcessesChanged { processes: vec![process("a", taken, true)] };
            if let Err(status) = flooder.try_tell(Report::ProcessesChanged(changed)).await {
                return (taken, status);
            }
            taken += 1;
        }
    });
    let mut slowest = Duration::ZERO;
    for name in &names {
        let asked = Instant::now();
        stop(&fleet, bystander, name).await.unwrap();
        let mut client = HostServiceClient::new(fleet.channel.clone());
        client.list_hosts(fleet.as_admin(ListHostsRequest::default())).await.unwrap();
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let (taken, status) = tokio::time::timeout(Duration::from_secs(60), flood).await.unwrap().unwrap();
    assert_eq!((status.code(), reason(&status)), (Code::ResourceExhausted, Some(Reason::Overloaded)));
    // What may come at once, and what comes back in the time.
    let most = 2000 + 200 * (began.elapsed().as_secs() + 2);
    assert!((2000..most).contains(&taken), "{taken} of {most}");
    assert!(host(&fleet, flooded).await.agent_trouble.contains("more reports"));
    assert_eq!(host(&fleet, bystander).await.agent_trouble, "");

    let mut client = DiagnosisServiceClient::new(fleet.channel.clone());
    let told = client.diagnose(fleet.as_admin(DiagnoseRequest {})).await.unwrap().into_inner();
    let found = told.findings.iter().find(|finding| finding.check == "agents.conduct").unwrap();
    assert_eq!((found.level(), &found.subject[..]), (FindingLevel::Fail, &format!("hosts/{flooded}")[..]));
}

/// A reconnect storm of one identity is refused after a while, and no other agent is concerned.
#[tokio::test]
async fn a_storm_of_streams_is_refused() {
    let fleet = Arc::new(Fleet::start().await);
    let stormy = fleet.hello(other(1000, Vec::new())).await.unwrap().host;
    let mut storm = tokio::task::JoinSet::new();
    for _ in 0..150 {
        let fleet = fleet.clone();
        storm.spawn(async move { fleet.hello(other(1000, Vec::new())).await.map(|stream| stream.host) });
    }
    let began = Instant::now();
    let answers = storm.join_all().await;
    let hosts: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    let refusals = refused.iter().filter(|status| reason(status) == Some(Reason::Overloaded)).count();
    // What may come at once, what comes back in the time, and what waits for it.
    assert!(hosts.len() <= 70 + began.elapsed().as_secs() as usize, "{}", hosts.len());
    assert!(refusals >= 50, "{refusals}: {refused:?}");
    assert!(host(&fleet, stormy).await.agent_trouble.contains("again and again"));
    fleet.hello(other(1001, Vec::new())).await.unwrap();
}

/// Hazard A13: local operations are commits, so their number is bounded; more are told later, and heartbeats are still heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_local_operations_fills_no_database() {
    let fleet = Fleet::start().await;
    let mut stream = fleet.connect(vec![process("a", 1, true)]).await;
    for _ in 0..1200 {
        stream.tell(Report::LocalOperation(operation("stop", &["a"]))).await;
    }
    // Some came back meanwhile. One waits in the end, and is acknowledged when its time has come; heartbeats do not wait.
    let began = Instant::now();
    loop {
        stream.send(Report::LocalOperation(operation("stop", &["a"]))).await;
        if stream.acknowledged_beat().await {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "none waits");
    }
    let began = Instant::now();
    while stream.acknowledged_beat().await {
        assert!(began.elapsed() < Duration::from_secs(20), "it is never taken");
    }
}

/// What an agent may keep of its host here is bounded, however many processes it declares in turn, and however long what
/// it says of them is.
#[tokio::test]
async fn what_is_kept_of_one_host_is_bounded() {
    let fleet = Fleet::start().await;
    for round in 0..3 {
        let names = (0..550).map(|number| process(&format!("p{round}-{number}"), 1, false));
        drop(fleet.connect(names.collect()).await);
    }
    let host = fleet.connect(vec![process("a", 1, true)]).await.host;
    let kept = fleet.agent(host).await.processes.len();
    assert!(kept <= 1001, "{kept}");
    let output = vec!["x".repeat(1 << 20); 40];
    let talkative = ObservedProcess {
        last_exit: Some(ExitReport { last_output: output, ..Default::default() }),
        ..process("a", 2, true)
    };
    let refused = fleet.hello(other(1000, vec![talkative])).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
}

/// Hazard S27: orders, and the fleet's secret with them, do not go where no agent can be.
#[tokio::test]
async fn an_agent_is_not_at_the_servers_own_address() {
    let fleet = Fleet::start().await;
    let own = fleet.address.to_string();
    for address in [&own[..], "169.254.169.254:80", "0.0.0.0:9441", "[fe80::1]:9441", "user@host:9441"] {
        let refused = fleet.hello(Hello { address: address.into(), ..other(1000, Vec::new()) }).await;
        assert_eq!(
            refused.map(drop).map_err(|status| reason(&status)),
            Err(Some(Reason::InvalidArgument)),
            "{address}"
        );
    }
}

/// A clock that is far off is told, and decides nothing: neither how old the report is nor where a record stands.
#[tokio::test]
async fn a_clock_that_is_far_off_orders_nothing() {
    let fleet = Fleet::start().await;
    let far = prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 };
    let mut stream =
        fleet.hello(Hello { time: Some(far), ..hello(vec![process("a", 1, true)]) }).await.unwrap();
    for seconds in [4_000_000_000, 1] {
        let told = belay_proto::fleet::v1::LocalOperation {
            accept_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..operation("stop", &["a"])
        };
        stream.tell(Report::LocalOperation(told)).await;
    }
    let now = jiff::Timestamp::now().as_second();
    let records = fleet.audit().await;
    let of_host: Vec<_> = records.iter().filter(|record| record.principal.starts_with("local:")).collect();
    assert_eq!(of_host.len(), 2);
    for record in of_host {
        let time = record.time.as_ref().unwrap().seconds;
        assert!((now - 60..=now).contains(&time), "{record:?}");
        assert!(record.reason.contains("by its clock"), "what it says is shown: {record:?}");
    }
    assert!(host(&fleet, stream.host).await.report_age.unwrap().seconds < 60);
    let mut client = DiagnosisServiceClient::new(fleet.channel.clone());
    let told = client.diagnose(fleet.as_admin(DiagnoseRequest {})).await.unwrap().into_inner();
    let clocks = told.findings.iter().find(|finding| finding.check == "agents.clocks").unwrap();
    assert_eq!(clocks.level(), FindingLevel::Warn);
    assert!(clocks.what.contains("ahead"), "{clocks:?}");
}

/// What an agent refuses is refused before, and is told; whom it concerns is left out of orders to many.
#[tokio::test]
async fn what_a_host_refuses_is_refused_early_and_shown() {
    let fleet = Fleet::start().await;
    let refusal = OrderRefusal {
        reason: "new disk".into(),
        principal: "local:root".into(),
        begin_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
    };
    let closed = LocalPolicy { protected: Vec::new(), refusal: Some(refusal) };
    let protects = LocalPolicy { protected: vec!["db".into()], refusal: None };
    let processes = || vec![process("a", 1, true), process("db", 1, true)];
    let with = |number, policy| Hello { policy: Some(policy), ..other(number, processes()) };
    let closed = fleet.hello(with(1000, closed)).await.unwrap();
    let mut protecting = fleet.hello(with(1001, protects)).await.unwrap();
    let open = fleet.hello(other(1002, processes())).await.unwrap();

    let shown = host(&fleet, closed.host).await.policy.unwrap();
    assert_eq!(
        (shown.refuses_orders, &shown.reason[..], &shown.operator[..]),
        (true, "new disk", "local:root")
    );
    assert_eq!(host(&fleet, protecting.host).await.policy.unwrap().protected_processes, ["db"]);
    assert_eq!(host(&fleet, open.host).await.policy, None);

    let refused = |result: Result<(), Status>| result.map_err(|status| reason(&status).unwrap());
    assert_eq!(refused(stop(&fleet, closed.host, "a").await), Err(Reason::AgentRefuses));
    assert_eq!(refused(stop(&fleet, protecting.host, "db").await), Err(Reason::ProcessProtected));
    // It is sent where nothing is refused: nobody answers there.
    let start = StartAgentProcessRequest {
        host_id: protecting.host,
        agent_process_id: process_id(&fleet, protecting.host, "db").await,
        ..Default::default()
    };
    let mut client = AgentProcessServiceClient::new(fleet.channel.clone());
    let started = client.start_agent_process(fleet.as_admin(start)).await.map(drop);
    assert_eq!(refused(started), Err(Reason::AgentUnreachable));
    let mut agents = HostAgentServiceClient::new(fleet.channel.clone());
    let stop_all = StopHostAgentRequest { host_id: closed.host, ..Default::default() };
    let all = agents.stop_host_agent(fleet.as_admin(stop_all)).await.map(drop);
    assert_eq!(refused(all), Err(Reason::AgentRefuses));
    let restart = RestartHostAgentRequest { host_id: protecting.host, ..Default::default() };
    let all = agents.restart_host_agent(fleet.as_admin(restart)).await.map(drop);
    assert_eq!(refused(all), Err(Reason::ProcessProtected));
    protecting.tell(Report::Heartbeat(Heartbeat {})).await;

    let dry_run = Some(OrderTerms { dry_run: true, ..Default::default() });
    let stop_all = StopHostAgentRequest { host_id: closed.host, terms: dry_run, ..Default::default() };
    let all = agents.stop_host_agent(fleet.as_admin(stop_all)).await.map(drop);
    assert_eq!(refused(all), Err(Reason::AgentRefuses));

    let mut batches = BatchServiceClient::new(fleet.channel.clone());
    let host_ids = vec![closed.host, protecting.host, open.host];
    let order = Some(BatchOrder { host_ids, ..Default::default() });
    let plan = PlanBatchRequest { verb: BatchVerb::Stop.into(), order };
    let plan = batches.plan_batch(fleet.as_admin(plan)).await.unwrap().into_inner().plan.unwrap();
    let planned: Vec<_> = plan.hosts.iter().map(|host| host.host_id).collect();
    assert_eq!(planned, [open.host]);
    let left_out: Vec<_> = plan.left_out.iter().map(|left| (left.host_id, &left.why[..])).collect();
    assert_eq!(
        left_out,
        [
            (closed.host, "taking no orders by local:root: new disk"),
            (protecting.host, "protecting `db` by its own policy")
        ]
    );
}

/// Hazard S25: whoever has a token does not get the whole contract with it, unless the settings say so.
#[tokio::test]
async fn reflection_is_off_by_default() {
    let fleet = Fleet::start().await;
    let mut client = ServerReflectionClient::new(fleet.channel.clone());
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = client.server_reflection_info(fleet.as_admin(tokio_stream::once(asked))).await;
    assert_eq!(answer.map(drop).map_err(|status| status.code()), Err(Code::Unimplemented));
}
