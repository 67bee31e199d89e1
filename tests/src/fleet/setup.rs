//! What a host of a fleet runs, and the settings of its agent.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{GRACE, Ledger, Victim};

/// The grace of whoever is not hurried.
const LONG_GRACE: Duration = Duration::from_secs(10);

/// What a host of a fleet runs.
#[derive(Debug, Clone)]
pub struct HostSetup {
    processes: Vec<Declared>,
    cgroup: &'static str,
    pub(super) proxied: bool,
    pub(super) mistaken: bool,
    pub(super) copied: bool,
    pub(super) installed: Option<PathBuf>,
    unhurried: bool,
    labels: &'static str,
    settings: &'static str,
    protected: Vec<String>,
}

/// A process that is declared in the settings.
#[derive(Debug, Clone)]
struct Declared {
    alias: String,
    program: Program,
    operable: bool,
    grace: Duration,
    /// Whether it may be killed.
    kill: bool,
}

/// What a declared process is.
#[derive(Debug, Clone)]
enum Program {
    /// A victim of this shape.
    Victim(String),
    /// `sleep infinity`: the least that a process can be.
    Sleep,
    /// A shell that sleeps, with these arguments and this environment.
    Shell(Vec<String>, BTreeMap<String, String>),
}

impl Declared {
    /// The victim that it is, where it is one.
    fn victim(&self) -> Option<Victim> {
        match &self.program {
            Program::Victim(shape) => Some(Victim::of(shape)),
            Program::Sleep | Program::Shell(..) => None,
        }
    }

    /// Its section of the settings. A victim is this program, and writes this ledger.
    fn section(&self, victim: &Path, ledger: &Path) -> String {
        let Self { alias, program, operable, grace, kill } = self;
        let (command, args) = match program {
            Program::Victim(shape) => (victim, format!("[{ledger:?}, {shape:?}]")),
            Program::Sleep => (Path::new("/bin/sleep"), "[\"infinity\"]".to_owned()),
            Program::Shell(arguments, _) => {
                let script = "trap 'exit 0' TERM; sleep infinity & wait";
                let all = ["-c", script, "told"].map(str::to_owned).into_iter().chain(arguments.clone());
                (Path::new("/bin/sh"), format!("{:?}", all.collect::<Vec<_>>()))
            }
        };
        let mut section = format!(
            "\n[[process]]\nalias = {alias:?}\ncommand = {command:?}\nargs = {args}\n\
             operable = {operable}\nstop = {{ signal = \"SIGTERM\", grace = \"{}ms\"{} }}\n",
            grace.as_millis(),
            if *kill { "" } else { ", kill = \"never\"" },
        );
        if let Program::Shell(_, environment) = program {
            let pairs = environment.iter().map(|(name, value)| format!("{name} = {value:?}"));
            let pairs = pairs.collect::<Vec<_>>().join(", ");
            writeln!(section, "environment = {{ {pairs} }}").expect("written");
        }
        section
    }
}

impl HostSetup {
    /// A host that runs nothing yet.
    pub fn new() -> Self {
        Self {
            processes: Vec::new(),
            cgroup: "auto",
            proxied: false,
            mistaken: false,
            copied: false,
            installed: None,
            unhurried: false,
            labels: "",
            settings: "",
            protected: Vec::new(),
        }
    }

    /// A worker: a victim of this shape.
    #[must_use]
    pub fn worker(self, alias: &str, shape: &str) -> Self {
        self.declare(alias, Program::Victim(shape.into()), true, LONG_GRACE)
    }

    /// A worker that does nothing: `sleep infinity`.
    #[must_use]
    pub fn sleeper(self, alias: &str) -> Self {
        self.declare(alias, Program::Sleep, true, LONG_GRACE)
    }

    /// A worker that does nothing with these arguments and this environment.
    #[must_use]
    pub fn told(self, alias: &str, arguments: Vec<String>, environment: BTreeMap<String, String>) -> Self {
        self.declare(alias, Program::Shell(arguments, environment), true, LONG_GRACE)
    }

    /// A worker that is given little time to end by itself.
    #[must_use]
    pub fn hurried(self, alias: &str, shape: &str) -> Self {
        self.declare(alias, Program::Victim(shape.into()), true, GRACE)
    }

    /// A worker that is given little time to end by itself, and is never killed.
    #[must_use]
    pub fn spared(self, alias: &str, shape: &str) -> Self {
        let mut setup = self.hurried(alias, shape);
        setup
            .processes
            .iter_mut()
            .filter(|process| process.alias == alias)
            .for_each(|process| process.kill = false);
        setup
    }

