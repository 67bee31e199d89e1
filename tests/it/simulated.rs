//! A server with many agents, which are simulated: what they are, how they come back, and what tasks do to all of them.

use std::{collections::BTreeMap, time::Duration};

use belay_proto::{
    Reason,
    v1::{GetTaskRequest, Host, HostStatus, ListHostsRequest, StopHostAgentRequest, Task, TaskState},
};
use belay_tests::{Fleet, Kind, PATIENCE, Script, SimulatedFleet, Simulation, wait_for};

const MANY: usize = 200;

async fn server(heartbeat: &str) -> Fleet {
    Fleet::plain_without_hosts(
        env!("CARGO_BIN_EXE_belay-under-test"),
        env!("CARGO_BIN_EXE_victim"),
        heartbeat,
    )
    .await
}

async fn hosts(fleet: &Fleet) -> Vec<Host> {
    let mut request = tonic::Request::new(ListHostsRequest { size: 2000, ..Default::default() });
    request.set_timeout(PATIENCE);
    fleet.wire().hosts().list_hosts(request).await.expect("an answer").into_inner().hosts
}

/// Waits until so many hosts are AVAILABLE.
async fn wait_for_available(fleet: &Fleet, count: usize) {
    wait_for("the hosts are available", async || {
        let hosts = hosts(fleet).await;
        let available = hosts.iter().filter(|host| host.status() == HostStatus::Available).count();
        if available == count { Ok(()) } else { Err(format!("{available} of {}", hosts.len())) }
    })
    .await;
}

/// Orders the stop of all that a simulated agent has, and gives the task.
async fn stop(fleet: &Fleet, agents: &SimulatedFleet, number: usize) -> i64 {
    let host_id = agents.agent(number).wait_for_host().await;
    let request = StopHostAgentRequest { host_id, reason: "many".into(), ..Default::default() };
    let task = fleet.wire().agents().stop_host_agent(request).await.expect("accepted").into_inner().task;
    task.expect("a task").id
}

async fn wait_for_end(fleet: &Fleet, task_id: i64) -> Task {
    let wire = fleet.wire();
    wait_for("the task ends", async || {
        let task = wire.tasks().get_task(GetTaskRequest { task_id }).await.expect("read").into_inner().task;
        let task = task.expect("a task");
        if task.finish_time.is_some() { Ok(task) } else { Err(task) }
    })
    .await
}

/// Each host is stopped by a task of its own, all at the same time and over a crash of the server: each process once.
#[tokio::test]
async fn two_hundred_hosts_are_stopped_each_once() {
    let mut fleet = server("1s").await;
    let simulation = Simulation {
        processes: vec!["obstat2".to_owned(), "ob_cleaner".to_owned()],
        labels: |number| vec![("zone".to_owned(), format!("z{}", number % 2))],
        ..Simulation::new(MANY, fleet.address())
    };
    let agents = fleet.simulate(simulation).await;
    wait_for_available(&fleet, MANY).await;
    let request = ListHostsRequest { selector: Some("zone=z0".into()), size: 2000, ..Default::default() };
    let half = fleet.wire().hosts().list_hosts(request).await.expect("an answer").into_inner().hosts;
    assert_eq!(half.len(), MANY / 2);

    agents.play(&Script::After(Duration::from_millis(300)));
    let mut tasks = Vec::new();
    for number in 0..MANY {
        tasks.push(stop(&fleet, &agents, number).await);
    }
    fleet.server.kill();
    fleet.server.start();
    fleet.wait_until_ready().await;
    for task in tasks {
        assert_eq!(wait_for_end(&fleet, task).await.state(), TaskState::Successful);
    }
    let each_once: BTreeMap<_, _> = (0..MANY)
        .flat_map(|number| ["ob_cleaner", "obstat2"].map(|alias| ((number, alias.to_owned()), 1)))
        .collect();
    assert_eq!(agents.orders().effects(false), each_once);
    assert_eq!(agents.orders().effects(true), BTreeMap::new());
    wait_for_available(&fleet, MANY).await;
}

