//! What callers and operators ask of the server.

use belay_proto::{
    Reason,
    v1::{
        AbsentHosts, ApproveWaveRequest, BatchOrder, BatchPolicy, BatchRestartHostAgentsRequest,
        BatchStartHostAgentsRequest, BatchStopHostAgentsRequest, CancelTaskRequest, PauseTaskRequest,
        RestartHostAgentRequest, ResumeTaskRequest, RetryTaskRequest, RollbackTaskRequest,
        SkipSubtaskRequest, StartHostAgentRequest, StopHostAgentRequest, SubtaskStatus, Task, TaskState,
    },
};
use belay_tests::Wire;
use tonic::{Request, Response, Status};

use super::{
    arena::Heard,
    places::Story,
    round::{Dice, Round},
};

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Stop,
    Start,
    Restart,
}

/// What an operator does with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Retry,
    Rollback,
    Skip,
    Cancel,
    Pause,
    Resume,
    Approve,
}

impl Ask {
    /// The RPC's name.
    pub(super) fn action(self) -> &'static str {
        match self {
            Self::Retry => "RetryTask",
            Self::Rollback => "RollbackTask",
            Self::Skip => "SkipSubtask",
            Self::Cancel => "CancelTask",
            Self::Pause => "PauseTask",
            Self::Resume => "ResumeTask",
            Self::Approve => "ApproveWave",
        }
    }

    /// Whether it is done with a task that stands so.
    pub(super) fn is_for(self, state: TaskState) -> bool {
        match self {
            Self::Retry | Self::Rollback | Self::Skip => is_over(state),
            Self::Cancel | Self::Pause => state == TaskState::Running,
            Self::Resume | Self::Approve => state == TaskState::Paused,
        }
    }
}

/// Whether a task goes on only when somebody asks for it.
pub(super) fn is_over(state: TaskState) -> bool {
    matches!(state, TaskState::Failed | TaskState::Cancelled | TaskState::Stuck)
}

/// How a batch goes.
pub(super) fn policy(dice: &mut Dice, story: Story) -> BatchPolicy {
    let one_by_one = matches!(story, Story::Pause | Story::Resume);
    let waves: &[&str] = match dice.roll(3) {
        _ if story == Story::Approve => &["1"],
        0 => &[],
        1 => &["1", "rest"],
        _ => &["50%", "rest"],
    };
    BatchPolicy {
        parallel: if one_by_one { "1".into() } else { ["1", "2", "100"][dice.roll(3)].into() },
        waves: waves.iter().map(|&wave| wave.to_owned()).collect(),
        approve_waves: story == Story::Approve,
        // Agents come back a moment after a server has begun.
        absent: AbsentHosts::Wait.into(),
        absent_wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        ..Default::default()
    }
}

/// An order as it is sent.
pub(super) struct Ordered {
    pub(super) verb: Verb,
    pub(super) ids: Vec<i64>,
    pub(super) policy: Option<BatchPolicy>,
    pub(super) key: Option<String>,
}

impl Ordered {
    /// Sends it.
    pub(super) async fn send(&self, wire: &Wire) -> Result<Response<Task>, Status> {
        let (host_id, reason) = (self.ids[0], String::new());
        let order = self.policy.as_ref().map(|policy| BatchOrder {
            host_ids: self.ids.clone(),
            policy: Some(policy.clone()),
            ..Default::default()
        });
        let task = match (self.verb, order) {
            (Verb::Stop, None) => {
                let request = self.under_key(StopHostAgentRequest { host_id, reason, ..Default::default() });
                wire.agents().stop_host_agent(request).await?.into_inner().task
            }
            (Verb::Start, None) => {
                let request = self.under_key(StartHostAgentRequest { host_id, reason, ..Default::default() });
                wire.agents().start_host_agent(request).await?.into_inner().task
            }
            (Verb::Restart, None) => {
                let request =
                    self.under_key(RestartHostAgentRequest { host_id, reason, ..Default::default() });
                wire.agents().restart_host_agent(request).await?.into_inner().task
            }
            (Verb::Stop, order) => {
                let request = self.under_key(BatchStopHostAgentsRequest { order });
                wire.batches().batch_stop_host_agents(request).await?.into_inner().task
            }
            (Verb::Start, order) => {
                let request = self.under_key(BatchStartHostAgentsRequest { order });
                wire.batches().batch_start_host_agents(request).await?.into_inner().task
            }
            (Verb::Restart, order) => {
                let request = self.under_key(BatchRestartHostAgentsRequest { order });
                wire.batches().batch_restart_host_agents(request).await?.into_inner().task
            }
        };
        Ok(Response::new(task.expect("a task")))
    }

