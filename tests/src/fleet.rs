//! A server, a gateway and hosts, all of which speak TLS with each other unless it is said that they do not.

mod callers; // where they are reached, and by whom
mod look; // what the REST API shows of them
mod setup; // what a host runs

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use belay_proto::v1::CreateJoinTokenRequest;
use http::StatusCode;
use tempfile::TempDir;

pub use self::setup::HostSetup;
use crate::{
    Ledger, Part, Proxy, SimulatedFleet, Simulation, cgroup::remove_cgroups, marked::end_marked, wait_for,
};

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

/// How a fleet is started.
struct Way<'a> {
    program: &'a str,
    victim: &'a str,
    heartbeat: &'a str,
    /// Whether all parts speak TLS with each other.
    tls: bool,
    /// More lines for the server.
    settings: &'a str,
    /// The server's data, where that is not in the fleet's own folder.
    data: Option<&'a Path>,
}

const SERVER_PORT: u16 = 9440;
const GATEWAY_PORT: u16 = 8080;
const FIRST_AGENT_PORT: u16 = 9441;

impl Fleet {
    /// Starts a fleet of these hosts, and waits until all of it works: agents and the gateway join with tokens. The programs
    /// are those of this package: `env!("CARGO_BIN_EXE_belay-under-test")` and `env!("CARGO_BIN_EXE_victim")`.
    pub async fn start(program: &str, victim: &str, hosts: Vec<HostSetup>) -> Self {
        Self::start_with(program, victim, "", hosts).await
    }

    /// The same with more lines for the server.
    pub async fn start_with(program: &str, victim: &str, settings: &str, hosts: Vec<HostSetup>) -> Self {
        let heartbeat = HostSetup::heartbeat(&hosts);
        let way = Way { program, victim, heartbeat, tls: true, settings, data: None };
        Self::with_hosts(way, hosts).await
    }

    /// The same with the server's data in this folder.
    pub async fn start_on(data: &Path, program: &str, victim: &str, hosts: Vec<HostSetup>) -> Self {
        let heartbeat = HostSetup::heartbeat(&hosts);
        let way = Way { program, victim, heartbeat, tls: true, settings: "", data: Some(data) };
        Self::with_hosts(way, hosts).await
    }

    /// The same in plain text, where agents and server show each other the fleet's token.
    pub async fn start_plain(program: &str, victim: &str, hosts: Vec<HostSetup>) -> Self {
        let heartbeat = HostSetup::heartbeat(&hosts);
        let way = Way { program, victim, heartbeat, tls: false, settings: "", data: None };
        Self::with_hosts(way, hosts).await
    }

    /// Starts a server and a gateway in plain text, whose hosts are added later, real or simulated ones, and report so often.
    pub async fn plain_without_hosts(program: &str, victim: &str, heartbeat: &str) -> Self {
        // Thousands of simulated agents are one peer.
        let settings = "connections.most_of_local_peer = 16000";
        let way = Way { program, victim, heartbeat, tls: false, settings, data: None };
        Self::begin(way).await
    }

    async fn with_hosts(way: Way<'_>, hosts: Vec<HostSetup>) -> Self {
        let mut fleet = Self::begin(way).await;
        // Their processes begin side by side.
        for setup in &hosts {
            fleet.begin_host(setup).await;
        }
        for (number, setup) in hosts.iter().enumerate() {
            fleet.wait_for_host(number, setup).await;
        }
        fleet
    }

