//! What the settings of a process say of its stop, its start and its life, as the supervisor carries it out.

use bytesize::ByteSize;

use super::*;
use crate::config::{HookConfig, Kill, SignalConfig, StopConfig};

const QUIT: Signal = Signal::from_raw(3);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn stop(before: Option<&str>, signals: &[(Signal, u64)], kill: Kill) -> StopConfig {
    let hook = |program: &str| HookConfig { command: program.into(), args: Vec::new(), timeout: secs(3) };
    let rung = |(signal, wait): &(Signal, u64)| SignalConfig { signal: *signal, wait: secs(*wait) };
    StopConfig { before: before.map(hook), delay: secs(2), signals: signals.iter().map(rung).collect(), kill }
}

fn force(name: &str) -> Order {
    Order { force: true, ..order(Verb::Stop, name) }
}

fn rungs(outcome: &Outcome) -> Vec<(String, u64)> {
    let report = outcome.processes[0].last_exit.as_ref().unwrap();
    report.rungs.iter().map(|rung| (rung.step.clone(), rung.duration.as_secs())).collect()
}

/// Hook, delay, two signals, SIGKILL: each in its time, and each in the report.
#[tokio::test(start_paused = true)]
async fn every_rung_is_climbed_and_reported() {
    let stop = stop(Some("/bin/hook"), &[(Signal::TERM, 10), (QUIT, 5)], Kill::AfterGrace);
    let a = ProcessConfig { stop, ..worker("a") };
    let agent = Agent::start(&[a], &[("a", Manners::Ignores)]).await;
    agent.os.helper("/bin/hook", secs(1), Exit::Code(0));
    let done = outcome(agent.order(order(Verb::Stop, "a")).await);
    assert_eq!(done.failure, None);
    assert_eq!(agent.signals(), [Signal::TERM, QUIT, Signal::KILL]);
    assert_eq!(agent.os.helped().len(), 1);
    let expected = [("hook", 1), ("delay", 2), ("SIGTERM", 10), ("SIGQUIT", 5), ("SIGKILL", 0)];
    assert_eq!(rungs(&done), expected.map(|(step, secs)| (step.to_owned(), secs)));
    assert!(done.processes[0].last_exit.as_ref().unwrap().note.is_empty());
}

