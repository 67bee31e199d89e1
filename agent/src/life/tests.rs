mod world;

use super::*;
use crate::{
    config::{HookConfig, StopConfig},
    stop::PROOF,
};

const GRACE: Duration = Duration::from_secs(10);

const fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn rules(restart: Restart) -> Rules {
    Rules {
        restart,
        success_codes: vec![0],
        final_codes: Vec::new(),
        backoff: Backoff::default(),
        stop: Plan::from(&StopConfig::simple(Signal::TERM, GRACE)),
        ready: None,
    }
}

/// A life, the time, and what was asked for so far.
struct Story {
    life: Life,
    now: Time,
}

impl Story {
    fn new(restart: Restart) -> Self {
        Self::with(rules(restart))
    }

    fn with(rules: Rules) -> Self {
        Self { life: Life::stopped(rules, false), now: ms(1_000) }
    }

    /// One that runs and has settled.
    fn running(restart: Restart) -> Self {
        let mut story = Self::new(restart);
        story.check(Event::Start, &["spawn"], Phase::Starting);
        story.check(Event::Started, &[], Phase::Starting);
        story.after(SETTLE);
        story.check(Event::Time, &["look", "watch", "starts: ok"], Phase::Running);
        story
    }

    fn after(&mut self, pause: Duration) {
        self.now += pause;
    }

    #[track_caller]
    fn check(&mut self, event: Event, expected: &[&str], phase: Phase) {
        let moment = Moment { now: self.now, roll: 1.0 };
        let effects = self.life.on(event, moment);
        let told: Vec<_> = effects.iter().map(tell).collect();
        assert_eq!(told, expected);
        assert_eq!(self.life.phase(), phase);
    }
}

fn tell(effect: &Effect) -> String {
    let result = |result: &Result<(), Fault>| match result {
        Ok(()) => "ok".to_owned(),
        Err(Fault::Superseded) => "superseded".to_owned(),
        Err(Fault::Leftovers) => "leftovers".to_owned(),
        Err(Fault::PortsOpen { ports }) => format!("open: {ports:?}"),
        Err(Fault::Refused { .. }) => "refused".to_owned(),
        Err(Fault::NotStarted { why }) => format!("not started: {why}"),
    };
    match effect {
        Effect::Spawn => "spawn".to_owned(),
        Effect::Probe => "probe".to_owned(),
        Effect::Watch => "watch".to_owned(),
        Effect::Hook { .. } => "hook".to_owned(),
        Effect::Pause => "pause".to_owned(),
        Effect::Rest => "rest".to_owned(),
        Effect::Ask(_, Scope::Group) => "ask".to_owned(),
        Effect::Ask(_, Scope::Rest) => "ask the rest".to_owned(),
        Effect::Kill => "kill".to_owned(),
        Effect::Survey => "survey".to_owned(),
        Effect::Gone { exit, .. } => format!("gone: {exit}"),
        Effect::Look => "look".to_owned(),
        Effect::StopsEnd(ended) => format!("stops: {}", result(ended)),
        Effect::StartsEnd(ended) => format!("starts: {}", result(ended)),
    }
}

fn gone(code: i32) -> Event {
    Event::Emptied { exit: Some(Exit::Code(code)), ports: Vec::new() }
}

const STOP: Event = Event::Stop { by: None, force: false };
const RESTART: Event = Event::Restart { by: None };

#[test]
fn a_stop_is_done_when_the_tree_is_empty() {
    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
    story.check(STOP, &["starts: superseded", "stops: ok"], Phase::Stopped);
}

/// Hazard P22: the second stop joins the first, and nobody is asked again.
#[test]
fn two_stops_are_one() {
    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    story.check(STOP, &["starts: superseded"], Phase::Stopping);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
}

/// Hazard P19.
#[test]
fn a_stop_ends_the_back_off() {
    let mut story = Story::running(Restart::Always);
    story.check(gone(1), &["gone: exit code 1", "rest"], Phase::Backoff);
    story.check(STOP, &["starts: superseded", "rest", "stops: ok"], Phase::Stopped);
    story.after(Duration::from_secs(3600));
    story.check(Event::Time, &[], Phase::Stopped);
    assert_eq!(story.life.wake_at(), None);
}

