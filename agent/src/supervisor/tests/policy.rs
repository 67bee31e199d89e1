//! What of the server's orders is refused on this host.

use jiff::Timestamp;

use super::*;
use crate::{
    config::{Config, Plan, PolicyConfig},
    policy::{LocalPolicy, Maintenance, Refusal},
};

/// An order of somebody on the host.
fn here(verb: Verb, target: &str) -> Order {
    Order { id: Uuid::now_v7(), epoch: None, principal: "local:root".to_owned(), ..order(verb, target) }
}

fn protecting(names: &[&str]) -> PolicyConfig {
    PolicyConfig { protect: names.iter().map(|name| alias(name)).collect(), ..PolicyConfig::default() }
}

fn maintenance() -> Maintenance {
    let (principal, reason) = ("local:root".to_owned(), "new disk".to_owned());
    Maintenance { principal, reason, since: Timestamp::UNIX_EPOCH }
}

impl Agent {
    /// Has another policy configured.
    async fn configure(&self, policy: PolicyConfig) {
        let old = Config { processes: self.processes.clone(), ..Config::with_state("/x") };
        let plan = Plan::new(&old, &Config { policy: policy.clone(), ..old.clone() });
        let reload = Reload {
            processes: self.processes.clone(),
            policy,
            plan,
            found: Found::new(),
            principal: "local:root".to_owned(),
            dry_run: false,
        };
        self.supervisor.reload(reload).await.unwrap();
    }

