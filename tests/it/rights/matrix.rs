//! The matrix: every RPC and every route of the contract, for every kind of caller, about a thing of its own, a foreign one,
//! one that there never was and one that was deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use belay_proto::{
    Problem,
    v1::{
        CreateTokenRequest, DeleteHostRequest, GetTaskRequest, ListAgentProcessesRequest, RevokeTokenRequest,
        Role, StartHostAgentRequest,
    },
};
use belay_tests::{Client, Fleet, HostSetup, basic, wait_for};
use http::{Method, StatusCode};
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MethodDescriptor, Value,
    bytes::{Buf, BufMut},
    prost::Message,
};
use serde_json::json;
use tokio::time::timeout;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use super::{
    add_user, at, everywhere, on, password,
    table::{About, Identity, Object, Verdict, expected, meant},
    two_teams,
};
use crate::fleet;

/// Longer than a reason may be: what is let through has no effect.
const TOO_LONG: usize = 501;

/// One thing of each kind on one host.
#[derive(Debug, Clone, Copy)]
struct Things {
    host: i64,
    process: i64,
    task: i64,
    subtask: i64,
}

const MISSING: Things = Things { host: 900_001, process: 900_002, task: 900_003, subtask: 900_004 };

struct World {
    fleet: Fleet,
    own: Things,
    foreign: Things,
    deleted: Things,
}

impl World {
    async fn make() -> Self {
        let hosts = two_teams().into_iter().chain([HostSetup::new().sleeper("w").labels("team = \"a\"")]);
        let mut fleet = fleet(hosts.collect()).await;
        let mut things = Vec::new();
        for host in 0..3 {
            things.push(things_of(&fleet, fleet.host_id(host).await).await);
        }
        fleet.agent(2).kill();
        let request =
            DeleteHostRequest { host_id: things[2].host, force: true, reason: "retired".into(), terms: None };
        wait_for("the third host is deleted", async || {
            fleet.wire().enrolment().delete_host(request.clone()).await.map_err(|status| status.to_string())
        })
        .await;
        Self { fleet, own: things[0], foreign: things[1], deleted: things[2] }
    }

    fn of(&self, object: Object) -> Things {
        match object {
            Object::Own => self.own,
            Object::Foreign => self.foreign,
            Object::Missing => MISSING,
            Object::Deleted => self.deleted,
        }
    }

    /// Everyone who calls.
    async fn identities(&self) -> Vec<Identity> {
        let mut all = Vec::new();
        let bad = |name, authorization| Identity {
            name,
            authorization,
            known: false,
            narrowed: false,
            roles: vec![("ADMIN", false)],
        };
        all.push(bad("nobody", None));
        all.push(bad("nobody_with_a_password", Some(basic("nobody", "has a password"))));
        all.push(bad("nobody_with_a_token", Some("Bearer belay_0123456789abcdefghijklmnopqrstuv".into())));
        let users: [(&str, Vec<(Role, bool)>); 11] = [
            ("viewer", vec![(Role::HostViewer, false)]),
            ("operator", vec![(Role::HostOperator, false)]),
            ("manager", vec![(Role::HostManager, false)]),
            ("task_viewer", vec![(Role::TaskViewer, false)]),
            ("task_manager", vec![(Role::TaskManager, false)]),
            ("second_admin", vec![(Role::Admin, false)]),
            ("own_viewer", vec![(Role::HostViewer, true)]),
            ("own_operator", vec![(Role::HostOperator, true)]),
            ("own_manager", vec![(Role::HostManager, true), (Role::TaskViewer, true)]),
            ("own_task_manager", vec![(Role::TaskManager, true)]),
            ("own_admin", vec![(Role::Admin, true)]),
        ];
        for (number, (name, roles)) in users.into_iter().enumerate() {
            let grants = roles.iter().map(|(role, scoped)| match (scoped, number % 2) {
                (false, _) => everywhere(*role),
                // The deleted host had the label, and an id that nobody names.
                (true, 0) => on(*role, "team=a"),
                (true, _) => at(*role, self.own.host),
            });
            add_user(&self.fleet, name, grants.collect()).await;
            let roles = roles.iter().map(|(role, scoped)| (word(*role), *scoped)).collect();
            let authorization = Some(basic(name, &password(name)));
            all.push(Identity { name, authorization, known: true, narrowed: false, roles });
        }
        let token = async |name: &'static str, grants| {
            let made = CreateTokenRequest { name: name.into(), grants, ..Default::default() };
            self.fleet.wire().users().create_token(made).await.expect("made").into_inner()
        };
        let narrowed = token("narrowed", vec![on(Role::HostOperator, "team=a")]).await;
        all.push(Identity {
            name: "narrowed",
            authorization: Some(format!("Bearer {}", narrowed.token)),
            known: true,
            narrowed: true,
            roles: vec![("HOST_OPERATOR", true)],
        });
        let revoked = token("revoked", Vec::new()).await;
        let end = RevokeTokenRequest { token_id: revoked.token_id };
        self.fleet.wire().users().revoke_token(end).await.expect("revoked");
        all.push(bad("revoked", Some(format!("Bearer {}", revoked.token))));
        all
    }
}

