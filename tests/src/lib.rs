//! A whole fleet for tests: a server, a gateway and agents, each a real process that can be killed and started again, on
//! an address of its own and in a temporary folder.
//!
//! Every fleet has its own address of the loopback network, so that fixed ports meet nobody and stay the same over a
//! restart.

pub mod attack;
mod built;
mod campaign;
mod cgroup;
mod client;
mod disk;
mod fleet;
pub mod floor;
mod ledger;
mod marked;
mod part;
mod planted;
mod power_loss;
mod proxy;
mod shape;
mod signer;
mod simulated;
mod supervisord;
mod times;
mod victims;
mod weight;

pub use built::built;
pub use campaign::{Caller, Stop, Supervisor, start_all, stop_all};
pub use cgroup::cgroup_mount;
pub use client::{Answer, Client, Wire, basic};
pub use disk::Disk;
pub use fleet::{Fleet, HostSetup};
pub use ledger::Ledger;
pub use part::Part;
pub use planted::{Ended, Planted, Suite, Suites, planted_bugs};
pub use power_loss::{Acknowledged, Acknowledges, PowerLoss};
pub use proxy::Proxy;
pub use shape::{Freedom, Shape};
pub use signer::Signer;
pub use simulated::{
    Connections, Entry, Kind, Orders, Script, SimulatedAgent, SimulatedFleet, Simulation, allow_files,
    pause_before_connecting,
};
pub use supervisord::{Programs, Supervisord};
pub use times::Times;
pub use victims::{DEFECTOR, End, GHOST, GRACE, VICTIMS, Victim};
pub use weight::{Effort, Memory};

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

use procfs::process::Stat;

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` gives a value. What it gives otherwise is what a failure shows.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn wait_for<T, E: Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) if start.elapsed() > PATIENCE => {
                panic!("{what}: not within {PATIENCE:?}; last seen: {last:#?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Whether a process is gone: there is none, or only what its parent has not yet taken notice of.
pub fn is_gone(pid: i32) -> bool {
    !ledger::stat_of(pid).is_some_and(|stat| is_alive(&stat))
}

/// Whether it can still run anything. A main thread that has ended is shown as a zombie even while others live; and the
/// kernel takes a process that ends out of its cgroup before it is a zombie, when its memory and its files are gone.
pub(crate) fn is_alive(stat: &Stat) -> bool {
    stat.num_threads > 1 || !matches!(stat.state, 'Z' | 'X') && stat.vsize > 0
}

/// No pid: what a ledger should hold where nobody was signalled, or nobody is alive.
pub const NOBODY: [i32; 0] = [];
