//! Orders to many hosts, through the public API: how far they go at once, what stops them, and what a person can do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

use belay_proto::{
    Problem, Reason,
    v1::{
        AbsentHosts, ApproveWaveRequest, Batch, BatchHostState, BatchOrder, BatchPolicy,
        BatchRestartHostAgentsRequest, BatchStartHostAgentsRequest, BatchStopHostAgentsRequest, BatchVerb,
        CancelTaskRequest, DisruptionBudget, GetTaskRequest, PauseTaskRequest, PlanBatchRequest,
        ResumeTaskRequest, RetryTaskRequest, RollbackTaskRequest, SetHostMaintenanceRequest,
        StopHostAgentRequest, SubtaskStatus, Task, TaskState,
    },
};
use belay_tests::{Fleet, Kind, Script, SimulatedFleet, Simulation, wait_for};
use http::Method;
use tonic::Status;

/// A server, and so many hosts: `zone` is `z0`, `z1` and `z2` in turn, `cluster` is `obtest` for every second one.
struct Setup {
    fleet: Fleet,
    agents: SimulatedFleet,
    ids: Vec<i64>,
}

impl Setup {
    async fn start(count: usize) -> Self {
        let fleet = Fleet::plain_without_hosts(
            env!("CARGO_BIN_EXE_belay-under-test"),
            env!("CARGO_BIN_EXE_victim"),
            "1s",
        )
        .await;
        let simulation = Simulation {
            labels: |number| {
                let cluster = if number % 2 == 0 { "obtest" } else { "other" };
                vec![("zone".into(), format!("z{}", number % 3)), ("cluster".into(), cluster.into())]
            },
            ..Simulation::new(count, fleet.address())
        };
        let agents = fleet.simulate(simulation).await;
        let mut ids = Vec::new();
        for number in 0..count {
            ids.push(agents.agent(number).wait_for_host().await);
        }
        Self { fleet, agents, ids }
    }

    fn all(&self, policy: BatchPolicy) -> BatchOrder {
        BatchOrder { host_ids: self.ids.clone(), policy: Some(policy), ..Default::default() }
    }

    async fn stop(&self, order: BatchOrder) -> Result<Task, Status> {
        let request = BatchStopHostAgentsRequest { order: Some(order) };
        let answer = self.fleet.wire().batches().batch_stop_host_agents(request).await?;
        Ok(answer.into_inner().task.expect("a task"))
    }

    async fn restart(&self, order: BatchOrder) -> Result<Task, Status> {
        let request = BatchRestartHostAgentsRequest { order: Some(order) };
        let answer = self.fleet.wire().batches().batch_restart_host_agents(request).await?;
        Ok(answer.into_inner().task.expect("a task"))
    }

    async fn task(&self, task_id: i64) -> Task {
        let answer = self.fleet.wire().tasks().get_task(GetTaskRequest { task_id }).await.expect("read");
        answer.into_inner().task.expect("a task")
    }

    async fn until(&self, id: i64, what: &str, holds: impl Fn(&Task) -> bool) -> Task {
        wait_for(what, async || {
            let task = self.task(id).await;
            if holds(&task) { Ok(task) } else { Err(told(&task)) }
        })
        .await
    }

    async fn ended(&self, id: i64) -> Task {
        self.until(id, "the batch ends", |task| task.finish_time.is_some()).await
    }

    /// Which agent a host is.
    fn number(&self, host: i64) -> usize {
        self.ids.iter().position(|id| *id == host).expect("one of ours")
    }

    /// Agents by the order in which they began what they were ordered.
    fn begun(&self) -> Vec<usize> {
        let all = self.agents.orders().all().into_iter();
        all.filter(|entry| matches!(entry.kind, Kind::Begun { .. })).map(|entry| entry.agent).collect()
    }
}

fn told(task: &Task) -> String {
    let batch = batch(task);
    format!("{:?}: {:?}, waits for {:?}", task.state(), batch.counts, batch.waits_for)
}

fn batch(task: &Task) -> &Batch {
    task.batch.as_ref().expect("a batch")
}

