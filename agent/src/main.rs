//! The agent as a program: arguments, logging, runtime, run.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use belay_agent::{Chain, Config};
use clap::Parser;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Starts, watches and stops the processes of one host.
#[derive(Debug, Parser)]
#[command(name = "belay-agent", version, after_help = EXAMPLES)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", env = "BELAY_AGENT_CONFIG")]
    config: PathBuf,
    /// Only checks the configuration.
    #[arg(long)]
    check: bool,
}

const EXAMPLES: &str = "\
Examples:
  belay-agent --config /etc/belay/agent.toml
  belay-agent --config /etc/belay/agent.toml --check

RUST_LOG sets what is logged, say `debug` or `belay_agent=debug`.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = %Chain(&*failure), "The agent can not run.");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
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
