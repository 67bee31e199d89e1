//! The engine against a small model of what a task is, over random graphs, orders of operators, crashes and late results.
//!
//! The model keeps no log and folds nothing: it changes plain values, as a person would on a blackboard. What it shares with
//! the engine are only the words for events and verbs.

use std::{collections::BTreeSet, time::Duration};

use belay_proto::{HostId, SubtaskId};
use jiff::Timestamp;
use proptest::{prelude::*, test_runner::TestCaseError};
use uuid::Uuid;

use super::{Event, Graph, Node, State, Step, Verb, World, state::Kind, verb::check};

/// A step on the blackboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Fresh,
    Runs,
    IsToldToEnd,
    Broken,
    Done,
    MustGoBack,
    GoesBack,
    IsBack,
    CanNotGoBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Halted,
    Back,
}

#[derive(Debug, Clone)]
struct Blackboard {
    /// Above which steps each step stands.
    below: Vec<Vec<usize>>,
    marks: Vec<Mark>,
    /// Steps that an operator wants again, though others have failed.
    again: BTreeSet<usize>,
    way: Way,
    gave_up: BTreeSet<usize>,
    paused: bool,
}

impl Blackboard {
    fn new(below: Vec<Vec<usize>>) -> Self {
        let marks = vec![Mark::Fresh; below.len()];
        Self {
            below,
            marks,
            again: BTreeSet::new(),
            way: Way::Forward,
            gave_up: BTreeSet::new(),
            paused: false,
        }
    }

    fn any(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }

    fn moves(&self) -> bool {
        self.any(Mark::Runs) || self.any(Mark::IsToldToEnd) || self.any(Mark::GoesBack)
    }

