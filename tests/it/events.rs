//! Watching: first how things are, then what changes; over losses of the connection and of the server; and no longer than one
//! may.

use std::time::Duration;

use belay_proto::{
    Problem, Reason,
    v1::{
        CreateTokenRequest, CreateUserRequest, DeleteUserRequest, Role, WatchAgentProcessesRequest,
        WatchAgentProcessesResponse, WatchHostsRequest, WatchHostsResponse, WatchTaskRequest,
        watch_agent_processes_response::Event as OfProcess, watch_hosts_response::Event as OfHost,
    },
};
use belay_tests::{Fleet, HostSetup, PATIENCE, Wire, basic, wait_for};
use http::StatusCode;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tonic::{Status, Streaming};

use crate::fleet;

fn two_workers() -> HostSetup {
    HostSetup::new().worker("obstat2", "plain").worker("ob_cleaner", "plain")
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    timeout(PATIENCE, stream.message()).await.expect("an event in time")
}

async fn hosts(wire: &Wire, token: &str) -> Streaming<WatchHostsResponse> {
    let request = WatchHostsRequest { resume_token: token.into() };
    wire.hosts().watch_hosts(request).await.expect("watched").into_inner()
}

async fn processes(wire: &Wire, host_id: i64, token: &str) -> Streaming<WatchAgentProcessesResponse> {
    let request = WatchAgentProcessesRequest { host_id, resume_token: token.into() };
    wire.processes().watch_agent_processes(request).await.expect("watched").into_inner()
}

#[track_caller]
fn reason(ended: Result<Option<impl Sized>, Status>) -> Reason {
    let status = ended.err().expect("it ends with a reason");
    Problem::from_status(&status).unwrap_or_else(|| panic!("no reason: {status:?}")).reason
}

/// How a process is, then that it is stopped: in between nothing is lost, and who comes back with a token goes on.
#[tokio::test]
async fn changes_of_processes_are_told_from_the_state_on() {
    let mut fleet = fleet(vec![two_workers()]).await;
    let (wire, host) = (fleet.wire(), fleet.host_id(0).await);
    let mut stream = processes(&wire, host, "").await;
    let begins = next(&mut stream).await.expect("told").expect("an event");
    assert!(matches!(begins.event, Some(OfProcess::Begins(_))), "{begins:?}");
    let mut known = Vec::new();
    let mut token = String::new();
    for _ in 0..2 {
        let told = next(&mut stream).await.expect("told").expect("an event");
        token = told.resume_token;
        match told.event {
            Some(OfProcess::Process(process)) => known.push((process.alias, process.pid)),
            other => panic!("{other:?}"),
        }
    }
    known.sort();
    assert_eq!(known.iter().map(|(alias, _)| &alias[..]).collect::<Vec<_>>(), ["ob_cleaner", "obstat2"]);
    assert!(known.iter().all(|(_, pid)| *pid > 0), "{known:?}");

    let stop = format!("{}/stop", fleet.process_path(0, "obstat2").await);
    assert_eq!(fleet.admin().post(&stop).await.status, StatusCode::OK);
    let is_stopped = |told: WatchAgentProcessesResponse| match told.event {
        Some(OfProcess::Process(process)) => process.alias == "obstat2" && process.pid == 0,
        other => panic!("{other:?}"),
    };
    while !is_stopped(next(&mut stream).await.expect("told").expect("an event")) {}

    // Away meanwhile: only what changed since, without a beginning.
    let mut again = processes(&wire, host, &token).await;
    while !is_stopped(next(&mut again).await.expect("told").expect("an event")) {}

    // Of another life of the server: it begins anew, and says so.
    fleet.server.end();
    assert_eq!(reason(next(&mut again).await), Reason::ShuttingDown);
    fleet.server.start();
    fleet.wait_until_ready().await;
    fleet.host_id(0).await;
    let mut anew = processes(&fleet.wire(), host, &token).await;
    let begins = next(&mut anew).await.expect("told").expect("an event");
    assert!(matches!(begins.event, Some(OfProcess::Begins(_))), "{begins:?}");
    let request = WatchAgentProcessesRequest { host_id: host, resume_token: "garbage".into() };
    let refused = fleet.wire().processes().watch_agent_processes(request).await.map(|_| Some(()));
    assert_eq!(reason(refused), Reason::InvalidArgument);
    let request = WatchAgentProcessesRequest { host_id: 999, ..Default::default() };
    let refused = fleet.wire().processes().watch_agent_processes(request).await.map(|_| Some(()));
    assert_eq!(reason(refused), Reason::HostUnknown);
}

