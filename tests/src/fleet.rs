//! A server, a gateway and hosts.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs::{self, OpenOptions},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use belay_proto::v1::CreateJoinTokenRequest;
use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Caller, Client, GRACE, Ledger, Part, Proxy, SimulatedFleet, Simulation, Victim, Wire,
    cgroup::remove_cgroups, marked::end_marked, wait_for,
};

/// What a host of a fleet runs.
#[derive(Debug, Clone)]
pub struct HostSetup {
    processes: Vec<Declared>,
    cgroup: &'static str,
    proxied: bool,
    mistaken: bool,
    copied: bool,
    installed: Option<PathBuf>,
    labels: &'static str,
    settings: &'static str,
    protected: Vec<String>,
}

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
    /// Whether it runs until it is stopped.
    fn lasts(&self) -> bool {
        match &self.program {
            Program::Victim(shape) => Victim::of(shape).lasts(),
            Program::Sleep | Program::Shell(..) => true,
        }
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

/// One host of a fleet.
#[derive(Debug)]
struct Host {
    agent: Part,
    proxy: Option<Proxy>,
    ledgers: BTreeMap<String, Ledger>,
    name: String,
}

/// A running fleet. Everything of it ends when it is dropped, processes of agents included.
#[derive(Debug)]
pub struct Fleet {
    /// The server.
    pub server: Part,
    /// The gateway.
    pub gateway: Part,
    hosts: Vec<Host>,
    address: Ipv4Addr,
    password: String,
    program: PathBuf,
    victim: PathBuf,
    /// The server's data.
    data: PathBuf,
    folder: TempDir,
    /// Whether all parts speak TLS with each other.
    tls: bool,
}

/// The grace of whoever is not hurried.
const LONG_GRACE: Duration = Duration::from_secs(10);

const SERVER_PORT: u16 = 9440;
const GATEWAY_PORT: u16 = 8080;
const FIRST_AGENT_PORT: u16 = 9441;

impl Fleet {
    /// Starts a fleet of these hosts, and waits until all of it works. The programs are those of this package:
    /// `env!("CARGO_BIN_EXE_belay-under-test")` and `env!("CARGO_BIN_EXE_victim")`.
    pub async fn start(program: &str, victim: &str, hosts: Vec<HostSetup>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("server");
        Self::start_in(folder, data, program, victim, hosts).await
    }

    /// The same, with the server's data in this folder.
    pub async fn start_on(data: &Path, program: &str, victim: &str, hosts: Vec<HostSetup>) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), data.to_owned(), program, victim, hosts).await
    }

    async fn start_in(
        folder: TempDir,
        data: PathBuf,
        program: &str,
        victim: &str,
        hosts: Vec<HostSetup>,
    ) -> Self {
        // Three of them are missed soon where a large host and its tests share a small machine.
        let heartbeat = if hosts.iter().any(|host| host.installed.is_some()) {
            "5s"
        } else if hosts.iter().any(|host| host.processes.len() > 5) {
            "2s"
        } else {
            "200ms"
        };
        let mut fleet = Self::without_hosts_in(folder, data, program, victim, heartbeat).await;
        for setup in hosts {
            fleet.add_host(setup).await;
        }
        fleet
    }

    /// The same in TLS: agents and the gateway join with tokens. `settings`: more lines for the server.
    pub async fn start_secure(program: &str, victim: &str, settings: &str, hosts: Vec<HostSetup>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("server");
        let mut fleet = Self::made(folder, data, program, victim, "200ms", Some(settings)).await;
        for setup in hosts {
            fleet.add_host(setup).await;
        }
        fleet
    }

    /// Starts a server and a gateway whose hosts are added later, real or simulated ones, and report so often.
    pub async fn without_hosts(program: &str, victim: &str, heartbeat: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("server");
        let mut fleet = Self::without_hosts_in(folder, data, program, victim, heartbeat).await;
        // Thousands of simulated agents are one peer.
        fleet.set_server("connections.most_of_local_peer = 16000").await;
        fleet
    }

    async fn without_hosts_in(
        folder: TempDir,
        data: PathBuf,
        program: &str,
        victim: &str,
        heartbeat: &str,
    ) -> Self {
        Self::made(folder, data, program, victim, heartbeat, None).await
    }

    /// `secure`: that TLS is spoken, with more settings for the server.
    async fn made(
        folder: TempDir,
        data: PathBuf,
        program: &str,
        victim: &str,
        heartbeat: &str,
        secure: Option<&str>,
    ) -> Self {
        let tls = secure.is_some();
        let (mode, scheme) = if tls { ("on", "https") } else { ("off", "http") };
        let settings = secure.unwrap_or_default();
        let address = own_address();
        let program = PathBuf::from(program);
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(
            at("server.toml"),
            format!(
                "listen = \"{address}:{SERVER_PORT}\"\ndata = {data:?}\nheartbeat = \"{heartbeat}\"\n\
                 clone_silence = \"1s\"\ndrain = \"3s\"\nreflection = true\ntls.mode = \"{mode}\"\n{settings}\n"
            ),
        )
        .expect("written");
        fs::write(
            at("gateway.toml"),
            format!(
                "listen = \"{address}:{GATEWAY_PORT}\"\nserver = \"{scheme}://{address}:{SERVER_PORT}\"\n\
                 state = {:?}\ntimezone = \"Asia/Shanghai\"\ndrain = \"3s\"\n",
                at("gateway-state"),
            ),
        )
        .expect("written");
        let part = |verb: &str| {
            let config = at(&format!("{verb}.toml"));
            Part::new(&program, &[verb, "--config", &config], at(&format!("{verb}.log")).into())
        };
        let (mut server, mut gateway) = (part("server"), part("gateway"));
        server.start();
        if !tls {
            gateway.start();
        }
        let password = wait_for("the first password is made", async || {
            let text = fs::read_to_string(data.join("admin.password"));
            // The file is made before it is filled.
            text.map_err(|error| error.to_string()).and_then(|text| {
                if text.ends_with('\n') { Ok(text.trim().to_owned()) } else { Err("not whole yet".into()) }
            })
        })
        .await;

        let victim = PathBuf::from(victim);
        let mut fleet = Self {
            server,
            gateway,
            hosts: Vec::new(),
            address,
            password,
            program,
            victim,
            data,
            folder,
            tls,
        };
        if tls {
            let server = fleet.server_address();
            wait_for("the server listens", async || tokio::net::TcpStream::connect(&server).await).await;
            let token = fleet.join_token(0, "edge-1").await;
            let config = fleet.folder.path().join("gateway.toml");
            belay_gateway::join(&config, None, &token).await.expect("the gateway joins");
            fleet.gateway.start();
        }
        fleet.wait_until_ready().await;
        fleet
    }

    /// Starts the server again, with more settings.
    pub async fn set_server(&mut self, settings: &str) {
        let file = OpenOptions::new().append(true).open(self.folder().join("server.toml"));
        writeln!(file.expect("the settings"), "{settings}").expect("written");
        self.server.end();
        self.server.start();
        self.wait_until_ready().await;
    }

    /// Starts the gateway again, with more settings.
    pub async fn set_gateway(&mut self, settings: &str) {
        let file = OpenOptions::new().append(true).open(self.folder().join("gateway.toml"));
        writeln!(file.expect("the settings"), "{settings}").expect("written");
        self.gateway.end();
        self.gateway.start();
        self.wait_until_ready().await;
    }

    /// Adds a host, and waits until all its processes run.
    pub async fn add_host(&mut self, setup: HostSetup) {
        let number = self.hosts.len();
        let name = format!("host-{}", number + 1);
        let port = FIRST_AGENT_PORT + u16::try_from(number).expect("few hosts");
        let listen = SocketAddr::from((self.address, port));
        let proxy = if setup.proxied { Some(Proxy::start(listen).await) } else { None };
        let advertise = match &proxy {
            Some(proxy) => proxy.address(),
            None if setup.mistaken => SocketAddr::from((self.address, FIRST_AGENT_PORT)),
            None => listen,
        };
        let at = |suffix: &str| self.folder.path().join(format!("{name}{suffix}"));
        let server = match self.tls {
            true => format!("server = \"https://{}:{SERVER_PORT}\"", self.address),
            false => format!(
                "server = \"http://{}:{SERVER_PORT}\"\nfleet_token_file = {:?}",
                self.address,
                self.data.join("fleet.token")
            ),
        };

        let mut config = format!(
            "name = {name:?}\nlisten = \"{listen}\"\nadvertise = \"{advertise}\"\n\
             {server}\nstate = {:?}\ncgroup = {:?}\nlabels = {{ {} }}\n{}\n[policy]\nprotect = {:?}\n",
            at("-state"),
            setup.cgroup,
            setup.labels,
            setup.settings,
            setup.protected,
        );
        let mut ledgers = BTreeMap::new();
        for Declared { alias, program, operable, grace, kill } in &setup.processes {
            let ledger = at(&format!("-{alias}.ledger"));
            let (command, args) = match program {
                Program::Victim(shape) => (self.victim.as_path(), format!("[{ledger:?}, {shape:?}]")),
                Program::Sleep => (Path::new("/bin/sleep"), "[\"infinity\"]".to_owned()),
                Program::Shell(arguments, _) => {
                    let script = "trap 'exit 0' TERM; sleep infinity & wait";
                    let all = ["-c", script, "told"].map(str::to_owned).into_iter().chain(arguments.clone());
                    (Path::new("/bin/sh"), format!("{:?}", all.collect::<Vec<_>>()))
                }
            };
            write!(
                config,
                "\n[[process]]\nalias = {alias:?}\ncommand = {command:?}\nargs = {args}\n\
                 operable = {operable}\nstop = {{ signal = \"SIGTERM\", grace = \"{}ms\"{} }}\n",
                grace.as_millis(),
                if *kill { "" } else { ", kill = \"never\"" },
            )
            .expect("written");
            if let Program::Shell(_, environment) = program {
                let pairs = environment.iter().map(|(name, value)| format!("{name} = {value:?}"));
                writeln!(config, "environment = {{ {} }}", pairs.collect::<Vec<_>>().join(", "))
                    .expect("written");
            }
            ledgers.insert(alias.clone(), Ledger::new(ledger));
        }
        let path = at(".toml");
        fs::write(&path, config).expect("written");
        if setup.copied {
            fs::create_dir(at("-state")).expect("a folder");
            let original = self.folder.path().join(format!("{}-state/identity", self.hosts[0].name));
            fs::copy(original, at("-state/identity")).expect("copied");
            if self.tls {
                let original = self.folder.path().join(format!("{}-state/tls.pem", self.hosts[0].name));
                fs::copy(original, at("-state/tls.pem")).expect("copied");
            }
        } else if self.tls {
            let token = self.join_token(0, "").await;
            belay_agent::join(&path, None, &token).await.expect("the agent joins");
        }
        let path = path.display().to_string();
        let mut agent = match &setup.installed {
            Some(program) => Part::new(program, &["--config", &path], at(".log")).logging("info"),
            None => Part::new(&self.program, &["agent", "--config", &path], at(".log")),
        };
        agent.start();
        self.hosts.push(Host { agent, proxy, ledgers, name });

        if !setup.copied {
            self.wait_for_processes(number, &setup).await;
        }
        for Declared { alias, program, .. } in &setup.processes {
            if let Program::Victim(shape) = program {
                self.ledger(number, alias).wait_for_begun(Victim::of(shape).family).await;
            }
        }
    }

    /// Waits until the server knows that all processes of a host run.
    async fn wait_for_processes(&self, number: usize, setup: &HostSetup) {
        let path = format!("/api/v2/compute/hosts/{}/agent", self.host_id(number).await);
        let client = self.admin();
        wait_for("the host's processes run", async || {
            let agent = client.get(&path).await;
            let processes = agent.data()["processes"].as_array().cloned().unwrap_or_default();
            let runs = |declared: &Declared| {
                let mut all = processes.iter().filter(|process| process["alias"] == *declared.alias);
                all.any(|process| process["status"] == "STARTED") || !declared.lasts()
            };
            if setup.processes.iter().all(runs) { Ok(()) } else { Err(agent.json) }
        })
        .await;
    }

    /// A REST caller without credentials.
    pub fn anyone(&self) -> Client {
        Client::new(&self.rest())
    }

    /// The beginning of every URL of the REST API.
    pub fn rest(&self) -> String {
        format!("http://{}:{GATEWAY_PORT}", self.address)
    }

    /// A REST caller who may do everything.
    pub fn admin(&self) -> Client {
        self.anyone().user("admin", &self.password)
    }

    /// A gRPC caller who may do everything.
    pub fn wire(&self) -> Wire {
        match self.tls {
            true => {
                let authorization = crate::basic("admin", &self.password);
                Wire::secure(&self.server_address(), &authorization, &self.ca_file())
            }
            false => Wire::user(&self.server_address(), "admin", &self.password),
        }
    }

    /// The authorities that users of the server believe.
    pub fn ca_file(&self) -> PathBuf {
        self.data.join("pki/ca.pem")
    }

    /// The server's data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A token to join with: as the host of this id, where it is above 0, or as this gateway.
    pub async fn join_token(&self, host_id: i64, gateway: &str) -> String {
        let request = CreateJoinTokenRequest { host_id, gateway: gateway.to_owned(), ..Default::default() };
        let made = self.wire().trust().create_join_token(request).await.expect("a token");
        made.into_inner().token
    }

    /// The settings of the agent of a host.
    pub fn agent_config(&self, host: usize) -> PathBuf {
        self.folder.path().join(format!("{}.toml", self.hosts[host].name))
    }

    /// A gRPC caller who orders the agent of a host, as the server does.
    pub fn agent_wire(&self, host: usize) -> Wire {
        let port = FIRST_AGENT_PORT + u16::try_from(host).expect("few hosts");
        Wire::new(&format!("{}:{port}", self.address), &format!("Bearer {}", self.token()))
    }

    /// The address of the agent of a host.
    pub fn agent_address(&self, host: usize) -> SocketAddr {
        let port = FIRST_AGENT_PORT + u16::try_from(host).expect("few hosts");
        SocketAddr::from((self.address, port))
    }

    /// The secret that agents and the server show each other.
    pub fn token(&self) -> String {
        let token = fs::read_to_string(self.data.join("fleet.token")).expect("the token");
        token.trim().to_owned()
    }

    /// Lets simulated agents report to the server.
    pub async fn simulate(&self, simulation: Simulation) -> SimulatedFleet {
        SimulatedFleet::start(&self.server_address(), &self.token(), simulation).await
    }

    /// `HOST:PORT` of the server.
    pub fn server_address(&self) -> String {
        format!("{}:{SERVER_PORT}", self.address)
    }

    /// The address that every part listens on.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The password of `admin`.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The folder of everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The agent of a host.
    pub fn agent(&mut self, host: usize) -> &mut Part {
        &mut self.hosts[host].agent
    }

    /// The proxy before the agent of a host.
    pub fn proxy(&self, host: usize) -> &Proxy {
        self.hosts[host].proxy.as_ref().expect("a proxied host")
    }

    /// The ledger of a process of a host.
    pub fn ledger(&self, host: usize, alias: &str) -> Ledger {
        self.hosts[host].ledgers[alias].clone()
    }

    /// The id of a host, once the server knows it.
    pub async fn host_id(&self, host: usize) -> i64 {
        let name = &self.hosts[host].name;
        let client = self.admin();
        wait_for("the server knows the host", async || {
            let hosts = client.get("/api/v2/compute/hosts").await;
            let all = hosts.data()["contents"].as_array().cloned().unwrap_or_default();
            let known = all.iter().find(|known| known["name"] == **name && known["status"] == "AVAILABLE");
            known.and_then(|known| known["id"].as_i64()).ok_or(hosts.json)
        })
        .await
    }

    /// The REST path of the agent of a host.
    pub async fn agent_path(&self, host: usize) -> String {
        format!("/api/v2/compute/hosts/{}/agent", self.host_id(host).await)
    }

    /// Waits until the host with this id is shown with this `status`.
    pub async fn wait_for_status(&self, host_id: i64, status: &str) {
        let path = format!("/api/v2/compute/hosts/{host_id}");
        let client = self.admin();
        wait_for("the host's status", async || {
            let shown = client.get(&path).await;
            if shown.data()["status"] == status { Ok(()) } else { Err(shown.json) }
        })
        .await;
    }

    /// The REST path of a process.
    pub async fn process_path(&self, host: usize, alias: &str) -> String {
        let agent = self.agent_path(host).await;
        let process = self.process(host, alias).await;
        format!("{agent}/processes/{}", process["id"])
    }

    /// Who may start and stop the processes of a host.
    pub async fn caller(&self, host: usize) -> Caller {
        let ledgers = self.hosts[host].ledgers.clone();
        let mut paths = BTreeMap::new();
        for alias in ledgers.keys() {
            paths.insert(alias.clone(), self.process_path(host, alias).await);
        }
        Caller { client: self.admin(), paths, ledgers }
    }

    /// A process as the REST API shows it.
    pub async fn process(&self, host: usize, alias: &str) -> Value {
        let agent = self.admin().get(&self.agent_path(host).await).await;
        let processes = agent.data()["processes"].as_array().expect("processes");
        processes.iter().find(|process| process["alias"] == alias).expect("a process of that alias").clone()
    }

    /// A task once it is as `wanted` says.
    pub async fn wait_for_task(&self, task: i64, wanted: impl Fn(&Value) -> bool) -> Value {
        let client = self.admin();
        wait_for("the task gets there", async || {
            let task = client.get(&format!("/api/v2/tasks/instances/{task}")).await;
            if task.status == StatusCode::OK && wanted(task.data()) {
                Ok(task.data().clone())
            } else {
                Err(task.json)
            }
        })
        .await
    }

    /// Waits until the server answers through the gateway.
    pub async fn wait_until_ready(&self) {
        let client = self.admin();
        let gateway = format!("{}:{GATEWAY_PORT}", self.address);
        wait_for("the gateway listens", async || tokio::net::TcpStream::connect(&gateway).await).await;
        wait_for("the server answers", async || {
            let hosts = client.get("/api/v2/compute/hosts").await;
            if hosts.status == StatusCode::OK { Ok(()) } else { Err(hosts.json) }
        })
        .await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        for host in &mut self.hosts {
            // First the agent, which would start again what ends.
            if host.agent.is_running() {
                host.agent.kill();
            }
            host.ledgers.values().for_each(Ledger::end_all);
            let identity = self.folder.path().join(format!("{}-state/identity", host.name));
            // Those who keep no ledger.
            if let Ok(identity) = fs::read_to_string(&identity) {
                end_marked(&format!("BELAY_INSTANCE={}/", identity.trim()));
            }
            remove_cgroups(&identity);
        }
    }
}

impl Fleet {
    #[allow(clippy::print_stderr)] // where a failing test is looked at
    fn show_logs(&self) {
        let parts = [("server", &self.server), ("gateway", &self.gateway)];
        let agents = self.hosts.iter().map(|host| (host.name.as_str(), &host.agent));
        for (name, part) in parts.into_iter().chain(agents) {
            eprintln!("---- log of {name} ----\n{}", part.log_text());
        }
    }
}

/// An address of the loopback network that no other fleet has, in this process or another.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let pid = std::process::id();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = (pid & 0x3fff).to_be_bytes();
    Ipv4Addr::new(127, 64 + high, low, u8::try_from(next).expect("few fleets in one process"))
}