/// How many hosts wait, run, are done, failed, were skipped, were cancelled and are undone.
fn counts(task: &Task) -> [i32; 7] {
    let counts = batch(task).counts.expect("counts");
    let counts = [
        counts.waiting,
        counts.running,
        counts.successful,
        counts.failed,
        counts.skipped,
        counts.cancelled,
        counts.undone,
    ];
    assert_eq!(counts.iter().sum::<i32>() as usize, batch(task).hosts.len(), "they add up");
    counts
}

fn reason(refused: &Status) -> Reason {
    Problem::from_status(refused).expect("a problem of ours").reason
}

/// The documented shape: one task, the same subtasks for each host, and barriers that hold nobody up. Hazard D12.
#[tokio::test]
async fn each_host_walks_its_own_chain() {
    let setup = Setup::start(3).await;
    setup.agents.agent(1).play(Script::Fails(Reason::Leftovers, "`obstat2` is still alive".into()));
    let task = setup.stop(setup.all(BatchPolicy::default())).await.expect("accepted");
    assert_eq!((&task.name[..], task.host_id), ("Batch stop OCP agent", 0));
    let names: Vec<_> = task.subtasks.iter().map(|step| (&step.name[..], step.parallel_idx)).collect();
    let (prepare, stop, finish) =
        ("Prepare stop OCP agent", "Stop all OCP agent processes", "Finish OCP agent operation");
    let expected = [
        (prepare, 0),
        (prepare, 1),
        (prepare, 2),
        ("Wait node", -1),
        (stop, 0),
        (stop, 1),
        (stop, 2),
        ("Wait node", -1),
        (finish, 0),
        (finish, 1),
        (finish, 2),
    ];
    assert_eq!(names, expected);
    let wait = &task.subtasks[3];
    assert_eq!(wait.class_name, "com.alipay.ocp.service.task.business.WaitNode");
    assert_eq!((wait.upstreams.len(), wait.downstreams.len(), wait.timeout), (3, 3, 30));
    for step in &task.subtasks {
        for upstream in &step.upstreams {
            let above = task.subtasks.iter().find(|other| other.id == *upstream).expect("there");
            assert!(above.downstreams.contains(&step.id), "edges are drawn on both ends");
        }
    }

    let task = setup.ended(task.id).await;
    assert_eq!((task.state(), counts(&task)), (TaskState::Failed, [0, 0, 2, 1, 0, 0, 0]));
    let failed = batch(&task).hosts.iter().find(|host| host.host_id == setup.ids[1]).expect("there");
    assert_eq!(failed.state(), BatchHostState::Failed);
    assert_eq!(failed.error.as_ref().expect("why").reason, "LEFTOVERS");
    assert_eq!(task.subtasks[3].status(), SubtaskStatus::Successful);
    let last = task.subtasks.iter().find(|step| step.host_id == setup.ids[1] && step.name == finish);
    assert_eq!(last.expect("there").status(), SubtaskStatus::Pending, "the failed host goes no further");

    // Run again only what failed: nobody else is ordered anything.
    setup.agents.agent(1).play(Script::AtOnce);
    let request = RetryTaskRequest { task_id: task.id, reason: String::new(), ..Default::default() };
    setup.fleet.wire().tasks().retry_task(request).await.expect("accepted");
    let task = setup.ended(task.id).await;
    assert_eq!((task.state(), counts(&task)), (TaskState::Successful, [0, 0, 3, 0, 0, 0, 0]));
    let once = setup.ids.iter().map(|id| ((setup.number(*id), "obstat2".to_owned()), 1));
    assert_eq!(setup.agents.orders().effects(false), once.collect::<BTreeMap<_, _>>());
}

/// Waves and the limit of hosts at once.
#[tokio::test]
async fn a_batch_goes_in_waves() {
    let setup = Setup::start(12).await;
    setup.agents.play(&Script::After(Duration::from_millis(50)));
    let policy = BatchPolicy {
        parallel: "2".into(),
        waves: vec!["1".into(), "25%".into(), "rest".into()],
        ..Default::default()
    };
    let task = setup.restart(setup.all(policy)).await.expect("accepted");
    assert_eq!(batch(&task).waves, [1, 3, 8]);
    let most = AtomicI32::new(0);
    let task = wait_for("the batch ends", async || {
        let task = setup.task(task.id).await;
        most.fetch_max(counts(&task)[1], Ordering::Relaxed);
        assert!(counts(&task)[1] <= 2, "{}", told(&task));
        if task.finish_time.is_some() { Ok(task) } else { Err(told(&task)) }
    })
    .await;
    assert_eq!((task.state(), most.into_inner()), (TaskState::Successful, 2));
    // Whoever is in a later wave began when those of the one before had ended.
    let wave = |agent: usize| {
        batch(&task).hosts.iter().find(|host| host.host_id == setup.ids[agent]).expect("there").wave
    };
    let waves: Vec<_> = setup.begun().into_iter().map(wave).collect();
    assert!(waves.is_sorted(), "{waves:?}");
}

