//! Batches against what is written of them, over random fleets, limits, results, orders of operators and absences.
//!
//! The judge keeps a list of hosts and what became of each, as a person with a clipboard would, and says by the written rules
//! who may begin. It shares no code with the engine but the words for events and verbs.

use std::{collections::BTreeSet, time::Duration};

use belay_proto::{HostId, Reason, SubtaskId};
use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, test_runner::TestCaseError};
use uuid::Uuid;

use super::{
    Batch, Event, Graph, Node, State, Step, TaskState, Verb, World,
    batch::{Absent, Amount, BatchVerb, Budget, Spent},
    next::{Outlook, Work},
};

/// Steps of each host.
const STEPS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    NotBegun,
    /// In this step of its way, from 0.
    On(usize),
    Done,
    Failed(usize),
    LeftAlone,
    /// It had begun when the batch was cancelled.
    CutOff,
}

/// The clipboard.
#[derive(Debug)]
struct Judge {
    setup: Setup,
    marks: Vec<Mark>,
    /// Hosts that are to run again from this step.
    again: Vec<Option<usize>>,
    cancelled: bool,
    paused: bool,
    approved: usize,
    healthy: usize,
    absent: BTreeSet<usize>,
    down: BTreeSet<usize>,
    waited_for_too_long: bool,
}

#[derive(Debug, Clone)]
struct Setup {
    verb: BatchVerb,
    waves: Vec<usize>,
    parallel: usize,
    stop_after: Option<usize>,
    stop_after_in_wave: Option<usize>,
    approve: bool,
    healthy: bool,
    absent: u8,
    /// Which hosts a budget is about, and how many of them may be down.
    budget: Option<(BTreeSet<usize>, usize)>,
}

impl Judge {
    fn new(setup: Setup) -> Self {
        let hosts = setup.waves.iter().sum();
        Self {
            setup,
            marks: vec![Mark::NotBegun; hosts],
            again: vec![None; hosts],
            cancelled: false,
            paused: false,
            approved: 0,
            healthy: 0,
            absent: BTreeSet::new(),
            down: BTreeSet::new(),
            waited_for_too_long: false,
        }
    }

    fn wave_of(&self, host: usize) -> usize {
        let mut left = host;
        for (wave, size) in self.setup.waves.iter().enumerate() {
            if left < *size {
                return wave;
            }
            left -= size;
        }
        unreachable!("a host is in a wave")
    }

    fn hosts(&self) -> std::ops::Range<usize> {
        0..self.marks.len()
    }

    fn is_under_way(&self, host: usize) -> bool {
        matches!(self.marks[host], Mark::On(_))
    }

    fn is_over(&self, host: usize) -> bool {
        !self.is_under_way(host) && self.marks[host] != Mark::NotBegun
    }

    fn failures(&self, wave: Option<usize>) -> usize {
        let of = |host: &usize| wave.is_none_or(|wave| self.wave_of(*host) == wave);
        self.hosts().filter(of).filter(|&host| matches!(self.marks[host], Mark::Failed(_))).count()
    }

    fn is_halted(&self) -> bool {
        let whole = self.setup.stop_after.is_some_and(|most| self.failures(None) >= most);
        let waves = 0..self.setup.waves.len();
        let part = self.setup.stop_after_in_wave;
        whole || part.is_some_and(|most| waves.into_iter().any(|wave| self.failures(Some(wave)) >= most))
    }

    /// The first wave with somebody who has not ended.
    fn wave(&self) -> Option<usize> {
        (0..self.setup.waves.len())
            .find(|&wave| self.hosts().any(|host| self.wave_of(host) == wave && !self.is_over(host)))
    }

    fn is_gated(&self, wave: usize) -> bool {
        wave > 0 && (self.setup.approve && self.approved < wave || self.setup.healthy && self.healthy < wave)
    }

    fn down_by_us(&self, begun: &BTreeSet<usize>) -> BTreeSet<usize> {
        let is_down = |host: &usize| match self.marks[*host] {
            Mark::On(_) | Mark::Failed(_) | Mark::CutOff => true,
            Mark::Done => self.setup.verb == BatchVerb::Stop,
            Mark::NotBegun => begun.contains(host),
            Mark::LeftAlone => false,
        };
        self.hosts().filter(is_down).collect()
    }

