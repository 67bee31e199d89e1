//! What `belay doctor` finds of certificates.

use std::{fs, os::unix::fs::PermissionsExt};

use belay_proto::v1::RotateAuthorityRequest;
use belay_tests::{Fleet, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use super::one_worker;
use crate::{cli::belay, fleet_with};

/// What is found with these arguments, each as `CHECK LEVEL SUBJECT`.
fn found(fleet: &Fleet, arguments: &[&str]) -> (i32, Vec<String>) {
    let arguments = [&["doctor", "-o", "json"], arguments].concat();
    let (code, out, err) = belay(fleet, &arguments);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let line = |finding: &Value| ["check", "level", "subject"].map(|name| text(finding, name)).join(" ");
    (code, told["findings"].as_array().expect("findings").iter().map(line).collect())
}

#[track_caller]
fn has(found: &[String], expected: &[&str]) {
    for one in expected {
        assert!(found.iter().any(|line| line.starts_with(one)), "`{one}` is not in {found:#?}");
    }
}

/// A replacement that is not ended, a key that others can read, and a part of which the certificate is about to end are found;
/// what is well is called so.
#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_certificates() {
    let mut fleet = fleet_with("tls.certificate_lifetime = \"40s\"", vec![one_worker()]).await;
    let host = fleet.host_id(0).await;
    let agent = fleet.agent_config(0);
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o600)).expect("set");
    let agent = agent.display().to_string();
    let pki = fleet.folder().join("server/pki");
    let well = [
        "certificates.server OK",
        "certificates.authority OK",
        "certificates.rotation OK",
        "certificates.parts OK",
        "agents.plaintext OK",
        "connection.plaintext OK",
        "agent.config OK",
        "agent.certificate OK",
        &format!("files.secret OK {}", fleet.folder().join("server/audit.key").display()),
        &format!("files.folder OK {}", pki.display()),
        &format!("files.secret OK {}", fleet.folder().join("host-1-state/tls.pem").display()),
    ];
    wait_for("all is well", async || {
        let (code, found) = found(&fleet, &["--agent-config", &agent]);
        let missing: Vec<_> =
            well.iter().filter(|one| !found.iter().any(|line| line.starts_with(**one))).collect();
        if code == 0 && missing.is_empty() { Ok(()) } else { Err(format!("{code}: {missing:?}: {found:#?}")) }
    })
    .await;

    let rotate = RotateAuthorityRequest::default();
    fleet.wire().trust().rotate_authority(rotate).await.expect("it cuts nobody off");
    has(&found(&fleet, &[]).1, &["certificates.rotation WARN"]);

    let key = fs::read_dir(&pki).expect("the folder").map(|entry| entry.expect("an entry").path());
    let key = key.filter(|path| path.to_string_lossy().contains("authority-")).max().expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
    let (code, all) = found(&fleet, &[]);
    assert_eq!(code, 1, "{all:#?}");
    has(&all, &[&format!("files.secret FAIL {}", key.display())]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");

    // Who does not run renews nothing.
    fleet.agent(0).signal(Signal::STOP);
    wait_for("the certificate of the agent is about to end", async || {
        let (_, all) = found(&fleet, &[]);
        let is_told =
            all.iter().any(|line| line.starts_with(&format!("certificates.parts WARN hosts/{host}")));
        if is_told { Ok(()) } else { Err(all) }
    })
    .await;
    fleet.agent(0).signal(Signal::CONT);
    wait_for("it has another one", async || {
        let (_, all) = found(&fleet, &[]);
        if all.iter().any(|line| line.starts_with("certificates.parts OK")) { Ok(()) } else { Err(all) }
    })
    .await;
}
