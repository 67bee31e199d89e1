//! What operators do with tasks, on real agents and processes.

use belay_proto::v1::{CreateUserRequest, GetTaskRequest, Role, TaskState};
use belay_tests::{Answer, Client, Fleet, HostSetup, NOBODY, PATIENCE, wait_for};
use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fleet;

/// How often an attempt crashes its server until it is given up: once, and five times more.
const CRASHES: usize = 6;

const WORKERS: [&str; 2] = ["obstat2", "ob_cleaner"];

/// Two workers and a base process. The first worker takes two seconds to end.
fn slow_host() -> HostSetup {
    HostSetup::new().proxied().worker("obstat2", "slow").worker("ob_cleaner", "plain").base("ocp_agentd")
}

/// A worker that ends when it is asked, and one that survives every stop.
fn stubborn_host() -> HostSetup {
    HostSetup::new().worker("obstat2", "plain").spared("survivor", "deaf")
}

/// Orders an agent as a whole, and answers with the task's id.
async fn order(fleet: &Fleet, host: usize, verb: &str) -> i64 {
    let answer = fleet.admin().post(&format!("{}/{verb}", fleet.agent_path(host).await)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.data()["id"].as_i64().expect("an id")
}

/// Orders something of a task, or of a subtask: `7/cancel`, `7/subtasks/9/skip`.
async fn verb(client: &Client, path: &str) -> Answer {
    client.post(&format!("/api/v2/tasks/instances/{path}")).await
}

async fn allowed(fleet: &Fleet, path: &str) -> Answer {
    let answer = verb(&fleet.admin(), path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    answer
}

async fn ended(fleet: &Fleet, task: i64) -> Value {
    fleet.wait_for_task(task, |task| task["status"] != "RUNNING").await
}

/// How a task ended, in the documented words.
fn how(task: &Value) -> (&str, &str) {
    (task["operation"].as_str().expect("an operation"), task["status"].as_str().expect("a status"))
}

fn steps(task: &Value) -> Vec<(&str, &str)> {
    let steps = task["subtasks"].as_array().expect("subtasks");
    steps.iter().map(how).collect()
}

/// How it stands in full, as gRPC tells it.
async fn state(fleet: &Fleet, task_id: i64) -> TaskState {
    let task = fleet.wire().tasks().get_task(GetTaskRequest { task_id }).await.expect("read").into_inner();
    task.task.expect("a task").state()
}

async fn agent_status(fleet: &Fleet) -> Value {
    let path = format!("/api/v2/compute/hosts/{}", fleet.host_id(0).await);
    fleet.admin().get(&path).await.data()["hostAgentStatus"].clone()
}

fn step_id(task: &Value, place: usize) -> &Value {
    &task["subtasks"][place]["id"]
}

/// Ends the one that survives stops.
fn kill_survivor(fleet: &Fleet) {
    for pid in fleet.ledger(0, "survivor").alive() {
        kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("killed");
    }
}

/// The same, and waits until that is known. It must not be wanted.
async fn end_survivor(fleet: &Fleet) {
    kill_survivor(fleet);
    wait_for("it is known to be gone", async || {
        let process = fleet.process(0, "survivor").await;
        if process["status"] == "STOPPED" { Ok(()) } else { Err(process) }
    })
    .await;
}

/// A stop that failed because somebody survived it.
async fn failed_stop(fleet: &Fleet) -> Value {
    let id = order(fleet, 0, "stop").await;
    let task = ended(fleet, id).await;
    assert_eq!(how(&task), ("EXECUTE", "FAILED"), "{task:#}");
    assert_eq!(steps(&task), [("EXECUTE", "SUCCESSFUL"), ("EXECUTE", "FAILED"), ("EXECUTE", "PENDING")]);
    assert_eq!(fleet.ledger(0, "obstat2").alive(), NOBODY);
    task
}

fn id_of(task: &Value) -> i64 {
    task["id"].as_i64().expect("an id")
}

/// Cancelled before anything was ordered: nothing ever is.
#[tokio::test]
async fn a_cancel_in_the_first_step_orders_nothing() {
    let fleet = fleet(vec![slow_host()]).await;
    fleet.proxy(0).hold_requests();
    let id = order(&fleet, 0, "stop").await;
    fleet.wait_for_task(id, |task| task["subtasks"][0]["status"] == "RUNNING").await;
    let answer = allowed(&fleet, &format!("{id}/cancel")).await;
    assert_eq!(answer.data()["operation"], "CANCEL", "{}", answer.text);
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("CANCEL", "FAILED"), "{task:#}");
    assert_eq!(steps(&task), [("CANCEL", "FAILED"), ("EXECUTE", "PENDING"), ("EXECUTE", "PENDING")]);
    assert_eq!(state(&fleet, id).await, TaskState::Cancelled);
    fleet.proxy(0).release();

    // The host is free, and its agent is what it was.
    let path = fleet.process_path(0, "ob_cleaner").await;
    let stopped = fleet.admin().post(&format!("{path}/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK, "{}", stopped.text);
    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY);
    assert_eq!(fleet.ledger(0, "ocp_agentd").terminations(), NOBODY);
}

/// Cancelled while processes end: who was signalled is awaited, who was not is left alone. A retry goes on from there.
#[tokio::test]
async fn a_cancel_in_the_second_step_is_true_down_to_the_signal() {
    let fleet = fleet(vec![slow_host()]).await;
    let id = order(&fleet, 0, "stop").await;
    fleet.ledger(0, "obstat2").wait_for_terminations(1).await;
    let answer = allowed(&fleet, &format!("{id}/cancel")).await;
    assert_eq!(steps(answer.data())[1], ("CANCEL", "CANCELING"), "{}", answer.text);
    assert_eq!(state(&fleet, id).await, TaskState::Canceling);
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("CANCEL", "FAILED"), "{task:#}");
    assert_eq!(steps(&task), [("EXECUTE", "SUCCESSFUL"), ("CANCEL", "FAILED"), ("EXECUTE", "PENDING")]);
    for alias in WORKERS {
        assert_eq!(fleet.ledger(0, alias).alive(), NOBODY, "{alias} was signalled, and awaited");
    }
    let base = fleet.ledger(0, "ocp_agentd");
    assert_eq!((base.alive().len(), base.terminations().len()), (1, 0), "it had no turn yet");
    assert_eq!(agent_status(&fleet).await, "AVAILABLE");

    let retried = allowed(&fleet, &format!("{id}/retry")).await;
    assert_eq!(retried.data()["operation"], "RETRY", "{}", retried.text);
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("RETRY", "SUCCESSFUL"), "{task:#}");
    assert_eq!(base.alive(), NOBODY);
    assert_eq!(agent_status(&fleet).await, "STOPPED");
    for alias in WORKERS {
        assert_eq!(fleet.ledger(0, alias).terminations().len(), 1, "{alias}: nobody is signalled twice");
    }
}

