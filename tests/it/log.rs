//! What processes print, through agent and server to whoever asks.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use belay_proto::{
    Problem, Reason,
    v1::{CreateUserRequest, ReadAgentProcessLogRequest, Role, read_agent_process_log_request::From},
};
use belay_tests::{Fleet, HostSetup, PATIENCE, Wire, wait_for};
use rustix::process::{Pid, Signal, kill_process};

use crate::fleet;

fn belay_log(fleet: &Fleet, arguments: &[&str]) -> Command {
    let mut command = Command::new(fleet.program());
    command
        .arg("log")
        .args(arguments)
        .env("BELAY_SERVER", fleet.server_address())
        .env("BELAY_CA_FILE", fleet.ca_file())
        .env("BELAY_USER", "admin")
        .env("BELAY_PASSWORD", fleet.password())
        .env_remove("RUST_LOG");
    command
}

/// The numbers of the lines that a talker printed; fails where one is not a line of it.
fn numbers(text: &str) -> Vec<u64> {
    let number = |line: &str| line.strip_prefix("line ").and_then(|number| number.parse().ok());
    text.lines().map(|line| number(line).unwrap_or_else(|| panic!("{line:?}"))).collect()
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
    kill_process(pid, Signal::INT).expect("signalled");
}

/// The server is killed and comes back, the agent too; each line is printed once, and Ctrl-C ends it well.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_over_the_loss_of_server_and_agent() {
    let mut fleet = fleet(vec![HostSetup::new().worker("talker", "talker")]).await;
    let printed = fleet.folder().join("printed");
    let file = File::create(&printed).expect("a file");
    let mut child = belay_log(&fleet, &["-f", "host-1", "talker"]).stdout(file).spawn().expect("started");
    let read = || numbers(&std::fs::read_to_string(&printed).expect("printed"));
    let more_than = async |count: u64| {
        wait_for("more lines", async || {
            let numbers = read();
            if numbers.last().is_some_and(|last| *last > count) { Ok(()) } else { Err(numbers.len()) }
        })
        .await;
    };
    more_than(5).await;
    fleet.server.kill();
    fleet.server.start();
    let last = read().pop().expect("a line");
    more_than(last + 50).await;
    fleet.agent(0).kill();
    fleet.agent(0).start();
    let last = read().pop().expect("a line");
    more_than(last + 50).await;
    interrupt(&child);
    assert_eq!(child.wait().expect("waited").code(), Some(0), "Ctrl-C is how following ends");
    let numbers = read();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_printed_as_it_is_asked_for() {
    let fleet = fleet(vec![HostSetup::new().worker("talker", "talker")]).await;
    let run = |arguments: &[&str]| {
        let ran = belay_log(&fleet, arguments).output().expect("ran");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (ran.status.code().expect("an exit code"), text(ran.stdout), text(ran.stderr))
    };
    wait_for("some lines", async || {
        let (code, out, err) = run(&["talker"]);
        if code == 0 && out.lines().count() > 10 { Ok(()) } else { Err((code, out, err)) }
    })
    .await;
    let (_, out, _) = run(&["-n", "3", "talker"]);
    assert_eq!(numbers(&out).len(), 3);
    let (_, out, _) = run(&["--offset", "7", "host-1", "talker"]);
    assert_eq!(numbers(&out)[0], 1);
    let own = fleet.folder().canonicalize().expect("a folder").join("host-1-state/log/talker.log");
    let (code, out, err) = run(&["--file", &own.display().to_string(), "talker"]);
    assert!(code == 0 && numbers(&out)[0] == 0, "{err}");

    // Hazard I08, from the far end.
    let (code, out, err) = run(&["--file", "/etc/passwd", "talker"]);
    assert!(code == 4 && out.is_empty() && err.contains("hint: "), "{err}");
    let (code, _, err) = run(&["nobody"]);
    assert!(code == 3 && err.contains("no process `nobody`"), "{code}: {err}");

    // Whoever closes the pipe ends it, also where nothing more is printed.
    let mut child =
        belay_log(&fleet, &["-f", "-n", "1", "talker"]).stdout(Stdio::piped()).spawn().expect("ran");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(numbers(&line).len(), 1);
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let ended =
        tokio::time::timeout(PATIENCE, ended).await.expect("it ends").expect("waited").expect("waited");
    assert_eq!(ended.code(), Some(0));
}

/// Hazard S09: a process is read under its own host only; and by users who may read hosts.
#[tokio::test]
async fn only_who_may_read_a_host_reads_its_logs() {
    let setup = || HostSetup::new().worker("talker", "talker");
    let fleet = fleet(vec![setup(), setup()]).await;
    let id = async |host: usize| fleet.process(host, "talker").await["id"].as_i64().expect("an id");
    let (first, second) = (fleet.host_id(0).await, fleet.host_id(1).await);
    let request = |host_id, agent_process_id| ReadAgentProcessLogRequest {
        host_id,
        agent_process_id,
        from: Some(From::LastLines(1)),
        ..Default::default()
    };
    let read = async |wire: &Wire, host_id, id| {
        let mut pieces = wire.processes().read_agent_process_log(request(host_id, id)).await?.into_inner();
        pieces.message().await
    };
    let told = |refused: Result<_, tonic::Status>| {
        refused
            .map(|_: Option<_>| ())
            .map_err(|status| Problem::from_status(&status).map(|problem| problem.reason))
    };
    let admin = fleet.wire();
    // A busy machine may keep an agent from reporting for a moment.
    let readable = async |wire: &Wire, host, id| {
        wait_for("the log", async || told(read(wire, host, id).await)).await;
    };
    readable(&admin, first, id(0).await).await;
    assert_eq!(told(read(&admin, second, id(0).await).await), Err(Some(Reason::ProcessUnknown)));
    assert_eq!(told(read(&admin, 999, id(0).await).await), Err(Some(Reason::HostUnknown)));
    assert_eq!(told(read(&admin, 0, 0).await), Err(Some(Reason::InvalidArgument)));

    let create = async |role: Role| {
        let name = format!("{role:?}").to_lowercase();
        let password = "another password".to_owned();
        let user = CreateUserRequest {
            name: name.clone(),
            roles: vec![role.into()],
            password,
            ..Default::default()
        };
        admin.users().create_user(user).await.expect("created");
        fleet.wire_of(&name, "another password")
    };
    readable(&create(Role::HostViewer).await, second, id(1).await).await;
    let stranger = create(Role::TaskManager).await;
    assert_eq!(told(read(&stranger, second, id(1).await).await), Err(Some(Reason::PermissionDenied)));
}
