//! The supervisor over an operating system made of memory, in time that the tests own.

mod ladder;
mod lives;
mod local;
mod policy;
mod terms;

use std::{path::Path, sync::Arc, time::Duration};

use belay_proto::Reason;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::{
    life::Restart,
    operation::{Outcome, Target, Verb},
    os::fake::{FakeOs, Manners},
    process::{Exit, Phase},
    signal::Signal,
};

/// A supervisor, its host, and a state folder.
struct Agent {
    os: Arc<FakeOs>,
    supervisor: Supervisor,
    owner: JoinHandle<()>,
    dir: TempDir,
    processes: Vec<ProcessConfig>,
}

fn alias(text: &str) -> Alias {
    Alias::try_from(text.to_owned()).unwrap()
}

fn worker(name: &str) -> ProcessConfig {
    ProcessConfig::new(alias(name), "/bin/fake", &[])
}

fn base(name: &str) -> ProcessConfig {
    ProcessConfig { operable: false, ..worker(name) }
}

fn spawn(os: Arc<FakeOs>, dir: &Path, processes: &[ProcessConfig]) -> (Supervisor, JoinHandle<()>) {
    let (journal, memory) = Journal::open(dir);
    let log = dir.join("log");
    let outputs = Outputs::spawn(log.clone());
    let declared = Declared {
        processes: processes.to_vec(),
        policy: PolicyConfig::default(),
        log,
        outputs,
        notify: None,
    };
    Supervisor::spawn(os, declared, journal, memory)
}