    fn above(&self, step: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.below.len()).filter(move |&other| self.below[other].contains(&step))
    }

    /// What may begin now.
    fn may_begin(&self) -> BTreeSet<usize> {
        if self.paused { BTreeSet::new() } else { self.would_begin() }
    }

    fn would_begin(&self) -> BTreeSet<usize> {
        let all = 0..self.marks.len();
        match self.way {
            Way::Halted => BTreeSet::new(),
            Way::Forward => all
                .filter(|&step| self.marks[step] == Mark::Fresh)
                .filter(|&step| self.below[step].iter().all(|&below| self.marks[below] == Mark::Done))
                .filter(|step| !self.any(Mark::Broken) || self.again.contains(step))
                .collect(),
            Way::Back if self.any(Mark::CanNotGoBack) => BTreeSet::new(),
            Way::Back => all
                .filter(|&step| self.marks[step] == Mark::MustGoBack)
                .filter(|&step| {
                    self.above(step).all(|above| matches!(self.marks[above], Mark::Fresh | Mark::IsBack))
                })
                .collect(),
        }
    }

    fn told(&self) -> &'static str {
        let goes_on = self.moves() || !self.would_begin().is_empty();
        match (self.way, goes_on) {
            (Way::Forward, true) if self.paused => "PAUSED",
            (Way::Forward, true) => "RUNNING",
            (Way::Halted, true) => "CANCELING",
            (Way::Back, true) => "ROLLING_BACK",
            (Way::Back, false) if self.any(Mark::CanNotGoBack) => "ROLLBACK_STUCK",
            (Way::Back, false) => "ROLLED_BACK",
            (_, false) if self.marks.iter().all(|mark| *mark == Mark::Done) => "SUCCESSFUL",
            (Way::Halted, false) => "CANCELLED",
            (Way::Forward, false) if self.gave_up.is_empty() => "FAILED",
            (Way::Forward, false) => "STUCK",
        }
    }

    fn begin(&mut self, step: usize) {
        self.marks[step] = if self.way == Way::Back { Mark::GoesBack } else { Mark::Runs };
    }

    fn end(&mut self, step: usize, well: bool, gave_up: bool) {
        self.marks[step] = match (self.marks[step], well) {
            (Mark::GoesBack, true) => Mark::IsBack,
            (Mark::GoesBack, false) => Mark::CanNotGoBack,
            // A step that was told to end while the task goes on must not let the next one begin.
            (Mark::IsToldToEnd, true) if self.way == Way::Forward => Mark::Broken,
            (_, true) => Mark::Done,
            (_, false) => Mark::Broken,
        };
        if self.marks[step] == Mark::Broken && gave_up {
            self.gave_up.insert(step);
        }
    }

    /// Whether the order is let in. It is carried out then.
    fn order(&mut self, verb: Verb, step: usize) -> bool {
        let told = self.told();
        let over = ["FAILED", "CANCELLED", "STUCK"].contains(&told);
        let mark = self.marks[step];
        match verb {
            Verb::Retry if over || told == "ROLLBACK_STUCK" => {
                (0..self.marks.len()).for_each(|step| self.wipe(step));
                if over {
                    self.way = Way::Forward;
                }
            }
            Verb::Pause if told == "RUNNING" => self.paused = true,
            // A task for one host has no waves.
            Verb::Resume(_) if ["RUNNING", "PAUSED"].contains(&told) && self.paused => self.paused = false,
            Verb::Rollback if over => {
                self.paused = false;
                self.way = Way::Back;
                for mark in &mut self.marks {
                    if matches!(mark, Mark::Done | Mark::Broken) {
                        *mark = Mark::MustGoBack;
                    }
                }
            }
            Verb::Cancel if ["RUNNING", "PAUSED"].contains(&told) => {
                self.paused = false;
                self.way = Way::Halted;
                for mark in self.marks.iter_mut().filter(|mark| **mark == Mark::Runs) {
                    *mark = Mark::IsToldToEnd;
                }
            }
            Verb::RetrySubtask | Verb::SkipSubtask
                if mark == Mark::Broken && (over || told == "RUNNING" || told == "PAUSED")
                    || mark == Mark::CanNotGoBack =>
            {
                if self.way == Way::Halted {
                    self.way = Way::Forward;
                }
                match verb {
                    Verb::RetrySubtask => self.wipe(step),
                    _ => {
                        self.gave_up.remove(&step);
                        self.marks[step] = if mark == Mark::Broken { Mark::Done } else { Mark::IsBack };
                    }
                }
            }
            Verb::CancelSubtask if ["RUNNING", "PAUSED"].contains(&told) && mark == Mark::Runs => {
                self.marks[step] = Mark::IsToldToEnd;
            }
            _ => return false,
        }
        true
    }

    fn wipe(&mut self, step: usize) {
        match self.marks[step] {
            Mark::Broken => {
                self.marks[step] = Mark::Fresh;
                self.again.insert(step);
                self.gave_up.remove(&step);
            }
            Mark::CanNotGoBack => self.marks[step] = Mark::MustGoBack,
            _ => {}
        }
    }
}

impl Mark {
    fn kind(self) -> Kind {
        match self {
            Self::Fresh => Kind::Waiting,
            Self::Runs => Kind::Running,
            Self::IsToldToEnd => Kind::Canceling,
            Self::Broken => Kind::Failed,
            Self::Done => Kind::Successful,
            Self::MustGoBack => Kind::ToUndo,
            Self::GoesBack => Kind::Undoing,
            Self::IsBack => Kind::Undone,
            Self::CanNotGoBack => Kind::UndoFailed,
        }
    }
}

/// One thing that happens. Numbers choose among what is possible then.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Begins(usize),
    Ends {
        which: usize,
        well: bool,
        gave_up: bool,
    },
    /// The server dies and another one reads the log.
    Crash,
    /// A result of an attempt that ended long ago, or was never there.
    Late {
        step: usize,
        attempt: i32,
        undo: bool,
        well: bool,
    },
    /// A runner of before tries to begin what is not due.
    Stray {
        step: usize,
        attempt: i32,
        undo: bool,
    },
    Ordered(Verb, usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let verb = prop::sample::select(&Verb::ALL[..]);
    prop_oneof![
        6 => any::<usize>().prop_map(Happening::Begins),
        6 => (any::<usize>(), prop::bool::weighted(0.7), prop::bool::weighted(0.2))
            .prop_map(|(which, well, gave_up)| Happening::Ends { which, well, gave_up }),
        1 => Just(Happening::Crash),
        2 => (any::<usize>(), 0..4, any::<bool>(), any::<bool>())
            .prop_map(|(step, attempt, undo, well)| Happening::Late { step, attempt, undo, well }),
        1 => (any::<usize>(), 0..4, any::<bool>())
            .prop_map(|(step, attempt, undo)| Happening::Stray { step, attempt, undo }),
        5 => (verb, any::<usize>()).prop_map(|(verb, step)| Happening::Ordered(verb, step)),
    ]
}

