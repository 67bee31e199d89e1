use proptest::prelude::*;

use super::*;
use crate::stop::PROOF;

const GRACE: Duration = Duration::from_secs(10);

const fn ms(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn rules(restart: Restart) -> Rules {
    Rules { restart, grace: GRACE }
}

/// A life, the time, and what was asked for so far.
struct Story {
    life: Life,
    now: Time,
}

impl Story {
    fn new(restart: Restart) -> Self {
        Self { life: Life::stopped(rules(restart), false), now: ms(1_000) }
    }

    /// One that runs and has settled.
    fn running(restart: Restart) -> Self {
        let mut story = Self::new(restart);
        story.check(Event::Start, &["spawn"], Phase::Stopped);
        story.check(Event::Started, &[], Phase::Running);
        story.after(SETTLE);
        story.check(Event::Time, &["look", "starts: ok"], Phase::Running);
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
        Err(Fault::Refused { .. }) => "refused".to_owned(),
        Err(Fault::NotStarted { why }) => format!("not started: {why}"),
    };
    match effect {
        Effect::Spawn => "spawn".to_owned(),
        Effect::Ask(Scope::Group, _) => "ask".to_owned(),
        Effect::Ask(Scope::Rest, _) => "ask the rest".to_owned(),
        Effect::Kill => "kill".to_owned(),
        Effect::Survey => "survey".to_owned(),
        Effect::Gone { exit, .. } => format!("gone: {exit}"),
        Effect::Look => "look".to_owned(),
        Effect::StopsEnd(ended) => format!("stops: {}", result(ended)),
        Effect::StartsEnd(ended) => format!("starts: {}", result(ended)),
    }
}

fn gone(code: i32) -> Event {
    Event::Emptied { exit: Some(Exit::Code(code)) }
}

const STOP: Event = Event::Stop { by: None };
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
    story.check(gone(1), &["gone: exit code 1"], Phase::Backoff);
    story.check(STOP, &["starts: superseded", "stops: ok"], Phase::Stopped);
    story.after(Duration::from_secs(3600));
    story.check(Event::Time, &[], Phase::Stopped);
    assert_eq!(story.life.wake_at(), None);
}

/// Hazard P20: what was being made when the stop came is stopped as well.
#[test]
fn a_stop_interrupts_a_start() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Stopped);
    story.check(STOP, &["starts: superseded"], Phase::Stopped);
    story.check(Event::Started, &["ask"], Phase::Stopping);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
}

#[test]
fn a_stop_of_what_could_not_be_started_is_done() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Stopped);
    story.check(STOP, &["starts: superseded"], Phase::Stopped);
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
    story.check(gone(0), &effects, Phase::Stopped);

    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    story.check(Event::Start, &[], Phase::Stopping);
    story.check(STOP, &["starts: superseded"], Phase::Stopping);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
}

#[test]
fn a_start_overtakes_the_stop_that_waited_for_the_start_before() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Stopped);
    story.check(STOP, &["starts: superseded"], Phase::Stopped);
    story.check(Event::Start, &["stops: superseded"], Phase::Stopped);
    story.check(Event::Started, &[], Phase::Running);
}

#[test]
fn a_wish_overtakes_the_stop_that_waited_for_the_start_before() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Stopped);
    story.check(STOP, &["starts: superseded"], Phase::Stopped);
    story.check(Event::Wish { running: true }, &["stops: superseded"], Phase::Stopped);
    story.check(Event::Started, &[], Phase::Running);
}

#[test]
fn a_restart_stops_and_starts() {
    let mut story = Story::running(Restart::Never);
    story.check(RESTART, &["ask"], Phase::Stopping);
    let effects = ["gone: exit code 0", "stops: ok", "spawn"];
    story.check(gone(0), &effects, Phase::Stopped);
    story.check(Event::Started, &[], Phase::Running);
    story.after(SETTLE);
    story.check(Event::Time, &["look", "starts: ok"], Phase::Running);
}

/// Whoever orders a restart gets an instance that began after the order, also where one had begun a moment before.
#[test]
fn a_restart_is_never_taken_for_a_start_that_is_under_way() {
    let mut story = Story::new(Restart::Always);
    story.check(Event::Start, &["spawn"], Phase::Stopped);
    story.check(Event::Started, &[], Phase::Running);
    story.check(RESTART, &["ask"], Phase::Stopping);
    story.check(RESTART, &[], Phase::Stopping);
    let effects = ["gone: exit code 0", "stops: ok", "spawn"];
    story.check(gone(0), &effects, Phase::Stopped);
    story.check(Event::Started, &[], Phase::Running);
    story.after(SETTLE);
    story.check(Event::Time, &["look", "starts: ok"], Phase::Running);
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
    story.check(Event::Emptied { exit: None }, &effects, Phase::Stopped);
}

#[test]
fn children_that_outlive_the_main_process_are_asked_too() {
    let mut story = Story::running(Restart::Always);
    story.check(STOP, &["starts: superseded", "ask"], Phase::Stopping);
    let exit = Exit::Code(0);
    story.check(Event::MainExited { exit }, &["ask the rest"], Phase::Stopping);
    let effects = ["gone: exit code 0", "stops: ok"];
    story.check(Event::Emptied { exit: None }, &effects, Phase::Stopped);
}

