//! Following a batch until it ended: on a terminal lines that are redrawn in place, elsewhere a line for each change.

use std::io::{self, IsTerminal};

use belay_gateway::json;
use belay_proto::v1::Task;

use super::show::{self, Names};
use crate::{
    client::Client,
    commands::Context,
    failure::Failure,
    follow::{Manner, follow_as},
    output::{self, Format, plain},
    progress::Progress,
};

/// Tells how it goes on stdout, which is the answer of `belay batch watch`.
pub(super) async fn run(client: &Client, id: i64, context: &Context) -> Result<(), Failure> {
    let names = Names::of(client).await;
    let (format, live) = (context.format, io::stdout().is_terminal());
    let changed = |_: &mut Progress, before: Option<&Task>, task: &Task| match format {
        Format::Table => {
            lines(before, task, &names, live).iter().try_for_each(|line| output::line(&plain(line)))
        }
        Format::Json => output::json(&json::Batch::of(task.clone())),
    };
    let ended = followed(client, id, &mut Progress::new(), changed).await?;
    show::outcome(&ended, &names)
}

/// Follows a batch until it ended, telling how it goes on stderr, and answers with it and with what `outcome` makes of it.
pub(super) async fn to_the_end(
    client: &Client,
    id: i64,
    context: &Context,
    outcome: impl FnOnce(&Task, &Names) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let names = Names::of(client).await;
    let mut progress = Progress::new();
    let changed = |progress: &mut Progress, before: Option<&Task>, task: &Task| {
        let live = progress.is_live();
        lines(before, task, &names, live).iter().for_each(|line| progress.line(line));
        Ok(())
    };
    let ended = followed(client, id, &mut progress, changed).await?;
    let outcome = outcome(&ended, &names);
    let printed = super::answer_with(ended, &names, context);
    outcome.and(printed)
}

/// Follows a batch, and hands over each change.
pub(super) async fn followed(
    client: &Client,
    id: i64,
    progress: &mut Progress,
    changed: impl FnMut(&mut Progress, Option<&Task>, &Task) -> Result<(), Failure>,
) -> Result<Task, Failure> {
    let manner = Manner { meanwhile: &|task| show::live(task, id), left: left(id) };
    follow_as(client, id, &manner, progress, changed).await
}

/// What is said of a change. Where the counts are seen all the time they are said only when the task stands otherwise.
pub(super) fn lines(before: Option<&Task>, after: &Task, names: &Names, live: bool) -> Vec<String> {
    let stands = before.is_some_and(|before| before.state == after.state);
    let mut lines = if live && stands { Vec::new() } else { show::counts(before, after) };
    lines.extend(show::news(before, after, names));
    lines
}

/// What one is told who stops waiting.
fn left(id: i64) -> Failure {
    Failure::unknown(format!("stopped waiting; batch {id} goes on")).hint(format!(
        "watch it with `belay batch watch {id}`, let no further host begin with `belay batch pause {id}`, or cancel it with \
         `belay batch cancel {id}`"
    ))
}

#[cfg(test)]
mod tests;
