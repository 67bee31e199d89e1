use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{error::Chain, life::Restart, signal::Signal};

#[track_caller]
fn check_refused(text: &str, expected: &[&str]) {
    let told = match Config::parse(text) {
        Ok(config) => Chain(&config.validate().unwrap_err()).to_string(),
        Err(told) => told,
    };
    for expected in expected {
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn reads_every_setting() {
    let config = Config::parse(
        r#"
        name = "host-1"
        listen = "127.0.0.1:0"
        server = "http://[::1]:9440"
        state = "/tmp/x"
        cgroup = "off"
        [[process]]
        alias = "obstat2"
        command = "/bin/sleep"
        args = ["1"]
        user = "nobody"
        environment = { K = "V" }
        operable = false
        log_file_pattern = "/x/*.log"
        stop = { signal = "SIGINT", grace = "2s" }
        restart = "on-failure"
        [[process]]
        alias = "plain"
        command = "/bin/true"
        "#,
    )
    .unwrap();
    config.validate().unwrap();
    let [first, plain] = &config.processes[..] else {
        panic!("two processes");
    };
    assert_eq!(first.restart, Restart::OnFailure);
    assert_eq!(first.stop.signals[0].signal.to_string(), "SIGINT");
    assert_eq!(plain.restart, Restart::Always);
    assert_eq!(plain.stop.signals[0].signal, Signal::TERM);
    assert!(plain.operable);
    assert_eq!(config.log_folder(), Path::new("/tmp/x/log"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    check_refused("name = \"x\"\nlissten = 1", &["line 2, column 1", "unknown field `lissten`"]);
    check_refused(
        "[[process]]\nalias = \"../x\"\ncommand = \"/a\"",
        &["line 2, column 9", "is not an alias"],
    );
    check_refused("[[process]]\nalias = \"x\"\ncommand = \"sh -c y\"", &["line 3", "not an absolute path"]);
    check_refused(
        "[[process]]\nalias = \"x\"\ncommand = \"/x\"\nstop = { grace = \"11m\" }",
        &["line 4", "at most 600s"],
    );
    check_refused(
        "[[process]]\nalias = \"x\"\ncommand = \"/x\"\nstop = { signal = \"SIGSTOP\" }",
        &["line 4", "does not stop a process", "SIGTERM"],
    );
    let twice = "[[process]]\nalias = \"x\"\ncommand = \"/x\"\n".repeat(2);
    check_refused(&twice, &["process x", "rename one"]);
}

#[test]
fn plain_text_stays_on_the_host_unless_allowed() {
    check_refused("listen = \"0.0.0.0:1\"", &["`listen`", "allow_plaintext"]);
    check_refused("listen = \"0.0.0.0:1\"\nallow_plaintext = true", &["`advertise`", "HOST:PORT"]);
    check_refused("server = \"http://10.0.0.1:9440\"", &["`server`", "allow_plaintext"]);
    check_refused("server = \"https://localhost\"", &["TLS"]);
    check_refused("server = \"localhost:1\"", &["`server`"]);
}

/// Hazard I10.
#[test]
fn a_file_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    fs::write(&path, "state = \"s\"").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let told = Config::load(&path).unwrap_err().to_string();
    assert!(told.contains("chmod go-w"), "{told}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Config::load(&path).unwrap().state, dir.path().join("s"));
}

#[test]
fn the_token_is_read_from_a_private_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "secret\n").unwrap();
    let mut config = Config::with_state(dir.path());
    assert!(config.token().is_err());
    config.fleet_token_file = Some(path.clone());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(config.token(), Err(ConfigError::Unsafe { .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(config.token().unwrap().expose_secret(), "secret");
    assert!(!format!("{config:?}").contains("secret"));
}
