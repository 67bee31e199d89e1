//! Stops victims of every shape, and prints side by side what Belay and a peer leave alive.
//!
//! `cargo run -p belay-tests --example shapes [-- --rounds N]`. The peer is supervisord, where it is on the PATH or
//! where the variable `SUPERVISORD` says (`pip install supervisor`).

#![allow(clippy::print_stdout)] // what an example is for

use std::{env, path::Path, sync::Arc, time::Duration};

use belay_tests::{
    DEFECTOR, Fleet, GHOST, HostSetup, Programs, Stop, Supervisor, Supervisord, VICTIMS, Victim, built,
    start_all, stop_all,
};

#[tokio::main]
async fn main() {
    let rounds = rounds();
    let victims: Vec<_> = VICTIMS.iter().copied().chain([DEFECTOR, GHOST]).filter(Victim::may_run).collect();
    let (program, victim) = (built("belay-under-test"), built("victim"));

    let mut columns = Vec::new();
    for (name, setup) in
        [("Belay, cgroup", HostSetup::new()), ("Belay, walk", HostSetup::new().without_cgroup())]
    {
        let fleet = Fleet::start(&program, &victim, vec![setup.victims(&victims)]).await;
        let caller = Arc::new(fleet.caller(0).await);
        // An agent starts what it runs by itself.
        stop_all(&caller, &victims).await;
        columns.push((name, run(&caller, &victims, rounds).await));
    }
    for (name, settings) in [
        ("supervisord", "stopwaitsecs=1"),
        ("supervisord, as group", "stopwaitsecs=1\nstopasgroup=true\nkillasgroup=true"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let programs = Programs::new(&folder.path().join("supervisord"));
        let programs = programs.victims(Path::new(&victim), &victims, settings);
        match Supervisord::start([127, 63, 0, 1].into(), programs).await {
            Some(peer) => columns.push((name, run(&Arc::new(peer), &victims, rounds).await)),
            None => println!("{name} is left out: it is not installed (`pip install supervisor`)"),
        }
    }
    print(&victims, &columns, rounds);
}

/// The stops of all rounds.
async fn run(supervisor: &Arc<impl Supervisor>, victims: &[Victim], rounds: usize) -> Vec<Stop> {
    let mut stops = Vec::new();
    for _ in 0..rounds {
        // What is left of the round before is nobody's any more.
        victims.iter().for_each(|victim| supervisor.ledger(victim.shape).end_all());
        start_all(supervisor, victims).await;
        stops.extend(stop_all(supervisor, victims).await);
    }
    stops
}

fn print(victims: &[Victim], columns: &[(&str, Vec<Stop>)], rounds: usize) {
    println!(
        "processes alive when the stop was answered, at the most / answers \"stopped\" that were false, of {rounds} / median ms"
    );
    print!("{:<20}", "");
    columns.iter().for_each(|(name, _)| print!("{name:>24}"));
    println!();
    for victim in victims {
        print!("{:<20}", victim.shape);
        for (_, stops) in columns {
            let stops = stops.iter().filter(|stop| stop.victim == *victim);
            print!("{:>24}", cell(stops));
        }
        println!();
    }
    print!("{:<20}", "shapes with false stops");
    for (_, stops) in columns {
        let is_false = |victim: &&Victim| stops.iter().any(|stop| stop.victim == **victim && stop.is_false());
        print!("{:>24}", victims.iter().filter(is_false).count());
    }
    println!();
    for (name, stops) in columns {
        let errors = stops.iter().filter_map(|stop| Some((stop.victim.shape, stop.answer.as_ref().err()?)));
        errors.for_each(|(shape, error)| println!("{name}, {shape}: {error}"));
    }
}

fn cell<'a>(stops: impl Iterator<Item = &'a Stop> + Clone) -> String {
    let survivors = stops.clone().map(|stop| stop.survivors.len()).max().unwrap_or_default();
    let lies = stops.clone().filter(|stop| stop.is_false()).count();
    let refused = stops.clone().filter(|stop| stop.answer.is_err()).count();
    let mut times: Vec<Duration> = stops.map(|stop| stop.spent).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).map_or(0, Duration::as_millis);
    let refused = if refused > 0 { format!(" ({refused} errors)") } else { String::new() };
    format!("{survivors} / {lies} / {median}{refused}")
}

fn rounds() -> usize {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => 3,
        ["--rounds", rounds] => rounds.parse().expect("a number of rounds"),
        _ => panic!("usage: shapes [--rounds N]"),
    }
}
