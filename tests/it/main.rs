//! End-to-end tests: real servers, gateways, agents and processes.

mod access;
mod batches;
mod cli;
mod clones;
mod confirm;
mod deaths;
mod events;
mod force;
mod grpcurl;
mod hazards;
mod idempotency;
mod labels;
mod lists;
mod local;
mod log;
mod planted;
mod power_loss;
mod preconditions;
mod recovery;
mod refusals;
mod shapes;
mod simulated;
mod stop;
mod tasks;

use belay_tests::{Fleet, HostSetup};

/// A fleet of these hosts.
async fn fleet(hosts: Vec<HostSetup>) -> Fleet {
    Fleet::start(env!("CARGO_BIN_EXE_belay-under-test"), env!("CARGO_BIN_EXE_victim"), hosts).await
}
