//! The agent is killed at each system call of a stop, and begun again.
//!
//! `BELAY_EVERY` says at which of them: 1 is at every one. Without it, at a few.

use std::{fs, path::Path, process::Command, time::Duration};

use belay_proto::{Problem, Reason, agent::v1::ProcessPhase};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    check_done,
    fuse::Fuse,
    host::{Host, Way, alive, eventually, operation_id},
    script, tracked,
};

/// What a victim does that ends when it is asked to, and what one does that does not.
const POLITE: &str = "exit 0";
const DEAF: &str = "true";

/// At how many of the calls the agent dies where nobody says it.
const A_FEW: usize = 8;

/// Hazards A01 and P09.
#[tokio::test]
async fn a_polite_victim_is_stopped_once_whatever_call_the_agent_dies_at() {
    die_at_every_call("auto", POLITE).await;
    beside_few("every_call::without_cgroups_a_polite_victim");
}

/// Hazards A01, P09 and P10.
#[tokio::test]
async fn a_deaf_victim_is_killed_at_its_deadline_whatever_call_the_agent_dies_at() {
    die_at_every_call("auto", DEAF).await;
    beside_few("every_call::without_cgroups_a_deaf_victim");
}

#[tokio::test]
#[ignore = "run in a PID namespace by a test above"]
async fn without_cgroups_a_polite_victim() {
    die_at_every_call("off", POLITE).await;
}

#[tokio::test]
#[ignore = "run in a PID namespace by a test above"]
async fn without_cgroups_a_deaf_victim() {
    die_at_every_call("off", DEAF).await;
}

/// Runs a test in a PID namespace: without cgroups an agent makes some calls for each process that it sees.
#[track_caller]
fn beside_few(test: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped in part: only root makes a PID namespace");
        return;
    }
    let mut inside = Command::new("unshare");
    // The shell waits for all orphans: zombies are seen, too.
    inside.args(["--pid", "--fork", "--mount-proc", "sh", "-c", "\"$0\" \"$@\"; exit $?"]);
    inside.arg(std::env::current_exe().unwrap());
    let said = inside.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    assert!(said.status.success() && text.contains("1 passed"), "{text}");
    text.lines().filter(|line| line.contains("deaths")).for_each(|line| eprintln!("{line}"));
}

/// `then` is what the victim does when it was asked to end.
async fn die_at_every_call(mode: &str, then: &str) {
    let mut victim = Victim::start(mode, then).await;
    let Died::AfterTheAnswer { calls } = victim.stop_and_die(usize::MAX).await else {
        panic!("no stop takes so many calls");
    };
    let every = std::env::var("BELAY_EVERY").map_or(calls / A_FEW, |every| every.parse().unwrap());
    let (mut deaths, mut never_accepted) = (0, 0);
    for at in (1..).step_by(every) {
        match victim.stop_and_die(at).await {
            Died::Before { accepted } => never_accepted += usize::from(!accepted),
            Died::AfterTheAnswer { .. } => break,
        }
        deaths += 1;
    }
    assert!(deaths > 1);
    eprintln!(
        "{mode}, `{then}`: a stop is {calls} calls; {deaths} deaths, {never_accepted} before the order was accepted"
    );
}

/// A process that notes when it is asked to end.
struct Victim {
    host: Host,
    ledger: tempfile::NamedTempFile,
    /// Whether it does not end.
    deaf: bool,
}

/// When the agent died.
enum Died {
    Before { accepted: bool },
    AfterTheAnswer { calls: usize },
}

impl Victim {
    async fn start(mode: &str, then: &str) -> Self {
        let ledger = tempfile::NamedTempFile::new().unwrap();
        let path = ledger.path().display();
        let victim = script(&format!(
            "trap 'echo TERM >> {path}; {then}' TERM; echo ready >> {path}; while :; do sleep 1000 & wait; done"
        )) + "stop = { grace = \"400ms\" }";
        // Nothing but the stop makes calls.
        let quiet = Some(Duration::from_secs(600));
        let way = Way { settings: tracked(mode), heartbeat: quiet, ..Way::default() };
        let host = Host::start_so(&[("victim", &victim)], way).await;
        Self { host, ledger, deaf: then == DEAF }
    }

