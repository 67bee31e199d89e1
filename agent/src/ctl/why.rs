//! "Why is it not running?", on one screen.

use std::time::Duration;

use belay_proto::agent::v1::{self as pb, ProcessPhase};
use jiff::Timestamp;

use super::show::{age, columns, plain, short, until};

/// How many of the last lines of output are shown.
const LINES: usize = 10;

/// Why a process is as it is, and what to do about it. `None` where there is no such process. `program` is how to call
/// this program again.
pub(super) fn why(
    status: &pb::GetStatusResponse,
    alias: &str,
    now: Timestamp,
    program: &str,
) -> Option<String> {
    let process = status.processes.iter().find(|process| process.alias == alias)?;
    let order = status.last_orders.iter().find(|order| order.alias == alias);
    let verdict = verdict(process, order, now);
    let mut told = format!("{alias} {}.\n\n", verdict.is);
    told.push_str(&columns(facts(process, order, now)));
    let output = process.last_exit.iter().flat_map(|exit| &exit.last_output);
    let lines: Vec<_> = output.map(|line| format!("  {}\n", plain(line))).collect();
    if !lines.is_empty() {
        told.push_str("\nlast output:\n");
        lines.iter().skip(lines.len().saturating_sub(LINES)).for_each(|line| told.push_str(line));
    }
    if let Some((command, what)) = verdict.next {
        told.push_str(&format!("\nnext: {program} {command} {alias}\n      {what}\n"));
    }
    Some(told)
}

struct Verdict {
    /// What it is, as the rest of a sentence that begins with its name.
    is: String,
    /// What to do next: a command, and what that does.
    next: Option<(&'static str, &'static str)>,
}

fn verdict(process: &pb::ObservedProcess, order: Option<&pb::LastOrder>, now: Timestamp) -> Verdict {
    let told = |is: String, next| Verdict { is, next };
    let trouble = plain(&process.trouble);
    let because = |otherwise: &str| if trouble.is_empty() { otherwise.to_owned() } else { trouble.clone() };
    let wanted = process.desired_running;
    match process.phase() {
        ProcessPhase::Running => {
            let since = age(process.start_time, now).map(|age| format!(" for {}", short(age)));
            told(format!("is running{}", since.unwrap_or_default()), None)
        }
        ProcessPhase::Starting => told(
            format!("is being started: {}", because("it is not ready yet")),
            Some(("log", "shows what it says meanwhile")),
        ),
        ProcessPhase::Stopping if wanted => told(
            "is being stopped, and is started again then".to_owned(),
            Some(("force", "kills it at once, and it stays stopped")),
        ),
        ProcessPhase::Stopping => {
            told("is being stopped".to_owned(), Some(("force", "kills it at once, without asking again")))
        }
        ProcessPhase::Backoff => {
            let pause = until(process.next_start_time, now);
            let pause = pause.map_or_else(|| "soon".to_owned(), |pause| format!("in {}", short(pause)));
            told(
                format!("ended by itself, and is started again {pause}"),
                Some(("start", "starts it now, and forgets how often it ended")),
            )
        }
        ProcessPhase::Stopped if wanted && trouble.is_empty() => told(
            "has ended by itself, and its settings do not start it again after such an end".to_owned(),
            Some(("start", "starts it")),
        ),
        ProcessPhase::Stopped if wanted => told(format!("is not running yet: {trouble}"), None),
        ProcessPhase::Stopped => {
            let by = order
                .filter(|order| ["stop", "force"].contains(&&order.verb[..]))
                .map(|order| &order.principal);
            let by = by.map_or_else(|| "somebody".to_owned(), |principal| plain(principal));
            told(format!("is stopped, because {by} wanted that"), Some(("start", "starts it")))
        }
        ProcessPhase::Failed if process.pid != 0 || !process.leftovers.is_empty() => told(
            format!("could not be stopped: {}", because("a part of it is still alive")),
            Some(("force", "tries to kill it again; what is in state D ends when its device answers")),
        ),
        ProcessPhase::Failed => told(
            format!("has failed: {}", because("it could not be started")),
            Some(("start", "tries again, once the cause is mended")),
        ),
        ProcessPhase::Unspecified => told("is in a state that this program does not know".to_owned(), None),
    }
}

