//! What goes out.

use belay_proto::{HostId, v1};
use jiff::{SignedDuration, Timestamp};

use super::{
    batch::batch_to_wire,
    inward::Page,
    reference::{host_type_to_wire, idc_to_wire, region_to_wire},
};
use crate::{
    clones::{Agent, Twin},
    fleet::HostView,
    host::{AgentState, HostKind, HostStatus},
    local_policy::LocalPolicy,
    maintenance::Maintenance,
    process::{ExitReport, Leftover, Phase, Process, Rung},
    read_log::Piece,
    store::AuditRow,
    task::{
        Operation, Step, Task, TaskState, TaskStatus,
        state::{StepState, StepStatus},
    },
};

pub(crate) fn host_to_wire(view: &HostView) -> v1::Host {
    let (facts, profile, place) = (&view.host.facts, &view.host.profile, &view.host.place);
    v1::Host {
        id: view.host.id.get(),
        name: facts.name.clone(),
        inner_ip_address: facts.inner_ip_address().into(),
        operating_system: facts.operating_system.clone(),
        operating_system_release: facts.operating_system_release.clone(),
        architecture: facts.architecture.clone(),
        status: host_status(view.status).into(),
        agent_status: agent_status(view).into(),
        agent_version: facts.version.clone(),
        create_time: Some(time(view.host.create_time)),
        update_time: Some(time(view.host.update_time)),
        report_age: view.report_age.and_then(|age| age.try_into().ok()),
        task_id: view.task.map_or(0, |task| task.get()),
        boot_id: facts.boot_id.clone(),
        clones: view.clones.iter().map(clone_to_wire).collect(),
        labels: view.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        operator_labels: view.host.operator_labels.clone().into_iter().collect(),
        maintenance: view.maintenance().map(maintenance_to_wire),
        agent_address: facts.address.clone(),
        alias: profile.alias.clone(),
        description: profile.description.clone(),
        serial_number: profile.serial_number.clone(),
        kind: profile.kind.map_or(v1::HostKind::Unspecified, kind_to_wire).into(),
        ssh_port: profile.ssh_port.map_or(0, i32::from),
        publish_ports: profile.publish_ports.clone(),
        idc: place.idc.as_ref().map(idc_to_wire),
        region: place.idc.as_ref().map(|idc| region_to_wire(&idc.region)),
        r#type: place.host_type.as_ref().map(host_type_to_wire),
        policy: policy_to_wire(&view.policy),
        agent_trouble: view.trouble.clone(),
    }
}

fn policy_to_wire(policy: &LocalPolicy) -> Option<v1::HostPolicy> {
    let LocalPolicy { protected, refusal } = policy;
    (!policy.is_open()).then(|| v1::HostPolicy {
        protected_processes: protected.iter().cloned().collect(),
        refuses_orders: refusal.is_some(),
        reason: refusal.as_ref().map(|refusal| refusal.reason.clone()).unwrap_or_default(),
        operator: refusal.as_ref().map(|refusal| refusal.principal.clone()).unwrap_or_default(),
        begin_time: refusal.as_ref().and_then(|refusal| refusal.since).map(time),
    })
}

fn host_status(status: HostStatus) -> v1::HostStatus {
    match status {
        HostStatus::New => v1::HostStatus::New,
        HostStatus::Available => v1::HostStatus::Available,
        HostStatus::Offline => v1::HostStatus::Offline,
    }
}

fn kind_to_wire(kind: HostKind) -> v1::HostKind {
    match kind {
        HostKind::PhysicalMachine => v1::HostKind::DedicatedPhysicalMachine,
        HostKind::Container => v1::HostKind::DedicatedContainer,
        HostKind::Ecs => v1::HostKind::DedicatedEcs,
    }
}

/// The same for who watches: without ages, which would be news all the time.
pub(crate) fn host_to_watch(view: &HostView) -> v1::Host {
    let mut host = host_to_wire(view);
    host.report_age = None;
    host.clones.iter_mut().for_each(|clone| clone.report_age = None);
    host
}

/// The same of a process; and without its output, as in lists.
pub(crate) fn process_to_watch(process: &Process) -> v1::AgentProcess {
    let mut process = process_in_list(process);
    process.elapsed_time = None;
    process.last_active_time = None;
    process.observed_age = None;
    process
}

