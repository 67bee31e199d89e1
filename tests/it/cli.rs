//! The command line, as an operator uses it.

use std::process::{Command, Output};

use belay_tests::{Fleet, HostSetup, NOBODY};
use serde_json::Value;

use crate::fleet;

/// Runs `belay` against a fleet. Gives its exit code, and what it printed on both channels.
pub(crate) fn belay(fleet: &Fleet, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(fleet.program());
    if fleet.ca_file().exists() {
        command.env("BELAY_CA_FILE", fleet.ca_file());
    }
    let ran = command
        .args(arguments)
        .env("BELAY_SERVER", fleet.server_address())
        .env("BELAY_USER", "admin")
        .env("BELAY_PASSWORD", fleet.password())
        .env_remove("RUST_LOG")
        .output();
    let Output { status, stdout, stderr } = ran.expect("ran");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_at_a_terminal() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain").base("ocp_agentd")]).await;
    let (code, out, _) = belay(&fleet, &["host", "list"]);
    assert!(code == 0 && out.contains("host-1") && out.contains("AVAILABLE"), "{out}");

    let (code, out, err) = belay(&fleet, &["process", "stop", "obstat2", "--reason", "ticket 7"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(fleet.ledger(0, "obstat2").alive(), NOBODY);
    let (code, out, err) = belay(&fleet, &["process", "list", "-o", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert!(shown.to_string().contains("\"alias\":\"obstat2\""), "{shown:#}");

    let (code, out, err) = belay(&fleet, &["process", "stop", "ocp_agentd"]);
    assert_eq!(code, 5, "a conflict: {out}{err}");
    assert!(err.contains("hint:") && err.contains("belay agent stop"), "{err}");
    assert_eq!(belay(&fleet, &["process", "stop", "nothing"]).0, 3, "not found");
    assert_eq!(belay(&fleet, &["process", "frobnicate"]).0, 2, "wrong usage");

    let (code, out, err) = belay(&fleet, &["agent", "stop"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(fleet.ledger(0, "ocp_agentd").alive(), NOBODY);
    let (code, out, err) = belay(&fleet, &["agent", "start"]);
    assert_eq!(code, 0, "{out}{err}");
    let (_, out, _) = belay(&fleet, &["task", "list"]);
    assert!(out.contains("Stop OCP agent") && out.contains("Start OCP agent"), "{out}");
}

/// A task that went wrong, as an operator brings it to an end.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_and_a_task_that_went_wrong() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain").spared("survivor", "deaf")]).await;
    let (code, out, err) = belay(&fleet, &["agent", "stop"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("LEFTOVERS") && err.contains("belay task retry 1"), "{err}");
    let (code, _, err) = belay(&fleet, &["task", "cancel", "1"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("task 1 is FAILED and can not be cancelled"), "{err}");
    let (code, out, err) = belay(&fleet, &["task", "rollback", "1"]);
    assert_eq!(code, 1, "the survivor is in the way: {out}{err}");
    assert!(err.contains("could not be rolled back") && err.contains("belay task skip 1 SUBTASK"), "{err}");
    assert!(out.contains("ROLLBACK_STUCK"), "{out}{err}");
    let steps: Value =
        serde_json::from_str(&belay(&fleet, &["task", "get", "1", "-o", "json"]).1).expect("JSON");
    let stop = steps["subtasks"][1]["id"].to_string();
    let (code, out, err) = belay(&fleet, &["task", "skip", "1", &stop, "--reason", "it runs anyway"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("ROLLED_BACK"), "{out}{err}");
    let (_, out, _) = belay(&fleet, &["audit", "list"]);
    assert!(out.contains("SkipSubtask") && out.contains("it runs anyway"), "{out}");
}

/// The README's main command.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_the_main_job() {
    let ran = Command::new(env!("CARGO_BIN_EXE_belay-under-test")).arg("demo").output().expect("ran");
    let text = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(ran.status.success(), "{text}");
    assert!(text.contains("SUCCESSFUL"), "{text}");
}
