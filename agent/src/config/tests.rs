use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use bytesize::ByteSize;

use super::*;
use crate::{
    error::Chain,
    life::{Backoff, Restart},
    process::Alias,
    signal::Signal,
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn asked(signal: &str, wait: u64) -> SignalConfig {
    SignalConfig { signal: Signal::try_from(signal.to_owned()).unwrap(), wait: secs(wait) }
}

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

/// One process with these settings, from line 4 on.
fn process(settings: &str) -> Result<ProcessConfig, String> {
    let text = format!("[[process]]\nalias = \"web\"\ncommand = \"/bin/web\"\n{settings}");
    Config::parse(&text).map(|mut config| config.processes.remove(0))
}

#[track_caller]
fn check_process<T: PartialEq + std::fmt::Debug>(
    settings: &str,
    read: impl Fn(ProcessConfig) -> T,
    expected: T,
) {
    match process(settings) {
        Ok(config) => assert_eq!(read(config), expected),
        Err(told) => panic!("{told}"),
    }
}

fn signals(stop: &StopConfig) -> Vec<(String, u64)> {
    stop.signals.iter().map(|asked| (asked.signal.to_string(), asked.wait.as_secs())).collect()
}

#[test]
fn labels_that_no_host_can_have_are_refused() {
    check_refused("name = \"h\"\n[labels]\nzone = \"a b\"", &["line 2", "the value `a b` is not"]);
    check_refused("[labels]\n\"-zone\" = \"z1\"", &["the key `-zone` is not"]);
    check_refused("[labels]\nrack = 7", &["in quotes, as in \"7\""]);
    let config = Config { labels: [("a b".into(), String::new())].into(), ..Config::with_state("/x") };
    assert!(Chain(&config.validate().unwrap_err()).to_string().contains("`labels`: the key `a b`"));
}

#[test]
fn reads_every_setting() {
    let config = Config::parse(
        r#"
        name = "host-1"
        listen = "0.0.0.0:9441"
        advertise = "host-1:9441"
        server = "http://[::1]:9440"
        state = "/tmp/x"
        log = "/tmp/log"
        fleet_token_file = "/tmp/token"
        allow_plaintext = true
        cgroup = "off"
        labels = { zone = "z1", "example.com/role" = "" }
        [[process]]
        alias = "db"
        command = "/bin/sleep"
        operable = false
        [[process]]
        alias = "obstat2"
        command = "/bin/sleep"
        args = ["1"]
        cwd = "/tmp"
        user = "nobody"
        group = "nogroup"
        umask = "027"
        nice = -5
        oom_score_adj = 500
        rlimits = { nofile = 65536, core = "unlimited" }
        cgroup = { cpus = 1.5, memory = "1GiB", pids = 100 }
        environment = { K = "V" }
        inherit = ["HTTP_PROXY"]
        after = ["db"]
        log_file_pattern = "/x/*.log"
        output = { max_size = "1MiB", files = 2 }
        restart = "on-failure"
        success_codes = [0, 143]
        final_codes = [78]
        backoff = { first = "1s", longest = "1m", healthy = "5s", give_up_after = 3 }
        ready = { tcp = 8080, timeout = "30s" }
        live = { exec = { command = "/bin/check", args = ["-q"] }, interval = "1s", timeout = "2s", failures = 4 }
        restart_above_memory = "512MiB"
        [process.stop]
        before = { command = "/bin/drain", args = ["now"], timeout = "3s" }
        delay = "1s"
        signals = [{ signal = "SIGINT", wait = "2s" }, { signal = "SIGTERM", wait = "3s" }]
        kill = "never"
        "#,
    )
    .unwrap();
    config.validate().unwrap();
    assert_eq!(config.name, "host-1");
    assert_eq!(config.listen, "0.0.0.0:9441".parse().unwrap());
    assert_eq!(config.advertise.as_deref(), Some("host-1:9441"));
    assert_eq!(config.server, "http://[::1]:9440");
    assert_eq!(config.state, Path::new("/tmp/x"));
    assert_eq!(config.log_folder(), Path::new("/tmp/log"));
    assert_eq!(config.fleet_token_file.as_deref(), Some(Path::new("/tmp/token")));
    assert!(config.allow_plaintext);
    assert_eq!(config.cgroup, CgroupUse::Off);
    assert_eq!(
        config.labels,
        [("example.com/role", ""), ("zone", "z1")].map(|(key, value)| (key.into(), value.into())).into()
    );
    let alias = |name: &str| Alias::try_from(name.to_owned()).unwrap();
    assert!(!config.processes[0].operable);
    let expected = ProcessConfig {
        alias: alias("obstat2"),
        command: "/bin/sleep".into(),
        args: vec!["1".to_owned()],
        cwd: "/tmp".into(),
        user: Some("nobody".to_owned()),
        group: Some("nogroup".to_owned()),
        umask: process("umask = \"027\"").unwrap().umask,
        nice: Nice::try_from(-5).unwrap(),
        oom_score_adj: OomScore::try_from(500).unwrap(),
        rlimits: [(RlimitName::Nofile, Rlimit::At(65536)), (RlimitName::Core, Rlimit::Unlimited)].into(),
        cgroup: CgroupLimits { cpus: Some(1.5), memory: Some(ByteSize::gib(1)), pids: Some(100) },
        environment: [("K".to_owned(), "V".to_owned())].into(),
        inherit: vec!["HTTP_PROXY".to_owned()],
        operable: true,
        after: vec![alias("db")],
        log_file_pattern: Some("/x/*.log".to_owned()),
        output: OutputConfig { max_size: ByteSize::mib(1), files: 2 },
        stop: StopConfig {
            before: Some(HookConfig {
                command: "/bin/drain".into(),
                args: vec!["now".to_owned()],
                timeout: secs(3),
            }),
            delay: secs(1),
            signals: vec![asked("SIGINT", 2), asked("SIGTERM", 3)],
            kill: Kill::Never,
        },
        restart: Restart::OnFailure,
        success_codes: vec![0, 143],
        final_codes: vec![78],
        backoff: Backoff { first: secs(1), longest: secs(60), healthy: secs(5), give_up_after: 3 },
        ready: Some(ReadyConfig {
            when: ReadyWhen::Tcp("127.0.0.1:8080".parse().unwrap()),
            timeout: secs(30),
        }),
        live: Some(LiveConfig {
            check: LiveCheck::Exec(ProbeCommand {
                command: "/bin/check".into(),
                args: vec!["-q".to_owned()],
            }),
            interval: secs(1),
            timeout: secs(2),
            failures: 4,
        }),
        restart_above_memory: Some(ByteSize::mib(512)),
    };
    assert_eq!(config.processes[1], expected);
    assert_eq!(expected.umask.bits(), 0o027);
    assert_eq!(expected.stop.grace(), secs(3 + 1 + 2 + 3));
}

/// Hazard P36: what is not set has a value of its own; nothing depends on who started the agent.
#[test]
fn what_is_not_set_has_its_default() {
    let read = process("").unwrap();
    assert_eq!(read, ProcessConfig::new(read.alias.clone(), "/bin/web", &[]));
    assert_eq!(read.umask.bits(), 0o022);
    assert_eq!((read.nice.get(), read.oom_score_adj.get()), (0, 0));
    assert_eq!(signals(&read.stop), [("SIGTERM".to_owned(), 10)]);
    assert_eq!(read.restart, Restart::Always);
    let config = Config::parse("state = \"/s\"").unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::with_state("/s")));
}

