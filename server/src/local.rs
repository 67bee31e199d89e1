//! What people ordered on the hosts themselves, as agents tell it later: it is done, and is not undone here.

use std::sync::Arc;

use belay_proto::{HostId, Trace};
use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::{
    app::App,
    error::Error,
    host::{AgentState, agent_target},
    process::{Phase, Process, target},
    store::{AuditEntry, LocalRecord, OperationOutcome, Recorded},
};

/// An operation that an agent says is older is taken for one of now.
const OLDEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How much of a list of aliases is kept in the audit trail, in bytes.
const LONGEST_LIST: usize = 400;

/// An operation that was ordered on a host and has ended.
#[derive(Debug, Clone)]
pub(crate) struct LocalOperation {
    pub(crate) id: Uuid,
    /// The user on that host who ordered it: nobody whom this server knows.
    pub(crate) user: String,
    pub(crate) verb: LocalVerb,
    pub(crate) aliases: Vec<String>,
    /// When the agent accepted it; `None` where it does not say.
    pub(crate) time: Option<Timestamp>,
    pub(crate) outcome: OperationOutcome,
}

/// What was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalVerb {
    Stop,
    /// Without asking.
    ForceStop,
    Start,
    Restart,
}

impl LocalVerb {
    /// The order's name in the audit trail.
    fn action(self) -> &'static str {
        match self {
            Self::Stop => "StopAgentProcess",
            Self::ForceStop => "ForceStopAgentProcess",
            Self::Start => "StartAgentProcess",
            Self::Restart => "RestartAgentProcess",
        }
    }

    /// The same as agents call it.
    fn rpc(self) -> &'static str {
        match self {
            Self::Stop | Self::ForceStop => "StopProcess",
            Self::Start => "StartProcess",
            Self::Restart => "RestartProcess",
        }
    }
}

/// Writes an operation down with its audit record: once, however often it is reported. What contradicts what is known of
/// that operation changes nothing (hazard A14).
pub(crate) async fn take_in(app: &Arc<App>, host: HostId, operation: LocalOperation) -> Result<(), Error> {
    let now = Timestamp::now();
    let processes = app.fleet.processes(host)?;
    let view = app.fleet.host(host)?;
    let state = agent_state(view.host.agent_state, &operation, &processes);
    let LocalOperation { id, user, verb, aliases, time: told, outcome } = operation;
    let time = told.filter(|told| is_likely(*told, now));
    let at = match (told, time) {
        (Some(told), None) => format!(" at {told} by its clock"),
        _ => String::new(),
    };
    let process = match &aliases[..] {
        [alias] => processes.iter().find(|known| known.alias == *alias).map(|known| known.id),
        _ => None,
    };
    let trace = Trace::of_operation(id.into_bytes());
    let principal = format!("local:{user}@{}", view.host.facts.name);
    let target = process.map_or_else(|| agent_target(host), |process| target(host, process));
    let reason = format!("ordered on the host itself{at}: {}", list(&aliases));
    let audit = AuditEntry::new(principal.clone(), verb.action(), target, reason, trace);
    // A clock that is ahead must not keep the trail from growing old.
    let audit = AuditEntry { time: time.unwrap_or(now).min(now), ..audit };
    let record =
        LocalRecord { id, verb: verb.rpc(), host, process, trace, begun: audit.time, ended: now, outcome };
    match app.store.record_local(record, state, audit).await.map_err(Error::Store)? {
        Recorded::Again => {
            debug!(%host, operation = %id, "An operation of the host itself was reported again.")
        }
        // Acknowledged all the same: told again, it would be as wrong, and nothing after it would be heard.
        Recorded::Contradicts(what) => warn!(
            %host, operation = %id, principal, verb = ?verb, ?aliases,
            "An agent reports an operation of the host itself that can not be: {what}. Nothing is changed.",
        ),
        Recorded::New(set) => {
            info!(%host, operation = %id, principal, verb = ?verb, ?aliases, "An operation of the host itself.");
            if let Some(state) = set {
                app.fleet.set_agent_state(host, state, now);
            }
        }
    }
    Ok(())
}

/// Whether an agent may be believed when something was: not in the future, and not so long ago that it would be forgotten
/// before anybody has read of it. Otherwise what it says is shown, and the time is when it was heard.
fn is_likely(told: Timestamp, now: Timestamp) -> bool {
    let age = now.duration_since(told);
    age >= SignedDuration::ZERO && age <= OLDEST
}

