//! The database on a real file.

mod enrolment;
mod migrations;
mod retention;
mod task_lists;
mod task_logs;

use belay_proto::{HostId, Trace};
use jiff::{SignedDuration, Timestamp};
use sea_orm::{ConnectionTrait, Statement};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    access::{Grant, Role},
    config::Config,
    host::{AgentState, Facts},
    process::{ExitReport, Observed, Phase, Rung},
    task::{Attempt, Before, Event, Node, Task, TaskState, Verb, World, dag, next::Work},
};

mod access_keys;
mod audit_chain;
mod hosts;
mod keys;

struct Scratch {
    config: Config,
    _folder: TempDir,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().expect("a folder");
    Scratch { config: Config { data: folder.path().join("data"), ..Config::default() }, _folder: folder }
}

impl Scratch {
    async fn open(&self) -> Store {
        Store::open(&self.config).await.expect("opened")
    }
}

fn trace() -> Trace {
    Trace::from_random([7; 16])
}

fn audit(action: &'static str) -> AuditEntry {
    AuditEntry::new("admin".into(), action, "hosts/1".into(), String::new(), trace())
}

fn facts(identity: &str) -> Facts {
    Facts {
        identity: identity.into(),
        incarnation: "i1".into(),
        boot_id: "b".into(),
        version: "0.1.0".into(),
        address: "127.0.0.1:9441".into(),
        name: "host-1".into(),
        operating_system: "6.1".into(),
        operating_system_release: "debian 12".into(),
        architecture: "x86_64".into(),
        install_home: "/opt".into(),
        log_home: "/var/log".into(),
        tracker: "walk".into(),
        tracker_reason: "no cgroup v2 can be written".into(),
        labels: [("zone".into(), "z1".into())].into(),
    }
}

fn declared(alias: &str) -> Declared {
    Declared {
        alias: alias.into(),
        operable: true,
        log_file_pattern: "/var/log/x*".into(),
        observed: Observed { generation: 3, ..Observed::of_test(Phase::Stopped) },
    }
}

fn task(host: HostId) -> NewTask {
    let step = |node| dag::Definition::new(node, "a step", "AStep", 60);
    NewTask {
        dag: dag::Dag::chain("Stop", [step(Node::PrepareStop), step(Node::StopAll), step(Node::FinishStop)]),
        hosts: vec![host],
        batch: None,
        holder: Uuid::nil(),
        creator_id: belay_proto::UserId::try_from(1).expect("an id"),
        creator: "admin".into(),
        executor: "127.0.0.1".into(),
        trace: trace(),
        reason: "maintenance".into(),
        not_started_after: None,
    }
}

const LEASE: std::time::Duration = std::time::Duration::from_secs(30);

/// Takes a task, claimed by nobody in particular.
async fn take(store: &Store, host: HostId) -> super::Result<Task> {
    Ok(store.add_task(task(host), LEASE, audit("StopHostAgent"), |_, _| ()).await?.task)
}

fn operation(host: HostId) -> NewOperation {
    NewOperation {
        id: Uuid::now_v7(),
        verb: "StopProcess",
        host,
        process: None,
        task: None,
        trace: trace(),
        time: Timestamp::now(),
    }
}

/// Hazard R05.
#[tokio::test]
async fn a_second_server_is_refused() {
    let scratch = scratch();
    let first = scratch.open().await;
    let second = Store::open(&scratch.config).await.expect_err("locked");
    assert!(matches!(second, StoreError::Locked(_)), "{second}");
    assert!(second.to_string().contains("another server"), "{second}");
    drop(first);
    scratch.open().await;
}

/// Hazard X04: password hashes and secrets are for the owner's eyes.
#[tokio::test]
async fn nobody_else_may_read_the_database() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    let _store = scratch.open().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.config.data), 0o700);
    for file in std::fs::read_dir(&scratch.config.data).expect("listed") {
        let path = file.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// Hazard R13.
#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let scratch = scratch();
    let store = scratch.open().await;
    let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m0999_future', 0)";
    let backend = store.write.get_database_backend();
    store.write.execute_raw(Statement::from_string(backend, newer)).await.expect("written");
    store.close().await;
    drop(store);
    let refused = Store::open(&scratch.config).await.expect_err("newer");
    assert!(matches!(&refused, StoreError::Newer(change) if change == "m0999_future"), "{refused}");
}

