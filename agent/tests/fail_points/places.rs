//! Every place at which the agent can be told to fail, and what has to happen for it to come by.

use std::{fs, path::Path};

/// What happens while a place is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    /// Any order.
    Order,
    /// An order that stops.
    Stop,
    /// One that stops a process that does not end when it is asked to.
    Kill,
    /// One that stops a process whose child left its group.
    Rest,
    /// One that stops a process with a hook.
    Hook,
    /// An order that starts.
    Start,
    /// An order that was answered already.
    Again,
    /// An order that is cancelled under way.
    Cancel,
    /// An order that is cancelled before it arrives.
    Void,
    /// An order on the host itself.
    Local,
    /// Another life of the agent, in the middle of an order.
    Begin,
    /// The same, after processes have ended.
    Gone,
    /// Another configuration.
    Reload,
    /// Another program.
    Upgrade,
}

/// Each place, what happens there, and how to come by.
pub(crate) const PLACES: &[(&str, &str, Story)] = &[
    ("order.arrived", "kill", Story::Order),
    ("order.joined", "kill", Story::Again),
    ("order.accepted", "kill", Story::Order),
    ("order.wished", "kill", Story::Order),
    ("order.answers", "kill", Story::Order),
    ("operation.ended", "kill", Story::Order),
    ("operation.concluded", "kill", Story::Order),
    ("cancel.arrived", "kill", Story::Cancel),
    ("cancel.accepted", "kill", Story::Cancel),
    ("cancel.answers", "kill", Story::Cancel),
    ("cancel.voided", "kill", Story::Void),
    ("hook.begins", "kill", Story::Hook),
    ("hook.ended", "kill", Story::Hook),
    ("ask.group.begins", "kill", Story::Stop),
    ("ask.group.sent", "kill", Story::Stop),
    ("ask.rest.begins", "kill", Story::Rest),
    ("ask.rest.sent", "kill", Story::Rest),
    ("kill.begins", "kill", Story::Kill),
    ("kill.sent", "kill", Story::Kill),
    ("gone.proven", "kill", Story::Stop),
    ("gone.written", "kill", Story::Stop),
    ("start.begins", "kill", Story::Start),
    ("start.made", "kill", Story::Start),
    ("start.heard", "kill", Story::Start),
    ("start.written", "kill", Story::Start),
    ("journal.epoch.begins", "kill", Story::Order),
    ("journal.epoch.written", "kill", Story::Order),
    ("journal.accepted.begins", "kill", Story::Order),
    ("journal.accepted.begins", "error", Story::Order),
    ("journal.accepted.written", "kill", Story::Order),
    ("journal.desired.begins", "kill", Story::Order),
    ("journal.desired.written", "kill", Story::Order),
    ("journal.stopping.begins", "kill", Story::Stop),
    ("journal.stopping.begins", "error", Story::Stop),
    ("journal.stopping.written", "kill", Story::Stop),
    ("journal.ended.begins", "kill", Story::Stop),
    ("journal.ended.written", "kill", Story::Stop),
    ("journal.starting.begins", "kill", Story::Start),
    ("journal.starting.written", "kill", Story::Start),
    ("journal.started.begins", "kill", Story::Start),
    ("journal.started.begins", "error", Story::Start),
    ("journal.started.written", "kill", Story::Start),
    ("journal.concluded.begins", "kill", Story::Order),
    ("journal.concluded.written", "kill", Story::Order),
    ("journal.sync", "kill", Story::Order),
    ("journal.sync", "error", Story::Order),
    ("journal.synced", "kill", Story::Order),
    ("journal.boot.begins", "kill", Story::Begin),
    ("journal.boot.written", "kill", Story::Begin),
    ("replace.written", "kill", Story::Begin),
    ("replace.written", "error", Story::Begin),
    ("replace.renamed", "kill", Story::Begin),
    ("recover.begins", "kill", Story::Begin),
    ("recover.surveyed", "kill", Story::Begin),
    ("recover.declared", "kill", Story::Begin),
    ("recover.resumed", "kill", Story::Begin),
    ("adopt.begins", "kill", Story::Begin),
    ("adopt.found", "kill", Story::Begin),
    ("adopt.held", "kill", Story::Begin),
    ("adopt.gone", "kill", Story::Gone),
    ("report.hello", "kill", Story::Begin),
    ("report.welcomed", "kill", Story::Begin),
    ("report.changes", "kill", Story::Order),
    ("report.local", "kill", Story::Local),
    ("report.acknowledged", "kill", Story::Local),
    ("journal.reported.begins", "kill", Story::Local),
    ("journal.reported.written", "kill", Story::Local),
    ("reload.planned", "kill", Story::Reload),
    ("reload.removed", "kill", Story::Reload),
    ("reload.ordered", "kill", Story::Reload),
    ("reload.done", "kill", Story::Reload),
    ("removed.gone", "kill", Story::Reload),
    ("removed.forgotten", "kill", Story::Reload),
    ("upgrade.tried", "kill", Story::Upgrade),
    ("upgrade.hands_over", "kill", Story::Upgrade),
    ("upgrade.taken_over", "kill", Story::Upgrade),
];

/// Where the next life of the agent may die too.
pub(crate) const AGAIN: &[&str] = &[
    "recover.begins",
    "recover.surveyed",
    "adopt.found",
    "recover.declared",
    "recover.resumed",
    "replace.written",
    "replace.renamed",
    "journal.boot.written",
];

/// Places of which nothing is said here: unit tests kill the rotation of a log after each of its steps; who joins dies in the
/// tests of all parts (`tests/it/deaths`).
const ELSEWHERE: &[&str] = &["rotate.", "join.stored"];

/// The names in the source, each up to what is filled in.
fn in_source(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_source(&path, names);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (before, _) in text.match_indices("fail_point(|| ").chain(text.match_indices("fail_io(|| ")) {
            let name = text[before..].split('"').nth(1).unwrap();
            names.push(name.split('{').next().unwrap().to_owned());
        }
    }
}

#[test]
fn every_place_is_tried() {
    let mut names = Vec::new();
    in_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    assert!(names.len() >= 20, "{names:?}");
    for name in &names {
        let is_tried = PLACES.iter().any(|(place, ..)| place.starts_with(name.as_str()));
        assert!(is_tried || ELSEWHERE.contains(&name.as_str()), "{name}");
    }
    for (place, ..) in PLACES {
        assert!(names.iter().any(|name| place.starts_with(name.as_str())), "{place} is nowhere");
    }
}
