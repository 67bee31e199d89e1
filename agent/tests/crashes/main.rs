//! The agent on a bad day: killed at any moment, out of something, in a container, without rights.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod container; // as process 1
mod every_call; // killed at each of its system calls
mod exhausted; // out of disk, processes, descriptors
mod fuse; // what kills it there
#[allow(dead_code, reason = "each test program needs a part of it")]
#[path = "../host/mod.rs"]
mod host;
mod many; // beside many processes
mod memory; // with a wrong journal
mod paused; // held, and sent away
mod stuck; // with processes that can not end
mod unprivileged; // not root

use belay_proto::agent::v1::{Operation, OperationState};

/// The two ways to keep a tree together.
const MODES: [&str; 2] = ["auto", "off"];

const SLEEPER: &str = "command = \"/bin/sleep\"\nargs = [\"1000\"]";

/// A process that runs this shell script, which holds no double quotes.
fn script(script: &str) -> String {
    format!("command = \"/bin/sh\"\nargs = [\"-c\", \"{script}\"]\n")
}

/// The setting for one of [`MODES`].
fn tracked(mode: &str) -> String {
    format!("cgroup = \"{mode}\"\n")
}

#[track_caller]
fn check_done(operation: &Operation, changed: &[&str]) {
    assert_eq!(operation.state(), OperationState::Done, "{operation:#?}");
    assert_eq!(operation.changed, changed);
}