fn maintenance_to_wire(maintenance: &Maintenance) -> v1::HostMaintenance {
    let Maintenance { operator, reason, since, until } = maintenance;
    v1::HostMaintenance {
        operator: operator.clone(),
        reason: reason.clone(),
        begin_time: Some(time(*since)),
        end_time: until.map(time),
    }
}

fn clone_to_wire(twin: &Twin) -> v1::AgentClone {
    let Twin { agent: Agent { incarnation: _, name, address, machine, boot_id }, last } = twin;
    v1::AgentClone {
        name: name.clone(),
        address: address.clone(),
        machine: machine.clone(),
        boot_id: boot_id.clone(),
        report_age: last.elapsed().try_into().ok(),
    }
}

pub(crate) fn agent_to_wire(view: &HostView, processes: &[Process]) -> v1::HostAgent {
    let facts = &view.host.facts;
    v1::HostAgent {
        id: view.host.id.get(),
        host_id: view.host.id.get(),
        version: facts.version.clone(),
        install_home: facts.install_home.clone(),
        log_home: facts.log_home.clone(),
        last_available_time: view.host.last_report_time.map(time),
        inner_ip_address: facts.inner_ip_address().into(),
        status: agent_status(view).into(),
        processes: processes.iter().map(process_in_list).collect(),
        create_time: Some(time(view.host.create_time)),
        update_time: Some(time(view.host.update_time)),
        tracker: facts.tracker.clone(),
        tracker_reason: facts.tracker_reason.clone(),
    }
}

fn agent_status(view: &HostView) -> v1::HostAgentStatus {
    match view.status {
        HostStatus::New => v1::HostAgentStatus::Unspecified,
        HostStatus::Available | HostStatus::Offline => status_while(view.online, view.host.agent_state),
    }
}

/// What an agent is doing: what it was, where it does not report, is not known.
pub(super) fn status_while(online: bool, state: AgentState) -> v1::HostAgentStatus {
    match state {
        _ if !online => v1::HostAgentStatus::Offline,
        AgentState::Available => v1::HostAgentStatus::Available,
        AgentState::Stopping => v1::HostAgentStatus::Stopping,
        AgentState::Starting => v1::HostAgentStatus::Starting,
        AgentState::Restarting => v1::HostAgentStatus::Restarting,
        AgentState::Stopped => v1::HostAgentStatus::Stopped,
    }
}

/// A process as one of many: without its output, of which a thousand processes have too much for one message.
pub(crate) fn process_in_list(process: &Process) -> v1::AgentProcess {
    let mut told = process_to_wire(process);
    if let Some(exit) = &mut told.last_exit {
        exit.last_output.clear();
    }
    told
}

pub(crate) fn piece_to_wire(piece: Piece) -> v1::ReadAgentProcessLogResponse {
    let Piece { offset, data } = piece;
    v1::ReadAgentProcessLogResponse { offset, data }
}

pub(crate) fn process_to_wire(process: &Process) -> v1::AgentProcess {
    let now = Timestamp::now();
    let seen = process.observed.as_ref();
    let alive = seen.and_then(|seen| seen.alive.as_ref());
    v1::AgentProcess {
        id: process.id.get(),
        host_id: process.host.get(),
        alias: process.alias.clone(),
        status: match seen {
            None => v1::AgentProcessStatus::Unspecified,
            Some(seen) if seen.alive.is_some() => v1::AgentProcessStatus::Started,
            Some(_) => v1::AgentProcessStatus::Stopped,
        }
        .into(),
        pid: alive.map_or(0, |alive| alive.pid),
        user: alive.map(|alive| alive.user.clone()),
        start_command: alive.map(|alive| alive.start_command.clone()),
        ports: alive.map(|alive| alive.ports.clone()),
        elapsed_time: alive.map(|alive| whole_seconds(now.duration_since(alive.start_time))),
        last_active_time: seen.and_then(|seen| seen.last_active_time).map(time),
        operable: process.operable,
        log_file_pattern: process.log_file_pattern.clone(),
        create_time: Some(time(process.create_time)),
        update_time: Some(time(process.update_time)),
        phase: seen.map_or(v1::AgentProcessPhase::Unspecified, |seen| phase(seen.phase)).into(),
        generation: seen.map_or(0, |seen| seen.generation),
        desired_running: seen.is_some_and(|seen| seen.desired_running),
        last_exit: seen.and_then(|seen| seen.last_exit.as_ref()).map(exit_to_wire),
        leftovers: seen.map(|seen| seen.leftovers.iter().map(leftover_to_wire).collect()).unwrap_or_default(),
        declared: process.declared,
        observed_age: process
            .observed_time
            .filter(|_| process.fresh)
            .map(|at| duration(now.duration_since(at).max(SignedDuration::ZERO))),
        trouble: seen.map(|seen| seen.trouble.clone()).unwrap_or_default(),
        next_start_time: seen.and_then(|seen| seen.next_start_time).map(time),
        endings: seen.map_or(0, |seen| seen.endings),
        grouped: seen.is_some_and(|seen| seen.grouped),
        not_applied: seen.map(|seen| seen.not_applied.clone()).unwrap_or_default(),
    }
}

