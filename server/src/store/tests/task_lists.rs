//! Lists of tasks, beside what a list of all rows in memory would be.

use belay_proto::TaskId;
use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestRunner},
};

use super::*;
use crate::task::TaskStatus;

const NAMES: [&str; 3] = ["Stop OCP agent", "Start OCP agent", "Batch stop OCP agent"];
const STATUSES: [TaskStatus; 3] = [TaskStatus::Running, TaskStatus::Failed, TaskStatus::Successful];

/// A task as a row in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    id: i64,
    host: i64,
    name: usize,
    status: usize,
    create_time: i64,
}

/// Writes the row of a task, without steps.
pub(super) async fn insert(
    store: &Store,
    host: i64,
    name: &str,
    status: TaskStatus,
    create_time: i64,
) -> i64 {
    let finish_time = if status == TaskStatus::Running { "NULL".to_owned() } else { create_time.to_string() };
    let sql = format!(
        "INSERT INTO tasks (name, host_id, status, creator_id, creator, executor, trace, reason, create_time, finish_time) \
         VALUES ('{name}', {host}, '{}', 1, 'admin', '127.0.0.1', '{}', '', {create_time}, {finish_time})",
        status.as_str(),
        trace().traceparent(),
    );
    store.write.execute_unprepared(&sql).await.expect("written");
    number(store, "SELECT MAX(id) FROM tasks").await
}

/// What a query with one number answers.
pub(super) async fn number(store: &Store, sql: &str) -> i64 {
    let statement = Statement::from_string(store.write.get_database_backend(), sql);
    let row = store.write.query_one_raw(statement).await.expect("asked").expect("a row");
    row.try_get_by_index(0).expect("a number")
}

fn stretch(filter: TaskFilter, sort: TaskSort, start: PageStart, size: u64) -> TaskStretch {
    TaskStretch { filter, sort, start, size }
}

fn newest_first() -> TaskSort {
    TaskSort { by: SortBy::Id, descending: true }
}

fn ids(page: &TaskPage) -> Vec<i64> {
    let id = |task: &Listed| match task {
        Listed::Whole(task) => task.id.get(),
        Listed::Row(row) => row.id.get(),
    };
    page.tasks.iter().map(id).collect()
}

/// What a list is, read from all rows.
fn model(rows: &[Row], filter: &TaskFilter, sort: TaskSort, reached: &Reached) -> Vec<i64> {
    let is_in_reach = |host: i64| match reached {
        Reached::Every => true,
        Reached::These(hosts) => hosts.iter().any(|reached| reached.get() == host),
    };
    let matches = |row: &&Row| {
        is_in_reach(row.host)
            && filter.host.is_none_or(|host| host.get() == row.host)
            && (filter.statuses.is_empty() || filter.statuses.contains(&STATUSES[row.status]))
            && NAMES[row.name].to_lowercase().contains(&filter.name.to_lowercase())
    };
    let mut rows: Vec<&Row> = rows.iter().filter(matches).collect();
    rows.sort_by_key(|row| match sort.by {
        SortBy::Id => (0, row.id),
        SortBy::CreateTime => (row.create_time, row.id),
    });
    if sort.descending {
        rows.reverse();
    }
    rows.into_iter().map(|row| row.id).collect()
}

