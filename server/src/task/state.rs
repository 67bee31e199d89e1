//! The state of a task: a pure fold of its log, and the one function that says what comes next.

use std::collections::BTreeMap;

use belay_proto::SubtaskId;
use jiff::Timestamp;

use super::{Attempt, Event, Step, TaskStatus};

/// Where every step of a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    steps: BTreeMap<i64, StepState>,
}

/// Where one step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepState {
    pub(crate) status: StepStatus,
    /// From 1.
    pub(crate) attempt: i32,
    pub(crate) start_time: Option<Timestamp>,
    pub(crate) finish_time: Option<Timestamp>,
}

/// What a step is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepStatus {
    /// It waits, for an upstream step or to be taken.
    Waiting,
    /// An attempt runs, or ran when a server was ended.
    Running(Attempt),
    /// It failed.
    Failed { reason: String, message: String },
    /// It is done.
    Successful,
}

/// What the one who runs a task does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run these steps; those with an attempt were under way already.
    Run(Vec<(SubtaskId, Option<Attempt>)>),
    /// Nothing is left to run.
    End(TaskStatus),
}

impl State {
    /// Reads a whole log.
    pub(crate) fn replay<'a>(log: impl IntoIterator<Item = &'a (Timestamp, Event)>) -> Self {
        let mut state = Self::default();
        for (time, event) in log {
            state.apply(*time, event);
        }
        state
    }

    /// Takes in one event. A result of an attempt that is not the running one changes nothing.
    pub(crate) fn apply(&mut self, time: Timestamp, event: &Event) {
        match event {
            Event::Started { subtask, attempt, operation } => {
                let step = self.steps.entry(*subtask).or_insert_with(StepState::fresh);
                // What is done is never run again, and an attempt never comes back.
                if step.status == StepStatus::Successful || *attempt < step.attempt {
                    return;
                }
                step.attempt = *attempt;
                step.start_time = Some(time);
                step.finish_time = None;
                step.status = StepStatus::Running(Attempt { number: *attempt, operation: *operation });
            }
            Event::Resumed { .. } => {}
            Event::Succeeded { subtask, attempt } => {
                self.finish(*subtask, *attempt, time, StepStatus::Successful)
            }
            Event::Failed { subtask, attempt, reason, message } => {
                let failed = StepStatus::Failed { reason: reason.clone(), message: message.clone() };
                self.finish(*subtask, *attempt, time, failed);
            }
        }
    }

    fn finish(&mut self, subtask: i64, attempt: i32, time: Timestamp, status: StepStatus) {
        let Some(step) = self.steps.get_mut(&subtask) else {
            return;
        };
        if matches!(step.status, StepStatus::Running(running) if running.number == attempt) {
            step.status = status;
            step.finish_time = Some(time);
        }
    }

    /// Where a step stands.
    pub(crate) fn step(&self, id: SubtaskId) -> StepState {
        self.steps.get(&id.get()).cloned().unwrap_or_else(StepState::fresh)
    }

    /// Whether a step could run now, though it does not yet.
    pub(crate) fn is_ready(&self, step: &Step) -> bool {
        self.step(step.id).status == StepStatus::Waiting
            && step.upstreams.iter().all(|&upstream| self.step(upstream).status == StepStatus::Successful)
    }

    /// What comes next. A failed step ends the task once nothing runs any more; no step begins after it.
    pub(crate) fn next(&self, steps: &[Step]) -> Next {
        let running: Vec<_> = steps
            .iter()
            .filter_map(|step| match self.step(step.id).status {
                StepStatus::Running(attempt) => Some((step.id, Some(attempt))),
                StepStatus::Waiting | StepStatus::Failed { .. } | StepStatus::Successful => None,
            })
            .collect();
        let failed = self.has_failed(steps);
        let ready = steps.iter().filter(|step| !failed && self.is_ready(step)).map(|step| (step.id, None));
        let run: Vec<_> = running.into_iter().chain(ready).collect();
        match (run.is_empty(), failed) {
            (false, _) => Next::Run(run),
            (true, true) => Next::End(TaskStatus::Failed),
            (true, false) => Next::End(TaskStatus::Successful),
        }
    }

    /// How the task stands.
    pub(crate) fn status(&self, steps: &[Step]) -> TaskStatus {
        match self.next(steps) {
            Next::Run(_) => TaskStatus::Running,
            Next::End(status) => status,
        }
    }

    /// When the last step ended; meaningful once the task has ended.
    pub(crate) fn finish_time(&self) -> Option<Timestamp> {
        self.steps.values().filter_map(|step| step.finish_time).max()
    }

    fn has_failed(&self, steps: &[Step]) -> bool {
        steps.iter().any(|step| matches!(self.step(step.id).status, StepStatus::Failed { .. }))
    }
}