fn phase(phase: Phase) -> v1::AgentProcessPhase {
    match phase {
        Phase::Starting => v1::AgentProcessPhase::Starting,
        Phase::Running => v1::AgentProcessPhase::Running,
        Phase::Stopping => v1::AgentProcessPhase::Stopping,
        Phase::Backoff => v1::AgentProcessPhase::Backoff,
        Phase::Stopped => v1::AgentProcessPhase::Stopped,
        Phase::Failed => v1::AgentProcessPhase::Failed,
    }
}

fn exit_to_wire(exit: &ExitReport) -> v1::ExitReport {
    v1::ExitReport {
        pid: exit.pid,
        exit_code: exit.exit_code,
        signal: exit.signal.clone(),
        escalated: exit.escalated,
        stop_duration: exit.stop_duration.map(duration),
        finish_time: exit.finish_time.map(time),
        note: exit.note.clone(),
        core_dumped: exit.core_dumped,
        oom_killed: exit.oom_killed,
        rungs: exit.rungs.iter().map(rung_to_wire).collect(),
        cpu_time: exit.cpu_time.map(duration),
        peak_memory_bytes: exit.peak_memory,
        last_output: exit.last_output.clone(),
    }
}

fn rung_to_wire(rung: &Rung) -> v1::Rung {
    v1::Rung { step: rung.step.clone(), duration: Some(duration(rung.duration)) }
}

fn leftover_to_wire(leftover: &Leftover) -> v1::Leftover {
    v1::Leftover { pid: leftover.pid, command: leftover.command.clone() }
}

/// A task as it is shown. `waits_for` says what holds hosts of a batch up.
pub(crate) fn task_to_wire(task: &Task, waits_for: Vec<String>) -> v1::Task {
    let standing = task.standing();
    v1::Task {
        id: task.id.get(),
        name: task.name.clone(),
        host_id: task.host().map_or(0, HostId::get),
        status: status_to_wire(standing.status()).into(),
        state: state_to_wire(standing).into(),
        operation: operation_to_wire(task.state.operation()).into(),
        creator: task.creator.clone(),
        creator_id: task.creator_id.get(),
        executor: task.executor.clone(),
        create_time: Some(time(task.create_time)),
        start_time: Some(time(task.create_time)), // its first step is ready at birth
        finish_time: task.state.last_change().filter(|_| !standing.is_open()).map(time),
        prohibit_rollback: task.prohibit_rollback,
        subtasks: task.graph.steps.iter().map(|step| step_to_wire(task, step)).collect(),
        trace_id: task.trace.to_string(),
        reason: task.reason.clone(),
        batch: task.graph.batch.as_ref().map(|batch| batch_to_wire(task, batch, waits_for)),
        version: task.seen,
    }
}

pub(super) fn status_to_wire(status: TaskStatus) -> v1::TaskStatus {
    match status {
        TaskStatus::Running => v1::TaskStatus::Running,
        TaskStatus::Failed => v1::TaskStatus::Failed,
        TaskStatus::Successful => v1::TaskStatus::Successful,
    }
}

