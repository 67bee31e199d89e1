//! The disk of a server loses power. `cargo run -p belay-tests --example power_loss -- --cuts 200` does it more often.

use std::time::Duration;

use belay_tests::{Acknowledged, Acknowledges, PowerLoss};

/// Cuts so often, with as many different loads. `None` where this machine does not allow it.
async fn lost(how: Acknowledges, cuts: u32) -> Option<(Acknowledged, Vec<String>)> {
    let (program, victim) = (env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"));
    let mut power = match PowerLoss::start(program, victim, how).await {
        Ok(power) => power,
        Err(why) => {
            eprintln!("skipped: {why}");
            return None;
        }
    };
    for cut in 1..=cuts {
        let lost = power.cut(Duration::from_millis(100) * cut).await;
        if !lost.is_empty() {
            return Some((power.acknowledged, lost));
        }
    }
    let acknowledged = power.acknowledged;
    power.end().expect("the file system is whole");
    Some((acknowledged, Vec::new()))
}

/// Hazard R09: what was acknowledged is on disk.
#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    if let Some((acknowledged, lost)) = lost(Acknowledges::Durably, 4).await {
        assert!(lost.is_empty(), "{lost:#?}");
        assert!(acknowledged.tasks > 0 && acknowledged.orders > 0, "{acknowledged:?}");
    }
}

/// The test above would notice a server that acknowledges too early.
#[tokio::test]
async fn a_server_that_acknowledges_too_early_is_caught() {
    if let Some((acknowledged, lost)) = lost(Acknowledges::Early, 10).await {
        assert!(!lost.is_empty(), "{acknowledged:?}");
    }
}