impl Agent {
    /// An agent whose processes run and have settled.
    async fn start(processes: &[ProcessConfig], manners: &[(&str, Manners)]) -> Self {
        let agent = Self::begin(processes, manners);
        agent.until(|all| all.iter().all(|p| p.phase == Phase::Running)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        agent
    }

    /// An agent that has just begun.
    fn begin(processes: &[ProcessConfig], manners: &[(&str, Manners)]) -> Self {
        Self::begin_in(tempfile::tempdir().unwrap(), processes, manners)
    }

    fn begin_in(dir: TempDir, processes: &[ProcessConfig], manners: &[(&str, Manners)]) -> Self {
        let os = FakeOs::new();
        for (name, manners) in manners {
            os.behave(&alias(name), *manners);
        }
        let (supervisor, owner) = spawn(os.clone(), dir.path(), processes);
        Self { os, supervisor, owner, dir, processes: processes.to_vec() }
    }

    /// The same agent after a crash of its program.
    async fn crash(self) -> Self {
        self.crash_with(|_| ()).await
    }

    /// The same, after something happened to its state folder.
    async fn crash_with(self, meanwhile: impl FnOnce(&Path)) -> Self {
        let Self { os, supervisor, owner, dir, processes } = self;
        owner.abort();
        let _ = owner.await;
        drop(supervisor);
        meanwhile(dir.path());
        let (supervisor, owner) = spawn(os.clone(), dir.path(), &processes);
        Self { os, supervisor, owner, dir, processes }
    }

    /// Gives an order; the answer comes later.
    fn order(&self, order: Order) -> JoinHandle<Result<Standing, Problem>> {
        let supervisor = self.supervisor.clone();
        tokio::spawn(async move { supervisor.order(order).await })
    }

    /// Gives an order and waits until it was accepted.
    async fn accept(&self, order: Order) -> JoinHandle<Result<Standing, Problem>> {
        let id = order.id;
        let answer = self.order(order);
        while self.supervisor.operation(id).await.is_err() {
            tokio::task::yield_now().await;
        }
        answer
    }

    async fn process(&self, name: &str) -> Observed {
        let all = self.supervisor.changed_since(0).await.unwrap();
        all.into_iter().find(|p| p.alias == alias(name)).unwrap()
    }

    async fn until(&self, condition: impl Fn(&[Observed]) -> bool) {
        let mut revision = self.supervisor.revision();
        loop {
            let all = self.supervisor.changed_since(0).await.unwrap();
            if condition(&all) {
                return;
            }
            let change = tokio::time::timeout(Duration::from_secs(600), revision.changed()).await;
            change.unwrap_or_else(|_| panic!("{all:#?}")).unwrap();
        }
    }

    fn signals(&self) -> Vec<Signal> {
        let all = self.os.signals().into_iter();
        all.map(|(_, _, signal)| signal).collect()
    }
}

fn order(verb: Verb, target: &str) -> Order {
    Order {
        force: false,
        id: Uuid::new_v4(),
        epoch: Some(1),
        principal: "admin".to_owned(),
        budget: None,
        verb,
        target: match target {
            "*" => Target::All,
            name => Target::One(alias(name)),
        },
        generations: Vec::new(),
        not_started_after: None,
        trace: "51b0faa7203d42db".to_owned(),
    }
}

fn outcome(answer: Result<Result<Standing, Problem>, tokio::task::JoinError>) -> Outcome {
    answer.unwrap().unwrap().outcome.unwrap()
}

#[track_caller]
fn check_failed(outcome: &Outcome, reason: Reason) {
    let failure = outcome.failure.as_ref().expect("a failure");
    assert_eq!(failure.reason, reason.as_str(), "{}", failure.message);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_one_signal_and_a_proof() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    let done = outcome(agent.order(order(Verb::Stop, "a")).await);
    assert_eq!(done.failure, None);
    assert_eq!(done.changed, [alias("a")].into());
    let [process] = &done.processes[..] else {
        panic!("one process");
    };
    assert_eq!(process.phase, Phase::Stopped);
    assert_eq!(process.sight, None);
    let exit = process.last_exit.as_ref().unwrap();
    assert_eq!(exit.exit, Exit::Signal(Signal::TERM));
    assert!(!exit.escalated && exit.note.is_empty());
    assert_eq!(agent.signals(), [Signal::TERM]);

    let again = outcome(agent.order(order(Verb::Stop, "a")).await);
    assert_eq!((again.failure, again.changed.len()), (None, 0));
    assert_eq!(agent.signals(), [Signal::TERM]);
}

/// Hazard P10.
#[tokio::test(start_paused = true)]
async fn kills_when_the_grace_is_over() {
    let agent = Agent::start(&[worker("a")], &[("a", Manners::Ignores)]).await;
    let began = agent.os.now();
    let done = outcome(agent.order(order(Verb::Stop, "a")).await);
    assert_eq!(done.failure, None);
    let exit = done.processes[0].last_exit.clone().unwrap();
    assert!(exit.escalated);
    assert_eq!(exit.exit, Exit::Signal(Signal::KILL));
    let [(asked, _, Signal::TERM), (killed, _, Signal::KILL)] = agent.os.signals()[..] else {
        panic!("{:?}", agent.os.signals());
    };
    assert_eq!(asked, began);
    // A timer may be late by its granularity, never early.
    let grace = killed - asked;
    assert!(grace >= Duration::from_secs(10) && grace < Duration::from_millis(10_010), "{grace:?}");
}

/// Hazard P13: what can not be killed fails by its deadline, holds nobody else up, and settles by itself.
#[tokio::test(start_paused = true)]
async fn leftovers_are_named_and_settle_by_themselves() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[("a", Manners::Undead)]).await;
    let slow = agent.accept(order(Verb::Stop, "a")).await;
    let before = agent.os.now();
    let fast = outcome(agent.order(order(Verb::Stop, "b")).await);
    assert_eq!(fast.failure, None);
    assert!(agent.os.now() - before < Duration::from_secs(1));

    let failed = outcome(slow.await);
    check_failed(&failed, Reason::Leftovers);
    let left = &failed.processes[0];
    assert_eq!(left.phase, Phase::Failed);
    assert_eq!(left.leftovers.len(), 1);
    assert!(failed.failure.unwrap().message.contains(&left.leftovers[0].pid.to_string()));
    assert!(agent.os.now() - before <= left.stop_budget);

    agent.os.last(&alias("a")).unwrap().end(Exit::Unknown);
    agent.until(|all| all[0].phase == Phase::Stopped && all[0].leftovers.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn many_leftovers_are_counted_not_named() {
    let agent = Agent::start(&[worker("a")], &[("a", Manners::Crowd)]).await;
    let failed = outcome(agent.order(order(Verb::Stop, "a")).await);
    check_failed(&failed, Reason::Leftovers);
    assert_eq!(failed.processes[0].leftovers.len(), 50);
    assert!(failed.failure.unwrap().message.ends_with(", and 10 more"));
}

/// Hazard P25.
#[tokio::test(start_paused = true)]
async fn a_refused_signal_is_never_stopped() {
    let agent = Agent::start(&[worker("a")], &[("a", Manners::Foreign)]).await;
    let failed = outcome(agent.order(order(Verb::Stop, "a")).await);
    check_failed(&failed, Reason::SignalRefused);
    assert!(failed.failure.unwrap().message.contains("permission denied"));
    assert_eq!(failed.processes[0].phase, Phase::Failed);
}

/// Hazards P22 and D03: the same order again, another stop, and a stop of all: one signal.
#[tokio::test(start_paused = true)]
async fn stops_join() {
    let manners = Manners::EndsAfter(Duration::from_secs(3));
    let agent = Agent::start(&[worker("a")], &[("a", manners)]).await;
    let first = order(Verb::Stop, "a");
    let answers = [
        agent.accept(first.clone()).await,
        agent.order(first.clone()),
        agent.accept(order(Verb::Stop, "a")).await,
        agent.accept(order(Verb::Stop, "*")).await,
    ];
    for answer in answers {
        let done = outcome(answer.await);
        assert_eq!(done.failure, None);
        assert_eq!(done.changed, [alias("a")].into());
    }
    let repeated = outcome(agent.order(first).await);
    assert_eq!(repeated.changed.len(), 1);
    assert_eq!(agent.signals(), [Signal::TERM]);
}

/// Hazard D10: a server that was replaced is refused, the one that took over reads what its predecessor ordered.
#[tokio::test(start_paused = true)]
async fn an_older_epoch_is_refused() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    let first = Order { epoch: Some(5), ..order(Verb::Stop, "a") };
    outcome(agent.order(first.clone()).await);
    let agent = agent.crash().await;
    let stale = Order { epoch: Some(4), ..order(Verb::Start, "a") };
    let refused = agent.order(stale).await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::StaleEpoch);
    let joined = Order { epoch: Some(6), ..first };
    assert_eq!(outcome(agent.order(joined).await).failure, None);
    assert_eq!(agent.signals(), [Signal::TERM]);
}

