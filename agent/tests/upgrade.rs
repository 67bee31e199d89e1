//! Another program takes over in place, by exec of itself.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

#[allow(dead_code, reason = "each test program needs a part of it")]
mod host;

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use belay_proto::{
    Problem, Reason,
    agent::v1::{ObservedProcess, OperationState, ProcessPhase},
};
use host::{Host, Way, alive, eventually, install, operation_id};
use rustix::fs::{CWD, FileType, Mode, mknodat};

const SLEEPER: &str = "command = \"/bin/sleep\"\nargs = [\"1000\"]";

/// A process that ignores the signal that asks it to end.
const DEAF: &str = "command = \"/bin/sh\"\nargs = [\"-c\", \"trap '' TERM; while :; do sleep 0.05; done\"]\nstop = { grace = \"2s\" }";

fn own_program(settings: &str) -> Way {
    Way { own_program: true, settings: settings.to_owned(), ..Way::default() }
}

fn installed(host: &Host) -> PathBuf {
    host.folder().join("belay-agent")
}

fn install_script(host: &Host, text: &[u8]) {
    let path = host.folder().join("script");
    fs::write(&path, text).unwrap();
    install(&path, &installed(host));
}

fn own_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_belay-agent"))
}

/// The file of the program that runs in this process.
fn program_of(pid: i32) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino()
}

fn parent_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(1).unwrap().parse().unwrap()
}

fn lives(all: &[ObservedProcess]) -> Vec<(&str, i32, u64)> {
    all.iter().map(|process| (process.alias.as_str(), process.pid, process.generation)).collect()
}

/// Connects again and again until it is told to stop, and counts how often nobody listened.
fn knock(address: String, done: Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        let mut refused = 0;
        while !done.load(Ordering::Relaxed) {
            refused += usize::from(TcpStream::connect(&address).is_err());
            thread::sleep(Duration::from_millis(1));
        }
        refused
    })
}

