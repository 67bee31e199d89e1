//! How it is known that a process has ended, and how it did.

use super::*;
use crate::{
    config::{Rlimit, RlimitName},
    os::Accounts,
};

#[tokio::test]
async fn the_exit_code_is_known() {
    in_both_modes("exit 7", async |subject| {
        assert_eq!(subject.main_ended().await, Exit::Code(7));
        subject.emptied().await;
    })
    .await;
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
    if !is_root() {
        return eprintln!("skipped: only root makes a PID namespace");
    }
    again(&["unshare", "--pid", "--fork", "--mount-proc"], "ending::orphans_are_reaped");
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
async fn what_was_used_is_known() {
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3";
    in_both_modes(script, async |subject| {
        let ending = timeout(PATIENCE, subject.tree.main_ended()).await.unwrap();
        assert_eq!((ending.exit, ending.core_dumped), (Exit::Code(3), false));
        let Accounts { cpu, peak_memory, oom_killed } = ending.accounts;
        assert!(cpu.unwrap() > Duration::from_millis(1), "{cpu:?}");
        assert!((100 << 10..100 << 20).contains(&peak_memory.unwrap()), "{peak_memory:?}");
        assert!(!oom_killed);
        subject.emptied().await;
        let of_all = subject.tree.accounts();
        assert_eq!(of_all.cpu.is_some(), subject.instance.cgroup.is_some());
        assert!(of_all.cpu.is_none_or(|cpu| cpu > Duration::from_millis(1)));
    })
    .await;
}

#[tokio::test]
async fn a_core_file_is_told_of() {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with(['|', '/', '@']) {
        return eprintln!("skipped: core files go elsewhere");
    }
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let dir = tempfile::tempdir().unwrap();
        let settings = |launch: &mut Launch| {
            launch.cwd = dir.path().to_owned();
            launch.rlimits.insert(RlimitName::Core, Rlimit::Unlimited);
        };
        let Some(subject) = Subject::start_as(mode, "kill -ABRT $$", settings) else {
            continue;
        };
        let ending = timeout(PATIENCE, subject.tree.main_ended()).await.unwrap();
        assert_eq!(ending.exit.to_string(), "SIGABRT");
        assert!(ending.core_dumped);
    }
}

/// A process of somebody else, as an instance of an earlier life of the agent is one of init.
struct Foreign {
    parent: std::process::Child,
    instance: Instance,
    dir: TempDir,
}

impl Foreign {
    /// A process that exits with 7 when it may. Its parent goes on so.
    fn start(linux: &Linux, parent: &str) -> Self {
        use std::io::BufRead;
        let dir = tempfile::tempdir().unwrap();
        let script =
            format!("setsid sh -c 'while [ ! -e go ]; do sleep 0.01; done; exit 7' & echo $!; {parent}");
        let mut parent = std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .current_dir(dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap();
        let read = || Stat::read(pid).unwrap().unwrap();
        // A main process leads its session.
        while read().session != pid {
            std::thread::yield_now();
        }
        let stat = read();
        let instance = Instance {
            alias: Alias::try_from("foreign".to_owned()).unwrap(),
            generation: 1,
            boot_id: linux.boot_id().to_owned(),
            pid: stat.pid,
            ticks: stat.ticks,
            number: None,
            started: linux.date(),
            cgroup: None,
        };
        Self { parent, instance, dir }
    }

    fn may_exit(&self) {
        fs::write(self.dir.path().join("go"), "").unwrap();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.may_exit();
        self.parent.kill().unwrap();
        self.parent.wait().unwrap();
    }
}

/// Hazard A02: it is taken back from an earlier life, and its status goes to init.
#[tokio::test]
async fn the_exit_of_somebody_elses_child_is_known() {
    let linux = Linux::new(Uuid::new_v4(), CgroupUse::Off).unwrap();
    let itself = Pidfd::open(i32::try_from(std::process::id()).unwrap()).unwrap().unwrap();
    if !itself.tells_its_exit() {
        return eprintln!("skipped: the kernel is older than 6.15");
    }
    for (parent, killed, expected) in [
        ("wait", false, "exit code 7"),
        ("wait", true, "SIGKILL"),
        // A parent that never waits.
        ("exec sleep 1000", false, "unknown exit"),
    ] {
        let mut foreign = Foreign::start(&linux, parent);
        let Adoption::Alive(tree) = linux.adopt(&foreign.instance) else {
            panic!("it is alive");
        };
        if parent != "wait" {
            let pid = i32::try_from(foreign.parent.id()).unwrap();
            eventually(|| proc::command(pid, 100) == "sleep 1000").await;
        }
        match killed {
            true => assert!(tree.kill().unwrap()),
            false => foreign.may_exit(),
        }
        if parent == "wait" {
            foreign.parent.wait().unwrap();
        }
        let ending = timeout(PATIENCE, tree.main_ended()).await.unwrap();
        assert_eq!(ending.exit.to_string(), expected);
        assert_eq!(ending.accounts, Accounts::default());
    }
}