fn state_to_wire(state: TaskState) -> v1::TaskState {
    match state {
        TaskState::Running => v1::TaskState::Running,
        TaskState::Paused => v1::TaskState::Paused,
        TaskState::Canceling => v1::TaskState::Canceling,
        TaskState::RollingBack => v1::TaskState::RollingBack,
        TaskState::Failed => v1::TaskState::Failed,
        TaskState::Cancelled => v1::TaskState::Cancelled,
        TaskState::Stuck => v1::TaskState::Stuck,
        TaskState::RollbackStuck => v1::TaskState::RollbackStuck,
        TaskState::Successful => v1::TaskState::Successful,
        TaskState::RolledBack => v1::TaskState::RolledBack,
    }
}

pub(super) fn operation_to_wire(operation: Operation) -> v1::TaskOperation {
    match operation {
        Operation::Execute => v1::TaskOperation::Execute,
        Operation::Retry => v1::TaskOperation::Retry,
        Operation::Rollback => v1::TaskOperation::Rollback,
        Operation::Skip => v1::TaskOperation::Skip,
        Operation::Cancel => v1::TaskOperation::Cancel,
    }
}

fn step_to_wire(task: &Task, step: &Step) -> v1::Subtask {
    let StepState { status, operation, attempt, start_time, finish_time, undo: _, resumed: _ } =
        task.state.shown(&task.graph, step);
    let of_one_of_many = task.graph.batch.is_some() && step.lane < task.hosts().len();
    v1::Subtask {
        id: step.id.get(),
        name: step.name.clone(),
        class_name: step.class_name.clone(),
        status: match status {
            StepStatus::Waiting if task.state.is_ready(step) => v1::SubtaskStatus::Ready,
            StepStatus::Waiting | StepStatus::Undone => v1::SubtaskStatus::Pending,
            StepStatus::ToUndo => v1::SubtaskStatus::Ready,
            StepStatus::Running(_) | StepStatus::Undoing(_) => v1::SubtaskStatus::Running,
            StepStatus::Canceling(_) => v1::SubtaskStatus::Canceling,
            StepStatus::Failed { .. } | StepStatus::UndoFailed { .. } => v1::SubtaskStatus::Failed,
            StepStatus::Successful => v1::SubtaskStatus::Successful,
        }
        .into(),
        operation: operation_to_wire(operation).into(),
        run_time: attempt,
        series_id: step.series_id,
        timeout: i32::try_from(step.timeout.as_secs()).unwrap_or(i32::MAX),
        upstreams: step.upstreams.iter().map(|id| id.get()).collect(),
        downstreams: step.downstreams.iter().map(|id| id.get()).collect(),
        executor: if start_time.is_some() { task.executor.clone() } else { String::new() },
        create_time: Some(time(task.create_time)),
        start_time: start_time.map(time),
        finish_time: finish_time.map(time),
        prohibit_rollback: task.prohibit_rollback,
        error: match status {
            StepStatus::Failed { reason, message, .. } | StepStatus::UndoFailed { reason, message } => {
                Some(v1::SubtaskError { reason, message })
            }
            StepStatus::Waiting
            | StepStatus::Running(_)
            | StepStatus::Canceling(_)
            | StepStatus::Successful
            | StepStatus::ToUndo
            | StepStatus::Undoing(_)
            | StepStatus::Undone => None,
        },
        parallel_idx: i32::try_from(step.lane).ok().filter(|_| of_one_of_many).unwrap_or(-1),
        host_id: task.host_of(step).map_or(0, HostId::get),
    }
}

pub(crate) fn audit_to_wire(row: AuditRow) -> v1::AuditRecord {
    let AuditRow {
        id,
        time: at,
        principal,
        action,
        target,
        reason,
        allowed,
        outcome,
        trace_id,
        operation_id,
        mac,
    } = row;
    v1::AuditRecord {
        id,
        time: Some(time(at)),
        principal,
        action,
        target,
        reason,
        decision: if allowed { v1::AuditDecision::Allow } else { v1::AuditDecision::Deny }.into(),
        outcome,
        trace_id,
        operation_id,
        mac,
    }
}

