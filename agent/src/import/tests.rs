use super::*;
use crate::config::{Kill, Nice, ReadyWhen};

/// What comes of these samples, with the folder they lie in as `/etc`.
fn import_samples(names: &[&str]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/samples");
    let files: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
    let find = |name: &str| (name != "celery").then(|| Path::new("/usr/sbin").join(name));
    let imported = import_with(&files, &find).unwrap();
    imported.check().unwrap_or_else(|told| panic!("{told}\n{imported}"));
    imported.to_string().replace(folder.to_str().unwrap(), "/etc")
}

/// What comes of this text in a file of this name.
fn import_text(name: &str, text: &str) -> (String, Vec<crate::ProcessConfig>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    let imported = import_with(&[path], &|_| None).unwrap();
    let text = imported.to_string();
    let config = Config::parse(&text).unwrap_or_else(|told| panic!("{told}\n{text}"));
    (text, config.processes)
}

#[test]
fn a_file_of_supervisord_becomes_processes() {
    insta::assert_snapshot!(import_samples(&["shop.conf"]));
}

#[test]
fn units_of_systemd_become_processes() {
    insta::assert_snapshot!(import_samples(&[
        "nginx.service",
        "redis.service",
        "api.service",
        "backup@.service"
    ]));
}

#[test]
fn what_is_imported_means_the_same() {
    let (_, processes) = import_text(
        "redis.service",
        "[Service]\nType=notify\nExecStart=/bin/x\nRestart=on-failure\nLimitNOFILE=100\nNice=5\nSendSIGKILL=no\n",
    );
    let redis = &processes[0];
    assert_eq!(redis.alias.as_str(), "redis");
    assert_eq!(redis.restart, crate::Restart::OnFailure);
    assert_eq!(redis.nice, Nice::try_from(5).unwrap());
    assert_eq!(redis.ready.as_ref().unwrap().when, ReadyWhen::Notify);
    assert_eq!(redis.stop.kill, Kill::Never);
    assert_eq!(redis.stop.grace().as_secs(), 90);
    let (_, processes) = import_text("x.ini", "[program:x]\ncommand=/bin/x 'a b'\nstopsignal=QUIT\n");
    let program = &processes[0];
    assert_eq!(program.args, ["a b"]);
    assert_eq!(program.restart, crate::Restart::OnFailure);
    assert_eq!(program.stop.signals[0].signal.to_string(), "SIGQUIT");
    assert_eq!((program.backoff.healthy.as_secs(), program.backoff.give_up_after), (1, 4));
}

/// Whatever is written, what comes out can be read, and each part of it is in a setting or in a note.
#[test]
fn nothing_breaks_what_is_written() {
    let odd = "[program:x\"]]]\n]\ncommand=/bin/x \"unclosed\nuser=a\"b\numask=999\nenvironment=broken\nstopwaitsecs=x\n\
               priority=x\nnumprocs=5000\nexitcodes=x\nunknown=é\u{1b}[31m \\ \"\"\" \n";
    let (text, processes) = import_text("odd.conf", odd);
    assert_eq!(processes.len(), 1000);
    assert!(text.contains("unknown = é [31m"), "{text}");
    let odd = "[Service]\nExecStart=\nUser=\nUMask=x\nNice=x\nNice=y\nLimitNOFILE=-1\nMemoryMax=50%\nTasksMax=x\nCPUQuota=x\n\
               RestartSec=0\nRestart=always\nTimeoutStopSec=x\nWorkingDirectory=rel\nExecStop=stop me\nKillSignal=SIGKILL\n\
               SendSIGKILL=no\nEnvironment==x A\nStartLimitBurst=x\nUnknown=\u{7}\"\"\"\n";
    let (text, _) = import_text("odd.service", odd);
    for told in
        ["UMask", "Nice=y", "LimitNOFILE", "MemoryMax", "TasksMax", "CPUQuota", "Unknown", "TimeoutStopSec"]
    {
        assert!(text.to_lowercase().contains(&told.to_lowercase()), "{told}: {text}");
    }
}

#[test]
fn names_stay_unique() {
    let (_, processes) = import_text("x.ini", "[program:a b]\ncommand=/x\n[program:a-b]\ncommand=/y\n");
    let names: Vec<_> = processes.iter().map(|process| process.alias.as_str()).collect();
    assert_eq!(names, ["a-b", "a-b-2"]);
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    fs::write(&path, "[[process]]\n").unwrap();
    assert!(matches!(import(&[path]), Err(ImportError::Unknown { .. })));
    assert!(matches!(import(&[dir.path().join("none")]), Err(ImportError::Read { .. })));
}
