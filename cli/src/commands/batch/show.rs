//! How batches and their plans read to a person.

use std::collections::HashMap;

use belay_proto::v1::{
    Batch, BatchHost, BatchHostState, BatchPlan, LeftOutHost, PlannedHost, SubtaskError, Task, TaskState,
    TaskStatus,
};

use super::Verb;
use crate::{
    client::Client,
    failure::Failure,
    output::{Table, fields, plain},
    words,
};

/// So many failed hosts are named at the end.
const MOST_FAILED: usize = 20;
/// So many reasons to wait are shown at once.
const MOST_WAITS: usize = 3;
/// How wide the bar of a batch is.
const BAR: usize = 40;

/// The names of hosts by their ids.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<i64, String>);

impl Names {
    /// Those of all hosts. A name is a comfort: who may read tasks and not hosts sees ids.
    pub(crate) async fn of(client: &Client) -> Self {
        let hosts = client.hosts().await.unwrap_or_default();
        Self(hosts.into_iter().map(|host| (host.id, host.name)).collect())
    }

    fn name(&self, host_id: i64) -> String {
        self.0.get(&host_id).cloned().unwrap_or_default()
    }

    fn words(&self, host_id: i64) -> String {
        match self.0.get(&host_id) {
            Some(name) => format!("`{name}` ({host_id})"),
            None => host_id.to_string(),
        }
    }
}

/// Some batches, one a line.
pub(crate) fn table(tasks: &[Task]) -> String {
    let mut table = Table::new(["ID", "NAME", "STATUS", "HOSTS", "COUNTS", "CREATOR", "CREATED", "FINISHED"]);
    for task in tasks {
        let batch = task.batch.clone().unwrap_or_default();
        table.row([
            task.id.to_string(),
            task.name.clone(),
            words::task_state(task),
            batch.waves.iter().sum::<i32>().to_string(),
            words::batch_counts(&batch.counts.unwrap_or_default()),
            task.creator.clone(),
            words::time(task.create_time.as_ref()),
            words::time(task.finish_time.as_ref()),
        ]);
    }
    table.render()
}

/// A batch with each of its hosts.
pub(crate) fn detail(task: &Task, batch: &Batch, names: &Names) -> String {
    let text = fields([
        ("batch", format!("{} ({})", task.name, task.id)),
        ("status", words::task_state(task)),
        ("hosts", hosts(batch)),
        ("wave", format!("{} of {}: {}", batch.wave, batch.waves.len(), waves(&batch.waves))),
        ("at once", format!("at most {}", batch.parallel)),
        ("failures", failures(batch)),
        ("waits for", batch.waits_for.join("; ")),
        ("creator", task.creator.clone()),
        ("reason", task.reason.clone()),
        ("created", words::time(task.create_time.as_ref())),
        ("finished", words::time(task.finish_time.as_ref())),
        ("trace", task.trace_id.clone()),
    ]);
    let mut table = Table::new(["HOST", "NAME", "WAVE", "STATE", "ERROR"]);
    for host in &batch.hosts {
        table.row([
            host.host_id.to_string(),
            names.name(host.host_id),
            host.wave.to_string(),
            words::batch_host_state(host.state),
            host.error.as_ref().map(error).unwrap_or_default(),
        ]);
    }
    format!("{text}\n{}", table.render())
}

