//! Lists of tasks: which part of which list is asked for, and the way from one page to the next.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use belay_proto::{all, v1};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    batch::batch_definition_to_wire,
    inward::{Page, host_id, page},
    outward::{page_to_wire, status_to_wire, task_to_wire, time},
};
use crate::{
    error::Error,
    store::{Listed, PageStart, Position, SortBy, TaskFilter, TaskPage, TaskRow, TaskSort, TaskStretch},
    task::TaskStatus,
};

/// What a filter may have, in characters.
const LONGEST_FILTER: usize = 200;
/// A longer token is none of ours.
const LONGEST_TOKEN: usize = 4 * 1024;

/// A list that is asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct TaskQuery {
    /// `None` where a filter lets nothing through that is here, such as a cluster.
    pub(crate) stretch: Option<TaskStretch>,
    page: Page,
}

/// What a token says: where the page before ended, and in which list.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    host: i64,
    status: Vec<String>,
    name: String,
    by_time: bool,
    descending: bool,
    /// Of the next page.
    number: i32,
    after: i64,
    /// In microseconds.
    at: i64,
}

impl TryFrom<v1::ListTasksRequest> for TaskQuery {
    type Error = Error;

    fn try_from(wire: v1::ListTasksRequest) -> Result<Self, Error> {
        let v1::ListTasksRequest {
            page: number,
            size,
            host_id: host,
            statuses,
            name,
            r#type,
            cluster_name,
            cluster_id,
            tenant_name,
            tenant_id,
            sort,
            page_token,
        } = wire;
        let host = if host == 0 { Ok(None) } else { host_id(host).map(Some) };
        let statuses = statuses.into_iter().map(status).collect::<Result<_, _>>();
        let ours = all((host, statuses, short("name", name), task_sort(&sort)));
        let elsewhere = all((
            of_other_kind(r#type),
            elsewhere("cluster_name", cluster_name),
            another("cluster_id", cluster_id),
            of_tenant(tenant_name, cluster_id),
            another("tenant_id", tenant_id),
        ));
        let ((host, statuses, name, sort), elsewhere, first) = all((ours, elsewhere, page(number, size)))?;
        let filter = TaskFilter { host, statuses, name };
        let (page, start) = if page_token.is_empty() {
            (first, PageStart::Offset(first.offset()))
        } else {
            if number != 0 {
                return Err(Error::invalid("page", "a page has a number or a token, not both"));
            }
            let token = Token::read(&page_token)?;
            let Token { number, after, at, .. } = token;
            if token != (Token { number, after, at, ..Token::of(&filter, sort) }) {
                return Err(Error::invalid(
                    "page_token",
                    "it is of a list with other filters, or sorted otherwise",
                ));
            }
            (page(token.number, size)?, PageStart::After(token.position()?))
        };
        let (of_other_kind, of_cluster_name, of_cluster, of_tenant_name, of_tenant) = elsewhere;
        let is_elsewhere = of_other_kind || of_cluster_name || of_cluster || of_tenant_name || of_tenant;
        let size = u64::from(page.size.unsigned_abs());
        let stretch = (!is_elsewhere).then_some(TaskStretch { filter, sort, start, size });
        Ok(Self { stretch, page })
    }
}

/// One page, with the token of the next one.
pub(crate) fn task_page_to_wire(query: &TaskQuery, page: TaskPage) -> Result<v1::ListTasksResponse, Error> {
    let TaskPage { tasks, total, next } = page;
    let next_page_token = match (&query.stretch, next) {
        (Some(TaskStretch { filter, sort, .. }), Some(position)) => {
            let number = query.page.number.saturating_add(1);
            let (after, at) = (position.id.get(), position.create_time.as_microsecond());
            Token { number, after, at, ..Token::of(filter, *sort) }.write()?
        }
        _ => String::new(),
    };
    let row_id = |task: &Listed| match task {
        Listed::Whole(_) => None,
        Listed::Row(row) => Some(row.id.get()),
    };
    Ok(v1::ListTasksResponse {
        without_subtasks: tasks.iter().filter_map(row_id).collect(),
        tasks: tasks
            .into_iter()
            .map(|task| match task {
                Listed::Whole(task) => task_to_wire(&task, Vec::new()),
                Listed::Row(row) => row_to_wire(*row),
            })
            .collect(),
        page: Some(page_to_wire(query.page, total)),
        next_page_token,
    })
}

fn row_to_wire(row: TaskRow) -> v1::Task {
    let TaskRow {
        id,
        name,
        host,
        status,
        creator_id,
        creator,
        executor,
        trace,
        reason,
        create_time,
        finish_time,
        prohibit_rollback,
        batch,
    } = row;
    v1::Task {
        id: id.get(),
        name,
        host_id: host.map_or(0, belay_proto::HostId::get),
        status: status_to_wire(status).into(),
        creator,
        creator_id: creator_id.get(),
        executor,
        create_time: Some(time(create_time)),
        start_time: Some(time(create_time)), // its first step is ready at birth
        finish_time: finish_time.map(time),
        prohibit_rollback,
        trace_id: trace.to_string(),
        reason,
        batch: batch.map(|batch| batch_definition_to_wire(&batch)),
        ..v1::Task::default()
    }
}

impl Token {
    /// The list, without a place in it.
    fn of(filter: &TaskFilter, sort: TaskSort) -> Self {
        Self {
            host: filter.host.map_or(0, belay_proto::HostId::get),
            status: filter.statuses.iter().map(|status| status.as_str().to_owned()).collect(),
            name: filter.name.clone(),
            by_time: sort.by == SortBy::CreateTime,
            descending: sort.descending,
            number: 0,
            after: 0,
            at: 0,
        }
    }