#[test]
fn a_stop_is_one_signal_or_several() {
    let stop = |settings: &str| process(settings).unwrap().stop;
    let term = |wait| vec![("SIGTERM".to_owned(), wait)];
    check_process("stop = {}", |read| read.stop, StopConfig::default());
    check_process("stop = { grace = \"2s\" }", |read| signals(&read.stop), term(2));
    check_process("stop = { grace = \"0s\" }", |read| signals(&read.stop), term(0));
    let int = vec![("SIGINT".to_owned(), 10)];
    check_process("stop = { signal = \"SIGINT\" }", |read| signals(&read.stop), int);
    let text = "stop = { signals = [{ signal = \"SIGQUIT\", wait = \"1m\" }, { signal = \"SIGKILL\", wait = \"1s\" }] }";
    let two = vec![("SIGQUIT".to_owned(), 60), ("SIGKILL".to_owned(), 1)];
    check_process(text, |read| signals(&read.stop), two);
    check_process(
        "stop = { kill = \"never\" }",
        |read| (read.stop.kill, signals(&read.stop)),
        (Kill::Never, term(10)),
    );
    let hook = stop("stop = { before = { command = \"/bin/drain\" }, delay = \"5s\", grace = \"1s\" }");
    assert_eq!(hook.before.as_ref().map(|hook| hook.timeout), Some(secs(10)));
    assert_eq!(hook.grace(), secs(10 + 5 + 1));
    // The longest that is taken.
    assert_eq!(stop("stop = { grace = \"10m\" }").grace(), secs(600));
}