/// Hazard P20: what was being made when the stop came is stopped as well.
#[test]
fn a_stop_interrupts_a_start() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Starting);
    story.check(STOP, &["starts: superseded"], Phase::Starting);
    story.check(Event::Started, &["ask"], Phase::Stopping);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
}

#[test]
fn a_stop_of_what_could_not_be_started_is_done() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Starting);
    story.check(STOP, &["starts: superseded"], Phase::Starting);
    let why = "missing".to_owned();
    story.check(Event::NotStarted { why }, &["stops: ok"], Phase::Stopped);
}

/// Hazard P21: the last accepted order wins.
#[test]
fn a_start_during_a_stop_comes_after_it() {
    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    story.check(Event::Start, &[], Phase::Stopping);
    let effects = ["gone: exit code 0", "stops: ok", "spawn"];
    story.check(gone(0), &effects, Phase::Starting);

    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    story.check(Event::Start, &[], Phase::Stopping);
    story.check(STOP, &["starts: superseded"], Phase::Stopping);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
}

#[test]
fn a_start_overtakes_the_stop_that_waited_for_the_start_before() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Starting);
    story.check(STOP, &["starts: superseded"], Phase::Starting);
    story.check(Event::Start, &["stops: superseded"], Phase::Starting);
    story.check(Event::Started, &[], Phase::Starting);
}

#[test]
fn a_wish_overtakes_the_stop_that_waited_for_the_start_before() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Starting);
    story.check(STOP, &["starts: superseded"], Phase::Starting);
    story.check(Event::Wish { running: true }, &["stops: superseded"], Phase::Starting);
    story.check(Event::Started, &[], Phase::Starting);
}

#[test]
fn a_restart_stops_and_starts() {
    let mut story = Story::running(Restart::Never);
    story.check(RESTART, &["ask"], Phase::Stopping);
    let effects = ["gone: exit code 0", "stops: ok", "spawn"];
    story.check(gone(0), &effects, Phase::Starting);
    story.check(Event::Started, &[], Phase::Starting);
    story.after(SETTLE);
    story.check(Event::Time, &["look", "watch", "starts: ok"], Phase::Running);
}

/// Whoever orders a restart gets an instance that began after the order, also where one had begun a moment before.
#[test]
fn a_restart_is_never_taken_for_a_start_that_is_under_way() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Starting);
    story.check(Event::Started, &[], Phase::Starting);
    story.check(RESTART, &["ask"], Phase::Stopping);
    story.check(RESTART, &[], Phase::Stopping);
    let effects = ["gone: exit code 0", "stops: ok", "spawn"];
    story.check(gone(0), &effects, Phase::Starting);
    story.check(Event::Started, &[], Phase::Starting);
    story.after(SETTLE);
    story.check(Event::Time, &["look", "watch", "starts: ok"], Phase::Running);
}

/// Hazard P10, and the first thing that must always hold: not proven is failed.
#[test]
fn what_outlives_sigkill_is_a_failure_until_it_is_gone() {
    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    story.after(GRACE);
    story.check(Event::Time, &["kill"], Phase::Stopping);
    story.after(PROOF);
    story.check(Event::Time, &["survey"], Phase::Stopping);
    let effects = ["stops: leftovers", "starts: leftovers"];
    story.check(Event::Surveyed, &effects, Phase::Failed);
    story.check(Event::Start, &["starts: leftovers"], Phase::Failed);
    // It was asked and had its grace.
    story.check(STOP, &["starts: superseded", "kill"], Phase::Stopping);
    story.after(PROOF);
    story.check(Event::Time, &["survey"], Phase::Stopping);
    story.check(Event::Surveyed, &effects, Phase::Failed);
    story.check(gone(0), &["gone: exit code 0"], Phase::Stopped);
}

/// Hazard P25.
#[test]
fn a_refused_signal_is_a_failure_at_once() {
    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    let why = "not permitted".to_owned();
    story.check(Event::Refused { why }, &["survey"], Phase::Stopping);
    let effects = ["stops: refused", "starts: refused"];
    story.check(Event::Surveyed, &effects, Phase::Failed);
    // It never was asked.
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
}