    /// Stops the victim by an agent that dies before its call number `at`, and starts it again.
    async fn stop_and_die(&mut self, at: usize) -> Died {
        eventually(|| self.told().contains("ready")).await;
        let Self { host, .. } = self;
        let pid = host.process("victim").await.pid;
        let id = operation_id();
        let fuse = Fuse::light(host.pid(), at);
        let answer = host.stop_in_background("victim", &id).await.unwrap();
        if !fuse.is_burnt() {
            let calls = fuse.calls();
            check_done(&answer.unwrap(), &["victim"]);
            host.signal(rustix::process::Signal::KILL);
            fuse.out().await;
            host.ended().await;
            host.begin().await;
            self.start_again().await;
            return Died::AfterTheAnswer { calls };
        }
        fuse.out().await;
        host.ended().await;
        let promised = kill_times(host.folder());
        host.begin().await;
        let accepted = match host.operation(&id).await {
            Ok(_) => true,
            Err(status) => {
                let problem = Problem::from_status(&status).unwrap();
                assert_eq!(problem.reason, Reason::OperationUnknown, "call {at}");
                let process = host.process("victim").await;
                assert_eq!((process.phase(), process.pid), (ProcessPhase::Running, pid), "call {at}");
                false
            }
        };
        let stopped = host.stop_as("victim", &id).await.unwrap();
        let ended = now();
        check_done(&stopped, &["victim"]);
        assert_eq!(host.operation(&id).await.unwrap(), stopped, "call {at}");
        assert!(!alive(pid) && host.members("victim").is_empty(), "call {at}: something survived");
        let exit = stopped.processes[0].last_exit.clone().unwrap();
        assert_eq!(exit.pid, pid);
        let times = kill_times(host.folder());
        let asked = self.told().matches("TERM").count();
        assert!(asked <= 1, "call {at}: asked {asked} times");
        // Where the agent died between the signal and its record, nobody knows of it.
        let unwatched = exit.note.contains("no agent watched");
        assert!(!self.deaf || exit.escalated || unwatched, "call {at}: {exit:?}");
        if let ([promised], true) = (&promised[..], exit.escalated) {
            assert!(times.iter().all(|time| time == promised), "call {at}: a fresh grace");
            assert!(ended >= *promised, "call {at}: killed before its time");
        }
        self.start_again().await;
        Died::Before { accepted }
    }

    async fn start_again(&self) {
        fs::write(&self.ledger, "").unwrap();
        check_done(&self.host.start_process("victim").await.unwrap(), &["victim"]);
    }

    fn told(&self) -> String {
        fs::read_to_string(&self.ledger).unwrap()
    }
}

/// When the living instance is to be killed, as often as the journal says it.
fn kill_times(folder: &Path) -> Vec<Duration> {
    let journal = fs::read_to_string(folder.join("state/journal")).unwrap();
    let mut times = Vec::new();
    for line in journal.lines().skip(1) {
        // The last record may be torn.
        let Some((_, json)) = line.split_once(' ') else { break };
        let Ok(record) = serde_json::from_str::<serde_json::Value>(json) else { break };
        match record["is"].as_str().unwrap() {
            "started" => times.clear(),
            "stopping" => {
                let time = &record["ladder"]["kill_at"];
                let number = |name: &str| time[name].as_u64().unwrap();
                times.push(Duration::new(number("secs"), number("nanos").try_into().unwrap()));
            }
            _ => {}
        }
    }
    times
}

fn now() -> Duration {
    clock_gettime(ClockId::Boottime).try_into().unwrap()
}