/// A plan, with so many of its hosts, and what orders it.
pub(crate) fn plan(plan: &BatchPlan, verb: Verb, most: usize) -> String {
    let mut text = fields([
        ("plan", format!("{} all processes of {}", verb.word(), count(plan.hosts.len()))),
        ("waves", format!("{}: {}", plan.waves.len(), waves(&plan.waves))),
        ("at once", format!("at most {}", plan.parallel)),
        ("id", format!("{}, good until {}", plan.id, words::time(plan.expire_time.as_ref()))),
    ]);
    let mut table = Table::new(["WAVE", "HOST", "NAME", "AGENT", "DOMAIN", "RUNNING"]);
    for host in plan.hosts.iter().take(most) {
        let PlannedHost { host_id, name, wave, agent_status, running, domain } = host.clone();
        table.row([
            wave.to_string(),
            host_id.to_string(),
            name,
            words::host_agent_status(agent_status),
            domain,
            running.join(", "),
        ]);
    }
    text += &format!("\n{}", table.render());
    if plan.hosts.len() > most {
        text += &format!("... and {} more: `--dry-run` shows all\n", plan.hosts.len() - most);
    }
    if !plan.left_out.is_empty() {
        let mut table = Table::new(["LEFT OUT", "NAME", "WHY"]);
        for LeftOutHost { host_id, name, why } in plan.left_out.clone() {
            table.row([host_id.to_string(), name, why]);
        }
        text += &format!("\n{}", table.render());
    }
    if !plan.warnings.is_empty() {
        text += "\n";
        plan.warnings.iter().for_each(|warning| text += &format!("warning: {}\n", plain(warning)));
    }
    text
}

/// What orders a plan.
pub(crate) fn order_of(plan: &BatchPlan, verb: Verb) -> String {
    let order = format!("belay batch {} --plan {}", verb.word(), plan.id);
    if plan.confirm_hosts > 0 { format!("{order} --confirm {}", plan.confirm_hosts) } else { order }
}

/// What is new since the last look, but for the counts: hosts that failed or were skipped, and how the task stands.
pub(crate) fn news(before: Option<&Task>, after: &Task, names: &Names) -> Vec<String> {
    let old = before.and_then(|task| task.batch.as_ref());
    let batch = after.batch.clone().unwrap_or_default();
    let is_new = |at: usize, host: &BatchHost| {
        old.and_then(|old| old.hosts.get(at)).is_none_or(|old| old.state != host.state)
    };
    let mut lines: Vec<String> = Vec::new();
    for (at, host) in batch.hosts.iter().enumerate() {
        let how = match host.state() {
            BatchHostState::Failed => "failed",
            BatchHostState::Skipped => "was skipped",
            _ => continue,
        };
        if is_new(at, host) {
            let why = host.error.as_ref().map(|told| format!(": {}", error(told))).unwrap_or_default();
            lines.push(format!("host {} {how}{why}", names.words(host.host_id)));
        }
    }
    let now = words::task_state(after);
    if before.map(words::task_state).as_ref() != Some(&now) {
        lines.push(format!("batch {} `{}`: {now}", after.id, after.name));
    }
    lines
}

/// The counts, and what is waited for, where they are not those of the last look.
pub(crate) fn counts(before: Option<&Task>, after: &Task) -> Vec<String> {
    let old = before.and_then(|task| task.batch.as_ref());
    let batch = after.batch.clone().unwrap_or_default();
    let mut lines = Vec::new();
    if old.is_none_or(|old| old.counts != batch.counts || old.wave != batch.wave) {
        lines.push(standing(&batch));
    }
    if old.map(|old| &old.waits_for) != Some(&batch.waits_for) {
        lines.extend(waits(&batch));
    }
    lines
}

/// What is seen while nothing changes.
pub(crate) fn live(task: Option<&Task>, id: i64) -> Vec<String> {
    let Some((task, batch)) = task.and_then(|task| Some((task, task.batch.as_ref()?))) else {
        return vec![format!("batch {id}")];
    };
    let mut lines = vec![format!("{} ({id}): {}", task.name, words::task_state(task))];
    lines.push(bar(batch));
    lines.push(standing(batch));
    lines.extend(waits(batch));
    lines
}

