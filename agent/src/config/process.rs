//! The settings of one declared process.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{life::Restart, process::Alias, signal::Signal};

/// The longest grace that a process may have.
const LONGEST_GRACE: Duration = Duration::from_secs(600);

/// One declared process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessConfig {
    /// Its name, unique on the host.
    pub alias: Alias,
    /// The program, by its absolute path. Never a shell line.
    #[serde(deserialize_with = "absolute")]
    pub command: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its working folder. Default: `/`.
    #[serde(default = "root", deserialize_with = "absolute")]
    pub cwd: PathBuf,
    /// The user to run as. Default: the agent's own. Only root can become another one.
    pub user: Option<String>,
    /// Its environment, beyond PATH, LANG, LC_ALL, TZ, HOME, USER, LOGNAME and SHELL.
    #[serde(default, deserialize_with = "environment")]
    pub environment: BTreeMap<String, String>,
    /// Whether it may be ordered alone. Default: true.
    #[serde(default = "yes")]
    pub operable: bool,
    /// Where it logs: a glob. Default: the file to which its output goes.
    pub log_file_pattern: Option<String>,
    /// How it is stopped.
    #[serde(default)]
    pub stop: StopConfig,
    /// Whether it is started again when it ends by itself. Default: `always`.
    #[serde(default)]
    pub restart: Restart,
}

/// How a process is stopped.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopConfig {
    /// What asks it to end. Default: SIGTERM.
    #[serde(deserialize_with = "stop_signal")]
    pub signal: Signal,
    /// From the stop signal to SIGKILL. Default: 10s, at most 600s.
    #[serde(deserialize_with = "grace")]
    pub grace: Duration,
}

impl ProcessConfig {
    /// A process with this name and command line, all else as by default.
    pub fn new(alias: Alias, command: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self {
            alias,
            command: command.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            cwd: root(),
            user: None,
            environment: BTreeMap::new(),
            operable: true,
            log_file_pattern: None,
            stop: StopConfig::default(),
            restart: Restart::default(),
        }
    }
}

impl Default for StopConfig {
    fn default() -> Self {
        Self { signal: Signal::TERM, grace: Duration::from_secs(10) }
    }
}

fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        let path = path.display();
        Err(D::Error::custom(format!(
            "`{path}` is not an absolute path; no shell and no PATH is searched for it"
        )))
    }
}

fn environment<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let environment = BTreeMap::<String, String>::deserialize(from)?;
    let bad = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match environment.iter().find(bad) {
        None => Ok(environment),
        Some((name, _)) => Err(D::Error::custom(format!(
            "{name:?} can not be a variable: a name is not empty and holds no `=`, and nothing holds a zero byte"
        ))),
    }
}

fn stop_signal<'de, D: Deserializer<'de>>(from: D) -> Result<Signal, D::Error> {
    let signal = Signal::deserialize(from)?;
    if Signal::STOPPING.contains(&signal) {
        Ok(signal)
    } else {
        let known: Vec<_> = Signal::STOPPING.iter().map(Signal::to_string).collect();
        Err(D::Error::custom(format!("`{signal}` does not stop a process; use one of {}", known.join(", "))))
    }
}

fn grace<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let grace: Duration = humantime_serde::deserialize(from)?;
    if grace <= LONGEST_GRACE { Ok(grace) } else { Err(D::Error::custom("a grace is at most 600s")) }
}

fn root() -> PathBuf {
    PathBuf::from("/")
}

fn yes() -> bool {
    true
}