/// Hazard R09: what keeps an acknowledged commit over a loss of power.
#[tokio::test]
async fn commits_are_on_disk_before_they_are_acknowledged() {
    let scratch = scratch();
    let store = scratch.open().await;
    for (pragma, expected) in [("synchronous", "2"), ("journal_mode", "wal"), ("foreign_keys", "1")] {
        let statement =
            Statement::from_string(store.write.get_database_backend(), format!("PRAGMA {pragma}"));
        let row = store.write.query_one_raw(statement).await.expect("asked").expect("a row");
        let told = row
            .try_get_by_index::<String>(0)
            .or_else(|_| row.try_get_by_index::<i64>(0).map(|number| number.to_string()));
        assert_eq!(told.expect("a value"), expected, "{pragma}");
    }
}

#[tokio::test]
async fn every_server_has_a_higher_epoch() {
    let scratch = scratch();
    let first = scratch.open().await.epoch();
    let second = scratch.open().await.epoch();
    assert_eq!((first, second), (1, 2));
}

/// Hazard A11: an id stays with its host and alias, whatever the agent declares meanwhile.
#[tokio::test]
async fn ids_are_kept_for_ever() {
    let scratch = scratch();
    let store = scratch.open().await;
    let now = Timestamp::now();
    let (host, first) =
        store.register(&facts("a"), &[declared("x"), declared("y")], now).await.expect("registered");
    let (again, second) = store.register(&facts("a"), &[declared("y")], now).await.expect("registered");
    let (other, third) = store.register(&facts("b"), &[declared("x")], now).await.expect("registered");
    assert_eq!(host.id, again.id);
    assert_ne!(host.id, other.id);
    let shown = |processes: &[crate::process::Process]| {
        processes.iter().map(|p| (p.id.get(), p.alias.clone(), p.declared)).collect::<Vec<_>>()
    };
    assert_eq!(shown(&first), [(1, "x".into(), true), (2, "y".into(), true)]);
    assert_eq!(shown(&second), [(1, "x".into(), false), (2, "y".into(), true)]);
    assert_eq!(shown(&third), [(3, "x".into(), true)]);
}

/// Hazard U08: a restarted server has something old to show, and says that it is old.
#[tokio::test]
async fn the_last_observation_survives() {
    let scratch = scratch();
    let store = scratch.open().await;
    let now = Timestamp::now();
    let (_, mut processes) = store.register(&facts("a"), &[declared("x")], now).await.expect("registered");
    processes[0].observe(declared("x").observed, now);
    store.save_observations(&processes, &[]).await.expect("saved");
    drop(store);
    let fleet = scratch.open().await.fleet().await.expect("read");
    let process = &fleet[0].1[0];
    assert_eq!(
        process.observed.as_ref().map(|seen| (seen.phase, seen.generation)),
        Some((Phase::Stopped, 3))
    );
    assert!(!process.fresh);
}

/// An observation that an older server wrote down is read, and what it lacks is empty.
#[test]
fn an_observation_of_an_older_server_is_read() {
    let written = r#"{"phase":"Stopped","desired_running":false,"alive":null,"last_active_time":null,"generation":3,
        "last_exit":{"pid":7,"exit_code":0,"signal":null,"escalated":false,"stop_duration":"PT2S",
        "finish_time":"2026-11-21T22:06:57Z","note":""},"leftovers":[],"stop_budget":"PT16S"}"#;
    let observed: Observed = serde_json::from_str(written).expect("read");
    assert_eq!((observed.phase, observed.endings, &observed.trouble[..]), (Phase::Stopped, 0, ""));
    let exit = observed.last_exit.expect("a report");
    assert_eq!((exit.pid, exit.core_dumped, exit.rungs.len()), (7, false, 0));
}

