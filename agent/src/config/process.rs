//! The settings of one declared process.

use std::{collections::BTreeMap, path::PathBuf};

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    backoff::backoff,
    limits::{CgroupLimits, Rlimit, RlimitName, Umask},
    probe::{LiveConfig, ReadyConfig},
    read::{absolute, account, exit_codes, list, memory, size, word, words},
    stop::StopConfig,
};
use crate::{
    life::{Backoff, Restart},
    process::Alias,
};

/// One declared process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessConfig {
    /// Its name, unique on the host.
    pub alias: Alias,
    /// The program, by its absolute path. Never a shell line.
    #[serde(deserialize_with = "absolute")]
    pub command: PathBuf,
    /// Its arguments.
    #[serde(default, deserialize_with = "words")]
    pub args: Vec<String>,
    /// Its working folder. Default: `/`.
    #[serde(default = "root", deserialize_with = "absolute")]
    pub cwd: PathBuf,
    /// The user to run as. Default: the agent's own. Only root can become another one.
    #[serde(default, deserialize_with = "account")]
    pub user: Option<String>,
    /// The group to run as. Default: the user's own. Only root can become another one.
    #[serde(default, deserialize_with = "account")]
    pub group: Option<String>,
    /// The rights that its new files do not get. Default: `"022"`.
    #[serde(default)]
    pub umask: Umask,
    /// How much it yields to others: -20 to 19. Default: 0. Less than the agent's own needs root.
    #[serde(default)]
    pub nice: Nice,
    /// How readily the kernel kills it for want of memory: -1000 to 1000. Default: 0. Less than the agent's own needs
    /// root.
    #[serde(default)]
    pub oom_score_adj: OomScore,
    /// Limits of the kernel on each of its processes. Default: the agent's own.
    #[serde(default)]
    pub rlimits: BTreeMap<RlimitName, Rlimit>,
    /// Limits of the kernel on all its processes together, where the controllers are there.
    #[serde(default)]
    pub cgroup: CgroupLimits,
    /// Its environment, beyond PATH, LANG, LC_ALL, TZ, HOME, USER, LOGNAME and SHELL.
    #[serde(default, deserialize_with = "environment")]
    pub environment: BTreeMap<String, String>,
    /// More variables that it gets as the agent has them.
    #[serde(default, deserialize_with = "inherit")]
    pub inherit: Vec<String>,
    /// Whether it may be ordered alone. Default: true.
    #[serde(default = "yes")]
    pub operable: bool,
    /// Processes that start before it, and stop after it.
    #[serde(default)]
    pub after: Vec<Alias>,
    /// Where it logs: a glob. Default: the file to which its output goes.
    pub log_file_pattern: Option<String>,
    /// How much of its output is kept.
    #[serde(default)]
    pub output: OutputConfig,
    /// How it is stopped.
    #[serde(default)]
    pub stop: StopConfig,
    /// Whether it is started again when it ends by itself. Default: `always`.
    #[serde(default)]
    pub restart: Restart,
    /// Exit codes that mean that all went well. Default: `[0]`.
    #[serde(default = "zero", deserialize_with = "exit_codes")]
    pub success_codes: Vec<i32>,
    /// Exit codes after which it is never started again.
    #[serde(default, deserialize_with = "exit_codes")]
    pub final_codes: Vec<i32>,
    /// The pauses between an end and the next start.
    #[serde(default, deserialize_with = "backoff")]
    pub backoff: Backoff,
    /// When it is ready. Default: when it has lived for 100 ms.
    pub ready: Option<ReadyConfig>,
    /// What shows that it works. It is restarted where it does not.
    pub live: Option<LiveConfig>,
    /// It is restarted where its processes have more memory than this together, say `"512MiB"`.
    #[serde(default, deserialize_with = "memory")]
    pub restart_above_memory: Option<ByteSize>,
}

/// How much of the output of a process is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputConfig {
    /// How large a file may become before the next is begun. Default: `"10MiB"`, at least `"64KiB"`.
    #[serde(deserialize_with = "output_size")]
    pub max_size: ByteSize,
    /// How many full files are kept besides the current one. Default: 4, at most 100.
    #[serde(deserialize_with = "output_files")]
    pub files: u32,
}

/// A nice value, in the kernel's range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i32")]
pub struct Nice(i32);

/// An OOM score adjustment, in the kernel's range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i32")]
pub struct OomScore(i32);

impl ProcessConfig {
    /// A process with this name and command line, all else as by default.
    pub fn new(alias: Alias, command: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self {
            alias,
            command: command.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            cwd: root(),
            user: None,
            group: None,
            umask: Umask::default(),
            nice: Nice::default(),
            oom_score_adj: OomScore::default(),
            rlimits: BTreeMap::new(),
            cgroup: CgroupLimits::default(),
            environment: BTreeMap::new(),
            inherit: Vec::new(),
            operable: true,
            after: Vec::new(),
            log_file_pattern: None,
            output: OutputConfig::default(),
            stop: StopConfig::default(),
            restart: Restart::default(),
            success_codes: zero(),
            final_codes: Vec::new(),
            backoff: Backoff::default(),
            ready: None,
            live: None,
            restart_above_memory: None,
        }
    }
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self { max_size: ByteSize::mib(10), files: 4 }
    }
}

impl Nice {
    /// The number.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for Nice {
    type Error = String;

    fn try_from(number: i32) -> Result<Self, String> {
        match (-20..=19).contains(&number) {
            true => Ok(Self(number)),
            false => Err(format!("{number} is not a nice value: use -20 to 19")),
        }
    }
}

impl OomScore {
    /// The number.
    pub fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for OomScore {
    type Error = String;

    fn try_from(number: i32) -> Result<Self, String> {
        match (-1000..=1000).contains(&number) {
            true => Ok(Self(number)),
            false => Err(format!("{number} is not an OOM score adjustment: use -1000 to 1000")),
        }
    }
}

fn environment<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
    struct Name(#[serde(deserialize_with = "variable")] String);
    #[derive(Deserialize)]
    struct Value(#[serde(deserialize_with = "word")] String);
    let environment = BTreeMap::<Name, Value>::deserialize(from)?;
    Ok(environment.into_iter().map(|(Name(name), Value(value))| (name, value)).collect())
}

fn inherit<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Name(#[serde(deserialize_with = "inherited")] String);
    list("a list of names, as in [\"HTTP_PROXY\"]", |Name(name)| name, from)
}

fn inherited<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = variable(from)?;
    match OWN.contains(&name.as_str()) {
        true => Err(D::Error::custom(format!("`{name}` is between the agent and systemd: remove it"))),
        false => Ok(name),
    }
}

fn variable<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = word(from)?;
    match name.is_empty() || name.contains('=') {
        true => Err(D::Error::custom(format!(
            "{name:?} can not be a variable: write a name that is not empty and holds no `=`"
        ))),
        false => Ok(name),
    }
}

/// Through these the agent speaks with systemd, and a process would speak in its name.
const OWN: &[&str] =
    &["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

fn output_size<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
    let size = size(from)?;
    if size >= ByteSize::kib(64) { Ok(size) } else { Err(D::Error::custom("at least `64KiB`")) }
}

fn output_files<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let files = u32::deserialize(from)?;
    if files <= 100 { Ok(files) } else { Err(D::Error::custom("at most 100")) }
}

fn root() -> PathBuf {
    PathBuf::from("/")
}

fn yes() -> bool {
    true
}

fn zero() -> Vec<i32> {
    vec![0]
}
