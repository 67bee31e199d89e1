//! What comes next: the one function that says what of a task may run now, and how the task and its hosts stand.

use std::collections::BTreeSet;

use belay_proto::{HostId, SubtaskId, planted};

use super::{
    Attempt, Batch, Graph, Node, Operation, State, Step, TaskState, World,
    batch::{Absent, BatchVerb, Budget, Spent},
    state::{Kind, Mode, StepState, StepStatus},
};

/// Something that is to run now, or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) step: SubtaskId,
    /// Its place among the steps.
    pub(crate) place: usize,
    /// Whether it is to be undone.
    pub(crate) undo: bool,
    /// The attempt, where it was under way already.
    pub(crate) attempt: Option<Attempt>,
    /// Whether it was told to end.
    pub(crate) cancelled: bool,
}

/// How a host of a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// It is to begin, or to begin again, or to be undone.
    Waiting,
    /// It has begun and goes on by itself.
    UnderWay,
    Successful,
    Failed,
    /// It is left alone, since its agent did not report.
    Skipped,
    /// It had begun, and does not go on since the task was cancelled.
    Cancelled,
    Undone,
    UndoFailed,
}

/// What of a batch may run, and why the rest does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Outlook {
    pub(crate) work: Vec<Work>,
    /// Hosts that are absent when it is their turn, by their places, and are not waited for any more.
    pub(crate) absent: Vec<usize>,
    /// What holds hosts up that have not begun.
    pub(crate) waits: Vec<Wait>,
}

/// What holds hosts up that have not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Somebody, or the task itself, said so.
    Paused(String),
    /// So many have failed.
    Halted,
    /// A wave, from 0, is to be approved.
    Approval(usize),
    /// A wave, from 0, has to be healthy for a time.
    Health(usize),
    /// The agent of this host does not report.
    Absent(HostId),
    /// A budget, by its place, is spent: this host may not go down too.
    Budget(usize, HostId),
}

impl Wait {
    /// Whether a change of the fleet, which nobody tells of, can end it.
    pub(crate) fn is_for_the_world(&self) -> bool {
        match self {
            Self::Health(_) | Self::Absent(_) | Self::Budget(..) => true,
            Self::Paused(_) | Self::Halted | Self::Approval(_) => false,
        }
    }
}

impl State {
    /// What runs or is to run now, and why the rest does not. There is nothing once the task has ended.
    ///
    /// In a task for one host, after a failure no step begins but one that an operator wants again. In a batch that holds
    /// for each host alone, and a host begins only as the batch says. After a cancel nothing begins. A step is undone when
    /// all steps after it are, or never began.
    pub(crate) fn outlook(&self, graph: &Graph, world: &World) -> Outlook {
        let mut outlook = Outlook::default();
        let lanes: Vec<_> = (0..graph.lanes.len()).map(|lane| self.lane(graph, lane)).collect();
        let begins = match &graph.batch {
            None if self.paused.is_some() => BTreeSet::new(),
            None => (0..lanes.len()).collect(),
            Some(batch) => self.turns(graph, batch, &lanes, world, &mut outlook),
        };
        for (lane, state) in lanes.iter().enumerate() {
            let goes_on = *state == Lane::UnderWay && graph.batch.is_some();
            let begins = goes_on || begins.contains(&lane);
            let failed = graph.lane(lane).any(|step| self.kind(step.id) == Kind::Failed);
            let stuck = graph.lane(lane).any(|step| self.kind(step.id) == Kind::UndoFailed);
            for &place in &graph.lanes[lane] {
                let step = &graph.steps[place];
                let known = self.steps.get(&step.id.get());
                let kind = self.kind(step.id);
                let again = known.is_some_and(|step| step.operation == Operation::Retry);
                let (attempt, undo) = match known.and_then(|step| step.status.attempt()) {
                    Some(attempt) => (Some(attempt), attempt.undo),
                    None if begins
                        && self.is_ready(step)
                        && (!failed || again || planted("failure-holds-nothing")) =>
                    {
                        (None, false)
                    }
                    None if begins && kind == Kind::ToUndo && !stuck && self.nothing_stands_on(step) => {
                        (None, true)
                    }
                    None => continue,
                };
                let cancelled = kind == Kind::Canceling;
                outlook.work.push(Work { step: step.id, place, undo, attempt, cancelled });
            }
        }
        outlook
    }

