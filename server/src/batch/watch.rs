//! What a batch under way has to know of the fleet, and what it tells of why it does not go on.

use belay_proto::HostId;
use jiff::Timestamp;

use crate::{
    app::App,
    task::{
        Graph, Task, World,
        batch::{Budget, Spent},
        next::{Lane, Wait},
    },
};

/// What a batch has to know of the fleet. Nothing where it is a task for one host.
pub(crate) fn world(app: &App, graph: &Graph, now: Timestamp) -> World {
    let Some(batch) = &graph.batch else {
        return World { now, ..World::default() };
    };
    World { now, absent: app.fleet.absent(&graph.hosts), budgets: spent(app, &batch.budgets, &graph.hosts) }
}

/// What is left of budgets, whatever a batch of these hosts does.
pub(super) fn spent(app: &App, budgets: &[Budget], hosts: &[HostId]) -> Vec<Spent> {
    let of = |budget: &Budget| match budget.selector.parse() {
        Ok(selector) => app.fleet.spent(&selector, hosts),
        // It was read when the batch was ordered.
        Err(_) => Spent::default(),
    };
    budgets.iter().map(of).collect()
}

/// What is wrong with a host of a wave that did not fail; `None` where each of them is healthy: its agent reports, and each
/// process is as it is meant to be.
pub(crate) fn trouble(app: &App, task: &Task, wave: usize) -> Option<String> {
    let graph = &task.graph;
    let range = graph.batch.as_ref()?.ranges().nth(wave)?;
    let done = range.filter(|&lane| task.state.lane(graph, lane) == Lane::Successful);
    done.filter_map(|lane| graph.hosts.get(lane)).find_map(|&host| trouble_of(app, host))
}

fn trouble_of(app: &App, host: HostId) -> Option<String> {
    if let Err(error) = app.fleet.reachable(host) {
        return Some(error.to_string());
    }
    let processes = app.fleet.processes(host).unwrap_or_default();
    let wrong = processes.iter().find(|process| !process.is_as_meant())?;
    let seen = wrong.observed.as_ref();
    let phase = seen.map_or("not known", |seen| seen.phase.as_str());
    Some(format!("`{}` of host {host} is {phase}", wrong.alias))
}

/// What holds hosts of a batch up that have not begun, each with what ends it.
pub(crate) fn waits(app: &App, task: &Task) -> Vec<String> {
    let graph = &task.graph;
    if graph.batch.is_none() || !task.standing().is_open() {
        return Vec::new();
    }
    let outlook = task.state.outlook(graph, &world(app, graph, Timestamp::now()));
    outlook.waits.iter().map(|wait| told(task, wait)).collect()
}

fn told(task: &Task, wait: &Wait) -> String {
    let (id, batch) = (task.id, task.graph.batch.as_ref());
    match wait {
        Wait::Paused(why) => format!("{why}; go on with `belay batch resume {id}`"),
        Wait::Halted => {
            format!("too many hosts have failed; those under way go on. See `belay batch get {id}`")
        }
        Wait::Approval(wave) => {
            format!("wave {} is to be approved: `belay batch approve {id}`", wave + 1)
        }
        Wait::Health(wave) => format!("wave {} has to be healthy for a time", wave + 1),
        Wait::Absent(host) => format!("the agent of host {host} does not report"),
        Wait::Budget(place, host) => {
            let budget = batch.and_then(|batch| batch.budgets.get(*place));
            let selector = budget.map_or("", |budget| &budget.selector);
            format!("host {host} would be one more of `{selector}` down than may be")
        }
    }
}