fn word(role: Role) -> &'static str {
    role.as_str_name().strip_prefix("ROLE_").expect("a role")
}

/// The first process of a host, and a task that ended there.
async fn things_of(fleet: &Fleet, host: i64) -> Things {
    let wire = fleet.wire();
    let request = ListAgentProcessesRequest { host_id: host, ..Default::default() };
    let listed = wire.processes().list_agent_processes(request).await.expect("listed").into_inner();
    let request = StartHostAgentRequest { host_id: host, ..Default::default() };
    let started = wire.agents().start_host_agent(request).await.expect("ordered").into_inner();
    let task = started.task.expect("a task");
    wait_for("the task has ended", async || {
        let now = wire.tasks().get_task(GetTaskRequest { task_id: task.id }).await;
        let now = now.expect("read").into_inner().task.expect("a task");
        if now.finish_time.is_some() { Ok(()) } else { Err(now.state) }
    })
    .await;
    Things { host, process: listed.processes[0].id, task: task.id, subtask: task.subtasks[0].id }
}

/// Every method of the contract, with its path.
fn methods() -> (DescriptorPool, Vec<(String, MethodDescriptor)>) {
    let pool = DescriptorPool::decode(belay_proto::FILE_DESCRIPTOR_SET).expect("the contract");
    let methods: Vec<_> = pool
        .services()
        .filter(|service| service.package_name().starts_with("belay."))
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| (format!("/{}/{}", method.parent_service().full_name(), method.name()), method))
        .collect();
    let paths: BTreeSet<_> = methods.iter().map(|(path, _)| &path[..]).collect();
    assert_eq!(paths, belay_proto::RPCS.iter().copied().collect());
    (pool, methods)
}

/// A request that says what it is about, and otherwise nothing that could be done.
fn request(method: &MethodDescriptor, identity: &Identity, things: Things) -> Vec<u8> {
    let mut message = DynamicMessage::new(method.input());
    let mut set = |name: &str, value: Value| {
        if method.input().get_field_by_name(name).is_some() {
            message.set_field_by_name(name, value);
        }
    };
    set("host_id", Value::I64(things.host));
    set("agent_process_id", Value::I64(things.process));
    set("task_id", Value::I64(things.task));
    set("subtask_id", Value::I64(things.subtask));
    set("reason", Value::String("x".repeat(TOO_LONG)));
    if method.name() == "BatchDeleteHosts" {
        set("host_ids", Value::List(vec![Value::I64(things.host)]));
    }
    if method.name() == "SetPassword" {
        set("name", Value::String(identity.name.into()));
    }
    // A second is too short for a token.
    set("lifetime_seconds", Value::I64(1));
    if let Some(field) = method.input().get_field_by_name("order") {
        let Kind::Message(of) = field.kind() else { unreachable!() };
        let mut order = DynamicMessage::new(of);
        order.set_field_by_name("host_ids", Value::List(vec![Value::I64(things.host)]));
        order.set_field_by_name("reason", Value::String("x".repeat(TOO_LONG)));
        set("order", Value::Message(order));
    }
    message.encode_to_vec()
}

