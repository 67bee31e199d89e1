//! A host: the agent's program on a state folder of its own, and a server for it to report to.

pub(crate) mod calls;
mod server;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use belay_proto::agent::v1::{agent_service_client::AgentServiceClient, *};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

pub(crate) use self::server::Server;

/// How long anything may take that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often the agent reports.
const HEARTBEAT: Duration = Duration::from_millis(50);

const TOKEN: &str = "the-token-of-the-fleet";

/// A user with hardly any rights.
pub(crate) const NOBODY: u32 = 65534;

/// How an agent is run. Mostly as it is by default.
#[derive(Default)]
pub(crate) struct Way {
    /// More settings.
    pub settings: String,
    /// A command line that runs the program behind it.
    pub around: Vec<String>,
    /// Who runs it, in a folder of their own; by default whoever runs the test.
    pub user: Option<u32>,
    /// Whether it gets a copy of the program in its own folder, which another one may replace.
    pub own_program: bool,
    /// How often it reports; often by default.
    pub heartbeat: Option<Duration>,
    /// Whether it heeds [`Host::fail_at`].
    pub fails: bool,
}

/// A host. All that lives on it ends with it.
pub(crate) struct Host {
    dir: TempDir,
    way: Way,
    address: String,
    agent: Option<Child>,
    client: AgentServiceClient<Channel>,
    /// What it reports to.
    pub server: Server,
    aliases: Vec<String>,
}

impl Host {
    /// A host whose processes run.
    pub(crate) async fn start(processes: &[(&str, &str)]) -> Self {
        Self::start_with(processes, "").await
    }

    /// The same with more settings.
    pub(crate) async fn start_with(processes: &[(&str, &str)], settings: &str) -> Self {
        Self::start_so(processes, Way { settings: settings.to_owned(), ..Way::default() }).await
    }

    /// The same, run in this way.
    pub(crate) async fn start_so(processes: &[(&str, &str)], way: Way) -> Self {
        let mut host = Self::prepare(processes, way).await;
        host.begin().await;
        host
    }