#[test]
fn a_start_that_ends_at_once_has_failed() {
    let told = "starts: not started: it ended within 100 ms: exit code 1";
    for (restart, phase) in [
        (Restart::Always, Phase::Backoff),
        (Restart::OnFailure, Phase::Backoff),
        (Restart::Never, Phase::Failed),
    ] {
        let mut story = Story::new(restart);
        story.check(Event::Start, &["spawn"], Phase::Stopped);
        story.check(Event::Started, &[], Phase::Running);
        story.check(gone(1), &["gone: exit code 1", told], phase);
        story.check(Event::Start, &["spawn"], Phase::Stopped);
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
        (Restart::Never, 1, Phase::Stopped),
    ] {
        let mut story = Story::running(restart);
        story.check(gone(code), &[&format!("gone: exit code {code}")], phase);
    }
}

#[test]
fn pauses_grow_until_a_healthy_spell() {
    let mut story = Story::running(Restart::Always);
    let mut pauses = Vec::new();
    for spell in [SETTLE, SETTLE, HEALTHY] {
        story.after(spell);
        story.life.on(gone(1), Moment { now: story.now, roll: 1.0 });
        let until = story.life.wake_at().unwrap();
        pauses.push(until - story.now);
        story.now = until;
        story.check(Event::Time, &["spawn"], Phase::Stopped);
        story.check(Event::Started, &[], Phase::Running);
    }
    assert_eq!(pauses, [ms(500), ms(1_000), ms(500)]);
}

#[test]
fn a_wish_alone_neither_starts_nor_stops_what_runs() {
    let mut story = Story::running(Restart::Always);
    story.check(Event::Wish { running: false }, &[], Phase::Running);
    story.check(gone(0), &["gone: exit code 0", "stops: ok"], Phase::Stopped);
}

/// A world in which instances are made and end, for any order of events.
#[derive(Debug, Clone, Copy)]
enum Act {
    Stop,
    Start,
    Restart,
    Launch(bool),
    MainExits,
    Empties,
    Refuses,
    Survey,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Stop),
        Just(Act::Start),
        Just(Act::Restart),
        any::<bool>().prop_map(Act::Launch),
        Just(Act::MainExits),
        Just(Act::Empties),
        Just(Act::Refuses),
        Just(Act::Survey),
        (0_u64..20_000).prop_map(Act::Wait),
    ]
}

proptest! {
    /// In every order of events: never two instances, nobody asked twice or killed early, STOPPED only when nothing
    /// lives, and whoever waits gets one answer.
    #[test]
    fn what_must_always_hold(
        restart in prop_oneof![Just(Restart::Always), Just(Restart::OnFailure), Just(Restart::Never)],
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        let mut life = Life::stopped(rules(restart), false);
        let mut now = ms(1_000);
        let (mut alive, mut making, mut main_alive, mut surveying) = (false, false, false, false);
        let mut asked_at: Option<Time> = None;
        let (mut asked_rest, mut refused) = (false, false);
        for act in acts {
            let event = match act {
                Act::Stop => Event::Stop { by: None },
                Act::Start => Event::Start,
                Act::Restart => Event::Restart { by: None },
                Act::Launch(works) if making => {
                    making = false;
                    if works {
                        (alive, main_alive, asked_at, asked_rest, refused) = (true, true, None, false, false);
                        Event::Started
                    } else {
                        Event::NotStarted { why: String::new() }
                    }
                }
                Act::MainExits if main_alive => {
                    main_alive = false;
                    Event::MainExited { exit: Exit::Code(0) }
                }
                Act::Empties if alive => {
                    (alive, main_alive, surveying) = (false, false, false);
                    Event::Emptied { exit: main_alive.then_some(Exit::Code(1)) }
                }
                Act::Refuses if alive && asked_at.is_some() => {
                    refused = true;
                    Event::Refused { why: String::new() }
                }
                Act::Survey if surveying => {
                    surveying = false;
                    Event::Surveyed
                }
                Act::Wait(pause) => {
                    now += ms(pause);
                    Event::Time
                }
                Act::Launch(_) | Act::MainExits | Act::Empties | Act::Refuses | Act::Survey => continue,
            };
            let is_stop = matches!(event, Event::Stop { .. });
            for effect in life.on(event, Moment { now, roll: 0.5 }) {
                match effect {
                    Effect::Spawn => {
                        prop_assert!(!alive && !making, "a second instance");
                        making = true;
                    }
                    Effect::Ask(Scope::Group, deadlines) => {
                        prop_assert!(alive);
                        prop_assert!(asked_at.is_none() || refused, "asked twice");
                        asked_at = Some(deadlines.began);
                    }
                    Effect::Ask(Scope::Rest, _) => {
                        prop_assert!(alive && !asked_rest || refused);
                        asked_rest = true;
                    }
                    Effect::Kill => {
                        prop_assert!(alive);
                        let began = asked_at.expect("killed before it was asked");
                        prop_assert!(now >= began + GRACE, "killed early");
                    }
                    Effect::Survey => {
                        prop_assert!(alive);
                        surveying = true;
                    }
                    Effect::Gone { .. } => prop_assert!(!alive),
                    Effect::StopsEnd(Ok(())) => prop_assert!(!alive && !making, "stopped while alive"),
                    Effect::StopsEnd(Err(_)) | Effect::StartsEnd(_) | Effect::Look => {}
                }
            }
            if is_stop {
                prop_assert!(!life.desired());
            }
            if alive {
                prop_assert!(matches!(life.phase(), Phase::Running | Phase::Stopping | Phase::Failed));
            } else {
                prop_assert!(matches!(life.phase(), Phase::Stopped | Phase::Backoff | Phase::Failed));
            }
        }
    }
}
