//! What a process begins with.

use rustix::process::{Resource, Rlimit, getrlimit};

use super::*;
use crate::{
    config::{self, RlimitName},
    os::StartError,
};

/// Hazards P34 to P36, and X04: nothing of the agent's leaks in.
#[tokio::test]
async fn a_process_begins_clean() {
    // What the agent itself inherited: a descriptor that stays open over exec.
    let leak = std::fs::File::open("/dev/null").unwrap();
    let leak = rustix::io::fcntl_dupfd_cloexec(&leak, 77).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    if is_again() {
        let own = fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = |name: &str| {
            let text = own.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(text.trim(), 16).unwrap()
        };
        assert!(mask("SigBlk:") & 0x200 != 0 && mask("SigIgn:") & 0x800 != 0, "{own}");
        assert_eq!(getrlimit(Resource::Nofile).current, Some(500));
    }
    let script = "ls /proc/self/fd | tr '\\n' ' '; echo; grep -E 'Sig(Blk|Ign)' /proc/self/status; umask; \
                  ulimit -n; cat /proc/self/oom_score_adj; nice; ulimit -c; env; echo done";
    in_both_modes(script, async |subject| {
        subject.says("done").await;
        let said = subject.said();
        // The fourth is the folder that `ls` reads.
        assert_eq!(said[0].trim(), "0 1 2 3");
        for mask in &said[1..3] {
            assert!(mask.ends_with("\t0000000000000000"), "{mask}");
        }
        let original =
            fds::original_limit().current.map_or("unlimited".to_owned(), |limit| limit.to_string());
        assert_eq!(said[3..5], ["0022", &original]);
        if subject.not_applied.is_empty() {
            assert_eq!(said[5..7], ["0", "0"]);
        }
        // Hazard X04: the agent has none for itself, which its processes are not to feel. `ulimit` counts blocks.
        let blocks = core_dumps::original_limit().current.map(|bytes| (bytes / 512).to_string());
        assert_eq!(said[7], blocks.unwrap_or_else(|| "unlimited".to_owned()));
        assert!(getrlimit(Resource::Core).current.is_some_and(|bytes| bytes <= 1));
        let mark = said.iter().find(|line| line.starts_with("BELAY_INSTANCE=")).unwrap();
        assert!(mark.ends_with("/subject/3"));
        assert!(!said.iter().any(|line| line.starts_with("CARGO") || line.starts_with(AGAIN)));
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum, "the agent's own limit is raised");
    })
    .await;
}

/// Hazards P35 and P36: whatever the agent was started with.
#[test]
fn a_process_begins_clean_below_an_odd_parent() {
    let parent = "umask 077; ulimit -Sn 500; ulimit -Sc 700; exec nice -n 3 env --block-signal=USR1 --ignore-signal=USR2 \"$@\"";
    again(&["sh", "-c", parent, "sh"], "starting::a_process_begins_clean");
}

/// Hazards P33, P34 and P36.
#[tokio::test]
async fn settings_are_applied() {
    let standard =
        ["PATH", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "HOME", "SHELL", "PWD", "OLDPWD", "SHLVL"];
    let plain = |(name, value): &(String, String)| !standard.contains(&&**name) && !value.contains('\n');
    let inherited = std::env::vars().find(plain);
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let settings = |launch: &mut Launch| {
            launch.umask = 0o027;
            launch.nice = 7;
            launch.oom_score_adj = 345;
            launch.rlimits.insert(RlimitName::Nofile, config::Rlimit::At(123));
            launch.rlimits.insert(RlimitName::Core, config::Rlimit::At(0));
            launch.environment.insert("OWN".to_owned(), "1".to_owned());
            launch.inherit.extend(inherited.iter().map(|(name, _)| name.clone()));
            launch.inherit.push("BELAY_INSTANCE".to_owned());
            launch.notify = Some("/run/notify".into());
        };
        let script =
            "umask; nice; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; ulimit -c; env; echo done";
        let Some(subject) = Subject::start_as(mode, script, settings) else {
            continue;
        };
        subject.says("done").await;
        let said = subject.said();
        assert_eq!(said[..6], ["0027", "7", "345", "123", "123", "0"]);
        let has = |name: &str, value: &str| said.contains(&format!("{name}={value}"));
        assert!(has("OWN", "1") && has("NOTIFY_SOCKET", "/run/notify"));
        assert!(inherited.iter().all(|(name, value)| has(name, value)));
        assert!(said.iter().any(|line| line.starts_with("BELAY_INSTANCE=") && line.ends_with("/subject/3")));
        assert_eq!(subject.not_applied, [""; 0]);
        subject.main_ended().await;
    }
}

