//! The agent dies at each named place, and at others while it comes back. Whoever ordered repeats the order under the same
//! id until it is answered. Then nothing is lost, nothing was done twice, and all has settled.
//!
//! `BELAY_SEEDS` says how many times at each place, each time otherwise: with other processes, in the other tree mode, by
//! another order, killed at the second time or once more.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[allow(dead_code, reason = "each test program needs a part of it")]
#[path = "../host/mod.rs"]
mod host;
mod places; // where the agent dies
mod run; // one death, and what comes after it
mod victims; // who writes down what it is asked

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use places::{PLACES, Story};
use run::Run;
use tokio::{sync::Semaphore, task::JoinSet};

/// How many agents die side by side: mostly they wait.
const SIDE_BY_SIDE: usize = 6;

/// Hazards A01, A02 and D03.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_place_a_stop_dies_at_nobody_is_asked_twice() {
    die_everywhere(&[Story::Stop, Story::Kill, Story::Rest, Story::Hook]).await;
}

/// Hazards A01, A02 and D03.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_place_an_order_dies_at_it_is_carried_out_once() {
    die_everywhere(&[Story::Order, Story::Start, Story::Again]).await;
}

/// Hazards A01 and A02.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_place_a_new_life_dies_at_the_next_goes_on() {
    die_everywhere(&[Story::Begin, Story::Gone]).await;
}

/// Hazard A01.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_place_a_cancel_dies_at_it_is_told_what_was_done() {
    die_everywhere(&[Story::Cancel, Story::Void]).await;
}

/// Hazards A01 and A09.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_place_the_host_s_own_orders_die_at_they_are_carried_out() {
    die_everywhere(&[Story::Local, Story::Reload, Story::Upgrade]).await;
}

async fn die_everywhere(stories: &[Story]) {
    let seeds = std::env::var("BELAY_SEEDS").map_or(1, |seeds| seeds.parse().unwrap());
    let only = std::env::var("BELAY_PLACE").ok();
    let began = Instant::now();
    let side_by_side = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut runs = JoinSet::new();
    for (place, what, story) in PLACES.iter().copied().filter(|(.., story)| stories.contains(story)) {
        if only.as_ref().is_some_and(|only| only != place) {
            continue;
        }
        for seed in 0..seeds {
            let side_by_side = side_by_side.clone();
            runs.spawn(async move {
                let _turn = side_by_side.acquire().await.unwrap();
                // A failure shows what to run again.
                eprintln!("{place}={what}, seed {seed}");
                (place, Run::new(place, what, story, seed).await.play().await)
            });
        }
    }
    let (mut deaths, mut count, mut hits) = (0, 0, BTreeMap::<_, usize>::new());
    while let Some(run) = runs.join_next().await {
        let (place, done) = run.unwrap();
        deaths += done.deaths;
        count += 1;
        *hits.entry(place).or_default() += usize::from(done.hit);
    }
    eprintln!("{stories:?}: {count} runs at {} places, {deaths} deaths in {:?}", hits.len(), began.elapsed());
    assert!(hits.values().all(|hits| *hits > 0), "never come by: {hits:?}");
}
