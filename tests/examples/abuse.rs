//! What a fleet makes of peers that mean harm: each attack on each listener, while somebody else calls there.
//!
//! `cargo run --release -p belay-tests --example abuse -- [--seconds N] [--connections N] [--wide N] [--only NAME]`. Prints
//! for each what became of the attack, by how much the memory of the part grew, how long a bystander waited, and how it was
//! 5 s later. Ends with 1 where any bound is not kept.

#![allow(clippy::print_stdout)] // what an example is for

use std::{env, process::ExitCode, time::Duration};

use belay_tests::{
    Fleet, HostSetup, allow_files,
    attack::{Attack, Bystander, Harm, Wait, harm},
    built,
};
use tokio::time::sleep;

/// What has to hold.
const MOST_GROWTH: f64 = 64.0;
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// When all is well again.
const LATER: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    let time = Duration::from_secs(option("--seconds").unwrap_or(10));
    let few = option("--connections").unwrap_or(8) as usize;
    let wide = option("--wide").unwrap_or(3000) as usize;
    let only = text("--only");
    allow_files(wide as u64 * 2 + 1000);
    let host = HostSetup::new().worker("obstat2", "plain");
    let mut fleet = Fleet::start_plain(&built("belay-under-test"), &built("victim"), vec![host]).await;
    let aims = fleet.aims().await;
    println!("{time:?} each, {few} connections, or {wide} that hardly do anything");
    let mut broken = Vec::new();
    for aim in &aims {
        // No more than one peer may begin at once.
        for _ in 0..20 {
            (aim.call)(true).await.expect("an answer");
        }
        let quiet = watch(aim.call.clone(), Duration::from_secs(3)).await;
        println!("\n{} ({:.1} MiB), left alone: {}", aim.target.name, aim.memory(), told(&quiet));
        for &attack in Attack::on(&aim.target) {
            let name = format!("{attack:?}");
            if only.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            let before = aim.memory();
            let connections = if attack.is_wide() { wide } else { few };
            let Harm { storm, wait, grown } = harm(attack, aim, connections, time).await;
            sleep(LATER).await;
            let after = watch(aim.call.clone(), Duration::from_secs(2)).await;
            let stays = aim.memory() - before;
            println!(
                "  {name:<13} {storm}\n{:16}grown by {grown:>5.1} MiB, 5 s later {stays:>5.1}; {}",
                "",
                told(&wait)
            );
            println!("{:16}5 s later: {}", "", told(&after));
            let kept = grown < MOST_GROWTH && is_well(&wait) && is_well(&after);
            if !kept {
                broken.push(format!("{} {name}", aim.target.name));
            }
        }
    }
    if broken.is_empty() {
        println!("\nall bounds are kept");
        return ExitCode::SUCCESS;
    }
    println!("\nnot kept: {}", broken.join(", "));
    ExitCode::FAILURE
}

async fn watch(call: belay_tests::attack::Call, time: Duration) -> Wait {
    let bystander = Bystander::start(call);
    sleep(time).await;
    bystander.end().await
}

fn is_well(wait: &Wait) -> bool {
    wait.failed.is_empty() && wait.answered > 0 && wait.p99 < LONGEST_WAIT
}

fn told(wait: &Wait) -> String {
    let Wait { answered, failed, median, p99, longest } = wait;
    let first = failed.first().map(|why| format!(" ({why})")).unwrap_or_default();
    format!(
        "{answered} calls answered, {} failed{first}, median {median:.1?}, p99 {p99:.1?}, longest {longest:.1?}",
        failed.len()
    )
}

fn option(name: &str) -> Option<u64> {
    text(name).map(|value| value.parse().expect("a number"))
}

fn text(name: &str) -> Option<String> {
    let arguments: Vec<_> = env::args().collect();
    let place = arguments.iter().position(|argument| argument == name)?;
    Some(arguments.get(place + 1).expect("a value").clone())
}