#[tokio::test(start_paused = true)]
async fn orders_for_nobody_are_refused() {
    let agent = Agent::start(&[worker("a"), base("b")], &[]).await;
    let unknown = agent.order(order(Verb::Stop, "x")).await.unwrap().unwrap_err();
    assert_eq!(unknown.reason, Reason::ProcessUnknown);
    let refused = agent.order(order(Verb::Stop, "b")).await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::ProcessNotOperable);
    let never = agent.supervisor.operation(Uuid::new_v4()).await.unwrap_err();
    assert_eq!(never.reason, Reason::OperationUnknown);
    assert!(agent.signals().is_empty());
}

/// Cancelled in the middle: who had its turn ends, who had none is left alone and is wanted as before.
#[tokio::test(start_paused = true)]
async fn a_cancelled_stop_leaves_alone_what_it_had_not_begun() {
    let manners = [("a", Manners::EndsAfter(Duration::from_secs(3)))];
    let agent = Agent::start(&[worker("a"), base("b")], &manners).await;
    let stop = Order { target: Target::All, ..order(Verb::Stop, "a") };
    let answer = agent.accept(stop.clone()).await;
    agent.until(|all| all.iter().any(|p| p.phase == Phase::Stopping)).await;
    let standing = agent.supervisor.cancel(stop.clone()).await.unwrap();
    assert!(standing.outcome.is_none(), "a signal can not be taken back");
    let failure = answer.await.unwrap().unwrap().outcome.unwrap().failure.unwrap();
    assert_eq!(failure.reason, "CANCELLED", "{}", failure.message);
    let (a, b) = (agent.process("a").await, agent.process("b").await);
    assert_eq!((a.phase, a.desired_running), (Phase::Stopped, false));
    assert_eq!((b.phase, b.desired_running), (Phase::Running, true));
    let again = agent.crash().await;
    again.until(|all| all.iter().any(|p| p.alias == alias("b") && p.desired_running)).await;
}