/// Reads a list page by page, by number and by token.
async fn check(
    store: &Store,
    rows: &[Row],
    filter: TaskFilter,
    sort: TaskSort,
    size: u64,
    reached: &Reached,
) {
    let expected = model(rows, &filter, sort, reached);
    let what = format!("{filter:?} {sort:?} {size} {reached:?}");
    let (mut by_number, mut by_token, mut next) = (Vec::new(), Vec::new(), None);
    for number in 0..=expected.len() as u64 / size {
        let offset = PageStart::Offset(number * size);
        let page = store.tasks(&stretch(filter.clone(), sort, offset, size), reached).await.expect("read");
        assert_eq!(page.total, expected.len() as u64, "{what}");
        by_number.extend(ids(&page));
        assert_eq!(page.next.is_some(), by_number.len() < expected.len(), "{what}");
    }
    assert_eq!(by_number, expected, "by number: {what}");
    loop {
        let start = next.map_or(PageStart::Offset(0), PageStart::After);
        let page = store.tasks(&stretch(filter.clone(), sort, start, size), reached).await.expect("read");
        by_token.extend(ids(&page));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(by_token, expected, "by token: {what}");
}

/// One change of the tasks: insert, change the state of one, or remove one.
#[derive(Debug, Clone)]
enum Step {
    Insert(Row),
    Turn(prop::sample::Index, usize),
    Remove(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let row = (1..4_i64, 0..NAMES.len(), 0..STATUSES.len(), 0..6_i64)
        .prop_map(|(host, name, status, create_time)| Row { id: 0, host, name, status, create_time });
    prop_oneof![
        6 => row.prop_map(Step::Insert),
        2 => (any::<prop::sample::Index>(), 0..STATUSES.len()).prop_map(|(at, status)| Step::Turn(at, status)),
        1 => any::<prop::sample::Index>().prop_map(Step::Remove),
    ]
}

type Asked = (Option<i64>, Vec<usize>, &'static str, bool, bool, u64);

fn asked() -> impl Strategy<Value = Asked> {
    let name = prop::sample::select(vec!["", "stop", "OCP", "Batch", "no such", "%", "o_p"]);
    let statuses = prop::collection::vec(0..STATUSES.len(), 0..3);
    (prop::option::of(1..5_i64), statuses, name, any::<bool>(), any::<bool>(), 1..7_u64)
}

/// Whatever the tasks are, what is counted and listed of them is what is there.
#[test]
fn every_list_is_that_of_the_rows() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(Cases { cases: 24, failure_persistence: None, ..Cases::default() });
    let steps = prop::collection::vec(step(), 1..40);
    let lists = prop::collection::vec(asked(), 6);
    let run = |(steps, lists): (Vec<Step>, Vec<Asked>)| {
        runtime.block_on(async {
            let scratch = scratch();
            let store = scratch.open().await;
            let rows = apply(&store, steps).await;
            for (host, statuses, name, by_time, descending, size) in lists {
                let filter = TaskFilter {
                    host: host.map(|host| host.try_into().expect("an id")),
                    statuses: statuses.into_iter().map(|status| STATUSES[status]).collect(),
                    name: name.into(),
                };
                let by = if by_time { SortBy::CreateTime } else { SortBy::Id };
                let sort = TaskSort { by, descending };
                let these = |hosts: &[i64]| {
                    Reached::These(hosts.iter().map(|id| (*id).try_into().expect("an id")).collect())
                };
                for reached in [Reached::Every, these(&[1, 3]), these(&[])] {
                    check(&store, &rows, filter.clone(), sort, size, &reached).await;
                }
            }
        });
        Ok(())
    };
    runner.run(&(steps, lists), run).unwrap_or_else(|failure| panic!("{failure}"));
}

async fn apply(store: &Store, steps: Vec<Step>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for step in steps {
        match step {
            Step::Insert(row) => {
                let Row { host, name, status, create_time, .. } = row;
                let id = insert(store, host, NAMES[name], STATUSES[status], create_time).await;
                rows.push(Row { id, ..row });
            }
            Step::Turn(at, status) if !rows.is_empty() => {
                let row = at.get(&rows).id;
                rows.iter_mut().filter(|other| other.id == row).for_each(|row| row.status = status);
                let status = STATUSES[status].as_str();
                let sql = format!("UPDATE tasks SET status = '{status}' WHERE id = {row}");
                store.write.execute_unprepared(&sql).await.expect("written");
            }
            Step::Remove(at) if !rows.is_empty() => {
                let row = rows.remove(at.index(rows.len())).id;
                let sql = format!("DELETE FROM tasks WHERE id = {row}");
                store.write.execute_unprepared(&sql).await.expect("written");
            }
            Step::Turn(..) | Step::Remove(_) => {}
        }
    }
    rows
}

/// The counts are those of the tasks also where the tasks come from the store itself.
#[tokio::test]
async fn what_a_task_becomes_is_counted() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (host, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let mut task = take(&store, host.id).await.expect("taken");
    let total = async |status| {
        let filter = TaskFilter { host: Some(host.id), statuses: vec![status], name: String::new() };
        let asked = stretch(filter, newest_first(), PageStart::Offset(0), 10);
        store.tasks(&asked, &Reached::Every).await.expect("read").total
    };
    assert_eq!((total(TaskStatus::Running).await, total(TaskStatus::Failed).await), (1, 0));
    append(&store, &mut task, ordered(Verb::Cancel)).await;
    assert_eq!((total(TaskStatus::Running).await, total(TaskStatus::Failed).await), (0, 1));
    append(&store, &mut task, ordered(Verb::Retry)).await;
    assert_eq!((total(TaskStatus::Running).await, total(TaskStatus::Failed).await), (1, 0));
}

/// Hazard D26: a page is read from stretches of indexes, with no sorting and no look at what is not shown.
#[tokio::test]
async fn no_list_is_sorted_or_scanned() {
    let scratch = scratch();
    let store = scratch.open().await;
    for name in NAMES {
        for status in STATUSES {
            insert(&store, 1, name, status, 0).await;
        }
    }
    let counts = |host: i64| {
        let count = move |(name, status): (&str, TaskStatus)| task_list::count(host, name, status.as_str());
        let pairs = NAMES.into_iter().flat_map(|name| STATUSES.map(|status| (name, status)));
        pairs.map(count).collect::<Vec<_>>()
    };
    let position = Position { id: 5.try_into().expect("an id"), create_time: Timestamp::UNIX_EPOCH };
    for host in [None, Some(HostId::try_from(1).expect("an id"))] {
        for by in [SortBy::Id, SortBy::CreateTime] {
            for descending in [true, false] {
                for after in [None, Some(position)] {
                    let filter = TaskFilter { host, ..TaskFilter::default() };
                    let counts = counts(host.map_or(0, HostId::get));
                    let sort = TaskSort { by, descending };
                    let query = task_list::merged(&filter, &counts, sort, after, 0, 20).expect("a query");
                    let plan = plan(&store, &query).await;
                    let what = format!("{host:?} {by:?} {descending} {after:?}\n{plan}");
                    assert!(!plan.contains("TEMP B-TREE"), "{what}");
                    assert!(!plan.contains("SCAN"), "{what}");
                    assert_eq!(plan.matches("USING COVERING INDEX").count(), 9, "{what}");
                }
            }
        }
    }
}

async fn plan(store: &Store, query: &sea_orm::sea_query::SelectStatement) -> String {
    let sql = query.to_string(sea_orm::sea_query::SqliteQueryBuilder);
    let statement =
        Statement::from_string(store.read.get_database_backend(), format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = store.read.query_all_raw(statement).await.expect("explained");
    rows.iter().map(|row| row.try_get::<String>("", "detail").expect("text") + "\n").collect()
}

/// Reading on by token neither repeats nor leaves out a task, whatever comes and goes meanwhile.
#[tokio::test]
async fn a_token_goes_on_where_the_page_ended() {
    let scratch = scratch();
    let store = scratch.open().await;
    for time in 0..6 {
        insert(&store, 1, NAMES[0], TaskStatus::Successful, time).await;
    }
    let asked = |start| stretch(TaskFilter::default(), newest_first(), start, 2);
    let first = store.tasks(&asked(PageStart::Offset(0)), &Reached::Every).await.expect("read");
    assert_eq!(ids(&first), [6, 5]);
    insert(&store, 1, NAMES[0], TaskStatus::Successful, 9).await;
    store.write.execute_unprepared("DELETE FROM tasks WHERE id IN (5, 3)").await.expect("written");
    let start = PageStart::After(first.next.expect("more"));
    let second = store.tasks(&asked(start), &Reached::Every).await.expect("read");
    assert_eq!((ids(&second), second.total), (vec![4, 2], 5));
    let by_number = store.tasks(&asked(PageStart::Offset(2)), &Reached::Every).await.expect("read");
    assert_eq!(ids(&by_number), [4, 2], "7 and 6 come before it now");
}

/// Hazard L14: one task of a list can not make all of it large.
#[tokio::test]
async fn a_task_with_very_many_steps_is_listed_without_them() {
    let scratch = scratch();
    let store = scratch.open().await;
    let [few, many, talkative] = [0, 1, 2];
    for time in [few, many, talkative] {
        insert(&store, 1, NAMES[0], TaskStatus::Failed, time).await;
    }
    let steps = async |task: i64, count: i64| {
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1) \
             INSERT INTO subtasks (task_id, node, name, class_name, series_id, timeout) \
             SELECT {task}, 'stop_all', 'Stop', 'S', i, 60 FROM n"
        );
        store.write.execute_unprepared(&sql).await.expect("written");
    };
    steps(1, 50).await;
    steps(2, 51).await;
    steps(3, 1).await;
    let event = serde_json::to_string(&ordered(Verb::Cancel)).expect("JSON");
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
         INSERT INTO task_events (task_id, time, event) SELECT 3, 0, '{event}' FROM n"
    );
    store.write.execute_unprepared(&sql).await.expect("written");
    let asked = stretch(TaskFilter::default(), newest_first(), PageStart::Offset(0), 10);
    let page = store.tasks(&asked, &Reached::Every).await.expect("read");
    let told = |task: &Listed| match task {
        Listed::Whole(task) => (task.id.get(), Some(task.graph.steps.len()), None),
        Listed::Row(row) => (row.id.get(), None, Some(row.status)),
    };
    let told: Vec<_> = page.tasks.iter().map(told).collect();
    let row = Some(TaskStatus::Failed);
    assert_eq!(told, [(3, None, row), (2, None, row), (1, Some(50), None)]);
}