/// Hosts of one zone at a time, whatever is asked at once.
#[tokio::test]
async fn one_zone_at_a_time() {
    let setup = Setup::start(9).await;
    setup.agents.play(&Script::After(Duration::from_millis(30)));
    let policy = BatchPolicy { one_at_a_time: "zone".into(), ..Default::default() };
    let task = setup.restart(setup.all(policy)).await.expect("accepted");
    assert_eq!(batch(&task).waves, [3, 3, 3]);
    assert_eq!(setup.ended(task.id).await.state(), TaskState::Successful);
    let zones: Vec<_> = setup.begun().into_iter().map(|agent| agent % 3).collect();
    assert!(zones.is_sorted(), "{zones:?}");
}

/// Once so many have failed no further host begins, and those under way end.
#[tokio::test]
async fn failures_stop_a_batch() {
    let setup = Setup::start(10).await;
    setup.agents.play(&Script::Fails(Reason::Leftovers, "`obstat2` is still alive".into()));
    let policy = BatchPolicy { parallel: "1".into(), stop_after: "20%".into(), ..Default::default() };
    let task = setup.stop(setup.all(policy)).await.expect("accepted");
    assert_eq!(batch(&task).stop_after, 2);
    let task = setup.ended(task.id).await;
    assert_eq!((task.state(), counts(&task)), (TaskState::Failed, [8, 0, 0, 2, 0, 0, 0]));
    assert!(batch(&task).halted);
    assert_eq!(setup.begun().len(), 2);

    // Only those that were not done, in a batch of their own.
    setup.agents.play(&Script::AtOnce);
    let rerun = BatchOrder { rerun_of: task.id, ..Default::default() };
    let again = setup.stop(rerun).await.expect("accepted");
    assert_eq!(batch(&again).hosts.len(), 10);
    assert_eq!(setup.ended(again.id).await.state(), TaskState::Successful);
    let nobody = BatchOrder { rerun_of: again.id, ..Default::default() };
    assert_eq!(reason(&setup.stop(nobody).await.expect_err("nobody is left")), Reason::InvalidArgument);
}

/// Hazards D15 and L01: from the moment in which the cancel is answered no host begins, those under way end, and the counts
/// are exact.
#[tokio::test]
async fn a_cancelled_batch_begins_no_further_host() {
    let setup = Setup::start(200).await;
    setup.agents.play(&Script::After(Duration::from_millis(100)));
    let policy = BatchPolicy { parallel: "20".into(), ..Default::default() };
    let task = setup.stop(setup.all(policy)).await.expect("accepted");
    setup.until(task.id, "a part is done", |task| counts(task)[2] >= 40).await;
    let request = CancelTaskRequest { task_id: task.id, reason: "enough".into(), ..Default::default() };
    let answer = setup.fleet.wire().tasks().cancel_task(request).await.expect("accepted").into_inner();
    let answered = answer.task.expect("a task");
    let task = setup.ended(task.id).await;
    assert_eq!(task.state(), TaskState::Cancelled);
    let waiting = |task: &Task| -> Vec<i64> {
        let hosts = batch(task).hosts.iter();
        hosts.filter(|host| host.state() == BatchHostState::Waiting).map(|host| host.host_id).collect()
    };
    assert_eq!(waiting(&answered), waiting(&task), "who had not begun when it was answered never began");
    let begun: BTreeSet<_> = setup.begun().into_iter().map(|agent| setup.ids[agent]).collect();
    assert!(waiting(&task).iter().all(|host| !begun.contains(host)));
    let [waiting, running, successful, failed, _, cancelled, _] = counts(&task);
    assert_eq!(running, 0);
    assert!(waiting > 0 && successful >= 40, "{}", told(&task));
    // Who was stopped: those that are done, and those that were cut off or failed only behind the stop.
    let stopped: BTreeSet<_> = setup
        .agents
        .orders()
        .effects(false)
        .into_iter()
        .map(|((agent, _), times)| {
            assert_eq!(times, 1);
            agent
        })
        .collect();
    for host in &batch(&task).hosts {
        let was_stopped = stopped.contains(&setup.number(host.host_id));
        match host.state() {
            BatchHostState::Successful => assert!(was_stopped),
            BatchHostState::Waiting => assert!(!was_stopped),
            _ => {}
        }
    }
    assert!(stopped.len() as i32 <= successful + failed + cancelled);
    // Nobody is held any more.
    setup.agents.play(&Script::AtOnce);
    let again = setup.stop(setup.all(BatchPolicy::default())).await.expect("accepted");
    assert_eq!(setup.ended(again.id).await.state(), TaskState::Successful);
}

