//! The audit trail: complete, protected, and read by those who may.

use std::{fs, process::Command};

use belay_proto::v1::{
    AuditFaultKind, CreateUserRequest, ListAuditRecordsRequest, Role, StopAgentProcessRequest,
    StopHostAgentRequest, VerifyAuditRequest, VerifyAuditResponse,
};
use belay_tests::{Fleet, HostSetup, NOBODY, Wire};
use http::{Method, StatusCode};
use sea_orm::{ConnectionTrait, Database};
use serde_json::Value;
use tonic::Request;

use crate::{cli::belay, fleet};

const RECORDS: &str = "/api/v2/audit/records";

async fn records(fleet: &Fleet, query: &str) -> Vec<Value> {
    let answer = fleet.admin().get(&format!("{RECORDS}?{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.data()["contents"].as_array().cloned().expect("records")
}

async fn verified(wire: &Wire) -> VerifyAuditResponse {
    let mut request = VerifyAuditRequest::default();
    loop {
        let found = wire.audit().verify_audit(request).await.expect("an answer").into_inner();
        if found.next_page_token.is_empty() {
            return found;
        }
        request = VerifyAuditRequest { page_token: found.next_page_token };
    }
}

fn database(fleet: &Fleet) -> String {
    format!("sqlite://{}", fleet.folder().join("server/belay.db").display())
}

/// Writes to the database behind the server's back.
async fn tamper(fleet: &Fleet, sql: &str) {
    let db = Database::connect(database(fleet)).await.expect("opened");
    db.execute_unprepared(sql).await.expect("written");
    db.close().await.expect("closed");
}

fn key<M>(message: M, key: &str) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", key.parse().expect("a key"));
    request
}

/// Hazard X06: one record for each attempt, also of those that nobody had to look at, and none for what is no order.
#[tokio::test]
async fn every_attempt_at_an_order_leaves_one_record() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let wire = fleet.wire();
    let host_id = fleet.host_id(0).await;
    let process_id = fleet.process(0, "obstat2").await["id"].as_i64().expect("an id");
    let stop = |reason: &str| StopAgentProcessRequest {
        host_id,
        agent_process_id: process_id,
        reason: reason.into(),
        ..Default::default()
    };
    let count = async || records(&fleet, "size=2000").await.len();
    let newest = async || records(&fleet, "size=1").await.remove(0);

    let mut expected = count().await;
    let malformed = [
        (StopAgentProcessRequest { host_id: 0, ..stop("x") }, "INVALID_ARGUMENT"),
        (StopAgentProcessRequest { agent_process_id: -1, ..stop("x") }, "INVALID_ARGUMENT"),
        (stop("two\r\nlines"), "INVALID_ARGUMENT"),
        (StopAgentProcessRequest { agent_process_id: 999, ..stop("x") }, "PROCESS_UNKNOWN"),
    ];
    for (request, outcome) in malformed {
        wire.processes().stop_agent_process(request.clone()).await.expect_err("refused");
        expected += 1;
        let told = newest().await;
        assert_eq!((told["outcome"].as_str(), count().await), (Some(outcome), expected), "{request:?}");
        assert_eq!(told["action"], "StopAgentProcess");
    }
    // Under a key, whose refusal frees it; then done under it; then again, which is no attempt of its own; then another one.
    wire.processes().stop_agent_process(key(stop("\0"), "k")).await.expect_err("refused");
    assert_eq!(count().await, expected + 1);
    for _ in 0..2 {
        wire.processes().stop_agent_process(key(stop("ticket 7"), "k")).await.expect("stopped");
        assert_eq!(count().await, expected + 2);
    }
    wire.processes().stop_agent_process(key(stop("ticket 8"), "k")).await.expect_err("another request");
    expected += 3;
    let told = newest().await;
    assert_eq!(
        (told["outcome"].as_str(), count().await),
        (Some("IDEMPOTENCY_KEY_REUSED"), expected),
        "{told:#}"
    );
    // Nothing was ordered.
    let path = fleet.process_path(0, "obstat2").await;
    for order in ["start?dryRun=true", "stop?dryRun=true"] {
        let planned = fleet.admin().post(&format!("{path}/{order}")).await;
        assert_eq!(planned.status, StatusCode::OK, "{}", planned.text);
    }
    let unknown = fleet.agent_path(0).await.replace(&format!("hosts/{host_id}"), "hosts/999");
    assert_eq!(fleet.admin().post(&format!("{unknown}/stop?dryRun=true")).await.status, 404);
    assert_eq!(count().await, expected);
    // Who may not, and who is not known.
    let anyone = fleet.anyone().post(&format!("{path}/stop")).await;
    assert_eq!((anyone.status, count().await), (StatusCode::UNAUTHORIZED, expected));
    assert_eq!(verified(&wire).await.fault, None);
}