/// A cancelled order that arrives late does nothing, also in another life of the agent.
#[tokio::test(start_paused = true)]
async fn an_order_that_was_cancelled_before_it_arrived_never_begins() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    let stop = Order { target: Target::All, ..order(Verb::Stop, "a") };
    let cancelled = agent.supervisor.cancel(stop.clone()).await.unwrap();
    assert_eq!(cancelled.outcome.unwrap().failure.unwrap().reason, "CANCELLED");
    let agent = agent.crash().await;
    let late = agent.order(stop).await.unwrap().unwrap();
    assert_eq!(late.outcome.unwrap().failure.unwrap().reason, "CANCELLED");
    assert_eq!(agent.signals(), []);
    let old = Order { epoch: Some(0), ..order(Verb::Stop, "a") };
    assert_eq!(agent.supervisor.cancel(old).await.unwrap_err().reason, Reason::StaleEpoch);
}

/// Hazard P21: the last accepted order wins, and who was overtaken is told.
#[tokio::test(start_paused = true)]
async fn the_last_order_wins() {
    let manners = Manners::EndsAfter(Duration::from_secs(3));
    let agent = Agent::start(&[worker("a")], &[("a", manners)]).await;
    let stop = agent.accept(order(Verb::Stop, "a")).await;
    let overtaken = agent.accept(order(Verb::Start, "a")).await;
    let again = agent.accept(order(Verb::Stop, "a")).await;
    let start = agent.accept(order(Verb::Start, "a")).await;
    check_failed(&outcome(overtaken.await), Reason::Superseded);
    assert_eq!(outcome(stop.await).failure, None);
    assert_eq!(outcome(again.await).failure, None);
    assert_eq!(outcome(start.await).failure, None);
    let process = agent.process("a").await;
    assert_eq!((process.phase, process.generation), (Phase::Running, 2));
    assert_eq!(agent.signals(), [Signal::TERM]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_a_stop_and_a_start() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    let first = agent.process("a").await;
    let done = outcome(agent.order(order(Verb::Restart, "a")).await);
    assert_eq!(done.failure, None);
    let process = &done.processes[0];
    assert_eq!((process.phase, process.generation), (Phase::Running, 2));
    assert_ne!(process.sight.as_ref().unwrap().pid, first.sight.unwrap().pid);
    assert_eq!(process.last_exit.as_ref().unwrap().exit, Exit::Signal(Signal::TERM));
}

/// Hazard P31.
#[tokio::test(start_paused = true)]
async fn a_failed_start_says_why() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[]).await;
    outcome(agent.order(order(Verb::Stop, "*")).await);
    agent.os.behave(&alias("a"), Manners::Missing);
    agent.os.behave(&alias("b"), Manners::EndsAtOnce(3));
    let missing = outcome(agent.order(order(Verb::Start, "a")).await);
    check_failed(&missing, Reason::StartFailed);
    assert!(missing.failure.unwrap().message.contains("`/bin/fake`"));
    let ended = outcome(agent.order(order(Verb::Start, "b")).await);
    check_failed(&ended, Reason::StartFailed);
    assert!(ended.failure.unwrap().message.contains("exit code 3"));
    assert_eq!(ended.processes[0].phase, Phase::Backoff);
    assert_eq!(ended.processes[0].last_exit.as_ref().unwrap().exit, Exit::Code(3));
}