/// Cancelled in the last step: what was done stays done, and a rollback brings it back.
#[tokio::test]
async fn a_cancel_in_the_last_step_undoes_nothing() {
    let fleet = fleet(vec![slow_host()]).await;
    let id = order(&fleet, 0, "stop").await;
    fleet.ledger(0, "obstat2").wait_for_terminations(1).await;
    fleet.proxy(0).hold_requests();
    fleet.wait_for_task(id, |task| task["subtasks"][2]["status"] == "RUNNING").await;
    allowed(&fleet, &format!("{id}/cancel")).await;
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("CANCEL", "FAILED"), "{task:#}");
    assert_eq!(steps(&task)[1..], [("EXECUTE", "SUCCESSFUL"), ("CANCEL", "FAILED")]);
    fleet.proxy(0).release();
    allowed(&fleet, &format!("{id}/rollback")).await;
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("ROLLBACK", "SUCCESSFUL"), "{task:#}");
    for alias in ["obstat2", "ob_cleaner", "ocp_agentd"] {
        assert_eq!(fleet.ledger(0, alias).wait_for_begun(2).await.len(), 2, "{alias} runs again");
    }
}

/// A step that is cancelled alone has failed, and the task with it.
#[tokio::test]
async fn a_subtask_is_cancelled() {
    let fleet = fleet(vec![slow_host()]).await;
    let id = order(&fleet, 0, "stop").await;
    fleet.ledger(0, "obstat2").wait_for_terminations(1).await;
    let task = fleet.wait_for_task(id, |task| task["subtasks"][1]["status"] == "RUNNING").await;
    let answer = allowed(&fleet, &format!("{id}/subtasks/{}/cancel", step_id(&task, 1))).await;
    assert!(answer.json.get("data").is_none(), "documented without data: {}", answer.text);
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("EXECUTE", "FAILED"), "{task:#}");
    assert_eq!(steps(&task)[1..], [("CANCEL", "FAILED"), ("EXECUTE", "PENDING")]);
    assert_eq!(fleet.ledger(0, "ocp_agentd").terminations(), NOBODY);
}

