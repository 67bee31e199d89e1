//! Real processes, in both tree modes.

mod pid_reuse;

use std::{collections::BTreeMap, path::Path, time::Duration};

use rustix::process::{Pid, Signal as Raw, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{os::Adoption, signal::Signal, stop::Scope};

/// One instance of a shell script, killed for sure at the end of a test.
struct Subject {
    linux: Linux,
    instance: Instance,
    tree: Arc<dyn Tree>,
    dir: TempDir,
}

impl Subject {
    /// `None` where the mode is not possible on this host.
    fn start(cgroup: CgroupUse, script: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let linux = Linux::new(Uuid::new_v4(), cgroup).unwrap();
        if cgroup == CgroupUse::Auto && linux.cgroups.is_none() {
            eprintln!("skipped: no cgroup v2 can be written here");
            return None;
        }
        let launch = launch(dir.path(), "/bin/sh", &["-c", script]);
        let (instance, tree) = linux.start(&launch).unwrap();
        Some(Self { linux, instance, tree, dir })
    }

    /// Waits until the script has said a word.
    async fn says(&self, word: &str) {
        let log = self.dir.path().join("subject.log");
        eventually(|| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines().any(|line| line == word)
        })
        .await;
    }

    fn said(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("subject.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn main_exit(&self) -> Exit {
        timeout(PATIENCE, self.tree.main_exit()).await.unwrap()
    }

    async fn emptied(&self) {
        timeout(PATIENCE, self.tree.emptied()).await.unwrap();
        assert!(self.tree.is_empty());
        assert_eq!(self.tree.look(), None);
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        for _ in 0..500 {
            let _ = self.tree.kill();
            if self.tree.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.tree.release();
        if let Some(cgroups) = &self.linux.cgroups {
            cgroups.release();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

async fn eventually(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("the condition never held");
}

fn launch(dir: &Path, command: &str, args: &[&str]) -> Launch {
    Launch {
        alias: Alias::try_from("subject".to_owned()).unwrap(),
        generation: 3,
        command: command.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        cwd: "/".into(),
        user: None,
        environment: BTreeMap::new(),
        log: dir.join("subject.log"),
    }
}

fn exists(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

/// Runs a test in both modes.
async fn in_both_modes(script: &str, test: impl AsyncFn(Subject)) {
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        if let Some(subject) = Subject::start(mode, script) {
            test(subject).await;
        }
    }
}

#[tokio::test]
async fn a_polite_process_ends_by_the_stop_signal() {
    in_both_modes("echo ready; exec sleep 1000", async |subject| {
        subject.says("ready").await;
        let sight = subject.tree.look().unwrap();
        assert_eq!(sight.pid, subject.instance.pid);
        eventually(|| subject.tree.look().is_some_and(|s| s.command == "sleep 1000")).await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        assert_eq!(subject.main_exit().await, Exit::Signal(Signal::TERM));
        subject.emptied().await;
        assert!(!exists(subject.instance.pid), "no zombie stays");
    })
    .await;
}

#[tokio::test]
async fn the_exit_code_is_known() {
    in_both_modes("exit 7", async |subject| {
        assert_eq!(subject.main_exit().await, Exit::Code(7));
        subject.emptied().await;
    })
    .await;
}

/// Hazard P10.
#[tokio::test]
async fn a_process_that_ignores_the_stop_signal_is_killed() {
    let script = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    in_both_modes(script, async |subject| {
        subject.says("ready").await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        assert!(!subject.tree.is_empty());
        subject.tree.kill().unwrap();
        assert_eq!(subject.main_exit().await, Exit::Signal(Signal::KILL));
        subject.emptied().await;
    })
    .await;
}

/// A main process that moved out of its cgroup is one of the tree all the same.
#[tokio::test]
async fn a_main_process_that_left_its_group_is_killed() {
    let script = "echo $$ > \"$0/cgroup.procs\" && echo out; exec sleep 1000";
    let dir = tempfile::tempdir().unwrap();
    let linux = Linux::new(Uuid::new_v4(), CgroupUse::Auto).unwrap();
    let Some(cgroups) = &linux.cgroups else {
        eprintln!("skipped: no cgroup v2 can be written here");
        return;
    };
    let instance_dir = cgroups.instance("subject.3").unwrap().dir().to_owned();
    let parent = instance_dir.parent().unwrap().display().to_string();
    let launch = launch(dir.path(), "/bin/sh", &["-c", script, &parent]);
    let (instance, tree) = linux.start(&launch).unwrap();
    let subject = Subject { linux, instance, tree, dir };
    subject.says("out").await;
    assert!(!subject.tree.is_empty());
    // Not what they are called: it is about to begin another program.
    let pids = |tree: &dyn Tree| tree.members().iter().map(|member| member.pid).collect::<Vec<_>>();
    let members = pids(&*subject.tree);
    assert!(members.contains(&subject.instance.pid));
    let Adoption::Alive(again) = subject.linux.adopt(&subject.instance) else {
        panic!("it is alive");
    };
    assert_eq!(pids(&*again), members);
    subject.tree.kill().unwrap();
    assert_eq!(subject.main_exit().await, Exit::Signal(Signal::KILL));
    subject.emptied().await;
}

/// Hazards P05, P06 and P17: what left the group and lost its parent is asked once the main process is gone, and the tree
/// is not empty before it is.
#[tokio::test]
async fn a_daemon_that_left_the_session_belongs_to_the_tree() {
    let script = "setsid sh -c 'trap \"echo asked; exit\" TERM; echo $$ > $0; echo ready; while :; do sleep 0.02; done' \
                  /dev/null & sleep 1000 & wait";
    in_both_modes(script, async |subject| {
        subject.says("ready").await;
        assert!(subject.tree.members().len() >= 3);
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        assert_eq!(subject.main_exit().await, Exit::Signal(Signal::TERM));
        assert!(!subject.tree.is_empty());
        assert!(!subject.said().contains(&"asked".to_owned()));
        subject.tree.ask(Signal::TERM, Scope::Rest).unwrap();
        subject.emptied().await;
        assert_eq!(subject.said().iter().filter(|word| *word == "asked").count(), 1);
    })
    .await;
}

/// Hazard P05: a double fork, whose main process is gone at once.
#[tokio::test]
async fn a_double_fork_is_killed() {
    in_both_modes("(setsid sleep 1000 & ) ; echo ready", async |subject| {
        subject.says("ready").await;
        assert_eq!(subject.main_exit().await, Exit::Code(0));
        assert!(!subject.tree.is_empty());
        subject.tree.kill().unwrap();
        subject.emptied().await;
    })
    .await;
}

/// Hazard P08: it forks as fast as it can while it is killed.
#[tokio::test]
async fn a_tree_that_forks_all_the_time_is_killed() {
    let script = "trap '' TERM; f() { while :; do sleep 0.01 & done; }; f & f & echo ready; wait";
    in_both_modes(script, async |subject| {
        subject.says("ready").await;
        let kill_until_empty = async {
            while !subject.tree.is_empty() {
                subject.tree.kill().unwrap();
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, kill_until_empty).await.unwrap();
        subject.emptied().await;
    })
    .await;
}

/// Hazard P12.
#[tokio::test]
async fn a_stopped_process_is_woken_to_end() {
    in_both_modes("trap 'echo asked; exit 0' TERM; echo ready; kill -STOP $$; sleep 1000", async |subject| {
        subject.says("ready").await;
        eventually(|| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", subject.instance.pid)).unwrap();
            stat.contains(") T ")
        })
        .await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        assert_eq!(subject.main_exit().await, Exit::Code(0));
        subject.emptied().await;
        assert_eq!(subject.said(), ["ready", "asked"]);
    })
    .await;
}

/// Hazard P32: a frozen cgroup is thawed, or nothing in it could answer.
#[tokio::test]
async fn a_frozen_tree_is_thawed_to_end() {
    let script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.02; done";
    let Some(subject) = Subject::start(CgroupUse::Auto, script) else {
        return;
    };
    subject.says("ready").await;
    let group = subject.linux.group_of(&subject.instance).unwrap();
    std::fs::write(group.dir().join("cgroup.freeze"), "1").unwrap();
    eventually(|| {
        let events = std::fs::read_to_string(group.dir().join("cgroup.events")).unwrap();
        events.contains("frozen 1")
    })
    .await;
    subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
    assert_eq!(subject.main_exit().await, Exit::Code(0));
    subject.emptied().await;
}

/// Nobody gets the stop signal twice, however often it is asked for.
#[tokio::test]
async fn nobody_is_asked_twice() {
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.02; done";
    in_both_modes(script, async |subject| {
        subject.says("ready").await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        subject.says("asked").await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        subject.tree.ask(Signal::TERM, Scope::Rest).unwrap();
        subject.tree.kill().unwrap();
        subject.emptied().await;
        assert_eq!(subject.said().iter().filter(|word| *word == "asked").count(), 1);
    })
    .await;
}

/// Hazards P34 to P36: nothing of the agent's leaks in.
#[tokio::test]
async fn a_process_begins_clean() {
    // What the agent itself inherited: an ignored signal, and a descriptor that stays open over exec.
    let leak = std::fs::File::open("/dev/null").unwrap();
    let leak = rustix::io::fcntl_dupfd_cloexec(&leak, 77).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let script = "ls /proc/self/fd | tr '\\n' ' '; echo; grep -E 'Sig(Blk|Ign)' /proc/self/status; env; \
                  ps -o sid= -p $$ 2>/dev/null; echo done";
    in_both_modes(script, async |subject| {
        subject.says("done").await;
        let said = subject.said();
        // The fourth is the folder that `ls` reads.
        assert_eq!(said[0].trim(), "0 1 2 3");
        for mask in &said[1..3] {
            assert!(mask.ends_with("\t0000000000000000"), "{mask}");
        }
        let mark = said.iter().find(|line| line.starts_with("BELAY_INSTANCE=")).unwrap();
        assert!(mark.ends_with("/subject/3"));
        assert!(!said.iter().any(|line| line.starts_with("CARGO")));
    })
    .await;
}

/// Hazard P31.
#[tokio::test]
async fn what_can_not_be_started_leaves_nothing() {
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let dir = tempfile::tempdir().unwrap();
        let linux = Linux::new(Uuid::new_v4(), mode).unwrap();
        let told = |launch: &Launch| match linux.start(launch) {
            Ok(_) => panic!("it started"),
            Err(error) => crate::error::Chain(&error).to_string(),
        };
        let missing = launch(dir.path(), "/nonexistent/program", &[]);
        assert!(told(&missing).contains("`/nonexistent/program`: No such file"));
        let mut nobody = launch(dir.path(), "/bin/true", &[]);
        nobody.user = Some("no-such-user".to_owned());
        assert!(told(&nobody).contains("`no-such-user` does not exist"));
        let mut nowhere = launch(dir.path(), "/bin/true", &[]);
        nowhere.cwd = "/nonexistent".into();
        assert!(told(&nowhere).contains("working folder `/nonexistent`"));
        let mut unlogged = launch(dir.path(), "/bin/true", &[]);
        unlogged.log = dir.path().join("no/such/folder.log");
        assert!(told(&unlogged).contains("log file"));
        assert!(linux.cgroups.as_ref().is_none_or(|cgroups| cgroups.names().is_empty()));
    }
}

/// Hazard P24: the agent still reaches what became another user.
#[tokio::test]
async fn another_user_is_become() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root becomes another user");
        return;
    }
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let dir = tempfile::tempdir().unwrap();
        let linux = Linux::new(Uuid::new_v4(), mode).unwrap();
        let mut launch =
            launch(dir.path(), "/bin/sh", &["-c", "id -un; id -Gn; echo $USER; exec sleep 1000"]);
        launch.user = Some("nobody".to_owned());
        let (instance, tree) = linux.start(&launch).unwrap();
        let subject = Subject { linux, instance, tree, dir };
        subject.says("nogroup").await;
        eventually(|| subject.said().len() == 3).await;
        assert_eq!(subject.said(), ["nobody", "nogroup", "nobody"]);
        assert_eq!(subject.tree.look().unwrap().user, "nobody");
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        subject.emptied().await;
    }
}

/// Hazard P14: an orphan that ends is reaped, and a child of somebody else in this program is not.
#[tokio::test]
async fn orphans_are_reaped() {
    let mut foreign = std::process::Command::new("/bin/true").spawn().unwrap();
    let script = "(setsid sh -c 'echo orphan $$ ' & ) ; exec sleep 1000";
    in_both_modes(script, async |subject| {
        eventually(|| subject.said().iter().any(|line| line.starts_with("orphan "))).await;
        let said = subject.said();
        let pid = said.iter().find_map(|line| line.strip_prefix("orphan "));
        let pid: i32 = pid.unwrap().trim().parse().unwrap();
        eventually(|| !exists(pid)).await;
    })
    .await;
    assert!(foreign.wait().unwrap().success());
}

/// Hazard P14, in a container: the session of whoever entered it is one of outside, which has no number inside.
#[test]
fn orphans_are_reaped_in_a_container() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root makes a PID namespace");
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let test = "os::linux::tests::orphans_are_reaped";
    let inside = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(itself)
        .args(["--exact", test])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(inside.status.success() && said.contains("1 passed"), "{said}");
}

