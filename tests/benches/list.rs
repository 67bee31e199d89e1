//! What a page of tasks costs where there are a million of them, and how soon a server with that many is back.
//!
//! `cargo bench -p belay-tests --bench list`. `BELAY_TASKS=20000` for fewer.

#![allow(clippy::print_stdout)] // what a benchmark is for

use std::time::{Duration, Instant};

use belay_proto::v1::{ListTasksRequest, TaskStatus};
use belay_tests::{Client, Fleet, HostSetup, Times, Wire};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};

/// How often each page is read.
const READS: usize = 500;
/// How many tasks are written in one transaction.
const CHUNK: u64 = 20_000;
/// Hosts that had tasks before. Every tenth task is one of the first of them.
const HOSTS: u64 = 1_000;
const PAGE: i32 = 20;

#[tokio::main]
async fn main() {
    let count = std::env::var("BELAY_TASKS").map_or(1_000_000, |count| count.parse().expect("a number"));
    let setup = HostSetup::new();
    let mut fleet =
        Fleet::start(env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"), vec![setup]).await;
    fleet.server.end();
    let start = Instant::now();
    fill(&fleet, count).await;
    println!("{count} ended tasks of {HOSTS} hosts, written in {:.0} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    fleet.server.start();
    fleet.wait_until_ready().await;
    println!(
        "started, and answered through the gateway, after {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    );

    println!("pages of {PAGE}, REST: through gateway and server, {READS} times each");
    let (client, last) = (fleet.admin(), count.div_ceil(PAGE as u64));
    let pages = [
        ("first page", String::new()),
        ("status=FAILED (1 %)", "&status=FAILED".to_owned()),
        ("status=SUCCESSFUL (99 %)", "&status=SUCCESSFUL".to_owned()),
        ("hostId, of few tasks", "&hostId=700".to_owned()),
        ("hostId, of a tenth of all", "&hostId=1".to_owned()),
        ("hostId, name and status", "&hostId=1&name=restart&status=FAILED".to_owned()),
        ("name=restart", "&name=restart".to_owned()),
        ("name=agent, which is all", "&name=agent".to_owned()),
        ("name that none has", "&name=reboot".to_owned()),
        ("sort=createTime,asc", "&sort=createTime,asc".to_owned()),
        ("sort=createTime,desc&status=FAILED", "&sort=createTime,desc&status=FAILED".to_owned()),
        ("last page, by number", format!("&page={last}")),
        ("page 1000, by number", "&page=1000".to_owned()),
        ("middle page, by number", format!("&page={}", last / 2)),
    ];
    for (what, query) in pages {
        report(what, rest(&client, &format!("/api/v2/tasks/instances?size={PAGE}{query}")).await);
    }
    let deep = deep_token(&fleet.wire(), count).await;
    let by_token = format!("/api/v2/tasks/instances?size={PAGE}&pageToken={deep}");
    report("middle page, by token", rest(&client, &by_token).await);

    println!("the same, gRPC: the server alone");
    let wire = fleet.wire();
    let first = ListTasksRequest { size: PAGE, ..ListTasksRequest::default() };
    report("first page", grpc(&wire, &first).await);
    let failed = ListTasksRequest { statuses: vec![TaskStatus::Failed.into()], ..first.clone() };
    report("status=FAILED (1 %)", grpc(&wire, &failed).await);
    report("middle page, by token", grpc(&wire, &ListTasksRequest { page_token: deep, ..first }).await);
}

/// Writes ended stops, starts and restarts as a server would have left them: three steps, two edges, seven events and three
/// lines of logs each. They ended within the last days, so that none is too old to be kept.
async fn fill(fleet: &Fleet, count: u64) {
    let file = fleet.folder().join("server/belay.db");
    let db = Database::connect(format!("sqlite://{}", file.display())).await.expect("opened");
    // Nothing of it has to outlast a crash of this program.
    execute(&db, "PRAGMA synchronous = OFF").await;
    execute(&db, "PRAGMA cache_size = -200000").await;
    let now = jiff::Timestamp::now().as_microsecond();
    let mut first = 1;
    while first <= count {
        let last = (first + CHUNK - 1).min(count);
        let numbers =
            format!("WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})");
        // Every tenth task took its time: what was made later did not always get the higher id.
        let made = format!("{now} - ({count} - i) * 1000000 - 3600000000 - (i % 10 = 0) * 5000000");
        let kinds = "CASE i % 3 WHEN 0 THEN 'Stop OCP agent' WHEN 1 THEN 'Start OCP agent' ELSE 'Restart OCP agent' END";
        for statement in [
            "BEGIN".to_owned(),
            format!(
                "{numbers} INSERT INTO tasks (id, name, host_id, status, creator_id, creator, executor, trace, reason, \
                 create_time, finish_time, prohibit_rollback) \
                 SELECT i, {kinds}, CASE i % 10 WHEN 0 THEN 1 ELSE 2 + i % ({HOSTS} - 1) END, \
                 CASE i % 100 WHEN 0 THEN 'FAILED' ELSE 'SUCCESSFUL' END, 1, 'admin', '127.0.0.1', \
                 '00-' || printf('%016x', i) || '0000000000000001-00f067aa0ba902b7-01', 'maintenance', {made}, {made} + 500000, 0 FROM n"
            ),
            format!(
                "{numbers}, s(place, node, name) AS (VALUES (0, 'finish_stop', 'Finish OCP agent operation'), \
                 (1, 'stop_all', 'Stop all OCP agent processes'), (2, 'prepare_stop', 'Prepare stop OCP agent')) \
                 INSERT INTO subtasks (id, task_id, node, name, class_name, series_id, timeout, undo) \
                 SELECT i * 3 - 2 + place, i, node, s.name, 'com.alipay.ocp.service.task.business.obagent.AnyTask', \
                 place, 600, '' FROM n, s ORDER BY i, place"
            ),
            format!(
                "{numbers}, e(up) AS (VALUES (0), (1)) \
                 INSERT INTO subtask_edges (task_id, upstream_id, downstream_id) \
                 SELECT i, i * 3 - up, i * 3 - up - 1 FROM n, e"
            ),
            format!(
                "{numbers}, s(place) AS (VALUES (0), (1), (2)), k(at, kind) AS (VALUES (0, 'started'), (1, 'succeeded')) \
                 INSERT INTO task_events (task_id, time, event) SELECT i, {made} + place * 100000 + at * 50000, \
                 CASE WHEN kind = 'started' THEN '{{\"kind\":\"started\",\"subtask\":' || (i * 3 - place) || \
                 ',\"attempt\":1,\"operation\":\"' || printf('%08x-0000-7000-8000-%012x', place, i) || '\",\"undo\":false}}' \
                 WHEN i % 100 = 0 AND place = 2 THEN '{{\"kind\":\"failed\",\"subtask\":' || (i * 3 - place) || \
                 ',\"attempt\":1,\"reason\":\"LEFTOVERS\",\"message\":\"pid 7 lives\",\"undo\":false,\"stuck\":false}}' \
                 ELSE '{{\"kind\":\"succeeded\",\"subtask\":' || (i * 3 - place) || ',\"attempt\":1,\"undo\":false}}' END \
                 FROM n, s, k ORDER BY i, place, at"
            ),
            format!(
                "{numbers}, s(place) AS (VALUES (0), (1), (2)) \
                 INSERT INTO subtask_logs (subtask_id, number, bytes_before, attempt, time, level, message, operation) \
                 SELECT i * 3 - place, 1, 0, 1, {made}, 'INFO', 'done', 'EXECUTE' FROM n, s"
            ),
            "COMMIT".to_owned(),
        ] {
            execute(&db, &statement).await;
        }
        first = last + 1;
    }
    execute(&db, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    db.close().await.expect("closed");
}

async fn execute(db: &DatabaseConnection, sql: &str) {
    db.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// A token that leads into the middle of the list, found in large steps.
async fn deep_token(wire: &Wire, count: u64) -> String {
    let page = i32::try_from(count / 4000).expect("a number").max(1);
    let request = ListTasksRequest { page, size: 2000, ..ListTasksRequest::default() };
    wire.tasks().list_tasks(request).await.expect("read").into_inner().next_page_token
}

async fn rest(client: &Client, path: &str) -> Vec<Duration> {
    let mut times = Vec::with_capacity(READS);
    for _ in 0..READS {
        let start = Instant::now();
        let answer = client.get(path).await;
        times.push(start.elapsed());
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
    }
    times
}

async fn grpc(wire: &Wire, request: &ListTasksRequest) -> Vec<Duration> {
    let mut times = Vec::with_capacity(READS);
    for _ in 0..READS {
        let start = Instant::now();
        wire.tasks().list_tasks(request.clone()).await.expect("read");
        times.push(start.elapsed());
    }
    times
}

fn report(what: &str, times: Vec<Duration>) {
    println!("  {what:<36} {}", Times::from(times));
}
