//! Every place at which the server can be told to fail while it has a task, and what has to happen for it to come by; and every
//! place at which it, or another part, fails while that changes who is believed.

use std::{fs, path::Path};

/// What happens while a place is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Story {
    /// A stop, a start or a restart, of one host or of many.
    Order,
    /// One of many hosts.
    Batch,
    /// A stop.
    Stop,
    /// A start.
    Start,
    /// A restart.
    Restart,
    /// A stop of one host, ordered under an idempotency key.
    Key,
    /// The same of many hosts.
    BatchKey,
    /// The way back of a stop, alone or in a restart.
    UndoStop,
    /// The way back of a start, alone or in a restart.
    UndoStart,
    /// A task that failed is retried.
    Retry,
    /// A task that failed is rolled back.
    Rollback,
    /// A step that failed is skipped.
    Skip,
    /// A stop is cancelled while the agents are at it.
    CancelStop,
    /// The same of a start.
    CancelStart,
    /// A batch is paused, and goes on.
    Pause,
    /// The same, and the place is come by when it is told to go on.
    Resume,
    /// A batch whose waves a person lets begin.
    Approve,
    /// A server begins while a task is open.
    Begin,
    /// The same, where the task seems to end every server.
    Suspect,
    /// A retry after an order whose answer was never written down.
    Earlier,
    /// A stop of one process.
    StopOne,
    /// A start of one process.
    StartOne,
    /// A restart of one process.
    RestartOne,
    /// A server begins after a stop of one process of which nobody knows what became.
    Unsettled,
    /// A host is deleted, and added again.
    Move,
}

/// Each place, what happens there, and how to come by.
///
/// A node that is killed when it is `done` has had its effect, and nothing says so: it is repeated, under the same operation
/// id. The same holds of an undo.
pub(super) fn all() -> Vec<(String, &'static str, Story)> {
    let nodes = [
        ("prepare_stop", Story::Stop),
        ("stop_all", Story::Stop),
        ("finish_stop", Story::Stop),
        ("prepare_start", Story::Start),
        ("start_all", Story::Start),
        ("finish_start", Story::Start),
        ("prepare_restart", Story::Restart),
        ("renew_channel", Story::Restart),
        ("start_what_ran", Story::UndoStop),
        ("stop_what_did_not_run", Story::UndoStart),
        ("pre_check_create", Story::Move),
        ("finish_create", Story::Move),
    ];
    let mut places = Vec::new();
    for (node, story) in nodes {
        for when in ["started", "runs", "done", "recorded"] {
            places.push((format!("step.{node}.{when}"), "kill", story));
        }
        places.push((format!("step.{node}.runs"), "panic", story));
    }
    // Of a restart, whose steps in the middle are those of a stop and a start.
    for node in ["stop_all", "start_all", "finish_start"] {
        places.push((format!("step.{node}.done"), "kill", Story::Restart));
    }
    let orders = [
        ("StopAllProcesses", Story::Stop),
        ("StartAllProcesses", Story::Start),
        ("StartProcesses", Story::UndoStop),
        ("StopProcesses", Story::UndoStart),
    ];
    for (verb, story) in orders {
        for when in ["committed", "answered"] {
            places.push((format!("order.{verb}.{when}"), "kill", story));
        }
    }
    let verbs = [
        ("retry", Story::Retry),
        ("rollback", Story::Rollback),
        ("skip", Story::Skip),
        ("cancel", Story::CancelStop),
        ("pause", Story::Pause),
        ("resume", Story::Resume),
        ("approve", Story::Approve),
    ];
    for (verb, story) in verbs {
        for when in ["before", "after"] {
            places.push((format!("verb.{verb}.{when}"), "kill", story));
        }
    }
    for when in ["taken", "carried_out", "kept"] {
        places.push((format!("key.StopHostAgent.{when}"), "kill", Story::Key));
        places.push((format!("key.BatchStopHostAgents.{when}"), "kill", Story::BatchKey));
    }
    for (verb, story) in
        [("Stop", Story::StopOne), ("Start", Story::StartOne), ("Restart", Story::RestartOne)]
    {
        places.push((format!("process.{verb}AgentProcess.checked"), "kill", story));
        places.push((format!("process.{verb}AgentProcess.committed"), "kill", story));
        places.push((format!("process.{verb}Process.answered"), "kill", story));
    }
    let others = [
        ("take.begins", Story::Order),
        ("take.written", Story::Order),
        ("take.committed", Story::Order),
        ("take.enlisted", Story::Order),
        ("batch.laid_out", Story::Batch),
        ("append.written", Story::Order),
        ("append.committed", Story::Order),
        ("append.end.written", Story::Order),
        ("append.end.committed", Story::Order),
        ("runner.ended", Story::Order),
        ("claim.written", Story::Begin),
        ("claim.committed", Story::Begin),
        ("resume.task.begins", Story::Begin),
        ("resume.task.taken_up", Story::Begin),
        ("resume.done", Story::Begin),
        ("resume.suspect.taken_up", Story::Suspect),
        ("retention.begins", Story::Begin),
        ("retention.removed", Story::Begin),
        ("audit.committed", Story::Order),
        ("order.StopAllProcesses.cancelled", Story::CancelStop),
        ("order.StartAllProcesses.cancelled", Story::CancelStart),
        ("earlier.read_back", Story::Earlier),
        ("process.settled", Story::StopOne),
        ("unsettled.found", Story::Unsettled),
        ("hosts.add.written", Story::Move),
        ("hosts.delete.written", Story::Move),
        ("hosts.delete.committed", Story::Move),
        ("host.bind.written", Story::Move),
        ("host.bind.committed", Story::Move),
    ];
    places.extend(others.map(|(place, story)| (place.to_owned(), "kill", story)));
    places
}