/// Hazard P19: a crash loop, a stop in the back-off, and silence.
#[tokio::test(start_paused = true)]
async fn a_stop_in_the_back_off_holds() {
    let agent = Agent::begin(&[worker("a")], &[("a", Manners::EndsAtOnce(1))]);
    agent.until(|all| all[0].phase == Phase::Backoff && all[0].generation >= 3).await;
    let done = outcome(agent.order(order(Verb::Stop, "a")).await);
    assert_eq!(done.failure, None);
    assert_eq!(done.changed, [alias("a")].into());
    let starts = agent.os.processes().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(agent.os.processes().len(), starts);
    assert_eq!(agent.process("a").await.phase, Phase::Stopped);
    assert!(agent.signals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_are_stopped_in_waves_and_one_failure_stops_nobody() {
    let processes = [base("base"), worker("good"), worker("undead")];
    let agent = Agent::start(&processes, &[("undead", Manners::Undead)]).await;
    let failed = outcome(agent.order(order(Verb::Stop, "*")).await);
    check_failed(&failed, Reason::Leftovers);
    let signals = agent.os.signals();
    let pid = |name| agent.os.last(&alias(name)).unwrap().instance.pid;
    let asked = |name| {
        let mut asked = signals.iter().filter(|s| s.1 == pid(name) && s.2 == Signal::TERM);
        (asked.next().unwrap().0, asked.count())
    };
    assert_eq!(asked("good").0, asked("undead").0);
    assert!(asked("base").0 > asked("good").0);
    assert_eq!([asked("good").1, asked("undead").1, asked("base").1], [0, 0, 0]);
    assert_eq!(agent.process("base").await.phase, Phase::Stopped);
    assert!(failed.failure.unwrap().message.contains("undead"));

    agent.os.last(&alias("undead")).unwrap().end(Exit::Unknown);
    agent.os.behave(&alias("undead"), Manners::Ignores);
    agent.until(|all| all.iter().all(|p| p.phase == Phase::Stopped)).await;
    let started = outcome(agent.order(order(Verb::Start, "*")).await);
    assert_eq!(started.failure, None);
    assert_eq!(started.changed.len(), 3);
    let began: Vec<_> = agent.os.processes()[3..].iter().map(|t| t.instance.alias.clone()).collect();
    assert_eq!(began[0], alias("base"));
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_kept() {
    let agent = Agent::start(&[worker("a")], &[("a", Manners::Undead)]).await;
    let began = agent.os.now();
    let hurried = Order { budget: Some(Duration::from_secs(6)), ..order(Verb::Stop, "a") };
    check_failed(&outcome(agent.order(hurried).await), Reason::Leftovers);
    assert!(agent.os.now() - began <= Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_when_the_caller_goes_away() {
    let manners = Manners::EndsAfter(Duration::from_secs(3));
    let agent = Agent::start(&[worker("a")], &[("a", manners)]).await;
    let stop = order(Verb::Stop, "a");
    let id = stop.id;
    agent.accept(stop).await.abort();
    assert!(agent.supervisor.operation(id).await.unwrap().outcome.is_none());
    agent.until(|all| all[0].phase == Phase::Stopped).await;
    assert!(agent.supervisor.operation(id).await.unwrap().outcome.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_policy_brings_back_what_ended_by_itself() {
    let once = ProcessConfig { restart: Restart::Never, ..worker("once") };
    let agent = Agent::start(&[worker("always"), once], &[]).await;
    for name in ["always", "once"] {
        agent.os.last(&alias(name)).unwrap().end(Exit::Code(0));
    }
    agent.until(|all| all[0].generation == 2 && all[1].phase == Phase::Stopped).await;
    // Nor does a restart of the agent bring back what was to run once.
    let agent = agent.crash().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.process("once").await.phase, Phase::Stopped);
    assert_eq!(agent.os.processes().len(), 3);
}

/// Hazard A02: after a crash of the agent the living are taken back: no signal, no second copy.
#[tokio::test(start_paused = true)]
async fn the_living_are_taken_back() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[]).await;
    outcome(agent.order(order(Verb::Stop, "b")).await);
    let before = agent.process("a").await;
    let agent = agent.crash().await;
    let after = agent.process("a").await;
    assert_eq!(after.phase, Phase::Running);
    assert_eq!(after.sight, before.sight);
    assert_eq!(after.generation, 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.process("b").await.phase, Phase::Stopped);
    assert_eq!(agent.os.processes().len(), 2);
    assert_eq!(agent.signals(), [Signal::TERM]);
    assert_eq!(outcome(agent.order(order(Verb::Stop, "a")).await).failure, None);
}

/// Hazard A01: a stop that was under way goes on to its original deadline, without a second signal.
#[tokio::test(start_paused = true)]
async fn a_stop_outlives_the_agent() {
    let agent = Agent::start(&[worker("a")], &[("a", Manners::Ignores)]).await;
    let began = agent.os.now();
    let stop = order(Verb::Stop, "a");
    let id = stop.id;
    let caller = agent.accept(stop.clone()).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let agent = agent.crash().await;
    caller.abort();
    let done = outcome(agent.order(stop).await);
    assert_eq!(done.failure, None);
    assert_eq!(done.changed, [alias("a")].into());
    assert!(done.processes[0].last_exit.as_ref().unwrap().escalated);
    let took = agent.os.now() - began;
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
    assert_eq!(agent.signals(), [Signal::TERM, Signal::KILL]);
    assert!(agent.supervisor.operation(id).await.unwrap().outcome.is_some());
}

/// Hazard A01, for an order that ends with a start.
#[tokio::test(start_paused = true)]
async fn a_restart_outlives_the_agent() {
    let manners = Manners::EndsAfter(Duration::from_secs(5));
    let agent = Agent::start(&[worker("a")], &[("a", manners)]).await;
    let restart = order(Verb::Restart, "a");
    let caller = agent.accept(restart.clone()).await;
    let agent = agent.crash().await;
    caller.abort();
    let done = outcome(agent.order(restart.clone()).await);
    assert_eq!(done.failure, None);
    assert_eq!(done.processes[0].generation, 2);
    assert_eq!(agent.signals(), [Signal::TERM]);
    let agent = agent.crash().await;
    assert_eq!(outcome(agent.order(restart).await).processes[0].generation, 2);
    assert_eq!(agent.os.processes().len(), 2);
}

/// Hazards A01 and P21: what was ordered last wins, also where it has ended and what was ordered before has not.
#[tokio::test(start_paused = true)]
async fn an_ended_order_overrules_an_open_one_after_a_crash() {
    let slow = Manners::EndsAfter(Duration::from_secs(8));
    let agent = Agent::start(&[worker("a"), worker("b")], &[("a", slow)]).await;
    let stop = order(Verb::Stop, "*");
    let caller = agent.accept(stop.clone()).await;
    agent.until(|all| all[1].phase == Phase::Stopped).await;
    assert_eq!(outcome(agent.order(order(Verb::Start, "b")).await).failure, None);
    let agent = agent.crash().await;
    caller.abort();
    check_failed(&outcome(agent.order(stop).await), Reason::Superseded);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.process("a").await.phase, Phase::Stopped);
    let b = agent.process("b").await;
    assert_eq!((b.phase, b.desired_running, b.generation), (Phase::Running, true, 2));
    let pid = b.sight.unwrap().pid;
    assert!(agent.os.signals().iter().all(|(_, signalled, _)| *signalled != pid));
}

/// An order that was on its way for long does not undo a newer one of the same server.
#[tokio::test(start_paused = true)]
async fn an_order_that_comes_late_is_refused() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[]).await;
    let id = |second: u64| Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, second, 0));
    let early = Order { id: id(1), ..order(Verb::Start, "a") };
    let stop = Order { id: id(2), ..order(Verb::Stop, "a") };
    assert_eq!(outcome(agent.order(stop.clone()).await).failure, None);
    let refused = agent.order(early.clone()).await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::Superseded);
    assert_eq!(agent.process("a").await.phase, Phase::Stopped);
    assert_eq!(outcome(agent.order(stop).await).failure, None);

    let other = Order { id: id(1), ..order(Verb::Stop, "b") };
    assert_eq!(outcome(agent.order(other).await).failure, None);
    let of_another_server = Order { epoch: Some(2), ..early };
    assert_eq!(outcome(agent.order(of_another_server).await).failure, None);
}

