//! Looks at a configuration and at the host before anything is started: what would fail, and what to do about it.

mod access;

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::process::{Resource, geteuid, getrlimit};
use uuid::Uuid;

use self::access::Who;
use crate::{
    config::{
        CgroupUse, Config, LiveCheck, LiveConfig, ProcessConfig, ReadyConfig, ReadyWhen, Rlimit, RlimitName,
    },
    error::Chain,
    membership::Membership,
    os::{Os, Tracker, linux::Linux},
};

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    subjects: Vec<Subject>,
}

/// What is looked at, and what is wrong with it.
#[derive(Debug)]
struct Subject {
    name: String,
    about: String,
    findings: Vec<(Weight, String)>,
}

/// How much something matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// It works, but not as it is written, or maybe not.
    Warning,
    /// It can not work.
    Error,
}

/// Looks at a file and at this host. Starts nothing and changes nothing.
pub fn check(path: &Path) -> Findings {
    let mut agent = Subject::new("agent");
    let loaded = Config::load(path).and_then(|config| config.validate().map(|()| config));
    let config = match loaded {
        Ok(config) => config,
        Err(error) => {
            agent.error(Chain(&error).to_string());
            return Findings { subjects: vec![agent] };
        }
    };
    let tracker = tracker(config.cgroup);
    check_agent(&config, &tracker, &mut agent);
    let host = Host { controllers: controllers(&tracker), tracker };
    let processes = config.processes.iter().map(|process| {
        let mut subject = Subject::new(process.alias.as_str());
        check_process(process, &config, &host, &mut subject);
        subject
    });
    let subjects = std::iter::once(agent).chain(processes).collect();
    Findings { subjects }
}

impl Findings {
    /// Whether everything can work.
    pub fn is_good(&self) -> bool {
        self.count(Weight::Error) == 0
    }

    fn count(&self, weight: Weight) -> usize {
        let findings = self.subjects.iter().flat_map(|subject| &subject.findings);
        findings.filter(|(other, _)| *other == weight).count()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.subjects.iter().map(|subject| subject.name.len()).max().unwrap_or_default();
        for Subject { name, about, findings } in &self.subjects {
            if findings.is_empty() {
                writeln!(f, "{}", format!("{name:width$}  ok       {about}").trim_end())?;
            }
            for (index, (weight, what)) in findings.iter().enumerate() {
                let name = if index == 0 { name } else { "" };
                let weight = match weight {
                    Weight::Warning => "warning",
                    Weight::Error => "error",
                };
                writeln!(f, "{name:width$}  {weight:7}  {}", what.replace('\n', "\n    "))?;
            }
        }
        let (errors, warnings) = (self.count(Weight::Error), self.count(Weight::Warning));
        match (errors, warnings) {
            (0, 0) => write!(f, "everything is good"),
            (0, warnings) => write!(f, "it can run; warnings: {warnings}"),
            (errors, warnings) => {
                write!(f, "it can not run as it is; errors: {errors}, warnings: {warnings}")
            }
        }
    }
}

impl Subject {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), about: String::new(), findings: Vec::new() }
    }

    fn error(&mut self, what: impl Into<String>) {
        self.findings.push((Weight::Error, what.into()));
    }

    fn warn(&mut self, what: impl Into<String>) {
        self.findings.push((Weight::Warning, what.into()));
    }
}

/// What this host can do.
struct Host {
    tracker: Result<Tracker, String>,
    /// The cgroup controllers that can be used.
    controllers: Vec<String>,
}

