//! What an agent answers, held against what it was asked; and whom the server asks where an agent has a copy.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod agent;
mod fleet;

use std::{sync::Arc, time::Duration};

use belay_proto::{
    Problem, Reason,
    agent::v1::{ObservedProcess, Operation, OperationState},
    fleet::v1::{LocalOperation, report_request::Report},
    v1::{
        AgentProcessPhase, AgentProcessStatus, CancelTaskRequest, GetHostRequest, GetTaskRequest,
        HostAgentStatus, StopAgentProcessRequest, StopHostAgentRequest, Task, TaskState, TaskStatus,
        agent_process_service_client::AgentProcessServiceClient,
        host_agent_service_client::HostAgentServiceClient, host_service_client::HostServiceClient,
        task_service_client::TaskServiceClient,
    },
};
use tonic::Status;
use uuid::Uuid;

use crate::{
    agent::FakeAgent,
    fleet::{Fleet, operation, process},
};

/// Wrong answers to the stop of `a`, by what is wrong with them.
const WRONG: [&str; 8] = [
    "another id",
    "no id",
    "no operation",
    "running",
    "no state",
    "another process",
    "no process",
    "it runs",
];

/// What an agent says of the stop of a process.
fn answer(wrong: &str, id: &str) -> Option<Operation> {
    let gone = process(wrong, 9, false);
    let right = Operation {
        id: id.to_owned(),
        state: OperationState::Done.into(),
        processes: vec![gone.clone()],
        changed: vec![wrong.to_owned()],
        ..Default::default()
    };
    Some(match wrong {
        "another id" => Operation { id: Uuid::now_v7().to_string(), ..right },
        "no id" => Operation { id: String::new(), ..right },
        "no operation" => return None,
        "running" => Operation { state: OperationState::Running.into(), ..right },
        "no state" => Operation { state: OperationState::Unspecified.into(), ..right },
        "another process" => Operation { processes: vec![gone, process("bystander", 9, false)], ..right },
        "no process" => Operation { processes: Vec::new(), ..right },
        "it runs" => Operation { processes: vec![alive(wrong, 9)], ..right },
        other => unreachable!("{other}"),
    })
}

fn alive(alias: &str, revision: u64) -> ObservedProcess {
    ObservedProcess {
        pid: 4242,
        start_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..process(alias, revision, true)
    }
}

/// Stops a process of the one host.
async fn stop(fleet: &Fleet, host: i64, alias: &str) -> Result<(), Status> {
    let agent = fleet.agent(host).await;
    let process = agent.processes.iter().find(|process| process.alias == alias).unwrap().id;
    let mut client = AgentProcessServiceClient::new(fleet.channel.clone());
    let request = StopAgentProcessRequest { host_id: host, agent_process_id: process, ..Default::default() };
    client.stop_agent_process(fleet.as_admin(request)).await.map(drop)
}

/// How the order with this operation id ended, by the audit trail.
async fn outcome(fleet: &Fleet, id: &str) -> String {
    let records = fleet.audit().await;
    records.into_iter().find(|record| record.operation_id == id).unwrap().outcome
}

async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 20 s");
}

