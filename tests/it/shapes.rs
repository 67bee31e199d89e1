//! Victims of every shape are proven gone, with cgroups and without.

use std::{collections::BTreeSet, env, sync::Arc};

use belay_tests::{
    DEFECTOR, End, GHOST, HostSetup, Ledger, NOBODY, Supervisor, VICTIMS, Victim, start_all, stop_all,
    wait_for,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Mutex;

use crate::fleet;

/// How often all of them are stopped: twice, or as the variable `BELAY_ROUNDS` says.
fn rounds() -> usize {
    env::var("BELAY_ROUNDS").map_or(2, |rounds| rounds.parse().expect("a number"))
}

/// Each of these fleets is a heavy load: one after the other.
static TURN: Mutex<()> = Mutex::const_new(());

/// An answer is the proof: nothing of what it calls stopped is alive, and nothing of it begins after that.
#[allow(clippy::print_stderr)] // a test that is skipped says so
async fn check(setup: HostSetup, victims: &[Victim]) {
    let (victims, others): (Vec<Victim>, Vec<Victim>) = victims.iter().partition(|victim| victim.may_run());
    for victim in others {
        eprintln!("skipped: `{}` needs root", victim.shape);
    }
    let _turn = TURN.lock().await;
    let fleet = fleet(vec![setup.victims(&victims)]).await;
    let caller = Arc::new(fleet.caller(0).await);
    for round in 0..rounds() {
        if round > 0 {
            start_all(&caller, &victims).await;
        }
        for stop in stop_all(&caller, &victims).await {
            let (shape, ledger) = (stop.victim.shape, caller.ledger(stop.victim.shape));
            assert_eq!(stop.answer, Ok(()), "{shape}, round {round}");
            assert_eq!(stop.survivors, NOBODY, "{shape}, round {round}: alive when the answer came");
            assert_eq!(ledger.alive(), NOBODY, "{shape}, round {round}: alive later");
            assert_eq!(ledger.pids().len(), stop.begun, "{shape}, round {round}: begun later");
            assert_one_sigterm_each(ledger);
            if round == 0 && stop.victim.end == End::Killed {
                let detail = caller.detail(shape).await;
                let escalated = &detail.data()["lastExit"]["escalated"];
                assert_eq!(escalated, true, "{shape}: {}", detail.text);
            }
        }
    }
}

fn assert_one_sigterm_each(ledger: &Ledger) {
    let got = ledger.terminations();
    let distinct: BTreeSet<_> = got.iter().collect();
    assert_eq!(distinct.len(), got.len(), "a process got SIGTERM twice: {got:?}");
}

/// Hazards P05, P06, P08, P10, P11, P15, P16, P18, P19, P24, P26, P27 and P32.
#[tokio::test(flavor = "multi_thread")]
async fn every_shape_is_proven_gone() {
    check(HostSetup::new(), &[VICTIMS, &[GHOST]].concat()).await;
}

/// Hazard P09, and all the others.
#[tokio::test(flavor = "multi_thread")]
async fn every_shape_is_proven_gone_without_cgroups() {
    check(HostSetup::new().without_cgroup(), &[VICTIMS, &[DEFECTOR, GHOST]].concat()).await;
}

/// Hazard P07.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_cgroup_is_proven_gone() {
    check(HostSetup::new(), &[DEFECTOR]).await;
}

/// Hazard P12: who is given time ends by itself, also where it was stopped by SIGSTOP.
async fn check_in_peace(setup: HostSetup) {
    let _turn = TURN.lock().await;
    let polite = VICTIMS.iter().map(|victim| victim.shape);
    let polite: Vec<_> = polite.filter(|shape| Victim::of(shape).end == End::Asked).collect();
    let fleet = fleet(vec![polite.iter().fold(setup, |setup, shape| setup.worker(shape, shape))]).await;
    let caller = fleet.caller(0).await;
    for shape in polite {
        assert_eq!(caller.stop(shape).await, Ok(()), "{shape}");
        assert_eq!(caller.ledger(shape).alive(), NOBODY, "{shape}");
        let detail = caller.detail(shape).await;
        assert_eq!(detail.data()["lastExit"]["escalated"], false, "{shape}: {}", detail.text);
    }
}

#[tokio::test]
async fn who_is_given_time_ends_by_itself() {
    check_in_peace(HostSetup::new()).await;
}

#[tokio::test]
async fn who_is_given_time_ends_by_itself_without_cgroups() {
    check_in_peace(HostSetup::new().without_cgroup()).await;
}

/// A process that ended by itself is started again by its policy, and a stop then keeps it down (hazard P19).
#[tokio::test]
async fn a_stop_outlasts_the_restart_policy() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let ledger = fleet.ledger(0, "obstat2");
    let first = ledger.pids()[0];
    kill_process(Pid::from_raw(first).expect("a pid"), Signal::KILL).expect("killed");
    ledger.wait_for_begun(2).await;
    let path = fleet.process_path(0, "obstat2").await;
    wait_for("the new instance is seen", async || {
        let process = fleet.process(0, "obstat2").await;
        if process["pid"] != first && process["status"] == "STARTED" { Ok(()) } else { Err(process) }
    })
    .await;
    let answer = fleet.admin().post(&format!("{path}/stop")).await;
    assert_eq!(answer.data()["status"], "STOPPED", "{}", answer.text);
    let begun = ledger.pids();
    // Another process of the agent is restarted meanwhile: had this one been about to come back, it would be there.
    assert_eq!(ledger.alive(), NOBODY);
    assert_eq!(ledger.pids(), begun);
}