/// Hazard X05: from the outside, on a server that runs and on one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_behind_the_servers_back_is_found() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let path = fleet.process_path(0, "obstat2").await;
    for verb in ["stop", "start", "stop", "start"] {
        let done = fleet.admin().post(&format!("{path}/{verb}")).await;
        assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    }
    let (code, out, err) = belay(&fleet, &["audit", "verify"]);
    assert!(code == 0 && out.contains("as it was written: 9 records"), "{out}{err}");
    let rest = fleet.admin().get("/api/v2/audit/verification").await;
    assert_eq!((rest.data()["sound"].as_i64(), rest.data()["newestId"].as_i64()), (Some(9), Some(9)));
    assert!(rest.data()["fault"].is_null(), "{}", rest.text);
    let config = fleet.folder().join("server.toml");
    let running = belay_server::verify_audit(&config).await.expect_err("a server has it");
    assert!(format!("{running:?}").contains("Locked"), "{running:?}");

    // Over its end and a crash.
    fleet.server.end();
    let report = belay_server::verify_audit(&config).await.expect("read");
    assert_eq!((report.sound, report.fault), (9, None));
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    assert_eq!(verified(&fleet.wire()).await.fault, None);

    tamper(&fleet, "UPDATE audit SET principal = 'kim' WHERE id = 7").await;
    let fault = verified(&fleet.wire()).await.fault.expect("found");
    assert_eq!((fault.record_id, fault.kind()), (7, AuditFaultKind::Edited));
    let (code, out, err) = belay(&fleet, &["audit", "verify"]);
    assert!(code == 1 && out.is_empty() && err.contains("from record 7 on"), "{code} {out}{err}");
    assert!(err.contains("hint:"), "{err}");
    let (code, out, _) = belay(&fleet, &["audit", "verify", "-o", "json"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["fault"]["kind"], &told["sound"]), (1, &"EDITED".into(), &6.into()));
    tamper(&fleet, "UPDATE audit SET principal = 'admin' WHERE id = 7").await;
    assert_eq!(verified(&fleet.wire()).await.fault, None);

    tamper(&fleet, "DELETE FROM audit WHERE id = 9").await;
    let fault = verified(&fleet.wire()).await.fault.expect("found");
    assert_eq!((fault.record_id, fault.kind()), (9, AuditFaultKind::CutAtTheEnd));
    fleet.server.end();
    let report = belay_server::verify_audit(&config).await.expect("read");
    assert_eq!(report.fault.as_ref().map(|(record, _)| *record), Some(9));
    assert!(report.to_string().contains("record 9 is missing at the end"), "{report}");
}

