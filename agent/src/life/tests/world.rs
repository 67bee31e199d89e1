//! A world in which instances are made and end, for any order of events: random orders of any length, and every order of
//! a bounded length.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use proptest::prelude::*;

use super::*;

/// A life, and the world around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    life: Life,
    now: Time,
    /// An instance is being made.
    making: bool,
    alive: bool,
    main_alive: bool,
    hook_runs: bool,
    probed: bool,
    surveying: bool,
    /// Signals that this instance got as a group, and whether its rest got the last one too.
    asked: Vec<Signal>,
    asked_rest: bool,
    /// When its whole grace is over, and when the last signal has had its wait.
    grace_ends: Option<Time>,
    waited_until: Option<Time>,
    /// A signal is on its way, which the system may refuse.
    signalled: bool,
    /// The system refused to signal this instance.
    refused: bool,
    /// It was killed.
    killed: bool,
    /// Somebody waits for a stop, or for a start.
    stop_waits: bool,
    start_waits: bool,
}

/// One thing that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Stop,
    Force,
    Start,
    Restart,
    Wish(bool),
    Launch(bool),
    Ready,
    Break,
    HookEnds,
    MainExits,
    Empties,
    Refuses,
    Survey,
    /// Time passes until something is due.
    Due,
    Wait(u64),
}

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            life: Life::stopped(rules, false),
            now: ms(1_000),
            making: false,
            alive: false,
            main_alive: false,
            hook_runs: false,
            probed: false,
            surveying: false,
            asked: Vec::new(),
            asked_rest: false,
            grace_ends: None,
            waited_until: None,
            signalled: false,
            refused: false,
            killed: false,
            stop_waits: false,
            start_waits: false,
        }
    }

    /// Lets it happen, and checks what must always hold. Says whether it could happen.
    fn act(&mut self, act: Act) -> bool {
        let Some(event) = self.event(act) else {
            return false;
        };
        match event {
            Event::Stop { .. } => self.stop_waits = true,
            Event::Start | Event::Restart { .. } => self.start_waits = true,
            _ => {}
        }
        let effects = self.life.on(event.clone(), Moment { now: self.now, roll: 0.5 });
        for effect in effects {
            self.take(&effect, act);
        }
        self.check(&event);
        true
    }

    fn event(&mut self, act: Act) -> Option<Event> {
        let why = || "why".to_owned();
        Some(match act {
            Act::Stop => Event::Stop { by: None, force: false },
            Act::Force => Event::Stop { by: None, force: true },
            Act::Start => Event::Start,
            Act::Restart => Event::Restart { by: None },
            Act::Wish(running) => Event::Wish { running },
            Act::Launch(works) if self.making => {
                self.making = false;
                if works {
                    let fresh = Self::new(self.life.rules.clone());
                    let Self { life, now, stop_waits, start_waits, .. } = self.clone();
                    *self =
                        Self { life, now, stop_waits, start_waits, alive: true, main_alive: true, ..fresh };
                    Event::Started
                } else {
                    Event::NotStarted { why: why() }
                }
            }
            Act::Ready if self.alive && self.probed => {
                self.probed = false;
                Event::Ready
            }
            Act::Break if self.alive => Event::Broken { why: why() },
            Act::HookEnds if self.hook_runs => {
                self.hook_runs = false;
                Event::HookEnded
            }
            Act::MainExits if self.main_alive => {
                self.main_alive = false;
                Event::MainExited { exit: Exit::Code(0) }
            }
            Act::Empties if self.alive => {
                let exit = self.main_alive.then_some(Exit::Code(1));
                (self.alive, self.main_alive, self.surveying, self.hook_runs) = (false, false, false, false);
                Event::Emptied { exit, ports: Vec::new() }
            }
            Act::Refuses if self.alive && self.signalled => {
                self.refused = true;
                self.signalled = false;
                Event::Refused { why: why() }
            }
            Act::Survey if self.surveying => {
                self.surveying = false;
                Event::Surveyed
            }
            Act::Due => {
                self.now = self.now.max(self.life.wake_at()?);
                Event::Time
            }
            Act::Wait(pause) => {
                self.now += ms(pause);
                Event::Time
            }
            _ => return None,
        })
    }

    fn take(&mut self, effect: &Effect, act: Act) {
        match effect {
            Effect::Spawn => {
                assert!(!self.alive && !self.making, "a second instance");
                assert!(self.life.desired(), "nobody wants it");
                self.making = true;
            }
            Effect::Probe => self.probed = true,
            Effect::Hook { .. } => {
                assert!(self.alive && !self.hook_runs);
                self.hook_runs = true;
                self.signalled = false;
                self.begin_asking();
            }
            Effect::Pause => {
                assert!(self.alive);
                // It has ended, or was killed for taking too long.
                self.hook_runs = false;
                self.begin_asking();
            }
            Effect::Ask(signal, Scope::Group) => {
                assert!(self.alive);
                let again = self.refused || !self.life.rules.stop.kills();
                assert!(again || !self.asked.contains(signal), "asked twice");
                self.begin_asking();
                let (last, wait) = self.life.rules.stop.last_signal();
                self.hook_runs = false;
                self.waited_until = (last == *signal).then_some(self.now + wait);
                self.asked.push(*signal);
                self.asked_rest = false;
                self.signalled = true;
            }
            Effect::Ask(signal, Scope::Rest) => {
                assert!(self.alive && !self.main_alive && !self.asked_rest);
                assert_eq!(self.asked.last(), Some(signal));
                self.asked_rest = true;
            }
            Effect::Kill => {
                assert!(self.alive);
                // Forced it may have been earlier, as long as it is alive.
                let forced = act == Act::Force || self.killed || self.life.stop.force;
                if !forced {
                    assert!(!self.asked.is_empty(), "killed before it was asked");
                    let is_over = |end: Option<Time>| end.is_some_and(|end| self.now >= end);
                    assert!(is_over(self.grace_ends) || is_over(self.waited_until), "killed early");
                    assert!(self.life.rules.stop.kills(), "killed without a person's word");
                }
                self.killed = true;
                self.signalled = true;
                // It is a member of the tree.
                self.hook_runs = false;
            }
            Effect::Survey => {
                assert!(self.alive);
                self.surveying = true;
            }
            Effect::Gone { .. } => assert!(!self.alive),
            Effect::StopsEnd(result) => {
                if result.is_ok() {
                    assert!(!self.alive && !self.making, "stopped while alive");
                }
                self.stop_waits = false;
            }
            Effect::StartsEnd(result) => {
                if result.is_ok() {
                    assert!(self.alive && self.life.phase() == Phase::Running);
                }
                self.start_waits = false;
            }
            Effect::Look | Effect::Watch => assert!(self.alive),
            Effect::Rest => {}
        }
    }

    fn begin_asking(&mut self) {
        let budget = self.life.rules.stop.budget();
        self.grace_ends.get_or_insert(self.now + budget.saturating_sub(PROOF));
    }

    fn check(&self, event: &Event) {
        if matches!(event, Event::Stop { .. }) {
            assert!(!self.life.desired());
        }
        let phase = self.life.phase();
        match (self.alive, self.making) {
            (true, true) => panic!("two instances"),
            (true, false) => {
                let phases = [Phase::Starting, Phase::Running, Phase::Stopping, Phase::Failed];
                assert!(phases.contains(&phase), "alive, and shown as {phase:?}");
            }
            (false, true) => assert_eq!(phase, Phase::Starting),
            (false, false) => {
                let phases = [Phase::Stopped, Phase::Backoff, Phase::Failed];
                assert!(phases.contains(&phase), "gone, and shown as {phase:?}");
                assert!(self.life.desired() || phase == Phase::Stopped, "unwanted, and shown as {phase:?}");
            }
        }
        // Whoever waits is waiting for something that will happen.
        let waits = self.stop_waits || self.start_waits;
        let pending = self.making || self.alive || self.life.wake_at().is_some();
        assert!(!waits || pending, "somebody waits for ever");
    }
}

