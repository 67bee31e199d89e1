//! Every exchange that the documents show, made again with a real fleet: the request as it is shown, and the answer compared in
//! shape, with the order of keys, types and nulls. The exchanges are files in `documented/`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use belay_tests::{Answer, Fleet, Freedom, HostSetup, Shape};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::fleet;

/// One exchange.
#[derive(Debug, Deserialize)]
struct Exchange {
    /// Method and path. In braces is what a real fleet has other numbers for.
    request: String,
    /// In quotes and braces is the same in a body.
    body: Option<Value>,
    #[serde(flatten)]
    freedom: Freedom,
}

/// All exchanges, and which of them were made again.
struct Documents {
    exchanges: BTreeMap<String, (Exchange, Shape)>,
    replayed: BTreeSet<String>,
}

impl Documents {
    fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/documented");
        let exchange = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("an exchange");
            let exchange = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let answer = Shape::of(&text).at("answer").expect("an answer").clone();
            (path.file_stem().expect("a name").to_string_lossy().into_owned(), (exchange, answer))
        };
        let exchanges = fs::read_dir(folder).expect("the exchanges").map(exchange).collect();
        Self { exchanges, replayed: BTreeSet::new() }
    }

    /// Sends a request as it is shown, with these in place of what is in braces.
    async fn send(&self, fleet: &Fleet, name: &str, ids: &[(&str, &Value)]) -> Answer {
        let (Exchange { request, body, .. }, _) = &self.exchanges[name];
        let request = ids.iter().fold(request.clone(), |request, (id, value)| {
            request.replace(&format!("{{{id}}}"), &value.to_string())
        });
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let body = body.as_ref().map(Value::to_string).unwrap_or_default();
        let body = ids
            .iter()
            .fold(body, |body, (id, value)| body.replace(&format!("\"{{{id}}}\""), &value.to_string()));
        fleet.admin().call(method, path, body.into_bytes()).await
    }

    /// Sends a request and holds the answer against the documented one.
    async fn replay(&mut self, fleet: &Fleet, name: &str, ids: &[(&str, &Value)]) -> Value {
        let answer = self.send(fleet, name, ids).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text);
        let (Exchange { freedom, .. }, documented) = &self.exchanges[name];
        let differences = Shape::of(&answer.text).differences(documented, freedom);
        assert!(differences.is_empty(), "{name}: {differences:#?} in {}", answer.text);
        self.replayed.insert(name.to_owned());
        answer.data().clone()
    }
}

/// Two workers and a base process.
fn host() -> HostSetup {
    HostSetup::new().proxied().worker("obstat2", "plain").worker("ob_cleaner", "plain").base("ocp_agentd")
}

async fn ended(fleet: &Fleet, task: &Value, status: &str) {
    let id = task["id"].as_i64().expect("an id");
    fleet.wait_for_task(id, |task| task["status"] != "RUNNING").await;
    let task = fleet.wait_for_task(id, |task| task["status"] == status).await;
    assert_eq!(task["status"], status);
}

/// The way back from a stop, which the documents lack.
async fn start(fleet: &Fleet, host: usize) {
    let started = fleet.admin().post(&format!("{}/start", fleet.agent_path(host).await)).await;
    ended(fleet, started.data(), "SUCCESSFUL").await;
}

/// What hosts point to, and hosts that are added and deleted.
async fn replay_hosts_that_come_and_go(documents: &mut Documents, fleet: &Fleet) {
    let region = documents.replay(fleet, "create_region", &[]).await["id"].clone();
    let idc = documents.replay(fleet, "create_idc", &[("region", &region)]).await["id"].clone();
    let host_type = documents.replay(fleet, "create_host_type", &[]).await["id"].clone();
    let address = Value::from(fleet.address().to_string());
    let place: &[_] = &[("region", &region), ("idc", &idc), ("type", &host_type), ("address", &address)];
    for read in ["list_regions", "get_region", "list_idcs", "get_idc", "list_host_types", "get_host_type"] {
        documents.replay(fleet, read, place).await;
    }
    for deletion in ["delete_host", "delete_hosts"] {
        let tasks = documents.replay(fleet, "create_hosts", place).await;
        let task = &tasks["contents"][0];
        // No agent runs there.
        ended(fleet, task, "FAILED").await;
        documents.replay(fleet, deletion, &[("host", &task["hostId"])]).await;
    }
    for deletion in ["delete_idc", "delete_region", "delete_host_type"] {
        documents.replay(fleet, deletion, place).await;
    }
}