/// What a script says is what the server tells: an agent that fails, one that is away when it is ordered and joins the work
/// when it is back, and one that is never heard of again.
#[tokio::test]
async fn a_simulated_agent_is_as_its_script_says() {
    let fleet = server("200ms").await;
    let agents = fleet.simulate(Simulation::new(3, fleet.address())).await;
    wait_for_available(&fleet, 3).await;

    agents.agent(0).play(Script::Fails(Reason::Leftovers, "`obstat2` is still alive".into()));
    let failed = wait_for_end(&fleet, stop(&fleet, &agents, 0).await).await;
    assert_eq!(failed.state(), TaskState::Failed);
    let told = failed.subtasks.iter().find_map(|subtask| subtask.error.clone()).expect("an error");
    assert_eq!((&told.reason[..], &told.message[..]), ("LEFTOVERS", "`obstat2` is still alive"));

    // Its network is gone in the middle; the work goes on there, and is joined when it is back.
    agents.agent(1).play(Script::After(Duration::from_millis(500)));
    let task = stop(&fleet, &agents, 1).await;
    let is_begun = |number: usize| {
        let all = agents.orders().all();
        all.iter().any(|entry| entry.agent == number && matches!(entry.kind, Kind::Begun { .. }))
    };
    wait_for("the order is there", async || is_begun(1).then_some(()).ok_or(())).await;
    agents.agent(1).leave();
    wait_for_available(&fleet, 2).await;
    agents.agent(1).come_back_anew().await;
    assert_eq!(wait_for_end(&fleet, task).await.state(), TaskState::Successful);
    assert_eq!(agents.orders().effects(false), BTreeMap::from([((1, "obstat2".to_owned()), 1)]));

    agents.agent(2).play(Script::Never);
    let task = stop(&fleet, &agents, 2).await;
    wait_for("the order is there", async || is_begun(2).then_some(()).ok_or(())).await;
    let then = std::time::Instant::now();
    agents.agent(2).leave();
    wait_for_available(&fleet, 2).await;
    let wire = fleet.wire();
    let shown = wire.tasks().get_task(GetTaskRequest { task_id: task }).await.expect("read").into_inner();
    assert_eq!(shown.task.expect("a task").state(), TaskState::Running, "what is not known has not ended");
    assert_eq!(agents.orders().begun_after(then), Vec::<usize>::new());
}

/// More agents than files that a program may have open at first: the server takes what the system allows.
#[tokio::test]
async fn a_server_takes_the_files_that_its_fleet_needs() {
    let mut fleet = server("1s").await;
    fleet.server.kill();
    fleet.server.limit_files(128);
    fleet.server.start();
    fleet.wait_until_ready().await;
    let _agents = fleet.simulate(Simulation::new(MANY, fleet.address())).await;
    wait_for_available(&fleet, MANY).await;
}

/// A server that is killed with a fleet connected is calm when it is back: nobody comes in vain, and nobody waits long.
#[tokio::test]
async fn a_fleet_that_comes_back_is_let_in_at_once() {
    let mut fleet = server("1s").await;
    let agents = fleet.simulate(Simulation::new(MANY, fleet.address())).await;
    wait_for_available(&fleet, MANY).await;
    let first = agents.take_connections();
    assert_eq!(first.hellos.len(), first.welcomes.len(), "the first time");
    fleet.server.kill();
    wait_for("all have noticed", async || match agents.connected() {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    drop(agents.take_connections());
    fleet.server.start();
    fleet.wait_until_ready().await;
    wait_for_available(&fleet, MANY).await;
    let again = agents.take_connections();
    assert_eq!((again.hellos.len(), again.welcomes.len()), (MANY, MANY));
    let longest = again.hellos.iter().zip(&again.welcomes).map(|(hello, welcome)| *welcome - *hello).max();
    assert!(longest.is_some_and(|longest| longest < Duration::from_secs(4)), "{longest:?}");
}
