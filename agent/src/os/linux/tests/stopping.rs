//! Trees are asked to end, and killed.

use super::*;

#[tokio::test]
async fn a_polite_process_ends_by_the_stop_signal() {
    in_both_modes("echo ready; exec sleep 1000", async |subject| {
        subject.says("ready").await;
        let sight = subject.tree.look().unwrap();
        assert_eq!(sight.pid, subject.instance.pid);
        eventually(|| subject.tree.look().is_some_and(|s| s.command == "sleep 1000")).await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        assert_eq!(subject.main_ended().await, Exit::Signal(Signal::TERM));
        subject.emptied().await;
        assert!(!exists(subject.instance.pid), "no zombie stays");
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
        assert!(subject.tree.kill().unwrap());
        assert_eq!(subject.main_ended().await, Exit::Signal(Signal::KILL));
        subject.emptied().await;
        assert!(!subject.tree.kill().unwrap(), "nobody is left to be killed");
    })
    .await;
}

/// Hazard P10: a zombie takes signals. It was not killed by them.
#[tokio::test]
async fn nobody_is_said_to_be_killed_who_had_ended() {
    in_both_modes("exit 3", async |subject| {
        // Nobody has waited for it yet.
        eventually(|| subject.tree.is_empty()).await;
        assert!(!subject.tree.kill().unwrap());
        assert_eq!(subject.main_ended().await, Exit::Code(3));
    })
    .await;
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
        assert_eq!(subject.main_ended().await, Exit::Signal(Signal::TERM));
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
        assert_eq!(subject.main_ended().await, Exit::Code(0));
        assert!(!subject.tree.is_empty());
        subject.tree.kill().unwrap();
        subject.emptied().await;
    })
    .await;
}

/// Hazards P05 and P06: neither parent nor session nor environment tells whose it is, in this life of the agent or another.
#[tokio::test]
async fn a_ghost_is_killed() {
    let script = "env -i setsid sh -c 'setsid sleep 1000 & echo ghost $!'; exit 3";
    in_both_modes(script, async |subject| {
        let pid = subject.number("ghost ").await;
        assert_eq!(subject.main_ended().await, Exit::Code(3));
        assert!(!subject.tree.is_empty());
        let Adoption::Alive(again) = subject.linux.adopt(&subject.instance) else {
            panic!("it is alive");
        };
        assert!(again.members().iter().any(|member| member.pid == pid));
        subject.tree.kill().unwrap();
        subject.emptied().await;
        eventually(|| !exists(pid)).await;
    })
    .await;
}

/// Hazard P05, in a container where the agent has the pid that is elsewhere that of the kernel's threads' parent.
#[test]
fn a_double_fork_is_killed_in_a_container() {
    if !is_root() {
        return eprintln!("skipped: only root makes a PID namespace");
    }
    let container = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", "\"$@\"; exit $?", "sh"];
    again(&container, "stopping::a_double_fork_is_killed");
}

/// Hazard P01: a pid that is used again within a round is another member, and gets the signal.
#[test]
fn who_gets_the_pid_of_one_who_was_asked_is_asked() {
    if !is_root() {
        return eprintln!("skipped: only root makes a PID namespace");
    }
    again(&["unshare", "--pid", "--fork", "--mount-proc"], "stopping::asked_by_the_same_pid");
}

#[tokio::test]
async fn asked_by_the_same_pid() {
    if !is_again() {
        return;
    }
    let script = "trap : TERM; sleep 1000 & first=$!; echo first $first; while kill -0 $first; do wait $first; done; sleep 0.05; \
                  while echo $((first - 1)) > /proc/sys/kernel/ns_last_pid; sleep 1000 & [ $! != $first ]; \
                  do kill $!; done; echo second; wait $first; wait $first; echo asked; while :; do sleep 0.02; done";
    in_both_modes(script, async |subject| {
        let pid = subject.number("first ").await;
        // Until then it may lose a signal.
        let runs = || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        eventually(runs).await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        subject.says("second").await;
        eventually(runs).await;
        subject.tree.ask(Signal::TERM, Scope::Rest).unwrap();
        subject.says("asked").await;
        subject.tree.kill().unwrap();
        subject.emptied().await;
    })
    .await;
}