/// Messages as bytes: what they are is known from the contract alone.
#[derive(Debug, Default, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// Calls, and says how it ended. A stream that goes on is let.
async fn call(
    channel: &Channel,
    path: &str,
    authorization: Option<&str>,
    message: Vec<u8>,
) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.expect("connected");
    let mut request = Request::new(message);
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization.parse().expect("a value"));
    }
    let path = path.parse().expect("a path");
    let first = async {
        let mut stream = grpc.server_streaming(request, path, Raw).await?.into_inner();
        stream.message().await.map(drop)
    };
    timeout(Duration::from_secs(1), first).await.unwrap_or(Ok(()))
}

fn verdict(ended: &Result<(), Status>) -> Verdict {
    let Err(status) = ended else {
        return Verdict::Let;
    };
    match status.code() {
        Code::Unimplemented => Verdict::NotServed,
        // Guesses are refused before they are tried.
        Code::Unauthenticated | Code::ResourceExhausted => Verdict::Unauthenticated,
        Code::PermissionDenied => Verdict::Denied,
        Code::NotFound => Verdict::Unknown,
        _ => Verdict::Let,
    }
}

const OBJECTS: [Object; 4] = [Object::Own, Object::Foreign, Object::Missing, Object::Deleted];

/// The objects that make a difference to an RPC.
fn objects(path: &str) -> &'static [Object] {
    match meant(path) {
        Some((_, About::Named)) => &OBJECTS,
        _ => &OBJECTS[..1],
    }
}

/// Whether a call ended as it has to. One that is let may not find what there is not.
fn is_as_meant(seen: Verdict, meant: Verdict, object: Object, path: &str) -> bool {
    let names_a_thing = objects(path).len() > 1;
    seen == meant
        || meant == Verdict::Let && seen == Verdict::Unknown && (object != Object::Own || !names_a_thing)
}