/// Hazard A14: an answer that is not to the order is an error, changes nothing, and leaves the order unknown until the agent
/// says what can be.
#[tokio::test]
async fn a_wrong_answer_changes_nothing_and_settles_nothing() {
    let fleet = Arc::new(Fleet::start().await);
    let names = || WRONG.into_iter().chain(["bystander"]);
    let agent = FakeAgent::start(
        |alias, id| Ok(answer(alias, id)),
        // Read back, it is wrong in the same way.
        |alias, id| Ok(answer(alias, id)),
    )
    .await;
    let _reporting = agent.report(&fleet, names().map(|alias| alive(alias, 1)).collect());
    let host = agent.host().await;

    let stops: Vec<_> = WRONG
        .into_iter()
        .map(|wrong| {
            let fleet = fleet.clone();
            tokio::spawn(async move { (wrong, stop(&fleet, host, wrong).await) })
        })
        .collect();
    for stop in stops {
        let (wrong, told) = stop.await.unwrap();
        let status = told.expect_err(wrong);
        let problem = Problem::from_status(&status).unwrap();
        assert_eq!(problem.reason, Reason::NotProven, "{wrong}: {problem:?}");
        assert!(problem.message.contains("answered what can not be"), "{wrong}: {problem:?}");
        assert_eq!(outcome(&fleet, &agent.ordered(wrong)).await, "", "{wrong}: it is unknown");
    }
    let asked = agent.asked();
    wait_for("it is read back, again and again", async || agent.asked() > asked + WRONG.len()).await;
    for process in fleet.agent(host).await.processes {
        assert_eq!(
            (process.phase(), process.status(), process.pid),
            (AgentProcessPhase::Running, AgentProcessStatus::Started, 4242),
            "{}",
            process.alias
        );
    }
    for wrong in WRONG {
        assert_eq!(outcome(&fleet, &agent.ordered(wrong)).await, "", "{wrong}: it is unknown still");
    }

    agent.now_say(|alias, id| {
        let done = OperationState::Done.into();
        let processes = vec![process(alias, 10, false)];
        Ok(Some(Operation { id: id.to_owned(), state: done, processes, ..Default::default() }))
    });
    for wrong in WRONG {
        let id = agent.ordered(wrong);
        wait_for(wrong, async || outcome(&fleet, &id).await == "DONE").await;
    }
    for process in fleet.agent(host).await.processes {
        let stopped = process.alias != "bystander";
        assert_eq!(process.phase() == AgentProcessPhase::Stopped, stopped, "{}", process.alias);
    }
}

/// Hazard A14: what is reported of the host itself can not be the end of an order of the server, nor of another operation
/// than it was.
#[tokio::test]
async fn a_report_of_the_host_itself_ends_no_order() {
    let fleet = Arc::new(Fleet::start().await);
    let agent = FakeAgent::start(
        |_, _| Err(Status::unavailable("nothing is heard")),
        |_, _| Err(Status::unavailable("nothing is heard")),
    )
    .await;
    let mut stream = fleet.hello(agent.hello(vec![alive("a", 1), alive("b", 1)])).await.unwrap();
    let host = stream.host;
    let ordering = tokio::spawn({
        let fleet = fleet.clone();
        async move { stop(&fleet, host, "a").await }
    });
    wait_for("the order is sent", async || agent.has_order("a")).await;
    let id = agent.ordered("a");
    let forged = LocalOperation { operation_id: id.clone(), ..operation("stop", &["a"]) };
    stream.tell(Report::LocalOperation(forged.clone())).await;
    assert_eq!(outcome(&fleet, &id).await, "", "the order is open still");
    let _beating = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        let failed =
            LocalOperation { reason: "LEFTOVERS".to_owned(), message: "it lives".to_owned(), ..forged };
        stream.tell(Report::LocalOperation(failed)).await;
        let told = operation("stop", &["b"]);
        stream.tell(Report::LocalOperation(told.clone())).await;
        for other in [
            LocalOperation { reason: "LEFTOVERS".to_owned(), ..told.clone() },
            LocalOperation { aliases: vec!["a".to_owned()], ..told.clone() },
            LocalOperation { verb: "start".to_owned(), ..told.clone() },
        ] {
            stream.tell(Report::LocalOperation(other)).await;
        }
        stream.beat().await
    }));
    let refused = ordering.await.unwrap().expect_err("nothing is heard");
    assert_eq!(Problem::from_status(&refused).unwrap().reason, Reason::AgentUnreachable);
    assert_eq!(outcome(&fleet, &id).await, "", "it is unknown");

    agent.now_say(|alias, id| {
        let done = OperationState::Done.into();
        let processes = vec![process(alias, 10, false)];
        Ok(Some(Operation { id: id.to_owned(), state: done, processes, ..Default::default() }))
    });
    wait_for("it is read back", async || outcome(&fleet, &id).await == "DONE").await;
    let records = fleet.audit().await;
    let told: Vec<_> = records
        .iter()
        .filter(|record| !record.operation_id.is_empty())
        .map(|record| (&record.principal[..], &record.action[..], &record.outcome[..]))
        .collect();
    assert_eq!(
        told,
        [("local:root@host-1", "StopAgentProcess", "DONE"), ("admin", "StopAgentProcess", "DONE")],
        "each is written down once"
    );
    assert_eq!(fleet.agent(host).await.status(), HostAgentStatus::Available);
}

