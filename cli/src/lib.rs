//! The command line of Belay, and all of Belay in one process.
//!
//! `belay up` and `belay demo` run server, gateway and agent here; every other command is a client of the public gRPC
//! API. Invariant: this crate knows no other way to a host.

mod cli; // the grammar of the command line
mod commands; // what each command does: one file for each noun

mod client; // the way to the server: credentials, a trace and a deadline for every call
mod credentials; // as whom a call is made
mod follow; // following a task until it ended
mod names; // which host and which process is meant
mod profile; // named servers
mod target; // which server, and as whom

mod demo_agent; // the settings of an agent with demonstration workers
mod kernel; // what the kernel says about processes, for whoever does not want to believe Belay
mod rest; // one call of the REST API, as curl would make it
mod up; // server, gateway and agent in this process
mod up_file; // how other programs find them

mod failure; // why a command did not do what it was asked to
mod folders; // where things lie by default
mod logging; // what the parts say about themselves, on stderr
mod output; // what a command answers, on stdout
mod progress; // what a person sees while a command waits
mod signals; // Ctrl-C and SIGTERM
mod words; // how values of the wire read to a person

#[cfg(test)]
mod testing; // a server that answers what a test says

use std::process::ExitCode;

use belay_proto::Exit;
use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::{cli::Cli, failure::Failure};

/// The whole program: reads the command line, does what it says, and answers with the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.output;
    logging::start(&cli.command);
    let done = runtime(cli.command.is_service()).and_then(|runtime| {
        let done = runtime.block_on(commands::run(cli));
        // Whoever ends in a hurry does not wait for threads.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            failure.report(format);
            failure.exit.into()
        }
    }
}

/// A client does one thing at a time, and so does a demonstration worker, of which there are many.
fn runtime(service: bool) -> Result<Runtime, Failure> {
    let mut builder = if service { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.enable_all().build().map_err(|error| Failure::caused("cannot start the runtime", &error))
}