/// Who may reads what they look for, page by page; nobody else reads anything. Hazard I12: what a program reads a line at a
/// time stays one line, whatever is in it.
#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_filtered_paged_and_exported() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let wire = fleet.wire();
    let roles = vec![Role::HostManager.into()];
    let kim = CreateUserRequest {
        name: "kim".into(),
        roles,
        password: "kim has a password".into(),
        grants: Vec::new(),
    };
    wire.users().create_user(kim).await.expect("added");
    let kim = fleet.anyone().user("kim", "kim has a password");
    let (host, path) = (fleet.host_id(0).await, fleet.process_path(0, "obstat2").await);
    let odd = "it's \"odd\" \u{2028} {\\n} \u{1F980} </script>";
    let body = serde_json::json!({ "reason": odd }).to_string();
    let stopped = kim.call(Method::POST, &format!("{path}/stop"), body.into()).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);
    assert_eq!(kim.post("/api/v2/iam/users").await.status, StatusCode::BAD_REQUEST);
    let user = br#"{"name": "lee", "roles": ["ADMIN"], "password": "lee has a password"}"#.to_vec();
    assert_eq!(kim.call(Method::POST, "/api/v2/iam/users", user).await.status, StatusCode::FORBIDDEN);
    assert_eq!(kim.get(RECORDS).await.status, StatusCode::FORBIDDEN);
    assert_eq!(kim.get("/api/v2/audit/verification").await.status, StatusCode::FORBIDDEN);
    for _ in 0..3 {
        wire.agents()
            .stop_host_agent(StopHostAgentRequest { host_id: 999, ..Default::default() })
            .await
            .expect_err("unknown");
    }

    let ids = async |query: &str| -> Vec<i64> {
        let records = records(&fleet, query).await;
        records.iter().map(|record| record["id"].as_i64().expect("an id")).collect()
    };
    // 1 made the first user; with 2 to 5 the gateway and the host joined; 6 made kim, 7 is kim's stop, 8 was denied, and 9 to 11
    // are of no host.
    assert_eq!(ids("").await, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    let time = records(&fleet, "afterId=6&size=1").await[0]["time"].as_str().expect("a time").to_owned();
    let time = time.replace('+', "%2B");
    let trace = stopped.trace();
    for (query, expected) in [
        ("principal=kim".to_owned(), &[8, 7][..]),
        ("action=StopHostAgent".to_owned(), &[11, 10, 9]),
        ("action=StopHostAgent&principal=kim".to_owned(), &[]),
        (format!("target=hosts/{host}"), &[7, 5]),
        ("target=hosts/99".to_owned(), &[]),
        ("decision=DENY".to_owned(), &[8]),
        ("decision=ALLOW&principal=kim".to_owned(), &[7]),
        ("outcome=DONE&principal=kim".to_owned(), &[7]),
        ("outcome=HOST_UNKNOWN".to_owned(), &[11, 10, 9]),
        (format!("traceId={trace}"), &[7]),
        (format!("until={time}"), &[6, 5, 4, 3, 2, 1]),
        ("from=2999-01-01T00:00:00Z".to_owned(), &[]),
        ("beforeId=3".to_owned(), &[2, 1]),
        ("afterId=8".to_owned(), &[9, 10, 11]),
        ("afterId=0&outcome=HOST_UNKNOWN&size=2".to_owned(), &[9, 10]),
    ] {
        assert_eq!(ids(&query).await, expected, "{query}");
    }
    for bad in [
        "decision=allow",
        "decision=",
        "from=yesterday",
        "principal=",
        "pageToken=x",
        "beforeId=1&afterId=2",
        "afterId=-1",
        "size=2001",
    ] {
        let refused = fleet.admin().get(&format!("{RECORDS}?{bad}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad}: {}", refused.text);
    }

    // By tokens, each for its own list.
    let asked = ListAuditRecordsRequest { outcome: "HOST_UNKNOWN".into(), size: 2, ..Default::default() };
    let first = wire.audit().list_audit_records(asked.clone()).await.expect("read").into_inner();
    let page_token = first.next_page_token;
    let next = ListAuditRecordsRequest { page_token: page_token.clone(), ..asked };
    let second = wire.audit().list_audit_records(next).await.expect("read").into_inner();
    let told: Vec<_> = first.records.iter().chain(&second.records).map(|record| record.id).collect();
    assert_eq!((told, second.next_page_token.as_str()), (vec![11, 10, 9], ""));
    let foreign = ListAuditRecordsRequest { page_token, ..Default::default() };
    wire.audit().list_audit_records(foreign).await.expect_err("of another list");
    let link = fleet.admin().get(&format!("{RECORDS}?principal=kim&size=1")).await;
    let link = link.headers["link"].to_str().expect("a text").to_owned();
    let next = link.trim_start_matches('<').split('>').next().expect("an address");
    let next = fleet.admin().get(next).await;
    assert_eq!(next.data()["contents"][0]["id"], 7, "{}", next.text);

    // The command line.
    let (code, out, err) = belay(&fleet, &["audit", "list", "--by", "kim", "--host", "host-1", "-o", "json"]);
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, listed["contents"].as_array().map(Vec::len)), (0, Some(1)), "{err}");
    let (code, out, err) = belay(&fleet, &["audit", "list", "--decision", "deny", "--limit", "1"]);
    assert!(code == 0 && out.contains("PERMISSION_DENIED"), "{out}{err}");
    let export = |after: &str| -> Vec<Value> {
        let (code, out, err) = belay(&fleet, &["audit", "export", "--after", after]);
        assert_eq!(code, 0, "{err}");
        out.lines().map(|line| serde_json::from_str(line).expect("a record a line")).collect()
    };
    let all = export("0");
    let ids = |records: &[Value]| records.iter().map(|record| record["id"].as_i64()).collect::<Vec<_>>();
    assert_eq!(ids(&all), (1..=11).map(Some).collect::<Vec<_>>());
    assert_eq!(all[6]["reason"], odd);
    assert!(all.iter().all(|record| record["mac"].as_str().is_some_and(|mac| mac.len() == 64)));
    let newest = verified(&wire).await;
    assert_eq!((all[10]["mac"].as_str(), newest.newest_id), (Some(newest.newest_mac.as_str()), 11));
    assert_eq!(export("9"), all[9..], "it goes on where it was left");
}