/// A graph of up to seven steps: each stands above some of those before it.
fn graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(any::<bool>(), 7), 1..=7).prop_map(|rows| {
        let below = |(step, row): (usize, Vec<bool>)| (0..step).filter(|&below| row[below]).collect();
        rows.into_iter().enumerate().map(below).collect()
    })
}

fn id(step: usize) -> SubtaskId {
    SubtaskId::try_from(step as i64 + 1).expect("above 0")
}

fn graph_of(below: &[Vec<usize>]) -> Graph {
    let step = |step: usize| Step {
        id: id(step),
        node: Node::StopAll,
        undo: Some(Node::StartWhatRan),
        name: String::new(),
        class_name: String::new(),
        series_id: 0,
        timeout: Duration::from_secs(60),
        upstreams: below[step].iter().copied().map(id).collect(),
        downstreams: (0..below.len()).filter(|&above| below[above].contains(&step)).map(id).collect(),
        lane: 0,
        needs: Vec::new(),
        carries: Vec::new(),
    };
    let steps = (0..below.len()).map(step).collect();
    Graph::new(steps, vec![HostId::try_from(20).expect("above 0")], None)
}

/// The engine: a log, and its fold.
struct Engine {
    graph: Graph,
    log: Vec<(Timestamp, Event)>,
    state: State,
    /// What was begun: steps, attempts, and whether to undo.
    begun: BTreeSet<(usize, i32, bool)>,
}

impl Engine {
    fn append(&mut self, event: Event) {
        let time = Timestamp::from_second(self.log.len() as i64).expect("a time");
        self.state.apply(time, &event);
        self.log.push((time, event));
    }

    /// As the runner does.
    fn begin(&mut self, step: usize, undo: bool) -> Result<(), TestCaseError> {
        let state = self.state.step(id(step));
        let attempt = if undo { state.undo } else { state.attempt };
        prop_assert!(self.begun.insert((step, attempt, undo)), "an attempt is begun once");
        self.append(Event::Started { subtask: id(step).get(), attempt, operation: Uuid::nil(), undo });
        Ok(())
    }

    fn result(&mut self, step: usize, attempt: i32, undo: bool, well: bool, stuck: bool) {
        let subtask = id(step).get();
        let (reason, message) = ("LEFTOVERS".to_owned(), String::new());
        self.append(match well {
            true => Event::Succeeded { subtask, attempt, undo },
            false => Event::Failed { subtask, attempt, reason, message, undo, stuck },
        });
    }
}

fn compare(engine: &Engine, board: &Blackboard) -> Result<(), TestCaseError> {
    let next = engine.state.outlook(&engine.graph, &World::default()).work;
    let of = |running: bool| {
        let some = next.iter().filter(move |work| work.attempt.is_some() == running);
        some.map(|work| work.step.get() as usize - 1).collect::<BTreeSet<_>>()
    };
    prop_assert_eq!(of(false), board.may_begin());
    let moving = |step: &usize| matches!(board.marks[*step], Mark::Runs | Mark::IsToldToEnd | Mark::GoesBack);
    prop_assert_eq!(of(true), (0..board.marks.len()).filter(moving).collect::<BTreeSet<_>>());
    prop_assert_eq!(engine.state.standing(&engine.graph).as_str(), board.told());
    for (step, mark) in board.marks.iter().enumerate() {
        prop_assert_eq!(engine.state.step(id(step)).status.kind(), mark.kind(), "step {}", step);
    }
    // Whatever the log says, a reader of it comes to the same (hazard D27).
    prop_assert_eq!(&State::replay(&engine.log), &engine.state);
    Ok(())
}