/// Hazards P01 to P03 and A05: what does not match in every respect is another process.
#[tokio::test]
async fn only_the_very_same_process_is_taken_back() {
    in_both_modes("exec sleep 1000", async |subject| {
        let Subject { linux, instance, .. } = &subject;
        assert!(matches!(linux.adopt(instance), Adoption::Alive(_)));
        let other = Instance { ticks: instance.ticks + 1, cgroup: None, generation: 4, ..instance.clone() };
        assert!(matches!(linux.adopt(&other), Adoption::Gone(Exit::Unknown)));
        let rebooted = Instance { boot_id: "another".to_owned(), cgroup: None, ..instance.clone() };
        assert!(matches!(linux.adopt(&rebooted), Adoption::Gone(Exit::Unknown)));
        assert!(exists(instance.pid));
    })
    .await;
}

/// Hazard A02: the journal may know nothing, what lives is found all the same.
#[tokio::test]
async fn living_instances_show_themselves() {
    in_both_modes("sleep 1000 & wait", async |subject| {
        let found = subject.linux.survey();
        let [(instance, tree)] = &found[..] else {
            panic!("one instance");
        };
        let identity = |i: &Instance| (i.pid, i.ticks, i.generation, i.cgroup.clone());
        assert_eq!(identity(instance), identity(&subject.instance));
        tree.kill().unwrap();
        subject.emptied().await;
        subject.main_exit().await;
        assert!(subject.linux.survey().is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_exit_that_nobody_watched_is_told_where_it_can_be() {
    in_both_modes("exec sleep 1000", async |subject| {
        let pid = Pid::from_raw(subject.instance.pid).unwrap();
        kill_process(pid, Raw::INT).unwrap();
        subject.emptied().await;
        let Adoption::Gone(exit) = subject.linux.adopt(&subject.instance) else {
            panic!("it is gone");
        };
        assert_eq!(exit.to_string(), "SIGINT");
    })
    .await;
}

#[tokio::test]
async fn ports_are_seen_wherever_in_the_tree_they_are() {
    let Ok(python) = std::process::Command::new("python3").arg("--version").output() else {
        eprintln!("skipped: no python3");
        return;
    };
    assert!(python.status.success());
    let script = "python3 -c 'import socket,time\n\
                  s=socket.socket(); s.bind((\"127.0.0.1\",0)); s.listen()\n\
                  t=socket.socket(socket.AF_INET6); t.bind((\"::1\",0)); t.listen()\n\
                  print(\"ports\",s.getsockname()[1],t.getsockname()[1],flush=True)\n\
                  time.sleep(1000)' & wait";
    in_both_modes(script, async |subject| {
        eventually(|| subject.said().iter().any(|line| line.starts_with("ports "))).await;
        let said = subject.said();
        let mut ports: Vec<u16> = said[0].split(' ').skip(1).map(|p| p.parse().unwrap()).collect();
        ports.sort_unstable();
        let seen = subject.tree.look().unwrap().ports;
        assert_eq!(seen, format!("{},{}", ports[0], ports[1]));
    })
    .await;
}