/// Hazard P37.
#[test]
fn an_ending_during_a_stop_keeps_its_true_code() {
    let mut story = Story::running(Restart::Always);
    let exit = Exit::Code(3);
    story.check(Event::MainExited { exit }, &[], Phase::Running);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    let effects = ["gone: exit code 3", "stops: ok"];
    story.check(Event::Emptied { exit: None, ports: Vec::new() }, &effects, Phase::Stopped);
}

#[test]
fn children_that_outlive_the_main_process_are_asked_too() {
    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    let exit = Exit::Code(0);
    story.check(Event::MainExited { exit }, &["ask the rest"], Phase::Stopping);
    let effects = ["gone: exit code 0", "stops: ok"];
    story.check(Event::Emptied { exit: None, ports: Vec::new() }, &effects, Phase::Stopped);
}

#[test]
fn a_start_that_ends_at_once_has_failed() {
    let told = "starts: not started: it ended after 0 ms: exit code 1";
    for (restart, phase) in [
        (Restart::Always, Phase::Backoff),
        (Restart::OnFailure, Phase::Backoff),
        (Restart::Never, Phase::Failed),
    ] {
        let mut story = Story::new(restart);
        story.check(Event::Start, &["spawn"], Phase::Starting);
        story.check(Event::Started, &[], Phase::Starting);
        story.check(gone(1), &["gone: exit code 1", "rest", told], phase);
        story.check(Event::Start, &["spawn"], Phase::Starting);
    }
}

#[test]
fn the_policy_decides_what_follows_an_ending() {
    for (restart, code, phase) in [
        (Restart::Always, 0, Phase::Backoff),
        (Restart::Always, 1, Phase::Backoff),
        (Restart::OnFailure, 0, Phase::Stopped),
        (Restart::OnFailure, 1, Phase::Backoff),
        (Restart::Never, 0, Phase::Stopped),
        (Restart::Never, 1, Phase::Failed),
    ] {
        let mut story = Story::running(restart);
        story.check(gone(code), &[&format!("gone: exit code {code}"), "rest"], phase);
    }
}

#[test]
fn pauses_grow_until_a_healthy_spell() {
    let mut story = Story::running(Restart::Always);
    let mut pauses = Vec::new();
    for spell in [SETTLE, SETTLE, Backoff::default().healthy] {
        story.after(spell);
        story.life.on(gone(1), Moment { now: story.now, roll: 1.0 });
        let until = story.life.wake_at().unwrap();
        pauses.push(until - story.now);
        story.now = until;
        story.check(Event::Time, &["spawn"], Phase::Starting);
        story.check(Event::Started, &[], Phase::Starting);
    }
    assert_eq!(pauses, [ms(500), ms(1_000), ms(500)]);
}

#[test]
fn a_wish_alone_neither_starts_nor_stops_what_runs() {
    let mut story = Story::running(Restart::Always);
    story.check(Event::Wish { running: false }, &["starts: superseded"], Phase::Running);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
}

#[test]
fn exit_codes_decide_what_follows() {
    let rules = Rules { success_codes: vec![0, 3], final_codes: vec![78], ..rules(Restart::OnFailure) };
    for (code, phase) in [(3, Phase::Stopped), (4, Phase::Backoff), (78, Phase::Failed)] {
        let mut story = Story::with(rules.clone());
        story.life.on(Event::Start, Moment { now: story.now, roll: 1.0 });
        story.check(Event::Started, &[], Phase::Starting);
        story.after(SETTLE);
        story.check(Event::Time, &["look", "watch", "starts: ok"], Phase::Running);
        story.check(gone(code), &[&format!("gone: exit code {code}"), "rest"], phase);
    }
}

#[test]
fn too_many_endings_are_final_until_an_operator_starts_it() {
    let backoff = Backoff { give_up_after: 2, ..Backoff::default() };
    let mut story = Story::with(Rules { backoff, ..rules(Restart::Always) });
    story.check(Event::Start, &["spawn"], Phase::Starting);
    for phase in [Phase::Backoff, Phase::Failed] {
        story.check(Event::Started, &[], Phase::Starting);
        story.life.on(gone(1), Moment { now: story.now, roll: 1.0 });
        assert_eq!(story.life.phase(), phase);
        if let Some(until) = story.life.wake_at() {
            story.now = until;
            story.check(Event::Time, &["spawn"], Phase::Starting);
        }
    }
    assert!(story.life.trouble().contains("2 times in a row"), "{}", story.life.trouble());
    assert_eq!(story.life.wake_at(), None);
    story.check(Event::Start, &["spawn"], Phase::Starting);
    assert_eq!(story.life.endings(), 0);
}