fn check_agent(config: &Config, tracker: &Result<Tracker, String>, agent: &mut Subject) {
    if let Err(error) = Membership::open(config) {
        agent.error(Chain(&error).to_string());
    }
    match TcpListener::bind(config.listen) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => agent.warn(format!(
            "somebody listens on {} already; if that is not this agent, see who with `ss -ltnp`, or \
             choose another `listen`",
            config.listen
        )),
        Err(error) => {
            agent.error(format!("cannot listen on {}: {error}; choose another `listen`", config.listen))
        }
    }
    for (setting, folder) in [("state", config.state.clone()), ("log", config.log_folder())] {
        check_own_folder(setting, &folder, agent);
    }
    match tracker {
        Ok(Tracker::Cgroup) => agent.about.push_str("processes are tracked by cgroups, as started from here"),
        Ok(Tracker::Walk { .. }) if config.cgroup == CgroupUse::Off => {
            agent.about.push_str("processes are tracked without cgroups, as configured");
        }
        Ok(Tracker::Walk { why }) => agent.warn(format!(
            "processes are tracked without cgroups, as started from here: {why}; run it as root, or \
             under systemd with `Delegate=yes`"
        )),
        Err(why) => agent.error(format!("processes can not be watched: {why}")),
    }
}

/// The folder, or the first above it that is there, must be the agent's to write to.
fn check_own_folder(setting: &str, folder: &Path, agent: &mut Subject) {
    let shown = folder.display();
    match fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => {
            agent.error(format!("`{setting}`: `{shown}` is not a folder; choose another"))
        }
        Ok(meta) => {
            if !access::agent_may_write(folder) {
                agent.error(format!(
                    "`{setting}`: cannot write to `{shown}`; run `chown` to the agent's user"
                ));
            }
            if setting == "state" && meta.mode() & 0o022 != 0 {
                agent.error(format!("`{setting}`: others can write to `{shown}`; run `chmod go-w {shown}`"));
            }
        }
        Err(_) => {
            let there = folder.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/"));
            if !access::agent_may_write(there) {
                let there = there.display();
                agent.error(format!(
                    "`{setting}`: cannot make `{shown}` in `{there}`; make it as root, and give it \
                     to the agent's user"
                ));
            }
        }
    }
}

fn check_process(process: &ProcessConfig, config: &Config, host: &Host, subject: &mut Subject) {
    let who = Who::of(process).unwrap_or_else(|why| {
        subject.error(why);
        Who::agent()
    });
    let mut programs = vec![("command", &process.command)];
    programs.extend(process.stop.before.iter().map(|hook| ("stop.before", &hook.command)));
    if let Some(ReadyConfig { when: ReadyWhen::Exec(probe), .. }) = &process.ready {
        programs.push(("ready.exec", &probe.command));
    }
    if let Some(LiveConfig { check: LiveCheck::Exec(probe), .. }) = &process.live {
        programs.push(("live.exec", &probe.command));
    }
    for (setting, program) in programs {
        match who.can_run(program) {
            Ok(None) => {}
            Ok(Some(doubt)) => subject.warn(format!("`{setting}`: {doubt}")),
            Err(why) => subject.error(format!("`{setting}`: {why}")),
        }
    }
    if let Err(why) = who.can_enter(&process.cwd) {
        subject.error(format!("`cwd`: {why}"));
    }
    check_limits(process, host, subject);
    check_ports(process, config, &who, subject);
    for name in &process.inherit {
        if env::var_os(name).is_none() {
            subject.warn(format!(
                "`inherit`: `{name}` is not set here; where the agent has none, neither has it"
            ));
        }
    }
    let pattern = process.log_file_pattern.as_deref().map(Path::new);
    match pattern.and_then(Path::parent) {
        Some(folder) if !folder.to_string_lossy().contains(['*', '?', '[']) && !folder.is_dir() => subject
            .warn(format!("`log_file_pattern`: there is no folder `{}` yet; is it right?", folder.display())),
        _ => {}
    }
}