    async fn begin(way: Way<'_>) -> Self {
        let Way { program, victim, heartbeat, tls, settings, data } = way;
        let folder = tempfile::tempdir().expect("a folder");
        let data = data.map_or_else(|| folder.path().join("server"), Path::to_owned);
        let (mode, scheme) = if tls { ("on", "https") } else { ("off", "http") };
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
        let (mut server, gateway) = (part("server"), part("gateway"));
        server.start();
        let password = wait_for("the first password is made", async || {
            let text = fs::read_to_string(data.join("admin.password"));
            // The file is made before it is filled.
            text.map_err(|error| error.to_string()).and_then(|text| {
                if text.ends_with('\n') { Ok(text.trim().to_owned()) } else { Err("not whole yet".into()) }
            })
        })
        .await;
        let (hosts, victim) = (Vec::new(), PathBuf::from(victim));
        let mut fleet =
            Self { server, gateway, hosts, address, password, program, victim, data, folder, tls };
        if tls {
            let server = fleet.server_address();
            wait_for("the server listens", async || tokio::net::TcpStream::connect(&server).await).await;
            let token = fleet.join_token(0, "edge-1").await;
            let config = fleet.folder.path().join("gateway.toml");
            belay_gateway::join(&config, None, &token).await.expect("the gateway joins");
        }
        fleet.gateway.start();
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
        self.begin_host(&setup).await;
        self.wait_for_host(number, &setup).await;
    }

    /// Starts the agent of another host. The server knows the host then, unless it is a copy.
    async fn begin_host(&mut self, setup: &HostSetup) {
        let number = self.hosts.len();
        let name = format!("host-{}", number + 1);
        let listen = self.agent_address(number);
        let proxy = if setup.proxied { Some(Proxy::start(listen).await) } else { None };
        let advertise = match &proxy {
            Some(proxy) => proxy.address(),
            None if setup.mistaken => self.agent_address(0),
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
        let around = format!("name = {name:?}\nlisten = \"{listen}\"\nadvertise = \"{advertise}\"\n{server}");
        let path = at(".toml");
        fs::write(&path, setup.settings_file(&around, &self.victim, at)).expect("written");
        if setup.copied {
            fs::create_dir(at("-state")).expect("a folder");
            for file in ["identity", "tls.pem"] {
                let original = self.folder.path().join(format!("{}-state/{file}", self.hosts[0].name));
                if original.exists() {
                    fs::copy(original, at("-state").join(file)).expect("copied");
                }
            }
        } else if self.tls {
            let token = self.join_token(0, "").await;
            belay_agent::join(&path, None, &token).await.expect("the agent joins");
        }
        let ledgers = setup.ledgers(at);
        let path = path.display().to_string();
        let mut agent = match &setup.installed {
            Some(program) => Part::new(program, &["--config", &path], at(".log")).logging("info"),
            None => Part::new(&self.program, &["agent", "--config", &path], at(".log")),
        };
        agent.start();
        self.hosts.push(Host { agent, proxy, ledgers, name });
        // Whoever joined is a host; without, they are in the order in which they say who they are.
        if !self.tls && !setup.copied {
            self.host_id(number).await;
        }
    }

    /// Waits until the server knows that all processes of a host run.
    async fn wait_for_host(&self, number: usize, setup: &HostSetup) {
        if !setup.copied {
            self.wait_for_processes(number, setup).await;
        }
        for (alias, victim) in setup.victims_declared() {
            self.ledger(number, alias).wait_for_begun(victim.family).await;
        }
    }

    async fn wait_for_processes(&self, number: usize, setup: &HostSetup) {
        let path = self.agent_path(number).await;
        let client = self.admin();
        wait_for("the host's processes run", async || {
            let agent = client.get(&path).await;
            let processes = agent.data()["processes"].as_array().cloned().unwrap_or_default();
            let runs = |alias: &str| {
                let mut all = processes.iter().filter(|process| process["alias"] == alias);
                all.any(|process| process["status"] == "STARTED")
            };
            if setup.lasting().all(runs) { Ok(()) } else { Err(agent.json) }
        })
        .await;
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

    /// The secret that agents and the server show each other in plain text.
    pub fn token(&self) -> String {
        let token = fs::read_to_string(self.data.join("fleet.token")).expect("the token");
        token.trim().to_owned()
    }

    /// Lets simulated agents report to the server. They speak plain text.
    pub async fn simulate(&self, simulation: Simulation) -> SimulatedFleet {
        assert!(!self.tls, "simulated agents need a fleet in plain text");
        SimulatedFleet::start(&self.server_address(), &self.token(), simulation).await
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

    /// Waits until the server answers through the gateway.
    pub async fn wait_until_ready(&self) {
        let client = self.admin();
        let gateway = SocketAddr::from((self.address, GATEWAY_PORT));
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
