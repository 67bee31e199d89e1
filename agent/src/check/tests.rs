use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::PathBuf};

use super::*;

/// A configuration in a folder of its own.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        // So that other users reach what is in it.
        fs::set_permissions(place.dir.path(), Permissions::from_mode(0o755)).unwrap();
        place.write("token", "secret\n", 0o600);
        place
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// What is found with these settings.
    fn check(&self, settings: &str) -> (bool, String) {
        let text = format!(
            "listen = \"127.0.0.1:0\"\nserver = \"http://127.0.0.1:9440\"\nstate = \"state\"\n\
             fleet_token_file = \"token\"\n{settings}"
        );
        let findings = check(&self.write("agent.toml", &text, 0o644));
        let told = findings.to_string().replace(self.dir.path().to_str().unwrap(), "/etc");
        (findings.is_good(), told)
    }

    /// What is found with a process that has these settings.
    #[track_caller]
    fn check_process(&self, settings: &str, is_good: bool, expected: &[&str]) {
        let (good, told) = self.check(&format!("[[process]]\nalias = \"web\"\n{settings}"));
        assert_eq!(good, is_good, "{told}");
        for expected in expected {
            assert!(told.contains(expected), "{told}");
        }
    }
}

#[test]
fn what_is_good_is_called_so() {
    let place = Place::new();
    let (good, told) = place.check("cgroup = \"off\"\n[[process]]\nalias = \"web\"\ncommand = \"/bin/sh\"\n");
    assert!(good);
    assert_eq!(
        told,
        "agent  ok       processes are tracked without cgroups, as configured\nweb    ok\neverything is good"
    );
}

#[test]
fn a_program_must_be_there_and_run() {
    let place = Place::new();
    let check = |name: &str, text: &str, mode, is_good, expected: &str| {
        let path = place.write(name, text, mode);
        let setting = format!("command = \"{}\"", path.display());
        place.check_process(&setting, is_good, &[expected]);
    };
    place.check_process(
        "command = \"/none/x\"",
        false,
        &["`/none/x` does not exist, nor does `/none`", "install"],
    );
    place.check_process("command = \"/bin\"", false, &["is a folder"]);
    check(
        "plain",
        "#!/bin/sh\n",
        0o644,
        false,
        "web    error    `command`: `/etc/plain` is not executable; run `chmod +x",
    );
    check(
        "moved",
        "#!/old/venv/bin/python3 -u\n",
        0o755,
        false,
        "`/old/venv/bin/python3`, which does not exist",
    );
    check("windows", "#!/bin/sh\r\nexit\r\n", 0o755, false, "line ends of Windows");
    check("text", "echo\n", 0o755, true, "neither a program");
    check("open", "#!/bin/sh\n", 0o757, true, "chmod o-w /etc/open");
    check("good", "#!/bin/sh\n", 0o755, true, "web    ok");
    let hook = "command = \"/bin/sh\"\nstop = { before = { command = \"/none\" } }\nready = { exec = { command = \"/none\" } }\n\
                live = { exec = { command = \"/none\" } }\ncwd = \"/none\"";
    place.check_process(hook, false, &["`stop.before`", "`ready.exec`", "`live.exec`", "`cwd`", "errors: 4"]);
}

#[test]
fn users_and_groups_must_exist_and_reach_their_program() {
    let place = Place::new();
    let nobody = "command = \"/bin/sh\"\nuser = \"no-such-user\"";
    place.check_process(nobody, false, &["there is no user `no-such-user`", "useradd"]);
    let nogroup = "command = \"/bin/sh\"\ngroup = \"no-such-group\"";
    place.check_process(nogroup, false, &["there is no group `no-such-group`", "groupadd"]);
    if !geteuid().is_root() {
        let root = "command = \"/bin/sh\"\nuser = \"root\"";
        return place.check_process(root, false, &["only root can become `root`"]);
    }
    place.write("x", "#!/bin/sh\n", 0o755);
    let hidden = place.dir.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    fs::set_permissions(&hidden, Permissions::from_mode(0o700)).unwrap();
    place.write("hidden/x", "#!/bin/sh\n", 0o755);
    let setting = format!("user = \"nobody\"\ncommand = \"{}/x\"\ncwd = \"{0}\"", hidden.display());
    place.check_process(
        &setting,
        false,
        &["it may not enter `/etc/hidden`", "chmod o+x", "`nobody` may not enter"],
    );
}

#[test]
fn what_is_asked_for_must_be_plausible() {
    let place = Place::new();
    let web = "command = \"/bin/sh\"\n";
    let memory = format!("{web}cgroup = {{ memory = \"1GiB\" }}\nrestart_above_memory = \"2GiB\"");
    place.check_process(&memory, true, &["`restart_above_memory`", "is never reached"]);
    let inherit = format!("{web}inherit = [\"BELAY_NO_SUCH_VARIABLE\"]");
    place.check_process(&inherit, true, &["`BELAY_NO_SUCH_VARIABLE` is not set here"]);
    let logs = format!("{web}log_file_pattern = \"/none/*.log\"");
    place.check_process(&logs, true, &["no folder `/none` yet"]);
    let two =
        format!("{web}ready = {{ tcp = 8080 }}\n[[process]]\nalias = \"two\"\n{web}ready = {{ tcp = 8080 }}");
    place.check_process(&two, true, &["`two` is ready at 127.0.0.1:8080 too", "warnings: "]);
    let (good, told) =
        place.check(&format!("cgroup = \"off\"\n[[process]]\nalias = \"web\"\n{web}cgroup.pids = 10"));
    assert!(good && told.contains("`cgroup.pids` is not applied"), "{told}");
}

#[test]
fn the_agents_own_needs_are_looked_at() {
    let place = Place::new();
    place.write("token", "secret\n", 0o644);
    place.write("state", "", 0o600);
    let (good, told) = place.check("");
    assert!(!good);
    assert!(told.contains("chmod 600 /etc/token") && told.contains("`/etc/state` is not a folder"), "{told}");
    let (good, told) = place.check("listten = 1");
    assert!(!good && told.contains("line 5, column 1"), "{told}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!(
        "listen = \"{address}\"\nstate = \"s\"\n[[process]]\nalias = \"x\"\ncommand = \"/bin/sh\"\nready = {{ tcp = {} }}",
        address.port()
    );
    let told = check(&place.write("agent.toml", &text, 0o600)).to_string();
    assert!(told.contains("somebody listens") && told.contains("is the agent's own"), "{told}");
    assert!(told.contains("has not joined its fleet yet"), "{told}");
    let text = format!("server = \"http://127.0.0.1:9440\"\n{text}");
    let told = check(&place.write("agent.toml", &text, 0o600)).to_string();
    assert!(told.contains("`fleet_token_file`: it is missing"), "{told}");
}