/// Hazard P08: what can not be limited is told.
#[tokio::test]
async fn limits_are_applied_or_told() {
    let limits = CgroupLimits { cpus: Some(0.5), memory: Some(bytesize::ByteSize::mib(64)), pids: Some(20) };
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let Some(subject) = Subject::start_as(mode, "exec sleep 1000", |launch| launch.limits = limits)
        else {
            continue;
        };
        let expected = |name: &str| match mode {
            CgroupUse::Off => {
                format!("{name} limit: there is no cgroup: the configuration says `cgroup = \"off\"`")
            }
            CgroupUse::Auto => {
                format!("{name} limit: the controller `{name}` is not available in cgroup v2 on this host")
            }
        };
        let files = [("cpu", "cpu.max"), ("memory", "memory.max"), ("pids", "pids.max")];
        for (name, file) in files {
            let group = subject.linux.group_of(&subject.instance);
            let text = group.and_then(|group| fs::read_to_string(group.dir().join(file)).ok());
            match text {
                Some(text) => assert!(!text.starts_with("max"), "{file}: {text}"),
                None => assert!(subject.not_applied.contains(&expected(name)), "{:?}", subject.not_applied),
            }
        }
    }
}

/// Hazard P25: what needs root is told by name.
#[test]
fn without_rights_it_is_told() {
    again(&NOBODY, "starting::what_needs_rights");
}

#[tokio::test]
async fn what_needs_rights() {
    if !is_again() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let linux = Linux::new(Uuid::new_v4(), CgroupUse::Off).unwrap();
    let plain = launch(dir.path(), "/bin/true", &[]);
    let eager = Launch { nice: -5, oom_score_adj: -500, ..plain.clone() };
    let Started { tree, not_applied, .. } = linux.start(&eager).unwrap();
    assert_eq!(not_applied, ["nice -5: needs root", "oom_score_adj -500: needs root"]);
    assert_eq!(timeout(PATIENCE, tree.main_ended()).await.unwrap().exit, Exit::Code(0));
    let told = |launch: &Launch| match linux.start(launch) {
        Ok(_) => panic!("it started"),
        Err(error) => crate::error::Chain(&error).to_string(),
    };
    let hard = Some(1 << 23);
    rustix::process::setrlimit(Resource::Stack, Rlimit { current: hard, maximum: hard }).unwrap();
    let rlimits = BTreeMap::from([(RlimitName::Stack, config::Rlimit::Unlimited)]);
    let told_limit = told(&Launch { rlimits, ..plain.clone() });
    assert!(told_limit.starts_with("cannot set the limit `stack`: Operation not permitted"), "{told_limit}");
    let group = told(&Launch { group: Some("daemon".to_owned()), ..plain.clone() });
    assert!(group.contains("cannot become the group `daemon`"), "{group}");
    let user = told(&Launch { user: Some("root".to_owned()), ..plain });
    assert!(user.contains("cannot become the user `root`"), "{user}");
}

/// What the kernel refuses to everybody.
#[tokio::test]
async fn a_limit_that_can_not_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let linux = Linux::new(Uuid::new_v4(), CgroupUse::Off).unwrap();
    let rlimits = BTreeMap::from([(RlimitName::Nofile, config::Rlimit::Unlimited)]);
    let greedy = Launch { rlimits, ..launch(dir.path(), "/bin/true", &[]) };
    assert!(matches!(linux.start(&greedy), Err(StartError::Rlimit { name: "nofile", .. })));
}