/// What a process printed stays on its host; the rest of its report is written back.
#[test]
fn output_is_not_written_down() {
    let mut observed = declared("x").observed;
    observed.last_exit = Some(ExitReport {
        pid: 7,
        exit_code: Some(3),
        signal: None,
        escalated: true,
        stop_duration: None,
        finish_time: None,
        note: String::new(),
        core_dumped: true,
        oom_killed: false,
        rungs: vec![Rung { step: "SIGTERM".into(), duration: SignedDuration::from_secs(30) }],
        cpu_time: Some(SignedDuration::from_millis(1_500)),
        peak_memory: Some(4096),
        last_output: vec!["the password is 1234".into()],
    });
    let written = serde_json::to_string(&observed).expect("JSON");
    assert!(!written.contains("password"), "{written}");
    let read: Observed = serde_json::from_str(&written).expect("read");
    let exit = |observed: Observed| observed.last_exit.expect("a report");
    assert_eq!(exit(read), ExitReport { last_output: Vec::new(), ..exit(observed) });
}

/// A database that was made before agents told how they keep track of processes is brought up to date.
#[tokio::test]
async fn hosts_of_an_older_server_are_kept() {
    let scratch = scratch();
    let store = scratch.open().await;
    let now = Timestamp::now();
    let (host, _) = store.register(&facts("a"), &[], now).await.expect("registered");
    for statement in [
        "ALTER TABLE hosts DROP COLUMN tracker",
        "ALTER TABLE hosts DROP COLUMN tracker_reason",
        "DELETE FROM seaql_migrations WHERE version = 'm0002_host_tracker'",
    ] {
        let backend = store.write.get_database_backend();
        store.write.execute_raw(Statement::from_string(backend, statement)).await.expect("as it was");
    }
    store.close().await;
    drop(store);

    let store = scratch.open().await;
    let (known, _) = store.fleet().await.expect("read").remove(0);
    assert_eq!((known.id, &known.facts.name[..], &known.facts.tracker[..]), (host.id, "host-1", ""));
    let (known, _) = store.register(&facts("a"), &[], now).await.expect("registered");
    assert_eq!((known.id, &known.facts.tracker[..]), (host.id, "walk"));
}

/// One open task for a host (hazards D17 and D21): whatever else is ordered is refused, and names the task.
#[tokio::test]
async fn a_task_holds_its_host_until_it_ends() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let held = take(&store, host.id).await.expect("taken");
    for refused in [
        take(&store, host.id).await.map(drop),
        store.accept(operation(host.id), None, audit("StopAgentProcess")).await,
    ] {
        assert!(matches!(refused, Err(StoreError::Held { task, .. }) if task == held.id), "{refused:?}");
    }

    let mut held = held;
    let subtask = held.graph.steps[0].id.get();
    let (attempt, undo) = (1, false);
    let (reason, message) = ("TIMED_OUT".into(), String::new());
    append(&store, &mut held, Event::Started { subtask, attempt, operation: Uuid::now_v7(), undo }).await;
    let ended =
        append(&store, &mut held, Event::Failed { subtask, attempt, reason, message, undo, stuck: false })
            .await;
    assert!(ended.ended && !ended.opened);
    store.accept(operation(host.id), None, audit("StopAgentProcess")).await.expect("free again");
    assert!(store.open_tasks().await.expect("read").is_empty());
}

/// Adds an event to a task, as nobody's runner.
async fn append(store: &Store, task: &mut Task, event: Event) -> Appended {
    let decide = adds(event);
    let appended = store.append(task, None, Timestamp::now(), decide).await.expect("appended");
    appended.expect("nothing is refused").expect("something was added")
}

fn adds(event: Event) -> impl FnOnce(&Task, &mut Draft) -> std::result::Result<(), std::convert::Infallible> {
    |_, draft| {
        draft.add(event);
        Ok(())
    }
}

fn ordered(verb: Verb) -> Event {
    Event::Ordered { verb, subtask: None, by: "admin".into() }
}

