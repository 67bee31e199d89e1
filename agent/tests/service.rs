//! The agent's program as its host sees it: a service of systemd, the first process of a container, a command.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

const AGENT: &str = env!("CARGO_BIN_EXE_belay-agent");

/// A folder with a configuration, and a socket that hears what the agent tells systemd.
struct Place {
    dir: TempDir,
    heard: UnixDatagram,
}

impl Place {
    fn new(processes: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "listen = \"127.0.0.1:0\"\nserver = \"http://127.0.0.1:1\"\nstate = \"state\"\nfleet_token_file = \"token\"\n{processes}"
        );
        for (name, text) in [("agent.toml", config.as_str()), ("token", "secret")] {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        }
        let heard = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        heard.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, heard }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts the agent by this command.
    fn start(&self, program: &str, args: &[&str]) -> Child {
        let mut command = Command::new(program);
        command.args(args).arg("--config").arg(self.path("agent.toml")).stderr(Stdio::null());
        command.env("NOTIFY_SOCKET", self.path("notify")).env("WATCHDOG_USEC", "100000");
        command.spawn().unwrap()
    }

    /// Waits until systemd is told this.
    #[track_caller]
    fn hear(&self, expected: &str) {
        self.hear_such(expected, |text| text == expected);
    }

    /// Waits until systemd is told something that begins so.
    #[track_caller]
    fn hear_beginning_with(&self, expected: &str) {
        self.hear_such(expected, |text| text.starts_with(expected));
    }

    #[track_caller]
    fn hear_such(&self, expected: &str, is_such: impl Fn(&str) -> bool) {
        let mut buffer = [0; 1024];
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let length = self.heard.recv(&mut buffer).unwrap();
            if is_such(std::str::from_utf8(&buffer[..length]).unwrap()) {
                return;
            }
        }
        panic!("{expected} was not heard");
    }
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A shell that writes down its pid and its environment, and sleeps.
fn sleeper(file: &Path) -> String {
    let script =
        format!("env > {0}.new; echo pid=$$ >> {0}.new; mv {0}.new {0}; exec sleep 1000", file.display());
    format!("[[process]]\nalias = \"web\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"{script}\"]\n")
}

/// Hazard P34: nothing of what is between systemd and the agent gets to its processes.
#[test]
fn systemd_is_told_how_the_agent_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("environment");
    let place = Place::new(&sleeper(&file));
    let mut agent = place.start(AGENT, &[]);
    place.hear("READY=1");
    place.hear("WATCHDOG=1");
    place.hear("STATUS=1 of 1 processes run");
    eventually("its process runs", || file.exists());
    let environment = fs::read_to_string(&file).unwrap();
    send(agent.id(), Signal::TERM);
    place.hear("STOPPING=1");
    assert!(agent.wait().unwrap().success());
    // It outlives the agent.
    let pid = environment.lines().find_map(|line| line.strip_prefix("pid=")).unwrap();
    send(pid.parse().unwrap(), Signal::KILL);
    for ours in ["NOTIFY_SOCKET", "WATCHDOG_"] {
        assert!(!environment.contains(ours), "{environment}");
    }
}

/// An upgrade is a reload to systemd: the unit goes on, with the same main process.
#[test]
fn systemd_sees_an_upgrade_as_a_reload() {
    let place = Place::new("");
    let mut agent = place.start(AGENT, &[]);
    place.hear("READY=1");
    assert!(run(&["ctl", "--state", &place.path("state"), "upgrade"]).status.success());
    place.hear_beginning_with("RELOADING=1\nMONOTONIC_USEC=");
    place.hear("READY=1");
    place.hear("WATCHDOG=1");
    send(agent.id(), Signal::TERM);
    place.hear("STOPPING=1");
    assert!(agent.wait().unwrap().success());
}

/// Hazard P14: whoever loses its parent in a container is waited for by the agent, its first process.
#[test]
fn as_the_first_process_of_a_container_it_reaps_and_ends_when_asked() {
    const NEW: &[&str] = &["--pid", "--fork", "--kill-child", "--mount-proc"];
    if !Command::new("unshare").args(NEW).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no new PID namespace can be made here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let orphan = dir.path().join("orphan");
    let script = format!("(sh -c 'sleep 0.1; : > {}' &) ; exec sleep 1000", orphan.display());
    let place = Place::new(&format!(
        "[[process]]\nalias = \"web\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"{script}\"]\n"
    ));
    let mut unshare = place.start("unshare", &[NEW, &[AGENT]].concat());
    place.hear("READY=1");
    let agent = children(unshare.id())[0];
    eventually("the orphan has ended", || orphan.exists());
    let zombie = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
    };
    eventually("no zombie is left", || !children(agent).iter().any(zombie));
    send(agent, Signal::TERM);
    place.hear("STOPPING=1");
    assert!(unshare.wait().unwrap().success());
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

fn run(args: &[&str]) -> Output {
    Command::new(AGENT).args(args).env_remove("BELAY_AGENT_CONFIG").output().unwrap()
}

#[test]
fn what_is_imported_can_be_checked() {
    let place = Place::new("");
    fs::write(place.path("sh.service"), "[Service]\nExecStart=/bin/sh -c 'exec sleep 9'\n").unwrap();
    let imported = run(&["import", &place.path("sh.service")]);
    assert!(imported.status.success(), "{imported:?}");
    let config = fs::read_to_string(place.path("agent.toml")).unwrap();
    let config = config + &String::from_utf8(imported.stdout).unwrap();
    fs::write(place.path("agent.toml"), &config).unwrap();
    for args in
        [vec!["check", &place.path("agent.toml")], vec!["--check", "--config", &place.path("agent.toml")]]
    {
        let checked = run(&args);
        assert!(checked.status.success(), "{checked:?}");
        assert!(String::from_utf8(checked.stdout).unwrap().contains("sh     ok"));
    }
    fs::write(place.path("agent.toml"), config.replace("/bin/sh", "/bin/none")).unwrap();
    let checked = run(&["check", &place.path("agent.toml")]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8(checked.stdout).unwrap().contains("`/bin/none` does not exist"));
    assert_eq!(run(&["import", &place.path("token")]).status.code(), Some(1));
    assert_eq!(run(&["import"]).status.code(), Some(2));
}
