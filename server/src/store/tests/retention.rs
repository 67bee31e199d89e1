//! What is removed, and what must stay.

use std::time::Duration;

use super::{
    task_lists::{insert, number},
    *,
};
use crate::{
    config::Retention,
    retention::forget,
    task::{Level, LogLine, Operation, TaskStatus},
};

const DAY: i64 = 86_400_000_000;

/// Nothing of it is too much, and nothing too old.
fn everything() -> Retention {
    let ages = Duration::from_secs(1000 * 86_400);
    Retention { tasks: ages, most_tasks: 1_000_000, audit: ages, most_audit_records: 1_000_000 }
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

/// The time of a test: day 100.
fn now() -> Timestamp {
    Timestamp::from_microsecond(100 * DAY).expect("a time")
}

async fn rows(store: &Store, table: &str) -> i64 {
    number(store, &format!("SELECT COUNT(*) FROM {table}")).await
}

async fn tasks(store: &Store) -> Vec<i64> {
    let sort = TaskSort { by: SortBy::Id, descending: false };
    let start = PageStart::Offset(0);
    let stretch = TaskStretch { filter: TaskFilter::default(), sort, start, size: 100 };
    let page = store.tasks(&stretch, &Reached::Every).await.expect("read");
    assert_eq!(page.total, page.tasks.len() as u64, "what is counted is what is there");
    let id = |task: &Listed| match task {
        Listed::Whole(task) => task.id.get(),
        Listed::Row(row) => row.id.get(),
    };
    page.tasks.iter().map(id).collect()
}

/// A task that went through all that a task can have, and has ended.
async fn whole_task(store: &Store, host: HostId) -> Task {
    let mut task = take(store, host).await.expect("taken");
    let order = NewOperation { task: Some(task.id), ..operation(host) };
    let lost = NewOperation { task: Some(task.id), ..operation(host) };
    let orders = vec![order.clone(), lost];
    let given = |_: &Task, draft: &mut Draft| {
        draft.operations.extend(orders);
        Ok::<_, std::convert::Infallible>(())
    };
    let given = store.append(&mut task, None, Timestamp::now(), given).await.expect("accepted");
    given.expect("nothing is refused");
    store.settle(order.id, OperationOutcome::Done, Timestamp::now()).await.expect("settled");
    for step in &task.graph.steps {
        let (time, level, message) = (Timestamp::now(), Level::Info, "a line".to_owned());
        let line = LogLine { time, operation: Operation::Execute, attempt: 1, level, message };
        store.log(step.id, line).await.expect("written");
    }
    append(store, &mut task, ordered(Verb::Cancel)).await;
    task
}

#[tokio::test]
async fn old_tasks_go_with_all_that_belonged_to_them() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (a, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let (b, _) = store.register(&facts("b"), &[], Timestamp::now()).await.expect("registered");
    let gone = whole_task(&store, a.id).await;
    let open = take(&store, b.id).await.expect("taken");
    let later = Timestamp::now() + SignedDuration::from_hours(24 * 40);
    let retention = Retention { tasks: days(30), ..everything() };
    assert_eq!(forget(&store, &everything(), later).await.expect("removed").tasks, 0);
    let forgotten = forget(&store, &retention, later).await.expect("removed");
    // Its rows: 3 steps, 2 edges, 3 lines, 1 event, 1 order, and the note that it is gone.
    assert_eq!((forgotten.tasks, forgotten.rows), (1, 11));

    assert_eq!(tasks(&store).await, [open.id.get()], "what is open stays, however old");
    assert!(store.task(gone.id).await.expect("read").is_none());
    let left = ["subtasks", "subtask_edges", "subtask_logs", "task_events", "removed_tasks"];
    let mut counts = Vec::new();
    for table in left {
        counts.push(rows(&store, table).await);
    }
    assert_eq!(counts, [3, 2, 0, 0, 0], "those of the open task");
    assert_eq!(rows(&store, "operations").await, 1, "what became of it is still to be found out");
    let records = store.audit_records(None, 10).await.expect("read");
    let outcomes: Vec<_> = records.iter().map(|record| &record.outcome[..]).collect();
    assert_eq!(outcomes, ["", "FAILED"], "how it ended is still known");
    let next = take(&store, a.id).await.expect("taken");
    assert!(next.id > open.id && next.graph.steps.iter().all(|step| step.id > open.graph.steps[0].id));
}

/// Also of the last one, whose id would be the next.
#[tokio::test]
async fn ids_of_removed_tasks_are_never_used_again() {
    let scratch = scratch();
    let store = scratch.open().await;
    let last = insert(&store, 1, "Stop", TaskStatus::Failed, 0).await;
    forget(&store, &Retention { tasks: days(1), ..everything() }, now()).await.expect("removed");
    drop(store);
    let store = scratch.open().await;
    assert_eq!(tasks(&store).await, [] as [i64; 0]);
    assert_eq!(insert(&store, 1, "Stop", TaskStatus::Failed, 0).await, last + 1);
}

#[tokio::test]
async fn the_first_to_end_go_where_there_are_too_many() {
    let scratch = scratch();
    let store = scratch.open().await;
    let times = [5, 3, 4, 1, 2];
    for time in times {
        insert(&store, 1, "Stop", TaskStatus::Successful, time * DAY).await;
    }
    let open = insert(&store, 1, "Stop", TaskStatus::Running, 0).await;
    let retention = Retention { most_tasks: 2, ..everything() };
    let forgotten = forget(&store, &retention, now()).await.expect("removed");
    assert_eq!(forgotten.tasks, 3);
    assert_eq!(tasks(&store).await, [1, 3, open], "those that ended on days 5 and 4");
    assert_eq!(forget(&store, &retention, now()).await.expect("removed").tasks, 0);
}

/// Hazard D25: whoever writes waits for a small piece of work at most, however much one task has left behind; and what is
/// left over a crash is not forgotten.
#[tokio::test]
async fn a_large_task_goes_in_small_pieces() {
    let scratch = scratch();
    let store = scratch.open().await;
    let id = insert(&store, 1, "Batch stop", TaskStatus::Successful, 0).await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)";
    for insert in [
        format!(
            "{many} INSERT INTO subtasks (task_id, node, name, class_name, series_id, timeout) \
             SELECT {id}, 'stop_all', 'Stop', 'S', i, 60 FROM n"
        ),
        format!(
            "{many} INSERT INTO subtask_logs (subtask_id, number, attempt, time, level, message) \
             SELECT i, 1, 1, 0, 'INFO', 'x' FROM n"
        ),
    ] {
        store.write.execute_unprepared(&insert).await.expect("written");
    }
    assert_eq!(store.remove_tasks(now(), 1000).await.expect("removed"), 1);
    assert_eq!(store.remove_what_is_left_of_tasks().await.expect("removed"), 500);
    drop(store);
    let store = scratch.open().await;
    let mut pieces = Vec::new();
    loop {
        match store.remove_what_is_left_of_tasks().await.expect("removed") {
            0 => break,
            piece => pieces.push(piece),
        }
    }
    assert_eq!(pieces, [500, 401], "with the note that it is gone");
    assert_eq!((rows(&store, "subtasks").await, rows(&store, "subtask_logs").await), (0, 0));
}