/// A hook that fails, hangs or is missing is told, and holds nothing up.
#[tokio::test(start_paused = true)]
async fn a_hook_that_goes_wrong_is_told() {
    for (takes, exit, told) in
        [(secs(1), Exit::Code(7), "ended: exit code 7"), (secs(600), Exit::Code(0), "did not end within 3s")]
    {
        let stop = stop(Some("/bin/hook"), &[(Signal::TERM, 10)], Kill::AfterGrace);
        let agent = Agent::start(&[ProcessConfig { stop: stop.clone(), ..worker("a") }], &[]).await;
        agent.os.helper("/bin/hook", takes, exit);
        let done = outcome(agent.order(order(Verb::Stop, "a")).await);
        assert_eq!(done.failure, None);
        let note = &done.processes[0].last_exit.as_ref().unwrap().note;
        assert!(note.contains(told), "{note}");
        let missing = Agent::start(&[ProcessConfig { stop, ..worker("a") }], &[]).await;
        let done = outcome(missing.order(order(Verb::Stop, "a")).await);
        assert!(done.processes[0].last_exit.as_ref().unwrap().note.contains("cannot run `/bin/hook`"));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_killed_where_a_person_decides() {
    let stop = stop(None, &[(Signal::TERM, 10)], Kill::Never);
    let a = ProcessConfig { stop, ..worker("a") };
    let agent = Agent::start(&[a], &[("a", Manners::Ignores)]).await;
    let failed = outcome(agent.order(order(Verb::Stop, "a")).await);
    check_failed(&failed, Reason::Leftovers);
    assert_eq!(agent.signals(), [Signal::TERM]);
    assert_eq!(failed.processes[0].leftovers.len(), 1);
    // Again is to ask again.
    check_failed(&outcome(agent.order(order(Verb::Stop, "a")).await), Reason::Leftovers);
    assert_eq!(agent.signals(), [Signal::TERM, Signal::TERM]);
    // The person decides.
    assert_eq!(outcome(agent.order(force("a")).await).failure, None);
    assert_eq!(agent.signals(), [Signal::TERM, Signal::TERM, Signal::KILL]);
}

/// "Force now" ends the stop that is under way too: both have the same answer.
#[tokio::test(start_paused = true)]
async fn force_cuts_a_stop_short() {
    let agent = Agent::start(&[worker("a")], &[("a", Manners::Ignores)]).await;
    let patient = agent.accept(order(Verb::Stop, "a")).await;
    tokio::time::sleep(secs(2)).await;
    let began = agent.os.now();
    let forced = outcome(agent.order(force("a")).await);
    assert!(agent.os.now() - began < secs(1));
    assert_eq!(rungs(&forced), [("SIGTERM".to_owned(), 2), ("SIGKILL".to_owned(), 0)]);
    assert_eq!(outcome(patient.await).failure, None);
    assert_eq!(agent.signals(), [Signal::TERM, Signal::KILL]);
}

/// Hazard A01: the agent crashes at each rung, and each is climbed once, by its first deadline.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_rung_repeats_none() {
    for crash_at in [1, 4, 8, 14, 19] {
        let stop = stop(Some("/bin/hook"), &[(Signal::TERM, 10), (QUIT, 5)], Kill::AfterGrace);
        let a = ProcessConfig { stop, ..worker("a") };
        let agent = Agent::start(&[a], &[("a", Manners::Ignores)]).await;
        agent.os.helper("/bin/hook", secs(3), Exit::Code(0));
        let began = agent.os.now();
        let ordered = order(Verb::Stop, "a");
        let lost = agent.accept(ordered.clone()).await;
        tokio::time::sleep(secs(crash_at)).await;
        lost.abort();
        let agent = agent.crash().await;
        let done = outcome(agent.order(ordered).await);
        assert_eq!(done.failure, None, "crashed at {crash_at} s");
        assert_eq!(agent.signals(), [Signal::TERM, QUIT, Signal::KILL], "crashed at {crash_at} s");
        assert_eq!(agent.os.helped().len(), 1, "crashed at {crash_at} s");
        let took = agent.os.now() - began;
        assert!(took >= secs(20) && took < secs(21), "crashed at {crash_at} s: {took:?}");
    }
}

/// Dependents go before what they depend on, and come after it; nobody else waits.
#[tokio::test(start_paused = true)]
async fn the_order_of_start_is_that_of_stop_reversed() {
    let after = |name, earlier: &[&str]| ProcessConfig {
        after: earlier.iter().map(|name| alias(name)).collect(),
        ..worker(name)
    };
    let processes =
        [after("web", &["app"]), after("app", &["db"]), worker("db"), worker("cron"), base("mgr")];
    let slow = Manners::EndsAfter(secs(1));
    let all = ["web", "app", "db", "cron", "mgr"].map(|name| (name, slow));
    let agent = Agent::start(&processes, &all).await;
    let place = |name: &str| {
        let all = agent.os.processes();
        all.iter().position(|tree| tree.instance.alias == alias(name)).unwrap()
    };
    assert!(place("mgr") < place("db") && place("db") < place("app") && place("app") < place("web"));
    assert!(place("cron") < place("app"), "it waits for the base process only");
    let done = outcome(agent.order(order(Verb::Stop, "*")).await);
    assert_eq!(done.failure, None);
    let signals = agent.os.signals();
    let asked = |name: &str| {
        let pid = agent.os.last(&alias(name)).unwrap().instance.pid;
        signals.iter().find(|(_, asked, _)| *asked == pid).unwrap().0.as_secs()
    };
    let first = asked("web");
    assert_eq!(["web", "cron", "app", "db", "mgr"].map(|name| asked(name) - first), [0, 0, 1, 2, 3]);
}

/// What is left of a back-off, and a final failure, outlast the agent; an operator's start overrules both.
#[tokio::test(start_paused = true)]
async fn back_off_outlasts_the_agent() {
    let backoff =
        crate::life::Backoff { first: secs(100), longest: secs(100), give_up_after: 2, ..Default::default() };
    let agent = Agent::begin(&[ProcessConfig { backoff, ..worker("a") }], &[("a", Manners::EndsAtOnce(1))]);
    agent.until(|all| all[0].phase == Phase::Backoff).await;
    let before = agent.process("a").await;
    assert_eq!((before.endings, before.generation), (1, 1));
    assert_eq!(before.trouble, "it ended: exit code 1");
    let next = before.next_start.unwrap();

    let agent = agent.crash().await;
    let after = agent.process("a").await;
    assert_eq!((after.phase, after.endings, after.generation), (Phase::Backoff, 1, 1));
    agent.until(|all| all[0].phase == Phase::Failed).await;
    assert!(agent.os.date() >= next, "it was started too early");
    assert!(agent.process("a").await.trouble.contains("2 times in a row"));

    let agent = agent.crash().await;
    tokio::time::sleep(secs(3600)).await;
    let failed = agent.process("a").await;
    assert_eq!((failed.phase, failed.generation), (Phase::Failed, 2));
    assert!(failed.trouble.contains("2 times in a row"));
    agent.os.behave(&alias("a"), Manners::Ignores);
    assert_eq!(outcome(agent.order(order(Verb::Start, "a")).await).failure, None);
    assert_eq!(agent.process("a").await.endings, 0);
}

/// The tree is gone, and still somebody listens where it did: that is not a proof.
#[tokio::test(start_paused = true)]
async fn a_port_that_stays_open_is_told() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    agent.os.leave_open(&[8080]);
    let failed = outcome(agent.order(order(Verb::Stop, "a")).await);
    check_failed(&failed, Reason::Leftovers);
    assert!(failed.failure.unwrap().message.ends_with("port 8080"));
    assert_eq!(failed.processes[0].phase, Phase::Stopped, "nothing of it is alive");
}

#[tokio::test(start_paused = true)]
async fn too_much_memory_means_a_restart() {
    let restart_above_memory = Some(ByteSize::mib(100));
    let agent = Agent::start(&[ProcessConfig { restart_above_memory, ..worker("a") }], &[]).await;
    agent.os.fill_memory(99 << 20);
    agent.supervisor.look().await.unwrap();
    assert_eq!(agent.process("a").await.generation, 1);
    agent.os.fill_memory(101 << 20);
    agent.supervisor.look().await.unwrap();
    agent.until(|all| all[0].phase == Phase::Backoff).await;
    assert_eq!(
        agent.process("a").await.trouble,
        "it has 101.0 MiB of memory, and is restarted above 100.0 MiB"
    );
    agent.os.fill_memory(1);
    agent.until(|all| all[0].phase == Phase::Running && all[0].generation == 2).await;
    assert_eq!(agent.signals(), [Signal::TERM]);
}