fn facts(process: &pb::ObservedProcess, order: Option<&pb::LastOrder>, now: Timestamp) -> Vec<[String; 2]> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, what: String| facts.push([name.to_owned(), what]);
    fact("wanted", if process.desired_running { "running" } else { "stopped" }.to_owned());
    fact(
        "last order",
        match order {
            Some(order) => {
                let ago = age(order.accept_time, now).map(|age| format!(", {} ago", short(age)));
                format!("{} by {}{}", order.verb, plain(&order.principal), ago.unwrap_or_default())
            }
            None => "none is remembered".to_owned(),
        },
    );
    if process.pid != 0 {
        fact("alive", format!("{} ({})", process.pid, plain(&process.start_command)));
    }
    for left in &process.leftovers {
        fact("left over", format!("{} ({})", left.pid, plain(&left.command)));
    }
    if process.endings > 0 {
        fact("ended", format!("{} in a row without a healthy spell", times(process.endings)));
    }
    if let Some(exit) = &process.last_exit {
        fact("last exit", last_exit(exit, now));
        if !exit.rungs.is_empty() {
            fact("its stop", exit.rungs.iter().map(rung).collect::<Vec<_>>().join(", "));
        }
        if !exit.note.is_empty() {
            fact("note", plain(&exit.note));
        }
    }
    for setting in &process.not_applied {
        fact("not applied", plain(setting));
    }
    facts
}

fn last_exit(exit: &pb::ExitReport, now: Timestamp) -> String {
    let mut told = match (&exit.exit_code, &exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => plain(signal),
        (None, None) => "how is not known".to_owned(),
    };
    if let Some(age) = age(exit.finish_time, now) {
        told.push_str(&format!(", {} ago", short(age)));
    }
    if exit.pid != 0 {
        told.push_str(&format!(", pid {}", exit.pid));
    }
    for (so, what) in [
        (exit.stop_duration.is_some(), "it was stopped"),
        (exit.escalated, "it had to be killed"),
        (exit.oom_killed, "the kernel killed it for want of memory"),
        (exit.core_dumped, "it left a core file"),
    ] {
        if so {
            told.push_str(", ");
            told.push_str(what);
        }
    }
    told
}

fn rung(rung: &pb::Rung) -> String {
    let lasted = rung.duration.and_then(|duration| Duration::try_from(duration).ok());
    format!("{} {}", plain(&rung.step), lasted.map(short).unwrap_or_default()).trim_end().to_owned()
}