/// Hazard P08: it forks as fast as it can while it is killed. Other tests run beside it, so it yields.
#[tokio::test]
async fn a_tree_that_forks_all_the_time_is_killed() {
    let script = "trap '' TERM; f() { while :; do sleep 0.01 & done; }; f & f & echo ready; wait";
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let Some(subject) = Subject::start_as(mode, script, |launch| launch.nice = 19) else {
            continue;
        };
        subject.says("ready").await;
        let kill_until_empty = async {
            while !subject.tree.is_empty() {
                subject.tree.kill().unwrap();
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, kill_until_empty).await.unwrap();
        subject.emptied().await;
    }
}

/// Hazard P12.
#[tokio::test]
async fn a_stopped_process_is_woken_to_end() {
    in_both_modes("trap 'echo asked; exit 0' TERM; echo ready; kill -STOP $$; sleep 1000", async |subject| {
        subject.says("ready").await;
        eventually(|| state(subject.instance.pid) == "T").await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        assert_eq!(subject.main_ended().await, Exit::Code(0));
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
    subject.freeze().await;
    subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
    assert_eq!(subject.main_ended().await, Exit::Code(0));
    subject.emptied().await;
}

/// Nobody gets the signal of a round twice, and everybody gets that of the next round.
#[tokio::test]
async fn nobody_is_asked_twice_in_a_round() {
    let script = "trap 'echo asked' TERM; trap 'echo again' HUP; echo ready; while :; do sleep 0.02; done";
    let hangup = Signal::try_from("SIGHUP".to_owned()).unwrap();
    in_both_modes(script, async |subject| {
        subject.says("ready").await;
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        subject.says("asked").await;
        subject.tree.ask(Signal::TERM, Scope::Rest).unwrap();
        subject.tree.ask(Signal::TERM, Scope::Rest).unwrap();
        subject.tree.ask(hangup, Scope::Group).unwrap();
        subject.says("again").await;
        subject.tree.ask(hangup, Scope::Rest).unwrap();
        subject.tree.kill().unwrap();
        subject.emptied().await;
        let count = |word: &str| subject.said().iter().filter(|said| *said == word).count();
        assert_eq!((count("asked"), count("again")), (1, 1));
    })
    .await;
}

/// Hazard P32: what stands still is killed all the same.
#[tokio::test]
async fn a_stopped_process_is_killed() {
    in_both_modes("echo ready; kill -STOP $$; sleep 1000", async |subject| {
        subject.says("ready").await;
        eventually(|| state(subject.instance.pid) == "T").await;
        subject.tree.kill().unwrap();
        assert_eq!(subject.main_ended().await, Exit::Signal(Signal::KILL));
        subject.emptied().await;
    })
    .await;
}

/// Hazard P32.
#[tokio::test]
async fn a_frozen_tree_is_killed() {
    let Some(subject) = Subject::start(CgroupUse::Auto, "echo ready; sleep 1000 & wait") else {
        return;
    };
    subject.says("ready").await;
    subject.freeze().await;
    subject.tree.kill().unwrap();
    assert_eq!(subject.main_ended().await, Exit::Signal(Signal::KILL));
    subject.emptied().await;
}

/// Hazard P32.
#[tokio::test]
async fn a_traced_process_is_killed() {
    in_both_modes("echo ready; exec sleep 1000", async |subject| {
        subject.says("ready").await;
        let pid = subject.instance.pid.to_string();
        let tracer = std::process::Command::new("strace")
            .args(["-q", "-o", "/dev/null", "-p", &pid])
            .stderr(std::process::Stdio::null())
            .spawn();
        let Ok(mut tracer) = tracer else {
            return eprintln!("skipped: no `strace`");
        };
        eventually(|| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            !status.contains("TracerPid:\t0\n")
        })
        .await;
        subject.tree.kill().unwrap();
        // It sees the end first.
        tracer.wait().unwrap();
        assert_eq!(subject.main_ended().await, Exit::Signal(Signal::KILL));
        subject.emptied().await;
    })
    .await;
}

impl Subject {
    async fn freeze(&self) {
        let dir = self.linux.group_of(&self.instance).unwrap().dir().to_owned();
        fs::write(dir.join("cgroup.freeze"), "1").unwrap();
        eventually(|| fs::read_to_string(dir.join("cgroup.events")).unwrap().contains("frozen 1")).await;
    }
}

fn state(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.chars().take(1).collect()
}