fn two_signals(kill: crate::config::Kill, ready: bool) -> Rules {
    let before = HookConfig { command: "/bin/hook".into(), args: Vec::new(), timeout: ms(500) };
    let rung = |signal| crate::config::SignalConfig { signal, wait: ms(1_000) };
    let signals = vec![rung(Signal::TERM), rung(Signal::from_raw(3))];
    let stop = StopConfig { before: Some(before), delay: ms(200), signals, kill };
    Rules {
        stop: Plan::from(&stop),
        ready: ready.then_some(ms(2_000)),
        backoff: Backoff { give_up_after: 2, ..Backoff::default() },
        ..rules(Restart::Always)
    }
}

fn any_rules() -> impl Strategy<Value = Rules> {
    use crate::config::Kill;
    prop_oneof![
        Just(rules(Restart::Always)),
        Just(rules(Restart::OnFailure)),
        Just(rules(Restart::Never)),
        Just(two_signals(Kill::AfterGrace, true)),
        Just(two_signals(Kill::AfterGrace, false)),
        Just(two_signals(Kill::Never, false)),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Stop),
        Just(Act::Force),
        Just(Act::Start),
        Just(Act::Restart),
        any::<bool>().prop_map(Act::Wish),
        any::<bool>().prop_map(Act::Launch),
        Just(Act::Ready),
        Just(Act::Break),
        Just(Act::HookEnds),
        Just(Act::MainExits),
        Just(Act::Empties),
        Just(Act::Refuses),
        Just(Act::Survey),
        Just(Act::Due),
        (0_u64..20_000).prop_map(Act::Wait),
    ]
}

proptest! {
    /// Hazards P19 to P22, in random orders of events: never two instances, nobody asked twice or killed early, STOPPED
    /// only when nothing lives, nothing is started that nobody wants, and whoever waits gets an answer.
    #[test]
    fn what_must_always_hold(rules in any_rules(), acts in proptest::collection::vec(any_act(), 1..150)) {
        let mut world = World::new(rules);
        for act in acts {
            world.act(act);
        }
    }
}

/// The same in every order of so many events, for a life with all that the settings offer.
#[test]
fn what_must_hold_in_every_order() {
    use crate::config::Kill;
    const LENGTH: usize = 7;
    let acts = [
        Act::Stop,
        Act::Force,
        Act::Start,
        Act::Restart,
        Act::Wish(true),
        Act::Wish(false),
        Act::Launch(true),
        Act::Launch(false),
        Act::Ready,
        Act::Break,
        Act::HookEnds,
        Act::MainExits,
        Act::Empties,
        Act::Refuses,
        Act::Survey,
        Act::Due,
    ];
    for rules in [two_signals(Kill::AfterGrace, true), two_signals(Kill::Never, false)] {
        let mut seen = HashSet::new();
        let mut edge = vec![(World::new(rules), Vec::new())];
        for _ in 0..LENGTH {
            let mut next = Vec::new();
            for (world, path) in &edge {
                for act in acts {
                    let mut world = world.clone();
                    let path: Vec<_> = path.iter().copied().chain([act]).collect();
                    let acted = catch_unwind(AssertUnwindSafe(|| world.act(act)));
                    if acted.unwrap_or_else(|_| panic!("after {path:?}")) && seen.insert(world.clone()) {
                        next.push((world, path));
                    }
                }
            }
            edge = next;
        }
        assert!(seen.len() > 1_000, "the world is smaller than it should be: {}", seen.len());
    }
}
