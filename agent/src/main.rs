//! The agent as a program: arguments, logging, runtime, run.

mod prepare;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use belay_agent::Chain;
use clap::{Parser, Subcommand};
use tracing::error;
use tracing_subscriber::EnvFilter;

/// Starts, watches and stops the processes of one host.
#[derive(Debug, Parser)]
#[command(name = "belay-agent", version, after_help = EXAMPLES, subcommand_negates_reqs = true)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", env = "BELAY_AGENT_CONFIG", required = true)]
    config: Option<PathBuf>,
    /// Only checks the configuration, as `check` does.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks at a configuration and at this host: what would fail, and what to do. Starts nothing.
    Check {
        /// The configuration.
        file: PathBuf,
    },
    /// Turns files of supervisord and units of systemd into a configuration, which it prints.
    Import {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

const EXAMPLES: &str = "\
Examples:
  belay-agent --config /etc/belay/agent.toml
  belay-agent check /etc/belay/agent.toml
  belay-agent import /etc/supervisor/conf.d/*.conf >> /etc/belay/agent.toml

RUST_LOG sets what is logged, say `debug` or `belay_agent=debug`.";

fn main() -> ExitCode {
    let Arguments { config, check, command } = Arguments::parse();
    let config = config.unwrap_or_default();
    match command {
        Some(Command::Check { file }) => return prepare::check(&file),
        Some(Command::Import { files }) => return prepare::import(&files),
        None if check => return prepare::check(&config),
        None => {}
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    match run(&config) {
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
