//! What must hold between processes: no name twice, and each can be started after those that it names.

use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use serde::{Deserialize, de::IgnoredAny};
use toml::Spanned;

use super::ProcessConfig;
use crate::process::Alias;

/// What does not hold.
#[derive(Debug)]
pub(super) struct Fault {
    /// Of which process: its place in the file, its name.
    index: usize,
    pub alias: Alias,
    /// Whether its `after` is to be shown, or else its `alias`.
    in_after: bool,
    /// What is wrong, and what to do.
    pub what: String,
}

/// Checks all processes.
pub(super) fn check(processes: &[ProcessConfig]) -> Result<(), Fault> {
    for (index, process) in processes.iter().enumerate() {
        if processes.iter().take(index).any(|other| other.alias == process.alias) {
            let what = "two processes have this alias; rename one".to_owned();
            return Err(Fault { index, alias: process.alias.clone(), in_after: false, what });
        }
    }
    let mut graph = DiGraphMap::<usize, ()>::new();
    for (index, process) in processes.iter().enumerate() {
        let fault = |what| Err(Fault { index, alias: process.alias.clone(), in_after: true, what });
        for before in &process.after {
            let Some(earlier) = processes.iter().position(|other| other.alias == *before) else {
                return fault(format!(
                    "`after` names `{before}`, which is not declared; declare it, or remove it here"
                ));
            };
            if processes.get(earlier).is_some_and(|earlier| earlier.operable) && !process.operable {
                return fault(format!(
                    "`after` names `{before}`, a worker: base processes (`operable = false`) start before all workers; \
                     remove it here, or make `{before}` a base process"
                ));
            }
            graph.add_edge(earlier, index, ());
        }
    }
    let waits_for_itself = |index: usize| graph.contains_edge(index, index);
    let cycle = tarjan_scc(&graph)
        .into_iter()
        .find(|part| part.len() > 1 || part.iter().any(|index| waits_for_itself(*index)));
    let Some(mut cycle) = cycle else {
        return Ok(());
    };
    cycle.sort_unstable();
    let members: Vec<_> = cycle.iter().filter_map(|index| processes.get(*index)).collect();
    let names: Vec<_> = members.iter().map(|process| format!("`{}`", process.alias)).collect();
    let what = match &names[..] {
        [_] => "`after` names the process itself; remove it".to_owned(),
        names => format!("{} wait for each other; remove one of their `after`", names.join(" and ")),
    };
    match (cycle.first(), members.first()) {
        (Some(index), Some(process)) => {
            Err(Fault { index: *index, alias: process.alias.clone(), in_after: true, what })
        }
        _ => Ok(()),
    }
}

impl Fault {
    /// The fault as it is told of a file, with line and column.
    pub(super) fn with_place(&self, text: &str) -> String {
        let Self { index, alias, in_after, what } = self;
        let told = format!("process `{alias}`: {what}");
        let places: Places = toml::from_str(text).unwrap_or_default();
        let Some(place) = places.process.get(*index) else {
            return told;
        };
        let span = match &place.after {
            Some(after) if *in_after => after.span(),
            _ => place.alias.span(),
        };
        let before = text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let shown = text.lines().nth(line - 1).unwrap_or_default();
        let margin = " ".repeat(line.to_string().len());
        let pointer = format!("{}^", " ".repeat(column - 1));
        // As the reader of TOML shows its own.
        format!("at line {line}, column {column}\n{margin} |\n{line} | {shown}\n{margin} | {pointer}\n{told}")
    }
}

/// Where in the text what was read stands.
#[derive(Debug, Default, Deserialize)]
struct Places {
    #[serde(default)]
    process: Vec<Place>,
}

#[derive(Debug, Deserialize)]
struct Place {
    alias: Spanned<IgnoredAny>,
    after: Option<Spanned<IgnoredAny>>,
}