/// Pause, resume and approve, over a crash of the server.
#[tokio::test]
async fn a_person_lets_a_batch_go_on() {
    let mut setup = Setup::start(4).await;
    let policy = BatchPolicy { waves: vec!["2".into()], approve_waves: true, ..Default::default() };
    let id = setup.stop(setup.all(policy)).await.expect("accepted").id;
    let is_waiting = |task: &Task| task.state() == TaskState::Paused && counts(task)[2] == 2;
    let task = setup.until(id, "it waits for an approval", is_waiting).await;
    assert!(batch(&task).waits_for[0].contains("approve"), "{}", told(&task));

    setup.fleet.server.kill();
    setup.fleet.server.start();
    setup.fleet.wait_until_ready().await;
    let wire = setup.fleet.wire();
    assert!(is_waiting(&setup.task(id).await), "nothing has changed");
    let resume = ResumeTaskRequest { task_id: id, reason: String::new(), ..Default::default() };
    let refused = wire.tasks().resume_task(resume.clone()).await.expect_err("nobody paused it");
    assert_eq!(reason(&refused), Reason::TaskWrongState);
    let pause = PauseTaskRequest { task_id: id, reason: String::new(), ..Default::default() };
    let refused = wire.tasks().pause_task(pause).await.expect_err("it is paused");
    assert_eq!(reason(&refused), Reason::TaskWrongState);
    let approve =
        |wave| ApproveWaveRequest { task_id: id, reason: String::new(), wave, ..Default::default() };
    let refused = wire.tasks().approve_wave(approve(3)).await.expect_err("another wave");
    assert_eq!(reason(&refused), Reason::TaskWrongState);
    wire.tasks().approve_wave(approve(2)).await.expect("approved");
    let task = setup.ended(id).await;
    assert_eq!((task.state(), setup.begun().len()), (TaskState::Successful, 4));
}

/// What is paused begins nothing, ends what runs, and goes on where it was.
#[tokio::test]
async fn a_paused_batch_goes_on_where_it_was() {
    let setup = Setup::start(6).await;
    setup.agents.play(&Script::After(Duration::from_millis(200)));
    let policy = BatchPolicy { parallel: "2".into(), ..Default::default() };
    let id = setup.restart(setup.all(policy)).await.expect("accepted").id;
    setup.until(id, "some run", |task| counts(task)[1] == 2).await;
    let pause = PauseTaskRequest { task_id: id, reason: "lunch".into(), ..Default::default() };
    let paused = setup.fleet.wire().tasks().pause_task(pause).await.expect("paused").into_inner();
    assert_eq!(paused.task.expect("a task").state(), TaskState::Paused);
    let task = setup.until(id, "what ran has ended", |task| counts(task)[1] == 0).await;
    assert_eq!(counts(&task)[2] + counts(&task)[0], 6, "a host under way goes on to its end");
    assert_eq!(task.state(), TaskState::Paused);
    let resume = ResumeTaskRequest { task_id: id, reason: String::new(), ..Default::default() };
    setup.fleet.wire().tasks().resume_task(resume).await.expect("resumed");
    assert_eq!(counts(&setup.ended(id).await), [0, 0, 6, 0, 0, 0, 0]);
}