/// All exchanges of the documents, each at a time at which it can be.
#[tokio::test]
async fn every_documented_exchange_is_what_it_was() {
    let fleet = fleet(vec![host(), host()]).await;
    let mut documents = Documents::read();
    // The examples of orders to agents are about host 2.
    let second = if fleet.host_id(0).await == 2 { 0 } else { 1 };
    let id = Value::from(fleet.host_id(second).await);
    let host: &[_] = &[("host", &id)];

    documents.replay(&fleet, "list_hosts", &[]).await;
    documents.replay(&fleet, "get_host", host).await;
    documents.replay(&fleet, "get_agent", host).await;
    documents.replay(&fleet, "list_processes", host).await;
    let process = fleet.process(second, "ob_cleaner").await["id"].clone();
    let process: &[_] = &[("host", &id), ("process", &process)];
    documents.replay(&fleet, "restart_process", process).await;
    documents.replay(&fleet, "stop_process", process).await;
    // Again, while one is stopped.
    documents.replay(&fleet, "get_agent", host).await;
    documents.replay(&fleet, "list_processes", host).await;

    for restart in ["restart_agent", "restart_agents"] {
        let task = documents.replay(&fleet, restart, host).await;
        ended(&fleet, &task, "SUCCESSFUL").await;
    }
    for stop in ["stop_agent", "stop_agents"] {
        let task = documents.replay(&fleet, stop, host).await;
        ended(&fleet, &task, "SUCCESSFUL").await;
        let task = &task["id"];
        let task = documents.replay(&fleet, "get_task", &[("task", task)]).await;
        for subtask in task["subtasks"].as_array().expect("subtasks") {
            let ids = [("task", &task["id"]), ("subtask", &subtask["id"])];
            let log = documents.replay(&fleet, "get_subtask_log", &ids).await;
            // Nobody runs a barrier, so it has nothing to tell.
            let is_run = subtask["name"] != "Wait node";
            let begins = log["log"].as_str().is_some_and(|log| log.starts_with("############{EXECUTE}{"));
            assert_eq!(begins, is_run, "{subtask:#}: {log}");
        }
        start(&fleet, second).await;
    }
    documents.replay(&fleet, "list_tasks", &[]).await;

    for order in ["retry_task", "rollback_task", "retry_subtask", "skip_subtask"] {
        fleet.proxy(second).hold_requests();
        let task = documents.replay(&fleet, "stop_agent", host).await;
        let number = task["id"].as_i64().expect("an id");
        let task = fleet.wait_for_task(number, |task| task["subtasks"][0]["status"] == "RUNNING").await;
        let ids = [("task", &task["id"]), ("subtask", &task["subtasks"][0]["id"])];
        documents.replay(&fleet, "cancel_subtask", &ids).await;
        ended(&fleet, &task, "FAILED").await;
        fleet.proxy(second).release();
        documents.replay(&fleet, order, &ids).await;
        ended(&fleet, &task, "SUCCESSFUL").await;
        start(&fleet, second).await;
    }

    replay_hosts_that_come_and_go(&mut documents, &fleet).await;
    let all: BTreeSet<_> = documents.exchanges.keys().cloned().collect();
    assert_eq!(documents.replayed, all, "every exchange is replayed");
}

/// The one refusal that the documents show has a code and a message. What is beside them is ours.
#[tokio::test]
async fn a_refusal_has_what_is_documented_of_one() {
    let fleet = fleet(Vec::new()).await;
    let answer = fleet.admin().get("/api/v2/compute/hosts/999").await;
    let documented = r#"{"duration": 0, "error": {"code": 0, "message": ""}, "server": "", "status": 429,
        "successful": false, "timestamp": "", "traceId": ""}"#;
    let (mut made, documented) = (Shape::of(&answer.text), Shape::of(documented));
    if let Shape::Object(fields) = &mut made {
        for (_, error) in fields.iter_mut().filter(|(key, _)| key == "error") {
            if let Shape::Object(fields) = error {
                fields.retain(|(key, _)| matches!(&key[..], "code" | "message"));
            }
        }
    }
    assert_eq!(made.differences(&documented, &Freedom::default()), Vec::<String>::new(), "{}", answer.text);
}
