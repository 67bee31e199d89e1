//! What a host refuses of its server's orders, by its own configuration or by the word of a person there; and what
//! `belay doctor` finds.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use belay_proto::{
    agent::v1::{
        ExitReport, ObservedProcess, OperationState, OrderRequest, ProcessPhase, SetMaintenanceRequest, Verb,
        control_service_client::ControlServiceClient,
    },
    fleet::v1::{Hello, ProcessesChanged, ReportRequest, report_request::Report},
};
use belay_tests::{Fleet, HostSetup, Memory, NOBODY, Wire, wait_for};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::{cli::belay, fleet};

/// The way to an agent that `belay-agent ctl` takes.
async fn control(fleet: &Fleet, host: usize) -> ControlServiceClient<Channel> {
    let socket = fleet.folder().join(format!("host-{}-state/control.sock", host + 1));
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("a path");
    ControlServiceClient::new(endpoint.connect().await.expect("connected"))
}

async fn set_maintenance(fleet: &Fleet, on: bool, reason: &str) {
    let request = SetMaintenanceRequest { on, reason: reason.into() };
    control(fleet, 0).await.set_maintenance(request).await.expect("answered");
}

/// What the host's own record says of its policy, as the command line tells a program.
fn policy(fleet: &Fleet) -> Value {
    let (code, out, err) = belay(fleet, &["host", "get", "host-1", "-o", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    serde_json::from_str::<Value>(&out).expect("JSON")["policy"].clone()
}

/// The documented stop of an agent stops what it may, fails, and says what is left: stopped means proven gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_protected_process_is_left_and_told() {
    let setup = HostSetup::new().worker("obstat2", "plain").worker("db", "plain").protecting("db");
    let fleet = fleet(vec![setup]).await;
    assert_eq!(policy(&fleet)["protectedProcesses"][0], "db");
    let path = fleet.process_path(0, "db").await;
    for verb in ["stop", "restart"] {
        let refused = fleet.admin().post(&format!("{path}/{verb}")).await;
        assert_eq!(
            (refused.status.as_u16(), refused.reason()),
            (409, "PROCESS_PROTECTED"),
            "{}",
            refused.text
        );
    }
    let agent = fleet.agent_path(0).await;
    let refused = fleet.admin().post(&format!("{agent}/restart")).await;
    assert_eq!((refused.status.as_u16(), refused.reason()), (409, "PROCESS_PROTECTED"), "{}", refused.text);

    let (code, out, err) = belay(&fleet, &["agent", "stop"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("PROCESS_PROTECTED") && err.contains("`db` was left as it is"), "{out}{err}");
    assert_eq!(fleet.ledger(0, "obstat2").alive(), NOBODY);
    assert_eq!(fleet.ledger(0, "db").terminations(), NOBODY);
    let shown = fleet.admin().get(&agent).await;
    assert_eq!(shown.data()["status"], "STARTED", "it is not all stopped: {}", shown.text);
    let (code, out, err) = belay(&fleet, &["task", "rollback", "1"]);
    assert_eq!(code, 0, "what ran is started again: {out}{err}");
    assert_eq!(fleet.process(0, "obstat2").await["status"], "STARTED");

    let stop = OrderRequest { verb: Verb::Stop.into(), alias: "db".into(), ..OrderRequest::default() };
    let stopped = control(&fleet, 0).await.order(stop).await.expect("answered").into_inner();
    assert_eq!(stopped.operation.expect("an operation").state(), OperationState::Done);
    assert_eq!(fleet.ledger(0, "db").alive(), NOBODY, "a person on the host may");
    let started = fleet.admin().post(&format!("{path}/start")).await;
    assert_eq!(started.data()["status"], "STARTED", "and it may be started: {}", started.text);
}

/// A person on the host has the last word: over a restart of either part no order of the server is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_maintenance_takes_no_order() {
    let mut fleet =
        fleet(vec![HostSetup::new().worker("obstat2", "plain"), HostSetup::new().sleeper("x")]).await;
    set_maintenance(&fleet, true, "new disk").await;
    wait_for("the server knows of it", async || match policy(&fleet)["reason"].as_str() {
        Some("new disk") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let path = fleet.process_path(0, "obstat2").await;
    let refused = fleet.admin().post(&format!("{path}/stop")).await;
    assert_eq!((refused.status.as_u16(), refused.reason()), (409, "AGENT_REFUSES"), "{}", refused.text);
    assert!(refused.message().contains("new disk"), "{}", refused.text);
    let (_, out, _) = belay(&fleet, &["host", "get", "host-1"]);
    assert!(out.contains("takes no orders since") && out.contains("new disk"), "{out}");
    let (code, out, err) = belay(&fleet, &["batch", "stop", "--select", "all", "--dry-run", "-o", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("taking no orders by") && out.contains("new disk"), "{out}");
    let planned: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(planned["hosts"].as_array().map(Vec::len), Some(1), "{planned:#}");

    fleet.agent(0).kill();
    fleet.server.kill();
    fleet.server.start();
    fleet.agent(0).start();
    fleet.wait_until_ready().await;
    wait_for("it outlasts both", async || {
        let refused = fleet.admin().post(&format!("{path}/stop")).await;
        if refused.reason() == "AGENT_REFUSES" { Ok(()) } else { Err(refused.text) }
    })
    .await;
    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY);
    set_maintenance(&fleet, false, "").await;
    wait_for("orders are taken again", async || {
        let stopped = fleet.admin().post(&format!("{path}/stop")).await;
        if stopped.status.is_success() { Ok(()) } else { Err(stopped.text) }
    })
    .await;
    assert_eq!(fleet.ledger(0, "obstat2").alive(), NOBODY);
}

/// The doctor finds what was made wrong, says what to do, and finds it well when that is done.
#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong() {
    let fleet = fleet(vec![HostSetup::new().sleeper("x")]).await;
    let config = fleet.folder().join("server.toml");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("set");
    let config = config.display().to_string();
    let arguments = ["doctor", "--server-config", &config, "-o", "json"];
    let findings = |out: &str| {
        let told: Value = serde_json::from_str(out).expect("JSON");
        told["findings"].as_array().cloned().expect("findings")
    };
    let (code, out, err) = belay(&fleet, &arguments);
    assert_eq!(code, 0, "{out}{err}");
    let level = |out: &str, check: &str| {
        let found = findings(out).into_iter().find(|finding| finding["check"] == check);
        found.map(|finding| finding["level"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    for well in
        ["database.synchronous", "database.journal", "connection.clock", "agents.offline", "agents.versions"]
    {
        assert_eq!(level(&out, well), "OK", "{well}: {out}");
    }
    assert_eq!(level(&out, "users.first_password"), "WARN", "{out}");
    assert_eq!(level(&out, "users.admins"), "WARN", "{out}");

    let token = fleet.folder().join("server/fleet.token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("set");
    let (code, out, _) = belay(&fleet, &arguments);
    assert_eq!(code, 1, "{out}");
    let of_token = findings(&out).into_iter().filter(|one| one["subject"] == token.display().to_string());
    assert_eq!(of_token.count(), 1, "the server and the terminal look at it, and it is told once: {out}");
    let first = findings(&out).remove(0);
    assert_eq!((&first["check"], &first["level"]), (&"files.secret".into(), &"FAIL".into()), "{out}");
    let remedy = first["remedy"].as_str().expect("a remedy");
    assert_eq!(remedy, format!("chmod go-rwx {}", token.display()));
    let (_, out, _) = belay(&fleet, &["doctor"]);
    assert!(out.contains("others can read it (mode 644)") && out.contains("do   chmod go-rwx"), "{out}");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("set");
    assert_eq!(belay(&fleet, &arguments).0, 0);
}

/// An agent that says as much as it can, in reports of 10 MB, of processes that nobody has, until it is cut off.
async fn flood(wire: Wire) -> Status {
    let talkative = |number: usize, revision: u64| ObservedProcess {
        alias: format!("p{number}"),
        revision,
        phase: ProcessPhase::Stopped.into(),
        operable: true,
        last_exit: Some(ExitReport { last_output: vec!["x".repeat(1024); 50], ..Default::default() }),
        ..Default::default()
    };
    let said = move |revision| (0..200).map(|number| talkative(number, revision)).collect::<Vec<_>>();
    let hello = Hello {
        identity: Uuid::from_u128(7).to_string(),
        incarnation: Uuid::from_u128(8).to_string(),
        boot_id: Uuid::from_u128(9).to_string(),
        address: "127.0.0.1:1".to_owned(),
        name: "flooder".to_owned(),
        processes: said(1),
        ..Default::default()
    };
    let (reports, queue) = mpsc::channel(1);
    let first = ReportRequest { sequence: 1, report: Some(Report::Hello(hello)) };
    reports.send(first).await.expect("sent");
    tokio::spawn(async move {
        for sequence in 2.. {
            let changed = ProcessesChanged { processes: said(sequence) };
            let report = ReportRequest { sequence, report: Some(Report::ProcessesChanged(changed)) };
            if reports.send(report).await.is_err() {
                return;
            }
        }
    });
    let mut client = wire.reports();
    let mut answers = match client.report(ReceiverStream::new(queue)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("it ended by itself"),
            Err(status) => return status,
        }
    }
}

/// Hazard A13: while an agent floods, orders for other hosts and lists go on, and the server does not grow without bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_flooding_agent_hurts_its_own_host() {
    // A heartbeat with which a busy machine does not lose sight of anybody.
    let (program, victim) = (env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"));
    let mut fleet = Fleet::plain_without_hosts(program, victim, "3s").await;
    fleet.add_host(HostSetup::new().sleeper("x")).await;
    let before = Memory::of(fleet.server.pid()).resident;
    let wire = fleet.wire_with(&format!("Bearer {}", fleet.token()));
    let flood = tokio::spawn(flood(wire));
    let path = fleet.process_path(0, "x").await;
    let (mut slowest, mut most) = (Duration::ZERO, before);
    while !flood.is_finished() {
        for verb in ["stop", "start"] {
            let asked = Instant::now();
            let answer = fleet.admin().post(&format!("{path}/{verb}")).await;
            assert!(answer.status.is_success(), "{}", answer.text);
            slowest = slowest.max(asked.elapsed());
        }
        let listed = fleet.admin().get("/api/v2/compute/hosts").await;
        assert!(listed.status.is_success(), "{}", listed.text);
        most = most.max(Memory::of(fleet.server.pid()).resident);
    }
    let status = flood.await.expect("no panic");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(most - before < 300.0, "it grew by {} MiB", most - before);
    let (_, out, _) = belay(&fleet, &["host", "get", "flooder"]);
    assert!(out.contains("sends more reports than an agent has reason to"), "{out}");
    let (code, out, _) = belay(&fleet, &["doctor"]);
    assert!(code == 1 && out.contains("agents.conduct"), "{out}");
}