/// Hazards S06, S07, S08, S09, S11 and S15.
#[tokio::test]
async fn every_rpc_is_as_it_is_meant_for_everyone_about_everything() {
    let world = World::make().await;
    let identities = world.identities().await;
    let (_, methods) = methods();
    let channel = world.fleet.channel();
    let (mut calls, mut wrong, mut refused_orders) = (0, Vec::new(), BTreeSet::new());
    for identity in &identities {
        for (path, method) in &methods {
            for &object in objects(path) {
                let message = request(method, identity, world.of(object));
                let ended = call(&channel, path, identity.authorization.as_deref(), message).await;
                let (seen, meant) = (verdict(&ended), expected(identity, path, object));
                calls += 1;
                if !is_as_meant(seen, meant, object, path) {
                    wrong.push(format!(
                        "{} {path} {object:?}: {seen:?}, not {meant:?}: {ended:?}",
                        identity.name
                    ));
                }
                let reads = ["List", "Get", "Watch", "Read", "Plan", "Verify", "Diagnose"];
                let is_order = !reads.iter().any(|word| method.name().starts_with(word));
                if is_order && identity.known && matches!(meant, Verdict::Denied | Verdict::Unknown) {
                    let principal = if identity.narrowed { "admin" } else { identity.name };
                    refused_orders.insert((principal.to_owned(), method.name().to_owned()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {calls} calls: {wrong:#?}", wrong.len());
    assert!(calls > 2000 && refused_orders.len() > 150, "{calls} calls, {} orders", refused_orders.len());

    let mut told = BTreeSet::new();
    let mut before = 0;
    loop {
        let path = format!("/api/v2/audit/records?size=2000&beforeId={before}");
        let path = if before == 0 { "/api/v2/audit/records?size=2000".to_owned() } else { path };
        let records = world.fleet.admin().get(&path).await;
        let records = records.data()["contents"].as_array().cloned().expect("records");
        let Some(last) = records.last() else { break };
        before = last["id"].as_i64().expect("an id");
        for record in records.iter().filter(|record| record["decision"] == "DENY") {
            let text = |key: &str| record[key].as_str().expect("a text").to_owned();
            told.insert((text("principal"), text("action")));
        }
    }
    let missing: Vec<_> = refused_orders.difference(&told).collect();
    assert!(missing.is_empty(), "not in the audit trail: {missing:?}");
}

/// A route of the contract: its method, its path with the prefix, and the RPC that it leads to.
fn routes() -> Vec<(Method, String, String, bool)> {
    let (pool, methods) = methods();
    let extension = pool.get_extension_by_name("google.api.http").expect("google.api.http");
    let route = |(rpc, method): (String, MethodDescriptor)| {
        let options: DynamicMessage = method.options();
        if !options.has_extension(&extension) {
            return None;
        }
        let rule = options.get_extension(&extension).into_owned();
        let rule = rule.as_message().expect("a rule").clone();
        ["get", "post", "delete"].into_iter().find_map(|verb| {
            match rule.get_field_by_name(verb)?.into_owned() {
                Value::String(path) if !path.is_empty() => {
                    let verb = verb.to_uppercase().parse().expect("a method");
                    Some((verb, path, rpc.clone(), method.is_server_streaming()))
                }
                _ => None,
            }
        })
    };
    methods.into_iter().filter_map(route).collect()
}

/// A body that the gateway takes and the server would not.
fn body(rpc: &str, things: Things) -> String {
    let reason = "x".repeat(TOO_LONG);
    let hosts = [things.host];
    let body = match rpc.rsplit('/').next().expect("a name") {
        "UpdateHostLabels" => json!({"set": {"note": "x"}, "reason": reason}),
        "SetHostMaintenance" => json!({"on": true, "reason": reason}),
        "UpdateHostProfile" => json!({"alias": "x", "reason": reason}),
        "BatchDeleteHosts" => json!({"hostIdList": hosts, "reason": reason}),
        "BatchStopHostAgents" | "BatchRestartHostAgents" | "BatchStartHostAgents" => {
            json!({"hostIds": hosts, "reason": reason})
        }
        "PlanBatch" => json!({"verb": "STOP", "order": {"hostIds": hosts, "reason": reason}}),
        "BatchCreateHosts" => {
            json!({"hostBasicDataList": [{"innerIpAddress": "192.0.2.1"}], "idcId": 1, "typeId": 1, "reason": reason})
        }
        "CreateRegion" | "CreateHostType" => json!({"name": "x", "reason": reason}),
        "CreateIdc" => json!({"name": "x", "regionId": 1, "reason": reason}),
        "CreateUser" => json!({"name": "x", "password": "short", "roles": ["ADMIN"]}),
        "GrantRole" | "RevokeRole" => json!({"role": "ADMIN"}),
        "SetPassword" => json!({"password": "short"}),
        "CreateToken" => json!({"lifetimeSeconds": 1}),
        "CreateAccessKey" | "EnableAccessKey" | "DisableAccessKey" => json!({}),
        "ApproveWave" => json!({"reason": reason}),
        _ => json!({"reason": reason}),
    };
    body.to_string()
}

/// The same through the gateway, which decides nothing (hazards S13 and S15).
#[tokio::test]
async fn every_route_is_as_it_is_meant_for_everyone_about_everything() {
    let world = World::make().await;
    let identities = world.identities().await;
    let (mut calls, mut wrong) = (0, Vec::new());
    for identity in &identities {
        let client = world.fleet.anyone();
        // What only a gateway says is nothing that a caller may say of itself.
        let client = client.header("x-user", "admin").header("x-forwarded-user", "admin");
        let client = match &identity.authorization {
            Some(authorization) => client.header("authorization", authorization),
            None => client,
        };
        for (method, path, rpc, streams) in routes() {
            for &object in objects(&rpc) {
                let meant = expected(identity, &rpc, object);
                // A stream that is let does not end: gRPC has seen it.
                if streams && meant == Verdict::Let {
                    continue;
                }
                let answer = send(&client, identity, &method, &path, &rpc, world.of(object)).await;
                calls += 1;
                let seen = match answer.0 {
                    StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => Verdict::Unauthenticated,
                    StatusCode::FORBIDDEN => Verdict::Denied,
                    StatusCode::NOT_FOUND => Verdict::Unknown,
                    _ => Verdict::Let,
                };
                if !is_as_meant(seen, meant, object, &rpc) {
                    wrong.push(format!(
                        "{} {method} {path} {object:?}: {seen:?}, not {meant:?}: {}",
                        identity.name, answer.1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {calls} calls: {wrong:#?}", wrong.len());
    assert!(calls > 1500, "{calls} calls");
}

async fn send(
    client: &Client,
    identity: &Identity,
    method: &Method,
    path: &str,
    rpc: &str,
    things: Things,
) -> (StatusCode, String) {
    let path = path
        .replace("{host_id}", &things.host.to_string())
        .replace("{agent_process_id}", &things.process.to_string())
        .replace("{task_id}", &things.task.to_string())
        .replace("{subtask_id}", &things.subtask.to_string())
        .replace("{region_id}", "7")
        .replace("{idc_id}", "7")
        .replace("{host_type_id}", "7")
        .replace("{access_key_id}", "0123456789abcdef")
        .replace("{token_id}", "0123456789abcdef")
        .replace("{name}", if rpc.ends_with("SetPassword") { identity.name } else { "nobody" });
    let (path, body) = match *method {
        Method::POST => (path, body(rpc, things).into_bytes()),
        // Of users and keys nothing is asked why.
        Method::DELETE if path.contains("/compute/") => {
            (format!("{path}?reason={}", "x".repeat(TOO_LONG)), Vec::new())
        }
        _ => (path, Vec::new()),
    };
    let answer = client.call(method.clone(), &path, body).await;
    (answer.status, answer.text)
}

/// A foreign thing is answered exactly as one that there is not (hazards S07, S08 and S09).
#[tokio::test]
async fn a_foreign_thing_is_told_like_one_that_there_is_not() {
    let world = World::make().await;
    add_user(&world.fleet, "kim", vec![on(Role::HostManager, "team=a"), on(Role::TaskManager, "team=a")])
        .await;
    let authorization = basic("kim", &password("kim"));
    let identity = Identity {
        name: "kim",
        authorization: Some(authorization.clone()),
        known: true,
        narrowed: false,
        roles: Vec::new(),
    };
    let channel = world.fleet.channel();
    let mut compared = 0;
    for (path, method) in methods().1 {
        if !matches!(meant(&path), Some((_, About::Named))) {
            continue;
        }
        let mut told = Vec::new();
        for object in [Object::Missing, Object::Foreign, Object::Deleted] {
            let things = world.of(object);
            let ended =
                call(&channel, &path, Some(&authorization), request(&method, &identity, things)).await;
            let status = ended.expect_err("refused");
            let problem = Problem::from_status(&status).expect("a problem");
            let bare = |text: &str| {
                let text = text.replace(&format!("host {}", things.host), "host ID");
                let text = text.replace(&format!("hosts/{}", things.host), "hosts/ID");
                let text = text.replace(&format!("task {}", things.task), "task ID");
                text.replace(&format!("tasks/{}", things.task), "tasks/ID")
            };
            told.push((
                status.code(),
                problem.reason,
                bare(&problem.message),
                bare(&problem.hint),
                bare(&problem.target),
                problem.fields.len(),
            ));
        }
        assert_eq!(told[0], told[1], "{path}: foreign");
        assert_eq!(told[0], told[2], "{path}: deleted");
        compared += 1;
    }
    assert!(compared > 30, "{compared}");
    // What there is of one's own is there.
    let wire = world.fleet.wire_of("kim", &password("kim"));
    wire.tasks().get_task(GetTaskRequest { task_id: world.own.task }).await.expect("one's own");
}