/// What changes while a server or a part dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The agent of a new host joins.
    New,
    /// The agent of a host joins again.
    Again,
    /// A gateway joins again.
    Gateway,
    /// One authority takes the place of another.
    Replacement,
    /// The same, and parts follow.
    Following,
}

impl Change {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::New, Self::Again, Self::Gateway, Self::Replacement, Self::Following];
}

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Server,
    Agent,
    Gateway,
}

/// Each place of a change of who is believed, what happens there, to whom, and while what changes.
pub(super) fn joins() -> Vec<(&'static str, &'static str, Who, Change)> {
    let mut places = Vec::new();
    for (change, who) in
        [(Change::New, Who::Agent), (Change::Again, Who::Agent), (Change::Gateway, Who::Gateway)]
    {
        for place in ["join.written", "join.committed", "join.issued"] {
            places.push((place, "kill", Who::Server, change));
        }
        for place in ["join.answered", "join.stored"] {
            places.push((place, "kill", who, change));
        }
    }
    let of_the_server = [
        ("rotate.recorded", "kill"),
        ("authority.stored", "kill"),
        ("authority.published", "kill"),
        ("authority.published", "error"),
        ("authority.changed", "kill"),
        ("authority.changed", "error"),
        ("rotate.stepped", "kill"),
    ];
    places.extend(of_the_server.map(|(place, what)| (place, what, Who::Server, Change::Replacement)));
    for place in ["renew.issued", "standing.committed"] {
        places.push((place, "kill", Who::Server, Change::Following));
    }
    for who in [Who::Agent, Who::Gateway] {
        for place in ["renewal.answered", "renewal.stored"] {
            places.push((place, "kill", who, Change::Following));
        }
    }
    places
}

/// Where a server that has died may die once more.
pub(super) const AGAIN: &[&str] = &[
    "resume.task.begins",
    "resume.done",
    "claim.committed",
    "append.written",
    "append.committed",
    "append.end.written",
    "append.end.committed",
    "claim.written",
    "runner.ended",
    "resume.task.taken_up",
    "retention.begins",
    "retention.removed",
    "step.finish_stop.done",
    "step.finish_start.started",
];

/// A name in the source: what is before anything that is filled in, and what is after it.
#[derive(Debug)]
struct Name(String, String);

impl Name {
    fn is_of(&self, place: &str) -> bool {
        let Self(before, after) = self;
        match after.is_empty() {
            true => place == before,
            false => place.starts_with(before.as_str()) && place.ends_with(after.as_str()),
        }
    }
}

fn in_source(folder: &Path, names: &mut Vec<Name>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            in_source(&path, names);
            continue;
        }
        let text = fs::read_to_string(&path).expect("source");
        for (before, _) in text.match_indices("fail_point(|| ").chain(text.match_indices("fail_io(|| ")) {
            // Where it depends on something what it is called, it is called one or the other.
            let call = text[before..].split(");").next().expect("a call");
            names.extend(call.split('"').skip(1).step_by(2).map(|name| {
                let (before, rest) = name.split_once('{').unwrap_or((name, ""));
                Name(before.to_owned(), rest.split_once('}').unwrap_or_default().1.to_owned())
            }));
        }
    }
}

/// The table is that of the source.
#[test]
fn every_place_is_tried() {
    let mut names = Vec::new();
    let all_parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in ["server/src", "gateway/src", "proto/src/tls"] {
        in_source(&all_parts.join(folder), &mut names);
    }
    let (places, joins) = (all(), joins());
    let tried = places.iter().map(|(place, ..)| place.as_str()).chain(joins.iter().map(|(place, ..)| *place));
    let tried: Vec<_> = tried.chain(AGAIN.iter().copied()).collect();
    for name in &names {
        assert!(tried.iter().any(|place| name.is_of(place)), "{name:?} is not tried");
    }
    for place in tried {
        assert!(names.iter().any(|name| name.is_of(place)), "{place} is nowhere");
    }
    let mut different: Vec<_> = places.iter().map(|(place, ..)| place).collect();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() >= 30, "{different:?}");
}
