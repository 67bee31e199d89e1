//! What the agent answers, as text for a terminal.

use std::time::Duration;

use belay_proto::{
    agent::v1 as pb,
    fleet::v1::{LocalPolicy, OrderRefusal},
};
use jiff::Timestamp;

/// Every process on a line.
pub(super) fn processes(processes: &[pb::ObservedProcess], now: Timestamp) -> String {
    if processes.is_empty() {
        return "no process is declared\n".to_owned();
    }
    let headings = ["ALIAS", "PHASE", "PID", "UPTIME", "ENDINGS", "TRACKER", "NOTE"].map(str::to_owned);
    let rows = processes.iter().map(|process| {
        let alive = process.pid != 0;
        let pid = alive.then(|| process.pid.to_string());
        let uptime = age(process.start_time, now).filter(|_| alive).map(short);
        let endings = (process.endings > 0).then(|| process.endings.to_string());
        let tracker = alive.then(|| if process.grouped { "cgroup" } else { "walk" }.to_owned());
        let note = match until(process.next_start_time, now) {
            Some(pause) => format!("starts in {}", short(pause)),
            None => plain(&process.trouble),
        };
        let cells = [pid, uptime, endings, tracker].map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
        let [pid, uptime, endings, tracker] = cells;
        [plain(&process.alias), phase(process).to_owned(), pid, uptime, endings, tracker, note]
    });
    columns(std::iter::once(headings).chain(rows))
}

/// The agent, and every process on a line.
pub(super) fn status(status: &pb::GetStatusResponse, now: Timestamp) -> String {
    let pb::GetStatusResponse {
        identity,
        version,
        name,
        pid,
        uptime,
        server,
        connected,
        connection_error,
        tracker,
        tracker_reason,
        journal_error,
        processes: all,
        last_orders: _,
        incarnation: _,
        upgrade_error: _,
        policy: refused,
        epoch,
    } = status;
    let up = uptime.and_then(|uptime| Duration::try_from(uptime).ok()).map(short).unwrap_or_default();
    let or = |bad: bool, good: &str, what: String| if bad { what } else { good.to_owned() };
    let rows = [
        ["host".to_owned(), plain(name)],
        ["agent".to_owned(), format!("{identity}, version {version}, pid {pid}, up {up}")],
        [
            "server".to_owned(),
            or(
                !connected,
                &format!("{server}, reporting"),
                format!("{server}, not reporting: {}", plain(connection_error)),
            ),
        ],
        [
            "tracker".to_owned(),
            or(
                !tracker_reason.is_empty(),
                tracker,
                format!("{tracker}, without cgroups: {}", plain(tracker_reason)),
            ),
        ],
        [
            "journal".to_owned(),
            or(!journal_error.is_empty(), "good", format!("bad: {}", plain(journal_error))),
        ],
        ["epoch".to_owned(), epoch.to_string()],
        ["orders".to_owned(), policy(refused.as_ref()).trim_end().to_owned()],
    ];
    format!("{}\n{}", columns(rows), processes(all, now))
}

/// What of the server's orders is refused, in a line.
pub(super) fn policy(policy: Option<&LocalPolicy>) -> String {
    let Some(LocalPolicy { protected, refusal }) = policy else {
        return "the server's orders are taken\n".to_owned();
    };
    let taken = match refusal {
        None => "the server's orders are taken".to_owned(),
        Some(OrderRefusal { reason, principal, begin_time: _ }) => {
            let by = if principal.is_empty() { String::new() } else { format!(" by {}", plain(principal)) };
            let why = if reason.is_empty() { String::new() } else { format!(": {}", plain(reason)) };
            format!("the server's orders are refused{by}{why}")
        }
    };
    match protected.is_empty() {
        true => format!("{taken}\n"),
        false => format!("{taken}; it may not stop or restart: {}\n", plain(&protected.join(", "))),
    }
}

/// What became of an upgrade. An error says why the same program as before goes on.
pub(super) fn upgrade(before: &pb::GetStatusResponse, now: &pb::GetStatusResponse) -> Result<String, String> {
    if !now.upgrade_error.is_empty() {
        return Err(plain(&now.upgrade_error));
    }
    let pb::GetStatusResponse { version, pid, processes, .. } = now;
    let live = processes.iter().filter(|process| process.pid != 0).count();
    Ok(format!(
        "version {version} took over from version {} as pid {pid}; processes alive: {live}\n",
        before.version
    ))
}

/// What a reload does, or would do.
pub(super) fn plan(plan: &pb::ReloadResponse, dry_run: bool) -> String {
    let pb::ReloadResponse { added, removed, restarted, updated, needs_agent_restart, applied } = plan;
    let words = match dry_run {
        true => ["would start", "would stop", "would restart", "would change"],
        false => ["starts", "stops", "restarts", "changes"],
    };
    let lists = words.into_iter().zip([added, removed, restarted, updated]);
    let mut rows: Vec<_> =
        lists.flat_map(|(word, list)| list.iter().map(move |one| [word.to_owned(), plain(one)])).collect();
    rows.extend(applied.iter().map(|one| ["applies".to_owned(), plain(one)]));
    let settings = needs_agent_restart.iter();
    rows.extend(
        settings.map(|one| ["waits".to_owned(), format!("{one}: until the agent program is started again")]),
    );
    match rows.is_empty() {
        true => "nothing differs\n".to_owned(),
        false => columns(rows),
    }
}

/// The word for where a process is in its life.
pub(super) fn phase(process: &pb::ObservedProcess) -> &'static str {
    match process.phase() {
        pb::ProcessPhase::Running => "running",
        pb::ProcessPhase::Stopping => "stopping",
        pb::ProcessPhase::Backoff => "backoff",
        pb::ProcessPhase::Stopped => "stopped",
        pb::ProcessPhase::Failed => "failed",
        pb::ProcessPhase::Starting => "starting",
        pb::ProcessPhase::Unspecified => "unknown",
    }
}

/// Rows in aligned columns.
pub(super) fn columns<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line: Vec<_> = cells.collect();
        format!("{}\n", line.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// A text that can not do anything to a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A duration in at most two units.
pub(super) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How long ago that was; `None` where it is not known. A clock that was set back makes it no time at all.
pub(super) fn age(at: Option<prost_types::Timestamp>, now: Timestamp) -> Option<Duration> {
    Some(Duration::try_from(now.duration_since(date(at?)?)).unwrap_or_default())
}

/// How long it is until then; `None` where it is not known.
pub(super) fn until(at: Option<prost_types::Timestamp>, now: Timestamp) -> Option<Duration> {
    Some(Duration::try_from(date(at?)?.duration_since(now)).unwrap_or_default())
}

fn date(at: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}