fn times(number: u32) -> String {
    match number {
        1 => "once".to_owned(),
        number => format!("{number} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn at(second: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds: second, nanos: 0 })
    }

    fn process(phase: ProcessPhase, wanted: bool) -> pb::ObservedProcess {
        pb::ObservedProcess {
            alias: "obstat2".to_owned(),
            phase: phase.into(),
            desired_running: wanted,
            ..Default::default()
        }
    }

    fn crashed() -> pb::ExitReport {
        pb::ExitReport { pid: 4711, exit_code: Some(3), finish_time: at(NOW - 4), ..Default::default() }
    }

    #[track_caller]
    fn check(process: pb::ObservedProcess, expected: &str) {
        check_after("", process, expected);
    }

    /// After an order of this verb.
    #[track_caller]
    fn check_after(verb: &str, process: pb::ObservedProcess, expected: &str) {
        let order = pb::LastOrder {
            alias: process.alias.clone(),
            verb: verb.to_owned(),
            principal: "local:root".to_owned(),
            accept_time: at(NOW - 3720),
        };
        let status = pb::GetStatusResponse {
            processes: vec![process],
            last_orders: Some(order).filter(|_| !verb.is_empty()).into_iter().collect(),
            ..Default::default()
        };
        let now = Timestamp::from_second(NOW).unwrap();
        let told = why(&status, "obstat2", now, "belay-agent ctl").unwrap();
        assert_eq!(told.trim_end(), expected.trim(), "\n{told}");
    }

    #[test]
    fn running() {
        let alive = pb::ObservedProcess {
            pid: 4712,
            start_command: "/opt/obstat2 \u{1b}[2J-v".to_owned(),
            start_time: at(NOW - 61),
            not_applied: vec!["cgroup.memory: there is no controller".to_owned()],
            ..process(ProcessPhase::Running, true)
        };
        check(
            alive,
            "
obstat2 is running for 1m 1s.

wanted       running
last order   none is remembered
alive        4712 (/opt/obstat2  [2J-v)
not applied  cgroup.memory: there is no controller",
        );
    }

    #[test]
    fn stopped_by_somebody() {
        let exit = pb::ExitReport {
            exit_code: None,
            signal: Some("SIGKILL".to_owned()),
            escalated: true,
            stop_duration: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            rungs: [("SIGTERM", 10, 0), ("SIGKILL", 0, 2_000_000)]
                .map(|(step, seconds, nanos)| pb::Rung {
                    step: step.to_owned(),
                    duration: Some(prost_types::Duration { seconds, nanos }),
                })
                .to_vec(),
            note: "a child left its group".to_owned(),
            ..crashed()
        };
        let stopped = pb::ObservedProcess { last_exit: Some(exit), ..process(ProcessPhase::Stopped, false) };
        check_after(
            "stop",
            stopped,
            "
obstat2 is stopped, because local:root wanted that.

wanted      stopped
last order  stop by local:root, 1h 2m ago
last exit   SIGKILL, 4s ago, pid 4711, it was stopped, it had to be killed
its stop    SIGTERM 10s, SIGKILL 2ms
note        a child left its group

next: belay-agent ctl start obstat2
      starts it",
        );
    }

    #[test]
    fn in_back_off() {
        let exit = pb::ExitReport {
            last_output: (1..=12).map(|number| format!("line {number}")).collect(),
            oom_killed: true,
            ..crashed()
        };
        let falling = pb::ObservedProcess {
            last_exit: Some(exit),
            next_start_time: at(NOW + 8),
            endings: 5,
            ..process(ProcessPhase::Backoff, true)
        };
        check(
            falling,
            "
obstat2 ended by itself, and is started again in 8s.

wanted      running
last order  none is remembered
ended       5 times in a row without a healthy spell
last exit   exit code 3, 4s ago, pid 4711, the kernel killed it for want of memory

last output:
  line 3
  line 4
  line 5
  line 6
  line 7
  line 8
  line 9
  line 10
  line 11
  line 12

next: belay-agent ctl start obstat2
      starts it now, and forgets how often it ended",
        );
    }

    #[test]
    fn failed_for_good() {
        let failed = pb::ObservedProcess {
            trouble: "it ended 20 times in a row, the last time with exit code 3".to_owned(),
            endings: 20,
            last_exit: Some(crashed()),
            ..process(ProcessPhase::Failed, true)
        };
        check_after(
            "start",
            failed,
            "
obstat2 has failed: it ended 20 times in a row, the last time with exit code 3.

wanted      running
last order  start by local:root, 1h 2m ago
ended       20 times in a row without a healthy spell
last exit   exit code 3, 4s ago, pid 4711

next: belay-agent ctl start obstat2
      tries again, once the cause is mended",
        );
    }

    #[test]
    fn not_to_be_killed() {
        let undead = pb::ObservedProcess {
            pid: 4711,
            start_command: "/opt/obstat2".to_owned(),
            leftovers: vec![pb::Leftover { pid: 4711, command: "/opt/obstat2".to_owned() }],
            ..process(ProcessPhase::Failed, false)
        };
        check_after(
            "stop",
            undead,
            "
obstat2 could not be stopped: a part of it is still alive.

wanted      stopped
last order  stop by local:root, 1h 2m ago
alive       4711 (/opt/obstat2)
left over   4711 (/opt/obstat2)

next: belay-agent ctl force obstat2
      tries to kill it again; what is in state D ends when its device answers",
        );
    }

    #[test]
    fn under_way() {
        check_after(
            "restart",
            process(ProcessPhase::Stopping, true),
            "
obstat2 is being stopped, and is started again then.

wanted      running
last order  restart by local:root, 1h 2m ago

next: belay-agent ctl force obstat2
      kills it at once, and it stays stopped",
        );
        let starting = pb::ObservedProcess {
            trouble: "nobody listens at 127.0.0.1:80 yet".to_owned(),
            ..process(ProcessPhase::Starting, true)
        };
        check(
            starting,
            "
obstat2 is being started: nobody listens at 127.0.0.1:80 yet.

wanted      running
last order  none is remembered

next: belay-agent ctl log obstat2
      shows what it says meanwhile",
        );
    }

    #[test]
    fn ended_or_waiting() {
        let done = pb::ExitReport { exit_code: Some(0), ..crashed() };
        let ended = pb::ObservedProcess { last_exit: Some(done), ..process(ProcessPhase::Stopped, true) };
        check(
            ended,
            "
obstat2 has ended by itself, and its settings do not start it again after such an end.

wanted      running
last order  none is remembered
last exit   exit code 0, 4s ago, pid 4711

next: belay-agent ctl start obstat2
      starts it",
        );
        let waiting = pb::ObservedProcess {
            trouble: "it waits for `database`".to_owned(),
            ..process(ProcessPhase::Stopped, true)
        };
        check(
            waiting,
            "
obstat2 is not running yet: it waits for `database`.

wanted      running
last order  none is remembered",
        );
    }

    #[test]
    fn nobody_of_that_name() {
        let now = Timestamp::from_second(NOW).unwrap();
        assert_eq!(why(&pb::GetStatusResponse::default(), "x", now, ""), None);
    }
}
