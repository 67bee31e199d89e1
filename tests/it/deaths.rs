//! The server dies at each named place while it has a task, and at others while it begins again. Operators cancel, retry and
//! roll back in the middle, agents fail, are slow, and lose their connections. Whoever ordered repeats an order that was not
//! answered. Then nothing is lost, nothing was done twice, and everything has settled.
//!
//! `BELAY_SEEDS` says how many times at each place, each time otherwise; `BELAY_PLACE` which place alone, and `BELAY_SEED` from
//! which seed on.

mod arena; // a server with hosts, for many rounds
mod asks; // what callers and operators ask of it
mod check; // what must hold at the end of each
mod joins; // parts join, and authorities are replaced, while somebody dies
mod moves; // a host that is deleted and added again
mod places; // where the server dies
mod round; // one death, and what comes before and after it

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::task::{JoinSet, LocalSet};

use self::{
    arena::Arena,
    places::Story,
    round::{Done, Round},
};

/// How many servers die side by side: mostly they wait.
const SIDE_BY_SIDE: usize = 6;

/// After so many rounds that went wrong no further one is begun.
const MOST_FAILURES: usize = 10;

/// What makes another seed of one that did not come by its place, and how large seeds may become.
const ANOTHER: u64 = 1000;
const MOST_SEEDS: u64 = 3 * ANOTHER;

/// A place, what happens there, how it is come by, and a seed.
type Chance = (String, &'static str, Story, u64);

/// A place, what happened there, and how that went.
type Ended = (String, &'static str, Done);

/// Hazards D01 to D05 and D13.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stderr)] // what a campaign found, and what a failure is to be run again with
async fn whatever_place_the_server_dies_at_nothing_is_lost_or_done_twice() {
    let seeds: u64 = env::var("BELAY_SEEDS").map_or(1, |seeds| seeds.parse().expect("a number"));
    let only = env::var("BELAY_PLACE").ok();
    let mut chances = VecDeque::<Chance>::new();
    let first: u64 = env::var("BELAY_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    for seed in first..first + seeds {
        let all = places::all().into_iter();
        let meant = all.filter(|(place, ..)| only.as_ref().is_none_or(|only| only == place));
        chances.extend(meant.map(|(place, what, story)| (place, what, story, seed)));
    }
    let began = Instant::now();
    let chances = Arc::new(Mutex::new(chances));
    let all = Arc::new(Mutex::new(Vec::new()));
    let failures = LocalSet::new()
        .run_until(async {
            let mut arenas = JoinSet::new();
            for _ in 0..SIDE_BY_SIDE {
                arenas.spawn_local(die_again_and_again(chances.clone(), all.clone()));
            }
            let mut failures = 0;
            while let Some(ended) = arenas.join_next().await {
                // The round itself has told what went wrong. The others are looked at all the same.
                failures += usize::from(ended.is_err());
                if ended.is_err() && failures < MOST_FAILURES {
                    arenas.spawn_local(die_again_and_again(chances.clone(), all.clone()));
                }
            }
            failures
        })
        .await;
    let all = std::mem::take(&mut *all.lock().expect("nobody panics with it"));
    let (rounds, mut deaths, mut ends) = (all.len(), 0, BTreeMap::<_, usize>::new());
    let mut hits = BTreeMap::<_, usize>::new();
    for (place, what, done) in all {
        deaths += done.deaths;
        *ends.entry(done.end).or_default() += 1;
        *hits.entry((place, what)).or_default() += usize::from(done.hit);
    }
    let least = hits.values().min();
    eprintln!(
        "{rounds} rounds at {} places, {deaths} deaths in {:?}; each place hit {least:?} times at least; {ends:?}",
        hits.len(),
        began.elapsed(),
    );
    assert_eq!(failures, 0, "rounds that went wrong");
    let missed: Vec<_> = hits.iter().filter(|(_, hits)| **hits < seeds as usize).collect();
    assert!(missed.is_empty(), "too seldom come by: {missed:?}");
}

#[allow(clippy::print_stderr)]
async fn die_again_and_again(chances: Arc<Mutex<VecDeque<Chance>>>, done: Arc<Mutex<Vec<Ended>>>) {
    let mut arena = Arena::start().await;
    loop {
        let next = chances.lock().expect("nobody panics with it").pop_front();
        let Some((place, what, story, seed)) = next else {
            return;
        };
        let began = Instant::now();
        let round = Round::new(&mut arena, &place, what, story, seed).play().await;
        eprintln!("{place}={what}, seed {seed}: {}, hit {} in {:?}", round.end, round.hit, began.elapsed());
        // What it did not come by it comes by otherwise.
        if !round.hit && seed < MOST_SEEDS {
            let again = (place.clone(), what, story, seed + ANOTHER);
            chances.lock().expect("nobody panics with it").push_back(again);
        }
        done.lock().expect("nobody panics with it").push((place, what, round));
    }
}
