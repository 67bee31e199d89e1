//! Many processes: of the agent's own, and of others.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::Instant,
};

use belay_proto::agent::v1::ProcessPhase;

use crate::{
    MODES, SLEEPER, check_done,
    host::{Host, PATIENCE, alive},
    tracked,
};

/// How many processes one agent takes back.
const OWN: usize = 200;

/// Hazard A02: all are taken back, none is begun again, none gets a signal.
#[tokio::test]
async fn two_hundred_processes_are_taken_back() {
    let aliases: Vec<String> = (0..OWN).map(|number| format!("p{number}")).collect();
    let processes: Vec<_> = aliases.iter().map(|alias| (alias.as_str(), SLEEPER)).collect();
    for mode in MODES {
        let mut host = Host::start_with(&processes, &tracked(mode)).await;
        let identities = |processes: &[belay_proto::agent::v1::ObservedProcess]| {
            let identity =
                |p: &belay_proto::agent::v1::ObservedProcess| (p.alias.clone(), p.pid, p.generation);
            processes.iter().map(identity).collect::<Vec<_>>()
        };
        let before = identities(&host.inventory().await);
        host.crash().await;
        let began = Instant::now();
        host.run();
        host.shows(|processes| {
            processes.len() == OWN && processes.iter().all(|p| p.phase() == ProcessPhase::Running)
        })
        .await;
        eprintln!("{mode}: {OWN} processes taken back in {:?}", began.elapsed());
        // A signal would have ended them.
        assert_eq!(identities(&host.inventory().await), before);
        assert!(before.iter().all(|(_, pid, _)| alive(*pid)));
        check_done(&host.stop_all().await.unwrap(), &sorted(&aliases));
        assert!(!before.iter().any(|(_, pid, _)| alive(*pid)));
    }
}

fn sorted(aliases: &[String]) -> Vec<&str> {
    let mut aliases: Vec<_> = aliases.iter().map(String::as_str).collect();
    aliases.sort_unstable();
    aliases
}

/// Hazard P38, as a measurement: what a stop costs beside very many processes of others. Run it alone:
/// `cargo test -p belay-agent --test crashes a_stop_beside -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn a_stop_beside_five_thousand_processes() {
    for mode in MODES {
        let host = Host::start_with(&[("obstat2", SLEEPER)], &tracked(mode)).await;
        for others in [0, 5_000] {
            let _crowd = Crowd::gather(others).await;
            let mut times = Vec::new();
            for _ in 0..100 {
                let began = Instant::now();
                check_done(&host.stop("obstat2").await.unwrap(), &["obstat2"]);
                times.push(began.elapsed());
                host.start_process("obstat2").await.unwrap();
            }
            times.sort_unstable();
            eprintln!("{mode}, {others} others: p50 {:?}, p99 {:?}", times[49], times[98]);
        }
    }
}

/// Processes of nobody's concern.
struct Crowd(Child);

impl Crowd {
    async fn gather(count: usize) -> Self {
        let text = "$SIG{TERM} = sub { kill KILL => @all; wait for @all; exit };
            for (1..shift) { my $pid = fork // die; if (!$pid) { $SIG{TERM} = 'DEFAULT'; sleep 1000; exit } push @all, $pid }
            $| = 1; print 'all'; sleep 1000 while 1";
        let mut perl = Command::new("perl");
        perl.args(["-e", text, &count.to_string()]).stdout(Stdio::piped());
        let mut crowd = Self(perl.spawn().unwrap());
        let mut out = crowd.0.stdout.take().unwrap();
        let mut said = [0; 3];
        let hear = tokio::task::spawn_blocking(move || out.read_exact(&mut said).map(|()| said));
        assert_eq!(&tokio::time::timeout(PATIENCE, hear).await.unwrap().unwrap().unwrap(), b"all");
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}
