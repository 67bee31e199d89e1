//! The agent as a program: the command line, logging, runtime, run.

mod command_line;
mod ctl;
mod prepare;

use std::{io::IsTerminal, path::Path, process::ExitCode};

use belay_agent::Chain;
use clap::{CommandFactory, Parser};
use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::command_line::{Command, CommandLine, Run};

fn main() -> ExitCode {
    match CommandLine::parse().into_command() {
        Some(Command::Run(Run { config, check: true, .. })) => prepare::check(&config),
        Some(Command::Run(Run { config, would_run: true, .. })) => prepare::would_run(&config),
        Some(Command::Run(Run { config, .. })) => run_logged(&config),
        Some(Command::Ctl(ctl)) => ctl::run(ctl).into(),
        Some(Command::Check { file }) => prepare::check(&file),
        Some(Command::Join(join)) => prepare::join(join),
        Some(Command::Import { files }) => prepare::import(&files),
        None => {
            let told = CommandLine::command().print_help();
            told.map_or(ExitCode::FAILURE, |()| ExitCode::from(2))
        }
    }
}

fn run_logged(config: &Path) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = %Chain(&*failure), "The agent can not run.");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Path) -> Result<(), Box<dyn std::error::Error>> {
    // One thread: the work is waiting, what may block has threads of its own, and each thread costs memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(belay_agent::start(config));
    // Whatever still blocks may hang for ever: it does not keep the agent.
    runtime.shutdown_background();
    Ok(ended?)
}
