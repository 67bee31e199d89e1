use belay_proto::v1::{
    ApproveWaveResponse, Batch, BatchCounts, BatchHost, BatchHostState, BatchStopHostAgentsResponse,
    CancelTaskResponse, GetTaskResponse, Host, ListHostsResponse, ListTasksRequest, ListTasksResponse,
    SubtaskError, WatchTaskRequest, WatchTaskResponse,
};

use super::*;
use crate::{output::Format, progress::Progress, target::Connection, testing::Fake};

/// A stop of hosts that stand so, two in each wave.
pub(super) fn batch_of(state: TaskState, hosts: &[BatchHostState]) -> Task {
    let host = |(at, state): (usize, &BatchHostState)| BatchHost {
        host_id: at as i64 + 1,
        wave: at as i32 / 2 + 1,
        state: (*state).into(),
        error: (*state == BatchHostState::Failed)
            .then(|| SubtaskError { reason: "LEFTOVERS".to_owned(), message: "pid 7 is alive".to_owned() }),
    };
    let count = |wanted| hosts.iter().filter(|state| **state == wanted).count() as i32;
    let status = match state {
        TaskState::Successful => TaskStatus::Successful,
        TaskState::Failed | TaskState::Cancelled => TaskStatus::Failed,
        _ => TaskStatus::Running,
    };
    Task {
        id: 30,
        name: "Batch stop OCP agent".to_owned(),
        status: status.into(),
        state: state.into(),
        batch: Some(Batch {
            verb: BatchVerb::Stop.into(),
            hosts: hosts.iter().enumerate().map(host).collect(),
            waves: vec![2; hosts.len().div_ceil(2)],
            wave: 1,
            parallel: 10,
            counts: Some(BatchCounts {
                waiting: count(BatchHostState::Waiting),
                running: count(BatchHostState::Running),
                successful: count(BatchHostState::Successful),
                failed: count(BatchHostState::Failed),
                skipped: count(BatchHostState::Skipped),
                ..BatchCounts::default()
            }),
            ..Batch::default()
        }),
        ..Task::default()
    }
}

pub(super) fn context() -> Context {
    Context { connection: Connection::default(), format: Format::Table, timeout: None }
}

fn hosts(fake: &Fake) {
    let host = |id: i64| Host { id, name: format!("web-{id}"), ..Host::default() };
    fake.answer("ListHosts", &ListHostsResponse { hosts: (1..=4).map(host).collect(), page: None });
}

#[tokio::test]
async fn a_batch_is_followed_to_its_end_and_says_which_hosts_failed() {
    use BatchHostState::*;
    let fake = Fake::default();
    hosts(&fake);
    let looks = [
        batch_of(TaskState::Running, &[Running, Waiting]),
        batch_of(TaskState::Running, &[Failed, Running]),
        batch_of(TaskState::Failed, &[Failed, Successful]),
    ];
    fake.stream("WatchTask", &looks.map(|task| WatchTaskResponse { task: Some(task), ..Default::default() }));
    let client = fake.client().await;
    let (names, mut told) = (Names::of(&client).await, Vec::new());
    let changed = |_: &mut Progress, before: Option<&Task>, task: &Task| {
        told.extend(watch::lines(before, task, &names, false));
        Ok(())
    };
    let ended = watch::followed(&client, 30, &mut Progress::new(), changed).await.expect("it ended");
    assert_eq!(
        told,
        [
            "wave 1 of 1: 1 running, 1 waiting",
            "batch 30 `Batch stop OCP agent`: RUNNING",
            "wave 1 of 1: 1 running, 1 failed",
            "host `web-1` (1) failed: pid 7 is alive (LEFTOVERS)",
            "wave 1 of 1: 1 successful, 1 failed",
            "batch 30 `Batch stop OCP agent`: FAILED",
        ]
    );
    let failure = show::outcome(&ended, &names).expect_err("it failed");
    assert_eq!(failure.exit as u8, 1);
    assert!(failure.message.contains("\n  host `web-1` (1): pid 7 is alive (LEFTOVERS)"), "{failure:?}");
    assert_eq!(
        fake.seen::<WatchTaskRequest>("WatchTask"),
        [WatchTaskRequest { task_id: 30, ..Default::default() }]
    );
}