    /// Which hosts of a batch begin now, and which do not and why.
    fn turns(
        &self,
        graph: &Graph,
        batch: &Batch,
        lanes: &[Lane],
        world: &World,
        outlook: &mut Outlook,
    ) -> BTreeSet<usize> {
        let under_way: Vec<_> = (0..lanes.len()).filter(|&lane| lanes[lane] == Lane::UnderWay).collect();
        let mut room = batch.parallel.saturating_sub(under_way.len());
        if planted("waiting-takes-room") {
            room = room.saturating_sub(lanes.iter().filter(|&&lane| lane == Lane::Waiting).count());
        }
        let Some(wave) = self.current_wave(batch, lanes) else {
            return BTreeSet::new();
        };
        let waiting = |range: std::ops::Range<usize>| range.filter(|&lane| lanes[lane] == Lane::Waiting);
        if self.mode == Mode::Rollback {
            return waiting(0..lanes.len()).take(room).collect();
        }
        if !self.may_begin() {
            return BTreeSet::new();
        }
        if let Some(wait) = self.gate(batch, lanes, wave) {
            outlook.waits.push(wait);
            return BTreeSet::new();
        }
        let range = batch.ranges().nth(wave).unwrap_or_default();
        // A host of another wave that runs again, say: two waves are never under way at once.
        if under_way.iter().any(|lane| !range.contains(lane)) && !planted("waves-overlap") {
            return BTreeSet::new();
        }
        let mut begins = BTreeSet::new();
        let mut down = down(graph, batch, lanes, world);
        for lane in waiting(range) {
            let host = graph.hosts[lane];
            if world.missing.contains(&host) {
                outlook.waits.push(Wait::Absent(host));
                continue;
            }
            if world.absent.contains(&host) && !planted("absent-begins") {
                match batch.absent {
                    Absent::WaitUntil(time) if world.now < time => outlook.waits.push(Wait::Absent(host)),
                    Absent::WaitUntil(_) | Absent::Fail | Absent::Skip => outlook.absent.push(lane),
                }
                continue;
            }
            if room == 0 {
                continue;
            }
            let is_spent = |(budget, (spent, down)): &(&Budget, (&Spent, &BTreeSet<HostId>))| {
                let would_be = down.len() + usize::from(!down.contains(&host));
                spent.members.contains(&host) && would_be > budget.max_down.of(spent.members.len())
            };
            if let Some(budget) =
                batch.budgets.iter().zip(world.budgets.iter().zip(&down)).position(|of| is_spent(&of))
            {
                outlook.waits.push(Wait::Budget(budget, host));
                continue;
            }
            room -= 1;
            begins.insert(lane);
            for (down, spent) in down.iter_mut().zip(&world.budgets) {
                down.extend(Some(host).filter(|host| spent.members.contains(host)));
            }
        }
        begins
    }

    /// The first wave with a host that has not ended.
    pub(crate) fn current_wave(&self, batch: &Batch, lanes: &[Lane]) -> Option<usize> {
        let goes_on = |lane: usize| match lanes[lane] {
            Lane::UnderWay => !planted("wave-over-too-early"),
            state => state == Lane::Waiting,
        };
        batch.ranges().position(|mut range| range.any(goes_on))
    }

    /// What holds up all hosts of a wave that have not begun.
    fn gate(&self, batch: &Batch, lanes: &[Lane], wave: usize) -> Option<Wait> {
        if let Some(why) = &self.paused
            && !planted("pause-ignored")
        {
            return Some(Wait::Paused(why.clone()));
        }
        if self.is_halted(batch, lanes) {
            return Some(Wait::Halted);
        }
        if batch.healthy_for.is_some() && self.healthy < wave {
            return Some(Wait::Health(wave - 1));
        }
        self.needs_approval(batch, wave).then_some(Wait::Approval(wave))
    }

    /// Whether a wave begins only when somebody approves it, which nobody has done.
    pub(crate) fn needs_approval(&self, batch: &Batch, wave: usize) -> bool {
        batch.approve_waves && self.approved < wave && !planted("approval-not-needed")
    }

    /// Whether somebody, or the task itself, paused it.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Whether so many hosts have failed, in all or in one wave, that no further one begins.
    pub(crate) fn is_halted(&self, batch: &Batch, lanes: &[Lane]) -> bool {
        let has_failed =
            |lane| lane == Lane::Failed || lane == Lane::Skipped && planted("skipped-counts-as-failed");
        let failed = |range: std::ops::Range<usize>| range.filter(|&lane| has_failed(lanes[lane])).count();
        let in_all = batch
            .stop_after
            .is_some_and(|most| failed(0..lanes.len()) >= most + usize::from(planted("one-failure-more")));
        let in_a_wave = || {
            batch.ranges().zip(&batch.stop_after_in_wave).any(|(wave, &most)| {
                failed(wave) >= most + usize::from(planted("one-failure-more-in-a-wave"))
            })
        };
        in_all || in_a_wave()
    }

