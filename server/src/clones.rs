//! Whether the agents that report one identity are lives of one agent, one after the other, or copies that live at the
//! same time (hazard A10): a disk image or a state folder was copied. Pure: who said what when, and what follows.
//!
//! That an incarnation comes back after another one has replaced it proves nothing by itself: what a dead agent sent may
//! arrive late. So an incarnation counts as alive only from its first hello (it had begun by then) up to the last welcome
//! that it answered: it sends nothing after a hello before it is welcomed, so it was alive after that. Two such spans that
//! overlap are two agents alive at the same time, however late anything arrives.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::host::Facts;

/// Lives of agents that are remembered of one host.
const REMEMBERED: usize = 16;

/// One life of an agent program, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) incarnation: String,
    pub(crate) name: String,
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// A digest of the machine's id, for a person: copies of a disk image often have the same.
    pub(crate) machine: String,
    pub(crate) boot_id: String,
}

/// One of several agents that live at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) agent: Agent,
    /// When it was last heard.
    pub(crate) last: Instant,
}

impl Agent {
    /// The same agent as it says itself.
    pub(crate) fn of(facts: &Facts, machine: String) -> Self {
        let Facts { incarnation, name, address, boot_id, .. } = facts.clone();
        Self { incarnation, name, address, machine, boot_id }
    }

    /// Whether this is, for all that can be seen, another life of an agent on the same host: one kernel has one boot id,
    /// except where a running machine was copied.
    pub(crate) fn is_on_host_of(&self, other: &Self) -> bool {
        !self.boot_id.is_empty() && self.boot_id == other.boot_id && self.address == other.address
    }
}

impl fmt::Display for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Agent { incarnation: _, name, address, machine, boot_id: _ } = &self.agent;
        let machine = if machine.is_empty() { "unknown" } else { machine };
        write!(f, "`{name}` at {address} (machine {machine}, heard {}s ago)", self.last.elapsed().as_secs())
    }
}

/// All that was heard of the agents with one identity.
#[derive(Debug)]
pub(crate) struct Clones {
    heard: Vec<Heard>,
    /// Whom an earlier server heard last.
    before: Option<Agent>,
    silence: Duration,
}

#[derive(Debug)]
struct Heard {
    agent: Agent,
    /// Its first hello: it had begun by then.
    first: Instant,
    /// The last welcome that it answered: it was alive after that.
    proven: Option<Instant>,
    last: Instant,
}

impl Clones {
    /// Nobody was heard yet, except by an earlier server. Who is not heard for longer than `silence` is gone.
    pub(crate) fn new(before: Option<Agent>, silence: Duration) -> Self {
        Self { heard: Vec::new(), before, silence }
    }

    /// An agent said hello.
    pub(crate) fn hello(&mut self, agent: Agent, at: Instant) {
        if let Some(known) = self.find(&agent.incarnation) {
            (known.agent, known.last) = (agent, at);
            return;
        }
        if self.heard.len() >= REMEMBERED {
            let longest_silent = (0..self.heard.len()).min_by_key(|&place| self.heard[place].last);
            longest_silent.map(|place| self.heard.remove(place));
        }
        self.heard.push(Heard { agent, first: at, proven: None, last: at });
    }

    /// An agent that was welcomed at a time said something after it.
    pub(crate) fn answered(&mut self, incarnation: &str, welcomed: Instant, at: Instant) {
        if let Some(known) = self.find(incarnation) {
            known.proven = known.proven.max(Some(welcomed));
            known.last = at;
        }
    }

    /// Whether this life of an agent was heard before.
    pub(crate) fn knows(&self, incarnation: &str) -> bool {
        self.heard.iter().any(|heard| heard.agent.incarnation == incarnation)
    }

    /// Those that were proven to live at the same time and have not fallen silent since, the first heard first. Empty
    /// where there are no two.
    pub(crate) fn twins(&self, at: Instant) -> Vec<Twin> {
        let present = || self.heard.iter().filter(|heard| at.duration_since(heard.last) <= self.silence);
        let is_a_twin = |one: &&Heard| {
            present().any(|other| {
                other.agent.incarnation != one.agent.incarnation
                    && other.proven.is_some_and(|proven| one.first <= proven)
                    && one.proven.is_some_and(|proven| other.first <= proven)
            })
        };
        let twins = present().filter(is_a_twin);
        twins.map(|heard| Twin { agent: heard.agent.clone(), last: heard.last }).collect()
    }