    async fn refused(&self, order: Order) -> Reason {
        self.order(order).await.unwrap().unwrap_err().reason
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_protected_is_neither_stopped_nor_restarted_by_a_server() {
    let agent = Agent::start(&[worker("a"), worker("db")], &[]).await;
    agent.configure(protecting(&["db"])).await;
    let forced = Order { force: true, ..order(Verb::Stop, "db") };
    for refused in [order(Verb::Stop, "db"), order(Verb::Restart, "db"), forced] {
        assert!(agent.supervisor.plan(refused.clone()).await.is_err());
        assert_eq!(agent.refused(refused).await, Reason::ProcessProtected);
    }
    assert!(agent.signals().is_empty());
    assert_eq!(outcome(agent.order(order(Verb::Start, "db")).await).failure, None);
    assert_eq!(outcome(agent.order(here(Verb::Stop, "db")).await).failure, None);
    assert_eq!(agent.process("db").await.phase, Phase::Stopped);
    // It may be started, and what is stopped is not kept from staying so.
    assert_eq!(outcome(agent.order(order(Verb::Stop, "*")).await).failure, None);
    assert_eq!(outcome(agent.order(order(Verb::Start, "db")).await).failure, None);
    assert_eq!(agent.process("db").await.phase, Phase::Running);
}

/// Stopped means proven gone: where something is left alone, not everything was stopped, also after a crash in between.
#[tokio::test(start_paused = true)]
async fn a_stop_of_everything_leaves_the_protected_alone_and_says_so() {
    let agent = Agent::start(&[worker("a"), worker("db")], &[("a", Manners::Ignores)]).await;
    agent.configure(protecting(&["db"])).await;
    let stop = order(Verb::Stop, "*");
    drop(agent.accept(stop.clone()).await);
    let agent = agent.crash().await;
    let failure = outcome(agent.order(stop).await).failure.unwrap();
    assert_eq!(failure.reason, "PROCESS_PROTECTED");
    assert!(failure.message.contains("`db` was left as it is"), "{failure:?}");
    assert_eq!(agent.process("a").await.phase, Phase::Stopped);
    let left = agent.process("db").await;
    assert_eq!((left.phase, left.desired_running, left.generation), (Phase::Running, true, 1));
    let those = Order { target: Target::These([alias("db")].into()), ..order(Verb::Stop, "*") };
    // The other life has read no configuration that protects it.
    agent.configure(protecting(&["db"])).await;
    assert_eq!(outcome(agent.order(those).await).failure.unwrap().reason, "PROCESS_PROTECTED");
    assert_eq!(outcome(agent.order(here(Verb::Stop, "*")).await).failure, None);
    assert_eq!(agent.process("db").await.phase, Phase::Stopped);
}

/// Maintenance outlasts the agent. What was accepted before goes on, and is told to whoever asks again.
#[tokio::test(start_paused = true)]
async fn a_host_in_maintenance_takes_no_order_of_a_server() {
    let agent = Agent::start(&[worker("a")], &[("a", Manners::Ignores)]).await;
    let mut news = agent.supervisor.news();
    let under_way = order(Verb::Stop, "a");
    let answer = agent.accept(under_way.clone()).await;
    let before = news.borrow_and_update().redeclared;
    let policy = agent.supervisor.set_maintenance(Some(maintenance())).await.unwrap();
    assert_eq!(policy.refusal, Some(Refusal::Maintenance(maintenance())));
    assert!(news.borrow_and_update().redeclared > before, "the server is told");
    assert_eq!(outcome(answer.await).failure, None);
    assert_eq!(outcome(agent.order(under_way).await).failure, None);

    let agent = agent.crash().await;
    for verb in [Verb::Start, Verb::Stop, Verb::Restart] {
        assert_eq!(agent.refused(order(verb, "a")).await, Reason::AgentRefuses);
        assert_eq!(agent.refused(order(verb, "*")).await, Reason::AgentRefuses);
        let planned = agent.supervisor.plan(order(verb, "*")).await.unwrap_err();
        assert!(planned.message.contains("new disk"), "{planned:?}");
    }
    assert_eq!(outcome(agent.order(here(Verb::Start, "a")).await).failure, None);
    assert_eq!(agent.supervisor.set_maintenance(None).await.unwrap(), LocalPolicy::default());
    assert_eq!(outcome(agent.order(order(Verb::Stop, "a")).await).failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_may_refuse_every_order() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    agent.configure(PolicyConfig { accept_orders: false, ..PolicyConfig::default() }).await;
    assert_eq!(agent.supervisor.policy().await.unwrap().refusal, Some(Refusal::Configured));
    assert_eq!(agent.refused(order(Verb::Stop, "a")).await, Reason::AgentRefuses);
    // The end of a maintenance does not overrule the configuration.
    let policy = agent.supervisor.set_maintenance(None).await.unwrap();
    assert_eq!(policy.refusal, Some(Refusal::Configured));
    assert_eq!(outcome(agent.order(here(Verb::Stop, "a")).await).failure, None);
}

/// Hazard A07, by somebody who means it: an epoch that no server can have locks nobody out, and a person can undo one that
/// a server can.
#[tokio::test(start_paused = true)]
async fn a_stolen_epoch_locks_nobody_out_for_good() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    let of = |epoch| Order { epoch: Some(epoch), ..order(Verb::Start, "a") };
    assert_eq!(outcome(agent.order(of(7)).await).failure, None);
    for epoch in [u64::MAX, i64::MAX as u64, 1 << 40] {
        assert_eq!(agent.refused(of(epoch)).await, Reason::InvalidArgument);
        let cancelled = agent.supervisor.cancel(of(epoch)).await.unwrap_err();
        assert_eq!(cancelled.reason, Reason::InvalidArgument);
    }
    assert_eq!(outcome(agent.order(of(7)).await).failure, None);
    assert_eq!(outcome(agent.order(of(1000)).await).failure, None);
    assert_eq!(agent.refused(of(7)).await, Reason::StaleEpoch);
    assert_eq!(agent.supervisor.forget_epoch("local:root".to_owned()).await.unwrap(), 1000);
    let agent = agent.crash().await;
    assert_eq!(outcome(agent.order(of(7)).await).failure, None);
    assert_eq!(agent.refused(of(6)).await, Reason::StaleEpoch);
}

/// An operation id is that of one order: whoever sends it with another one is told what became of the first, and nothing
/// is done.
#[tokio::test(start_paused = true)]
async fn an_operation_id_means_one_order_only() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[]).await;
    let first = order(Verb::Stop, "a");
    outcome(agent.order(first.clone()).await);
    let signals = agent.signals();
    for other in [order(Verb::Stop, "b"), order(Verb::Restart, "*"), order(Verb::Start, "a")] {
        let told = outcome(agent.order(Order { id: first.id, ..other }).await);
        let aliases: Vec<_> = told.processes.iter().map(|process| process.alias.as_str()).collect();
        assert_eq!(aliases, ["a"]);
    }
    assert_eq!(agent.signals(), signals);
    assert_eq!(agent.process("a").await.phase, Phase::Stopped);
    assert_eq!(agent.process("b").await.phase, Phase::Running);
}
