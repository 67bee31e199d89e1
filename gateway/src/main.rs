//! `belay-gateway`: the REST gateway as a program of its own.

use std::path::PathBuf;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Serves the documented REST API of a Belay server.
///
/// It keeps no state and no secrets: run as many as you like. Logs go to standard error; RUST_LOG filters them.
#[derive(Parser)]
#[command(name = "belay-gateway", version)]
struct Arguments {
    /// The TOML file with the settings. Every setting has a default: an empty file will do.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env()?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    belay_gateway::start(&arguments.config).await?;
    Ok(())
}