/// Hazard X07: where nothing can be written down nothing is done, and what only reads goes on.
#[tokio::test]
async fn a_full_disk_refuses_orders_and_answers_questions() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).expect("made");
    let path = disk.display().to_string();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs", &path]).output().expect("ran");
    if !mounted.status.success() {
        return eprintln!("skipped: nothing can be mounted here");
    }
    let disk = Mounted(path);
    let (program, victim) = (env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"));
    let data = folder.path().join("disk/server");
    let hosts = vec![HostSetup::new().worker("obstat2", "plain")];
    let fleet = Fleet::start_on(&data, program, victim, hosts).await;
    let process = fleet.process_path(0, "obstat2").await;

    let filler = folder.path().join("disk/filler");
    let mut size = 8 << 20;
    let mut filled = fs::File::create(&filler).expect("made");
    while size > 0 {
        // Whatever is left, down to the last byte.
        match std::io::Write::write_all(&mut filled, &vec![0; size]) {
            Ok(()) => {}
            Err(_) => size /= 2,
        }
    }
    // What the log of the database has room for already, it may still take: sooner or later an order is refused.
    let mut runs = true;
    for order in 0.. {
        assert!(order < 500, "the disk is never full");
        let signals = fleet.ledger(0, "obstat2").terminations();
        let verb = if runs { "stop" } else { "start" };
        let answer = fleet.admin().post(&format!("{process}/{verb}")).await;
        if answer.status == StatusCode::OK {
            runs = !runs;
            continue;
        }
        assert_eq!((answer.status.as_u16(), answer.reason()), (503, "STORE_UNWRITABLE"), "{}", answer.text);
        assert!(answer.message().contains("make room"), "{}", answer.text);
        assert_eq!(fleet.ledger(0, "obstat2").terminations(), signals, "nothing was done");
        let status = if runs { "STARTED" } else { "STOPPED" };
        assert_eq!(fleet.process(0, "obstat2").await["status"], status, "nothing was done");
        for question in ["/api/v2/compute/hosts", RECORDS, "/api/v2/audit/verification"] {
            let answer = fleet.admin().get(question).await;
            assert_eq!(answer.status, StatusCode::OK, "{question}: {}", answer.text);
        }
        break;
    }

    // Its room is free when nobody has it open any more.
    drop(filled);
    fs::remove_file(&filler).expect("removed");
    let stopped = fleet.admin().post(&format!("{process}/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);
    assert_eq!(fleet.ledger(0, "obstat2").alive(), NOBODY);
    assert_eq!(verified(&fleet.wire()).await.fault, None);
    drop(fleet);
    drop(disk);
}

/// A file system, until this is dropped.
struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", &self.0]).status();
    }
}