    fn write(&self) -> Result<String, Error> {
        let text = serde_json::to_vec(self)
            .map_err(|error| Error::Internal(format!("a token cannot be written: {error}")))?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(text))
    }

    /// A token that was tampered with leads to another place of a list that its bearer may read anyway.
    fn read(text: &str) -> Result<Self, Error> {
        let bytes = (text.len() <= LONGEST_TOKEN).then(|| BASE64_URL_SAFE_NO_PAD.decode(text).ok()).flatten();
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| Error::invalid("page_token", "it is not one that came with a page"))
    }

    fn position(&self) -> Result<Position, Error> {
        let told = |what: String| Error::invalid("page_token", what);
        Ok(Position {
            id: self.after.try_into().map_err(|invalid: belay_proto::InvalidId| told(invalid.to_string()))?,
            create_time: Timestamp::from_microsecond(self.at).map_err(|error| told(error.to_string()))?,
        })
    }
}

fn status(status: i32) -> Result<TaskStatus, Error> {
    match v1::TaskStatus::try_from(status) {
        Ok(v1::TaskStatus::Running) => Ok(TaskStatus::Running),
        Ok(v1::TaskStatus::Failed) => Ok(TaskStatus::Failed),
        Ok(v1::TaskStatus::Successful) => Ok(TaskStatus::Successful),
        Ok(v1::TaskStatus::Unspecified) | Err(_) => {
            Err(Error::invalid("statuses", format!("{status} is not a state of a task")))
        }
    }
}

/// `FIELD`, `FIELD,asc` or `FIELD,desc`.
fn task_sort(text: &str) -> Result<TaskSort, Error> {
    if text.is_empty() {
        return Ok(TaskSort { by: SortBy::Id, descending: true });
    }
    let (field, direction) = text.split_once(',').unwrap_or((text, "asc"));
    let descending = match direction {
        _ if direction.eq_ignore_ascii_case("asc") => false,
        _ if direction.eq_ignore_ascii_case("desc") => true,
        _ => {
            return Err(Error::invalid(
                "sort",
                "it must be FIELD, or FIELD and `asc` or `desc` after a comma",
            ));
        }
    };
    let by = match field {
        "id" => SortBy::Id,
        // A task starts when it is made: its first step is ready at birth.
        "createTime" | "startTime" => SortBy::CreateTime,
        _ => return Err(Error::Unsortable(field.chars().take(LONGEST_FILTER).collect())),
    };
    Ok(TaskSort { by, descending })
}

/// Whether only tasks of a type are wanted that none has.
fn of_other_kind(kind: i32) -> Result<bool, Error> {
    match v1::TaskType::try_from(kind) {
        Ok(v1::TaskType::Unspecified | v1::TaskType::Manual) => Ok(false),
        Ok(v1::TaskType::SysOnce | v1::TaskType::Scheduled | v1::TaskType::SysScheduled) => Ok(true),
        Err(_) => Err(Error::invalid("type", format!("{kind} is not a type of a task"))),
    }
}

/// Whether only tasks of something with a name are wanted, of which none is.
fn elsewhere(field: &'static str, name: String) -> Result<bool, Error> {
    Ok(!short(field, name)?.is_empty())
}

/// Whether only tasks of something with an id are wanted, of which none is.
fn another(field: &'static str, id: i64) -> Result<bool, Error> {
    if id < 0 { Err(Error::invalid(field, format!("{id} is below 1"))) } else { Ok(id > 0) }
}

fn of_tenant(name: String, cluster: i64) -> Result<bool, Error> {
    let wanted = elsewhere("tenant_name", name)?;
    if wanted && cluster == 0 {
        return Err(Error::invalid("tenant_name", "it is known only together with `cluster_id`"));
    }
    Ok(wanted)
}