/// Absent hosts fail, are skipped, or are waited for and named.
#[tokio::test]
async fn absent_hosts_are_as_was_said() {
    let setup = Setup::start(3).await;
    setup.agents.agent(2).leave();
    setup.fleet.wait_for_status(setup.ids[2], "OFFLINE").await;
    let policy = |absent: AbsentHosts, wait| BatchPolicy {
        absent: absent.into(),
        absent_wait: wait,
        ..Default::default()
    };
    let failed = setup.stop(setup.all(policy(AbsentHosts::Fail, None))).await.expect("accepted");
    let failed = setup.ended(failed.id).await;
    assert_eq!(counts(&failed), [0, 0, 2, 1, 0, 0, 0]);
    let absent = batch(&failed).hosts.iter().find(|host| host.host_id == setup.ids[2]).expect("there");
    let error = absent.error.clone().expect("why");
    assert_eq!(error.reason, "AGENT_UNREACHABLE");

    let skipped = setup.stop(setup.all(policy(AbsentHosts::Skip, None))).await.expect("accepted");
    let skipped = setup.ended(skipped.id).await;
    assert_eq!((skipped.state(), counts(&skipped)), (TaskState::Successful, [0, 0, 2, 0, 1, 0, 0]));

    let wait = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let waited = setup.stop(setup.all(policy(AbsentHosts::Wait, wait))).await.expect("accepted");
    let named = format!("host {}", setup.ids[2]);
    setup
        .until(waited.id, "it is named", |task| {
            counts(task) == [1, 0, 2, 0, 0, 0, 0]
                && batch(task).waits_for.iter().any(|wait| wait.contains(&named))
        })
        .await;
    setup.agents.agent(2).come_back().await;
    assert_eq!(setup.ended(waited.id).await.state(), TaskState::Successful);

    setup.agents.agent(2).leave();
    setup.fleet.wait_for_status(setup.ids[2], "OFFLINE").await;
    let wait = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let waited = setup.stop(setup.all(policy(AbsentHosts::Wait, wait))).await.expect("accepted");
    let waited = setup.ended(waited.id).await;
    assert_eq!((waited.state(), counts(&waited)), (TaskState::Failed, [0, 0, 2, 1, 0, 0, 0]));
}

/// A budget holds hosts back while others are down, also those that are not in the batch.
#[tokio::test]
async fn a_budget_is_kept() {
    let setup = Setup::start(6).await;
    // Hosts 0, 2 and 4 are of the cluster. One of them is stopped by somebody else.
    let stop = StopHostAgentRequest { host_id: setup.ids[4], reason: String::new(), ..Default::default() };
    let stopped = setup.fleet.wire().agents().stop_host_agent(stop).await.expect("accepted").into_inner();
    setup.until_task_ended(stopped.task.expect("a task").id).await;
    let budget =
        |max_down: &str| DisruptionBudget { selector: "cluster=obtest".into(), max_down: max_down.into() };
    let some = vec![setup.ids[0], setup.ids[1], setup.ids[2]];
    let policy = BatchPolicy { budgets: vec![budget("1")], ..Default::default() };
    let order = BatchOrder { host_ids: some, policy: Some(policy), ..Default::default() };
    let refused = setup.stop(order.clone()).await.expect_err("it could never be kept");
    assert_eq!(reason(&refused), Reason::InvalidArgument);
    let task = setup.restart(order).await.expect("accepted");
    let task = setup
        .until(task.id, "the others are done", |task| {
            counts(task) == [2, 0, 1, 0, 0, 0, 0] && batch(task).waits_for.len() == 2
        })
        .await;
    assert!(batch(&task).waits_for[0].contains("cluster=obtest"), "{}", told(&task));

    let start = BatchStartHostAgentsRequest {
        order: Some(BatchOrder { host_ids: vec![setup.ids[4]], ..Default::default() }),
    };
    let started = setup.fleet.wire().batches().batch_start_host_agents(start).await.expect("accepted");
    setup.until_task_ended(started.into_inner().task.expect("a task").id).await;
    assert_eq!(setup.ended(task.id).await.state(), TaskState::Successful);
}

impl Setup {
    async fn until_task_ended(&self, id: i64) {
        wait_for("the task ends", async || {
            let task = self.task(id).await;
            if task.finish_time.is_some() { Ok(()) } else { Err(task.state()) }
        })
        .await;
    }
}

