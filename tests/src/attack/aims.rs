//! What of a fleet can be attacked, and who calls there meanwhile.

use std::{fs, net::SocketAddr, sync::Arc};

use belay_proto::{
    agent::v1::GetInventoryRequest,
    v1::{CreateUserRequest, ListHostsRequest, Role},
};
use http::StatusCode;

use super::{Call, Target, bystander::apart};
use crate::{Client, Fleet, Wire, basic};

/// The user that attacks: who is known can do more.
const MALLORY: (&str, &str) = ("mallory", "a user who means harm");

/// A part of a fleet: where it is attacked, who calls there, and what it has in memory.
pub struct Aim {
    /// What is attacked.
    pub target: Target,
    /// The call of a bystander.
    pub call: Call,
    /// Its process.
    pub pid: i32,
}

impl Aim {
    /// What it has in memory now, in MiB.
    pub fn memory(&self) -> f64 {
        resident(self.pid)
    }
}

/// What a process has in memory, in MiB. Cheap to ask, which `smaps` is not.
pub(super) fn resident(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).expect("it runs");
    let pages: f64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size() as f64 / f64::from(1 << 20)
}

impl Fleet {
    /// The server, the first host's agent and the gateway, in this order.
    pub async fn aims(&mut self) -> Vec<Aim> {
        let (name, password) = MALLORY;
        let request = CreateUserRequest {
            name: name.to_owned(),
            password: password.to_owned(),
            roles: vec![Role::HostViewer.into()],
            ..CreateUserRequest::default()
        };
        self.wire().users().create_user(request).await.expect("added");
        let server: SocketAddr = self.server_address().parse().expect("an address");
        let gateway = self.rest().trim_start_matches("http://").parse().expect("an address");
        let token = format!("Bearer {}", self.token());
        let agent = self.agent_address(0);
        let pids = [self.server.pid(), self.agent(0).pid(), self.gateway.pid()];
        let target = |name, address, http2, path: &str, authorization| {
            let path = path.to_owned();
            Target { name, address, http2, path, authorization }
        };
        let hosts = "/belay.v1.HostService/ListHosts";
        let inventory = "/belay.agent.v1.AgentService/GetInventory";
        let targets = [
            target("server", server, true, hosts, basic(name, password)),
            target("agent", agent, true, inventory, token.clone()),
            target("gateway", gateway, false, "/api/v2/compute/hosts", String::new()),
        ];
        let calls = [
            lists_by_wire(server, self.password()),
            looks(agent, token),
            lists_by_rest(self.rest(), self.password()),
        ];
        let parts = targets.into_iter().zip(calls).zip(pids);
        parts.map(|((target, call), pid)| Aim { target, call, pid }).collect()
    }
}

/// What a bystander keeps.
fn made_apart<T>(open: impl Fn() -> T) -> T {
    let _apart = apart();
    open()
}

fn lists_by_wire(address: SocketAddr, password: &str) -> Call {
    let password = password.to_owned();
    let open = move || Wire::user(&address.to_string(), "admin", &password);
    let lasting = made_apart(&open);
    Arc::new(move |anew| {
        let wire = if anew { open() } else { lasting.clone() };
        Box::pin(async move {
            let answer = wire.hosts().list_hosts(ListHostsRequest::default()).await;
            answer.map(drop).map_err(|status| format!("{status:?}"))
        })
    })
}

fn looks(address: SocketAddr, token: String) -> Call {
    let open = move || Wire::new(&address.to_string(), &token);
    let lasting = made_apart(&open);
    Arc::new(move |anew| {
        let wire = if anew { open() } else { lasting.clone() };
        Box::pin(async move {
            let answer = wire.orders().get_inventory(GetInventoryRequest::default()).await;
            answer.map(drop).map_err(|status| format!("{status:?}"))
        })
    })
}

fn lists_by_rest(base: String, password: &str) -> Call {
    let password = password.to_owned();
    let open = move || Client::new(&base).user("admin", &password);
    let lasting = made_apart(&open);
    Arc::new(move |anew| {
        let client = if anew { open() } else { lasting.clone() };
        Box::pin(async move {
            // It panics where there is no answer.
            let answer = tokio::spawn(async move { client.get("/api/v2/compute/hosts").await }).await;
            match answer {
                Ok(answer) if answer.status == StatusCode::OK => Ok(()),
                Ok(answer) => Err(answer.text),
                Err(panic) => Err(panic.to_string()),
            }
        })
    })
}