/// How many agents are shown to have the identity of the host.
async fn clones(fleet: &Fleet, host: i64) -> usize {
    let mut client = HostServiceClient::new(fleet.channel.clone());
    let got = client.get_host(fleet.as_admin(GetHostRequest { host_id: host })).await.unwrap();
    got.into_inner().host.unwrap().clones.len()
}

/// Stops all processes of a host. Gives the task.
async fn stop_agent(fleet: &Fleet, host: i64) -> i64 {
    let mut client = HostAgentServiceClient::new(fleet.channel.clone());
    let request = StopHostAgentRequest { host_id: host, ..Default::default() };
    client.stop_host_agent(fleet.as_admin(request)).await.unwrap().into_inner().task.unwrap().id
}

async fn task(fleet: &Fleet, task: i64) -> Task {
    let mut client = TaskServiceClient::new(fleet.channel.clone());
    let got = client.get_task(fleet.as_admin(GetTaskRequest { task_id: task })).await.unwrap();
    got.into_inner().task.unwrap()
}

/// Hazard A10: a task fails at once, and says why, where the agent turns out to have a copy before anything was ordered.
#[tokio::test]
async fn a_task_orders_nothing_from_an_agent_that_has_a_copy() {
    let fleet = Arc::new(Fleet::start().await);
    let lost = |_: &str, _: &str| Err(Status::unavailable("nothing is heard"));
    let (agent, copy) = (FakeAgent::start(lost, lost).await, FakeAgent::start(lost, lost).await);
    agent.hold_inventory(true);
    let _reporting = agent.report(&fleet, vec![alive("a", 1)]);
    let host = agent.host().await;
    let stop = stop_agent(&fleet, host).await;
    let _reporting_too = copy.report(&fleet, vec![alive("a", 1)]);
    wait_for("both are shown", async || clones(&fleet, host).await == 2).await;
    agent.hold_inventory(false);
    wait_for("it fails", async || task(&fleet, stop).await.status() == TaskStatus::Failed).await;
    let reasons: Vec<_> =
        task(&fleet, stop).await.subtasks.into_iter().filter_map(|step| Some(step.error?.reason)).collect();
    assert_eq!(reasons, ["AGENT_CLONED"]);
    assert!(!agent.has_order("") && !copy.has_order(""));
}

/// Hazard A10: an order of a task that may have been sent waits for the agent that it was sent to.
#[tokio::test]
async fn an_order_that_may_have_been_sent_waits_for_the_end_of_the_copy() {
    let fleet = Arc::new(Fleet::start().await);
    let lost = |_: &str, _: &str| Err(Status::unavailable("nothing is heard"));
    let (agent, copy) = (FakeAgent::start(lost, lost).await, FakeAgent::start(lost, lost).await);
    let _reporting = agent.report(&fleet, vec![alive("a", 1)]);
    let host = agent.host().await;
    let stop = stop_agent(&fleet, host).await;
    wait_for("it is sent", async || agent.has_order("")).await;
    let reporting = copy.report(&fleet, vec![alive("a", 1)]);
    wait_for("both are shown", async || clones(&fleet, host).await == 2).await;
    agent.now_stop_all(vec![process("a", 10, false)], |_, id| {
        let done = OperationState::Done.into();
        Ok(Some(Operation { id: id.to_owned(), state: done, ..Default::default() }))
    });
    assert_eq!(task(&fleet, stop).await.status(), TaskStatus::Running);
    drop(reporting);
    wait_for("it is done", async || task(&fleet, stop).await.status() == TaskStatus::Successful).await;
    assert_eq!((copy.has_order(""), copy.asked()), (false, 0));
}

async fn cancel(fleet: &Fleet, task: i64) {
    let mut client = TaskServiceClient::new(fleet.channel.clone());
    let request = CancelTaskRequest { task_id: task, ..Default::default() };
    client.cancel_task(fleet.as_admin(request)).await.unwrap();
}