    /// How much longer only the host of the agent that was heard last must be heard, until an agent of another host that
    /// lives would have been heard too. Nothing, where no other host was ever heard.
    pub(crate) fn in_doubt_for(&self, at: Instant) -> Duration {
        let Some(newest) = self.heard.iter().max_by_key(|heard| heard.last) else {
            return self.silence;
        };
        let is_the_same = |agent: &Agent| {
            agent.incarnation == newest.agent.incarnation || agent.is_on_host_of(&newest.agent)
        };
        let last_of_another =
            self.heard.iter().filter(|heard| !is_the_same(&heard.agent)).map(|heard| heard.last).max();
        let first =
            self.heard.iter().filter(|heard| is_the_same(&heard.agent)).map(|heard| heard.first).min();
        let is_as_before = self.before.as_ref().is_some_and(is_the_same);
        let alone_since = last_of_another.max(first.filter(|_| !is_as_before));
        alone_since.map_or(Duration::ZERO, |since| self.silence.saturating_sub(at.duration_since(since)))
    }

    fn find(&mut self, incarnation: &str) -> Option<&mut Heard> {
        self.heard.iter_mut().find(|heard| heard.agent.incarnation == incarnation)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SILENCE: Duration = Duration::from_secs(20);

    fn agent(number: usize) -> Agent {
        Agent {
            incarnation: number.to_string(),
            name: format!("host-{number}"),
            address: format!("10.0.0.{number}:9441"),
            machine: String::new(),
            boot_id: String::new(),
        }
    }

    /// What is heard at the server.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Hello(usize),
        /// The welcome of the last hello is answered.
        Answer(usize),
        /// Nothing, for so many seconds.
        Wait(u64),
    }
    use Event::{Answer, Hello, Wait};

    /// What is told after these events, a second between any two.
    fn told(events: &[Event]) -> Vec<String> {
        let mut at = Instant::now();
        let mut clones = Clones::new(None, SILENCE);
        let mut welcomes = std::collections::BTreeMap::new();
        for event in events {
            at += Duration::from_secs(1);
            match *event {
                Hello(number) => {
                    clones.hello(agent(number), at);
                    welcomes.insert(number, at);
                }
                Answer(number) => clones.answered(&number.to_string(), welcomes[&number], at),
                Wait(seconds) => at += Duration::from_secs(seconds),
            }
        }
        clones.twins(at).into_iter().map(|twin| twin.agent.incarnation).collect()
    }

    #[track_caller]
    fn check(events: &[Event], expected: &[&str]) {
        assert_eq!(told(events), expected, "{events:?}");
    }

    /// Hazard A10.
    #[test]
    fn two_are_told_when_both_are_proven_alive() {
        check(&[Hello(1), Answer(1), Hello(2), Answer(2)], &[]);
        check(&[Hello(1), Answer(1), Hello(2), Answer(2), Hello(1)], &[]);
        check(&[Hello(1), Answer(1), Hello(2), Answer(2), Hello(1), Answer(1)], &["1", "2"]);
        check(&[Hello(1), Hello(2), Hello(1), Answer(1)], &[]);
        check(&[Hello(1), Hello(2), Hello(1), Answer(1), Answer(2)], &["1", "2"]);
        check(
            &[Hello(1), Hello(2), Hello(3), Hello(2), Hello(1), Answer(1), Answer(2), Answer(3)],
            &["1", "2", "3"],
        );
    }

    /// Hazard A10: a restart is none, and hellos of a dead agent that arrive late are none, however many.
    #[test]
    fn what_a_dead_agent_sent_proves_nothing() {
        check(&[Hello(1), Answer(1), Hello(2), Hello(1), Hello(2), Answer(2)], &[]);
        check(&[Hello(1), Answer(1), Hello(2), Hello(1), Hello(2), Hello(1), Answer(2)], &[]);
        // A report of the first life that was under way, too: it answers a welcome of before the second began.
        check(&[Hello(1), Hello(2), Answer(2), Answer(1)], &[]);
    }

    /// Hazard A10.
    #[test]
    fn it_is_over_when_one_has_fallen_silent() {
        let both = [Hello(1), Hello(2), Hello(1), Answer(1), Answer(2)];
        let then = |events: &[Event]| [&both[..], events].concat();
        check(&then(&[Wait(15), Answer(1)]), &["1", "2"]);
        check(&then(&[Wait(15), Answer(1), Wait(5), Answer(1)]), &[]);
        check(&then(&[Wait(15), Answer(1), Wait(5), Answer(1), Hello(2), Answer(2)]), &["1", "2"]);
        // Another life of one of them follows on its last.
        check(&then(&[Hello(3), Answer(3), Wait(10), Hello(2), Answer(2), Wait(9), Answer(3)]), &["2", "3"]);
    }

