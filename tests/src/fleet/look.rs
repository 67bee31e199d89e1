//! A fleet as its REST API shows it.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::Value;

use super::Fleet;
use crate::{Caller, wait_for};

impl Fleet {
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
}
