//! Durable tasks.

use std::{pin::Pin, sync::Arc};

use belay_proto::{
    TaskId,
    v1::{
        GetSubtaskLogRequest, GetSubtaskLogResponse, GetTaskRequest, GetTaskResponse, ListTasksRequest,
        ListTasksResponse, LogLine, WatchTaskRequest, WatchTaskResponse, task_service_server::TaskService,
    },
};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::Api;
use crate::{
    app::App,
    convert::{host_id, page, page_to_wire, subtask_id, task_filter, task_id, task_to_wire, time},
    error::Error,
    task::{Task, TaskStatus},
};

/// States under way to a watcher: one that does not read holds up nobody but itself.
const WATCHED_STATES: usize = 4;

#[tonic::async_trait]
impl TaskService for Api {
    async fn list_tasks(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let ListTasksRequest { page: number, size, host_id: host, statuses } = request.into_inner();
        let page = page(number, size)?;
        let host = if host == 0 { None } else { Some(host_id(host)?) };
        let size = u64::from(page.size.unsigned_abs());
        let statuses = task_filter(&statuses)?;
        let found = self.app.store.tasks(host, &statuses, page.offset(), size).await;
        let (tasks, total) = found.map_err(Error::Store)?;
        Ok(Response::new(ListTasksResponse {
            tasks: tasks.iter().map(task_to_wire).collect(),
            page: Some(page_to_wire(page, total)),
        }))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        let GetTaskRequest { task_id: id } = request.into_inner();
        let task = find(&self.app, task_id(id)?).await?;
        Ok(Response::new(GetTaskResponse { task: Some(task_to_wire(&task)) }))
    }

    async fn get_subtask_log(
        &self,
        request: Request<GetSubtaskLogRequest>,
    ) -> Result<Response<GetSubtaskLogResponse>, Status> {
        let GetSubtaskLogRequest { task_id: task, subtask_id: subtask } = request.into_inner();
        let (task, subtask) = (task_id(task)?, subtask_id(subtask)?);
        // A subtask of another task is as unknown as one that never was (hazard S09).
        if !find(&self.app, task).await?.steps.iter().any(|step| step.id == subtask) {
            return Err(Error::SubtaskUnknown { task, subtask }.into());
        }
        let lines = self.app.store.subtask_log(subtask).await.map_err(Error::Store)?;
        let lines = lines.into_iter().map(|line| LogLine {
            time: Some(time(line.time)),
            attempt: line.attempt,
            level: line.level.as_str().into(),
            message: line.message,
        });
        Ok(Response::new(GetSubtaskLogResponse { lines: lines.collect() }))
    }

    type WatchTaskStream = Pin<Box<dyn Stream<Item = Result<WatchTaskResponse, Status>> + Send>>;

    async fn watch_task(
        &self,
        request: Request<WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let WatchTaskRequest { task_id: id } = request.into_inner();
        let id = task_id(id)?;
        // Listening begins before the first look, so that no change in between is missed.
        let mut changes = self.app.task_changes.subscribe();
        let mut task = find(&self.app, id).await?;
        let (send, states) = mpsc::channel(WATCHED_STATES);
        let app = self.app.clone();
        let watch = async move {
            loop {
                let ended = task.state.status(&task.steps) != TaskStatus::Running;
                let state = WatchTaskResponse { task: Some(task_to_wire(&task)) };
                if send.send(Ok(state)).await.is_err() || ended {
                    return;
                }
                loop {
                    tokio::select! {
                        change = changes.recv() => match change {
                            Ok(changed) if changed == id => break,
                            Ok(_) => {}
                            Err(RecvError::Lagged(_)) => break,
                            Err(RecvError::Closed) => return,
                        },
                        () = send.closed() => return,
                        () = app.shutdown.cancelled() => {
                            // Whoever watches may be gone.
                            let _ = send.try_send(Err(Error::ShuttingDown.into()));
                            return;
                        }
                    }
                }
                match find(&app, id).await {
                    Ok(found) => task = found,
                    Err(error) => {
                        // Whoever watches may be gone.
                        let _ = send.try_send(Err(error.into()));
                        return;
                    }
                }
            }
        };
        self.app.background.spawn(watch.in_current_span());
        Ok(Response::new(Box::pin(ReceiverStream::new(states))))
    }
}

async fn find(app: &Arc<App>, id: TaskId) -> Result<Task, Error> {
    app.store.task(id).await?.ok_or(Error::TaskUnknown(id))
}
