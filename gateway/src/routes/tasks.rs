//! Tasks.

use belay_proto::{
    all,
    v1::{
        ApproveWaveRequest, CancelSubtaskRequest, CancelTaskRequest, GetSubtaskLogRequest, GetTaskRequest,
        ListTasksRequest, PauseTaskRequest, ResumeTaskRequest, RetrySubtaskRequest, RetryTaskRequest,
        RollbackTaskRequest, SkipSubtaskRequest,
    },
};

use crate::{
    envelope::{Answer, Done},
    extract::{ApproveBody, Json, OrderBody, Path, Query, SubtaskPath, TaskPath},
    json::{BasicTaskInstance, Paged, SubtaskLog, WrappedSubtask, WrappedTaskInstance},
    upstream::{Call, told},
};

/// `GET /tasks/instances`
pub(super) async fn list(call: Call, query: Query) -> Answer {
    let place = all((query.page(), query.size(), query.text(&["sort"]), query.text(&["pageToken"])));
    let ids = all((query.id("hostId"), query.id("clusterId"), query.id("tenantId")));
    let kinds = all((query.task_statuses(), query.task_type()));
    let names = all((query.text(&["name"]), query.text(&["cluterName", "clusterName"]), query.tenant_name()));
    let (place, ids, kinds, names) = all((place, ids, kinds, names))?;
    let (page, size, sort, page_token) = place;
    let (host_id, cluster_id, tenant_id) = ids;
    let (statuses, r#type) = kinds;
    let (name, cluster_name, tenant_name) = names;
    let request = call.request(ListTasksRequest {
        page,
        size,
        host_id,
        statuses,
        name,
        r#type,
        cluster_name,
        cluster_id,
        tenant_name,
        tenant_id,
        sort,
        page_token,
    });
    let reply = call.tasks().list_tasks(request).await?.into_inner();
    let task = |task| BasicTaskInstance::new(task, call.zone());
    let listed = Done::with(&Paged {
        contents: reply.tasks.into_iter().map(task).collect(),
        page: told(reply.page)?.into(),
    })?;
    Ok(listed.next(query.next_page(&reply.next_page_token).as_deref()))
}

/// `GET /tasks/instances/{taskInstanceId}`
pub(super) async fn get(call: Call, Path(path): Path<TaskPath>) -> Answer {
    let request = call.request(GetTaskRequest { task_id: path.task.get() });
    let reply = call.tasks().get_task(request).await?.into_inner();
    Done::with(&WrappedTaskInstance::new(told(reply.task)?, call.zone()))
}

/// `GET /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/log`
pub(super) async fn log(call: Call, Path(path): Path<SubtaskPath>) -> Answer {
    let request = call.request(GetSubtaskLogRequest {
        task_id: path.task.get(),
        subtask_id: path.subtask.get(),
        ..Default::default()
    });
    let reply = call.tasks().get_subtask_log(request).await?.into_inner();
    Done::with(&SubtaskLog::new(reply.lines, call.zone()))
}

/// `POST /tasks/instances/{taskInstanceId}/retry`
pub(super) async fn retry(call: Call, Path(path): Path<TaskPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(RetryTaskRequest { task_id: path.task.get(), reason: body.reason() });
    let reply = call.tasks().retry_task(request).await?.into_inner();
    Done::with(&WrappedTaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /tasks/instances/{taskInstanceId}/rollback`
pub(super) async fn rollback(call: Call, Path(path): Path<TaskPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(RollbackTaskRequest { task_id: path.task.get(), reason: body.reason() });
    let reply = call.tasks().rollback_task(request).await?.into_inner();
    Done::with(&WrappedTaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /tasks/instances/{taskInstanceId}/cancel`
pub(super) async fn cancel(call: Call, Path(path): Path<TaskPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(CancelTaskRequest { task_id: path.task.get(), reason: body.reason() });
    let reply = call.tasks().cancel_task(request).await?.into_inner();
    Done::with(&WrappedTaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /tasks/instances/{taskInstanceId}/pause`
pub(super) async fn pause(call: Call, Path(path): Path<TaskPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(PauseTaskRequest { task_id: path.task.get(), reason: body.reason() });
    let reply = call.tasks().pause_task(request).await?.into_inner();
    Done::with(&WrappedTaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /tasks/instances/{taskInstanceId}/resume`
pub(super) async fn resume(call: Call, Path(path): Path<TaskPath>, Json(body): Json<OrderBody>) -> Answer {
    let request = call.request(ResumeTaskRequest { task_id: path.task.get(), reason: body.reason() });
    let reply = call.tasks().resume_task(request).await?.into_inner();
    Done::with(&WrappedTaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /tasks/instances/{taskInstanceId}/approve`
pub(super) async fn approve(call: Call, Path(path): Path<TaskPath>, Json(body): Json<ApproveBody>) -> Answer {
    let (wave, reason) = (body.wave()?, body.reason());
    let request = call.request(ApproveWaveRequest { task_id: path.task.get(), reason, wave });
    let reply = call.tasks().approve_wave(request).await?.into_inner();
    Done::with(&WrappedTaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/retry`
pub(super) async fn retry_subtask(
    call: Call,
    Path(path): Path<SubtaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let (task_id, subtask_id) = (path.task.get(), path.subtask.get());
    let request = call.request(RetrySubtaskRequest { task_id, subtask_id, reason: body.reason() });
    let subtasks = told(call.tasks().retry_subtask(request).await?.into_inner().task)?.subtasks;
    let subtask = subtasks.into_iter().find(|subtask| subtask.id == path.subtask.get());
    Done::with(&WrappedSubtask::new(told(subtask)?, call.zone()))
}

/// `POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/skip`: as documented, without data
pub(super) async fn skip_subtask(
    call: Call,
    Path(path): Path<SubtaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let (task_id, subtask_id) = (path.task.get(), path.subtask.get());
    let request = call.request(SkipSubtaskRequest { task_id, subtask_id, reason: body.reason() });
    call.tasks().skip_subtask(request).await?;
    Done::without_data()
}

/// `POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/cancel`: as documented, without data
pub(super) async fn cancel_subtask(
    call: Call,
    Path(path): Path<SubtaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let (task_id, subtask_id) = (path.task.get(), path.subtask.get());
    let request = call.request(CancelSubtaskRequest { task_id, subtask_id, reason: body.reason() });
    call.tasks().cancel_subtask(request).await?;
    Done::without_data()
}