/// What outlasts the agent: a back-off goes on, and a final failure stays one.
#[test]
fn rest_outlasts_the_agent() {
    let mut story = Story::running(Restart::Always);
    story.check(gone(1), &["gone: exit code 1", "rest"], Phase::Backoff);
    let again = Life::stopped(rules(Restart::Always), true).with_rest(story.life.rest());
    assert_eq!((again.phase(), again.wake_at(), again.endings()), (Phase::Backoff, story.life.wake_at(), 1));
    let failed = Rest { endings: 20, until: None, failed: Some("too often".to_owned()) };
    let again = Life::stopped(rules(Restart::Always), true).with_rest(failed.clone());
    assert_eq!((again.phase(), again.trouble()), (Phase::Failed, "too often"));
    assert_eq!(again.rest(), failed);
    let unwanted = Life::stopped(rules(Restart::Always), false).with_rest(failed);
    assert_eq!(unwanted.phase(), Phase::Stopped);
}

#[test]
fn started_means_ready() {
    let ready = Rules { ready: Some(GRACE), ..rules(Restart::Always) };
    let mut story = Story::with(ready.clone());
    story.check(Event::Start, &["spawn"], Phase::Starting);
    story.check(Event::Started, &["probe"], Phase::Starting);
    story.after(SETTLE);
    story.check(Event::Time, &[], Phase::Starting);
    story.check(Event::Ready, &["look", "watch", "starts: ok"], Phase::Running);

    let mut story = Story::with(ready);
    story.check(Event::Start, &["spawn"], Phase::Starting);
    story.check(Event::Started, &["probe"], Phase::Starting);
    story.after(GRACE);
    let told = "starts: not started: it was not ready after 10s";
    story.check(Event::Time, &[told, "ask"], Phase::Stopping);
    story.check(gone(0), &["gone: exit code 0", "stops: ok", "rest"], Phase::Backoff);
}

#[test]
fn what_does_not_work_is_stopped_and_started_again_after_a_pause() {
    let mut story = Story::running(Restart::Always);
    let why = "its probe failed 3 times in a row".to_owned();
    story.check(Event::Broken { why }, &["ask"], Phase::Stopping);
    assert!(story.life.desired());
    story.check(gone(0), &["gone: exit code 0", "stops: ok", "rest"], Phase::Backoff);
    assert_eq!(story.life.trouble(), "its probe failed 3 times in a row");
}

/// The whole ladder, and an operator who runs out of patience on it.
#[test]
fn a_stop_under_way_can_be_forced() {
    let before = HookConfig { command: "/bin/hook".into(), args: Vec::new(), timeout: GRACE };
    let stop = StopConfig { before: Some(before), delay: GRACE, ..StopConfig::simple(Signal::TERM, GRACE) };
    let mut story = Story::running(Restart::Always);
    story.life.follow(Rules { stop: Plan::from(&stop), ..rules(Restart::Always) });
    story.check(STOP, &["starts: superseded", "hook"], Phase::Stopping);
    story.check(Event::HookEnded, &["pause"], Phase::Stopping);
    let force = Event::Stop { by: None, force: true };
    story.check(force, &["starts: superseded", "kill"], Phase::Stopping);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
}

#[test]
fn a_start_under_way_is_killed_where_the_stop_is_forced() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Starting);
    let force = Event::Stop { by: None, force: true };
    story.check(force, &["starts: superseded"], Phase::Starting);
    story.check(Event::Started, &["kill"], Phase::Stopping);
}

/// A stop is not proven while somebody else holds a socket of the process.
#[test]
fn a_port_that_stays_open_is_a_failure() {
    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    let left = Event::Emptied { exit: Some(Exit::Code(0)), ports: vec![8080] };
    story.check(left, &["gone: exit code 0", "stops: open: [8080]"], Phase::Stopped);
}