/// Hazard A09: processes go on as children of the same process, orders keep their epoch, and nobody who connects is refused.
#[tokio::test]
async fn another_program_takes_over_and_no_process_notices() {
    for mode in ["auto", "off"] {
        let seven = "command = \"/bin/sh\"\nargs = [\"-c\", \"read line < go; exit 7\"]\nrestart = \"never\"";
        let cwd = format!("{seven}\ncwd = \"FOLDER\"");
        let processes = [("one", SLEEPER), ("seven", cwd.as_str()), ("two", SLEEPER)];
        // Whoever knocks is the same peer as who looks.
        let settings = format!("cgroup = \"{mode}\"\nconnections.most_of_local_peer = 100000\n");
        let mut host = Host::prepare(&processes, own_program(&settings)).await;
        let folder = host.folder().display().to_string();
        host.edit(|text| text.replace("FOLDER", &folder));
        mknodat(CWD, host.folder().join("go"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        host.begin().await;
        host.stop_in_epoch("two", 5).await.unwrap();
        let (before, agent) = (host.inventory().await, host.pid());
        let done = Arc::new(AtomicBool::new(false));
        let knocking = knock(host.address().to_owned(), done.clone());
        for _ in 0..3 {
            install(own_binary(), &installed(&host));
            let old = program_of(agent);
            host.ctl(&["upgrade"]).await.check(0, &["took over", &format!("as pid {agent}"), "alive: 2"]);
            assert_ne!(program_of(agent), old, "the new program runs");
            assert_eq!(program_of(agent), fs::metadata(installed(&host)).unwrap().ino());
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(knocking.join().unwrap(), 0, "somebody was refused");
        let after = host.inventory().await;
        assert_eq!(lives(&after), lives(&before));
        for process in after.iter().filter(|process| process.pid != 0) {
            assert_eq!(parent_of(process.pid), agent, "{process:?}");
        }
        let refused = host.stop_in_epoch("one", 4).await.unwrap_err();
        assert_eq!(Problem::from_status(&refused).unwrap().reason, Reason::StaleEpoch);
        // It is a child, whoever started it: how it ends is known.
        fs::write(host.folder().join("go"), "\n").unwrap();
        let seven = host.shows_phase("seven", ProcessPhase::Failed).await;
        assert_eq!(seven.last_exit.unwrap().exit_code, Some(7));
        assert_eq!(host.stop_in_epoch("one", 6).await.unwrap().state(), OperationState::Done);
    }
}

/// Hazard A09: who ends while neither program runs is still a child: how it ended is not lost, and no zombie stays.
#[tokio::test]
async fn what_ends_between_two_programs_is_known() {
    if !Path::new("/usr/bin/perl").exists() {
        eprintln!("skipped: there is no perl");
        return;
    }
    let waits =
        "command = \"/bin/sh\"\nargs = [\"-c\", \"read line < FOLDER/go; exit 7\"]\nrestart = \"never\"";
    let mut host = Host::prepare(&[("waits", waits)], own_program("")).await;
    let folder = host.folder().display().to_string();
    host.edit(|text| text.replace("FOLDER", &folder));
    mknodat(CWD, host.folder().join("go"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    host.begin().await;
    let pid = host.process("waits").await.pid;
    fs::rename(installed(&host), host.folder().join("real")).unwrap();
    // Not a shell: that waits for whatever child it has, and takes the status.
    let between = format!(
        "#!/usr/bin/perl\nunless (\"@ARGV\" =~ /--would-run/) {{\n  open(GO, '>', '{folder}/go'); print GO \"\\n\"; close(GO);\n  do {{ open(STAT, '<', '/proc/{pid}/stat'); $stat = <STAT>; close(STAT) }} until $stat =~ /\\) Z /;\n}}\nexec '{folder}/real', @ARGV;\n"
    );
    install_script(&host, between.as_bytes());
    host.ctl(&["upgrade"]).await.check(0, &["took over", "alive: 0"]);
    let exit = host.process("waits").await.last_exit.unwrap();
    assert_eq!((exit.pid, exit.exit_code), (pid, Some(7)), "{exit:?}");
    let agent = host.pid();
    let children = || fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    eventually(|| children().is_empty()).await;
}

/// Hazard A09: a stop that is under way ends by its first deadline, and whoever asked gets the answer from the next program.
#[tokio::test]
async fn a_stop_goes_on_through_an_upgrade() {
    let host = Host::start_so(&[("deaf", DEAF)], own_program("")).await;
    let pid = host.process("deaf").await.pid;
    let (id, began) = (operation_id(), Instant::now());
    let stop = host.stop_in_background("deaf", &id);
    eventually(|| host.log().contains("Stop signal sent")).await;
    host.ctl(&["upgrade"]).await.check(0, &["took over"]);
    let first = stop.await.unwrap();
    let stopped = match first {
        Ok(operation) => operation,
        // The connection went with the program: the same order again joins what goes on.
        Err(_) => host.stop_as("deaf", &id).await.unwrap(),
    };
    assert_eq!(stopped.state(), OperationState::Done, "{stopped:?}");
    assert!(!alive(pid));
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    let exit = host.process("deaf").await.last_exit.unwrap();
    assert!(exit.escalated && exit.signal() == "SIGKILL", "{exit:?}");
}

/// Hazard A09: what would not run does not get the chance: the program before goes on, and says why.
#[tokio::test]
async fn a_program_that_would_not_run_is_refused() {
    let host = Host::start_so(&[("one", SLEEPER)], own_program("")).await;
    let (agent, before) = (host.pid(), host.inventory().await);
    let path = installed(&host).display().to_string();
    install_script(&host, b"#!/bin/sh\necho this is version 9 and knows no $4 >&2\nexit 3\n");
    host.ctl(&["upgrade"]).await.check(1, &[&path, "exit status: 3", "version 9", "--would-run", "goes on"]);
    install_script(&host, b"\x7fELF but not really");
    host.ctl(&["upgrade"]).await.check(1, &[&path, "can not take over"]);
    fs::remove_file(Path::new(&path)).unwrap();
    host.ctl(&["upgrade"]).await.check(1, &[&path, "No such file"]);
    install(own_binary(), &installed(&host));
    host.edit(|text| format!("{text}\nnonsense = 1\n"));
    host.ctl(&["upgrade"]).await.check(1, &["`nonsense`"]);
    assert_eq!(host.pid(), agent);
    assert_eq!(lives(&host.inventory().await), lives(&before));
    host.edit(|text| text.replace("nonsense = 1\n", ""));
    host.ctl(&["upgrade"]).await.check(0, &["took over"]);
}
