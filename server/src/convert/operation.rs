//! What an agent answers of an operation: how it stands, and what became of its processes.

use belay_proto::{Problem, Reason, agent::v1 as agent};
use uuid::Uuid;

use super::agent::{MOST_PROCESSES, inventory, one_line, plain, shown};
use crate::{
    agents::Asked,
    process::{Observed, Phase},
    store::OperationOutcome,
};

/// An operation as its agent tells it.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) id: Uuid,
    pub(crate) state: OperationState,
    reason: String,
    message: String,
    pub(crate) processes: Vec<(String, Observed)>,
    pub(crate) changed: Vec<String>,
}

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationState {
    Running,
    Done,
    Failed,
}

impl Operation {
    /// Reads an agent's answer.
    pub(crate) fn read(operation: agent::Operation) -> Result<Self, String> {
        let agent::Operation { id, state, reason, message, processes, changed } = operation;
        let state = match agent::OperationState::try_from(state) {
            Ok(agent::OperationState::Running) => OperationState::Running,
            Ok(agent::OperationState::Done) => OperationState::Done,
            Ok(agent::OperationState::Failed) => OperationState::Failed,
            Ok(agent::OperationState::Unspecified) | Err(_) => return Err(format!("{state} is no state")),
        };
        // What it says goes into logs and the database.
        let id = id.parse().map_err(|_| format!("`{}` is no operation id", one_line(&id)))?;
        Ok(Self {
            id,
            state,
            reason: one_line(&reason),
            message: plain(shown(message)),
            processes: inventory(processes)?,
            changed: changed.iter().take(MOST_PROCESSES).map(|alias| one_line(alias)).collect(),
        })
    }

    /// Holds it against what was asked: an agent may have mixed up its operations, or lie (hazard A14).
    pub(crate) fn check(&self, asked: &Asked) -> Result<(), String> {
        let Asked { id, alias, stops } = asked;
        if self.id != *id {
            return Err(format!("it is about operation {}, and {id} was asked for", self.id));
        }
        // Of all processes, one that was stopped may have been started again before the last one was gone.
        let Some(alias) = alias else { return Ok(()) };
        if let Some((other, _)) = self.processes.iter().find(|(other, _)| other != alias) {
            return Err(format!("it is about process `{}`, and `{alias}` was ordered", one_line(other)));
        }
        if self.state != OperationState::Done {
            return Ok(());
        }
        let Some((_, seen)) = self.processes.first() else {
            return Err(format!("it is done and says nothing of `{alias}`"));
        };
        let is_gone = seen.alive.is_none() && matches!(seen.phase, Phase::Stopped | Phase::Failed);
        if *stops && !is_gone {
            return Err(format!("the stop is done and `{alias}` is in the phase {:?}", seen.phase));
        }
        Ok(())
    }

    /// Whether it was cancelled before any process had its turn.
    pub(crate) fn was_void(&self) -> bool {
        self.state == OperationState::Failed
            && self.reason == Reason::Cancelled.as_str()
            && self.processes.is_empty()
    }

    /// Why it failed, where it did.
    pub(crate) fn failure(&self) -> Option<Problem> {
        let reason = Reason::parse(&self.reason).unwrap_or(Reason::Internal);
        let hint = match reason {
            Reason::Leftovers => {
                "look at what is left on the host; a process in state D ends when its device answers"
            }
            Reason::SignalRefused => {
                "the agent has not the right to signal it: run the agent as root or as the process's user"
            }
            Reason::StartFailed => "see why with `belay process get`, and in the process's log",
            Reason::ProcessProtected => {
                "order what is protected on the host with `belay-agent ctl`, or take it out of `[policy] protect` there"
            }
            Reason::Superseded => "read the process again: a newer order decides what it does now",
            _ => "the agent's log has the cause; search it for the trace id of this request",
        };
        (self.state == OperationState::Failed).then(|| Problem::new(reason, self.message.clone()).hint(hint))
    }

    /// What the database keeps of it.
    pub(crate) fn outcome(&self) -> OperationOutcome {
        match self.state {
            OperationState::Done => OperationOutcome::Done,
            OperationState::Running => OperationOutcome::Unknown,
            OperationState::Failed => {
                OperationOutcome::Failed { reason: self.reason.clone(), message: self.message.clone() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::agent::{LONGEST_NAME, LONGEST_SHOWN, MOST_SHOWN, observed, tests::process};

    /// Hazards A13 and I12: what an agent answers goes into logs and the database.
    #[test]
    fn what_an_agent_answers_of_an_operation_is_bounded() {
        let wire = || agent::Operation {
            id: Uuid::nil().to_string(),
            state: agent::OperationState::Failed.into(),
            reason: "LEFTOVERS\n".repeat(100_000),
            message: "two\nlines".repeat(100_000),
            changed: vec!["a\nb".repeat(1000); 5000],
            ..Default::default()
        };
        let read = Operation::read(wire()).expect("it is cut, not refused");
        assert!(read.message.len() <= LONGEST_SHOWN && read.reason.len() <= LONGEST_NAME);
        assert!(read.changed.len() <= MOST_PROCESSES && read.changed.iter().all(|alias| alias.len() <= 64));
        for text in read.changed.iter().chain([&read.reason, &read.message]) {
            assert!(!text.contains(char::is_control));
        }
        let many = agent::Operation { processes: vec![process(); 1001], ..wire() };
        assert!(Operation::read(many).is_err_and(|why| why.contains("more than 1000")));
        let id = agent::Operation { id: "x\n".repeat(100_000), ..wire() };
        assert!(Operation::read(id).is_err_and(|why| why.len() < 200 && !why.contains('\n')));
        let (_, seen) = observed(agent::ObservedProcess {
            leftovers: vec![agent::Leftover { pid: 7, command: "x".repeat(10_000) }; 5000],
            not_applied: vec!["x".repeat(10_000); 5000],
            ..process()
        })
        .expect("it is cut, not refused");
        assert!(seen.leftovers.len() <= MOST_SHOWN && seen.not_applied.len() <= MOST_SHOWN);
        let texts = seen.leftovers.iter().map(|left| &left.command).chain(&seen.not_applied);
        assert!(texts.clone().count() > 0 && texts.into_iter().all(|text| text.len() <= LONGEST_NAME));
    }

    #[test]
    fn a_refused_signal_tells_what_to_do() {
        let failed = agent::Operation {
            id: Uuid::nil().to_string(),
            state: agent::OperationState::Failed.into(),
            reason: "SIGNAL_REFUSED".into(),
            message: "`obstat2` can not be signalled".into(),
            ..Default::default()
        };
        let problem = Operation::read(failed).expect("it is read").failure().expect("it failed");
        assert_eq!(problem.reason, Reason::SignalRefused);
        assert!(problem.hint.contains("run the agent as root or as the process's user"), "{}", problem.hint);
    }
}
