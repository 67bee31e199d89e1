use BatchHostState::{Failed, Running, Skipped, Successful, Waiting};
use belay_proto::v1::{BatchHostState, TaskState};

use super::*;
use crate::commands::batch::tests::batch_of;

#[track_caller]
fn check(before: Option<&Task>, after: &Task, live: bool, expected: &[&str]) {
    assert_eq!(lines(before, after, &Names::default(), live), expected);
}

#[test]
fn each_change_of_the_counts_is_a_line_and_so_is_each_host_that_failed() {
    let first = batch_of(TaskState::Running, &[Running, Waiting, Waiting]);
    let second = batch_of(TaskState::Running, &[Failed, Running, Skipped]);
    let third = batch_of(TaskState::Failed, &[Failed, Successful, Skipped]);
    check(
        None,
        &first,
        false,
        &["wave 1 of 2: 1 running, 2 waiting", "batch 30 `Batch stop OCP agent`: RUNNING"],
    );
    check(
        Some(&first),
        &second,
        false,
        &[
            "wave 1 of 2: 1 running, 1 failed, 1 skipped",
            "host 1 failed: pid 7 is alive (LEFTOVERS)",
            "host 3 was skipped",
        ],
    );
    check(Some(&second), &second, false, &[]);
    check(
        Some(&second),
        &third,
        false,
        &["wave 1 of 2: 1 successful, 1 failed, 1 skipped", "batch 30 `Batch stop OCP agent`: FAILED"],
    );
    // On a terminal the counts are seen all the time.
    check(Some(&first), &second, true, &["host 1 failed: pid 7 is alive (LEFTOVERS)", "host 3 was skipped"]);
    check(
        Some(&second),
        &third,
        true,
        &["wave 1 of 2: 1 successful, 1 failed, 1 skipped", "batch 30 `Batch stop OCP agent`: FAILED"],
    );
}

#[test]
fn what_is_waited_for_is_said_when_it_changes() {
    let running = batch_of(TaskState::Running, &[Successful, Waiting]);
    let mut paused = batch_of(TaskState::Paused, &[Successful, Waiting]);
    let wait = "wave 2 is to be approved: `belay batch approve 30`".to_owned();
    paused.batch.as_mut().expect("a batch").waits_for = vec![wait];
    for live in [false, true] {
        check(
            Some(&running),
            &paused,
            live,
            &[
                "waits: wave 2 is to be approved: `belay batch approve 30`",
                "batch 30 `Batch stop OCP agent`: PAUSED",
            ],
        );
        check(Some(&paused), &paused, live, &[]);
    }
}

#[test]
fn who_stops_waiting_is_told_how_to_go_on() {
    let left = left(30);
    assert_eq!(left.message, "stopped waiting; batch 30 goes on");
    for verb in ["watch", "pause", "cancel"] {
        assert!(left.hint.contains(&format!("`belay batch {verb} 30`")), "{}", left.hint);
    }
}
