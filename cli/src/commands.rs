//! What each command does: one file for each noun.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::{
    cli::{Cli, Command},
    client::Client,
    failure::Failure,
    folders,
    output::{self, Format},
    target::{Connection, Target},
};

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod ca;
pub(crate) mod demo;
pub(crate) mod demo_worker;
pub(crate) mod doctor;
pub(crate) mod host;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod openapi;
pub(crate) mod process;
pub(crate) mod reference;
pub(crate) mod service;
pub(crate) mod task;
pub(crate) mod task_log;
mod terms;
pub(crate) mod up;
pub(crate) mod user;

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { connection, output: format, timeout, command } = cli;
    let context = Context { connection, format, timeout };
    match command {
        Command::Up(args) => up::run(args, &context).await,
        Command::Demo => demo::run(&context).await,
        Command::Server(args) => service::server(args, &context).await,
        Command::Agent(args) => agent::run(args, &context).await,
        Command::Gateway(args) => service::gateway(args, &context).await,
        Command::Host(command) => host::run(command, &context).await,
        Command::Region(command) => reference::region(command, &context).await,
        Command::Idc(command) => reference::idc(command, &context).await,
        Command::HostType(command) => reference::host_type(command, &context).await,
        Command::Process(command) => process::run(command, &context).await,
        Command::Log(args) => log::run(args, &context).await,
        Command::Batch(command) => batch::run(*command, &context).await,
        Command::Task(command) => task::run(command, &context).await,
        Command::User(command) => user::run(command, &context).await,
        Command::Key(command) => key::run(command, &context).await,
        Command::Ca(command) => ca::run(command, &context).await,
        Command::Audit(command) => audit::run(command, &context).await,
        Command::Doctor(args) => doctor::run(args, &context).await,
        Command::Openapi => openapi::run(),
        Command::DemoWorker(args) => demo_worker::run(args).await,
    }
}

/// What every command is told beside its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    /// Which server, and as whom.
    pub(crate) connection: Connection,
    /// In which form to answer.
    pub(crate) format: Format,
    timeout: Option<Duration>,
}

impl Context {
    /// The server that the command talks to.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        Target::choose(&self.connection, &folders::environment)
    }

    /// A connection to that server.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Client::connect(&self.target()?, self.timeout).await
    }

    /// Answers with JSON for a program, or with text for a person.
    pub(crate) fn answer<T: Serialize>(
        &self,
        json: impl FnOnce(&TimeZone) -> T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => output::json(&json(&TimeZone::system())),
            Format::Table => output::write(&text()),
        }
    }
}