#[tokio::test]
async fn a_cancel_ends_well_where_it_came_in_time() {
    use BatchHostState::*;
    for (state, well) in [(TaskState::Cancelled, true), (TaskState::Successful, false)] {
        let fake = Fake::default();
        let client = fake.client().await;
        fake.answer(
            "CancelTask",
            &CancelTaskResponse { task: Some(batch_of(state, &[Successful])), ..Default::default() },
        );
        let task = Order::Cancel.order(&client, 30, "wrong".to_owned(), None).await.expect("a batch");
        let Ordered::Done(task) = task else { panic!("it was ordered") };
        assert_eq!(Order::Cancel.outcome(&task, &Names::default()).is_ok(), well);
        let asked = fake.seen::<CancelTaskRequest>("CancelTask");
        assert_eq!(
            asked,
            [CancelTaskRequest { task_id: 30, reason: "wrong".to_owned(), ..Default::default() }]
        );
    }
}

#[tokio::test]
async fn an_approval_names_the_wave() {
    let fake = Fake::default();
    let client = fake.client().await;
    fake.answer("ApproveWave", &ApproveWaveResponse { task: Some(Task::default()), ..Default::default() });
    Order::Approve(3).order(&client, 30, String::new(), None).await.expect("a task");
    let asked = fake.seen::<ApproveWaveRequest>("ApproveWave");
    assert_eq!(
        asked,
        [ApproveWaveRequest { task_id: 30, reason: String::new(), wave: 3, ..Default::default() }]
    );
}

#[tokio::test]
async fn a_task_of_one_host_is_no_batch() {
    let fake = Fake::default();
    let client = fake.client().await;
    fake.answer("GetTask", &GetTaskResponse { task: Some(Task { id: 7, host_id: 1, ..Task::default() }) });
    let failure = batch(&client, 7).await.expect_err("it is none");
    assert_eq!((failure.exit as u8, &failure.message[..]), (3, "task 7 is not a batch of hosts"));
}

#[tokio::test]
async fn batches_are_found_among_other_tasks() {
    let fake = Fake::default();
    let page = |tasks, next: &str| ListTasksResponse {
        tasks,
        next_page_token: next.into(),
        ..ListTasksResponse::default()
    };
    let other = Task { id: 31, ..Task::default() };
    fake.answer(
        "ListTasks",
        &page(vec![other.clone(), batch_of(TaskState::Running, &[]), other.clone()], "next"),
    );
    fake.answer("ListTasks", &page(vec![other, batch_of(TaskState::Failed, &[])], ""));
    let found = fake.client().await.batches(&[TaskStatus::Running], 20).await.expect("batches");
    assert_eq!(found.iter().map(|task| task.id).collect::<Vec<_>>(), [30, 30]);
    let asked = fake.seen::<ListTasksRequest>("ListTasks");
    let asked_for = |asked: &ListTasksRequest| (asked.name.clone(), asked.page_token.clone());
    let expected = [("Batch ".into(), String::new()), ("Batch ".into(), "next".into())];
    assert_eq!(asked.iter().map(asked_for).collect::<Vec<_>>(), expected);
    assert!(asked.iter().all(|asked| asked.statuses == [i32::from(TaskStatus::Running)]));
}

#[tokio::test]
async fn a_server_that_names_no_batch_has_accepted_nothing_that_is_known() {
    let fake = Fake::default();
    let client = fake.client().await;
    fake.answer("BatchStopHostAgents", &BatchStopHostAgentsResponse::default());
    let failure = Verb::Stop.order(&client, BatchOrder::default()).await.expect_err("nothing");
    assert_eq!(failure.exit as u8, 6);
}
