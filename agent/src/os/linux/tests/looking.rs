//! What is seen of a tree.

use super::*;

#[tokio::test]
async fn ports_are_seen_wherever_in_the_tree_they_are() {
    let Ok(python) = std::process::Command::new("python3").arg("--version").output() else {
        eprintln!("skipped: no python3");
        return;
    };
    assert!(python.status.success());
    let script = "python3 -c 'import socket,time\n\
                  s=socket.socket(); s.bind((\"127.0.0.1\",0)); s.listen()\n\
                  t=socket.socket(socket.AF_INET6); t.bind((\"::1\",0)); t.listen()\n\
                  print(\"ports\",s.getsockname()[1],t.getsockname()[1],flush=True)\n\
                  time.sleep(1000)' & wait";
    in_both_modes(script, async |subject| {
        eventually(|| subject.said().iter().any(|line| line.starts_with("ports "))).await;
        let said = subject.said();
        let mut ports: Vec<u16> = said[0].split(' ').skip(1).map(|p| p.parse().unwrap()).collect();
        ports.sort_unstable();
        let expected = format!("{},{}", ports[0], ports[1]);
        eventually(|| subject.tree.look().unwrap().ports == expected).await;
        let seen = subject.tree.look().unwrap();
        let expected = BTreeSet::from([ports[0], ports[1]]);
        assert_eq!(seen.sockets.values().copied().collect::<BTreeSet<_>>(), expected);
        // A python and a shell.
        assert!((4 << 20..400 << 20).contains(&seen.memory), "{}", seen.memory);
        assert_eq!(subject.linux.still_listening(&seen.sockets), expected);
        subject.tree.kill().unwrap();
        subject.emptied().await;
        eventually(|| subject.linux.still_listening(&seen.sockets).is_empty()).await;
    })
    .await;
}

/// What a tree listens on is looked up again where a listener takes the place of another descriptor, too.
#[tokio::test]
async fn ports_that_change_are_seen() {
    let script = "exec python3 -c 'import socket,sys,time,os\n\
                  s=open(\"/dev/null\")\n\
                  for go in sys.argv[1:]:\n\
                  \x20   while not os.path.exists(go): time.sleep(0.01)\n\
                  \x20   s.close(); s=socket.socket(); s.bind((\"127.0.0.1\",0)); s.listen()\n\
                  \x20   print(go,s.getsockname()[1],flush=True)\n\
                  time.sleep(1000)' one two";
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let dir = tempfile::tempdir().unwrap();
        let cwd = dir.path().to_owned();
        let Some(subject) = Subject::start_as(mode, script, |launch| launch.cwd = cwd) else {
            continue;
        };
        for go in ["one", "two"] {
            subject.tree.look().unwrap();
            fs::write(dir.path().join(go), "").unwrap();
            let port = subject.number(&format!("{go} ")).await;
            eventually(|| subject.tree.look().unwrap().ports == port.to_string()).await;
        }
    }
}

#[tokio::test]
async fn only_the_very_same_socket_still_listens() {
    let linux = Linux::new(Uuid::new_v4(), CgroupUse::Off).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (inode, _) = listeners::here().unwrap().into_iter().find(|(_, known)| *known == port).unwrap();
    let listening = |inode| linux.still_listening(&BTreeMap::from([(inode, port)]));
    assert_eq!(listening(inode), BTreeSet::from([port]));
    assert_eq!(listening(inode + 1_000_000), BTreeSet::new());
    drop(listener);
    // A process that another test makes has it too, until it runs its program.
    eventually(|| listening(inode).is_empty()).await;
}

/// The sockets of another network namespace are those of that one.
#[tokio::test]
async fn ports_in_another_network_are_seen() {
    let python = "import socket,time\n\
                  s=socket.socket(); s.bind((\"0.0.0.0\",0)); s.listen()\n\
                  print(\"port\",s.getsockname()[1],flush=True)\n\
                  time.sleep(1000)";
    if !is_root() {
        return eprintln!("skipped: only root makes a network namespace");
    }
    in_both_modes(&format!("exec unshare --net python3 -c '{python}'"), async |subject| {
        let port = subject.number("port ").await;
        eventually(|| subject.tree.look().unwrap().ports == port.to_string()).await;
    })
    .await;
}

/// What a heartbeat costs: run it alone, with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_a_look() {
    for mode in [CgroupUse::Auto, CgroupUse::Off] {
        let subjects: Vec<_> = (0..100).filter_map(|_| Subject::start(mode, "exec sleep 1000")).collect();
        let cpu = || clock_gettime(ClockId::ThreadCPUTime);
        let (mut least, mut sum) = (i64::MAX, 0);
        for _ in 0..40 {
            let began = cpu();
            subjects.iter().for_each(|subject| drop(subject.tree.look().unwrap()));
            let ended = cpu();
            let took = (ended.tv_sec - began.tv_sec) * 1_000_000_000 + ended.tv_nsec - began.tv_nsec;
            (least, sum) = (least.min(took), sum + took);
            std::thread::sleep(Duration::from_millis(150));
        }
        eprintln!("{mode:?}: {} ns of processor time for a look, at best {}", sum / 4000, least / 100);
    }
}
