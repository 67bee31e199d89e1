//! What the parts of Belay say about themselves: on stderr, as much as RUST_LOG asks for.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::cli::Command;

/// Begins to log. Where RUST_LOG says nothing, a service tells what it does and every other command is silent.
pub(crate) fn start(command: &Command) {
    let usual = match command {
        // That its agent leaves its server is a part of it.
        Command::Demo => "warn,belay_server::reports=error",
        command if command.is_service() => "info,sea_orm_migration=warn,sqlx=warn",
        _ => "off",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let colours = io::stderr().is_terminal();
    // Only a second call fails, and there is none.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(io::stderr)
        .try_init();
}
