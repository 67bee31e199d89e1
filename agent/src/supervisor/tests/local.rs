//! Orders of the host itself, and reloads.

use super::*;
use crate::{
    config::{Config, Plan, StopConfig},
    supervisor::local::named_by,
};

/// An order of somebody on the host.
fn here(verb: Verb, target: &str) -> Order {
    let target = match target {
        "*" => Target::All,
        name => Target::One(alias(name)),
    };
    Order::local(verb, false, target, "local:root".to_owned())
}

impl Agent {
    /// Has other processes declared.
    async fn reload(&mut self, processes: &[ProcessConfig]) -> Plan {
        let with = |processes: &[ProcessConfig]| Config {
            processes: processes.to_vec(),
            ..Config::with_state("/x")
        };
        let plan = Plan::new(&with(&self.processes), &with(processes));
        self.processes = processes.to_vec();
        self.reload_as(plan, false).await
    }

    async fn reload_as(&self, plan: Plan, dry_run: bool) -> Plan {
        let reload = Reload {
            processes: self.processes.clone(),
            policy: PolicyConfig::default(),
            plan,
            found: Found::new(),
            principal: "local:root".to_owned(),
            dry_run,
        };
        self.supervisor.reload(reload).await.unwrap()
    }

    async fn aliases(&self) -> Vec<String> {
        let all = self.supervisor.changed_since(0).await.unwrap();
        all.into_iter().map(|process| process.alias.into()).collect()
    }

    async fn unreported(&self) -> Option<Uuid> {
        self.supervisor.unreported().await.unwrap().map(|operation| operation.accepted.id)
    }
}

fn with_args(config: ProcessConfig, arg: &str) -> ProcessConfig {
    ProcessConfig { args: vec![arg.to_owned()], ..config }
}

fn with_grace(config: ProcessConfig, seconds: u64) -> ProcessConfig {
    ProcessConfig { stop: StopConfig::simple(Signal::TERM, Duration::from_secs(seconds)), ..config }
}

/// A person on the host is never behind the times, whatever its clock says, and makes nobody else late.
#[tokio::test(start_paused = true)]
async fn an_order_of_the_host_is_the_newest_when_it_comes() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    let id = |second: u64| Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, second, 0));
    let far_ahead = id(40_000_000_000);
    let of_server = |id, verb| Order { id, epoch: Some(7), ..order(verb, "a") };
    assert_eq!(outcome(agent.order(of_server(far_ahead, Verb::Stop)).await).failure, None);
    assert_eq!(outcome(agent.order(here(Verb::Start, "a")).await).failure, None);
    assert!(agent.process("a").await.desired_running);
    // The clock of this host is ahead of that of the server.
    let of_host = Order { id: id(50_000_000_000), ..here(Verb::Start, "a") };
    assert_eq!(outcome(agent.order(of_host).await).failure, None);
    let next = Uuid::from_u128(far_ahead.as_u128() + 1);
    assert_eq!(outcome(agent.order(of_server(next, Verb::Stop)).await).failure, None);
    assert_eq!(agent.process("a").await.phase, Phase::Stopped);
    let stale = Order { id: Uuid::new_v4(), epoch: Some(6), ..order(Verb::Start, "a") };
    assert_eq!(agent.order(stale).await.unwrap().unwrap_err().reason, Reason::StaleEpoch);
}

#[tokio::test(start_paused = true)]
async fn a_base_process_is_ordered_alone_on_the_host_only() {
    let agent = Agent::start(&[worker("a"), base("b")], &[]).await;
    let refused = agent.order(order(Verb::Stop, "b")).await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::ProcessNotOperable);
    assert_eq!(outcome(agent.order(here(Verb::Stop, "b")).await).failure, None);
    assert_eq!(agent.process("b").await.phase, Phase::Stopped);
    assert_eq!(agent.process("a").await.phase, Phase::Running);
}

/// What was ordered here is remembered until the server knows of it, over a crash too; the rest is not its business.
#[tokio::test(start_paused = true)]
async fn what_was_ordered_here_is_remembered_until_it_is_reported() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    let mut news = agent.supervisor.news();
    let (first, second) = (here(Verb::Stop, "a"), here(Verb::Start, "a"));
    let ids = [first.id, second.id];
    outcome(agent.order(first).await);
    assert_eq!(news.borrow_and_update().ended_here, 1);
    outcome(agent.order(order(Verb::Restart, "a")).await);
    assert!(!news.has_changed().unwrap());
    outcome(agent.order(second).await);
    let agent = agent.crash().await;
    for id in ids {
        let told = agent.supervisor.unreported().await.unwrap().unwrap();
        assert_eq!(told.accepted.id, id);
        assert_eq!(told.accepted.principal, "local:root");
        assert_eq!(named_by(&told.accepted).collect::<Vec<_>>(), [&alias("a")]);
        agent.supervisor.reported(id).await.unwrap();
    }
    assert_eq!(agent.unreported().await, None);
    let agent = agent.crash().await;
    assert_eq!(agent.unreported().await, None);
}

#[tokio::test(start_paused = true)]
async fn who_ordered_last_is_known() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[]).await;
    outcome(agent.order(order(Verb::Restart, "*")).await);
    outcome(agent.order(here(Verb::Stop, "a")).await);
    let health = agent.supervisor.health().await.unwrap();
    let told: Vec<_> =
        health.last_orders.iter().map(|o| (o.alias.as_str(), o.verb, &o.principal[..])).collect();
    assert_eq!(told, [("a", Verb::Stop, "local:root"), ("b", Verb::Restart, "admin")]);
    assert_eq!(health.journal_fault, None);
}