/// A stop fails where somebody survives it; when that one is gone, a retry goes on with a second attempt.
#[tokio::test]
async fn a_retry_goes_on_after_a_failure() {
    let fleet = fleet(vec![stubborn_host()]).await;
    let task = failed_stop(&fleet).await;
    let id = id_of(&task);
    end_survivor(&fleet).await;
    allowed(&fleet, &format!("{id}/retry")).await;
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("RETRY", "SUCCESSFUL"), "{task:#}");
    assert_eq!(steps(&task), [("EXECUTE", "SUCCESSFUL"), ("RETRY", "SUCCESSFUL"), ("EXECUTE", "SUCCESSFUL")]);
    assert_eq!((&task["subtasks"][0]["runTime"], &task["subtasks"][1]["runTime"]), (&1.into(), &2.into()));
    assert_eq!(fleet.ledger(0, "survivor").alive(), NOBODY);
    assert_eq!(fleet.ledger(0, "obstat2").terminations().len(), 1);

    // Attempts are told apart.
    let log = format!("/api/v2/tasks/instances/{id}/subtasks/{}/log", step_id(&task, 1));
    let log = fleet.admin().get(&log).await.data()["log"].as_str().expect("a log").to_owned();
    let (first, second) = log.split_once("############{RETRY}{").expect("a second banner");
    assert!(first.starts_with("############{EXECUTE}{") && first.contains("LEFTOVERS"), "{log}");
    assert!(second.ends_with("done"), "{log}");
}

/// One step again, with the documented answer.
#[tokio::test]
async fn a_subtask_is_retried() {
    let fleet = fleet(vec![stubborn_host()]).await;
    let task = failed_stop(&fleet).await;
    let id = id_of(&task);
    end_survivor(&fleet).await;
    let answer = allowed(&fleet, &format!("{id}/subtasks/{}/retry", step_id(&task, 1))).await;
    assert_eq!(&answer.data()["id"], step_id(&task, 1), "{}", answer.text);
    assert_eq!((how(answer.data()).0, &answer.data()["runTime"]), ("RETRY", &2.into()), "{}", answer.text);
    assert_eq!(ended(&fleet, id).await["status"], "SUCCESSFUL");
}

/// Hazard D14: a skip is taken for done, and stands beside the failure in the trail.
#[tokio::test]
async fn a_skip_is_taken_for_done() {
    let fleet = fleet(vec![stubborn_host()]).await;
    let task = failed_stop(&fleet).await;
    let id = id_of(&task);
    let answer = allowed(&fleet, &format!("{id}/subtasks/{}/skip", step_id(&task, 1))).await;
    assert!(answer.json.get("data").is_none(), "documented without data: {}", answer.text);
    // The last step proves, and finds the survivor.
    let task = ended(&fleet, id).await;
    assert_eq!(steps(&task)[1..], [("SKIP", "SUCCESSFUL"), ("EXECUTE", "FAILED")], "{task:#}");
    allowed(&fleet, &format!("{id}/subtasks/{}/skip", step_id(&task, 2))).await;
    let task = ended(&fleet, id).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    assert_eq!(fleet.ledger(0, "survivor").alive().len(), 1, "a skip does nothing to anybody");
    let records = fleet.admin().get("/api/v2/audit/records").await;
    let records = records.data()["contents"].as_array().expect("records");
    let skips =
        records.iter().filter(|record| record["action"] == "SkipSubtask" && record["outcome"] == "ACCEPTED");
    assert_eq!(skips.count(), 2);
}