/// A host that goes silent is told, although nothing was said: time alone changes it.
#[tokio::test]
async fn a_silent_host_is_told() {
    let mut fleet = fleet(vec![two_workers()]).await;
    let mut stream = hosts(&fleet.wire(), "").await;
    let offline = async |stream: &mut Streaming<WatchHostsResponse>| loop {
        let told = next(stream).await.expect("told").expect("an event");
        match told.event {
            Some(OfHost::Host(host)) if host.status().as_str_name() == "HOST_STATUS_OFFLINE" => return,
            Some(OfHost::Host(_) | OfHost::Begins(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    fleet.host_id(0).await;
    fleet.agent(0).kill();
    offline(&mut stream).await;
}

/// Hazard S05: who may no longer, hears no longer: a user that is removed, and a token that ends.
#[tokio::test]
async fn a_stream_ends_with_the_right_to_it() {
    let fleet = fleet(vec![two_workers()]).await;
    let request = CreateUserRequest {
        name: "viewer".into(),
        roles: vec![Role::HostViewer.into()],
        password: "viewer has a password".into(),
        ..Default::default()
    };
    fleet.wire().users().create_user(request).await.expect("added");
    let viewer = fleet.wire_of("viewer", "viewer has a password");
    let mut stream = hosts(&viewer, "").await;
    let token = viewer
        .users()
        .create_token(CreateTokenRequest { lifetime_seconds: 60, ..Default::default() })
        .await
        .expect("made");
    let bearer = fleet.wire_with(&format!("Bearer {}", token.into_inner().token));
    let mut by_token = hosts(&bearer, "").await;
    next(&mut stream).await.expect("told");
    next(&mut by_token).await.expect("told");
    // Who may see hosts may see no tasks.
    let refused = viewer.tasks().watch_task(WatchTaskRequest { task_id: 1, ..Default::default() }).await;
    assert_eq!(reason(refused.map(|_| Some(()))), Reason::PermissionDenied);

    fleet.wire().users().delete_user(DeleteUserRequest { name: "viewer".into() }).await.expect("removed");
    for stream in [&mut stream, &mut by_token] {
        let ended = loop {
            match next(stream).await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        };
        assert_eq!(reason(ended), Reason::Unauthenticated);
    }
}

/// One user can not take all streams.
#[tokio::test]
async fn streams_are_counted() {
    let fleet = fleet(vec![]).await;
    let wire = fleet.wire();
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(hosts(&wire, "").await);
    }
    let refused = wire.hosts().watch_hosts(WatchHostsRequest::default()).await.map(|_| Some(()));
    assert_eq!(reason(refused), Reason::Overloaded);
    streams.pop();
    wait_for("there is room again", async || {
        let again = wire.hosts().watch_hosts(WatchHostsRequest::default()).await;
        again.map(|_| ()).map_err(|status| status.to_string())
    })
    .await;
}

/// Server-sent events as curl sees them.
struct Events(BufReader<TcpStream>);

impl Events {
    async fn open(fleet: &Fleet, path: &str, last: Option<&str>) -> (String, Self) {
        let mut stream = TcpStream::connect((fleet.address(), 8080)).await.expect("connected");
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let credentials = basic("admin", fleet.password());
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: belay\r\nauthorization: {credentials}\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).await.expect("a head");
        }
        (head.to_lowercase(), Self(reader))
    }

    /// The next event: its id, kind and data. `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        let (mut id, mut kind) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("in time").expect("read");
            if read == 0 {
                return None;
            }
            // Lines of the chunked coding are no lines of events.
            match line.trim_end().split_once(": ") {
                Some(("id", value)) => id = value.into(),
                Some(("event", value)) => kind = value.into(),
                Some(("data", value)) => {
                    return Some((id, kind, serde_json::from_str(value).expect("JSON")));
                }
                _ => {}
            }
        }
    }
}

