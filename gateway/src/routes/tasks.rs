//! Tasks.

use belay_proto::v1::{GetSubtaskLogRequest, GetTaskRequest, ListTasksRequest};

use crate::{
    envelope::{Answer, Done},
    extract::{Path, Query, SubtaskPath, TaskPath},
    json::{BasicTaskInstance, Paged, SubtaskLog, WrappedTaskInstance},
    upstream::{Call, told},
};

/// The documented filters that Belay does not have, in both spellings where there are two.
const MISSING_FILTERS: [&str; 8] =
    ["name", "type", "cluterName", "clusterName", "clusterId", "tenantName", "tenantId", "sort"];

/// `GET /tasks/instances`
pub(super) async fn list(call: Call, query: Query) -> Answer {
    query.refuse(&MISSING_FILTERS)?;
    let request = call.request(ListTasksRequest {
        page: query.page()?,
        size: query.size()?,
        host_id: query.id("hostId")?,
        statuses: query.task_statuses()?,
    });
    let reply = call.tasks().list_tasks(request).await?.into_inner();
    let task = |task| BasicTaskInstance::new(task, call.zone());
    Done::with(&Paged {
        contents: reply.tasks.into_iter().map(task).collect(),
        page: told(reply.page)?.into(),
    })
}

/// `GET /tasks/instances/{taskInstanceId}`
pub(super) async fn get(call: Call, Path(path): Path<TaskPath>) -> Answer {
    let request = call.request(GetTaskRequest { task_id: path.task.get() });
    let reply = call.tasks().get_task(request).await?.into_inner();
    Done::with(&WrappedTaskInstance::new(told(reply.task)?, call.zone()))
}

/// `GET /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/log`
pub(super) async fn log(call: Call, Path(path): Path<SubtaskPath>) -> Answer {
    let request =
        call.request(GetSubtaskLogRequest { task_id: path.task.get(), subtask_id: path.subtask.get() });
    let reply = call.tasks().get_subtask_log(request).await?.into_inner();
    Done::with(&SubtaskLog::new(reply.lines, call.zone()))
}
