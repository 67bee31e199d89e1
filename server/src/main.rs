//! The server program: arguments, logging, and the rest is the library's.

use std::{
    io::{IsTerminal, Write, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Belay's central server.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// The settings: a TOML file.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What else to do than to serve.
#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the audit trail of a server that does not run.
    #[command(subcommand)]
    Audit(Audit),
}

/// What to do with the audit trail.
#[derive(Debug, Subcommand)]
enum Audit {
    /// Say whether the trail is as it was written, and end with 1 where it is not. A server that runs is asked with
    /// `belay audit verify`.
    Verify {
        /// The settings of the server: a TOML file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(belay_server::LOG_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match (arguments.command, arguments.config) {
        (Some(Command::Audit(Audit::Verify { config })), _) => verify_audit(&config).await,
        (None, config) => {
            belay_server::start(&config.unwrap_or_default()).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn verify_audit(config: &Path) -> anyhow::Result<ExitCode> {
    let report = belay_server::verify_audit(config).await?;
    write!(stdout(), "{report}")?;
    Ok(if report.fault.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