/// What is shown is what is ordered, or nothing where the fleet has changed.
#[tokio::test]
async fn a_plan_is_what_is_ordered() {
    let setup = Setup::start(4).await;
    let wire = setup.fleet.wire();
    let maintenance = SetHostMaintenanceRequest {
        host_id: setup.ids[3],
        on: Some(true),
        reason: "disk".into(),
        ..Default::default()
    };
    wire.hosts().set_host_maintenance(maintenance).await.expect("in maintenance");
    let order = BatchOrder { selector: "zone in (z0,z1)".into(), ..Default::default() };
    let plan = async || {
        let request = PlanBatchRequest { verb: BatchVerb::Stop.into(), order: Some(order.clone()) };
        wire.batches().plan_batch(request).await.expect("planned").into_inner().plan.expect("a plan")
    };
    let outdated = plan().await;
    let hosts: Vec<_> = outdated.hosts.iter().map(|host| host.host_id).collect();
    let mut expected = vec![setup.ids[0], setup.ids[1]];
    expected.sort_unstable();
    assert_eq!(hosts, expected);
    assert_eq!(outdated.hosts[0].running, ["obstat2"]);
    assert_eq!(outdated.left_out[0].host_id, setup.ids[3]);
    assert!(outdated.left_out[0].why.contains("disk"));
    assert_eq!(setup.begun(), Vec::<usize>::new(), "a plan does nothing");

    // Somebody stops one of them meanwhile.
    let by_plan = |id: &str| BatchOrder { plan_id: id.to_owned(), ..Default::default() };
    let stop = StopHostAgentRequest { host_id: setup.ids[1], reason: String::new(), ..Default::default() };
    let stopped = wire.agents().stop_host_agent(stop).await.expect("accepted").into_inner();
    setup.until_task_ended(stopped.task.expect("a task").id).await;
    let refused = setup.stop(by_plan(&outdated.id)).await.expect_err("the fleet has changed");
    assert_eq!(reason(&refused), Reason::PlanOutdated);

    let fresh = plan().await;
    let other = setup.restart(by_plan(&fresh.id)).await.expect_err("another verb");
    assert_eq!(reason(&other), Reason::InvalidArgument);
    let task = setup.stop(by_plan(&fresh.id)).await.expect("accepted");
    assert_eq!(setup.ended(task.id).await.state(), TaskState::Successful);
    let unknown = setup.stop(by_plan("nobody's")).await.expect_err("no plan");
    assert_eq!(reason(&unknown), Reason::PlanUnknown);
}

/// Empty never means all, and what can not be is refused as a whole.
#[tokio::test]
async fn wrong_orders_are_refused() {
    let setup = Setup::start(2).await;
    let order = |ids: &[i64]| BatchOrder { host_ids: ids.to_vec(), ..Default::default() };
    let policy = |policy| BatchOrder { policy: Some(policy), ..order(&setup.ids) };
    let text = |text: &str| text.to_owned();
    let cases = [
        (order(&[]), Reason::InvalidArgument, "no host is named"),
        (order(&[0]), Reason::InvalidArgument, "above 0"),
        (order(&[setup.ids[0], 4_711]), Reason::HostUnknown, "4711"),
        (
            BatchOrder { selector: text("zone=z0"), ..order(&setup.ids) },
            Reason::InvalidArgument,
            "in one way",
        ),
        (BatchOrder { selector: text("zone="), ..order(&[]) }, Reason::InvalidArgument, "selector"),
        (
            BatchOrder { selector: text("zone=nowhere"), ..order(&[]) },
            Reason::InvalidArgument,
            "no host is meant",
        ),
        (BatchOrder { rerun_of: 4_711, ..order(&[]) }, Reason::TaskUnknown, "4711"),
        (BatchOrder { confirm_hosts: 3, ..order(&setup.ids) }, Reason::BlastRadius, "2 hosts"),
        (
            policy(BatchPolicy { parallel: text("0"), ..Default::default() }),
            Reason::InvalidArgument,
            "parallel",
        ),
        (
            policy(BatchPolicy { parallel: text("101%"), ..Default::default() }),
            Reason::InvalidArgument,
            "parallel",
        ),
        (
            policy(BatchPolicy { waves: vec![text("")], ..Default::default() }),
            Reason::InvalidArgument,
            "waves",
        ),
        (
            policy(BatchPolicy { absent: AbsentHosts::Wait.into(), ..Default::default() }),
            Reason::InvalidArgument,
            "absent_wait",
        ),
        (
            policy(BatchPolicy { one_at_a_time: text("a b"), ..Default::default() }),
            Reason::InvalidArgument,
            "one_at_a_time",
        ),
    ];
    for (order, expected, says) in cases {
        let refused = setup.stop(order.clone()).await.expect_err("refused");
        let problem = Problem::from_status(&refused).expect("a problem of ours");
        assert_eq!(problem.reason, expected, "{order:?}: {problem:?}");
        let told = format!("{} {:?}", problem.message, problem.fields);
        assert!(told.contains(says), "{order:?}: {told}");
    }
    assert_eq!(setup.begun(), Vec::<usize>::new());

    // A host that another task holds.
    setup.agents.agent(1).play(Script::After(Duration::from_secs(2)));
    let stop = StopHostAgentRequest { host_id: setup.ids[1], reason: String::new(), ..Default::default() };
    let held = setup.fleet.wire().agents().stop_host_agent(stop).await.expect("accepted").into_inner();
    let refused = setup.stop(order(&setup.ids)).await.expect_err("refused");
    let problem = Problem::from_status(&refused).expect("a problem of ours");
    assert_eq!(problem.reason, Reason::AgentBusy);
    let fields = format!("{:?}", problem.fields);
    assert!(fields.contains(&format!("host {} is held", setup.ids[1])), "it is named: {fields}");
    setup.until_task_ended(held.task.expect("a task").id).await;
}