/// A task of a list is the task as it is read alone.
#[tokio::test]
async fn a_listed_task_is_told_as_it_is() {
    let scratch = scratch();
    let store = scratch.open().await;
    let (a, _) = store.register(&facts("a"), &[], Timestamp::now()).await.expect("registered");
    let (b, _) = store.register(&facts("b"), &[], Timestamp::now()).await.expect("registered");
    let mut tasks: Vec<Task> = Vec::new();
    for host in [a.id, b.id] {
        tasks.push(take(&store, host).await.expect("taken"));
    }
    let begin = |subtask| Event::Started { subtask, attempt: 1, operation: Uuid::now_v7(), undo: false };
    let first = tasks[0].graph.steps[0].id.get();
    append(&store, &mut tasks[0], begin(first)).await;
    append(&store, &mut tasks[1], ordered(Verb::Cancel)).await;
    let asked = stretch(TaskFilter::default(), newest_first(), PageStart::Offset(0), 10);
    let page = store.tasks(&asked, &Reached::Every).await.expect("read");
    for (listed, id) in page.tasks.iter().zip([tasks[1].id, tasks[0].id]) {
        let alone = store.task(id).await.expect("read").expect("there");
        let Listed::Whole(listed) = listed else { panic!("{listed:?}") };
        assert_eq!(format!("{listed:?}"), format!("{alone:?}"));
    }
    let standing = |id: TaskId| {
        page.tasks.iter().find_map(|task| match task {
            Listed::Whole(task) if task.id == id => Some(task.standing()),
            _ => None,
        })
    };
    assert_eq!(standing(tasks[1].id), Some(TaskState::Cancelled));
}