#[test]
fn values_have_more_than_one_form() {
    let ready = |settings: &str| process(settings).unwrap().ready.unwrap().when;
    assert_eq!(ready("ready = { tcp = 80 }"), ReadyWhen::Tcp("127.0.0.1:80".parse().unwrap()));
    assert_eq!(ready("ready = { tcp = \"[::1]:80\" }"), ReadyWhen::Tcp("[::1]:80".parse().unwrap()));
    assert_eq!(ready("ready = { output = \"up\" }"), ReadyWhen::Output("up".to_owned()));
    assert_eq!(ready("ready = { notify = true }"), ReadyWhen::Notify);
    let probe = ProbeCommand { command: "/bin/probe".into(), args: Vec::new() };
    assert_eq!(ready("ready = { exec = { command = \"/bin/probe\" } }"), ReadyWhen::Exec(probe));
    let live = process("live = { tcp = 80 }").unwrap().live.unwrap();
    assert_eq!((live.interval, live.timeout, live.failures), (secs(10), secs(5), 3));
    let memory = |settings: &str| process(settings).unwrap().cgroup.memory.map(|size| size.as_u64());
    assert_eq!(memory("cgroup = { memory = 1048576 }"), Some(1 << 20));
    assert_eq!(memory("cgroup = { memory = \"2 GiB\" }"), Some(2 << 30));
    assert_eq!(memory("cgroup = { memory = \"2GB\" }"), Some(2_000_000_000));
    check_process("cgroup = { cpus = 2 }", |read| read.cgroup.cpus, Some(2.0));
    check_process("umask = \"0\"", |read| read.umask.bits(), 0);
    check_process("backoff = { give_up_after = 0 }", |read| read.backoff.first, Duration::from_millis(500));
}

/// What a person reads who wrote something wrong: where it stands, what is wrong with it, what to write.
#[test]
fn what_is_wrong_is_told_with_its_place_and_a_way_out() {
    let told: Vec<_> = WRONG.iter().map(|settings| process(settings).unwrap_err()).collect();
    for (settings, told) in std::iter::zip(WRONG, &told) {
        let line = if settings.contains('\n') { 5 } else { 4 };
        assert!(told.contains(&format!("at line {line}, column ")), "{told}");
        assert!(!told.contains("untagged") && !told.contains("parsable"), "{told}");
    }
    insta::assert_snapshot!(told.join("\n\n"));
}

const WRONG: &[&str] = &[
    "comand = 1",
    "args = \"x y\"",
    "args = [\"a\\u0000b\"]",
    "cwd = \"tmp\"",
    "user = 0",
    "user = \"\"",
    "umask = 22",
    "umask = \"9\"",
    "umask = \"1000\"",
    "nice = 20",
    "oom_score_adj = 2000",
    "rlimits = { nofiles = 1 }",
    "rlimits = { nofile = -1 }",
    "rlimits = { nofile = \"many\" }",
    "rlimits = { nofile = true }",
    "cgroup = { memory = \"lots\" }",
    "cgroup = { memory = -1 }",
    "cgroup = { memory = \"1KiB\" }",
    "cgroup = { cpus = 0 }",
    "cgroup = { cpus = nan }",
    "cgroup = { pids = 0 }",
    "environment = { \"A=B\" = \"1\" }",
    "environment = { A = 1 }",
    "environment = { A = \"\\u0000\" }",
    "inherit = [\"\"]",
    "inherit = [\"NOTIFY_SOCKET\"]",
    "after = [\"../x\"]",
    "after = [\"db\"]",
    "after = [\"web\"]",
    "output = { max_size = \"1KiB\" }",
    "output = { max_size = 1.5 }",
    "output = { files = 101 }",
    "restart = \"allways\"",
    "success_codes = [256]",
    "final_codes = [-1]",
    "backoff = { first = \"0s\" }",
    "backoff = { first = \"1s\", longest = \"500ms\" }",
    "backoff = { healthy = \"0s\" }",
    "backoff = { longest = \"1day\" }",
    "ready = {}",
    "ready = { tcp = 80, notify = true }",
    "ready = { notify = false }",
    "ready = { tcp = 0 }",
    "ready = { tcp = 70000 }",
    "ready = { tcp = \"localhost\" }",
    "ready = { output = \"\" }",
    "ready = { exec = { command = \"probe\" } }",
    "ready = { notify = true, timeout = \"0s\" }",
    "live = {}",
    "live = { tcp = 80, exec = { command = \"/probe\" } }",
    "live = { tcp = 80, interval = \"1ms\" }",
    "live = { tcp = 80, timeout = 5 }",
    "live = { tcp = 80, failures = 0 }",
    "restart_above_memory = 0",
    "stop = { signal = \"TERM\" }",
    "stop = { signal = \"SIGSTOP\" }",
    "stop = { grace = \"soon\" }",
    "stop = { grace = \"11m\" }",
    "stop = { grace = \"18446744073709551615s\", delay = \"1s\" }",
    "stop = { signals = [] }",
    "stop = { signals = [{ signal = \"SIGTERM\" }] }",
    "stop = { signals = [{ signal = \"SIGKILL\", wait = \"1s\" }, { signal = \"SIGTERM\", wait = \"1s\" }] }",
    "stop = { signals = [{ signal = \"SIGTERM\", wait = \"1s\" }], grace = \"1s\" }",
    "stop = { signal = \"SIGKILL\", kill = \"never\" }",
    "stop = { before = { command = \"drain\" } }",
    "stop = { before = { command = \"/drain\", timeout = \"0s\" } }",
    "stop = { kill = \"no\" }",
    "[process.stop]\nsignl = \"SIGTERM\"",
];

