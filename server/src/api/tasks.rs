//! Durable tasks.

use std::{sync::Arc, time::Duration};

use belay_proto::{
    TaskId,
    v1::{
        ApproveWaveRequest, ApproveWaveResponse, CancelSubtaskRequest, CancelSubtaskResponse,
        CancelTaskRequest, CancelTaskResponse, GetSubtaskLogRequest, GetSubtaskLogResponse, GetTaskRequest,
        GetTaskResponse, ListTasksRequest, ListTasksResponse, PauseTaskRequest, PauseTaskResponse,
        ResumeTaskRequest, ResumeTaskResponse, RetrySubtaskRequest, RetrySubtaskResponse, RetryTaskRequest,
        RetryTaskResponse, RollbackTaskRequest, RollbackTaskResponse, SkipSubtaskRequest,
        SkipSubtaskResponse, WatchSubtaskLogRequest, WatchSubtaskLogResponse, WatchTaskRequest,
        WatchTaskResponse, task_service_server::TaskService,
    },
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::sleep,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::{Api, told};
use crate::{
    app::App,
    batch::waits,
    convert::{
        LogQuery, TaskQuery, approved_wave, given_to_wire, heard_version, lines_to_wire, subtask_order,
        task_id, task_order, task_page_to_wire, task_to_wire,
    },
    error::Error,
    store::TaskPage,
    task::{Task, Verb, verb::order_task},
    task_log,
    watch::Lasting,
};

/// States under way to a watcher: one that does not read holds up nobody but itself.
const WATCHED_STATES: usize = 4;
/// How long a watcher of a batch waits at least for the next state.
const BATCH_PAUSE: Duration = Duration::from_millis(200);

#[tonic::async_trait]
impl TaskService for Api {
    async fn list_tasks(
        &self,
        request: Request<ListTasksRequest>,
    ) -> Result<Response<ListTasksResponse>, Status> {
        let (caller, message) = self.admitted(request).await?;
        let query = TaskQuery::try_from(message)?;
        let reached = self.app.fleet.reached(&caller.reach);
        let page = match &query.stretch {
            Some(stretch) => self.app.store.tasks(stretch, &reached).await.map_err(Error::Store)?,
            None => TaskPage { tasks: Vec::new(), total: 0, next: None },
        };
        Ok(Response::new(task_page_to_wire(&query, page)?))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        let (_, GetTaskRequest { task_id: id }) = self.admitted(request).await?;
        let task = find(&self.app, task_id(id)?).await?;
        Ok(Response::new(GetTaskResponse { task: Some(self.told(&task)) }))
    }

    async fn get_subtask_log(
        &self,
        request: Request<GetSubtaskLogRequest>,
    ) -> Result<Response<GetSubtaskLogResponse>, Status> {
        let query = LogQuery::try_from(self.admitted(request).await?.1)?;
        let lines = task_log::read(&self.app, query).await?;
        Ok(Response::new(GetSubtaskLogResponse { lines: lines_to_wire(lines) }))
    }

    type WatchSubtaskLogStream = Lasting<WatchSubtaskLogResponse>;

    async fn watch_subtask_log(
        &self,
        request: Request<WatchSubtaskLogRequest>,
    ) -> Result<Response<Self::WatchSubtaskLogStream>, Status> {
        let (pass, message) = self.passed(request).await?;
        let lines = task_log::follow(&self.app, LogQuery::try_from(message)?).await?;
        let lines = lines.map(|lines| Ok(WatchSubtaskLogResponse { lines: lines_to_wire(lines?) }));
        Ok(Response::new(Lasting::new(&self.app, pass, lines)?))
    }

    async fn retry_task(
        &self,
        request: Request<RetryTaskRequest>,
    ) -> Result<Response<RetryTaskResponse>, Status> {
        let (caller, RetryTaskRequest { task_id, reason, terms }) = self.admitted(request).await?;
        let order = task_order(task_id, reason, terms)?;
        let given = order_task(&self.app, &caller, order, Verb::Retry).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), RetryTaskResponse { task, preview }))
    }

    async fn rollback_task(
        &self,
        request: Request<RollbackTaskRequest>,
    ) -> Result<Response<RollbackTaskResponse>, Status> {
        let (caller, RollbackTaskRequest { task_id, reason, terms }) = self.admitted(request).await?;
        let order = task_order(task_id, reason, terms)?;
        let given = order_task(&self.app, &caller, order, Verb::Rollback).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), RollbackTaskResponse { task, preview }))
    }

    async fn cancel_task(
        &self,
        request: Request<CancelTaskRequest>,
    ) -> Result<Response<CancelTaskResponse>, Status> {
        let (caller, CancelTaskRequest { task_id, reason, terms }) = self.admitted(request).await?;
        let order = task_order(task_id, reason, terms)?;
        let given = order_task(&self.app, &caller, order, Verb::Cancel).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), CancelTaskResponse { task, preview }))
    }

    async fn retry_subtask(
        &self,
        request: Request<RetrySubtaskRequest>,
    ) -> Result<Response<RetrySubtaskResponse>, Status> {
        let (caller, RetrySubtaskRequest { task_id, subtask_id, reason, terms }) =
            self.admitted(request).await?;
        let order = subtask_order(task_id, subtask_id, reason, terms)?;
        let given = order_task(&self.app, &caller, order, Verb::RetrySubtask).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), RetrySubtaskResponse { task, preview }))
    }

    async fn skip_subtask(
        &self,
        request: Request<SkipSubtaskRequest>,
    ) -> Result<Response<SkipSubtaskResponse>, Status> {
        let (caller, SkipSubtaskRequest { task_id, subtask_id, reason, terms }) =
            self.admitted(request).await?;
        let order = subtask_order(task_id, subtask_id, reason, terms)?;
        let given = order_task(&self.app, &caller, order, Verb::SkipSubtask).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), SkipSubtaskResponse { task, preview }))
    }

    async fn cancel_subtask(
        &self,
        request: Request<CancelSubtaskRequest>,
    ) -> Result<Response<CancelSubtaskResponse>, Status> {
        let (caller, CancelSubtaskRequest { task_id, subtask_id, reason, terms }) =
            self.admitted(request).await?;
        let order = subtask_order(task_id, subtask_id, reason, terms)?;
        let given = order_task(&self.app, &caller, order, Verb::CancelSubtask).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), CancelSubtaskResponse { task, preview }))
    }

    async fn pause_task(
        &self,
        request: Request<PauseTaskRequest>,
    ) -> Result<Response<PauseTaskResponse>, Status> {
        let (caller, PauseTaskRequest { task_id, reason, terms }) = self.admitted(request).await?;
        let order = task_order(task_id, reason, terms)?;
        let given = order_task(&self.app, &caller, order, Verb::Pause).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), PauseTaskResponse { task, preview }))
    }

    async fn resume_task(
        &self,
        request: Request<ResumeTaskRequest>,
    ) -> Result<Response<ResumeTaskResponse>, Status> {
        let (caller, ResumeTaskRequest { task_id, reason, terms }) = self.admitted(request).await?;
        let order = task_order(task_id, reason, terms)?;
        let given = order_task(&self.app, &caller, order, Verb::Resume(0)).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), ResumeTaskResponse { task, preview }))
    }

    async fn approve_wave(
        &self,
        request: Request<ApproveWaveRequest>,
    ) -> Result<Response<ApproveWaveResponse>, Status> {
        let (caller, ApproveWaveRequest { task_id, reason, wave, terms }) = self.admitted(request).await?;
        let verb = Verb::Approve(approved_wave(wave)?);
        let given = order_task(&self.app, &caller, task_order(task_id, reason, terms)?, verb).await?;
        let (task, preview) = given_to_wire(given, |task| self.told(&task));
        Ok(told(preview.is_some(), ApproveWaveResponse { task, preview }))
    }

    type WatchTaskStream = Lasting<WatchTaskResponse>;

    async fn watch_task(
        &self,
        request: Request<WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let (pass, WatchTaskRequest { task_id: id, resume_token }) = self.passed(request).await?;
        let (id, heard) = (task_id(id)?, heard_version(&resume_token)?);
        // Listening begins before the first look, so that no change in between is missed.
        let mut changes = self.app.task_changes.subscribe();
        let mut task = find(&self.app, id).await?;
        let (send, states) = mpsc::channel(WATCHED_STATES);
        let app = self.app.clone();
        let watch = async move {
            loop {
                let ended = !task.standing().is_open();
                let is_known = heard == Some(task.seen);
                let resume_token = task.seen.to_string();
                let state =
                    WatchTaskResponse { task: Some(task_to_wire(&task, waits(&app, &task))), resume_token };
                if !is_known && send.send(Ok(state)).await.is_err() || ended {
                    return;
                }
                // A task for many hosts changes all the time, and is large.
                if task.graph.batch.is_some() {
                    sleep(BATCH_PAUSE).await;
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
                if let Err(error) = app.store.catch_up(&mut task).await {
                    // Whoever watches may be gone.
                    let _ = send.try_send(Err(Error::Store(error).into()));
                    return;
                }
            }
        };
        self.app.background.spawn(watch.in_current_span());
        Ok(Response::new(Lasting::new(&self.app, pass, ReceiverStream::new(states))?))
    }
}

async fn find(app: &Arc<App>, id: TaskId) -> Result<Task, Error> {
    app.store.task(id).await?.ok_or(Error::TaskUnknown(id))
}
