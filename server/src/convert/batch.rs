//! Batches and their plans, to the wire and back.

use belay_proto::v1;

use crate::task::{
    Batch, Task,
    batch::BatchVerb,
    next::Lane,
    state::{Kind, StepStatus},
};

/// How the hosts of a batch stand.
pub(super) fn batch_to_wire(task: &Task, batch: &Batch, waits_for: Vec<String>) -> v1::Batch {
    let graph = &task.graph;
    let lanes: Vec<_> = (0..graph.lanes.len()).map(|lane| task.state.lane(graph, lane)).collect();
    let mut counts = v1::BatchCounts::default();
    let host = |lane: usize| {
        let state = host_state(task, lane, lanes[lane]);
        *counted(&mut counts, state) += 1;
        v1::BatchHost {
            host_id: graph.hosts[lane].get(),
            wave: number(batch.wave_of(lane) + 1),
            state: state.into(),
            error: error(task, lane, lanes[lane]),
        }
    };
    let hosts = (0..lanes.len()).map(host).collect();
    v1::Batch {
        verb: verb_to_wire(batch.verb).into(),
        hosts,
        waves: batch.waves.iter().copied().map(number).collect(),
        wave: number(task.state.current_wave(batch, &lanes).map_or(batch.waves.len(), |wave| wave + 1)),
        parallel: number(batch.parallel),
        counts: Some(counts),
        waits_for,
        stop_after: number(batch.stop_after.unwrap_or_default()),
        halted: task.state.is_halted(batch, &lanes),
    }
}

fn host_state(task: &Task, lane: usize, stands: Lane) -> v1::BatchHostState {
    let has_begun = || task.graph.lane(lane).any(|step| task.state.step(step.id).start_time.is_some());
    match stands {
        Lane::Waiting => v1::BatchHostState::Waiting,
        Lane::UnderWay => v1::BatchHostState::Running,
        Lane::Successful => v1::BatchHostState::Successful,
        Lane::Failed | Lane::UndoFailed => v1::BatchHostState::Failed,
        Lane::Skipped => v1::BatchHostState::Skipped,
        Lane::Cancelled => v1::BatchHostState::Cancelled,
        // There was nothing to undo.
        Lane::Undone if !has_begun() => v1::BatchHostState::Waiting,
        Lane::Undone => v1::BatchHostState::Undone,
    }
}

fn counted(counts: &mut v1::BatchCounts, state: v1::BatchHostState) -> &mut i32 {
    match state {
        v1::BatchHostState::Unspecified | v1::BatchHostState::Waiting => &mut counts.waiting,
        v1::BatchHostState::Running => &mut counts.running,
        v1::BatchHostState::Successful => &mut counts.successful,
        v1::BatchHostState::Failed => &mut counts.failed,
        v1::BatchHostState::Skipped => &mut counts.skipped,
        v1::BatchHostState::Cancelled => &mut counts.cancelled,
        v1::BatchHostState::Undone => &mut counts.undone,
    }
}

fn error(task: &Task, lane: usize, stands: Lane) -> Option<v1::SubtaskError> {
    if stands == Lane::Skipped {
        let reason = belay_proto::Reason::AgentUnreachable.as_str().into();
        return Some(v1::SubtaskError { reason, message: "the agent did not report".into() });
    }
    let failed = |kind| matches!(kind, Kind::Failed | Kind::UndoFailed);
    let states = task.graph.lane(lane).map(|step| task.state.step(step.id).status);
    states.filter(|status| failed(status.kind())).find_map(|status| match status {
        StepStatus::Failed { reason, message, .. } | StepStatus::UndoFailed { reason, message } => {
            Some(v1::SubtaskError { reason, message })
        }
        _ => None,
    })
}

pub(crate) fn verb_to_wire(verb: BatchVerb) -> v1::BatchVerb {
    match verb {
        BatchVerb::Stop => v1::BatchVerb::Stop,
        BatchVerb::Restart => v1::BatchVerb::Restart,
        BatchVerb::Start => v1::BatchVerb::Start,
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