impl StepState {
    fn fresh() -> Self {
        Self { status: StepStatus::Waiting, attempt: 1, start_time: None, finish_time: None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::task::Node;

    fn id(number: i64) -> SubtaskId {
        SubtaskId::try_from(number).expect("above 0")
    }

    /// The documented shape of a stop: 3 → 2 → 1.
    fn chain() -> Vec<Step> {
        let step = |number: i64, node, upstreams: &[i64], downstreams: &[i64]| Step {
            id: id(number),
            node,
            name: String::new(),
            class_name: String::new(),
            series_id: 0,
            timeout: Duration::from_secs(1),
            upstreams: upstreams.iter().copied().map(id).collect(),
            downstreams: downstreams.iter().copied().map(id).collect(),
        };
        vec![
            step(3, Node::PrepareStop, &[], &[2]),
            step(2, Node::StopAll, &[3], &[1]),
            step(1, Node::FinishStop, &[2], &[]),
        ]
    }

    fn started(subtask: i64, attempt: i32) -> Event {
        Event::Started { subtask, attempt, operation: Uuid::nil() }
    }

    fn succeeded(subtask: i64, attempt: i32) -> Event {
        Event::Succeeded { subtask, attempt }
    }

    fn failed(subtask: i64, attempt: i32) -> Event {
        Event::Failed { subtask, attempt, reason: "LEFTOVERS".into(), message: "pid 7 lives".into() }
    }

    fn replay(events: &[Event]) -> State {
        let log: Vec<_> = events.iter().map(|event| (Timestamp::UNIX_EPOCH, event.clone())).collect();
        State::replay(&log)
    }

    #[track_caller]
    fn check(events: &[Event], expected: &str) {
        let told = match replay(events).next(&chain()) {
            Next::End(status) => status.as_str().to_owned(),
            Next::Run(steps) => steps
                .iter()
                .map(|(id, attempt)| format!("{}{id}", if attempt.is_some() { "resume " } else { "run " }))
                .collect::<Vec<_>>()
                .join(", "),
        };
        assert_eq!(told, expected, "{events:?}");
    }

    #[test]
    fn one_step_after_the_other() {
        check(&[], "run 3");
        check(&[started(3, 1)], "resume 3");
        check(&[started(3, 1), succeeded(3, 1)], "run 2");
        check(&[started(3, 1), succeeded(3, 1), started(2, 1), succeeded(2, 1)], "run 1");
        check(&[started(3, 1), failed(3, 1)], "FAILED");
        let whole = [(3, 1), (2, 1), (1, 1)]
            .map(|(step, attempt)| [started(step, attempt), succeeded(step, attempt)]);
        check(&whole.concat(), "SUCCESSFUL");
    }

    /// Hazards D09 and D10: the result of an attempt that was replaced is no result.
    #[test]
    fn a_late_result_changes_nothing() {
        check(&[started(3, 1), failed(3, 1), started(3, 2), succeeded(3, 1)], "resume 3");
        check(&[started(3, 1), failed(3, 1), succeeded(3, 1)], "FAILED");
        check(&[succeeded(3, 1)], "run 3");
    }

    proptest! {
        /// Hazard D05 and the order of the graph: whatever the log says, no step begins before all its upstreams have
        /// succeeded, and a step that is done is never run again.
        #[test]
        fn no_step_before_its_upstreams_and_none_twice(
            log in prop::collection::vec((1i64..=3, 1i32..=2, 0u8..3), 0..16),
        ) {
            let events: Vec<_> = log
                .into_iter()
                .map(|(step, attempt, kind)| match kind {
                    0 => started(step, attempt),
                    1 => succeeded(step, attempt),
                    _ => failed(step, attempt),
                })
                .collect();
            let steps = chain();
            let mut done = std::collections::BTreeSet::new();
            for end in 0..=events.len() {
                let so_far = &events[..end];
                let state = replay(so_far);
                let succeeded_ever = |id: SubtaskId| {
                    so_far.iter().any(|event| matches!(event, Event::Succeeded { subtask, .. } if *subtask == id.get()))
                };
                if let Next::Run(run) = state.next(&steps) {
                    for (id, attempt) in run {
                        prop_assert!(!done.contains(&id), "{} again in {:?}", id, so_far);
                        let step = steps.iter().find(|step| step.id == id).expect("of this task");
                        prop_assert!(attempt.is_some() || step.upstreams.iter().all(|&up| succeeded_ever(up)));
                    }
                }
                done.extend(steps.iter().map(|s| s.id).filter(|&id| state.step(id).status == StepStatus::Successful));
            }
        }
    }
}