/// A step that ends beside a cancel leaves the agent as it was, and not as the step after it would have needed it.
#[tokio::test]
async fn a_cancelled_task_leaves_the_agent_as_it_was() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let mut task = take(&store, host.id).await.expect("taken");
    let (subtask, attempt, undo) = (task.graph.steps[0].id.get(), 1, false);
    let (running, stopped) = (["obstat2".to_owned()].into(), [].into());
    let before = Before { running, stopped, agent: AgentState::Stopped };
    append(&store, &mut task, Event::Started { subtask, attempt, operation: Uuid::now_v7(), undo }).await;
    append(&store, &mut task, Event::Noted { before, host: host.id.get() }).await;
    append(&store, &mut task, ordered(Verb::Cancel)).await;
    let done = |_: &Task, draft: &mut Draft| {
        draft.add(Event::Succeeded { subtask, attempt, undo });
        draft.agent_states.push((host.id, AgentState::Stopping));
        Ok::<_, std::convert::Infallible>(())
    };
    let done = store.append(&mut task, None, Timestamp::now(), done).await.expect("appended");
    let done = done.expect("nothing is refused").expect("something was added");
    assert_eq!((task.standing(), done.opened, done.ended), (TaskState::Cancelled, false, true));
    assert_eq!(done.agent_states.last(), Some(&(host.id, AgentState::Stopped)), "the last one counts");
}

/// A task that goes on again holds its host again, or not at all.
#[tokio::test]
async fn a_task_that_goes_on_again_needs_its_host() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let mut first = take(&store, host.id).await.expect("taken");
    assert!(append(&store, &mut first, ordered(Verb::Cancel)).await.ended);
    let mut second = take(&store, host.id).await.expect("free");

    let retry = adds(ordered(Verb::Retry));
    let refused = store.append(&mut first, None, Timestamp::now(), retry).await.map(drop);
    assert!(
        matches!(refused, Err(StoreError::Held { task: holder, .. }) if holder == second.id),
        "{refused:?}"
    );
    assert!(!store.task(first.id).await.expect("read").expect("there").standing().is_open());

    append(&store, &mut second, ordered(Verb::Cancel)).await;
    assert!(append(&store, &mut first, ordered(Verb::Retry)).await.opened);
    let open = store.open_tasks().await.expect("read");
    assert_eq!(open.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [first.id], "the next server takes it up");
    let third = take(&store, host.id).await;
    assert!(matches!(third, Err(StoreError::Held { task: holder, .. }) if holder == first.id));
}

/// Two runners never have one task: the second waits for the lease of the first, unless that one is of a server that is
/// gone (hazard D28). Who has lost the task can not write to its log.
#[tokio::test]
async fn a_task_has_one_runner() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let mut task = take(&store, host.id).await.expect("taken");
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let (now, lease) = (Timestamp::now(), LEASE);
    let later = now + SignedDuration::from_secs(61);
    let claim = async |holder, at| store.claim(task.id, holder, at, lease).await.expect("read").is_some();
    assert!(!claim(one, now).await, "who took it has it");
    let now = now + SignedDuration::from_secs(30);
    assert!(claim(one, now).await, "the lease has ended");
    assert!(claim(one, now).await, "it is renewed");
    assert!(!claim(other, now).await);
    assert!(claim(other, later).await);
    let begin = adds(ordered(Verb::Cancel));
    let lost = store.append(&mut task, Some(&mut Claim::new(one)), now, begin).await.map(drop);
    assert!(matches!(lost, Err(StoreError::ClaimLost)), "{lost:?}");
    drop(store);

    let next = scratch.open().await;
    assert!(next.claim(task.id, one, later, lease).await.expect("read").is_some(), "a newer epoch");
}