    /// How a host of the task stands.
    pub(crate) fn lane(&self, graph: &Graph, lane: usize) -> Lane {
        if self.skipped.contains(&lane) {
            return Lane::Skipped;
        }
        let (mut any, mut all_done, mut begun) = (Kinds::default(), true, false);
        for step in graph.lane(lane) {
            let kind = self.kind(step.id);
            any.add(kind);
            all_done &= kind == Kind::Successful;
            begun |= self.steps.get(&step.id.get()).is_some_and(|step| step.start_time.is_some());
        }
        let mut ready = graph.lane(lane).filter(|step| self.is_free(step));
        let wanted_again = |step: &Step| self.step(step.id).operation == Operation::Retry;
        match self.mode {
            _ if any.has(Kind::Running) || any.has(Kind::Canceling) || any.has(Kind::Undoing) => {
                Lane::UnderWay
            }
            Mode::Rollback if any.has(Kind::UndoFailed) => Lane::UndoFailed,
            Mode::Rollback if any.has(Kind::ToUndo) && any.has(Kind::Undone) => Lane::UnderWay,
            Mode::Rollback if any.has(Kind::ToUndo) => Lane::Waiting,
            Mode::Rollback => Lane::Undone,
            _ if any.has(Kind::Failed) => Lane::Failed,
            _ if all_done => Lane::Successful,
            Mode::Cancel if begun => Lane::Cancelled,
            Mode::Cancel => Lane::Waiting,
            // A step that is to run again needs room, as the first one does.
            Mode::Execute | Mode::Retry if begun && !ready.any(wanted_again) => Lane::UnderWay,
            Mode::Execute | Mode::Retry => Lane::Waiting,
        }
    }

    /// How the task stands. A pure fold of its log, whatever the world is like: what waits for the world is open.
    pub(crate) fn standing(&self, graph: &Graph) -> TaskState {
        match &graph.batch {
            None => self.standing_of_one(graph),
            Some(batch) => self.standing_of_many(graph, batch),
        }
    }

    fn standing_of_one(&self, graph: &Graph) -> TaskState {
        let goes_on = |state: &Self| !state.outlook(graph, &World::default()).work.is_empty();
        let resumed = || goes_on(&self.as_resumed());
        let any = |kind| graph.lane(0).any(|step| self.kind(step.id) == kind);
        let all_done = graph.lane(0).all(|step| self.kind(step.id) == Kind::Successful);
        match self.mode {
            Mode::Execute | Mode::Retry if self.paused.is_some() && resumed() => TaskState::Paused,
            Mode::Execute | Mode::Retry if goes_on(self) => TaskState::Running,
            Mode::Cancel if goes_on(self) => TaskState::Canceling,
            Mode::Rollback if goes_on(self) => TaskState::RollingBack,
            Mode::Rollback if any(Kind::UndoFailed) => TaskState::RollbackStuck,
            Mode::Rollback => TaskState::RolledBack,
            // The cancel came too late.
            _ if all_done => TaskState::Successful,
            Mode::Cancel => TaskState::Cancelled,
            Mode::Execute | Mode::Retry if self.gave_up() => TaskState::Stuck,
            Mode::Execute | Mode::Retry => TaskState::Failed,
        }
    }

    fn standing_of_many(&self, graph: &Graph, batch: &Batch) -> TaskState {
        let lanes: Vec<_> = (0..graph.lanes.len()).map(|lane| self.lane(graph, lane)).collect();
        let any = |state| lanes.contains(&state);
        let all_done = lanes.iter().all(|lane| matches!(lane, Lane::Successful | Lane::Skipped));
        match self.mode {
            Mode::Rollback if any(Lane::UnderWay) || any(Lane::Waiting) => TaskState::RollingBack,
            Mode::Rollback if any(Lane::UndoFailed) => TaskState::RollbackStuck,
            Mode::Rollback => TaskState::RolledBack,
            Mode::Cancel if any(Lane::UnderWay) => TaskState::Canceling,
            Mode::Execute | Mode::Retry if any(Lane::UnderWay) || any(Lane::Waiting) => {
                let wave = self.current_wave(batch, &lanes);
                match wave.and_then(|wave| self.gate(batch, &lanes, wave)) {
                    Some(Wait::Paused(_)) => TaskState::Paused,
                    Some(Wait::Approval(_)) if !any(Lane::UnderWay) => TaskState::Paused,
                    Some(Wait::Halted) if !any(Lane::UnderWay) => self.failed(),
                    _ => TaskState::Running,
                }
            }
            // Where every host was left alone, nothing was done.
            _ if all_done && any(Lane::Successful) => TaskState::Successful,
            Mode::Cancel => TaskState::Cancelled,
            Mode::Execute | Mode::Retry => self.failed(),
        }
    }