    /// Who begins now, and who is absent and is not waited for.
    fn turns(&self) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let (mut begin, mut pass) = (BTreeSet::new(), BTreeSet::new());
        let Some(wave) = self.wave() else { return (begin, pass) };
        let others = self.hosts().any(|host| self.is_under_way(host) && self.wave_of(host) != wave);
        if self.cancelled || self.paused || self.is_halted() || self.is_gated(wave) || others {
            return (begin, pass);
        }
        for host in self.hosts().filter(|&host| self.wave_of(host) == wave) {
            if self.marks[host] != Mark::NotBegun {
                continue;
            }
            if self.absent.contains(&host) {
                if self.setup.absent != 2 || self.waited_for_too_long {
                    pass.insert(host);
                }
                continue;
            }
            let under_way = self.hosts().filter(|&host| self.is_under_way(host)).count();
            if under_way + begin.len() >= self.setup.parallel {
                continue;
            }
            if let Some((members, most)) =
                self.setup.budget.as_ref().filter(|(members, _)| members.contains(&host))
            {
                let mut down = self.down_by_us(&begin);
                down.extend(&self.down);
                down.insert(host);
                if down.intersection(members).count() > *most {
                    continue;
                }
            }
            begin.insert(host);
        }
        (begin, pass)
    }

    /// How the batch stands.
    fn told(&self) -> TaskState {
        let under_way = self.hosts().any(|host| self.is_under_way(host));
        let waiting = self.marks.contains(&Mark::NotBegun);
        let done = self.marks.contains(&Mark::Done);
        let all = self.marks.iter().all(|mark| matches!(mark, Mark::Done | Mark::LeftAlone));
        if self.cancelled && under_way {
            return TaskState::Canceling;
        }
        if !self.cancelled && (under_way || waiting) {
            let needs_approval = self.setup.approve && self.wave().is_some_and(|wave| wave > self.approved);
            let needs_health = self.setup.healthy && self.wave().is_some_and(|wave| wave > self.healthy);
            return match () {
                () if self.paused => TaskState::Paused,
                () if self.is_halted() && !under_way => TaskState::Failed,
                () if self.is_halted() || needs_health => TaskState::Running,
                () if needs_approval && !under_way => TaskState::Paused,
                () => TaskState::Running,
            };
        }
        match () {
            () if all && done => TaskState::Successful,
            () if self.cancelled => TaskState::Cancelled,
            () => TaskState::Failed,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    /// The runner looks what is due, and begins it.
    Turn,
    /// A step that runs ends.
    Ends {
        which: usize,
        well: bool,
    },
    GoesAway(usize),
    ComesBack(usize),
    GoesDown(usize),
    ComesUp(usize),
    IsHealthy,
    WaitIsOver,
    Crash,
    Pause,
    Resume,
    Approve,
    Cancel,
    Retry,
    RetryHost(usize),
    SkipHost(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let which = any::<usize>;
    prop_oneof![
        8 => Just(Happening::Turn),
        10 => (which(), prop::bool::weighted(0.75)).prop_map(|(which, well)| Happening::Ends { which, well }),
        1 => which().prop_map(Happening::GoesAway),
        2 => which().prop_map(Happening::ComesBack),
        1 => which().prop_map(Happening::GoesDown),
        2 => which().prop_map(Happening::ComesUp),
        2 => Just(Happening::IsHealthy),
        1 => Just(Happening::WaitIsOver),
        1 => Just(Happening::Crash),
        1 => Just(Happening::Pause),
        2 => Just(Happening::Resume),
        2 => Just(Happening::Approve),
        1 => Just(Happening::Cancel),
        2 => Just(Happening::Retry),
        1 => which().prop_map(Happening::RetryHost),
        1 => which().prop_map(Happening::SkipHost),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let verb = prop::sample::select(vec![BatchVerb::Stop, BatchVerb::Restart, BatchVerb::Start]);
    let some = || prop::option::of(1..4usize);
    let budget = prop::option::weighted(0.4, (prop::collection::btree_set(0..9usize, 1..9), 1..4usize));
    let waves = prop::collection::vec(1..4usize, 1..4);
    let rules = (prop::bool::weighted(0.3), prop::bool::weighted(0.3), 0..3u8);
    (verb, waves, 1..5usize, some(), some(), rules, budget).prop_map(
        |(verb, waves, parallel, stop_after, stop_after_in_wave, (approve, healthy, absent), budget)| {
            let hosts: usize = waves.iter().sum();
            let budget = budget.map(|(members, most)| {
                let members: BTreeSet<_> = members.into_iter().filter(|host| *host < hosts).collect();
                (members, most)
            });
            // A start takes nobody down, and is refused with a budget.
            let budget = budget.filter(|(members, _)| !members.is_empty() && verb != BatchVerb::Start);
            Setup { verb, waves, parallel, stop_after, stop_after_in_wave, approve, healthy, absent, budget }
        },
    )
}

fn host_id(host: usize) -> HostId {
    HostId::try_from(host as i64 + 1).expect("above 0")
}

fn step_id(host: usize, step: usize) -> SubtaskId {
    SubtaskId::try_from((host * STEPS + step) as i64 + 1).expect("above 0")
}

/// Wait for it until then.
fn deadline() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1)
}

fn graph(setup: &Setup) -> Graph {
    let hosts: usize = setup.waves.iter().sum();
    let barrier = SubtaskId::try_from((hosts * STEPS) as i64 + 1).expect("above 0");
    let step = |id, node, lane, upstreams: Vec<SubtaskId>, downstreams: Vec<SubtaskId>| Step {
        id,
        node,
        undo: None,
        name: String::new(),
        class_name: String::new(),
        series_id: 0,
        timeout: Duration::from_secs(60),
        lane,
        upstreams,
        downstreams,
        needs: Vec::new(),
        carries: Vec::new(),
    };
    let all = |place| (0..hosts).map(|host| step_id(host, place)).collect::<Vec<_>>();
    let first = (0..hosts).map(|host| step(step_id(host, 0), Node::PrepareStop, host, vec![], vec![barrier]));
    let second = (0..hosts).map(|host| step(step_id(host, 1), Node::StopAll, host, vec![barrier], vec![]));
    let wait = step(barrier, Node::Wait, usize::MAX, all(0), all(1));
    let batch = Batch {
        verb: setup.verb,
        waves: setup.waves.clone(),
        parallel: setup.parallel,
        stop_after: setup.stop_after,
        stop_after_in_wave: setup
            .stop_after_in_wave
            .map(|most| vec![most; setup.waves.len()])
            .unwrap_or_default(),
        approve_waves: setup.approve,
        healthy_for: setup.healthy.then_some(Duration::from_secs(1)),
        absent: match setup.absent {
            0 => Absent::Fail,
            1 => Absent::Skip,
            _ => Absent::WaitUntil(deadline()),
        },
        budgets: setup
            .budget
            .iter()
            .map(|(_, most)| Budget { selector: String::new(), max_down: Amount::Count(*most) })
            .collect(),
    };
    Graph::new(first.chain([wait]).chain(second).collect(), (0..hosts).map(host_id).collect(), Some(batch))
}

/// The engine: a log, and its fold.
struct Engine {
    graph: Graph,
    log: Vec<(Timestamp, Event)>,
    state: State,
}

impl Engine {
    fn append(&mut self, event: Event) {
        let time = Timestamp::from_second(self.log.len() as i64).expect("a time");
        self.state.apply(time, &event);
        self.log.push((time, event));
    }

    fn outlook(&self, judge: &Judge) -> Outlook {
        let ids = |hosts: &BTreeSet<usize>| hosts.iter().copied().map(host_id).collect::<BTreeSet<_>>();
        let now = if judge.waited_for_too_long { deadline() } else { Timestamp::UNIX_EPOCH };
        let spent = judge.setup.budget.iter().map(|(members, _)| Spent {
            members: ids(members),
            down: ids(&judge.down.intersection(members).copied().collect()),
        });
        self.state.outlook(&self.graph, &World { now, absent: ids(&judge.absent), budgets: spent.collect() })
    }

    fn begin(&mut self, step: SubtaskId) {
        let attempt = self.state.step(step).attempt;
        let (subtask, operation) = (step.get(), Uuid::nil());
        self.append(Event::Started { subtask, attempt, operation, undo: false });
    }

    fn end(&mut self, step: SubtaskId, well: bool) {
        let attempt = self.state.step(step).attempt;
        let (subtask, undo) = (step.get(), false);
        let (reason, message) = (Reason::Leftovers.as_str().to_owned(), String::new());
        self.append(match well {
            true => Event::Succeeded { subtask, attempt, undo },
            false => Event::Failed { subtask, attempt, reason, message, undo, stuck: false },
        });
    }

    fn order(&mut self, verb: Verb, subtask: Option<SubtaskId>) {
        self.append(Event::Ordered { verb, subtask: subtask.map(SubtaskId::get), by: "admin".into() });
    }
}

/// Which hosts begin, in an outlook: those with work that were not under way.
fn beginning(outlook: &Outlook, graph: &Graph, judge: &Judge) -> BTreeSet<usize> {
    let lane = |work: &Work| graph.steps[work.place].lane;
    outlook.work.iter().map(lane).filter(|&host| !judge.is_under_way(host)).collect()
}

fn compare(engine: &Engine, judge: &Judge) -> Result<(), TestCaseError> {
    let outlook = engine.outlook(judge);
    let (begin, pass) = judge.turns();
    prop_assert_eq!(beginning(&outlook, &engine.graph, judge), begin, "who begins: {:?}", judge);
    prop_assert_eq!(outlook.absent.iter().copied().collect::<BTreeSet<_>>(), pass, "who is passed over");
    // A host that is under way is never held up by others (hazard D12).
    for host in judge.hosts().filter(|&host| judge.is_under_way(host)) {
        let goes_on = outlook.work.iter().any(|work| engine.graph.steps[work.place].lane == host);
        prop_assert!(goes_on || judge.cancelled, "host {} is held up", host);
    }
    prop_assert_eq!(engine.state.standing(&engine.graph), judge.told(), "{:?}", judge);
    // Nobody waits for nothing.
    if judge.told() == TaskState::Running && outlook.work.is_empty() && outlook.absent.is_empty() {
        prop_assert!(!outlook.waits.is_empty(), "it waits, and does not say for what");
    }
    prop_assert_eq!(&State::replay(&engine.log), &engine.state);
    Ok(())
}

fn tell(setup: Setup, story: Vec<Happening>) -> Result<(), TestCaseError> {
    let mut engine = Engine { graph: graph(&setup), log: Vec::new(), state: State::default() };
    let mut judge = Judge::new(setup);
    compare(&engine, &judge)?;
    for happening in story {
        let host = |which: usize| which % judge.marks.len();
        let told = judge.told();
        let open = matches!(told, TaskState::Running | TaskState::Paused);
        match happening {
            Happening::Turn => turn(&mut engine, &mut judge),
            Happening::Ends { which, well } => {
                let running = |host: &usize| {
                    let Mark::On(step) = judge.marks[*host] else { return false };
                    engine.state.step(step_id(*host, step)).status.attempt().is_some()
                };
                let running: Vec<_> = judge.hosts().filter(running).collect();
                if let Some(&host) = running.get(which % running.len().max(1)) {
                    ends(&mut engine, &mut judge, host, well);
                }
            }
            Happening::GoesAway(which) => drop(judge.absent.insert(host(which))),
            Happening::ComesBack(which) => drop(judge.absent.remove(&host(which))),
            Happening::GoesDown(which) => drop(judge.down.insert(host(which))),
            Happening::ComesUp(which) => drop(judge.down.remove(&host(which))),
            Happening::WaitIsOver => judge.waited_for_too_long = true,
            Happening::IsHealthy => {
                if let Some(wave) = judge.wave().filter(|wave| *wave > 0 && judge.setup.healthy && open) {
                    judge.healthy = judge.healthy.max(wave);
                    engine.append(Event::Healthy { wave: wave - 1 });
                }
            }
            Happening::Crash => engine.state = State::replay(&engine.log),
            Happening::Pause if told == TaskState::Running => {
                judge.paused = true;
                engine.order(Verb::Pause, None);
            }
            Happening::Resume if open && judge.paused => {
                let wave = judge.wave().unwrap_or_default();
                judge.paused = false;
                judge.healthy = judge.healthy.max(wave);
                engine.order(Verb::Resume(wave), None);
            }
            Happening::Approve => {
                let wave = judge.wave().filter(|wave| judge.setup.approve && judge.approved < *wave && open);
                if let Some(wave) = wave {
                    judge.approved = wave;
                    engine.order(Verb::Approve(wave), None);
                }
            }
            Happening::Cancel if open => {
                (judge.cancelled, judge.paused) = (true, false);
                engine.order(Verb::Cancel, None);
                for host in judge.hosts() {
                    if let Mark::On(step) = judge.marks[host]
                        && engine.state.step(step_id(host, step)).status.attempt().is_none()
                    {
                        judge.marks[host] = Mark::CutOff;
                    }
                }
            }
            Happening::Retry if matches!(told, TaskState::Failed | TaskState::Cancelled) => {
                engine.order(Verb::Retry, None);
                judge.cancelled = false;
                for host in judge.hosts() {
                    match judge.marks[host] {
                        Mark::Failed(step) => again(&mut judge, host, step),
                        Mark::LeftAlone => judge.marks[host] = Mark::NotBegun,
                        Mark::CutOff => goes_on(&engine, &mut judge, host),
                        Mark::NotBegun | Mark::On(_) | Mark::Done => {}
                    }
                }
            }
            Happening::RetryHost(which) | Happening::SkipHost(which)
                if open || matches!(told, TaskState::Failed | TaskState::Cancelled) =>
            {
                let host = host(which);
                let Mark::Failed(step) = judge.marks[host] else { continue };
                if judge.cancelled {
                    judge.cancelled = false;
                    for host in
                        judge.hosts().filter(|&host| judge.marks[host] == Mark::CutOff).collect::<Vec<_>>()
                    {
                        goes_on(&engine, &mut judge, host);
                    }
                }
                if matches!(happening, Happening::RetryHost(_)) {
                    engine.order(Verb::RetrySubtask, Some(step_id(host, step)));
                    again(&mut judge, host, step);
                } else {
                    engine.order(Verb::SkipSubtask, Some(step_id(host, step)));
                    judge.marks[host] = if step + 1 == STEPS { Mark::Done } else { Mark::On(step + 1) };
                }
            }
            _ => {}
        }
        compare(&engine, &judge)?;
    }
    Ok(())
}

/// As the runner does.
fn turn(engine: &mut Engine, judge: &mut Judge) {
    let outlook = engine.outlook(judge);
    for work in outlook.work.iter().filter(|work| work.attempt.is_none()) {
        let host = engine.graph.steps[work.place].lane;
        engine.begin(work.step);
        if judge.marks[host] == Mark::NotBegun {
            judge.marks[host] = Mark::On(judge.again[host].take().unwrap_or_default());
        }
    }
    if outlook.absent.is_empty() {
        return;
    }
    if judge.setup.absent == 1 {
        engine.append(Event::Absent { lanes: outlook.absent.clone() });
    }
    for host in outlook.absent {
        if judge.setup.absent == 1 {
            judge.marks[host] = Mark::LeftAlone;
            continue;
        }
        let step = judge.again[host].take().unwrap_or_default();
        engine.begin(step_id(host, step));
        engine.end(step_id(host, step), false);
        judge.marks[host] = Mark::Failed(step);
    }
}

fn ends(engine: &mut Engine, judge: &mut Judge, host: usize, well: bool) {
    let Mark::On(step) = judge.marks[host] else { return };
    engine.end(step_id(host, step), well);
    judge.marks[host] = match well {
        false => Mark::Failed(step),
        true if step + 1 == STEPS => Mark::Done,
        true if judge.cancelled => Mark::CutOff,
        true => Mark::On(step + 1),
    };
}

fn again(judge: &mut Judge, host: usize, step: usize) {
    judge.marks[host] = Mark::NotBegun;
    judge.again[host] = Some(step);
}

/// What was cut off goes on where it was.
fn goes_on(engine: &Engine, judge: &mut Judge, host: usize) {
    let done = (0..STEPS).filter(|&step| {
        engine.state.step(step_id(host, step)).status.kind() == super::state::Kind::Successful
    });
    judge.marks[host] = Mark::On(done.count());
}

fn cases() -> u32 {
    std::env::var("BELAY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Hazards D12 and L01: however a batch goes, who may begin, who is passed over and how it stands are as written.
    #[test]
    fn a_batch_keeps_its_limits(setup in setup(), story in prop::collection::vec(happening(), 0..120)) {
        tell(setup, story)?;
    }
}