    /// A host whose agent does not run yet.
    pub(crate) async fn prepare(processes: &[(&str, &str)], way: Way) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(TOKEN, way.heartbeat.unwrap_or(HEARTBEAT)).await;
        let address = free_address();
        let mut config = format!(
            "name = \"host-1\"\nlisten = \"{address}\"\nserver = \"{}\"\nstate = \"state\"\nfleet_token_file = \"token\"\n{}\n",
            server.url(),
            way.settings
        );
        for (alias, process) in processes {
            config += &format!("[[process]]\nalias = \"{alias}\"\n{process}\n");
        }
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        };
        write("agent.toml", &config);
        write("token", TOKEN);
        // Where the program was built, another user may not look.
        if way.own_program || way.user.is_some() {
            install(Path::new(env!("CARGO_BIN_EXE_belay-agent")), &dir.path().join("belay-agent"));
        }
        if let Some(user) = way.user {
            let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
            for path in entries.chain([dir.path().to_owned()]) {
                chown(path, Some(user), Some(user)).unwrap();
            }
        }
        let client = AgentServiceClient::new(endpoint(&address).connect_lazy());
        let aliases = processes.iter().map(|(alias, _)| (*alias).to_owned()).collect();
        Self { dir, way, address, agent: None, client, server, aliases }
    }

    /// Begins a life of the agent, and waits until every process that should run does.
    pub(crate) async fn begin(&mut self) {
        self.run();
        self.shows(|processes| {
            let settled = |p: &ObservedProcess| !p.desired_running || p.phase() == ProcessPhase::Running;
            !processes.is_empty() && processes.iter().all(settled)
        })
        .await;
    }

    /// Begins a life of the agent.
    pub(crate) fn run(&mut self) {
        self.agent = Some(self.program().spawn().unwrap());
        self.client = AgentServiceClient::new(endpoint(&self.address).connect_lazy());
    }

    /// Waits until the agent shows its processes so.
    pub(crate) async fn shows(&self, such: impl Fn(&[ObservedProcess]) -> bool) {
        let mut last = None;
        let shown = async {
            loop {
                let processes = self.try_inventory().await;
                if processes.as_ref().is_ok_and(|processes| such(processes)) {
                    return;
                }
                last = Some(processes);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(PATIENCE, shown).await.is_err() {
            panic!("the agent never showed that, but {last:#?}");
        }
    }

    /// Waits until the agent shows a process in this phase.
    pub(crate) async fn shows_phase(&self, alias: &str, phase: ProcessPhase) -> ObservedProcess {
        let is_so = |process: &&ObservedProcess| process.alias == alias && process.phase() == phase;
        self.shows(|processes| processes.iter().find(is_so).is_some()).await;
        self.process(alias).await
    }

    /// `kill -9` of the agent.
    pub(crate) async fn crash(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Sends a signal to the agent.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// From now on, it fails at this place: `NAME=kill`, say. Empty for none.
    pub(crate) fn fail_at(&self, place: &str) {
        fs::write(self.dir.path().join("fail"), place).unwrap();
    }

    /// Whether the agent has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.agent.as_mut().unwrap().try_wait(), Ok(None))
    }

    /// Whether the agent lives for this long.
    pub(crate) async fn stays(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while self.is_running() {
            if Instant::now() > end {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Waits until the agent has ended. `None` where somebody else was told how.
    pub(crate) async fn ended(&mut self) -> Option<ExitStatus> {
        let mut agent = self.agent.take().unwrap();
        let wait = tokio::task::spawn_blocking(move || agent.wait());
        timeout(PATIENCE, wait).await.expect("the agent does not end").unwrap().ok()
    }

    /// The pid of the agent, or of what was put around it.
    pub(crate) fn pid(&self) -> i32 {
        self.agent.as_ref().unwrap().id().try_into().unwrap()
    }

    /// Changes the text of the configuration.
    pub(crate) fn edit(&self, edit: impl Fn(&str) -> String) {
        let path = self.dir.path().join("agent.toml");
        let text = edit(&fs::read_to_string(&path).unwrap());
        fs::write(&path, text).unwrap();
    }

    /// Takes note of a process that is declared later, which ends with the host too.
    pub(crate) fn also_has(&mut self, alias: &str) {
        self.aliases.push(alias.to_owned());
    }

    /// Runs `belay-agent ctl` with these arguments.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> impl Future<Output = Ctl> + Send + 'static {
        let mut program = Command::new(env!("CARGO_BIN_EXE_belay-agent"));
        program.arg("ctl").arg("--state").arg(self.state()).args(arguments);
        Ctl::of(program)
    }

    /// The agent's state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where the agent listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a second agent on the same settings but another port, and gives back what it said at its end.
    pub(crate) async fn run_a_second(&self) -> String {
        let config = fs::read_to_string(self.dir.path().join("agent.toml")).unwrap();
        let path = self.dir.path().join("second.toml");
        fs::write(&path, config.replace(&self.address, "127.0.0.1:0")).unwrap();
        let mut second = Command::new(env!("CARGO_BIN_EXE_belay-agent"));
        second.arg("--config").arg(path).stderr(Stdio::piped());
        let output = tokio::task::spawn_blocking(move || second.output().unwrap());
        let output = timeout(PATIENCE, output).await.unwrap().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// The folder for the output of processes.
    pub(crate) fn log_folder(&self) -> PathBuf {
        self.dir.path().join("state/log")
    }

    /// SIGTERM to the agent; answers with how long its end took.
    pub(crate) async fn end(&mut self) -> Duration {
        let mut agent = self.agent.take().unwrap();
        let began = Instant::now();
        kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
        let ended = tokio::task::spawn_blocking(move || agent.wait().unwrap());
        assert!(timeout(PATIENCE, ended).await.unwrap().unwrap().success());
        began.elapsed()
    }

    /// Every living process that carries the mark of an instance of this process.
    pub(crate) fn members(&self, alias: &str) -> Vec<i32> {
        let identity = fs::read_to_string(self.dir.path().join("state/identity")).unwrap_or_default();
        let mark = format!("BELAY_INSTANCE={}/{alias}/", identity.trim());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(mark.as_bytes()))
        })
        .collect()
    }

    /// The memory of the agent, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let pid = self.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_ascii_whitespace().next().unwrap().parse().unwrap()
    }

    fn program(&self) -> Command {
        let log = fs::File::options().append(true).create(true).open(self.dir.path().join("agent.log"));
        let mut line = self.way.around.clone();
        if let Some(user) = self.way.user {
            line.extend(["setpriv".to_owned(), "--clear-groups".to_owned()]);
            line.extend([format!("--reuid={user}"), format!("--regid={user}")]);
        }
        let copy = self.dir.path().join("belay-agent");
        line.push(match self.way.own_program || self.way.user.is_some() {
            true => copy.display().to_string(),
            false => env!("CARGO_BIN_EXE_belay-agent").to_owned(),
        });
        let mut program = Command::new(&line[0]);
        program.args(&line[1..]).arg("--config").arg(self.dir.path().join("agent.toml"));
        program.stderr(log.unwrap());
        if self.way.fails {
            program.env("BELAY_FAIL", format!("@{}", self.dir.path().join("fail").display()));
        }
        program
    }

    /// What the agent has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Ctl {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ctl {
    /// Runs a command to its end.
    pub(crate) async fn of(mut program: Command) -> Self {
        let run = tokio::task::spawn_blocking(move || program.output().unwrap());
        let output = timeout(PATIENCE, run).await.expect("the command does not end").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Checks how it ended, and that it said this.
    #[track_caller]
    pub(crate) fn check(&self, code: i32, told: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        for text in told {
            assert!(self.stdout.contains(text) || self.stderr.contains(text), "no {text:?} in {self:#?}");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // First the agent, which would start again what ends.
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        for alias in self.aliases.clone() {
            for _ in 0..100 {
                let members = self.members(&alias);
                if members.is_empty() {
                    break;
                }
                for pid in members {
                    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
                }
            }
        }
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
        remove_cgroups(&self.dir.path().join("state/identity"));
    }
}

/// Installs a program as a package manager does: another file takes the name. Not by this process: what it forks meanwhile
/// would have the file open for writing, and nobody could run it.
pub(crate) fn install(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    let copied = Command::new("install").args(["-m", "755"]).args([from, &new]).status().unwrap();
    assert!(copied.success());
    fs::rename(new, to).unwrap();
}

/// Whether this process lives. A zombie does not: it waits for its parent, which is somebody else after a crash.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Waits for a condition.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("the condition never held");
}

/// A new id.
pub(crate) fn operation_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true)
}

/// An address that is free and stays so: the agent must find its port again after a crash, so that can not be 0, and
/// whoever connects to others meanwhile may get that port at the usual address of the loopback network.
fn free_address() -> String {
    static HOSTS: AtomicU32 = AtomicU32::new(0);
    let number = (std::process::id() << 8) + HOSTS.fetch_add(1, Ordering::Relaxed);
    let [_, b, c, d] = number.to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, b | 0x80, c, d), 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A killed agent leaves empty cgroups, which the next one would remove.
fn remove_cgroups(identity: &PathBuf) {
    let identity = fs::read_to_string(identity).unwrap_or_default();
    if let (Some(short), Some(own)) = (identity.get(..8), own_cgroup()) {
        remove_cgroup(&own.join(format!("belay-{short}")));
    }
}

/// The cgroup (version 2) of this program.
pub(crate) fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new(mount).join(own.trim_start_matches('/')))
}

/// Removes a cgroup and those below it.
pub(crate) fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
