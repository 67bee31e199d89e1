//! The server program: arguments, logging, and the rest is the library's.

use std::{io::IsTerminal, path::PathBuf};

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Belay's central server.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The settings: a TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(belay_server::LOG_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(belay_server::start(&arguments.config).await?)
}