fn check_limits(process: &ProcessConfig, host: &Host, subject: &mut Subject) {
    let limits = &process.cgroup;
    let wanted = [
        ("cpus", "cpu", limits.cpus.is_some()),
        ("memory", "memory", limits.memory.is_some()),
        ("pids", "pids", limits.pids.is_some()),
    ];
    for (setting, controller, _) in wanted.into_iter().filter(|(_, _, wanted)| *wanted) {
        let why = match &host.tracker {
            Ok(Tracker::Cgroup) if host.controllers.iter().any(|known| known == controller) => continue,
            Ok(Tracker::Cgroup) => format!("the controller `{controller}` is not there"),
            _ => "there are no cgroups".to_owned(),
        };
        subject.warn(format!("`cgroup.{setting}` is not applied, as started from here: {why}"));
    }
    if let (Some(most), Some(restart_above)) = (limits.memory, process.restart_above_memory)
        && restart_above >= most
    {
        subject.warn(format!(
            "`restart_above_memory` ({restart_above}) is never reached: `cgroup.memory` is {most}"
        ));
    }
    if geteuid().is_root() {
        return;
    }
    for (name, limit) in &process.rlimits {
        let own = getrlimit(resource(*name)).maximum;
        let is_more = match (limit, own) {
            (_, None) => false,
            (Rlimit::Unlimited, Some(_)) => true,
            (Rlimit::At(limit), Some(own)) => *limit > own,
        };
        if is_more {
            let own = own.unwrap_or_default();
            subject.error(format!(
                "`rlimits`: only root gets more than the agent's own {name:?} of {own}; lower it"
            ));
        }
    }
    let own = |file: &str| fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if process.oom_score_adj.get() < own("/proc/self/oom_score_adj").unwrap_or_default() {
        subject.error("`oom_score_adj`: only root gets less than the agent's own; raise it");
    }
    let own = rustix::process::getpriority_process(None).unwrap_or_default();
    if process.nice.get() < own {
        subject.error(format!("`nice`: only root gets less than the agent's own {own}; raise it"));
    }
}

fn check_ports(process: &ProcessConfig, config: &Config, who: &Who, subject: &mut Subject) {
    let mut asked: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    if let Some(LiveConfig { check: LiveCheck::Tcp(address), .. }) = process.live {
        asked.insert(address, "live.tcp");
    }
    if let Some(address) = ready_address(process) {
        asked.insert(address, "ready.tcp");
    }
    for (address, setting) in asked {
        let port = address.port();
        if address.ip().is_unspecified() {
            subject.warn(format!("`{setting}`: {address} means this host; write `{port}`"));
        }
        if port == config.listen.port() && address.ip().is_loopback() {
            subject
                .error(format!("`{setting}`: port {port} is the agent's own; write the one of the process"));
        }
        if port < first_free_port() && !who.is_root() {
            subject.warn(format!(
                "`{setting}`: only root listens on port {port}; is it right, or has the program a \
                 right of its own?"
            ));
        }
        let others = config.processes.iter().filter(|other| other.alias != process.alias);
        if let Some(other) = others.into_iter().find(|other| ready_address(other) == Some(address)) {
            subject.warn(format!(
                "`{setting}`: `{}` is ready at {address} too; one of both is wrong",
                other.alias
            ));
        }
    }
}

fn ready_address(process: &ProcessConfig) -> Option<SocketAddr> {
    match process.ready {
        Some(ReadyConfig { when: ReadyWhen::Tcp(address), .. }) => Some(address),
        _ => None,
    }
}

/// The first port on which everybody may listen.
fn first_free_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

/// How processes would be kept track of, were the agent started from here.
fn tracker(cgroup: CgroupUse) -> Result<Tracker, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Chain(&error).to_string())?;
    let _entered = runtime.enter();
    let linux = Linux::new(Uuid::new_v4(), cgroup).map_err(|error| Chain(&error).to_string())?;
    Ok(linux.tracker())
}

/// The controllers that the cgroup of this program may hand on.
fn controllers(tracker: &Result<Tracker, String>) -> Vec<String> {
    if *tracker != Ok(Tracker::Cgroup) {
        return Vec::new();
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let files = mounts.map(|mount| Path::new(mount).join(own).join("cgroup.controllers"));
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn resource(name: RlimitName) -> Resource {
    match name {
        RlimitName::As => Resource::As,
        RlimitName::Core => Resource::Core,
        RlimitName::Cpu => Resource::Cpu,
        RlimitName::Data => Resource::Data,
        RlimitName::Fsize => Resource::Fsize,
        RlimitName::Memlock => Resource::Memlock,
        RlimitName::Nofile => Resource::Nofile,
        RlimitName::Nproc => Resource::Nproc,
        RlimitName::Stack => Resource::Stack,
    }
}

#[cfg(test)]
mod tests;
