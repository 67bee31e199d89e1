use proptest::prelude::*;

use super::*;
use crate::config::HookConfig;

const QUIT: Signal = Signal::from_raw(3);

const fn secs(secs: u64) -> Time {
    Time::from_secs(secs)
}

/// SIGTERM, so many seconds, SIGKILL.
fn simple(grace: u64) -> Plan {
    Plan::from(&StopConfig::simple(Signal::TERM, secs(grace)))
}

/// A hook of 3 s, a delay of 2 s, SIGTERM 10 s, SIGQUIT 5 s.
fn full(kill: Kill) -> Plan {
    let term = crate::config::SignalConfig { signal: Signal::TERM, wait: secs(10) };
    let quit = crate::config::SignalConfig { signal: QUIT, wait: secs(5) };
    let before = HookConfig { command: "/bin/hook".into(), args: Vec::new(), timeout: secs(3) };
    Plan::from(&StopConfig { before: Some(before), delay: secs(2), signals: vec![term, quit], kill })
}

#[track_caller]
fn check(grace: u64, budget: Option<u64>, kill_at: u64, give_up_at: u64) {
    let now = secs(100);
    let (ladder, _) = Ladder::begin(simple(grace), now, budget.map(|budget| now + secs(budget)));
    assert_eq!(ladder.kill_at, now + secs(kill_at));
    assert_eq!(ladder.give_up_at, now + secs(give_up_at));
}

/// Hazard D29: a grace longer than the budget is cut, and the proof keeps its share.
#[test]
fn everything_fits_into_the_budget() {
    check(10, None, 10, 15);
    check(10, Some(60), 10, 15);
    check(10, Some(12), 7, 12);
    check(600, Some(20), 15, 20);
    check(10, Some(4), 2, 4);
    check(0, None, 0, 5);
    check(10, Some(0), 0, 0);
}

/// Hazard P10.
#[test]
fn kills_when_the_grace_is_over_and_gives_up_when_that_does_not_help() {
    let (mut ladder, first) = Ladder::begin(simple(10), secs(0), None);
    assert_eq!(first, Step::Ask(Signal::TERM, Scope::Group));
    assert_eq!(ladder.on(Event::Time, secs(9)), None);
    assert_eq!(ladder.on(Event::Time, secs(10)), Some(Step::Kill));
    assert_eq!(ladder.on(Event::Time, secs(10)), None);
    assert_eq!(ladder.on(Event::Time, secs(11)), Some(Step::Kill));
    assert_eq!(ladder.on(Event::Time, secs(15)), Some(Step::GiveUp));
    assert_eq!(ladder.on(Event::Time, secs(16)), None);
    assert_eq!(ladder.wake_at(), None);
}

#[test]
fn what_the_main_process_leaves_behind_is_asked_once() {
    let (mut ladder, _) = Ladder::begin(simple(10), secs(0), None);
    assert_eq!(ladder.on(Event::MainExited, secs(1)), Some(Step::Ask(Signal::TERM, Scope::Rest)));
    assert_eq!(ladder.on(Event::MainExited, secs(1)), None);
}

#[test]
fn climbs_rung_by_rung_and_tells_how_long_each_lasted() {
    let (mut ladder, first) = Ladder::begin(full(Kill::AfterGrace), secs(0), None);
    assert_eq!(first, Step::Hook { until: secs(3) });
    assert_eq!(ladder.on(Event::HookEnded, secs(1)), Some(Step::Pause));
    assert_eq!(ladder.wake_at(), Some(secs(3)));
    assert_eq!(ladder.on(Event::Time, secs(3)), Some(Step::Ask(Signal::TERM, Scope::Group)));
    assert_eq!(ladder.on(Event::Time, secs(13)), Some(Step::Ask(QUIT, Scope::Group)));
    assert_eq!(ladder.on(Event::MainExited, secs(14)), Some(Step::Ask(QUIT, Scope::Rest)));
    assert_eq!(ladder.on(Event::Time, secs(18)), Some(Step::Kill));
    assert!(ladder.escalated());
    let report = ladder.report(secs(19)).into_iter().map(|rung| (rung.step, rung.duration.as_secs()));
    let expected = [("hook", 1), ("delay", 2), ("SIGTERM", 10), ("SIGQUIT", 5), ("SIGKILL", 1)];
    assert!(report.eq(expected.map(|(step, secs)| (step.to_owned(), secs))));
}

/// A hook that hangs does not double the budget, and a budget that was cut leaves the signals their share.
#[test]
fn a_hook_that_hangs_is_part_of_the_budget() {
    let (mut ladder, _) = Ladder::begin(full(Kill::AfterGrace), secs(0), None);
    assert_eq!(ladder.on(Event::Time, secs(3)), Some(Step::Pause));
    let (mut ladder, first) = Ladder::begin(full(Kill::AfterGrace), secs(0), Some(secs(9)));
    assert_eq!(first, Step::Hook { until: secs(2) + Duration::from_millis(250) });
    assert_eq!(ladder.on(Event::Time, secs(3)), Some(Step::Ask(Signal::TERM, Scope::Group)));
    assert_eq!(ladder.on(Event::Time, secs(5)), Some(Step::Kill));
}

#[test]
fn never_kills_where_a_person_decides() {
    let (mut ladder, _) = Ladder::begin(full(Kill::Never), secs(0), None);
    for now in [3, 5, 15] {
        assert!(!matches!(ladder.on(Event::Time, secs(now)), None | Some(Step::Kill | Step::GiveUp)));
    }
    assert_eq!(ladder.on(Event::Time, secs(20)), Some(Step::GiveUp));
    assert!(!ladder.escalated());
}

