//! The settings of an agent with demonstration workers, under aliases of the documents.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::failure::Failure;

/// The file, written where it is missing: whoever changed it keeps it.
pub(crate) fn ensure(data: &Path) -> Result<PathBuf, Failure> {
    let file = data.join("agent.toml");
    if file.exists() {
        return Ok(file);
    }
    let cannot = |what: &str, path: &Path, error: &(dyn std::error::Error + 'static)| {
        Failure::caused(format!("cannot {what} `{}`", path.display()), error)
    };
    // The workers run with another folder than this program.
    let data = data.canonicalize().map_err(|error| cannot("find", data, &error))?;
    let log = data.join("log");
    fs::create_dir_all(&log).map_err(|error| cannot("make", &log, &error))?;
    let program =
        std::env::current_exe().map_err(|error| Failure::caused("cannot find this program", &error))?;
    let text = text(&program, &log).map_err(|error| cannot("write", &file, &error))?;
    // The agent takes no settings that others could write.
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    let written = options.open(&file).and_then(|mut open| open.write_all(text.as_bytes()));
    written.map_err(|error| cannot("write", &file, &error))?;
    Ok(file)
}

/// Aliases of the documents. The last is a base process, which only the agent as a whole stops.
const WORKERS: [(&str, bool); 4] =
    [("obstat2", true), ("ob_logtailer", true), ("ob_cleaner", true), ("ocp_agentd", false)];

#[derive(Serialize)]
struct Settings<'a> {
    process: Vec<Process<'a>>,
}

#[derive(Serialize)]
struct Process<'a> {
    alias: &'a str,
    command: &'a Path,
    args: [String; 6],
    operable: bool,
    log_file_pattern: String,
}

fn text(program: &Path, log: &Path) -> Result<String, toml::ser::Error> {
    let process = WORKERS.map(|(alias, operable)| {
        let file = log.join(format!("{alias}.log")).display().to_string();
        Process {
            alias,
            command: program,
            args: ["demo-worker", "--port", "0", "--child", "--log", &file].map(str::to_owned),
            operable,
            log_file_pattern: format!("{file}*"),
        }
    });
    let settings = toml::to_string(&Settings { process: process.into() })?;
    Ok(format!(
        "# What the agent of `belay up` looks after: demonstration workers. Declare your own processes here.\n\n{settings}"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_agent_takes_these_settings() {
        let dir = tempfile::Builder::new().prefix("a \"quoted\" folder").tempdir().expect("a folder");
        let file = ensure(dir.path()).expect("written");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        let config = belay_agent::Config::load(&file).expect("acceptable");
        let told: Vec<_> =
            config.processes.iter().map(|process| (process.alias.to_string(), process.operable)).collect();
        assert_eq!(told, WORKERS.map(|(alias, operable)| (alias.to_owned(), operable)));
        let args = &config.processes[0].args;
        let log = dir.path().canonicalize().expect("there").join("log/obstat2.log");
        assert_eq!(args.last(), Some(&log.display().to_string()));
    }

    #[test]
    fn settings_that_are_there_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("agent.toml");
        fs::write(&file, "# mine\n").expect("written");
        ensure(dir.path()).expect("there");
        assert_eq!(fs::read_to_string(file).expect("read"), "# mine\n");
    }
}
