//! What is done before an agent runs: processes are imported, a configuration is checked.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use belay_agent::Chain;

use crate::command_line::Join;

/// Prints what would fail with a configuration on this host. Fails where anything would.
pub(crate) fn check(config: &Path) -> ExitCode {
    let findings = belay_agent::check(config);
    match writeln!(io::stdout(), "{findings}") {
        Ok(()) if findings.is_good() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Says whether an agent would run with a configuration, and why not.
pub(crate) fn would_run(config: &Path) -> ExitCode {
    match belay_agent::would_run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&Chain(&error).to_string()),
    }
}

/// Prints the processes of these files as an agent's configuration. Fails where that can not be used as it stands.
pub(crate) fn import(files: &[PathBuf]) -> ExitCode {
    let imported = match belay_agent::import(files) {
        Ok(imported) => imported,
        Err(error) => return fail(&Chain(&error).to_string()),
    };
    if let Err(error) = write!(io::stdout(), "{imported}") {
        return fail(&Chain(&error).to_string());
    }
    let (processes, notes) = (imported.processes(), imported.notes());
    let _ = writeln!(io::stderr(), "processes: {processes}, notes to read: {notes}");
    match imported.check() {
        Ok(()) => ExitCode::SUCCESS,
        Err(told) => fail(&format!("this is to be corrected before it can be used:\n{told}")),
    }
}

/// Joins the fleet of a server, and says as whom.
pub(crate) fn join(Join { config, token_file, server }: Join) -> ExitCode {
    let mut token = String::new();
    let read = match token_file.as_os_str() == "-" {
        true => io::stdin().read_to_string(&mut token).map(drop),
        false => fs::read_to_string(&token_file).map(|text| token = text),
    };
    if let Err(error) = read {
        return fail(&format!("cannot read the token in `{}`: {error}", token_file.display()));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot begin: {error}")),
    };
    match runtime.block_on(belay_agent::join(&config, server.as_deref(), &token)) {
        Ok(name) => {
            // It has joined, whether or not anybody reads it.
            let _ = writeln!(io::stdout(), "joined as {name}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&Chain(&error).to_string()),
    }
}

fn fail(told: &str) -> ExitCode {
    // Nobody can be told that nobody can be told.
    let _ = writeln!(io::stderr(), "error: {told}");
    ExitCode::FAILURE
}
