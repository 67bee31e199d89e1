//! A part joins, and somebody dies of it.

use std::{fs, path::PathBuf, process::Output};

use belay_proto::tls::Identity;
use belay_tests::{Part, wait_for};

use super::{
    super::places::{Change, Who},
    Scene,
};

/// The first port of agents that join while others die.
const FIRST_PORT: u16 = 9500;

/// Who joins: with which settings, and as which member, where that is known.
struct Joiner {
    part: &'static str,
    config: PathBuf,
    state: String,
    host_id: i64,
    gateway: &'static str,
}

impl Scene {
    /// Plays it to its end.
    pub(super) async fn join(&mut self, change: Change) {
        let mut joiner = self.joiner(change).await;
        let before = self.taken(&joiner).await;
        let token = self.token(joiner.host_id, joiner.gateway).await;

        let first = self.die(&joiner, &token).await;
        assert!(!first.status.success(), "{}: nobody died", self.told());
        let is_taken = self.dying.place != "join.written";
        let now = self.taken(&joiner).await;
        assert_eq!(now, before + i64::from(is_taken), "{}: taken, or not", self.told());

        // A token that was not used up is good still; of another it is told what to do.
        let again = self.run_joiner(joiner.part, &joiner.config, &token, "").await;
        let said = said(&again);
        assert_eq!(again.status.success(), !is_taken, "{}: {said}", self.told());
        if is_taken {
            assert!(said.contains("belay host token create"), "{}: {said}", self.told());
        }
        if is_taken && self.dying.place != "join.stored" {
            self.follow_the_hints(&mut joiner).await;
        }
        self.check_joined(&joiner, now).await;
    }

    /// Who is to join, which does not run meanwhile.
    async fn joiner(&mut self, change: Change) -> Joiner {
        match change {
            Change::New => {
                self.newcomers += 1;
                let (name, folder) = (format!("new-{}", self.newcomers), self.fleet.folder());
                let port = FIRST_PORT + u16::try_from(self.newcomers).expect("few");
                let (address, server) = (self.fleet.address(), self.fleet.server_address());
                let (config, state) = (folder.join(format!("{name}.toml")), format!("{name}-state"));
                let text = format!(
                    "name = {name:?}\nlisten = \"{address}:{port}\"\nserver = \"https://{server}\"\nstate = {:?}\n",
                    folder.join(&state)
                );
                fs::write(&config, text).expect("written");
                Joiner { part: "agent", config, state, host_id: 0, gateway: "" }
            }
            Change::Gateway => {
                self.fleet.gateway.end();
                let (config, state) = (self.fleet.folder().join("gateway.toml"), "gateway-state".to_owned());
                Joiner { part: "gateway", config, state, host_id: 0, gateway: "edge-1" }
            }
            Change::Again | Change::Replacement | Change::Following => {
                let host_id = self.fleet.host_id(0).await;
                self.fleet.agent(0).end();
                let (config, state) = (self.fleet.agent_config(0), "host-1-state".to_owned());
                Joiner { part: "agent", config, state, host_id, gateway: "" }
            }
        }
    }

    /// Lets it join, and somebody die of it.
    async fn die(&mut self, joiner: &Joiner, token: &str) -> Output {
        match self.dying.who {
            Who::Server => {
                self.set_server(&self.armed());
                let ran = self.run_joiner(joiner.part, &joiner.config, token, "").await;
                let said = said(&ran);
                assert!(said.contains("the token may be used up"), "{}: {said}", self.told());
                self.revive_server().await;
                ran
            }
            Who::Agent | Who::Gateway => {
                let ran = self.run_joiner(joiner.part, &joiner.config, token, &self.armed()).await;
                self.deaths += 1;
                assert_eq!(ran.status.code(), None, "{}: it did not die: {}", self.told(), said(&ran));
                ran
            }
        }
    }

    /// How often the server has taken this one in.
    async fn taken(&self, joiner: &Joiner) -> i64 {
        let member = match (joiner.part, joiner.host_id) {
            ("gateway", _) => format!("gateway/{}", joiner.gateway),
            (_, 0) => match self.host_of(joiner).await {
                0 => return 0,
                host => format!("host/{host}"),
            },
            (_, host) => format!("host/{host}"),
        };
        self.generation(&member).await
    }

    /// The host whose agent has this one's identity; 0 where there is none.
    async fn host_of(&self, joiner: &Joiner) -> i64 {
        let path = self.fleet.folder().join(&joiner.state).join("identity");
        let identity = fs::read_to_string(path).unwrap_or_default();
        self.number(format!("SELECT COALESCE(MAX(id), 0) FROM hosts WHERE identity = '{}'", identity.trim()))
            .await
    }

    /// Does what is said, as an operator would, until it has joined.
    async fn follow_the_hints(&self, joiner: &mut Joiner) {
        for _ in 0..2 {
            let token = self.token(joiner.host_id, joiner.gateway).await;
            let ran = self.run_joiner(joiner.part, &joiner.config, &token, "").await;
            if ran.status.success() {
                return;
            }
            let said = said(&ran);
            let host = said.split("belay host token create --host ").nth(1);
            let host = host.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
            joiner.host_id = host.unwrap_or_else(|| panic!("{}: it says nothing to do: {said}", self.told()));
        }
        panic!("{}: the hints lead nowhere", self.told());
    }

    /// It is a member, once, and works.
    async fn check_joined(&mut self, joiner: &Joiner, least: i64) {
        let now = self.taken(joiner).await;
        assert!(now >= least.max(1), "{}: a generation went back from {least} to {now}", self.told());
        self.check_members().await;
        let host = self.host_of(joiner).await;
        match self.papers(&joiner.state).named().identity.clone() {
            Identity::Host { id, generation } => {
                assert_eq!((id.get(), i64::try_from(generation)), (host, Ok(now)), "{}", self.told());
            }
            Identity::Gateway(name) => assert_eq!(name, joiner.gateway, "{}", self.told()),
            Identity::Server => panic!("{}: a server's certificate", self.told()),
        }
        match (joiner.part, joiner.config == self.fleet.agent_config(0)) {
            ("gateway", _) => self.fleet.gateway.start(),
            (_, true) => self.fleet.agent(0).start(),
            (_, false) => {
                let config = joiner.config.display().to_string();
                let log = joiner.config.with_extension("log");
                let mut agent = Part::new(self.fleet.program(), &["agent", "--config", &config], log);
                agent.start();
                self.wait_for_available(host).await;
                agent.end();
                return;
            }
        }
        self.fleet.wait_until_ready().await;
        self.check_an_order().await;
    }

    async fn wait_for_available(&self, host: i64) {
        let client = self.fleet.admin();
        wait_for("its host is there", async || {
            let shown = client.get(&format!("/api/v2/compute/hosts/{host}")).await;
            if shown.data()["status"] == "AVAILABLE" { Ok(()) } else { Err(shown.json) }
        })
        .await;
    }
}

/// What a command said.
fn said(ran: &Output) -> String {
    [&ran.stdout, &ran.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}