pub(crate) fn page_to_wire(page: Page, total: u64) -> v1::Page {
    let size = u64::try_from(page.size).unwrap_or(1).max(1);
    v1::Page {
        number: page.number,
        size: page.size,
        total_elements: i64::try_from(total).unwrap_or(i64::MAX),
        total_pages: i32::try_from(total.div_ceil(size)).unwrap_or(i32::MAX),
    }
}

pub(crate) fn time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn duration(duration: SignedDuration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

fn whole_seconds(duration: SignedDuration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs().max(0), nanos: 0 }
}

#[cfg(test)]
mod tests {
    use belay_proto::agent::v1 as agent;

    use super::*;
    use crate::convert::agent::observed;

    /// The process that a caller is shown where an agent says this.
    fn told(seen: agent::ObservedProcess) -> v1::AgentProcess {
        process_to_wire(&process(seen))
    }

    fn process(seen: agent::ObservedProcess) -> Process {
        let (alias, seen) =
            observed(agent::ObservedProcess { alias: "obstat2".into(), ..seen }).expect("it is read");
        let mut process = Process::of_test(20, 185, &alias);
        process.observe(seen, Timestamp::now());
        process
    }

    /// One of the two documented states is told of every phase: whether anything of it is alive.
    #[test]
    fn a_starting_process_is_started_when_something_of_it_is_alive() {
        let starting =
            agent::ObservedProcess { phase: agent::ProcessPhase::Starting.into(), ..Default::default() };
        let without_pid = told(starting.clone());
        assert_eq!(without_pid.status(), v1::AgentProcessStatus::Stopped);
        assert_eq!(without_pid.phase(), v1::AgentProcessPhase::Starting);
        let start_time = Some(prost_types::Timestamp::default());
        let with_pid = told(agent::ObservedProcess { pid: 7, start_time, ..starting });
        assert_eq!(with_pid.status(), v1::AgentProcessStatus::Started);
        assert_eq!(with_pid.phase(), v1::AgentProcessPhase::Starting);
    }

    #[test]
    fn a_list_tells_everything_but_output() {
        let exit = agent::ExitReport { pid: 7, last_output: vec!["x".into()], ..Default::default() };
        let process = process(agent::ObservedProcess {
            phase: agent::ProcessPhase::Failed.into(),
            last_exit: Some(exit),
            ..Default::default()
        });
        let listed = process_in_list(&process).last_exit.expect("a report");
        assert_eq!(listed, v1::ExitReport { pid: 7, ..Default::default() });
    }

    #[test]
    fn what_an_agent_saw_is_told_in_full() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let finish_time = Some(prost_types::Timestamp { seconds: 5, nanos: 6 });
        let process = told(agent::ObservedProcess {
            phase: agent::ProcessPhase::Backoff.into(),
            trouble: "it exited with 3".into(),
            next_start_time: finish_time,
            endings: 4,
            grouped: true,
            not_applied: vec!["nice = 5: not permitted".into()],
            last_exit: Some(agent::ExitReport {
                pid: 7,
                exit_code: Some(3),
                signal: None,
                escalated: true,
                stop_duration: seconds(40),
                finish_time,
                note: "it was adopted".into(),
                core_dumped: true,
                oom_killed: true,
                rungs: vec![agent::Rung { step: "SIGTERM".into(), duration: seconds(30) }],
                cpu_time: seconds(2),
                peak_memory_bytes: Some(4096),
                last_output: vec!["no such file".into()],
            }),
            ..Default::default()
        });
        assert_eq!(process.trouble, "it exited with 3");
        assert_eq!(process.next_start_time, finish_time);
        assert_eq!((process.endings, process.grouped), (4, true));
        assert_eq!(process.not_applied, ["nice = 5: not permitted"]);
        let expected = v1::ExitReport {
            pid: 7,
            exit_code: Some(3),
            signal: None,
            escalated: true,
            stop_duration: seconds(40),
            finish_time,
            note: "it was adopted".into(),
            core_dumped: true,
            oom_killed: true,
            rungs: vec![v1::Rung { step: "SIGTERM".into(), duration: seconds(30) }],
            cpu_time: seconds(2),
            peak_memory_bytes: Some(4096),
            last_output: vec!["no such file".into()],
        };
        assert_eq!(process.last_exit, Some(expected));
    }
}