/// Only root becomes another group, and the user keeps the others.
#[tokio::test]
async fn another_group_is_become() {
    if !is_root() {
        return eprintln!("skipped: only root becomes another group");
    }
    for (user, expected) in [(None, ["root", "daemon"]), (Some("nobody".to_owned()), ["nobody", "daemon"])] {
        let settings = |launch: &mut Launch| (launch.user, launch.group) = (user, Some("daemon".to_owned()));
        let subject = Subject::start_as(CgroupUse::Off, "id -un; id -gn; echo done", settings).unwrap();
        subject.says("done").await;
        assert_eq!(subject.said()[..2], expected);
    }
}

/// Hazard P31.
#[tokio::test]
async fn what_can_not_be_started_leaves_nothing() {
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let dir = tempfile::tempdir().unwrap();
        let linux = Linux::new(Uuid::new_v4(), mode).unwrap();
        let told = |launch: &Launch| match linux.start(launch) {
            Ok(_) => panic!("it started"),
            Err(error) => crate::error::Chain(&error).to_string(),
        };
        let missing = launch(dir.path(), "/nonexistent/program", &[]);
        assert!(told(&missing).contains("`/nonexistent/program`: No such file"));
        let mut nobody = launch(dir.path(), "/bin/true", &[]);
        nobody.user = Some("no-such-user".to_owned());
        assert!(told(&nobody).contains("`no-such-user` does not exist"));
        let mut nowhere = launch(dir.path(), "/bin/true", &[]);
        nowhere.cwd = "/nonexistent".into();
        assert!(told(&nowhere).contains("working folder `/nonexistent`"));
        let mut unlogged = launch(dir.path(), "/bin/true", &[]);
        unlogged.log = dir.path().join("no/such/folder.log");
        assert!(told(&unlogged).contains("log file"));
        assert!(linux.cgroups.as_ref().is_none_or(|cgroups| cgroups.names().is_empty()));
    }
}

/// Hazards P30 and P31: a program that runs and can not be held is told with the cause, and nothing of it is left.
#[test]
fn what_can_not_be_held_leaves_nothing() {
    for test in ["not_held_in_a_cgroup", "not_held_without_cgroups"] {
        // It has the time to start others.
        let inject = "--inject=pidfd_open:error=EMFILE:when=1:delay_enter=200000";
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "--trace=pidfd_open", inject];
        again(&strace, &format!("starting::{test}"));
    }
}

#[tokio::test]
async fn not_held_in_a_cgroup() {
    begin_unheld(CgroupUse::Auto);
}

#[tokio::test]
async fn not_held_without_cgroups() {
    begin_unheld(CgroupUse::Off);
}

fn begin_unheld(mode: CgroupUse) {
    if !is_again() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let linux = Linux::new(Uuid::new_v4(), mode).unwrap();
    let script = "setsid sleep 1000 & sleep 1000 & (setsid sleep 1000 &); echo ready; wait";
    let Err(error) = linux.start(&launch(dir.path(), "/bin/sh", &["-c", script])) else {
        panic!("it started");
    };
    let told = crate::error::Chain(&error).to_string();
    assert!(told.starts_with("cannot take hold of process "), "{told}");
    assert!(told.ends_with(": Too many open files (os error 24)"), "{told}");
    assert_eq!(fs::read_to_string(dir.path().join("subject.log")).unwrap(), "ready\n");
    assert!(linux.survey().is_empty());
    assert!(linux.cgroups.as_ref().is_none_or(|cgroups| cgroups.names().is_empty()));
}

/// Hazard P24: the agent still reaches what became another user.
#[tokio::test]
async fn another_user_is_become() {
    if !is_root() {
        return eprintln!("skipped: only root becomes another user");
    }
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let settings = |launch: &mut Launch| launch.user = Some("nobody".to_owned());
        let script = "id -un; id -Gn; echo $USER; exec sleep 1000";
        let Some(subject) = Subject::start_as(mode, script, settings) else {
            continue;
        };
        subject.says("nogroup").await;
        eventually(|| subject.said().len() == 3).await;
        assert_eq!(subject.said(), ["nobody", "nogroup", "nobody"]);
        assert_eq!(subject.tree.look().unwrap().user, "nobody");
        subject.tree.ask(Signal::TERM, Scope::Group).unwrap();
        subject.emptied().await;
    }
}