/// A task of before there were verbs goes on as it was made. It has no way back: what ran before it was not noted.
#[tokio::test]
async fn a_task_of_an_older_version_is_read() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let trace = trace().traceparent();
    for sql in [
        format!(
            "INSERT INTO tasks (id, name, host_id, status, creator_id, creator, executor, trace, reason, create_time) \
             VALUES (7, 'Stop', {}, 'RUNNING', 1, 'admin', '127.0.0.1', '{trace}', '', 0)",
            host.id
        ),
        "INSERT INTO subtasks (id, task_id, node, name, class_name, series_id, timeout) \
         VALUES (9, 7, 'stop_all', 'Stop all', 'S', 0, 600)"
            .to_owned(),
        "INSERT INTO subtask_logs (subtask_id, number, attempt, time, level, message) VALUES (9, 1, 1, 0, 'INFO', 'done')".to_owned(),
    ] {
        store.write.execute_unprepared(&sql).await.expect("written");
    }
    let open = store.open_tasks().await.expect("read").remove(0).1.expect("readable");
    assert_eq!(
        (open.prohibit_rollback, open.graph.steps[0].undo, open.graph.steps[0].node),
        (true, None, Node::StopAll)
    );
    assert!(
        store
            .claim(open.id, Uuid::now_v7(), Timestamp::now(), std::time::Duration::ZERO)
            .await
            .expect("read")
            .is_some()
    );
    let log = store.subtask_log(open.graph.steps[0].id, 0, 10).await.expect("read");
    assert_eq!((log[0].line.operation.as_str(), &log[0].line.message[..]), ("EXECUTE", "done"));
}

/// A task that can not be read hides no other, and a step of another version of the program is read as one.
#[tokio::test]
async fn one_bad_record_hides_no_other() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (a, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let (b, _) = store.register(&facts("b"), &[], Timestamp::now()).await.expect("registered");
    let bad = take(&store, a.id).await.expect("taken");
    let good = take(&store, b.id).await.expect("taken");
    let sql = format!("INSERT INTO task_events (task_id, time, event) VALUES ({}, 0, 'no event')", bad.id);
    store.write.execute_unprepared(&sql).await.expect("written");
    let sql = format!("UPDATE subtasks SET node = 'dance' WHERE task_id = {}", good.id);
    store.write.execute_unprepared(&sql).await.expect("written");

    let open = store.open_tasks().await.expect("read");
    let read: Vec<_> = open.iter().map(|(id, task)| (*id, task.is_ok())).collect();
    assert_eq!(read, [(bad.id, false), (good.id, true)]);
    let steps = &open[1].1.as_ref().expect("read").graph.steps;
    assert!(steps.iter().all(|step| step.node == Node::Unknown));
}

/// Hazard D01: what was written before a crash is what the next server goes on with.
#[tokio::test]
async fn a_task_is_read_back_with_the_attempt_that_was_under_way() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let task = take(&store, host.id).await.expect("taken");
    let ids: Vec<_> = task.graph.steps.iter().map(|step| (step.id.get(), step.series_id)).collect();
    assert_eq!(ids, [(3, 2), (2, 1), (1, 0)], "ids and series run against the order, as documented");
    let operation = Uuid::now_v7();
    let mut task = task;
    append(&store, &mut task, Event::Started { subtask: 3, attempt: 1, operation, undo: false }).await;
    drop(store);

    let mut open = scratch.open().await.open_tasks().await.expect("read");
    let (_, open) = open.remove(0);
    let open = open.expect("readable");
    let attempt = Some(Attempt { number: 1, operation, undo: false });
    let work = Work { step: open.graph.steps[0].id, place: 0, undo: false, attempt, cancelled: false };
    assert_eq!(open.state.outlook(&open.graph, &World::default()).work, [work]);
}

#[tokio::test]
async fn the_audit_trail_tells_how_orders_ended() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let (done, unknown) = (operation(host.id), operation(host.id));
    store.accept(done.clone(), None, audit("StopAgentProcess")).await.expect("accepted");
    store.accept(unknown.clone(), None, audit("StartAgentProcess")).await.expect("accepted");
    let unsettled = async |store: &Store| -> Vec<_> {
        let orders = store.unsettled(host.id).await.expect("read");
        orders.into_iter().map(|order| order.id).collect()
    };
    assert_eq!(unsettled(&store).await, [] as [Uuid; 0], "somebody waits for them");
    drop(store);
    let store = scratch.open().await;
    assert_eq!(unsettled(&store).await, [done.id, unknown.id], "nobody does any more");
    store.settle(done.id, OperationOutcome::Done, Timestamp::now()).await.expect("settled");
    store.settle(unknown.id, OperationOutcome::Unknown, Timestamp::now()).await.expect("settled");
    assert_eq!(unsettled(&store).await, [unknown.id]);

    let rows = store.audit_records(None, 10).await.expect("read");
    let told: Vec<_> = rows.iter().map(|row| (row.action.as_str(), row.outcome.as_str())).collect();
    assert_eq!(told, [("StartAgentProcess", ""), ("StopAgentProcess", "DONE")]);
    let older = store.audit_records(Some(rows[0].id), 10).await.expect("read");
    assert_eq!(older, rows[1..]);
}

