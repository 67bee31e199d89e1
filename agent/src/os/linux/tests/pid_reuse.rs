//! Pids that are used again at once: in a PID namespace of its own, a stranger gets the very pid of a main process that
//! has just ended.
//!
//! `BELAY_ROUNDS` says how often, in each tree mode.

use std::{
    io::{BufRead, BufReader, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    process::Command,
};

use super::*;

/// What makes the strangers, as the first process of the namespace.
const STRANGERS: &str = include_str!("strangers.py");

/// What a stranger is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A process that has the pid.
    Plain,
    /// The leader of a session, which has the number too, and its children.
    Leader,
    /// Children of such a leader, which is gone: nobody has the pid, and a session has the number.
    Orphans,
}

/// Hazards P01, P02, P03, P18 and A05: whoever gets the pid of a main process, or the number of its session, gets no
/// signal: neither from the tree that knew the main process alive, nor from one that is taken back from a journal.
#[test]
fn who_gets_a_pid_again_gets_no_signal() {
    let python = Command::new("python3").arg("--version").output();
    if !rustix::process::geteuid().is_root() || python.is_err() {
        eprintln!("skipped: only root makes a PID namespace, and the strangers in it need python3");
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let inside = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "python3", "-c", STRANGERS])
        .arg(itself)
        .args(["--exact", "os::linux::tests::pid_reuse::in_a_namespace", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = [inside.stdout, inside.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(inside.status.success() && said.contains("1 passed"), "{said}");
    let figures = said.lines().filter(|line| line.contains("reuses"));
    figures.for_each(|line| eprintln!("{line}"));
}

#[tokio::test]
#[ignore = "run in a PID namespace by the test above"]
async fn in_a_namespace() {
    let rounds = std::env::var("BELAY_ROUNDS").map_or(200, |rounds| rounds.parse().unwrap());
    let mut nature = Nature::new();
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let (mut reuses, mut same_tick, mut tries) = (0, 0, 0);
        while reuses < rounds {
            let kind = [Kind::Plain, Kind::Leader, Kind::Orphans][reuses % 3];
            // Every fourth main process leaves a daemon behind, so that the tree is not empty.
            let daemon = reuses % 4 == 0;
            tries += 1;
            assert!(tries < 2 * rounds + 100, "the pids are hardly ever free: {reuses} of {tries}");
            let Some(round) = Round::begin(mode, kind, daemon, &mut nature).await else {
                continue;
            };
            reuses += 1;
            same_tick += usize::from(round.is_in_the_same_tick());
            round.check();
            nature.end();
        }
        eprintln!("{mode:?}: {reuses} exact reuses, {same_tick} of them in the same tick");
    }
}

/// A main process that is gone, and strangers who got its pid.
struct Round {
    subject: Subject,
    kind: Kind,
    strangers: Vec<Stat>,
    daemon: Option<i32>,
}

impl Round {
    /// `None` where somebody else was faster to get the pid.
    async fn begin(mode: CgroupUse, kind: Kind, daemon: bool, nature: &mut Nature) -> Option<Self> {
        let script = match daemon {
            true => "setsid sleep 1000 & exec sleep 1000",
            false => "exec sleep 1000",
        };
        let subject = Subject::start(mode, script).expect("a cgroup can be made");
        let pid = subject.instance.pid;
        let daemon_of = |subject: &Subject| {
            let leads =
                |member: &i32| Stat::read(*member).unwrap().is_some_and(|stat| stat.session == *member);
            let members = subject.tree.members().into_iter().map(|member| member.pid);
            members.filter(|member| *member != pid).find(leads)
        };
        if daemon {
            eventually(|| daemon_of(&subject).is_some()).await;
        }
        let daemon = daemon.then(|| daemon_of(&subject).unwrap());
        kill_process(Pid::from_raw(pid).unwrap(), Raw::KILL).unwrap();
        assert_eq!(subject.main_ended().await, Exit::Signal(Signal::KILL));
        let strangers = nature.make(pid, kind)?;
        Some(Self { subject, kind, strangers, daemon })
    }

    fn is_in_the_same_tick(&self) -> bool {
        self.strangers.first().is_some_and(|stat| stat.ticks == self.subject.instance.ticks)
    }

    fn check(&self) {
        let Self { subject: Subject { linux, instance, tree, .. }, .. } = self;
        self.check_tree(&**tree);
        self.check_adoption(linux, instance);
        if self.daemon.is_some() {
            tree.kill().unwrap();
            return self.check_untouched();
        }
        // As if it had begun in the same tick.
        for stranger in &self.strangers {
            let same = Instance { pid: stranger.pid, ticks: stranger.ticks, ..instance.clone() };
            self.check_adoption(linux, &same);
        }
    }

    /// The tree holds the daemon, or nobody.
    fn check_tree(&self, tree: &dyn Tree) {
        let members: Vec<_> = tree.members().iter().map(|member| member.pid).collect();
        assert_eq!(members, Vec::from_iter(self.daemon), "{:?}", self.kind);
        assert_eq!(tree.look().map(|sight| sight.pid), self.daemon);
        assert_eq!(tree.is_empty(), self.daemon.is_none());
        // A signal that does no harm to the daemon.
        tree.ask(Signal::CONT, Scope::Group).unwrap();
        tree.ask(Signal::CONT, Scope::Rest).unwrap();
        if self.daemon.is_none() {
            tree.kill().unwrap();
        }
        self.check_untouched();
    }

    fn check_adoption(&self, linux: &Linux, instance: &Instance) {
        // Without a cgroup, what a journal of an older kernel knows of a main process is its pid, its tick, and that it leads
        // a session.
        let same = |stranger: &&Stat| (stranger.pid, stranger.ticks) == (instance.pid, instance.ticks);
        let twin = self.strangers.iter().find(same).filter(|stranger| stranger.session == stranger.pid);
        if instance.cgroup.is_none() && instance.number.is_none() && twin.is_some() {
            return;
        }
        match linux.adopt(instance) {
            Adoption::Alive(tree) => self.check_tree(&*tree),
            Adoption::Gone(exit) => {
                assert_eq!((exit, self.daemon), (Exit::Unknown, None));
                self.check_untouched();
            }
        }
    }

    fn check_untouched(&self) {
        for stranger in &self.strangers {
            assert_eq!(Stat::read(stranger.pid).unwrap().as_ref(), Some(stranger), "{:?}", self.kind);
            let status = std::fs::read_to_string(format!("/proc/{}/status", stranger.pid)).unwrap();
            let pending = status.lines().filter(|line| line.contains("Pnd:"));
            assert!(pending.clone().all(|line| line.ends_with("\t0000000000000000")), "{status}");
            assert_eq!(pending.count(), 2);
            assert!(!status.contains("State:\tT"), "{status}");
        }
    }
}

/// The way to who makes the strangers.
struct Nature(BufReader<UnixStream>);

impl Nature {
    fn new() -> Self {
        let stream = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        Self(BufReader::new(stream.into()))
    }

    fn make(&mut self, pid: i32, kind: Kind) -> Option<Vec<Stat>> {
        let answer = self.ask(&format!("make {pid} {}", format!("{kind:?}").to_lowercase()));
        if answer == "taken" {
            return None;
        }
        let pids = answer.split(' ').map(|pid| pid.parse().unwrap());
        Some(pids.map(|pid| Stat::read(pid).unwrap().unwrap()).collect())
    }

    fn end(&mut self) {
        assert_eq!(self.ask("end"), "ended");
    }

    fn ask(&mut self, words: &str) -> String {
        writeln!(self.0.get_ref(), "{words}").unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}