/// A stop is undone: what ran runs again, what did not run does not.
#[tokio::test]
async fn a_rollback_brings_back_what_ran() {
    let fleet = fleet(vec![stubborn_host().worker("resting", "plain").base("ocp_agentd")]).await;
    let path = fleet.process_path(0, "resting").await;
    assert_eq!(fleet.admin().post(&format!("{path}/stop")).await.status, StatusCode::OK);
    let task = failed_stop(&fleet).await;
    let id = id_of(&task);
    end_survivor(&fleet).await;
    let answer = allowed(&fleet, &format!("{id}/rollback")).await;
    assert_eq!(how(answer.data()), ("ROLLBACK", "RUNNING"), "{}", answer.text);
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("ROLLBACK", "SUCCESSFUL"), "{task:#}");
    assert_eq!(steps(&task), [("ROLLBACK", "PENDING"), ("ROLLBACK", "PENDING"), ("EXECUTE", "PENDING")]);
    assert_eq!(state(&fleet, id).await, TaskState::RolledBack);
    for alias in ["obstat2", "ocp_agentd", "survivor"] {
        assert_eq!(fleet.process(0, alias).await["status"], "STARTED", "{alias}");
    }
    assert_eq!(fleet.ledger(0, "resting").pids().len(), 1, "it did not run before");
    assert_eq!(agent_status(&fleet).await, "AVAILABLE");
}

/// A start is undone: what did not run before is stopped, what ran is left alone. Hazard D23: the panic of a step, which makes
/// the start fail, is a failed attempt.
#[tokio::test]
async fn a_rollback_of_a_start_stops_what_did_not_run() {
    let mut fleet =
        fleet(vec![HostSetup::new().worker("obstat2", "plain").worker("ob_cleaner", "plain")]).await;
    let path = fleet.process_path(0, "ob_cleaner").await;
    assert_eq!(fleet.admin().post(&format!("{path}/stop")).await.status, StatusCode::OK);
    fleet.server.kill();
    fleet.server.fail_at("step.finish_start.runs=panic");
    fleet.server.start();
    fleet.wait_until_ready().await;
    let id = order(&fleet, 0, "start").await;
    let task = ended(&fleet, id).await;
    assert_eq!(steps(&task)[2], ("EXECUTE", "FAILED"), "{task:#}");
    assert_eq!(fleet.ledger(0, "ob_cleaner").wait_for_begun(2).await.len(), 2);
    allowed(&fleet, &format!("{id}/rollback")).await;
    assert_eq!(how(&ended(&fleet, id).await), ("ROLLBACK", "SUCCESSFUL"));
    assert_eq!(fleet.ledger(0, "ob_cleaner").alive(), NOBODY);
    assert_eq!(fleet.ledger(0, "obstat2").terminations(), NOBODY);
}

/// A restart that fails between its stop and its start is undone: what ran runs again, what did not run does not.
#[tokio::test]
async fn a_rollback_of_a_restart_brings_back_what_ran() {
    let setup = HostSetup::new().worker("obstat2", "plain").worker("resting", "plain").base("ocp_agentd");
    let mut fleet = fleet(vec![setup]).await;
    let path = fleet.process_path(0, "resting").await;
    assert_eq!(fleet.admin().post(&format!("{path}/stop")).await.status, StatusCode::OK);
    fleet.server.kill();
    fleet.server.fail_at("step.start_all.runs=panic");
    fleet.server.start();
    fleet.wait_until_ready().await;
    let id = order(&fleet, 0, "restart").await;
    let task = ended(&fleet, id).await;
    assert_eq!(steps(&task)[2..4], [("EXECUTE", "SUCCESSFUL"), ("EXECUTE", "FAILED")], "{task:#}");
    assert_eq!(fleet.ledger(0, "ocp_agentd").alive(), NOBODY);
    allowed(&fleet, &format!("{id}/rollback")).await;
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("ROLLBACK", "SUCCESSFUL"), "{task:#}");
    for alias in ["obstat2", "ocp_agentd"] {
        let ledger = fleet.ledger(0, alias);
        assert_eq!(
            (ledger.alive().len(), ledger.pids().len(), ledger.terminations().len()),
            (1, 2, 1),
            "{alias}"
        );
    }
    assert_eq!(fleet.ledger(0, "resting").pids().len(), 1);
    assert_eq!(agent_status(&fleet).await, "AVAILABLE");
}