/// The same for REST callers: a browser goes on by itself, with the id of the last event.
#[tokio::test]
async fn a_rest_caller_watches_by_server_sent_events() {
    let mut fleet = fleet(vec![two_workers()]).await;
    let host = fleet.host_id(0).await;
    let path = format!("/api/v2/compute/hosts/{host}/agent/processes/watch");
    let (head, mut events) = Events::open(&fleet, &path, None).await;
    assert!(head.starts_with("http/1.1 200 ") && head.contains("text/event-stream"), "{head}");
    assert_eq!(events.next().await.expect("an event").1, "begins");
    let mut last = String::new();
    for _ in 0..2 {
        let (id, kind, data) = events.next().await.expect("an event");
        assert_eq!((kind.as_str(), &data["status"]), ("process", &"STARTED".into()), "{data:#}");
        last = id;
    }
    drop(events);
    let stop = format!("{}/stop", fleet.process_path(0, "obstat2").await);
    assert_eq!(fleet.admin().post(&stop).await.status, StatusCode::OK);
    let (_, mut events) = Events::open(&fleet, &path, Some(&last)).await;
    loop {
        let (_, kind, data) = events.next().await.expect("an event");
        assert_eq!(kind, "process", "it does not begin anew");
        if data["alias"] == "obstat2" && data["status"] == "STOPPED" {
            break;
        }
    }
    // All hosts; and a task to its end.
    let (_, mut of_hosts) = Events::open(&fleet, "/compute/hosts/watch", None).await;
    assert_eq!(of_hosts.next().await.expect("an event").1, "begins");
    let (_, kind, data) = of_hosts.next().await.expect("an event");
    assert_eq!((kind.as_str(), &data["id"]), ("host", &host.into()), "{data:#}");
    let task = fleet.admin().post(&format!("{}/stop", fleet.agent_path(0).await)).await;
    let path = format!("/api/v2/tasks/instances/{}/watch", task.data()["id"]);
    let (_, mut of_task) = Events::open(&fleet, &path, None).await;
    let (mut status, mut version) = (Value::Null, String::new());
    let end = loop {
        let (id, kind, data) = of_task.next().await.expect("an event");
        if kind == "end" {
            break data;
        }
        (status, version) = (data["status"].clone(), id);
    };
    assert_eq!((&end["reason"], &status), (&"ENDED".into(), &"SUCCESSFUL".into()));
    let (_, mut nothing_new) = Events::open(&fleet, &path, Some(&version)).await;
    assert_eq!(nothing_new.next().await.expect("an event").1, "end");

    // Refused before it begins: in the envelope.
    let refused = fleet.admin().get("/api/v2/tasks/instances/999999/watch").await;
    assert_eq!((refused.status.as_u16(), refused.reason()), (404, "TASK_UNKNOWN"), "{}", refused.text);
    let refused = fleet.anyone().get("/api/v2/compute/hosts/watch").await;
    assert_eq!(refused.status.as_u16(), 401, "{}", refused.text);

    // The gateway ends in order: whoever listens is told, and it does not wait for them.
    let begun = std::time::Instant::now();
    fleet.gateway.end();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let end = loop {
        let (_, kind, data) = of_hosts.next().await.expect("an event");
        if kind == "end" {
            break data;
        }
    };
    assert_eq!(end["reason"], "SHUTTING_DOWN");
}
