//! The agents of many hosts.

use belay_proto::{
    Problem, Reason,
    v1::{
        BatchOrder, BatchRestartHostAgentsRequest, BatchStartHostAgentsRequest, BatchStopHostAgentsRequest,
        BatchVerb, GetTaskRequest, PlanBatchRequest,
    },
};

use crate::{
    envelope::{Answer, Done},
    extract::{BatchBody, Json, Path, PlanBody, TaskPath},
    json::{Batch, BatchPlan, TaskInstance},
    upstream::{Call, told},
};

/// `POST /compute/hosts/batchStopAgents`
pub(super) async fn stop(call: Call, Json(body): Json<BatchBody>) -> Answer {
    if body.dry_run() {
        return plan_of(&call, BatchVerb::Stop, body.order()?).await;
    }
    let request = call.request(BatchStopHostAgentsRequest { order: Some(body.order()?) });
    let reply = call.batches().batch_stop_host_agents(request).await?.into_inner();
    Done::with(&TaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /compute/hosts/batchRestartAgents`
pub(super) async fn restart(call: Call, Json(body): Json<BatchBody>) -> Answer {
    if body.dry_run() {
        return plan_of(&call, BatchVerb::Restart, body.order()?).await;
    }
    let request = call.request(BatchRestartHostAgentsRequest { order: Some(body.order()?) });
    let reply = call.batches().batch_restart_host_agents(request).await?.into_inner();
    Done::with(&TaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /compute/hosts/batchStartAgents`
pub(super) async fn start(call: Call, Json(body): Json<BatchBody>) -> Answer {
    if body.dry_run() {
        return plan_of(&call, BatchVerb::Start, body.order()?).await;
    }
    let request = call.request(BatchStartHostAgentsRequest { order: Some(body.order()?) });
    let reply = call.batches().batch_start_host_agents(request).await?.into_inner();
    Done::with(&TaskInstance::new(told(reply.task)?, call.zone()))
}

/// `POST /compute/hosts/planBatch`
pub(super) async fn plan(call: Call, Json(body): Json<PlanBody>) -> Answer {
    let (verb, order) = body.plan()?;
    plan_of(&call, verb, order).await
}

/// `GET /tasks/instances/{taskInstanceId}/batch`: what the documented task has no field for
pub(super) async fn get(call: Call, Path(path): Path<TaskPath>) -> Answer {
    let id = path.task.get();
    let request = call.request(GetTaskRequest { task_id: id });
    let reply = call.tasks().get_task(request).await?.into_inner();
    match Batch::of(told(reply.task)?) {
        Some(batch) => Done::with(&batch),
        None => Err(Problem::new(Reason::TaskUnknown, format!("task {id} is not a batch of hosts"))
            .hint(format!("see it with `GET /api/v2/tasks/instances/{id}`"))
            .chinese(
                format!("任务 {id} 不是批量任务"),
                format!("请用 `GET /api/v2/tasks/instances/{id}` 查看该任务"),
            )
            .target(format!("tasks/{id}"))
            .into()),
    }
}

async fn plan_of(call: &Call, verb: BatchVerb, order: BatchOrder) -> Answer {
    let request = call.request(PlanBatchRequest { verb: verb.into(), order: Some(order) });
    let reply = call.batches().plan_batch(request).await?.into_inner();
    Done::with(&BatchPlan::new(told(reply.plan)?, call.zone()))
}
