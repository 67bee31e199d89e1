//! The agent as a program: the command line, logging, runtime, run.

mod command_line;
mod ctl;

use std::{
    io::IsTerminal,
    process::{ExitCode, Termination},
};

use belay_agent::{Chain, Config};
use clap::{CommandFactory, Parser};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::command_line::{Command, CommandLine, Run};

fn main() -> ExitCode {
    match CommandLine::parse().into_command() {
        Some(Command::Run(arguments)) => run_logged(&arguments),
        Some(Command::Ctl(ctl)) => ctl::run(ctl).report(),
        None => {
            let told = CommandLine::command().print_help();
            told.map_or(ExitCode::FAILURE, |()| ExitCode::from(2))
        }
    }
}

fn run_logged(arguments: &Run) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = %Chain(&*failure), "The agent can not run.");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Run) -> Result<(), Box<dyn std::error::Error>> {
    if arguments.check {
        let config = Config::load(&arguments.config)?;
        config.validate()?;
        config.token()?;
        info!(processes = config.processes.len(), "The configuration is good.");
        return Ok(());
    }
    // One thread: the work is waiting, what may block has threads of its own, and each thread costs memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(belay_agent::start(&arguments.config));
    // Whatever still blocks may hang for ever: it does not keep the agent.
    runtime.shutdown_background();
    Ok(ended?)
}