/// Hazards D03, D04 and D13: the server is killed before, during and after an undo; it is done once, and the rollback ends.
#[tokio::test]
async fn a_rollback_goes_on_after_a_crash() {
    for place in [
        "step.start_what_ran.started",
        "order.StartProcesses.committed",
        "order.StartProcesses.answered",
        "step.start_what_ran.done",
        "step.start_what_ran.recorded",
    ] {
        let mut fleet = fleet(vec![stubborn_host()]).await;
        let id = id_of(&failed_stop(&fleet).await);
        end_survivor(&fleet).await;
        fleet.server.kill();
        fleet.server.fail_at(&format!("{place}=kill"));
        fleet.server.start();
        fleet.wait_until_ready().await;
        allowed(&fleet, &format!("{id}/rollback")).await;
        fleet.server.wait_until_dead().await;
        fleet.server.fail_at("");
        fleet.server.start();
        fleet.wait_until_ready().await;
        let task = ended(&fleet, id).await;
        assert_eq!(how(&task), ("ROLLBACK", "SUCCESSFUL"), "{place}: {task:#}");
        for alias in ["obstat2", "survivor"] {
            assert_eq!(
                fleet.ledger(0, alias).wait_for_begun(2).await.len(),
                2,
                "{place}: {alias} is started once"
            );
        }
    }
}

/// Hazard D13: an undo that fails is shown as stuck, with the reason, and goes on when it is told to. Here who survived the
/// stop is in the way of its own start.
#[tokio::test]
async fn an_undo_that_fails_is_stuck_until_it_is_retried() {
    let fleet = fleet(vec![stubborn_host()]).await;
    let id = id_of(&failed_stop(&fleet).await);
    allowed(&fleet, &format!("{id}/rollback")).await;
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("ROLLBACK", "FAILED"), "{task:#}");
    assert_eq!(steps(&task)[..2], [("ROLLBACK", "READY"), ("ROLLBACK", "FAILED")]);
    let wire =
        fleet.wire().tasks().get_task(GetTaskRequest { task_id: id }).await.expect("read").into_inner();
    let wire = wire.task.expect("a task");
    let error = wire.subtasks[1].error.as_ref().expect("an error");
    assert_eq!((wire.state(), error.reason.as_str()), (TaskState::RollbackStuck, "LEFTOVERS"), "{error:?}");
    let refused = verb(&fleet.admin(), &format!("{id}/rollback")).await;
    assert_eq!(
        (refused.status, refused.reason()),
        (StatusCode::CONFLICT, "TASK_WRONG_STATE"),
        "{}",
        refused.text
    );
    assert!(refused.message().contains(&format!("belay task retry {id}")), "{}", refused.text);

    // It is wanted again, so it is started at once when it is gone.
    kill_survivor(&fleet);
    fleet.ledger(0, "survivor").wait_for_begun(2).await;
    allowed(&fleet, &format!("{id}/retry")).await;
    let task = ended(&fleet, id).await;
    assert_eq!(how(&task), ("ROLLBACK", "SUCCESSFUL"), "{task:#}");
    for alias in ["obstat2", "survivor"] {
        assert_eq!(fleet.ledger(0, alias).wait_for_begun(2).await.len(), 2, "{alias}");
    }
    // Attempts to undo are told apart from those to do.
    let log = format!("/api/v2/tasks/instances/{id}/subtasks/{}/log", step_id(&task, 1));
    let log = fleet.admin().get(&log).await.data()["log"].as_str().expect("a log").to_owned();
    assert_eq!(log.matches("############{ROLLBACK}{").count(), 2, "{log}");
}

