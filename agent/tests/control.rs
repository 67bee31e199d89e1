//! What a person on the host can do without a server: the program `belay-agent ctl` against a real agent.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[allow(dead_code, reason = "each test program needs a part of it")]
mod host;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use belay_proto::{
    Problem, Reason,
    agent::v1::{ObservedProcess, Operation, OperationState, ProcessPhase},
};
use host::{Ctl, Host, alive, eventually};
use rustix::process::Signal;
use tonic::{Code, Status};

const SLEEPER: &str = "command = \"/bin/sleep\"\nargs = [\"1000\"]";

/// A process that ignores the signal that asks it to end.
const DEAF: &str = "command = \"/bin/sh\"\nargs = [\"-c\", \"trap '' TERM; while :; do sleep 0.05; done\"]\nstop = { grace = \"20s\" }";

/// What was ordered here, as the server was told of it.
fn reported(host: &Host) -> Vec<(String, String, Vec<String>)> {
    let all = host.server.local_operations();
    all.into_iter().map(|operation| (operation.verb, operation.principal, operation.aliases)).collect()
}

fn expected(verb: &str, aliases: &[&str]) -> (String, String, Vec<String>) {
    let user = uzers::get_current_username().unwrap().to_string_lossy().into_owned();
    let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
    (verb.to_owned(), format!("local:{user}"), aliases)
}

/// With every server gone a person sees what is and orders what is to be; it holds over a restart of the agent, and the
/// server learns of it later, once.
#[tokio::test]
async fn everything_works_without_a_server() {
    let base = format!("{SLEEPER}\noperable = false");
    let mut host = Host::start(&[("worker", SLEEPER), ("base", &base)]).await;
    host.server.hello().await;
    host.ctl(&["status"]).await.check(0, &["host-1", "reporting", "journal  good"]);
    host.server.go_away();
    let pid = host.process("worker").await.pid;
    host.ctl(&["ps"]).await.check(0, &["ALIAS", "worker  running", &pid.to_string()]);

    host.ctl(&["stop", "worker"]).await.check(0, &["worker  stopped"]);
    assert!(!alive(pid), "the answer is the proof");
    let why = host.ctl(&["why", "worker"]).await;
    why.check(0, &["worker is stopped, because local:", "last exit   SIGTERM", "start worker"]);
    host.ctl(&["restart", "base"]).await.check(0, &["base   running"]);
    host.ctl(&["status"]).await.check(0, &["not reporting"]);

    host.ctl(&["stop", "x"]).await.check(3, &["`x`"]);
    host.ctl(&["why", "x"]).await.check(3, &["`x`", "ps`"]);
    host.ctl(&["stop"]).await.check(2, &["--all"]);
    host.ctl(&["stop", "../x"]).await.check(2, &["not an alias"]);
    host.ctl(&["log", "x"]).await.check(3, &["`x`"]);

    host.end().await;
    host.ctl(&["ps"]).await.check(6, &["no agent runs there", "--state"]);
    host.begin().await;
    assert_eq!(host.process("worker").await.phase(), ProcessPhase::Stopped);
    host.ctl(&["start", "--all"]).await.check(0, &["worker  running"]);
    assert!(reported(&host).is_empty());

    host.server.come_back().await;
    let all = [
        expected("stop", &["worker"]),
        expected("restart", &["base"]),
        expected("start", &["base", "worker"]),
    ];
    eventually(|| reported(&host).len() >= all.len()).await;
    assert_eq!(reported(&host), all);
    // Acknowledged, they are not told again: neither on another stream nor by another life of the agent.
    let heartbeats = host.server.heartbeats();
    eventually(|| host.server.heartbeats() > heartbeats).await;
    host.crash().await;
    host.begin().await;
    host.ctl(&["stop", "--all"]).await.check(0, &[]);
    eventually(|| reported(&host).len() > all.len()).await;
    assert_eq!(reported(&host)[all.len()..], [expected("stop", &["base", "worker"])]);
}

#[tokio::test]
async fn a_failure_is_told_and_reported() {
    let missing = "command = \"/nowhere/at/all\"\nrestart = \"never\"";
    let host = Host::start(&[("worker", SLEEPER)]).await;
    host.edit(|text| format!("{text}\n[[process]]\nalias = \"missing\"\n{missing}\n"));
    host.ctl(&["reload"]).await.check(0, &["starts  missing"]);
    host.ctl(&["start", "missing"]).await.check(1, &["error:", "/nowhere/at/all", "why"]);
    host.ctl(&["why", "missing"]).await.check(0, &["missing has failed", "/nowhere/at/all", "start missing"]);
    eventually(|| !host.server.local_operations().is_empty()).await;
    let told = host.server.local_operations().remove(0);
    assert_eq!(told.reason, "START_FAILED");
    assert!(told.message.contains("/nowhere/at/all") && told.accept_time.is_some(), "{told:?}");
}

