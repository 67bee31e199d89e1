//! How the agent of a host behaves: what it refuses, what its clock says, whether it floods, and how much of what it says is
//! kept.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use belay_proto::HostId;
use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use super::{Entry, Fleet};
use crate::{
    local_policy::LocalPolicy,
    process::{Observed, Process},
};

/// How long trouble is shown after it was seen last.
const SHOWN: Duration = Duration::from_secs(600);
/// How often trouble that goes on is logged.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// How much of the texts that its agent says is kept for one host, in bytes. A thousand processes that print much stay below.
const MOST_TEXT: usize = 48 * 1024 * 1024;
/// What is kept of each text of a process where that is more.
const LONGEST_THEN: usize = 256;

impl Fleet {
    /// What an agent said of itself when it connected: what it refuses, and how far its clock is from ours.
    pub(crate) fn set_conduct(&self, host: HostId, policy: LocalPolicy, clock: Option<SignedDuration>) {
        if let Some(entry) = self.write().get_mut(&host) {
            (entry.policy, entry.clock) = (Arc::new(policy), clock);
        }
    }

    /// An agent behaves as no honest one does.
    pub(crate) fn note_trouble(&self, host: HostId, what: &str, now: Instant) {
        let mut hosts = self.hosts.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(entry) = hosts.get_mut(&host) else { return };
        let known = entry.trouble.as_ref().filter(|(known, _)| known == what);
        // A flood must not wake those who watch hosts with every report of it.
        if known.is_some_and(|(_, at)| now.duration_since(*at) < LOGGED_EVERY) {
            return;
        }
        entry.trouble = Some((what.to_owned(), now));
        drop(hosts);
        warn!(%host, what, "An agent behaves as no honest one does.");
        self.changes.send_modify(|changes| *changes += 1);
    }
}

impl Entry {
    /// What is wrong with how its agent behaves. Empty where nothing is.
    pub(super) fn trouble(&self) -> String {
        let recent = self.trouble.as_ref().filter(|(_, at)| at.elapsed() < SHOWN);
        recent.map(|(what, _)| what.clone()).unwrap_or_default()
    }

    /// Forgets the processes that are not recorded any more.
    pub(super) fn keep_only(&mut self, recorded: &[(Process, Option<Observed>)]) {
        if self.processes.len() > recorded.len() {
            let recorded: BTreeSet<_> = recorded.iter().map(|(process, _)| process.id).collect();
            self.processes.retain(|id, _| recorded.contains(id));
        }
        self.text = self.processes.values().filter_map(|known| known.observed.as_ref()).map(text_of).sum();
    }

    /// Has a process of this host take in an observation: all of it, unless its agent says more than is kept of one host.
    /// Gives whether it was news.
    pub(super) fn keep(&mut self, process: &mut Process, observed: Observed, now: Timestamp) -> bool {
        let before = process.observed.as_ref().map_or(0, text_of);
        let others = self.text.saturating_sub(before);
        let fits = others + text_of(&observed) <= MOST_TEXT;
        let newer = process.observe(if fits { observed } else { cut(observed) }, now);
        self.text = others + process.observed.as_ref().map_or(0, text_of);
        newer
    }
}

/// How many bytes the texts of an observation have.
fn text_of(observed: &Observed) -> usize {
    let alive = observed.alive.iter().map(|it| it.user.len() + it.start_command.len() + it.ports.len());
    let exit = observed.last_exit.iter().map(|exit| {
        exit.note.len()
            + exit.signal.as_ref().map_or(0, String::len)
            + exit.last_output.iter().map(String::len).sum::<usize>()
            + exit.rungs.iter().map(|rung| rung.step.len()).sum::<usize>()
    });
    alive.sum::<usize>()
        + exit.sum::<usize>()
        + observed.trouble.len()
        + observed.leftovers.iter().map(|left| left.command.len()).sum::<usize>()
        + observed.not_applied.iter().map(String::len).sum::<usize>()
}

/// Leaves out what is for reading only.
fn cut(mut observed: Observed) -> Observed {
    let short = |text: &mut String| text.truncate(text.floor_char_boundary(LONGEST_THEN));
    if let Some(alive) = &mut observed.alive {
        [&mut alive.user, &mut alive.start_command, &mut alive.ports].into_iter().for_each(short);
    }
    if let Some(exit) = &mut observed.last_exit {
        exit.last_output.clear();
        exit.rungs.clear();
        short(&mut exit.note);
    }
    short(&mut observed.trouble);
    observed.leftovers.iter_mut().for_each(|left| short(&mut left.command));
    observed.not_applied.clear();
    observed
}

#[cfg(test)]
mod tests {
    use belay_proto::ProcessId;

    use super::*;
    use crate::{
        host::Host,
        process::{ExitReport, Phase},
    };

    fn seen(output: usize) -> Observed {
        let exit = ExitReport {
            pid: 7,
            exit_code: Some(1),
            signal: None,
            escalated: false,
            stop_duration: None,
            finish_time: None,
            note: "n".repeat(4096),
            core_dumped: false,
            oom_killed: false,
            rungs: Vec::new(),
            cpu_time: None,
            peak_memory: None,
            last_output: vec!["x".repeat(1024); output],
        };
        Observed { last_exit: Some(exit), trouble: "t".repeat(4096), ..Observed::of_test(Phase::Stopped) }
    }

    /// Hazard A13: what is kept of one host is bounded, whatever its agent says; what matters of a process is kept all the
    /// same, and another host is not concerned.
    #[test]
    fn the_texts_of_one_host_are_bounded() {
        let mut entry = Entry::new(host(), None, Duration::ZERO);
        for number in 1..=2000 {
            let mut process = process(number);
            assert!(entry.keep(&mut process, seen(50), Timestamp::UNIX_EPOCH));
            entry.processes.insert(process.id, process);
        }
        let total: usize =
            entry.processes.values().filter_map(|known| known.observed.as_ref()).map(text_of).sum();
        assert_eq!(entry.text, total);
        assert!(total <= MOST_TEXT + 2000 * 4 * LONGEST_THEN, "{total}");
        let output = |number| {
            let id = ProcessId::try_from(number).expect("an id");
            let seen = entry.processes[&id].observed.clone().expect("seen");
            seen.last_exit.expect("a report").last_output.len()
        };
        assert_eq!((output(1), output(2000)), (50, 0));
        // What is reported again takes the place of what was, and does not add up.
        let mut first = entry.processes[&ProcessId::try_from(1).expect("an id")].clone();
        for _ in 0..1000 {
            entry.keep(&mut first, seen(50), Timestamp::UNIX_EPOCH);
            assert!(entry.text <= total, "{} {total}", entry.text);
        }
    }

    fn host() -> Host {
        crate::fleet::tests::host(1, "")
    }

    fn process(number: i64) -> Process {
        Process::of_test(1, number, &number.to_string())
    }
}
