//! `belay-gateway`: the REST gateway as a program of its own.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Serves the documented REST API of a Belay server.
///
/// It keeps no state, and no secret but the key of its own certificate: run as many as you like. Logs go to standard error; RUST_LOG filters them.
#[derive(Parser)]
#[command(
    name = "belay-gateway",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
struct Arguments {
    /// The TOML file with the settings. Every setting has a default: an empty file will do.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Joins the fleet of a server, once: gets a certificate for a token that `belay host token create --gateway NAME` printed.
    Join {
        /// The TOML file with the settings.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The file with the token; `-` for the standard input.
        #[arg(long, value_name = "FILE|-")]
        token_file: PathBuf,
        /// The server, as in `https://belay.example:9440`. Default: the one of the settings.
        #[arg(long, value_name = "URL")]
        server: Option<String>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env()?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match (arguments.command, arguments.config) {
        (Some(Command::Join { config, token_file, server }), _) => {
            let token = read_token(&token_file)
                .with_context(|| format!("cannot read the token in `{}`", token_file.display()))?;
            let name = belay_gateway::join(&config, server.as_deref(), &token).await?;
            // It has joined, whether or not anybody reads it.
            let _ = writeln!(io::stdout(), "joined as {name}");
        }
        (None, Some(config)) => belay_gateway::start(&config).await?,
        (None, None) => {}
    }
    Ok(())
}

fn read_token(file: &Path) -> io::Result<String> {
    match file.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    }
}