/// An operator's "now" cuts every rung short, also where nothing is killed otherwise.
#[test]
fn force_cuts_the_grace() {
    for kill in [Kill::AfterGrace, Kill::Never] {
        let (mut ladder, _) = Ladder::begin(full(kill), secs(0), None);
        ladder.on(Event::HookEnded, secs(1));
        assert_eq!(ladder.on(Event::Force, secs(2)), Some(Step::Kill));
        assert_eq!(ladder.on(Event::Force, secs(2)), None);
        assert_eq!(ladder.on(Event::Time, secs(7)), Some(Step::GiveUp));
        assert!(ladder.escalated());
    }
}

/// Hazards A01 and D30.
#[test]
fn a_resumed_stop_keeps_its_deadline() {
    let (ladder, _) = Ladder::begin(simple(10), secs(0), None);
    assert_eq!(ladder.clone().resume(secs(7)).wake_at(), Some(secs(10)));
    let mut late = ladder.resume(secs(60));
    assert_eq!(late.on(Event::Time, secs(60)), Some(Step::Kill));
    assert_eq!(late.on(Event::Time, secs(65)), Some(Step::GiveUp));
}

/// Nobody is killed who was not asked, however long the agent was away.
#[test]
fn who_was_never_asked_is_asked_late() {
    let (ladder, _) = Ladder::begin(full(Kill::AfterGrace), secs(0), None);
    let mut late = ladder.resume(secs(600));
    assert_eq!(late.on(Event::Time, secs(600)), Some(Step::Ask(Signal::TERM, Scope::Group)));
    assert_eq!(late.on(Event::Time, secs(605)), Some(Step::Kill));
    assert_eq!(late.wake_at(), Some(secs(605) + KILL_AGAIN));
}

fn plans() -> impl Strategy<Value = Plan> {
    let wait = || (0_u64..20_000).prop_map(Duration::from_millis);
    let signals = [Signal::TERM, QUIT, Signal::from_raw(2)];
    (proptest::option::of(wait()), wait(), proptest::collection::vec(wait(), 1..4), any::<bool>()).prop_map(
        move |(hook, delay, waits, kills)| {
            let signals = signals.into_iter().zip(waits).collect();
            Plan { hook, delay, signals, kills }
        },
    )
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::HookEnded),
        2 => Just(Event::MainExited),
        1 => Just(Event::Force),
        20 => Just(Event::Time),
    ]
}

proptest! {
    /// Whatever happens: each signal of the plan is sent at most once to each, in its order, nobody is killed early, or
    /// at all where only a person may, and the ladder ends by its deadline. Also in many lives of the agent.
    #[test]
    fn a_ladder_is_fair_and_bounded(
        plan in plans(),
        budget in proptest::option::of(0_u64..60_000),
        events in proptest::collection::vec((events(), 0_u64..3_000, proptest::bool::weighted(0.1)), 1..200),
    ) {
        let mut now = secs(1_000);
        let (mut ladder, first) =
            Ladder::begin(plan.clone(), now, budget.map(|budget| now + Duration::from_millis(budget)));
        let (kill_at, give_up_at) = (ladder.kill_at, ladder.give_up_at);
        prop_assert!(now <= kill_at && kill_at <= give_up_at);
        prop_assert!(give_up_at <= now + plan.budget());
        let mut steps = vec![first];
        let mut waited_for = match first {
            Step::Ask(signal, _) if signal == plan.last_signal().0 => Some(now + plan.last_signal().1),
            _ => None,
        };
        let mut asked = matches!(first, Step::Ask(..));
        let mut forced = false;
        let mut resumed = false;
        for (event, pause, crashes) in events {
            now += Duration::from_millis(pause);
            if crashes {
                let text = serde_json::to_string(&ladder).unwrap();
                ladder = serde_json::from_str::<Ladder>(&text).unwrap().resume(now);
                resumed = true;
            }
            forced |= event == Event::Force;
            let step = ladder.on(event, now);
            if let Some(Step::Ask(signal, Scope::Group)) = step {
                let (last, wait) = plan.last_signal();
                waited_for = (signal == last).then_some(now + wait);
            }
            // All had their time: the whole budget, or each signal its wait.
            let asked_enough = now >= kill_at || waited_for.is_some_and(|at| now >= at);
            prop_assert!(step != Some(Step::Kill) || forced || asked || kill_at == secs(1_000));
            asked |= matches!(step, Some(Step::Ask(..)));
            match step {
                Some(Step::Kill) => prop_assert!(forced || (plan.kills && asked_enough)),
                Some(Step::GiveUp) if plan.kills => prop_assert!(now >= give_up_at || forced || resumed),
                Some(Step::GiveUp) => prop_assert!(forced || asked_enough),
                _ => {}
            }
            steps.extend(step);
            prop_assert!(ladder.wake_at().is_none_or(|at| at <= now.max(give_up_at) + 2 * PROOF));
        }
        let asked: Vec<_> = steps.iter().filter_map(|step| match step {
            Step::Ask(signal, Scope::Group) => Some(*signal),
            _ => None,
        }).collect();
        let planned: Vec<_> = plan.signals.iter().map(|(signal, _)| *signal).collect();
        prop_assert!(planned.starts_with(&asked));
        let count = |wanted: fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count();
        prop_assert!(count(|step| matches!(step, Step::Ask(_, Scope::Rest))) <= asked.len());
        let hooks = count(|step| matches!(step, Step::Hook { .. }));
        prop_assert_eq!(hooks, usize::from(plan.hook.is_some() && kill_at > secs(1_000)));
        prop_assert!(count(|step| *step == Step::GiveUp) <= 1);
        // Time alone brings it to its end.
        for _ in 0..200 {
            let Some(at) = ladder.wake_at() else { break };
            now = now.max(at);
            ladder.on(Event::Time, now);
        }
        prop_assert_eq!(ladder.wake_at(), None);
    }
}