#[tokio::test(start_paused = true)]
async fn a_reload_does_what_differs_and_no_more() {
    let before = [worker("gone"), worker("args"), worker("grace"), worker("stopped"), worker("same")];
    let mut agent = Agent::start(&before, &[]).await;
    outcome(agent.order(order(Verb::Stop, "stopped")).await);
    let pid = async |agent: &Agent, name| agent.process(name).await.sight.unwrap().pid;
    let (grace, same) = (pid(&agent, "grace").await, pid(&agent, "same").await);
    let after = [
        with_args(worker("args"), "1"),
        with_grace(worker("grace"), 99),
        with_args(worker("stopped"), "1"),
        worker("same"),
        worker("new"),
    ];

    let asked = Plan::new(
        &Config { processes: before.to_vec(), ..Config::with_state("/x") },
        &Config { processes: after.to_vec(), ..Config::with_state("/x") },
    );
    let would = agent.reload_as(asked, true).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.signals().len(), 1, "a dry run does nothing");

    let does = agent.reload(&after).await;
    assert_eq!(would, does);
    assert_eq!(does.restarted.keys().map(Alias::as_str).collect::<Vec<_>>(), ["args"]);
    assert_eq!(does.updated.keys().map(Alias::as_str).collect::<Vec<_>>(), ["grace", "stopped"]);
    agent.until(|all| all.len() == 5 && all.iter().filter(|p| p.phase == Phase::Running).count() == 4).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.aliases().await, ["args", "grace", "new", "same", "stopped"]);
    assert_eq!(agent.process("args").await.generation, 2);
    assert_eq!((pid(&agent, "grace").await, pid(&agent, "same").await), (grace, same));
    assert!(agent.process("grace").await.stop_budget > Duration::from_secs(99));
    let stopped = agent.process("stopped").await;
    assert_eq!((stopped.phase, stopped.generation), (Phase::Stopped, 1));
    assert!(!agent.os.last(&alias("gone")).unwrap().is_alive());
    let agent = agent.crash().await;
    assert_eq!(agent.aliases().await.len(), 5);
}

/// Hazard A08: a stop that is under way goes on as it began, and the next one goes by the new settings.
#[tokio::test(start_paused = true)]
async fn a_reload_cancels_no_stop() {
    let mut agent =
        Agent::start(&[worker("a"), worker("b")], &[("a", Manners::Ignores), ("b", Manners::Ignores)]).await;
    let began = agent.os.now();
    let stops = [agent.accept(order(Verb::Stop, "a")).await, agent.accept(order(Verb::Stop, "b")).await];
    tokio::time::sleep(Duration::from_secs(4)).await;
    let plan = agent.reload(&[with_args(with_grace(worker("a"), 3), "1")]).await;
    assert!(plan.restarted.is_empty() && plan.removed.len() == 1);
    for stop in stops {
        assert_eq!(outcome(stop.await).failure, None);
    }
    let took = agent.os.now() - began;
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
    agent.until(|all| all.len() == 1).await;
    assert_eq!(agent.signals(), [Signal::TERM, Signal::TERM, Signal::KILL, Signal::KILL]);
    assert_eq!(agent.process("a").await.phase, Phase::Stopped);

    assert_eq!(outcome(agent.order(order(Verb::Start, "a")).await).failure, None);
    let began = agent.os.now();
    outcome(agent.order(order(Verb::Stop, "a")).await);
    let took = agent.os.now() - began;
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(4), "{took:?}");
}

/// Hazard A01: what is not declared any more is stopped and forgotten, also where the agent crashes on the way.
#[tokio::test(start_paused = true)]
async fn a_removal_outlives_the_agent() {
    let mut agent = Agent::start(&[worker("a"), worker("b")], &[("b", Manners::Ignores)]).await;
    agent.reload(&[worker("a")]).await;
    let refused = agent.order(order(Verb::Start, "b")).await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::ProcessUndeclared);
    outcome(agent.order(order(Verb::Start, "*")).await);
    let agent = agent.crash().await;
    assert_eq!(agent.aliases().await, ["a", "b"]);
    agent.until(|all| all.len() == 1).await;
    assert!(!agent.os.last(&alias("b")).unwrap().is_alive());
    assert_eq!(agent.signals(), [Signal::TERM, Signal::KILL]);
    let agent = agent.crash().await;
    assert_eq!(agent.aliases().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_before_it_is_gone_is_started_again() {
    let manners = Manners::EndsAfter(Duration::from_secs(3));
    let mut agent = Agent::start(&[worker("a"), worker("b")], &[("b", manners)]).await;
    agent.reload(&[worker("a")]).await;
    agent.reload(&[worker("a"), with_grace(worker("b"), 7)]).await;
    agent.until(|all| all.len() == 2 && all[1].phase == Phase::Running && all[1].generation == 2).await;
    let agent = agent.crash().await;
    agent.until(|all| all.len() == 2 && all[1].phase == Phase::Running).await;
    assert_eq!(agent.os.processes().len(), 3);
}

/// An instance that is being made while its settings change is not the one that stays.
#[tokio::test(start_paused = true)]
async fn no_instance_stays_that_was_made_with_old_settings() {
    let mut agent = Agent::begin(&[worker("a")], &[]);
    let plan = agent.reload(&[with_args(worker("a"), "1")]).await;
    assert_eq!(plan.restarted.len(), 1);
    agent.until(|all| all[0].phase == Phase::Running && all[0].generation == 2).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.process("a").await.generation, 2);
}
