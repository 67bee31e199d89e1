//! A host: the agent's program on a state folder of its own, and a server for it to report to.

mod server;

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use belay_proto::agent::v1::{agent_service_client::AgentServiceClient, *};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tonic::{
    Request, Status, Streaming,
    transport::{Channel, Endpoint},
};

pub(crate) use self::server::Server;

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

const TOKEN: &str = "the-token-of-the-fleet";

/// A host. All that lives on it ends with it.
pub(crate) struct Host {
    dir: TempDir,
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
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(TOKEN).await;
        let address = free_address();
        let mut config = format!(
            "name = \"host-1\"\nlisten = \"{address}\"\nserver = \"{}\"\nstate = \"state\"\nfleet_token_file = \"token\"\n{settings}",
            server.url()
        );
        for (alias, process) in processes {
            config += &format!("[[process]]\nalias = \"{alias}\"\n{process}\n");
        }
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&path, mode).unwrap();
        };
        write("agent.toml", &config);
        write("token", TOKEN);
        let client = AgentServiceClient::new(endpoint(&address).connect_lazy());
        let mut host = Self {
            dir,
            address,
            agent: None,
            client,
            server,
            aliases: processes.iter().map(|(alias, _)| (*alias).to_owned()).collect(),
        };
        host.begin().await;
        host
    }

    /// Begins a life of the agent, and waits until every process that should run does.
    pub(crate) async fn begin(&mut self) {
        self.agent = Some(self.program().spawn().unwrap());
        self.client = AgentServiceClient::new(endpoint(&self.address).connect_lazy());
        let ready = async {
            loop {
                let processes = self.try_inventory().await.unwrap_or_default();
                let settled = |p: &ObservedProcess| !p.desired_running || p.phase() == ProcessPhase::Running;
                if !processes.is_empty() && processes.iter().all(settled) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(PATIENCE, ready).await.is_err() {
            panic!("the agent is not ready:\n{}", self.log());
        }
    }

    /// `kill -9` of the agent.
    pub(crate) async fn crash(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
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

    pub(crate) async fn stop(&self, alias: &str) -> Result<Operation, Status> {
        self.stop_as(alias, &operation_id()).await
    }

    pub(crate) async fn stop_as(&self, alias: &str, id: &str) -> Result<Operation, Status> {
        stop(self.client.clone(), alias.to_owned(), id.to_owned(), TOKEN).await
    }

    pub(crate) async fn stop_with_token(
        &self,
        alias: &str,
        token: &'static str,
    ) -> Result<Operation, Status> {
        stop(self.client.clone(), alias.to_owned(), operation_id(), token).await
    }

    pub(crate) fn stop_in_background(&self, alias: &str, id: &str) -> JoinHandle<Result<Operation, Status>> {
        tokio::spawn(stop(self.client.clone(), alias.to_owned(), id.to_owned(), TOKEN))
    }

    pub(crate) async fn start_process(&self, alias: &str) -> Result<Operation, Status> {
        let request = StartProcessRequest { order: order(&operation_id()), alias: alias.to_owned() };
        let response = self.client.clone().start_process(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn restart(&self, alias: &str) -> Result<Operation, Status> {
        let request = RestartProcessRequest { order: order(&operation_id()), alias: alias.to_owned() };
        let response = self.client.clone().restart_process(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn stop_all(&self) -> Result<Operation, Status> {
        let request = StopAllProcessesRequest { order: order(&operation_id()), ..Default::default() };
        let response = self.client.clone().stop_all_processes(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn start_all(&self) -> Result<Operation, Status> {
        let request = StartAllProcessesRequest { order: order(&operation_id()) };
        let response = self.client.clone().start_all_processes(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn operation(&self, id: &str) -> Result<Operation, Status> {
        let request = GetOperationRequest { operation_id: id.to_owned() };
        let response = self.client.clone().get_operation(authorized(request, TOKEN)).await?;
        Ok(response.into_inner().operation.unwrap())
    }

    pub(crate) async fn process(&self, alias: &str) -> ObservedProcess {
        let all = self.inventory().await;
        all.into_iter().find(|process| process.alias == alias).unwrap()
    }

    pub(crate) async fn inventory(&self) -> Vec<ObservedProcess> {
        self.try_inventory().await.unwrap()
    }

    async fn try_inventory(&self) -> Result<Vec<ObservedProcess>, Status> {
        let request = authorized(GetInventoryRequest {}, TOKEN);
        let response = self.client.clone().get_inventory(request).await?;
        Ok(response.into_inner().processes)
    }

    /// Pieces of a log.
    pub(crate) async fn read_log(
        &self,
        request: ReadLogRequest,
    ) -> Result<Streaming<ReadLogResponse>, Status> {
        Ok(self.client.clone().read_log(authorized(request, TOKEN)).await?.into_inner())
    }

    /// The folder for the output of processes.
    pub(crate) fn log_folder(&self) -> PathBuf {
        self.dir.path().join("state/log")
    }

    /// The agent's pid.
    pub(crate) fn pid(&self) -> i32 {
        self.agent.as_ref().unwrap().id().try_into().unwrap()
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
        let mut program = Command::new(env!("CARGO_BIN_EXE_belay-agent"));
        program.arg("--config").arg(self.dir.path().join("agent.toml"));
        program.stderr(log.unwrap());
        program
    }

    /// What the agent has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
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

async fn stop(
    mut client: AgentServiceClient<Channel>,
    alias: String,
    id: String,
    token: &'static str,
) -> Result<Operation, Status> {
    let request = StopProcessRequest { order: order(&id), alias, ..Default::default() };
    let response = client.stop_process(authorized(request, token)).await?;
    Ok(response.into_inner().operation.unwrap())
}

fn order(id: &str) -> Option<Order> {
    Some(Order { operation_id: id.to_owned(), epoch: 1, principal: "test".to_owned(), budget: None })
}

fn authorized<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true)
}

/// An address that was free a moment ago. The agent must find its port again after a crash, so it can not be 0.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A killed agent leaves empty cgroups, which the next one would remove.
fn remove_cgroups(identity: &PathBuf) {
    let identity = fs::read_to_string(identity).unwrap_or_default();
    let Some(short) = identity.get(..8) else {
        return;
    };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let (Some(mount), Some(own)) = (mount.and_then(|line| line.split(' ').nth(1)), own) else {
        return;
    };
    let base = format!("{mount}{}/belay-{short}", own.trim_end_matches('/'));
    for group in fs::read_dir(&base).into_iter().flatten().flatten() {
        let _ = fs::remove_dir(group.path());
    }
    let _ = fs::remove_dir(base);
}