/// An order of which nothing was heard is not sent again once its task is cancelled: the agent is told, and what it says of
/// the order is how the step ends.
#[tokio::test]
async fn a_cancelled_order_is_not_sent_again() {
    let fleet = Arc::new(Fleet::start().await);
    let lost = |_: &str, _: &str| Err(Status::unavailable("nothing is heard"));
    let agent = FakeAgent::start(lost, lost).await;
    agent.now_cancel(lost);
    let _reporting = agent.report(&fleet, vec![alive("a", 1)]);
    let stop = stop_agent(&fleet, agent.host().await).await;
    wait_for("it is sent", async || agent.has_order("")).await;
    cancel(&fleet, stop).await;
    wait_for("the agent is told", async || agent.cancelled().0).await;
    assert_eq!(task(&fleet, stop).await.state(), TaskState::Canceling, "it is not known what became of it");
    agent.now_cancel(|_, id| {
        let (state, reason) = (OperationState::Failed.into(), "CANCELLED".to_owned());
        Ok(Some(Operation { id: id.to_owned(), state, reason, ..Default::default() }))
    });
    wait_for("it ends", async || task(&fleet, stop).await.state() == TaskState::Cancelled).await;
    let reasons: Vec<_> =
        task(&fleet, stop).await.subtasks.into_iter().filter_map(|step| Some(step.error?.reason)).collect();
    assert_eq!(reasons, ["CANCELLED"]);
    assert_eq!(agent.cancelled().1, 0);
}

/// The same with an agent of before cancels were known: it is asked, and nothing is sent where it never got the order.
#[tokio::test]
async fn an_older_agent_is_asked_what_became_of_a_cancelled_order() {
    let fleet = Arc::new(Fleet::start().await);
    let lost = |_: &str, _: &str| Err(Status::unavailable("nothing is heard"));
    let agent = FakeAgent::start(lost, lost).await;
    agent.now_say(|_, _| Err(Problem::new(Reason::OperationUnknown, "no such operation").into()));
    let _reporting = agent.report(&fleet, vec![alive("a", 1)]);
    let stop = stop_agent(&fleet, agent.host().await).await;
    wait_for("it is sent", async || agent.has_order("")).await;
    cancel(&fleet, stop).await;
    wait_for("it ends", async || task(&fleet, stop).await.state() == TaskState::Cancelled).await;
    assert_eq!((agent.asked(), agent.cancelled()), (1, (true, 0)));
}

/// Hazard A10: what became of an order is not asked of a copy of the agent that got it.
#[tokio::test]
async fn a_copy_is_not_asked_for_orders_that_it_never_got() {
    let fleet = Arc::new(Fleet::start().await);
    let lost = |_: &str, _: &str| Err(Status::unavailable("nothing is heard"));
    let (agent, copy) = (FakeAgent::start(lost, lost).await, FakeAgent::start(lost, lost).await);
    copy.now_say(|_, _| Err(Problem::new(Reason::OperationUnknown, "no such operation").into()));
    let _reporting = agent.report(&fleet, vec![alive("a", 1)]);
    let host = agent.host().await;
    stop(&fleet, host, "a").await.expect_err("nothing is heard");
    let id = agent.ordered("a");

    let reporting = copy.report(&fleet, vec![alive("a", 1)]);
    let clones = async || clones(&fleet, host).await;
    wait_for("both are shown", async || clones().await == 2).await;
    let refused = stop(&fleet, host, "a").await.expect_err("refused");
    assert_eq!(Problem::from_status(&refused).unwrap().reason, Reason::AgentCloned);
    // What must not happen has no condition to wait for: this is longer than the pauses between questions.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((clones().await, copy.asked(), copy.has_order("a")), (2, 0, false));
    assert_eq!(outcome(&fleet, &id).await, "", "it is unknown");

    drop(reporting);
    wait_for("one is left", async || clones().await == 0).await;
    agent.now_say(|alias, id| {
        let done = OperationState::Done.into();
        let processes = vec![process(alias, 10, false)];
        Ok(Some(Operation { id: id.to_owned(), state: done, processes, ..Default::default() }))
    });
    wait_for("it is read back", async || outcome(&fleet, &id).await == "DONE").await;
    assert_eq!(copy.asked(), 0);
    let phases: Vec<_> = fleet.agent(host).await.processes.iter().map(|process| process.phase()).collect();
    assert_eq!(phases, [AgentProcessPhase::Stopped]);
}
