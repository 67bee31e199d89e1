//! A peer to compare with: supervisord (`pip install supervisor`).

use std::{
    collections::BTreeMap,
    env,
    fmt::Write,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Ledger, Supervisor, Victim, marked::end_marked, wait_for};

/// A running supervisord. It ends when it is dropped, what it runs included.
#[derive(Debug)]
pub struct Supervisord {
    address: String,
    child: Child,
    mark: String,
    ledgers: BTreeMap<String, Ledger>,
}

/// What a supervisord is to run.
#[derive(Debug)]
pub struct Programs {
    folder: PathBuf,
    sections: String,
    ledgers: BTreeMap<String, Ledger>,
}

impl Programs {
    /// None yet. What it writes goes to this folder, which must not be there yet.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir(folder).expect("a folder");
        Self { folder: folder.to_owned(), sections: String::new(), ledgers: BTreeMap::new() }
    }

    /// And this one, with these settings of its own.
    #[must_use]
    pub fn program(mut self, name: &str, command: &str, settings: &str) -> Self {
        writeln!(self.sections, "[program:{name}]\nautostart=false\ncommand={command}\n{settings}")
            .expect("written");
        self
    }

    /// And these victims, with these settings.
    #[must_use]
    pub fn victims(self, program: &Path, victims: &[Victim], settings: &str) -> Self {
        victims.iter().fold(self, |mut programs, victim| {
            let path = programs.folder.join(format!("{}.ledger", victim.shape));
            let command = format!("{} {} {}", program.display(), path.display(), victim.shape);
            programs.ledgers.insert(victim.shape.to_owned(), Ledger::new(path));
            programs.program(victim.shape, &command, settings)
        })
    }
}

impl Supervisord {
    /// Starts it, and waits until it listens. `None` where it is not installed. `SUPERVISORD` says where it is, where
    /// that is not on the PATH.
    pub async fn start(address: Ipv4Addr, programs: Programs) -> Option<Self> {
        let Programs { folder, sections, ledgers } = programs;
        let address = format!("{address}:9001");
        let config = folder.join("supervisord.conf");
        let text = format!(
            "[supervisord]\nnodaemon=true\nuser={1}\nlogfile={0}/log\npidfile={0}/pid\nchildlogdir={0}\n\
             [inet_http_server]\nport={address}\n[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = \
             supervisor.rpcinterface:make_main_rpcinterface\n{sections}",
            folder.display(),
            rustix::process::geteuid().as_raw(),
        );
        fs::write(&config, text).expect("written");
        let mut command = Command::new(env::var_os("SUPERVISORD").unwrap_or_else(|| "supervisord".into()));
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // What it runs inherits it.
        command.env(MARK, &folder);
        let mark = format!("{MARK}={}", folder.display());
        let peer = Self { address, child: command.spawn().ok()?, mark, ledgers };
        wait_for("supervisord listens", async || TcpStream::connect(&peer.address).await).await;
        Some(peer)
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Starts every program, and answers when all run.
    pub async fn start_all(&self) -> String {
        self.call("startAllProcesses", "").await
    }

    /// Stops every program, and answers when all are gone.
    pub async fn stop_all(&self) -> String {
        self.call("stopAllProcesses", "").await
    }

    /// What it tells of every program.
    pub async fn all(&self) -> String {
        self.call("getAllProcessInfo", "").await
    }

    /// What it tells of a program.
    pub async fn info(&self, name: &str) -> String {
        self.call("getProcessInfo", &format!("<string>{name}</string>")).await
    }

    /// Just enough of XML-RPC: a call with these values.
    async fn call(&self, method: &str, values: &str) -> String {
        let params: String =
            values.lines().map(|value| format!("<param><value>{value}</value></param>")).collect();
        let body = format!(
            "<methodCall><methodName>supervisor.{method}</methodName><params>{params}</params></methodCall>"
        );
        let request = format!(
            "POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }
}

impl Supervisor for Supervisord {
    async fn start(&self, name: &str) {
        self.call("startProcess", &format!("<string>{name}</string>\n<boolean>0</boolean>")).await;
    }

    async fn stop(&self, name: &str) -> Result<(), String> {
        let answer = self.call("stopProcess", &format!("<string>{name}</string>")).await;
        let stopped = [DONE, NOT_RUNNING].iter().any(|said| answer.contains(said));
        if stopped { Ok(()) } else { Err(answer) }
    }

    fn ledger(&self, name: &str) -> &Ledger {
        &self.ledgers[name]
    }
}

impl Drop for Supervisord {
    fn drop(&mut self) {
        // First the supervisor, which would start again what ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.ledgers.values().for_each(Ledger::end_all);
        end_marked(&self.mark);
    }
}

/// Marks what a peer runs.
const MARK: &str = "BELAY_PEER";

const DONE: &str = "<boolean>1</boolean>";

/// A fault; but it says that nothing runs.
const NOT_RUNNING: &str = "<int>70</int>";
