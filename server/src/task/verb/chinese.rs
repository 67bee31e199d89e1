//! What a caller is told whose order to a task is refused, in Chinese.

use belay_proto::{SubtaskId, TaskId};

use super::{Refused, TaskState, Verb};
use crate::task::state::Kind;

/// What is wrong and what to do, as `refusal` and `next_step` say it in English.
pub(super) fn refusal(
    refused: Refused,
    verb: Verb,
    task: TaskId,
    standing: TaskState,
    subtask: Option<(SubtaskId, Kind)>,
) -> (String, String) {
    let (order, stands) = (name(verb), standing.as_str());
    let message = match (refused, subtask) {
        (Refused::NotPaused, _) => format!("任务 {task} 没有暂停"),
        (Refused::NoApproval, _) => format!("任务 {task} 没有等待审批的这一批"),
        (Refused::Prohibited, _) => format!("任务 {task} 不允许回滚"),
        (Refused::Subtask | Refused::Skip, Some((id, kind))) => {
            format!("任务 {task} 的子任务 {id} 处于 {} 状态，不能{order}", kind.as_str())
        }
        (_, Some((id, _))) => format!("任务 {task} 处于 {stands} 状态，不能{order}其子任务 {id}"),
        (_, None) => format!("任务 {task} 处于 {stands} 状态，不能{order}"),
    };
    (message, next_step(task, standing))
}

fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Retry | Verb::RetrySubtask => "重试",
        Verb::Rollback => "回滚",
        Verb::Cancel | Verb::CancelSubtask => "取消",
        Verb::SkipSubtask => "跳过",
        Verb::Pause => "暂停",
        Verb::Resume(_) => "继续",
        Verb::Approve(_) => "审批",
    }
}

fn next_step(task: TaskId, standing: TaskState) -> String {
    match standing {
        TaskState::Running => {
            format!("请用 `belay task watch {task}` 等待它结束，或先用 `belay task cancel {task}` 取消")
        }
        TaskState::Paused => format!(
            "用 `belay task get {task}` 查看它在等待什么；`belay task resume {task}` 继续，\
             `belay task approve {task}` 放行下一批，`belay task cancel {task}` 结束任务"
        ),
        TaskState::Canceling | TaskState::RollingBack => {
            format!("请用 `belay task watch {task}` 等待它结束")
        }
        TaskState::Failed | TaskState::Cancelled | TaskState::Stuck => format!(
            "用 `belay task get {task}` 查看它的子任务；`belay task retry {task}` 重试，\
             `belay task rollback {task}` 回滚"
        ),
        TaskState::RollbackStuck => format!(
            "请先排除 `belay task get {task}` 所示的原因，再用 `belay task retry {task}` 继续；\
             或用 `belay task skip {task} SUBTASK` 放弃该子任务"
        ),
        TaskState::Successful | TaskState::RolledBack => "任务已结束，请重新下达".into(),
    }
}