fn tell(below: Vec<Vec<usize>>, story: Vec<Happening>) -> Result<(), TestCaseError> {
    let count = below.len();
    let mut engine =
        Engine { graph: graph_of(&below), log: Vec::new(), state: State::default(), begun: BTreeSet::new() };
    let mut board = Blackboard::new(below);
    compare(&engine, &board)?;
    for happening in story {
        match happening {
            Happening::Begins(which) => {
                let due: Vec<_> = board.may_begin().into_iter().collect();
                if let Some(&step) = due.get(which % due.len().max(1)) {
                    engine.begin(step, board.way == Way::Back)?;
                    board.begin(step);
                }
            }
            Happening::Ends { which, well, gave_up } => {
                let moving: Vec<_> = (0..count)
                    .filter(|&step| engine.state.step(id(step)).status.attempt().is_some())
                    .collect();
                if let Some(&step) = moving.get(which % moving.len().max(1)) {
                    let attempt = engine.state.step(id(step)).status.attempt().expect("it moves");
                    engine.result(step, attempt.number, attempt.undo, well, gave_up && !well);
                    board.end(step, well, gave_up && !well);
                }
            }
            Happening::Crash => {
                engine.state = State::replay(&engine.log);
                for work in engine.state.outlook(&engine.graph, &World::default()).work {
                    if let Some(attempt) = work.attempt {
                        let (attempt, undo) = (attempt.number, attempt.undo);
                        engine.append(Event::Resumed { subtask: work.step.get(), attempt, epoch: 2, undo });
                    }
                }
            }
            Happening::Late { step, attempt, undo, well } => {
                let step = step % count;
                let current = engine.state.step(id(step)).status.attempt();
                if current.is_none_or(|now| now.number != attempt || now.undo != undo) {
                    engine.result(step, attempt, undo, well, false);
                }
            }
            Happening::Stray { step, attempt, undo } => {
                let step = step % count;
                let state = engine.state.step(id(step));
                let number = if undo { state.undo } else { state.attempt };
                // A runner asks what is due in the transaction in which it begins it, so a stray one has another attempt, or
                // does not know yet that the task was cancelled or goes back.
                let elsewhere = board.way == Way::Halted || undo != (board.way == Way::Back);
                if attempt != number || elsewhere {
                    let (subtask, operation) = (id(step).get(), Uuid::nil());
                    engine.append(Event::Started { subtask, attempt, operation, undo });
                }
            }
            Happening::Ordered(verb, step) => {
                let step = step % count;
                let names_one = matches!(verb, Verb::RetrySubtask | Verb::SkipSubtask | Verb::CancelSubtask);
                let kind = names_one.then(|| engine.state.step(id(step)).status.kind());
                let standing = engine.state.standing(&engine.graph);
                let is_for_it = match verb {
                    Verb::Resume(_) => engine.state.is_paused(),
                    Verb::Approve(_) => false,
                    _ => true,
                };
                let verdict = is_for_it && check(verb, standing, false, kind).is_ok();
                prop_assert_eq!(verdict, board.order(verb, step), "{:?} of step {}", verb, step);
                if verdict {
                    let subtask = names_one.then(|| id(step).get());
                    engine.append(Event::Ordered { verb, subtask, by: "admin".into() });
                }
            }
        }
        compare(&engine, &board)?;
    }
    Ok(())
}

fn cases() -> u32 {
    std::env::var("BELAY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Hazards D05, D09 to D11, D13 to D16, D27: whatever happens in whatever order, the engine and the model agree on what
    /// may run, how every step and the task stand, and which orders are let in.
    #[test]
    fn the_engine_is_the_model(below in graph(), story in prop::collection::vec(happening(), 0..80)) {
        tell(below, story)?;
    }
}
