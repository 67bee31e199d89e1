//! Cuts the power of a server's disk again and again while orders come in, and tells what of all that was acknowledged is
//! lost. Then the same with a server that acknowledges too early, which must be noticed.
//!
//! `cargo run -p belay-tests --example power_loss [-- --cuts N]`, as root: it mounts an ext4 through a loop device.

#![allow(clippy::print_stdout)] // what an example is for

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use belay_tests::{Acknowledges, PowerLoss, built};

/// A server that acknowledges too early is caught within so many cuts, or the test is worth nothing.
const CUTS_TO_CATCH: u32 = 20;

#[tokio::main]
async fn main() -> ExitCode {
    let cuts = cuts();
    let (program, victim) = (built("belay-under-test"), built("victim"));
    let start = |how| PowerLoss::start(&program, &victim, how);

    let durable = match start(Acknowledges::Durably).await {
        Ok(power) => run("synchronous=FULL", power, cuts).await,
        Err(why) => {
            println!("this machine does not allow it: {why}");
            return ExitCode::from(2);
        }
    };
    let early = start(Acknowledges::Early).await.expect("a second disk");
    let caught = run("synchronous=NORMAL", early, CUTS_TO_CATCH).await.is_some();
    println!("synchronous=NORMAL is {}", if caught { "caught" } else { "NOT CAUGHT" });
    if durable.is_none() && caught { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Cuts until something is lost, so often at the most. Gives the number of the cut that lost something.
async fn run(name: &str, mut power: PowerLoss, cuts: u32) -> Option<u32> {
    let begun = Instant::now();
    for cut in 1..=cuts {
        // From 20 ms to 2019 ms, spread evenly: with a prime, each is met once.
        let load = Duration::from_millis(20 + u64::from(cut) * 1279 % 2000);
        let lost = power.cut(load).await;
        let seen = power.acknowledged;
        let (tasks, ended, orders) = (seen.tasks, seen.ended, seen.orders);
        if !lost.is_empty() || cut % 20 == 0 || cut == cuts {
            println!(
                "{name}: {cut} cuts in {} s; acknowledged: {tasks} tasks, {ended} of them as ended, {orders} orders to \
                 processes; lost in this cut: {}",
                begun.elapsed().as_secs(),
                lost.len()
            );
        }
        if !lost.is_empty() {
            lost.iter().take(5).for_each(|what| println!("    {what:.160}"));
            return Some(cut);
        }
    }
    if let Err(why) = power.end() {
        println!("{name}: the file system itself is damaged: {why}");
        return Some(cuts);
    }
    None
}

fn cuts() -> u32 {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => 20,
        ["--cuts", cuts] => cuts.parse().expect("a number of cuts"),
        _ => panic!("usage: power_loss [--cuts N]"),
    }
}