/// A wave that takes too long takes neither the turn nor the grace of the next.
#[tokio::test(start_paused = true)]
async fn a_wave_after_the_deadline_gets_its_turn() {
    let manners = [("a", Manners::Undead), ("base", Manners::EndsAfter(Duration::from_secs(3)))];
    let agent = Agent::start(&[worker("a"), base("base")], &manners).await;
    let pid = agent.process("base").await.sight.unwrap().pid;
    let unhurried = agent.accept(order(Verb::Stop, "a")).await;
    let hurried = Order { budget: Some(Duration::from_secs(2)), ..order(Verb::Stop, "*") };
    check_failed(&outcome(agent.order(hurried).await), Reason::TimedOut);
    assert_eq!(agent.process("base").await.phase, Phase::Stopped);
    let sent: Vec<_> = agent.os.signals().into_iter().filter(|sent| sent.1 == pid).collect();
    assert!(matches!(sent[..], [(_, _, Signal::TERM)]), "{sent:?}");
    check_failed(&outcome(unhurried.await), Reason::Leftovers);
}

/// Hazard A05: a lost journal neither starts what somebody may have stopped nor a second copy of what lives.
#[tokio::test(start_paused = true)]
async fn a_lost_journal_changes_nothing() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[]).await;
    outcome(agent.order(order(Verb::Stop, "b")).await);
    agent.owner.abort();
    std::fs::write(agent.dir.path().join("journal"), "rubbish").unwrap();
    let agent = agent.crash().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (a, b) = (agent.process("a").await, agent.process("b").await);
    assert_eq!((a.phase, a.desired_running), (Phase::Running, true));
    assert_eq!((b.phase, b.desired_running), (Phase::Stopped, false));
    assert_eq!(agent.os.processes().len(), 2);
}