/// What the agent as a whole is meant to be doing after an operation of the host itself, where that changes: what the
/// processes are doing now decides, for the report may come late.
fn agent_state(before: AgentState, operation: &LocalOperation, processes: &[Process]) -> Option<AgentState> {
    let mut declared = processes.iter().filter(|process| process.declared);
    let is_named = |process: &Process| operation.aliases.contains(&process.alias);
    let seen = |process: &Process, such: fn(bool, Phase) -> bool| {
        let observed = process.observed.as_ref().filter(|_| process.fresh);
        observed.is_some_and(|observed| such(observed.desired_running, observed.phase))
    };
    match (before, operation.verb) {
        // A task is about to decide.
        (AgentState::Stopping | AgentState::Starting | AgentState::Restarting, _) => None,
        (AgentState::Available, LocalVerb::Start | LocalVerb::Restart) => None,
        (AgentState::Stopped, LocalVerb::Stop | LocalVerb::ForceStop) => None,
        (AgentState::Available, LocalVerb::Stop | LocalVerb::ForceStop) => {
            let is_stopped = |process| {
                is_named(process) && seen(process, |wanted, phase| !wanted && phase == Phase::Stopped)
            };
            (!operation.aliases.is_empty() && declared.all(is_stopped)).then_some(AgentState::Stopped)
        }
        (AgentState::Stopped, LocalVerb::Start | LocalVerb::Restart) => {
            let is_wanted = |process| is_named(process) && seen(process, |wanted, _| wanted);
            declared.any(is_wanted).then_some(AgentState::Available)
        }
    }
}

fn list(aliases: &[String]) -> String {
    let mut list = aliases.join(", ");
    if list.len() > LONGEST_LIST {
        list.truncate(list.floor_char_boundary(LONGEST_LIST));
        list.push_str(", ...");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Observed;

    fn process(alias: &str, wanted: bool) -> Process {
        let phase = if wanted { Phase::Running } else { Phase::Stopped };
        let observed = Some(Observed::of_test(phase));
        Process { observed, fresh: true, ..Process::of_test(20, 7, alias) }
    }

    #[track_caller]
    fn check(
        before: AgentState,
        verb: LocalVerb,
        aliases: &[&str],
        wanted: [bool; 2],
        after: Option<AgentState>,
    ) {
        let operation = LocalOperation {
            id: Uuid::nil(),
            user: "root".into(),
            verb,
            aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
            time: None,
            outcome: OperationOutcome::Done,
        };
        let [a, b] = wanted;
        assert_eq!(agent_state(before, &operation, &[process("a", a), process("b", b)]), after);
    }

    #[test]
    fn the_agent_as_a_whole_follows_what_is_true_now() {
        use AgentState::{Available, Stopped, Stopping};
        use LocalVerb::{Restart, Start, Stop};
        check(Available, Stop, &["a", "b"], [false, false], Some(Stopped));
        check(Available, Stop, &["a", "b"], [true, false], None);
        check(Available, Stop, &["a"], [false, false], None);
        check(Available, Stop, &[], [false, false], None);
        check(Stopped, Start, &["a"], [true, false], Some(Available));
        check(Stopped, Restart, &["a", "b"], [true, true], Some(Available));
        check(Stopped, Start, &["a"], [false, false], None);
        check(Available, Start, &["a"], [true, true], None);
        check(Stopping, Start, &["a"], [true, true], None);
    }

    /// A clock that is far off decides neither what is forgotten first nor what is never.
    #[test]
    fn an_improbable_time_is_not_believed() {
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        let at = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).expect("a time");
        assert!(is_likely(at(0), now) && is_likely(at(-6 * 86_400), now));
        for unlikely in [at(1), at(40 * 86_400), at(-8 * 86_400), Timestamp::MIN, Timestamp::MAX] {
            assert!(!is_likely(unlikely, now), "{unlikely}");
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let aliases: Vec<_> = (0..1000).map(|number| format!("worker{number}")).collect();
        assert!(list(&aliases).len() < LONGEST_LIST + 10);
        assert_eq!(list(&aliases[..2]), "worker0, worker1");
    }
}
