//! Which words a field of an answer may have: those of the wire contract, so that a new one there is one here.

use belay_proto::v1::{
    AgentProcessPhase, AuditDecision, BatchHostState, BatchVerb, HostAgentStatus, HostKind, HostStatus, Role,
    SubtaskStatus, TaskOperation, TaskState, TaskStatus,
};

/// The words of a field; `None` where it may have any.
pub(super) fn words(schema: &str, field: &str) -> Option<Vec<String>> {
    let is_task = matches!(schema, "TaskInstance" | "WrappedTaskInstance" | "BasicTaskInstance" | "Batch");
    let is_subtask = matches!(schema, "Subtask" | "WrappedSubtask" | "BasicSubtask");
    Some(match (schema, field) {
        (_, "status") if is_task => of(TaskStatus::as_str_name, "TASK_STATUS_"),
        (_, "status") if is_subtask => of(SubtaskStatus::as_str_name, "SUBTASK_STATUS_"),
        (_, "operation") if is_task || is_subtask => of(TaskOperation::as_str_name, "TASK_OPERATION_"),
        ("Batch", "state") => of(TaskState::as_str_name, "TASK_STATE_"),
        ("BatchHost", "state") => of(BatchHostState::as_str_name, "BATCH_HOST_STATE_"),
        ("Batch" | "BatchPlan", "verb") => of(BatchVerb::as_str_name, "BATCH_VERB_"),
        ("Host", "kind") => of(HostKind::as_str_name, "HOST_KIND_"),
        ("Host", "status") => of(HostStatus::as_str_name, "HOST_STATUS_"),
        (_, "hostAgentStatus") => of(HostAgentStatus::as_str_name, "HOST_AGENT_STATUS_"),
        ("HostAgent" | "AgentProcess" | "AgentProcessDetail", "status") => {
            ["STARTED", "STOPPED"].map(str::to_owned).into()
        }
        ("AgentProcessDetail", "phase") => {
            let mut phases = of(AgentProcessPhase::as_str_name, "AGENT_PROCESS_PHASE_");
            phases.push("UNSPECIFIED".to_owned());
            phases
        }
        ("AuditRecord", "decision") => of(AuditDecision::as_str_name, "AUDIT_DECISION_"),
        ("User", "roles") | ("Grant", "role") => of(Role::as_str_name, "ROLE_"),
        _ => return None,
    })
}

/// All values of an enum but the first, which stands for nothing, without what each of their names begins with.
fn of<E: TryFrom<i32>>(name: fn(&E) -> &'static str, prefix: &str) -> Vec<String> {
    let values = (1..=MOST).filter_map(|number| E::try_from(number).ok());
    values.map(|value| name(&value).strip_prefix(prefix).unwrap_or_default().to_owned()).collect()
}

/// No enum of the contract has more values.
const MOST: i32 = 64;