/// What was done is undone, host by host, as many at once as the batch says.
#[tokio::test]
async fn a_batch_is_rolled_back() {
    let setup = Setup::start(5).await;
    setup.agents.agent(4).play(Script::Fails(Reason::Leftovers, "`obstat2` is still alive".into()));
    let task = setup
        .stop(setup.all(BatchPolicy { parallel: "2".into(), ..Default::default() }))
        .await
        .expect("accepted");
    assert_eq!(counts(&setup.ended(task.id).await), [0, 0, 4, 1, 0, 0, 0]);
    setup.agents.play(&Script::AtOnce);
    let request = RollbackTaskRequest { task_id: task.id, reason: String::new(), ..Default::default() };
    setup.fleet.wire().tasks().rollback_task(request).await.expect("accepted");
    let task = setup.ended(task.id).await;
    assert_eq!((task.state(), counts(&task)), (TaskState::RolledBack, [0, 0, 0, 0, 0, 0, 5]));
    let started = setup.agents.orders().effects(true);
    assert!((0..4).all(|agent| started.get(&(agent, "obstat2".to_owned())) == Some(&1)), "{started:?}");
}

/// A crash of the server in the middle: nobody is left out and nobody is ordered twice. Hazards D01 to D05.
#[tokio::test]
async fn a_batch_outlives_the_server() {
    let mut setup = Setup::start(30).await;
    setup.agents.play(&Script::After(Duration::from_millis(20)));
    let policy =
        BatchPolicy { parallel: "5".into(), waves: vec!["5".into(), "rest".into()], ..Default::default() };
    let id = setup.stop(setup.all(policy)).await.expect("accepted").id;
    for part in [3, 10, 20] {
        setup.until(id, "a part is done", |task| counts(task)[2] >= part).await;
        setup.fleet.server.kill();
        setup.fleet.server.start();
        setup.fleet.wait_until_ready().await;
    }
    let task = setup.ended(id).await;
    assert_eq!(counts(&task), [0, 0, 30, 0, 0, 0, 0], "{}", told(&task));
    let once: BTreeMap<_, _> = (0..30).map(|agent| ((agent, "obstat2".to_owned()), 1)).collect();
    assert_eq!(setup.agents.orders().effects(false), once);
}

