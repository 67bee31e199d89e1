//! Tasks.

use belay_proto::{
    all,
    v1::{
        self, ApproveWaveRequest, CancelSubtaskRequest, CancelTaskRequest, GetSubtaskLogRequest,
        GetTaskRequest, ListTasksRequest, PauseTaskRequest, ResumeTaskRequest, RetrySubtaskRequest,
        RetryTaskRequest, RollbackTaskRequest, SkipSubtaskRequest,
    },
};
use http::header::ETAG;

use super::{PREFERENCE_APPLIED, preview_or};
use crate::{
    envelope::{Answer, Done},
    extract::{ApproveBody, IfNoneMatch, Json, OrderBody, Path, Query, SubtaskPath, TaskPath, Terms, tag},
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
pub(super) async fn get(call: Call, known: IfNoneMatch, Path(path): Path<TaskPath>) -> Answer {
    let request = call.request(GetTaskRequest { task_id: path.task.get() });
    let task = told(call.tasks().get_task(request).await?.into_inner().task)?;
    let version = task.version;
    let done = Done::with(&WrappedTaskInstance::new(task, call.zone()))?;
    Ok(done.header(ETAG, tag(version)).known(known.holds(version)))
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
pub(super) async fn retry(
    call: Call,
    terms: Terms,
    Path(path): Path<TaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (task_id, wire) = (path.task.get(), terms.of_task()?);
    let message = RetryTaskRequest { task_id, terms: wire, reason: body.reason() };
    let reply = call.tasks().retry_task(call.request_within(message, terms.wait())).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// `POST /tasks/instances/{taskInstanceId}/rollback`
pub(super) async fn rollback(
    call: Call,
    terms: Terms,
    Path(path): Path<TaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (task_id, wire) = (path.task.get(), terms.of_task()?);
    let message = RollbackTaskRequest { task_id, terms: wire, reason: body.reason() };
    let reply = call.tasks().rollback_task(call.request_within(message, terms.wait())).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// `POST /tasks/instances/{taskInstanceId}/cancel`
pub(super) async fn cancel(
    call: Call,
    terms: Terms,
    Path(path): Path<TaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (task_id, wire) = (path.task.get(), terms.of_task()?);
    let message = CancelTaskRequest { task_id, terms: wire, reason: body.reason() };
    let reply = call.tasks().cancel_task(call.request_within(message, terms.wait())).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// `POST /tasks/instances/{taskInstanceId}/pause`
pub(super) async fn pause(
    call: Call,
    terms: Terms,
    Path(path): Path<TaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (task_id, wire) = (path.task.get(), terms.of_task()?);
    let message = PauseTaskRequest { task_id, terms: wire, reason: body.reason() };
    let reply = call.tasks().pause_task(call.request_within(message, terms.wait())).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// `POST /tasks/instances/{taskInstanceId}/resume`
pub(super) async fn resume(
    call: Call,
    terms: Terms,
    Path(path): Path<TaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (task_id, wire) = (path.task.get(), terms.of_task()?);
    let message = ResumeTaskRequest { task_id, terms: wire, reason: body.reason() };
    let reply = call.tasks().resume_task(call.request_within(message, terms.wait())).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// `POST /tasks/instances/{taskInstanceId}/approve`
pub(super) async fn approve(
    call: Call,
    terms: Terms,
    Path(path): Path<TaskPath>,
    Json(body): Json<ApproveBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (wave, wire, reason) = (body.wave()?, terms.of_task()?, body.reason());
    let message = ApproveWaveRequest { task_id: path.task.get(), reason, wave, terms: wire };
    let reply = call.tasks().approve_wave(call.request_within(message, terms.wait())).await?.into_inner();
    answer(&call, &terms, reply.task, reply.preview)
}

/// `POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/retry`
pub(super) async fn retry_subtask(
    call: Call,
    terms: Terms,
    Path(path): Path<SubtaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (task_id, subtask_id, wire) = (path.task.get(), path.subtask.get(), terms.of_task()?);
    let message = RetrySubtaskRequest { task_id, subtask_id, terms: wire, reason: body.reason() };
    let request = call.request_within(message, terms.wait());
    let reply = call.tasks().retry_subtask(request).await?.into_inner();
    preview_or(reply.preview, || {
        let subtask = told(reply.task)?.subtasks.into_iter().find(|subtask| subtask.id == subtask_id);
        let done = Done::with(&WrappedSubtask::new(told(subtask)?, call.zone()))?;
        Ok(done.header(PREFERENCE_APPLIED, terms.applied()))
    })
}

/// `POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/skip`: as documented, without data
pub(super) async fn skip_subtask(
    call: Call,
    terms: Terms,
    Path(path): Path<SubtaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (task_id, subtask_id, wire) = (path.task.get(), path.subtask.get(), terms.of_task()?);
    let message = SkipSubtaskRequest { task_id, subtask_id, terms: wire, reason: body.reason() };
    let request = call.request_within(message, terms.wait());
    let reply = call.tasks().skip_subtask(request).await?.into_inner();
    answer_without_data(&terms, reply.preview)
}

/// `POST /tasks/instances/{taskInstanceId}/subtasks/{subtaskInstanceId}/cancel`: as documented, without data
pub(super) async fn cancel_subtask(
    call: Call,
    terms: Terms,
    Path(path): Path<SubtaskPath>,
    Json(body): Json<OrderBody>,
) -> Answer {
    let terms = terms.with_dry_run(body.dry_run)?;
    let (task_id, subtask_id, wire) = (path.task.get(), path.subtask.get(), terms.of_task()?);
    let message = CancelSubtaskRequest { task_id, subtask_id, terms: wire, reason: body.reason() };
    let request = call.request_within(message, terms.wait());
    let reply = call.tasks().cancel_subtask(request).await?.into_inner();
    answer_without_data(&terms, reply.preview)
}

/// No data, as documented; or what the order would do.
fn answer_without_data(terms: &Terms, preview: Option<v1::OrderPreview>) -> Answer {
    preview_or(preview, || Ok(Done::without_data()?.header(PREFERENCE_APPLIED, terms.applied())))
}

/// The task as it is then; or what the order would do.
fn answer(call: &Call, terms: &Terms, task: Option<v1::Task>, preview: Option<v1::OrderPreview>) -> Answer {
    preview_or(preview, || {
        let task = told(task)?;
        let version = tag(task.version);
        let done = Done::with(&WrappedTaskInstance::new(task, call.zone()))?;
        Ok(done.header(ETAG, version).header(PREFERENCE_APPLIED, terms.applied()))
    })
}