    fn under_key<T>(&self, message: T) -> Request<T> {
        under_key(self.key.as_deref(), message)
    }
}

/// A request, under a key where there is one.
pub(super) fn under_key<T>(key: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(key) = key {
        request.metadata_mut().insert("idempotency-key", key.parse().expect("a key"));
    }
    request
}

impl Round<'_> {
    /// Asks for something. Says whether it was let in, which the trail tells where nothing was answered.
    pub(super) async fn ask(&mut self, task: &Task, ask: Ask) -> bool {
        let (task_id, reason) = (task.id, String::new());
        let failed = task.subtasks.iter().find(|step| step.status() == SubtaskStatus::Failed);
        let subtask_id = failed.map_or(0, |step| step.id);
        let before = self.accepted(task_id, ask.action()).await;
        let answer = self
            .arena
            .call(async |wire| {
                let (mut tasks, reason) = (wire.tasks(), reason.clone());
                match ask {
                    Ask::Retry => {
                        let request = RetryTaskRequest { task_id, reason, ..Default::default() };
                        tasks.retry_task(request).await.map(|answer| answer.map(drop))
                    }
                    Ask::Rollback => {
                        let request = RollbackTaskRequest { task_id, reason, ..Default::default() };
                        tasks.rollback_task(request).await.map(|answer| answer.map(drop))
                    }
                    Ask::Skip => {
                        let request =
                            SkipSubtaskRequest { task_id, subtask_id, reason, ..Default::default() };
                        tasks.skip_subtask(request).await.map(|answer| answer.map(drop))
                    }
                    Ask::Cancel => {
                        let request = CancelTaskRequest { task_id, reason, ..Default::default() };
                        tasks.cancel_task(request).await.map(|answer| answer.map(drop))
                    }
                    Ask::Pause => {
                        let request = PauseTaskRequest { task_id, reason, ..Default::default() };
                        tasks.pause_task(request).await.map(|answer| answer.map(drop))
                    }
                    Ask::Resume => {
                        let request = ResumeTaskRequest { task_id, reason, ..Default::default() };
                        tasks.resume_task(request).await.map(|answer| answer.map(drop))
                    }
                    Ask::Approve => {
                        let request = ApproveWaveRequest { task_id, reason, wave: 0, ..Default::default() };
                        tasks.approve_wave(request).await.map(|answer| answer.map(drop))
                    }
                }
            })
            .await;
        let after = self.accepted(task_id, ask.action()).await;
        let told = self.told();
        let (calls, acknowledged) = self.asked.entry(ask.action()).or_default();
        *calls += 1;
        match answer {
            Heard::Answer(()) => {
                *acknowledged += 1;
                assert_eq!(after, before + 1, "{told}: {ask:?} was acknowledged");
            }
            Heard::Refused(problem) => {
                let too_late = [Reason::TaskWrongState, Reason::SkipRefused, Reason::SubtaskWrongState];
                assert!(too_late.contains(&problem.reason), "{told}: {ask:?}: {problem:?}");
                assert_eq!(after, before, "{told}: {ask:?} was refused");
                self.pause().await;
            }
            Heard::Died => assert!(after <= before + 1, "{told}: {ask:?} was let in twice"),
        }
        after > before
    }

    /// How often the trail has it that this was let in.
    pub(super) async fn accepted(&self, task: i64, action: &str) -> i64 {
        let question = format!(
            "SELECT COUNT(*) FROM audit WHERE action = '{action}' AND outcome = 'ACCEPTED' \
             AND (target = 'tasks/{task}' OR target LIKE 'tasks/{task}/%')"
        );
        self.arena.number(question).await
    }
}