/// Hazards D11 and D16: what a task is not ready for is refused, says why and what to do, and changes nothing.
#[tokio::test]
async fn a_verb_at_the_wrong_time_is_refused() {
    let fleet = fleet(vec![stubborn_host().proxied()]).await;
    let admin = fleet.admin();
    let refused = async |path: String, reason: &str, code: &str| {
        let answer = verb(&admin, &path).await;
        assert_eq!((answer.status, answer.reason()), (StatusCode::CONFLICT, reason), "{}", answer.text);
        assert_eq!(answer.json["error"]["errorCode"], code, "{}", answer.text);
        assert!(answer.message().contains("can not be"), "{}", answer.text);
    };
    fleet.proxy(0).hold_requests();
    let id = order(&fleet, 0, "stop").await;
    let task = fleet.wait_for_task(id, |task| task["subtasks"][0]["status"] == "RUNNING").await;
    refused(format!("{id}/retry"), "TASK_WRONG_STATE", "TSK10007").await;
    refused(format!("{id}/rollback"), "TASK_WRONG_STATE", "TSK10007").await;
    let running = step_id(&task, 0);
    refused(format!("{id}/subtasks/{running}/skip"), "SKIP_REFUSED", "TSK10010").await;
    refused(format!("{id}/subtasks/{running}/retry"), "SUBTASK_WRONG_STATE", "TSK10016").await;
    let waiting = step_id(&task, 1);
    refused(format!("{id}/subtasks/{waiting}/cancel"), "SUBTASK_WRONG_STATE", "TSK10016").await;
    fleet.proxy(0).release();
    assert_eq!(ended(&fleet, id).await["operation"], "EXECUTE");
    refused(format!("{id}/cancel"), "TASK_WRONG_STATE", "TSK10007").await;

    let unknown = verb(&admin, "999/retry").await;
    assert_eq!((unknown.status, unknown.reason()), (StatusCode::NOT_FOUND, "TASK_UNKNOWN"));
    let unknown = verb(&admin, &format!("{id}/subtasks/999/skip")).await;
    assert_eq!((unknown.status, unknown.reason()), (StatusCode::NOT_FOUND, "SUBTASK_UNKNOWN"));

    // Two who press retry at once make one attempt.
    end_survivor(&fleet).await;
    let path = format!("{id}/retry");
    let (one, other) = tokio::join!(verb(&admin, &path), verb(&admin, &path));
    let mut statuses = [one.status, other.status];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT], "{} {}", one.text, other.text);
    let task = ended(&fleet, id).await;
    assert_eq!((&task["status"], &task["subtasks"][1]["runTime"]), (&"SUCCESSFUL".into(), &2.into()));
    refused(format!("{id}/rollback"), "TASK_WRONG_STATE", "TSK10007").await;

    // A task that is to go on needs its host.
    let first = order(&fleet, 0, "start").await;
    ended(&fleet, first).await;
    let failed = id_of(&failed_stop(&fleet).await);
    fleet.proxy(0).hold_requests();
    let holder = order(&fleet, 0, "start").await;
    let held = verb(&admin, &format!("{failed}/retry")).await;
    assert_eq!((held.status, held.reason()), (StatusCode::CONFLICT, "AGENT_BUSY"), "{}", held.text);
    assert!(held.message().contains(&holder.to_string()), "{}", held.text);
    fleet.proxy(0).release();
    ended(&fleet, holder).await;
}

/// Hazards S06 and X06: only TASK_MANAGER may, and whoever may not leaves a record.
#[tokio::test]
async fn only_a_task_manager_may() {
    let fleet = fleet(vec![stubborn_host()]).await;
    let id = id_of(&failed_stop(&fleet).await);
    end_survivor(&fleet).await;
    for (name, role, expected) in [
        ("viewer", Role::TaskViewer, StatusCode::FORBIDDEN),
        ("hosts", Role::HostManager, StatusCode::FORBIDDEN),
        ("tasks", Role::TaskManager, StatusCode::OK),
    ] {
        let password = format!("{name} has a password");
        let (roles, name) = (vec![role.into()], name.to_owned());
        let user =
            CreateUserRequest { name: name.clone(), roles, password: password.clone(), ..Default::default() };
        fleet.wire().users().create_user(user).await.expect("added");
        let answer = verb(&fleet.anyone().user(&name, &password), &format!("{id}/rollback")).await;
        assert_eq!(answer.status, expected, "{name}: {}", answer.text);
    }
    assert_eq!(how(&ended(&fleet, id).await), ("ROLLBACK", "SUCCESSFUL"));
    let records = fleet.admin().get("/api/v2/audit/records").await;
    let records = records.data()["contents"].as_array().expect("records");
    let told = |record: &Value| {
        // Parts have joined before.
        (record["principal"].as_str() != Some("admin") && record["action"] != "Join").then(|| {
            ["principal", "action", "decision"].map(|key| record[key].as_str().expect("a text").to_owned())
        })
    };
    let told: Vec<_> = records.iter().filter_map(told).collect();
    let expected = [["tasks", "ALLOW"], ["hosts", "DENY"], ["viewer", "DENY"]];
    assert_eq!(told, expected.map(|[who, decision]| [who, "RollbackTask", decision].map(str::to_owned)));
}

