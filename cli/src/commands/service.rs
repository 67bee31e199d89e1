//! `belay server`, `belay agent` and `belay gateway`: one part of Belay alone, as the program of that name.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use clap::Args as ClapArgs;

use super::Context;
use crate::failure::Failure;

/// With which settings.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The settings.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the server until SIGTERM or Ctrl-C.
pub(crate) async fn server(args: Args, context: &Context) -> Result<(), Failure> {
    context.connection.refuse("server", true)?;
    let ran = belay_server::start(&args.config).await;
    ran.map_err(|error| cannot("server", &args.config, &error))
}

/// Runs the agent of this host until SIGTERM or Ctrl-C, or only tells whether it would run.
pub(crate) async fn agent(config: PathBuf, would_run: bool, context: &Context) -> Result<(), Failure> {
    context.connection.refuse("agent --config", true)?;
    let ran = match would_run {
        true => belay_agent::would_run(&config),
        false => belay_agent::start(&config).await,
    };
    ran.map_err(|error| cannot("agent", &config, &error))
}

/// Runs the gateway until SIGTERM or Ctrl-C.
pub(crate) async fn gateway(args: Args, context: &Context) -> Result<(), Failure> {
    context.connection.refuse("gateway", true)?;
    let ran = belay_gateway::start(&args.config).await;
    ran.map_err(|error| cannot("gateway", &args.config, &error))
}

fn cannot(part: &str, config: &Path, error: &(dyn Error + 'static)) -> Failure {
    Failure::caused(format!("the {part} with `{}` ended", config.display()), error)
}