/// The documented bodies, and what is ours in them.
#[tokio::test]
async fn rest_callers_order_batches() {
    let setup = Setup::start(3).await;
    let client = setup.fleet.admin();
    let ids: Vec<String> = setup.ids.iter().map(i64::to_string).collect();
    let post = async |path: &str, body: String| client.call(Method::POST, path, body.into_bytes()).await;
    let restart = "/api/v2/compute/hosts/batchRestartAgents";
    let stop = "/compute/hosts/batchStopAgents";

    let answer = post(restart, format!("{{\"hostids\":[{},{}]}}", ids[0], ids[1])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let task = answer.data();
    assert_eq!(task["name"], "Batch restart OCP agent");
    assert!(task.get("hostId").is_none(), "{task:#}");
    let mut hosts = vec![ids[0].clone(), ids[1].clone()];
    hosts.sort();
    assert_eq!(task["context"]["listMap"]["host_ids"], serde_json::json!(hosts));
    // Five subtasks for each host, and four barriers.
    assert_eq!(task["subtasks"].as_array().map(Vec::len), Some(14));
    let id = task["id"].as_i64().expect("an id");
    setup.fleet.wait_for_task(id, |task| task["status"] == "SUCCESSFUL").await;
    let standing = client.get(&format!("/api/v2/tasks/instances/{id}/batch")).await;
    assert_eq!(standing.data()["counts"]["successful"], 2, "{}", standing.text);

    let body = format!(
        "{{\"hostIds\":[{}],\"parallel\":\"1\",\"waves\":[1,\"50%\",\"rest\"],\"approveWaves\":true,\"reason\":\"ticket 7\"}}",
        ids.join(",")
    );
    let answer = post(stop, body).await;
    let id = answer.data()["id"].as_i64().expect("an id");
    let approve = format!("/api/v2/tasks/instances/{id}/approve");
    for wave in [2, 3] {
        setup
            .until(id, "a wave waits", |task| {
                task.state() == TaskState::Paused && counts(task)[2] == wave - 1
            })
            .await;
        let approved = client.post(&approve).await;
        assert_eq!(approved.status, 200, "{}", approved.text);
    }
    setup.fleet.wait_for_task(id, |task| task["status"] == "SUCCESSFUL").await;
    assert_eq!(client.post(&approve).await.status, 409, "nothing waits any more");

    for (body, says) in [
        ("{}", "host"),
        ("{\"hostIds\":[]}", "hostIds"),
        ("{\"hostIds\":[1],\"hostIdList\":[1]}", "hostIdList"),
        ("{\"hostIds\":[\"x\"]}", "hostIds"),
        ("{\"hostIds\":[1],\"parallel\":\"0%\"}", "parallel"),
        ("{\"hostIds\":[1],\"budgets\":[{\"selector\":\"zone=\",\"maxDown\":1}]}", "budgets"),
    ] {
        let refused = post(stop, body.to_owned()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text);
        assert!(refused.text.contains(says), "{body}: {}", refused.text);
    }
    assert_eq!(post(stop, "{\"hostIds\":[4711]}".into()).await.status, 404);
}

/// The same at a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn operators_order_batches() {
    let setup = Setup::start(4).await;
    setup.agents.agent(3).play(Script::Fails(Reason::Leftovers, "`obstat2` is still alive".into()));
    let belay = |arguments: &[&str]| crate::cli::belay(&setup.fleet, arguments);
    let (code, out, err) = belay(&["batch", "stop", "--select", "zone in (z0,z1,z2)", "--dry-run"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("obstat2") && !err.contains("accepted"), "{out}{err}");
    assert_eq!(setup.begun(), Vec::<usize>::new());

    let hosts = setup.ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let stop = ["batch", "stop", "--host", &hosts, "--waves", "1,rest", "--reason", "ticket 7"];
    let (code, out, err) = belay(&[&stop[..], &["--confirm", "4"]].concat());
    assert_eq!(code, 1, "one host failed: {out}{err}");
    assert!(format!("{out}{err}").contains("LEFTOVERS"), "{out}{err}");
    let (code, out, err) = belay(&["batch", "get", "1"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("FAILED") && out.contains("SUCCESSFUL"), "{out}{err}");
    let (_, out, err) = belay(&["batch", "list"]);
    assert!(out.contains("Batch stop OCP agent"), "{out}{err}");

    setup.agents.play(&Script::AtOnce);
    let (code, out, err) = belay(&["batch", "rerun", "1", "--confirm", "1"]);
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = belay(&["batch", "start", "--host", &hosts, "--confirm", "3"]);
    assert_ne!(code, 0, "another number: {out}{err}");
}