/// Hazard A14: the id of an operation is that of one operation.
#[tokio::test]
async fn what_is_reported_of_a_known_operation_must_be_the_same() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let (other, _) = store.register(&facts("b"), &[], Timestamp::now()).await.expect("registered");
    let ordered = operation(host.id);
    store.accept(ordered.clone(), None, audit("StopAgentProcess")).await.expect("accepted");
    let record = |id: Uuid| LocalRecord {
        id,
        verb: "StopProcess",
        host: host.id,
        process: None,
        trace: Trace::of_operation(id.into_bytes()),
        begun: Timestamp::now(),
        ended: Timestamp::now(),
        outcome: OperationOutcome::Done,
    };
    let told = record(Uuid::now_v7());
    let check = async |record: LocalRecord, expected: &str| {
        let recorded = store.record_local(record, None, audit("StopAgentProcess")).await.expect("read");
        assert!(format!("{recorded:?}").contains(expected), "{recorded:?}");
    };
    check(told.clone(), "New").await;
    check(told.clone(), "Again").await;
    check(LocalRecord { verb: "StartProcess", ..told.clone() }, "another verb").await;
    check(LocalRecord { host: other.id, ..told.clone() }, "another host").await;
    let failed = OperationOutcome::Failed { reason: "LEFTOVERS".into(), message: "it lives".into() };
    check(LocalRecord { outcome: failed, ..told }, "another outcome").await;
    check(record(ordered.id), "an order of this server").await;
    assert_eq!(store.audit_records(None, 10).await.expect("read").len(), 2);
}

#[tokio::test]
async fn the_last_admin_stays() {
    let scratch = scratch();
    let store = scratch.open().await;
    let add = async |name: &'static str, roles: &'static [Role]| {
        let grants: Vec<_> = roles.iter().map(|role| Grant::everywhere(*role)).collect();
        store.add_user(name, &grants, "hash".into(), audit("CreateUser")).await
    };
    add("admin", &[Role::Admin]).await.expect("added");
    add("viewer", &[Role::HostViewer]).await.expect("added");
    assert!(matches!(add("viewer", &[Role::Admin]).await, Err(StoreError::NameTaken)));
    let delete = |name: &'static str| store.delete_user(name, audit("DeleteUser"));
    assert!(matches!(delete("admin").await, Err(StoreError::LastAdmin)));
    assert!(matches!(delete("nobody").await, Err(StoreError::Missing)));
    delete("viewer").await.expect("deleted");
}

/// Hazard S04: a token ends with its time, with its user, and with a new password.
#[tokio::test]
async fn tokens_end() {
    let scratch = scratch();
    let store = scratch.open().await;
    let now = Timestamp::now();
    let admin = [Grant::everywhere(Role::Admin)];
    let user = store.add_user("admin", &admin, "hash".into(), audit("CreateUser")).await.expect("added");
    let expire = now + SignedDuration::from_secs(60);
    let new = NewToken { digest: "digest".into(), name: String::new(), narrowed: None, expire };
    store.add_token(user.id, new, 10, audit("CreateToken")).await.expect("added");
    assert!(store.user_by_token("digest", now).await.expect("read").is_some());
    assert!(store.user_by_token("digest", expire).await.expect("read").is_none());
    assert!(store.user_by_token("other", now).await.expect("read").is_none());
    store.set_password("admin", "new".into(), audit("SetPassword")).await.expect("set");
    assert!(store.user_by_token("digest", now).await.expect("read").is_none());
}