/// Hazards D01 and D02: the server is killed just before and just after each verb is committed. Before, nothing has
/// happened; after, it takes effect.
#[tokio::test]
async fn a_server_killed_in_a_verb_has_done_it_or_not() {
    let mut fleet = fleet(vec![stubborn_host(), slow_host()]).await;
    let failed = failed_stop(&fleet).await;
    let (id, step) = (id_of(&failed), step_id(&failed, 1).clone());
    let verbs = [
        ("retry", format!("{id}/retry")),
        ("skip", format!("{id}/subtasks/{step}/skip")),
        ("rollback", format!("{id}/rollback")),
    ];
    for (name, path) in verbs {
        for when in ["before", "after"] {
            if (name, when) == ("rollback", "after") {
                end_survivor(&fleet).await;
            }
            fail(&mut fleet, &format!("verb.{name}.{when}=kill"), &path).await;
            let task = ended(&fleet, id).await;
            let expected = match (name, when) {
                // Its operation is that of the last verb that was let in.
                ("retry", "before") => ("EXECUTE", "FAILED"),
                ("rollback", "after") => ("ROLLBACK", "SUCCESSFUL"),
                _ => ("RETRY", "FAILED"),
            };
            assert_eq!(how(&task), expected, "{name} {when}: {task:#}");
            let run_time = if (name, when) == ("retry", "before") { 1 } else { 2 };
            assert_eq!(task["subtasks"][1]["runTime"], run_time, "{name} {when}: {task:#}");
            let skipped = steps(&task)[1].0 == "SKIP";
            assert_eq!(
                skipped,
                matches!((name, when), ("skip", "after") | ("rollback", "before")),
                "{task:#}"
            );
        }
    }

    for (when, expected) in [("before", ("EXECUTE", "RUNNING")), ("after", ("CANCEL", "FAILED"))] {
        fleet.proxy(1).hold_requests();
        let id = order(&fleet, 1, "stop").await;
        fleet.wait_for_task(id, |task| task["subtasks"][0]["status"] == "RUNNING").await;
        fail(&mut fleet, &format!("verb.cancel.{when}=kill"), &format!("{id}/cancel")).await;
        let task = fleet.wait_for_task(id, |task| how(task) == expected).await;
        if task["status"] == "RUNNING" {
            allowed(&fleet, &format!("{id}/cancel")).await;
            ended(&fleet, id).await;
        }
        fleet.proxy(1).release();
    }
    assert_eq!(fleet.ledger(1, "obstat2").terminations(), NOBODY);
}

/// Has the server die where it is told to while it takes an order, and starts it again.
async fn fail(fleet: &mut Fleet, place: &str, path: &str) {
    fleet.server.kill();
    fleet.server.fail_at(place);
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.host_id(0).await;
    let answer = verb(&fleet.admin(), path).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{place}: {}", answer.text);
    fleet.server.wait_until_dead().await;
    fleet.server.fail_at("");
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.host_id(0).await;
}

/// Hazards D22 and D28: a task that ends every server that runs it is given up, and no other is hurt.
#[tokio::test]
async fn a_task_that_crashes_every_server_is_stuck() {
    let mut fleet = fleet(vec![stubborn_host(), slow_host()]).await;
    fleet.proxy(1).hold_requests();
    let innocent = order(&fleet, 1, "start").await;
    fleet.wait_for_task(innocent, |task| task["subtasks"][0]["status"] == "RUNNING").await;
    fleet.server.kill();
    fleet.server.fail_at("step.stop_all.runs=kill");
    fleet.server.start();
    fleet.wait_until_ready().await;
    let poison = order(&fleet, 0, "stop").await;
    let mut crashes = 0;
    loop {
        fleet.server.wait_until_dead().await;
        crashes += 1;
        assert!(crashes <= 10, "it ends");
        // It may die again before it answers.
        fleet.server.start();
        if settled(&mut fleet, poison).await {
            break;
        }
    }
    let task = ended(&fleet, poison).await;
    assert_eq!(
        (how(&task), state(&fleet, poison).await),
        (("EXECUTE", "FAILED"), TaskState::Stuck),
        "{task:#}"
    );
    assert_eq!(crashes, CRASHES);
    fleet.proxy(1).release();
    let task = ended(&fleet, innocent).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
}

