//! Members that leave their cgroup.

use super::*;
use crate::process::Leftover;

/// A main process that moved out of its cgroup is one of the tree all the same.
#[tokio::test]
async fn a_main_process_that_left_its_group_is_killed() {
    let Some(subject) = start("echo $$ > $1/cgroup.procs && echo out; exec sleep 1000") else {
        return;
    };
    subject.says("out").await;
    assert!(!subject.tree.is_empty());
    let only_it = |members: Vec<Leftover>| members.iter().map(|member| member.pid).eq([subject.instance.pid]);
    assert!(only_it(subject.tree.members()));
    let Adoption::Alive(again) = subject.linux.adopt(&subject.instance) else {
        panic!("it is alive");
    };
    assert!(only_it(again.members()));
    subject.tree.kill().unwrap();
    assert_eq!(subject.main_ended().await, Exit::Signal(Signal::KILL));
    subject.emptied().await;
}

/// Hazard P07: it counts, it is asked, and a person is told.
#[tokio::test]
async fn a_member_that_left_is_asked() {
    let script = "setsid sh -c 'echo $$ > $0/cgroup.procs; trap \"echo asked; exit\" TERM; echo out $$; \
                  while :; do sleep 0.02; done' $1 & echo ready; exec sleep 1000";
    let Some(subject) = start(script) else {
        return;
    };
    let pid = subject.number("out ").await;
    subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
    assert_eq!(subject.main_ended().await, Exit::Signal(Signal::TERM));
    assert!(!subject.tree.is_empty());
    assert_eq!(subject.tree.look().unwrap().pid, pid);
    assert!(subject.tree.members().iter().any(|member| member.pid == pid));
    let note = format!("process {pid} (sh -c echo $$ >");
    assert!(subject.tree.notes().iter().any(|told| told.starts_with(&note)), "{:?}", subject.tree.notes());
    subject.tree.ask(Signal::TERM, Scope::Rest).unwrap();
    subject.tree.ask(Signal::TERM, Scope::Rest).unwrap();
    subject.emptied().await;
    assert_eq!(subject.said().iter().filter(|word| *word == "asked").count(), 1);
}

/// Hazard P07: one kill is for those too who become orphans by it, and for what they started without the mark.
#[tokio::test]
async fn a_member_that_left_is_killed() {
    let script = "setsid sh -c 'echo $$ > $0/cgroup.procs; trap \"\" TERM; env -i sleep 1000 & echo own $!; echo out $$; \
                  wait' $1 & \
                  exec sleep 1000";
    let Some(subject) = start(script) else {
        return;
    };
    let pids = [subject.number("out ").await, subject.number("own ").await];
    subject.tree.kill().unwrap();
    assert_eq!(subject.main_ended().await, Exit::Signal(Signal::KILL));
    subject.emptied().await;
    eventually(|| !pids.into_iter().any(exists)).await;
}

/// Hazard P07, after a restart of the agent, which then has no orphans of its own to look at.
#[tokio::test]
async fn a_member_that_left_is_taken_back() {
    let script =
        "setsid sh -c 'echo $$ > $0/cgroup.procs; echo out $$; exec sleep 1000' $1 & sleep 1000 & wait";
    let Some(subject) = start(script) else {
        return;
    };
    let pid = subject.number("out ").await;
    let found = subject.linux.survey();
    assert_eq!(found.len(), 1, "it is not an instance of its own");
    let Adoption::Alive(tree) = subject.linux.adopt(&subject.instance) else {
        panic!("it is alive");
    };
    assert!(tree.walks());
    assert!(tree.members().iter().any(|member| member.pid == pid));
    tree.kill().unwrap();
    timeout(PATIENCE, tree.emptied()).await.unwrap();
    assert!(tree.is_empty());
    subject.emptied().await;
    eventually(|| !exists(pid)).await;
}

/// Hazard P07: whoever was seen inside is known outside, whatever it has become.
#[tokio::test]
async fn a_member_that_was_seen_inside_is_known_outside() {
    let script = "setsid env -i sh -c 'echo in $$; while [ ! -e $1 ]; do sleep 0.01; done; \
                  echo $$ > $0/cgroup.procs; echo out; exec sleep 1000' $1 $PWD/go & exec sleep 1000";
    let dir = tempfile::tempdir().unwrap();
    let cwd = dir.path().to_owned();
    let Some(subject) = start_as(script, |launch| launch.cwd = cwd) else {
        return;
    };
    let pid = subject.number("in ").await;
    subject.tree.look();
    subject.tree.look();
    fs::write(dir.path().join("go"), "").unwrap();
    subject.says("out").await;
    subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
    assert_eq!(subject.main_ended().await, Exit::Signal(Signal::TERM));
    assert!(!subject.tree.is_empty());
    assert!(subject.tree.members().iter().any(|member| member.pid == pid));
    subject.tree.kill().unwrap();
    subject.emptied().await;
}

/// Hazard P07: without its environment, too.
#[tokio::test]
async fn a_ghost_that_left_is_killed() {
    let script =
        "setsid env -i sh -c 'echo $$ > $0/cgroup.procs; echo out $$; exec sleep 1000' $1 & exec sleep 1000";
    let Some(subject) = start(script) else {
        return;
    };
    let pid = subject.number("out ").await;
    subject.tree.kill().unwrap();
    subject.main_ended().await;
    subject.emptied().await;
    eventually(|| !exists(pid)).await;
}

/// Hazard P07, and where it ends: nobody's process is left alone.
#[tokio::test]
async fn what_can_not_be_told_apart_is_nobodys() {
    let script = "setsid env -i sh -c 'prlimit --pid $$ --locks=9 && echo $$ > $0/cgroup.procs && echo out $$; \
                  exec sleep 1000' $1 & exec sleep 1000";
    let Some(subject) = start(script) else {
        return;
    };
    let pid = subject.number("out ").await;
    subject.tree.kill().unwrap();
    subject.main_ended().await;
    subject.emptied().await;
    assert!(exists(pid));
    kill_process(Pid::from_raw(pid).unwrap(), Raw::KILL).unwrap();
    eventually(|| !exists(pid)).await;
}

fn start(script: &str) -> Option<Subject> {
    start_as(script, |_| ())
}

fn start_as(script: &str, settings: impl FnOnce(&mut Launch)) -> Option<Subject> {
    if !is_root() {
        eprintln!("skipped: only root may leave its cgroup for sure");
        return None;
    }
    Subject::start_as(CgroupUse::Auto, script, settings)
}