/// Hazard A06: a stop works without a disk, and says so.
#[tokio::test(start_paused = true)]
async fn a_stop_works_when_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    // What is written anew is written here first.
    std::fs::create_dir(dir.path().join("journal.new")).unwrap();
    let agent = Agent::begin_in(dir, &[worker("a")], &[]);
    agent.until(|all| all[0].phase == Phase::Running).await;
    let done = outcome(agent.order(order(Verb::Stop, "a")).await);
    assert_eq!(done.failure, None);
    let note = &done.processes[0].last_exit.as_ref().unwrap().note;
    assert!(note.contains("could not be journalled"), "{note}");
}

#[tokio::test(start_paused = true)]
async fn revisions_rise_with_changes_only() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[]).await;
    let revision = *agent.supervisor.revision().borrow();
    agent.supervisor.look().await.unwrap();
    assert_eq!(*agent.supervisor.revision().borrow(), revision);
    outcome(agent.order(order(Verb::Stop, "b")).await);
    let changed = agent.supervisor.changed_since(revision).await.unwrap();
    let aliases: Vec<_> = changed.iter().map(|p| p.alias.as_str()).collect();
    assert_eq!(aliases, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_agent_leaves_its_processes_alone() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    agent.supervisor.close().await;
    let refused = agent.order(order(Verb::Stop, "a")).await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::ShuttingDown);
    assert!(agent.os.last(&alias("a")).unwrap().is_alive());
    assert!(agent.signals().is_empty());
}