/// Waits until a task has failed, or the server has ended. Says whether it was the task.
async fn settled(fleet: &mut Fleet, task: i64) -> bool {
    let start = std::time::Instant::now();
    while fleet.server.is_running() {
        let answer = fleet.admin().get(&format!("/api/v2/tasks/instances/{task}")).await;
        if answer.data()["status"] == "FAILED" {
            return true;
        }
        assert!(start.elapsed() < PATIENCE, "neither ends: {}", answer.text);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    false
}

/// Hazard D23: a runner that panics begins again where its log ends, and nobody is signalled twice.
#[tokio::test]
async fn a_runner_that_panics_is_given_up_in_the_end() {
    let mut fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    fleet.server.kill();
    fleet.server.fail_at("step.stop_all.done=panic");
    fleet.server.start();
    fleet.wait_until_ready().await;
    let id = order(&fleet, 0, "stop").await;
    let task = ended(&fleet, id).await;
    assert_eq!(
        (steps(&task)[1], state(&fleet, id).await),
        (("EXECUTE", "FAILED"), TaskState::Stuck),
        "{task:#}"
    );
    assert_eq!(fleet.ledger(0, "obstat2").terminations().len(), 1);
    assert!(fleet.server.is_running());
}

/// What became of an order that was never answered is asked of the agent before anything else is tried: one that never
/// arrived never will, and one that was carried out is known to be.
#[tokio::test]
async fn a_retry_asks_first_what_became_of_the_last_order() {
    let checks = [("committed", "cancelled before it arrived"), ("answered", "it was done")];
    for (place, told) in checks {
        let mut fleet = fleet(vec![HostSetup::new().proxied().worker("obstat2", "plain")]).await;
        fleet.server.kill();
        fleet.server.fail_at(&format!("order.StopAllProcesses.{place}=kill"));
        fleet.server.start();
        fleet.wait_until_ready().await;
        let id = order(&fleet, 0, "stop").await;
        for crash in 1..=CRASHES {
            fleet.server.wait_until_dead().await;
            if crash == CRASHES {
                // Or else it is asked before anybody retries.
                fleet.proxy(0).hold_requests();
                fleet.server.fail_at("");
            }
            fleet.server.start();
        }
        fleet.wait_until_ready().await;
        let task = ended(&fleet, id).await;
        assert_eq!(state(&fleet, id).await, TaskState::Stuck);
        allowed(&fleet, &format!("{id}/retry")).await;
        let path = format!("/api/v2/tasks/instances/{id}/subtasks/{}/log", step_id(&task, 1));
        let log = async || fleet.admin().get(&path).await.data()["log"].as_str().expect("a log").to_owned();
        wait_for("the agent is asked", async || {
            let log = log().await;
            if log.contains("was never answered") { Ok(()) } else { Err(log) }
        })
        .await;
        fleet.proxy(0).release();
        let task = ended(&fleet, id).await;
        assert_eq!(how(&task), ("RETRY", "SUCCESSFUL"), "{place}: {task:#}");
        let log = log().await;
        let (_, retry) = log.split_once("############{RETRY}{").expect("a second run");
        assert!(retry.contains(told), "{place}: {log}");
        assert_eq!(fleet.ledger(0, "obstat2").terminations().len(), 1, "{place}");
    }
}

/// The documented task, with its names, classes and timeouts.
#[tokio::test]
async fn restarts_the_whole_agent_and_answers_as_documented() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain").base("ocp_agentd")]).await;
    let answer = fleet.admin().post(&format!("{}/restart", fleet.agent_path(0).await)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(
        (&answer.data()["name"], how(answer.data())),
        (&"Restart OCP agent".into(), ("EXECUTE", "RUNNING"))
    );
    let subtasks = answer.data()["subtasks"].as_array().expect("subtasks");
    let told = |step: &Value| {
        let class = step["className"].as_str().expect("a class").to_owned();
        (class.replace("com.alipay.ocp.service.task.business.obagent.", ""), step["timeout"].as_i64())
    };
    let told: Vec<_> = subtasks.iter().map(told).collect();
    let expected = [
        ("PrepareRestartOcpAgentTask", 60),
        ("RestartPosProxyTask", 60),
        ("StopAllOcpAgentProcessesTask", 600),
        ("StartAllOcpAgentProcessesTask", 600),
        ("FinishOcpAgentOperationTask", 60),
    ];
    assert_eq!(told, expected.map(|(class, timeout)| (class.to_owned(), Some(timeout))));
    let task = ended(&fleet, answer.data()["id"].as_i64().expect("an id")).await;
    assert_eq!(how(&task), ("EXECUTE", "SUCCESSFUL"), "{task:#}");
    for alias in ["obstat2", "ocp_agentd"] {
        let ledger = fleet.ledger(0, alias);
        assert_eq!(
            (ledger.pids().len(), ledger.terminations().len(), ledger.alive().len()),
            (2, 1, 1),
            "{alias}"
        );
    }
    assert_eq!(agent_status(&fleet).await, "AVAILABLE");
}
