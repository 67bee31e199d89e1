//! End-to-end tests: real servers, gateways, agents and processes.

mod abuse;
mod access;
mod audit;
mod batches;
mod canaries;
mod cli;
mod clones;
mod compatibility;
mod confirm;
mod deaths;
mod distrust;
mod documented;
mod events;
mod force;
mod grpcurl;
mod hazards;
mod hosts;
mod idempotency;
mod keys;
mod labels;
mod lists;
mod local;
mod log;
mod phrases;
mod planted;
mod power_loss;
mod preconditions;
mod recovery;
mod refusals;
mod rehearsals;
mod rights;
mod shapes;
mod simulated;
mod stop;
mod tasks;
mod throttling;
mod tls;

use belay_tests::{Fleet, HostSetup};

/// A fleet of these hosts, all parts of which speak TLS with each other.
async fn fleet(hosts: Vec<HostSetup>) -> Fleet {
    fleet_with("", hosts).await
}

/// The same with more lines for the server.
async fn fleet_with(settings: &str, hosts: Vec<HostSetup>) -> Fleet {
    let (program, victim) = (env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"));
    Fleet::start_with(program, victim, settings, hosts).await
}

/// A fleet of these hosts in plain text, for what is about plain text or speaks it itself.
async fn plain_fleet(hosts: Vec<HostSetup>) -> Fleet {
    let (program, victim) = (env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"));
    Fleet::start_plain(program, victim, hosts).await
}