#[tokio::test]
async fn old_orders_go_and_the_trail_remembers_how_they_ended() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let (done, lost) = (operation(host.id), operation(host.id));
    for order in [&done, &lost] {
        store.accept(order.clone(), None, audit("StopAgentProcess")).await.expect("accepted");
    }
    let long_ago = Timestamp::now() - SignedDuration::from_hours(24 * 40);
    store.settle(done.id, OperationOutcome::Done, long_ago).await.expect("settled");
    let retention = Retention { tasks: days(30), ..everything() };
    let forgotten = forget(&store, &retention, Timestamp::now()).await.expect("removed");
    assert_eq!((forgotten.operations, rows(&store, "operations").await), (1, 1));
    let records = store.audit_records(None, 10).await.expect("read");
    let outcomes: Vec<_> = records.iter().map(|record| &record.outcome[..]).collect();
    assert_eq!(outcomes, ["", "DONE"]);
}

#[tokio::test]
async fn the_trail_is_cut_by_age_and_by_number() {
    let scratch = scratch();
    let store = scratch.open().await;
    for day in 1..=9_i64 {
        let time = Timestamp::from_microsecond(day * DAY).expect("a time");
        store.audit(AuditEntry { time, ..audit("StopHostAgent") }).await.expect("written");
    }
    let ids = async || -> Vec<i64> {
        let records = store.audit_records(None, 100).await.expect("read");
        records.iter().map(|record| record.id).collect()
    };
    let retention = Retention { audit: days(97), ..everything() };
    let forgotten = forget(&store, &retention, now()).await.expect("removed");
    assert_eq!((forgotten.audit_records, ids().await), (2, vec![9, 8, 7, 6, 5, 4, 3]));
    let retention = Retention { most_audit_records: 4, ..everything() };
    let forgotten = forget(&store, &retention, now()).await.expect("removed");
    assert_eq!((forgotten.audit_records, ids().await), (3, vec![9, 8, 7, 6]));
}
