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
