//! The agent is held, or sent away, in the middle of something.

use std::time::Duration;

use belay_proto::agent::v1::{OperationState, ProcessPhase};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    MODES, check_done,
    host::{Host, alive, eventually, operation_id},
    script, tracked,
};

/// Hazards A08 and A01: who sends the agent away does not cancel a stop, whichever way they do it. The next life of the
/// agent goes on with it, and the victim is asked once.
#[tokio::test]
async fn a_stop_outlives_an_agent_that_is_sent_away() {
    for mode in MODES {
        for signal in [Signal::INT, Signal::TERM] {
            let dir = tempfile::tempdir().unwrap();
            let ledger = dir.path().join("ledger");
            let told = || std::fs::read_to_string(&ledger).unwrap_or_default();
            let path = ledger.display();
            let deaf = script(&format!("trap 'echo TERM >> {path}' TERM; while :; do sleep 0.02; done"));
            let deaf = deaf + "stop = { grace = \"500ms\" }";
            let mut host = Host::start_with(&[("deaf", &deaf)], &tracked(mode)).await;
            let pid = host.process("deaf").await.pid;
            let id = operation_id();
            let call = host.stop_in_background("deaf", &id);
            eventually(|| told().contains("TERM")).await;
            host.signal(signal);
            host.ended().await;
            // It may have had the time for it.
            if let Ok(stopped) = call.await.unwrap() {
                check_done(&stopped, &["deaf"]);
            }
            host.begin().await;
            check_done(&host.stop_as("deaf", &id).await.unwrap(), &["deaf"]);
            assert!(!alive(pid) && host.members("deaf").is_empty());
            assert_eq!(told(), "TERM\n", "{signal:?}");
        }
    }
}

/// Hazards A07, P14 and P37: what ended while the agent was held is reaped and told as it was, also where a stop of it
/// was ordered meanwhile.
#[tokio::test]
async fn an_agent_that_was_held_catches_up() {
    for mode in MODES {
        let process = script("trap 'exit 7' USR1; while :; do sleep 0.02; done")
            + "restart = \"never\"\nsuccess_codes = [7]";
        let host = Host::start_with(&[("ordered", &process), ("other", &process)], &tracked(mode)).await;
        let pids = [host.process("ordered").await.pid, host.process("other").await.pid];
        host.signal(Signal::STOP);
        let call = host.stop_in_background("ordered", &operation_id());
        for pid in pids {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::USR1).unwrap();
            eventually(|| !alive(pid)).await;
        }
        assert!(!call.is_finished());
        host.signal(Signal::CONT);
        // Whether the order changed anything depends on what the agent saw first.
        assert_eq!(call.await.unwrap().unwrap().state(), OperationState::Done);
        for alias in ["ordered", "other"] {
            let process = host.shows_phase(alias, ProcessPhase::Stopped).await;
            assert_eq!(process.last_exit.unwrap().exit_code, Some(7), "{alias}");
        }
        let exist = |pid: i32| std::fs::exists(format!("/proc/{pid}")).unwrap();
        eventually(|| !pids.into_iter().any(exist)).await;
    }
}

/// Hazard P17: what is forked while no agent lives, and comes to nobody's notice, is stopped all the same.
#[tokio::test]
async fn what_is_forked_while_no_agent_lives_is_stopped() {
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let (go, gone) = (dir.path().join("go"), dir.path().join("gone"));
        let text = format!(
            "while [ ! -e {} ]; do sleep 0.02; done; setsid sleep 1000 & echo > {}",
            go.display(),
            gone.display()
        );
        let mut host = Host::start_with(&[("leaver", &script(&text))], &tracked(mode)).await;
        let pid = host.process("leaver").await.pid;
        host.crash().await;
        std::fs::write(&go, "").unwrap();
        eventually(|| gone.exists() && !alive(pid)).await;
        eventually(|| host.members("leaver").len() == 1).await;
        let members = host.members("leaver");
        host.begin().await;
        let process = host.process("leaver").await;
        assert_eq!((process.generation, process.pid), (1, members[0]), "{mode}");
        check_done(&host.stop("leaver").await.unwrap(), &["leaver"]);
        assert!(!members.into_iter().any(alive));
    }
}

/// How long a process that is held has to be left alone.
const GRACE: Duration = Duration::from_millis(200);

/// Hazard P32: somebody holds the process by its ptrace. It can not answer, and is killed in its time.
#[tokio::test]
async fn a_process_that_a_debugger_holds_is_killed() {
    for mode in MODES {
        let sleeper = format!("{}\nstop = {{ grace = \"{}ms\" }}", crate::SLEEPER, GRACE.as_millis());
        let host = Host::start_with(&[("held", &sleeper)], &tracked(mode)).await;
        let pid = host.process("held").await.pid;
        let debugger = crate::fuse::Debugger::hold(pid);
        check_done(&host.stop("held").await.unwrap(), &["held"]);
        assert!(!alive(pid));
        let exit = host.process("held").await.last_exit.unwrap();
        assert!(exit.escalated, "{exit:?}");
        debugger.let_go();
        eventually(|| !std::fs::exists(format!("/proc/{pid}")).unwrap()).await;
    }
}