    /// Each of these as a hurried worker, its shape as its alias.
    #[must_use]
    pub fn victims(self, victims: &[Victim]) -> Self {
        victims.iter().fold(self, |setup, victim| setup.hurried(victim.shape, victim.shape))
    }

    /// A base process: a plain victim.
    #[must_use]
    pub fn base(self, alias: &str) -> Self {
        self.declare(alias, Program::Victim("plain".into()), false, LONG_GRACE)
    }

    /// Its agent is as it is on a host: this program, the `belay-agent`, its own log level, and the heartbeat that a
    /// server asks for by default.
    #[must_use]
    pub fn as_installed(mut self, program: &Path) -> Self {
        self.installed = Some(program.to_owned());
        self
    }

    /// Its fleet reports less often, for tests that run beside others.
    #[must_use]
    pub fn unhurried(mut self) -> Self {
        self.unhurried = true;
        self
    }

    /// Does without cgroups.
    #[must_use]
    pub fn without_cgroup(mut self) -> Self {
        self.cgroup = "off";
        self
    }

    /// Its agent says these labels of it, as in `zone = "z1", role = "db"`.
    #[must_use]
    pub fn labels(mut self, labels: &'static str) -> Self {
        self.labels = labels;
        self
    }

    /// Its agent has these settings as well.
    #[must_use]
    pub fn settings(mut self, settings: &'static str) -> Self {
        self.settings = settings;
        self
    }

    /// Its agent protects this process from the server.
    #[must_use]
    pub fn protecting(mut self, alias: &str) -> Self {
        self.protected.push(alias.into());
        self
    }

    /// Puts a proxy between the server and the agent.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Its agent reports the address of the first host's agent as its own.
    #[must_use]
    pub fn mistaken_for_the_first(mut self) -> Self {
        self.mistaken = true;
        self
    }

    /// Its state folder has a copy of the identity of the first host's agent. Whether the server knows the host, and what
    /// it says of it, is for the test to see.
    #[must_use]
    pub fn copied_from_the_first(mut self) -> Self {
        self.copied = true;
        self
    }

    /// How often the hosts of a fleet report: three reports are missed soon where a large host and its tests share a small
    /// machine.
    pub(super) fn heartbeat(hosts: &[Self]) -> &'static str {
        if hosts.iter().any(|host| host.installed.is_some()) {
            "5s"
        } else if hosts.iter().any(|host| host.processes.len() > 5) {
            "2s"
        } else if hosts.iter().any(|host| host.unhurried) {
            "1s"
        } else {
            "200ms"
        }
    }

    /// The ledger of each process, in files that begin so.
    pub(super) fn ledgers(&self, at: impl Fn(&str) -> PathBuf) -> BTreeMap<String, Ledger> {
        let ledger = |alias: &String| Ledger::new(at(&format!("-{alias}.ledger")));
        self.processes.iter().map(|process| (process.alias.clone(), ledger(&process.alias))).collect()
    }

    /// The processes that are victims.
    pub(super) fn victims_declared(&self) -> impl Iterator<Item = (&str, Victim)> {
        self.processes.iter().filter_map(|process| Some((process.alias.as_str(), process.victim()?)))
    }

    /// The processes that run until they are stopped.
    pub(super) fn lasting(&self) -> impl Iterator<Item = &str> {
        let lasts = |process: &&Declared| process.victim().is_none_or(|victim| victim.lasts());
        self.processes.iter().filter(lasts).map(|process| process.alias.as_str())
    }

    /// The settings of its agent, but for `around`: its name, addresses and server. Victims are this program. Files begin so.
    pub(super) fn settings_file(&self, around: &str, victim: &Path, at: impl Fn(&str) -> PathBuf) -> String {
        let mut text = format!(
            "{around}\nstate = {:?}\ncgroup = {:?}\nlabels = {{ {} }}\n{}\n[policy]\nprotect = {:?}\n",
            at("-state"),
            self.cgroup,
            self.labels,
            self.settings,
            self.protected,
        );
        for process in &self.processes {
            text += &process.section(victim, &at(&format!("-{}.ledger", process.alias)));
        }
        text
    }

    fn declare(mut self, alias: &str, program: Program, operable: bool, grace: Duration) -> Self {
        self.processes.push(Declared { alias: alias.into(), program, operable, grace, kill: true });
        self
    }
}

impl Default for HostSetup {
    fn default() -> Self {
        Self::new()
    }
}