    #[test]
    fn an_answer_counts_when_another_would_have_been_heard() {
        let start = Instant::now();
        let second = |seconds| start + Duration::from_secs(seconds);
        let check = |clones: &Clones, at, expected| {
            assert_eq!(clones.in_doubt_for(second(at)), Duration::from_secs(expected));
        };
        let mut clones = Clones::new(None, SILENCE);
        check(&clones, 0, 20);
        clones.hello(agent(1), second(0));
        check(&clones, 5, 15);
        check(&clones, 25, 0);
        clones.hello(agent(1), second(30));
        check(&clones, 30, 0);
        clones.hello(agent(2), second(40));
        check(&clones, 41, 19);
        clones.answered("1", second(30), second(45));
        clones.answered("2", second(40), second(46));
        check(&clones, 46, 19);

        // A restart on the same host raises no doubt, and neither does one of the server.
        let on = |boot_id: &str, number| Agent {
            boot_id: boot_id.into(),
            address: "10.0.0.7:9441".into(),
            ..agent(number)
        };
        let mut clones = Clones::new(Some(on("b7", 1)), SILENCE);
        clones.hello(on("b7", 2), second(0));
        check(&clones, 0, 0);
        clones.hello(on("b7", 3), second(1));
        check(&clones, 1, 0);
        clones.hello(on("c8", 4), second(2));
        check(&clones, 2, 20);
        clones.hello(on("c8", 5), second(12));
        check(&clones, 12, 10);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let start = Instant::now();
        let mut clones = Clones::new(None, SILENCE);
        for number in 0..1000 {
            clones.hello(agent(number), start + Duration::from_secs(number as u64));
        }
        assert_eq!(clones.heard.len(), REMEMBERED);
        assert!(clones.knows("999") && !clones.knows("0"));
    }

    /// An agent of the model world, in which everything is known: it lives from one time to another.
    #[derive(Debug, Clone)]
    struct Life {
        begin: u64,
        end: u64,
        /// Hellos: when each is sent after its begin, and how long it is under way.
        hellos: Vec<(u64, u64)>,
        /// How long an answer is under way.
        lag: u64,
    }

    fn lives() -> impl Strategy<Value = Vec<Life>> {
        let hellos = prop::collection::vec((0u64..100, 0u64..100), 1..5);
        let life = (0u64..200, 1u64..100, hellos, 0u64..50).prop_map(|(begin, length, hellos, lag)| {
            let hellos = hellos.into_iter().map(|(after, delay)| (after % length, delay)).collect();
            Life { begin, end: begin + length, hellos, lag }
        });
        prop::collection::vec(life, 1..4)
    }

    /// What the server hears: when, whom, and whether it is an answer, with when its welcome was sent. Nobody answers a
    /// welcome that was sent after its end.
    fn heard(lives: &[Life]) -> Vec<(u64, usize, Option<u64>)> {
        let mut heard = Vec::new();
        for (number, life) in lives.iter().enumerate() {
            for (after, delay) in &life.hellos {
                let welcomed = life.begin + after + delay;
                heard.push((welcomed, number, None));
                if welcomed < life.end {
                    heard.push((welcomed + life.lag, number, Some(welcomed)));
                }
            }
        }
        heard.sort_unstable();
        heard
    }

    proptest! {
        /// Hazard A10: whatever arrives late, two are told only where two have lived at the same time; and always where
        /// the plain definition says so, over all that was ever heard.
        #[test]
        fn two_are_told_where_two_have_lived(lives in lives()) {
            let start = Instant::now();
            let second = |seconds| start + Duration::from_secs(seconds);
            let mut clones = Clones::new(None, SILENCE);
            let heard = heard(&lives);
            for (place, (at, number, welcomed)) in heard.iter().enumerate() {
                match welcomed {
                    None => clones.hello(agent(*number), second(*at)),
                    Some(welcomed) => clones.answered(&number.to_string(), second(*welcomed), second(*at)),
                }
                let told: Vec<usize> = clones
                    .twins(second(*at))
                    .iter()
                    .map(|twin| twin.agent.incarnation.parse().expect("a number"))
                    .collect();
                for one in &told {
                    let overlaps = |other: &usize| {
                        other != one
                            && lives[*one].begin <= lives[*other].end
                            && lives[*other].begin <= lives[*one].end
                    };
                    prop_assert!(told.iter().any(overlaps), "{:?} at {}", told, at);
                }
                let so_far = &heard[..=place];
                let of = |wanted: usize| so_far.iter().filter(move |(_, number, _)| *number == wanted);
                let span = |wanted| {
                    let first = of(wanted).filter(|heard| heard.2.is_none()).map(|heard| heard.0).min();
                    Some((first?, of(wanted).filter_map(|heard| heard.2).max()?))
                };
                let present = |wanted: &usize| {
                    of(*wanted).map(|heard| heard.0).max().is_some_and(|last| at - last <= SILENCE.as_secs())
                };
                let mut expected: Vec<usize> = (0..lives.len())
                    .filter(present)
                    .filter(|one| {
                        (0..lives.len()).filter(present).filter(|other| other != one).any(|other| {
                            let spans = span(*one).zip(span(other));
                            spans.is_some_and(|(one, other)| one.0 <= other.1 && other.0 <= one.1)
                        })
                    })
                    .collect();
                expected.sort_by_key(|one| span(*one));
                prop_assert_eq!(told.iter().collect::<std::collections::BTreeSet<_>>(),
                    expected.iter().collect::<std::collections::BTreeSet<_>>(), "at {}", at);
            }
        }
    }
}
