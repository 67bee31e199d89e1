//! What one life of the agent leaves to the next, which knows nothing but the journal.

use super::*;

/// Hazard A01: what was cancelled stays so.
#[tokio::test(start_paused = true)]
async fn a_cancel_outlives_the_agent() {
    let manners = [("a", Manners::EndsAfter(Duration::from_secs(3)))];
    let agent = Agent::start(&[worker("a"), base("b")], &manners).await;
    let stop = Order { target: Target::All, ..order(Verb::Stop, "a") };
    agent.accept(stop.clone()).await;
    agent.until(|all| all.iter().any(|p| p.phase == Phase::Stopping)).await;
    agent.supervisor.cancel(stop.clone()).await.unwrap();
    let agent = agent.crash().await;
    let outcome = outcome(agent.order(stop).await);
    assert_eq!(outcome.failure.unwrap().reason, "CANCELLED");
    assert_eq!(outcome.changed, [alias("a")].into());
    check_wishes(&agent, [(Phase::Stopped, false), (Phase::Running, true)]).await;
    let again = agent.crash().await;
    again.until(|all| all.iter().all(|p| p.desired_running == (p.alias == alias("b")))).await;
}

/// Hazard A01: killed between the record of an order and that of the wish. The order is carried out, and the wish stays
/// over further lives.
#[tokio::test(start_paused = true)]
async fn the_wish_of_an_accepted_order_outlives_the_agent() {
    let manners = [("a", Manners::EndsAfter(Duration::from_secs(3)))];
    let agent = Agent::start(&[worker("a"), worker("b")], &manners).await;
    let stop = order(Verb::Stop, "a");
    agent.accept(stop.clone()).await;
    let agent = agent.crash_with(|folder| cut_after(folder, "accepted")).await;
    assert_eq!(outcome(agent.order(stop).await).failure, None);
    check_wishes(&agent, [(Phase::Stopped, false), (Phase::Running, true)]).await;
    let again = agent.crash().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    check_wishes(&again, [(Phase::Stopped, false), (Phase::Running, true)]).await;
}

/// Hazard A01: what is to be stopped in its turn is not stopped before, by the life that goes on with it.
#[tokio::test(start_paused = true)]
async fn the_order_of_a_stop_outlives_the_agent() {
    let manners = [("a", Manners::EndsAfter(Duration::from_secs(3)))];
    let agent = Agent::start(&[worker("a"), base("b")], &manners).await;
    let stop = Order { target: Target::All, ..order(Verb::Stop, "a") };
    agent.accept(stop.clone()).await;
    let agent = agent.crash().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    check_wishes(&agent, [(Phase::Stopping, false), (Phase::Running, false)]).await;
    assert_eq!(outcome(agent.order(stop).await).failure, None);
    check_wishes(&agent, [(Phase::Stopped, false), (Phase::Stopped, false)]).await;
}

/// Hazard A01: killed between the two records of an order that was cancelled before it arrived.
#[tokio::test(start_paused = true)]
async fn a_void_order_stays_void() {
    let agent = Agent::start(&[worker("a"), worker("b")], &[]).await;
    let stop = order(Verb::Stop, "a");
    agent.supervisor.cancel(stop.clone()).await.unwrap();
    let agent = agent.crash_with(|folder| cut_after(folder, "accepted")).await;
    check_failed(&outcome(agent.order(stop).await), Reason::Cancelled);
    check_wishes(&agent, [(Phase::Running, true), (Phase::Running, true)]).await;
    assert_eq!(agent.signals(), []);
}

/// How `a` and `b` are, and whether they are wanted.
async fn check_wishes(agent: &Agent, expected: [(Phase, bool); 2]) {
    let (a, b) = (agent.process("a").await, agent.process("b").await);
    assert_eq!([a, b].map(|process| (process.phase, process.desired_running)), expected);
}

/// Cuts the journal off after its first record of this kind, and something was to be cut off.
fn cut_after(folder: &Path, kind: &str) {
    let path = folder.join("journal");
    let text = std::fs::read_to_string(&path).unwrap();
    let record = text.find(&format!("{{\"is\":\"{kind}\"")).unwrap();
    let end = record + text[record..].find('\n').unwrap() + 1;
    assert!(end < text.len());
    std::fs::write(&path, &text[..end]).unwrap();
}