#[tokio::test]
async fn output_is_shown() {
    let speaker =
        "command = \"/bin/sh\"\nargs = [\"-c\", \"for n in 1 2 3; do echo line $n; done; exec sleep 1000\"]";
    let host = Host::start(&[("speaker", speaker)]).await;
    let mut told = host.ctl(&["log", "speaker"]).await;
    while !told.stdout.contains("line 3\n") {
        tokio::time::sleep(Duration::from_millis(10)).await;
        told = host.ctl(&["log", "speaker"]).await;
    }
    told.check(0, &["line 1\nline 2\nline 3\n"]);
    assert_eq!(host.ctl(&["log", "-n", "1", "speaker"]).await.stdout, "line 3\n");
    // Whoever follows is told of what comes, for as long as it does.
    let mut follow = Command::new(env!("CARGO_BIN_EXE_belay-agent"));
    follow.arg("ctl").arg("--state").arg(host.state()).args(["log", "-f", "-n", "1", "speaker"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(20), told.recv()).await;
        line.expect("a line").expect("the program has ended")
    };
    assert_eq!(next().await, "line 3");
    host.ctl(&["restart", "speaker"]).await.check(0, &[]);
    for line in ["line 1", "line 2", "line 3"] {
        assert_eq!(next().await, line);
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[tokio::test]
async fn a_forced_stop_does_not_wait() {
    let host = Host::start(&[("deaf", DEAF)]).await;
    let began = Instant::now();
    host.ctl(&["force", "deaf"]).await.check(0, &["deaf   stopped"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    host.ctl(&["why", "deaf"]).await.check(0, &["deaf is stopped", "force by local:", "SIGKILL"]);
    eventually(|| reported(&host) == [expected("force", &["deaf"])]).await;
}

/// Hazard U09: a broken file changes nothing and is told; and what is going to be done is told before.
#[tokio::test]
async fn the_configuration_is_read_again() {
    let host = Host::start(&[("args", SLEEPER), ("gone", SLEEPER), ("same", SLEEPER)]).await;
    assert_eq!(host.server.hello().await.processes.len(), 3);
    let before = host.inventory().await;
    host.edit(|text| format!("{text}\nnonsense = 1\n"));
    host.ctl(&["reload"]).await.check(2, &["`nonsense`", "nothing was changed"]);
    host.signal(Signal::HUP);
    eventually(|| host.log().contains("The configuration was not read again")).await;
    host.edit(|text| {
        let text = text.replace("nonsense = 1\n", "").replace("alias = \"gone\"", "alias = \"new\"");
        text.replacen("1000", "1001", 1).replace("host-1", "host-2")
    });
    let told = ["restart", "args (args)", "start", "new", "stop", "gone", "name: until"];
    host.ctl(&["reload", "--dry-run"]).await.check(0, &told);
    let pids = |all: &[ObservedProcess]| all.iter().map(|p| (p.alias.clone(), p.pid)).collect::<Vec<_>>();
    assert_eq!(pids(&host.inventory().await), pids(&before), "it was only asked");
    host.ctl(&["reload"]).await.check(0, &told);
    let in_force = async {
        loop {
            let hello = host.server.hello().await;
            let aliases: Vec<_> = hello.processes.iter().map(|process| process.alias.as_str()).collect();
            if aliases == ["args", "new", "same"] {
                break;
            }
        }
        while host.process("args").await.start_command != "/bin/sleep 1001" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_force = tokio::time::timeout(Duration::from_secs(20), in_force).await;
    in_force.expect("neither the server nor the process ever learned of it");
    let same = host.process("same").await;
    assert!(before.iter().any(|process| process.pid == same.pid), "what does not differ goes on");
    host.ctl(&["reload"]).await.check(0, &["name: until"]);
    host.ctl(&["stop", "same"]).await.check(0, &[]);
    host.edit(|text| text.replace("1000", "1002"));
    host.signal(Signal::HUP);
    eventually(|| host.log().matches("The configuration is in force").count() == 1).await;
    let stopped = host.process("same").await;
    assert_eq!((stopped.phase(), stopped.generation), (ProcessPhase::Stopped, 1));
    host.ctl(&["start", "same"]).await.check(0, &[]);
    assert_eq!(host.process("same").await.start_command, "/bin/sleep 1002");
}

/// Hazards A08 and A01: neither SIGHUP nor a crash cancels a stop of the host itself.
#[tokio::test]
async fn a_stop_goes_on_whatever_happens_to_the_agent() {
    let deaf = DEAF.replace("20s", "2s");
    let mut host = Host::start(&[("deaf", &deaf), ("other", SLEEPER)]).await;
    let pid = host.process("deaf").await.pid;
    let began = Instant::now();
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_belay-agent"));
    ctl.arg("ctl").arg("--socket").arg(host.state().join("control.sock")).args(["stop", "deaf"]);
    let stop = tokio::spawn(Ctl::of(ctl));
    eventually(|| host.log().contains("Stop signal sent")).await;
    host.edit(|text| text.replace("0.05", "0.06").replace("2s", "9s"));
    host.signal(Signal::HUP);
    eventually(|| host.log().contains("The configuration is in force")).await;
    assert_eq!(host.process("deaf").await.phase(), ProcessPhase::Stopping);
    host.crash().await;
    assert_eq!(stop.await.unwrap().code, 6, "nobody knows how it ended");
    host.begin().await;
    eventually(|| !alive(pid)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    eventually(|| host.server.local_operations().len() == 1).await;
    host.ctl(&["why", "deaf"]).await.check(0, &["deaf is stopped", "it had to be killed"]);
}

/// Hazards A03 and A04: the socket of a crashed agent is in nobody's way, that of a living one is left alone.
#[tokio::test]
async fn the_socket_is_that_of_the_living_agent() {
    let mut host = Host::start(&[("worker", SLEEPER)]).await;
    let socket = host.state().join("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    host.run_a_second().await;
    host.ctl(&["ps"]).await.check(0, &["worker"]);
    host.crash().await;
    host.ctl(&["ps"]).await.check(6, &["nobody listens", "takes its processes back"]);
    host.begin().await;
    host.ctl(&["ps"]).await.check(0, &["worker"]);
    host.end().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_stranger_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become a stranger");
        return;
    }
    let host = Host::start(&[("worker", SLEEPER)]).await;
    // Where a stranger finds it, whoever built it.
    let program = host.folder().join("belay-agent");
    fs::copy(env!("CARGO_BIN_EXE_belay-agent"), &program).unwrap();
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(host.folder(), 0o755);
    open(&program, 0o755);
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command.arg("ctl").arg("--state").arg(host.state()).args(["stop", "--all"]);
        Ctl::of(command)
    };
    as_nobody().await.check(4, &["you may not open", "root"]);
    // The rights of files are the first door only.
    open(&host.state(), 0o755);
    open(&host.state().join("control.sock"), 0o666);
    as_nobody().await.check(4, &["65534 may not tell this agent anything", "hint: run it as root"]);
    assert_eq!(host.process("worker").await.phase(), ProcessPhase::Running);
}

/// A person takes the host out of the server's hands, over another life of the agent, and gives it back.
#[tokio::test]
async fn the_host_has_the_last_word() {
    let mut host = Host::start(&[("worker", SLEEPER), ("db", SLEEPER)]).await;
    let refused = |answer: Result<Operation, Status>| {
        answer.map(drop).map_err(|status| Problem::from_status(&status).unwrap().reason)
    };
    host.edit(|text| format!("{text}\n[policy]\nprotect = [\"nobody\"]\n"));
    host.ctl(&["reload"]).await.check(2, &["there is no process `nobody`"]);
    host.edit(|text| text.replace("nobody", "db"));
    host.ctl(&["reload"]).await.check(0, &["applies  policy"]);
    assert_eq!(refused(host.stop("db").await), Err(Reason::ProcessProtected));
    let stopped = host.stop_all().await.unwrap();
    assert_eq!((stopped.state(), &stopped.reason[..]), (OperationState::Failed, "PROCESS_PROTECTED"));
    assert!(alive(host.process("db").await.pid));
    host.ctl(&["start", "worker"]).await.check(0, &[]);

    let on = host.ctl(&["maintenance", "on", "--reason", "new disk"]).await;
    on.check(0, &["refused by local:", ": new disk", "may not stop or restart: db"]);
    host.crash().await;
    host.begin().await;
    host.ctl(&["status"]).await.check(0, &["orders", "refused by local:", "new disk"]);
    assert_eq!(refused(host.stop("worker").await), Err(Reason::AgentRefuses));
    assert_eq!(refused(host.start_process("worker").await), Err(Reason::AgentRefuses));
    host.ctl(&["restart", "worker"]).await.check(0, &["worker  running"]);
    host.ctl(&["maintenance", "on", "--reason", "two\nlines"]).await.check(2, &["on one line"]);
    host.ctl(&["maintenance", "off"]).await.check(0, &["the server's orders are taken"]);
    assert_eq!(refused(host.stop("worker").await), Ok(()));

    assert_eq!(refused(host.stop_in_epoch("worker", 9).await), Ok(()));
    assert_eq!(refused(host.stop_in_epoch("worker", 3).await), Err(Reason::StaleEpoch));
    host.ctl(&["forget-epoch"]).await.check(0, &["epoch 9 is forgotten"]);
    assert_eq!(refused(host.stop_in_epoch("worker", 3).await), Ok(()));
}

/// What is larger than any order is not read, and what is kept of an order is bounded.
#[tokio::test]
async fn an_order_of_any_size_hurts_nobody() {
    let host = Host::start(&[("worker", SLEEPER)]).await;
    let large = host.stop(&"x".repeat(2 << 20)).await.unwrap_err();
    assert_eq!(large.code(), Code::OutOfRange, "{large:?}");
    host.stop_by("worker", &"admin\n".repeat(100_000)).await.unwrap();
    let journal = fs::read_to_string(host.state().join("journal")).unwrap();
    assert!(journal.len() < 100_000, "{}", journal.len());
    host.ctl(&["why", "worker"]).await.check(0, &["worker is stopped, because admin admin"]);
}