    fn failed(&self) -> TaskState {
        if self.gave_up() { TaskState::Stuck } else { TaskState::Failed }
    }

    /// Whether a step kept crashing its runner.
    fn gave_up(&self) -> bool {
        let gave_up = |step: &StepState| matches!(step.status, StepStatus::Failed { stuck: true, .. });
        self.steps.values().any(gave_up)
    }

    /// Whether a step could run now, though it does not yet.
    pub(crate) fn is_ready(&self, step: &Step) -> bool {
        (self.may_begin() || planted("cancel-lets-begin")) && self.is_free(step)
    }

    fn is_free(&self, step: &Step) -> bool {
        self.kind(step.id) == Kind::Waiting
            && (planted("upstream-not-awaited")
                || step.needs.iter().all(|&needed| self.kind(needed) == Kind::Successful))
    }

    fn nothing_stands_on(&self, step: &Step) -> bool {
        planted("undone-in-wrong-order")
            || step.carries.iter().all(|&id| matches!(self.kind(id), Kind::Waiting | Kind::Undone))
    }

    /// Whether a step has begun that orders something from the agent of this host.
    pub(crate) fn has_ordered(&self, graph: &Graph, lane: usize) -> bool {
        graph.lane(lane).any(|step| step.node.orders() && self.step(step.id).start_time.is_some())
    }

    /// How a step is shown: a barrier by the steps that are drawn before it. It is passed once all of them have ended.
    pub(crate) fn shown(&self, graph: &Graph, step: &Step) -> StepState {
        if step.node != Node::Wait {
            return self.step(step.id);
        }
        let before: Vec<_> = step.upstreams.iter().map(|&id| self.step(id)).collect();
        let ended = |step: &StepState| matches!(step.status.kind(), Kind::Successful | Kind::Failed);
        let passed = before.iter().filter(|step| step.status.kind() == Kind::Successful);
        let start_time = passed.clone().filter_map(|step| step.finish_time).min();
        let skipped = self.skipped.len();
        let all = before.iter().filter(|step| ended(step)).count() + skipped >= graph.lanes.len();
        let mut shown = StepState::fresh();
        if self.mode == Mode::Rollback || start_time.is_none() {
            return shown;
        }
        shown.start_time = start_time;
        shown.status = match all {
            true => StepStatus::Successful,
            false => StepStatus::Running(Attempt { number: 1, operation: uuid::Uuid::nil(), undo: false }),
        };
        shown.finish_time = passed.filter_map(|step| step.finish_time).max().filter(|_| all);
        shown
    }
}

/// For each budget, who of its hosts is down: by the batch, or whatever it does. A start takes nobody down.
fn down(graph: &Graph, batch: &Batch, lanes: &[Lane], world: &World) -> Vec<BTreeSet<HostId>> {
    let is_down = |lane: usize| match lanes[lane] {
        Lane::UnderWay | Lane::Failed | Lane::Cancelled | Lane::UndoFailed => true,
        Lane::Successful => batch.verb == BatchVerb::Stop,
        Lane::Waiting | Lane::Skipped | Lane::Undone => false,
    };
    let of = |spent: &Spent| {
        let by_us = (0..lanes.len()).filter(|&lane| is_down(lane)).map(|lane| graph.hosts[lane]);
        let others = spent.down.iter().copied().filter(|_| !planted("budget-forgets-others"));
        by_us.filter(|host| spent.members.contains(host)).chain(others).collect()
    };
    world.budgets.iter().map(of).collect()
}

/// Which kinds of steps there are.
#[derive(Debug, Default)]
struct Kinds(u16);

impl Kinds {
    fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u16;
    }

    fn has(&self, kind: Kind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }
}