fn short(field: &'static str, text: String) -> Result<String, Error> {
    if text.chars().count() > LONGEST_FILTER {
        return Err(Error::invalid(field, format!("it is longer than {LONGEST_FILTER} characters")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> v1::ListTasksRequest {
        v1::ListTasksRequest { host_id: 20, statuses: vec![2], name: "stop".into(), ..Default::default() }
    }

    fn read(wire: v1::ListTasksRequest) -> Result<TaskQuery, String> {
        TaskQuery::try_from(wire).map_err(|error| error.to_string())
    }

    /// The token of the page after `wire`, which ended with task 7.
    fn token(wire: v1::ListTasksRequest) -> String {
        let query = read(wire).expect("a query");
        let next = Position {
            id: 7.try_into().expect("an id"),
            create_time: Timestamp::from_microsecond(5).expect("a time"),
        };
        let page = TaskPage { tasks: Vec::new(), total: 9, next: Some(next) };
        task_page_to_wire(&query, page).expect("a page").next_page_token
    }

    #[test]
    fn a_token_leads_to_the_next_page_of_the_same_list() {
        let page_token = token(asked());
        let next = read(v1::ListTasksRequest { page_token: page_token.clone(), ..asked() }).expect("a query");
        assert_eq!(next.page.number, 2);
        let Some(TaskStretch { start: PageStart::After(position), .. }) = next.stretch else {
            panic!("{next:?}")
        };
        assert_eq!((position.id.get(), position.create_time.as_microsecond()), (7, 5));
        let third = token(v1::ListTasksRequest { page_token, ..asked() });
        let third = read(v1::ListTasksRequest { page_token: third, ..asked() }).expect("a query");
        assert_eq!(third.page.number, 3);
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        let page_token = token(asked());
        let check = |wire: v1::ListTasksRequest, expected: &str| {
            let refused = read(v1::ListTasksRequest { page_token: page_token.clone(), ..wire });
            let refused = refused.expect_err("refused");
            assert!(refused.contains(expected), "{refused}");
        };
        check(v1::ListTasksRequest { host_id: 21, ..asked() }, "other filters");
        check(v1::ListTasksRequest { statuses: vec![], ..asked() }, "other filters");
        check(v1::ListTasksRequest { name: "start".into(), ..asked() }, "other filters");
        check(v1::ListTasksRequest { sort: "id,asc".into(), ..asked() }, "sorted otherwise");
        check(v1::ListTasksRequest { page: 2, ..asked() }, "not both");
        for no_token in ["x", "e30", "!", &"A".repeat(5_000)] {
            let wire = v1::ListTasksRequest { page_token: no_token.into(), ..asked() };
            assert!(read(wire).expect_err("refused").contains("not one that came"), "{no_token}");
        }
        let zero =
            Token::of(&TaskFilter::default(), task_sort("").expect("a sort")).write().expect("a token");
        let wire = v1::ListTasksRequest { page_token: zero, ..Default::default() };
        assert!(read(wire).expect_err("refused").contains("page_token"));
    }

    #[track_caller]
    fn check_sort(text: &str, expected: Result<TaskSort, &str>) {
        let told = task_sort(text).map_err(|error| error.to_string());
        match expected {
            Ok(sort) => assert_eq!(told, Ok(sort), "{text}"),
            Err(part) => assert!(told.as_ref().is_err_and(|told| told.contains(part)), "{text}: {told:?}"),
        }
    }

    #[test]
    fn what_can_not_be_sorted_by_is_refused() {
        let sort = |by, descending| Ok(TaskSort { by, descending });
        check_sort("", sort(SortBy::Id, true));
        check_sort("id", sort(SortBy::Id, false));
        check_sort("id,desc", sort(SortBy::Id, true));
        check_sort("createTime,ASC", sort(SortBy::CreateTime, false));
        check_sort("startTime,desc", sort(SortBy::CreateTime, true));
        check_sort("finishTime,desc", Err("cannot be sorted by `finishTime`"));
        check_sort("create_time,desc", Err("cannot be sorted by"));
        check_sort(",desc", Err("cannot be sorted by ``"));
        check_sort("id,down", Err("`asc` or `desc`"));
        check_sort("id,desc,name,asc", Err("`asc` or `desc`"));
    }

    /// What can not be here is no error, and what can not be at all is one.
    #[test]
    fn filters_of_what_is_not_here_match_nothing() {
        let nothing = |wire| read(wire).expect("a query").stretch.is_none();
        let cluster_id = 1;
        assert!(nothing(v1::ListTasksRequest { r#type: v1::TaskType::Scheduled.into(), ..asked() }));
        assert!(!nothing(v1::ListTasksRequest { r#type: v1::TaskType::Manual.into(), ..asked() }));
        assert!(nothing(v1::ListTasksRequest { cluster_name: "ob".into(), ..asked() }));
        assert!(nothing(v1::ListTasksRequest { cluster_id, ..asked() }));
        assert!(nothing(v1::ListTasksRequest { cluster_id, tenant_name: "sys".into(), ..asked() }));
        assert!(nothing(v1::ListTasksRequest { tenant_id: 1, ..asked() }));
        assert!(!nothing(asked()));
        for wrong in [
            v1::ListTasksRequest { r#type: 9, ..asked() },
            v1::ListTasksRequest { cluster_id: -1, ..asked() },
            v1::ListTasksRequest { tenant_id: -1, ..asked() },
            v1::ListTasksRequest { tenant_name: "sys".into(), ..asked() },
            v1::ListTasksRequest { name: "x".repeat(201), ..asked() },
            v1::ListTasksRequest { statuses: vec![0], ..asked() },
            v1::ListTasksRequest { size: 2001, ..asked() },
        ] {
            read(wrong.clone()).expect_err(&format!("{wrong:?}"));
        }
    }
}
