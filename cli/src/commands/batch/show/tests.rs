use BatchHostState::{Failed, Running, Skipped, Successful, Waiting};
use belay_proto::v1::HostAgentStatus;

use super::*;
use crate::commands::batch::tests::batch_of;

fn names() -> Names {
    Names((1..=6).map(|id| (id, format!("web-{id}"))).collect())
}

fn batch(task: &Task) -> Batch {
    task.batch.clone().expect("a batch")
}

fn planned(hosts: i64) -> BatchPlan {
    let host = |host_id: i64| PlannedHost {
        host_id,
        name: format!("web-{host_id}"),
        wave: if host_id == 1 { 1 } else { 2 },
        agent_status: HostAgentStatus::Available.into(),
        running: vec!["obstat2".to_owned(), "ob_cleaner".to_owned()],
        domain: "z1".to_owned(),
    };
    BatchPlan {
        id: "p1".to_owned(),
        hosts: (1..=hosts).map(host).collect(),
        left_out: vec![LeftOutHost {
            host_id: 9,
            name: "web-9".to_owned(),
            why: "in maintenance: new disk".to_owned(),
        }],
        waves: vec![1, i32::try_from(hosts).expect("few") - 1],
        parallel: 2,
        confirm_hosts: 3,
        warnings: vec!["host 2 is \u{1b}absent".to_owned()],
        ..BatchPlan::default()
    }
}

#[test]
fn a_plan_shows_what_would_happen() {
    assert_eq!(
        plan(&planned(3), Verb::Stop, usize::MAX),
        "\
plan     stop all processes of 3 hosts
waves    2: 1, 2
at once  at most 2
id       p1, good until\x20

WAVE  HOST  NAME   AGENT      DOMAIN  RUNNING
   1     1  web-1  AVAILABLE  z1      obstat2, ob_cleaner
   2     2  web-2  AVAILABLE  z1      obstat2, ob_cleaner
   2     3  web-3  AVAILABLE  z1      obstat2, ob_cleaner

LEFT OUT  NAME   WHY
       9  web-9  in maintenance: new disk

warning: host 2 is \u{fffd}absent
"
    );
    assert_eq!(order_of(&planned(3), Verb::Stop), "belay batch stop --plan p1 --confirm 3");
    let few = BatchPlan { confirm_hosts: 0, ..planned(3) };
    assert_eq!(order_of(&few, Verb::Restart), "belay batch restart --plan p1");
}

#[test]
fn a_long_plan_is_cut_off_where_somebody_is_asked() {
    let text = plan(&planned(60), Verb::Start, 50);
    assert!(text.contains("web-50 ") && !text.contains("web-51"), "{text}");
    assert!(text.contains("\n... and 10 more: `--dry-run` shows all\n"), "{text}");
}

#[test]
fn a_batch_shows_how_each_host_stands() {
    let mut task = batch_of(TaskState::Paused, &[Successful, Failed, Waiting]);
    let known = task.batch.as_mut().expect("a batch");
    (known.stop_after, known.halted) = (1, true);
    known.waits_for = vec!["wave 2 is to be approved: `belay batch approve 30`".to_owned()];
    assert_eq!(
        detail(&task, &batch(&task), &names()),
        "\
batch      Batch stop OCP agent (30)
status     PAUSED
hosts      3 hosts: 1 successful, 1 waiting, 1 failed
wave       1 of 2: 2, 2
at once    at most 10
failures   no further host begins after 1; so many have failed
waits for  wave 2 is to be approved: `belay batch approve 30`
creator    -
reason     -
created    -
finished   -
trace      -

HOST  NAME   WAVE  STATE       ERROR
   1  web-1     1  SUCCESSFUL  -
   2  web-2     1  FAILED      pid 7 is alive (LEFTOVERS)
   3  web-3     2  WAITING     -
"
    );
}

#[test]
fn a_list_of_batches_has_a_line_for_each() {
    assert_eq!(
        table(&[batch_of(TaskState::Running, &[Running, Waiting])]),
        "\
ID  NAME                  STATUS   HOSTS  COUNTS                CREATOR  CREATED  FINISHED
30  Batch stop OCP agent  RUNNING      2  1 running, 1 waiting  -        -        -
"
    );
}

#[test]
fn the_end_names_the_hosts_that_failed_and_the_next_command() {
    assert_eq!(outcome(&batch_of(TaskState::Successful, &[Successful, Skipped]), &names()), Ok(()));
    let task = batch_of(TaskState::Failed, &[Successful, Failed, Waiting]);
    let failure = outcome(&task, &names()).expect_err("it failed");
    assert_eq!(
        failure.message,
        "batch 30 `Batch stop OCP agent` failed: 3 hosts: 1 successful, 1 waiting, 1 failed\n  \
         host `web-2` (2): pid 7 is alive (LEFTOVERS)"
    );
    for command in ["belay batch get 30", "belay batch retry 30", "belay batch rerun 30"] {
        assert!(failure.hint.contains(command), "{}", failure.hint);
    }
    let many = outcome(&batch_of(TaskState::Failed, &[Failed; 100]), &names()).expect_err("it failed");
    assert_eq!(many.message.lines().count(), 22);
    assert!(many.message.ends_with("\n  and 80 more: `belay batch get 30`"), "{}", many.message);
    let cancelled = outcome(&batch_of(TaskState::Cancelled, &[Waiting]), &names()).expect_err("cancelled");
    assert!(cancelled.message.contains(" was cancelled: 1 host: 1 waiting"), "{}", cancelled.message);
}

#[test]
fn a_step_of_no_host_that_failed_is_named_too() {
    let mut task = batch_of(TaskState::Failed, &[Waiting]);
    let told = SubtaskError { reason: "TIMED_OUT".to_owned(), message: "no\nhealth".to_owned() };
    let step = |host_id| belay_proto::v1::Subtask {
        name: "Wait node".to_owned(),
        host_id,
        error: Some(told.clone()),
        ..belay_proto::v1::Subtask::default()
    };
    task.subtasks = vec![step(0), step(1)];
    let failure = outcome(&task, &names()).expect_err("it failed");
    assert!(
        failure.message.ends_with("1 waiting\n  `Wait node`: no\u{fffd}health (TIMED_OUT)"),
        "{failure:?}"
    );
}

#[test]
fn while_nothing_changes_a_bar_is_seen() {
    let mut task = batch_of(TaskState::Running, &[Successful, Failed, Running, Waiting]);
    let waits = (1..=5).map(|host| format!("the agent of host {host} does not report")).collect();
    task.batch.as_mut().expect("a batch").waits_for = waits;
    assert_eq!(
        live(Some(&task), 30),
        [
            "Batch stop OCP agent (30): RUNNING",
            "[##########xxxxxxxxxx>>>>>>>>>>..........]",
            "wave 1 of 2: 1 successful, 1 running, 1 waiting, 1 failed",
            "waits: the agent of host 1 does not report",
            "waits: the agent of host 2 does not report",
            "waits: the agent of host 3 does not report",
            "waits: and 2 more",
        ]
    );
    assert_eq!(live(None, 30), ["batch 30"]);
    assert_eq!(bar(&Batch::default()), format!("[{}]", ".".repeat(BAR)));
    let all = batch_of(TaskState::Running, &[Successful; 7]);
    assert_eq!(bar(&batch(&all)), format!("[{}]", "#".repeat(BAR)));
}
