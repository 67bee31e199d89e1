//! Descriptors that run out.

use std::fs::File;

use super::*;
use crate::os::StartError;

/// Hazard P30, with a limit that is low enough to reach.
#[test]
fn a_stop_needs_no_free_descriptors() {
    again(&["sh", "-c", "ulimit -n 90; exec \"$@\"", "sh"], "descriptors::without_descriptors");
}

#[tokio::test]
async fn without_descriptors() {
    if !is_again() {
        return;
    }
    let script = "(trap '' TERM; setsid sleep 1000 & sleep 1000 &); trap 'exit 0' TERM; echo ready; \
                  while :; do sleep 0.02; done";
    in_both_modes(script, async |subject| {
        subject.says("ready").await;
        let mut all = Vec::new();
        while let Ok(another) = File::open("/dev/null") {
            all.push(another);
        }
        let launch = launch(subject.dir.path(), "/bin/true", &[]);
        assert!(matches!(subject.linux.start(&launch), Err(StartError::Descriptors { free: 0 })));
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        assert_eq!(subject.main_ended().await, Exit::Code(0));
        subject.tree.ask(Signal::TERM, Scope::Rest).unwrap();
        assert!(!subject.tree.is_empty());
        subject.tree.kill().unwrap();
        timeout(PATIENCE, subject.tree.emptied()).await.unwrap();
        assert!(subject.tree.is_empty());
        assert!(File::open("/dev/null").is_err(), "they had run out all the time");
        drop(all);
    })
    .await;
}

/// Hazard P30: those that were free a moment ago may not be free any more.
#[test]
fn what_others_take_meanwhile_is_not_needed() {
    again(&["sh", "-c", "ulimit -n 90; exec \"$@\"", "sh"], "descriptors::taken_meanwhile");
}

#[tokio::test]
async fn taken_meanwhile() {
    if !is_again() {
        return;
    }
    let linux = Linux::new(Uuid::new_v4(), CgroupUse::Off).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (inode, _) = listeners::here().unwrap().into_iter().find(|(_, known)| *known == port).unwrap();
    let taken = std::sync::Mutex::new(Vec::new());
    let take_all = || {
        let mut taken = taken.lock().unwrap();
        if taken.is_empty() {
            taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        }
    };
    let own = i32::try_from(std::process::id()).unwrap();
    let is_seen = fds::reserved(|| {
        take_all();
        Pidfd::open(own).ok().flatten().and_then(|_| Stat::read(own).ok().flatten()).is_some()
    });
    assert!(is_seen);
    let all = census::Census::since(std::time::Instant::now()).unwrap();
    assert!(all.all.iter().any(|seen| seen.stat.pid == own));
    let open = BTreeSet::from([port]);
    assert_eq!(linux.still_listening(&BTreeMap::from([(inode, port), (inode + 1_000_000, 1)])), open);
    assert!(File::open("/dev/null").is_err(), "they had run out all the time");
}
