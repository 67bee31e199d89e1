//! Orders on terms, and orders that are only planned.

use super::*;
use crate::supervisor::Planned;

fn at(generations: &[u64], order: Order) -> Order {
    Order { generations: generations.to_vec(), ..order }
}

/// An order for one instance never reaches the next one, whichever verb it has, and leaves no trace: what is wanted stays.
#[tokio::test(start_paused = true)]
async fn an_order_for_one_instance_is_refused_at_the_next() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    assert_eq!(outcome(agent.order(at(&[1], order(Verb::Restart, "a"))).await).failure, None);
    let (before, signals) = (agent.process("a").await, agent.signals());
    assert_eq!(before.generation, 2);
    let stop = at(&[1], order(Verb::Stop, "a"));
    let force = Order { force: true, ..at(&[1], order(Verb::Stop, "a")) };
    let late =
        [stop.clone(), force, at(&[1, 3], order(Verb::Restart, "a")), at(&[0], order(Verb::Start, "a"))];
    for late in late {
        let id = late.id;
        let refused = agent.order(late).await.unwrap().expect_err("refused");
        assert_eq!(refused.reason, Reason::PreconditionFailedGeneration, "{refused:?}");
        assert!(refused.message.contains("generation 2"), "{refused:?}");
        assert!(agent.supervisor.operation(id).await.is_err(), "it is not known afterwards");
    }
    assert_eq!(agent.signals(), signals, "nobody was signalled");
    let after = agent.process("a").await;
    assert_eq!((after.generation, after.phase, after.desired_running), (2, Phase::Running, true));
    // One of several is enough; and a known order is joined, whatever there is by then.
    let stop = at(&[1, 2], order(Verb::Stop, "a"));
    assert_eq!(outcome(agent.order(stop.clone()).await).failure, None);
    assert_eq!(outcome(agent.order(order(Verb::Start, "a")).await).failure, None);
    assert_eq!(agent.process("a").await.generation, 3);
    assert_eq!(outcome(agent.order(stop).await).failure, None);
    assert_eq!(agent.process("a").await.phase, Phase::Running, "it was joined, and not done again");
}

/// A restart that is repeated restarts nothing twice.
#[tokio::test(start_paused = true)]
async fn what_was_started_after_a_time_is_not_restarted() {
    let agent = Agent::start(&[worker("a")], &[]).await;
    let restart = |after| Order { not_started_after: after, ..order(Verb::Restart, "a") };
    let first = agent.supervisor.inventory().await.unwrap()[0].sight.as_ref().unwrap().start_time;
    let before = first - Duration::from_secs(1);
    let new = outcome(agent.order(restart(Some(before))).await);
    assert_eq!((new.failure, new.changed.len()), (None, 0));
    assert_eq!((agent.process("a").await.generation, agent.signals()), (1, Vec::new()));
    // As old as the time itself is not after it.
    let old = outcome(agent.order(restart(Some(first))).await);
    assert_eq!((old.failure, old.changed), (None, [alias("a")].into()));
    assert_eq!(agent.process("a").await.generation, 2);
    // What does not run is started, however new it was.
    outcome(agent.order(order(Verb::Stop, "a")).await);
    assert_eq!(outcome(agent.order(restart(Some(before))).await).failure, None);
    assert_eq!(agent.process("a").await.generation, 3);
}

fn turns(planned: &[Planned]) -> Vec<(String, u32, u32, Vec<String>)> {
    let names = |aliases: &[Alias]| aliases.iter().cloned().map(String::from).collect();
    planned
        .iter()
        .map(|planned| {
            let dependents = names(&planned.dependents);
            (planned.alias.clone().into(), planned.stop_turn, planned.start_turn, dependents)
        })
        .collect()
}

/// What is told is what happens: in which order, to whom, and who is left standing on what is gone.
#[tokio::test(start_paused = true)]
async fn a_plan_tells_turns_and_dependents_and_does_nothing() {
    let db = worker("db");
    let web = ProcessConfig { after: [alias("db")].into(), ..worker("web") };
    let agent = Agent::start(&[base("agentd"), db, web], &[]).await;
    let plan = async |order: Order| agent.supervisor.plan(order).await;
    let row = |name: &str, stop, start, dependents: &[&str]| {
        (name.to_owned(), stop, start, dependents.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    };
    let db = |verb| order(verb, "db");
    assert_eq!(turns(&plan(db(Verb::Stop)).await.unwrap()), [row("db", 1, 0, &["web"])]);
    assert_eq!(turns(&plan(db(Verb::Restart)).await.unwrap()), [row("db", 1, 1, &["web"])]);
    assert_eq!(turns(&plan(db(Verb::Start)).await.unwrap()), [row("db", 0, 0, &[])]);
    let all = plan(order(Verb::Restart, "*")).await.unwrap();
    assert_eq!(turns(&all), [row("agentd", 3, 1, &[]), row("db", 2, 2, &[]), row("web", 1, 3, &[])]);
    assert_eq!(all[0].generation, 1);
    let long_ago = Some(jiff::Timestamp::UNIX_EPOCH);
    let spared = Order { not_started_after: long_ago, ..db(Verb::Restart) };
    assert_eq!(turns(&plan(spared).await.unwrap()), [row("db", 0, 0, &[])]);
    // All that an order is checked for.
    for (order, reason) in [
        (order(Verb::Stop, "agentd"), Reason::ProcessNotOperable),
        (order(Verb::Stop, "absent"), Reason::ProcessUnknown),
        (at(&[2], db(Verb::Stop)), Reason::PreconditionFailedGeneration),
    ] {
        assert_eq!(plan(order).await.expect_err("refused").reason, reason);
    }
    assert_eq!(agent.signals(), Vec::new());
    assert!(agent.process("db").await.desired_running);
}