#[test]
fn what_is_wrong_with_the_agents_own_settings_is_told_with_its_place() {
    check_refused("name = \"x\"\nlissten = 1", &["line 2, column 1", "unknown field `lissten`"]);
    check_refused("listen = \"localhost\"", &["line 1, column 10", "invalid socket address"]);
    check_refused("cgroup = \"on\"", &["line 1, column 10", "`auto` or `off`"]);
    check_refused("name = \"\"", &["`name`", "give the host a name"]);
    check_refused(
        "[[process]]\nalias = \"../x\"\ncommand = \"/a\"",
        &["line 2, column 9", "is not an alias"],
    );
    check_refused("[[process]]\nalias = \"x\"", &["line 1", "missing field `command`"]);
    check_refused("[[process]]\nalias = \"x\"\ncommand = \"sh -c y\"", &["line 3", "not an absolute path"]);
}

/// Several processes, each of its alias and more.
fn processes(settings: &[(&str, &str)]) -> String {
    let process = |(alias, more): &(&str, &str)| {
        format!("[[process]]\nalias = \"{alias}\"\ncommand = \"/x\"\n{more}\n")
    };
    settings.iter().map(process).collect()
}

#[test]
fn processes_must_fit_together() {
    let twice = processes(&[("x", ""), ("y", ""), ("x", "")]);
    check_refused(&twice, &["line 10, column 9", "process `x`", "rename one"]);
    let cycle = processes(&[
        ("a", "after = [\"c\"]"),
        ("b", "after = [\"a\"]"),
        ("c", "after = [\"b\"]"),
        ("d", "after = [\"a\"]"),
    ]);
    check_refused(&cycle, &["line 4, column 9", "`a` and `b` and `c` wait for each other"]);
    let upside_down = processes(&[("base", "operable = false\nafter = [\"worker\"]"), ("worker", "")]);
    check_refused(&upside_down, &["line 5, column 9", "`worker`, a worker", "remove it here"]);
    // What is built in code is checked the same way, only without a place.
    let mut config = Config::parse(&processes(&[("x", "")])).unwrap();
    config.processes.push(config.processes[0].clone());
    let told = config.validate().unwrap_err().to_string();
    assert_eq!(told, "`process x`: two processes have this alias; rename one");
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let readme = include_str!("../../../README.md");
    let examples: Vec<_> = readme
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|text| text.contains("[[process]]"))
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        Config::parse(example).unwrap_or_else(|told| panic!("{told}"));
    }
}

/// The place is right whatever the way a table is written in.
#[test]
fn a_place_is_found_in_inline_tables_and_beside_other_letters() {
    let text = "# ä\nprocess = [{ alias = \"x\", command = \"/ä\", after = [\"y\"] }]";
    check_refused(text, &["line 2, column 51", "`y`, which is not declared"]);
}

#[test]
fn plain_text_stays_on_the_host_unless_allowed() {
    let plain = "server = \"http://127.0.0.1:9440\"\nlisten = \"0.0.0.0:1\"";
    check_refused(plain, &["`listen`", "allow_plaintext"]);
    check_refused("listen = \"0.0.0.0:1\"\nallow_plaintext = true", &["`advertise`", "HOST:PORT"]);
    check_refused("server = \"http://10.0.0.1:9440\"", &["`server`", "allow_plaintext"]);
    check_refused("server = \"ftp://localhost\"", &["`server`", "https://"]);
    check_refused("tls = { cert = \"x\" }", &["`tls`", "all of"]);
    // In TLS it may leave the host, as far as the settings go.
    let secure = "server = \"https://belay.example:9440\"\nlisten = \"10.0.0.7:9441\"";
    assert!(Config::parse(secure).expect("TOML").validate().is_ok());
    check_refused("server = \"localhost:1\"", &["`server`"]);
    let called = |address: &str| format!("advertise = \"{address}\"");
    check_refused(&called("host-1"), &["`advertise`", "host-1.example:9441"]);
    check_refused(&called("http://host-1:1"), &["`advertise`", "host-1.example:9441"]);
    check_refused(&called("host-1:0"), &["`advertise`"]);
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
