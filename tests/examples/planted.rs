//! Switches each planted bug on, and demands that the test which is to find it fails, and passes without it.
//!
//! `cargo run -p belay-tests --example planted [-- NAME ...]`: all bugs of `tests/PLANTED.md`, or these.

#![allow(clippy::print_stdout)] // what an example is for

use std::{collections::BTreeMap, env, process::ExitCode, time::Instant};

use belay_tests::{Ended, Suites, planted_bugs};

fn main() -> ExitCode {
    let names: Vec<_> = env::args().skip(1).collect();
    let bugs = planted_bugs();
    let unknown = names.iter().find(|name| bugs.iter().all(|bug| bug.name != **name));
    if let Some(unknown) = unknown {
        println!("there is no bug `{unknown}` in tests/PLANTED.md");
        return ExitCode::FAILURE;
    }
    let mut suites = Suites::default();
    let (mut sound, mut found, mut wrong) = (BTreeMap::new(), 0, Vec::new());
    for bug in bugs.iter().filter(|bug| names.is_empty() || names.contains(&bug.name)) {
        let start = Instant::now();
        let without = sound.entry((bug.suite.folder(), &bug.test)).or_insert_with(|| suites.run(bug, false));
        let told = match (without, suites.run(bug, true)) {
            (Ended::Passed, Ended::Failed) => {
                found += 1;
                "found"
            }
            (Ended::Passed, Ended::Passed) => "NOT FOUND",
            (Ended::Passed, Ended::Not(printed)) => {
                println!("{printed}");
                "PROVES NOTHING"
            }
            (Ended::Failed, _) => "FAILS WITHOUT THE BUG TOO",
            (Ended::Not(printed), _) => {
                println!("{printed}");
                "CAN NOT BE RUN"
            }
        };
        if told != "found" {
            wrong.push(&bug.name);
        }
        println!("{:<28} {told}: {} ({:.1} s)", bug.name, bug.test, start.elapsed().as_secs_f64());
    }
    println!("{found} found by {} tests, {} not: {wrong:?}", sound.len(), wrong.len());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
