//! Helpers: hooks and probes.

use super::*;
use crate::os::Helper;

async fn ended(helper: &dyn Helper) -> Exit {
    timeout(PATIENCE, helper.ended()).await.unwrap()
}

impl Subject {
    fn help(&self, script: &str) -> Box<dyn Helper> {
        let launch = launch(self.dir.path(), "/bin/sh", &["-c", script]);
        self.linux.run(&self.instance, &launch).unwrap()
    }
}

#[tokio::test]
async fn a_helper_is_a_member() {
    in_both_modes("exec sleep 1000", async |subject| {
        let script = "echo helper $$; echo $BELAY_INSTANCE; while :; do sleep 0.02; done";
        let helper = subject.help(script);
        let pid = subject.number("helper ").await;
        eventually(|| subject.said().len() == 2).await;
        assert!(subject.said()[1].ends_with("/subject/3"));
        assert!(subject.tree.members().iter().any(|member| member.pid == pid));
        assert_eq!(Stat::read(pid).unwrap().unwrap().session, pid);
        let group = subject.linux.group_of(&subject.instance);
        assert!(group.is_none_or(|group| group.holds(pid)));
        helper.kill();
        assert_eq!(ended(&*helper).await, Exit::Signal(Signal::KILL));
        assert!(!exists(pid), "no zombie stays");
        assert!(!subject.tree.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_helper_tells_how_it_ended() {
    in_both_modes("exec sleep 1000", async |subject| {
        let helper = subject.help("exit 4");
        assert_eq!(ended(&*helper).await, Exit::Code(4));
        let missing = launch(subject.dir.path(), "/nonexistent/hook", &[]);
        assert!(subject.linux.run(&subject.instance, &missing).is_err());
        assert!(!subject.tree.is_empty());
    })
    .await;
}

/// Hazard P14: whoever runs a helper need not wait for it.
#[tokio::test]
async fn a_helper_that_is_left_alone_is_reaped() {
    in_both_modes("exec sleep 1000", async |subject| {
        drop(subject.help("echo early $$; exec sleep 0.1"));
        let helper = subject.help("echo late $$");
        let (early, late) = (subject.number("early ").await, subject.number("late ").await);
        eventually(|| Stat::read(late).unwrap().is_none_or(|stat| !stat.alive)).await;
        drop(helper);
        eventually(|| !exists(early) && !exists(late)).await;
    })
    .await;
}