/// How a command ends whose batch ended so: where it failed, with the hosts and their reasons.
pub(crate) fn outcome(task: &Task, names: &Names) -> Result<(), Failure> {
    if task.status() == TaskStatus::Successful {
        return Ok(());
    }
    let (id, batch) = (task.id, task.batch.clone().unwrap_or_default());
    let how = match task.state() {
        TaskState::Cancelled => "was cancelled",
        TaskState::Stuck => "is stuck",
        TaskState::RollbackStuck => "could not be rolled back",
        _ => "failed",
    };
    let mut message = format!("batch {id} `{}` {how}: {}", task.name, hosts(&batch));
    let failed: Vec<_> = batch.hosts.iter().filter(|host| host.state() == BatchHostState::Failed).collect();
    for host in failed.iter().take(MOST_FAILED) {
        let why = host.error.as_ref().map(error).unwrap_or_default();
        message += &format!("\n  host {}: {}", plain(&names.words(host.host_id)), plain(&why));
    }
    if failed.len() > MOST_FAILED {
        message += &format!("\n  and {} more: `belay batch get {id}`", failed.len() - MOST_FAILED);
    }
    // What fails between the hosts, such as a wait of all.
    for step in task.subtasks.iter().filter(|step| step.host_id == 0) {
        if let Some(told) = &step.error {
            message += &format!("\n  `{}`: {}", plain(&step.name), plain(&error(told)));
        }
    }
    let hint = format!(
        "see every host with `belay batch get {id}`; run what failed once more with `belay batch retry {id}`, or these \
         hosts and those that did not begin as a new batch with `belay batch rerun {id}`"
    );
    Err(Failure::failed(message).hint(hint))
}

/// A number of hosts in words.
pub(crate) fn count(hosts: usize) -> String {
    if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") }
}

fn hosts(batch: &Batch) -> String {
    let counts = words::batch_counts(&batch.counts.unwrap_or_default());
    format!("{}: {counts}", count(batch.hosts.len()))
}

fn standing(batch: &Batch) -> String {
    let counts = words::batch_counts(&batch.counts.unwrap_or_default());
    format!("wave {} of {}: {counts}", batch.wave, batch.waves.len())
}

fn waves(waves: &[i32]) -> String {
    waves.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn failures(batch: &Batch) -> String {
    let how = match batch.stop_after {
        0 => "stop nothing".to_owned(),
        1 => "no further host begins after 1".to_owned(),
        most => format!("no further host begins after {most}"),
    };
    if batch.halted { format!("{how}; so many have failed") } else { how }
}

fn waits(batch: &Batch) -> Vec<String> {
    let shown = batch.waits_for.iter().take(MOST_WAITS).map(|wait| format!("waits: {wait}"));
    let mut lines: Vec<_> = shown.collect();
    if batch.waits_for.len() > MOST_WAITS {
        let more = batch.waits_for.len() - MOST_WAITS;
        lines.push(format!("waits: and {more} more"));
    }
    lines
}

/// What of the hosts is done (`#`), failed (`x`), under way (`>`) and not begun (`.`).
fn bar(batch: &Batch) -> String {
    let all = batch.hosts.len();
    let in_state =
        |states: &[BatchHostState]| batch.hosts.iter().filter(|host| states.contains(&host.state())).count();
    let ended = [BatchHostState::Successful, BatchHostState::Skipped, BatchHostState::Undone];
    let failed = [BatchHostState::Failed, BatchHostState::Cancelled];
    let parts =
        [('#', in_state(&ended)), ('x', in_state(&failed)), ('>', in_state(&[BatchHostState::Running]))];
    let (mut bar, mut sum) = (String::new(), 0);
    for (mark, hosts) in parts {
        sum += hosts;
        let end = (sum * BAR).checked_div(all).unwrap_or(0);
        bar.extend(std::iter::repeat_n(mark, end.saturating_sub(bar.len())));
    }
    format!("[{bar:.<BAR$}]")
}

fn error(error: &SubtaskError) -> String {
    format!("{} ({})", error.message, error.reason)
}

#[cfg(test)]
mod tests;
