//! The definition of a task: which steps there are, and which waits for which.

use std::time::Duration;

use petgraph::{algo::toposort, graph::DiGraph};

use super::{Node, context::MARGIN};

/// The graph of a task before it has ids.
#[derive(Debug, Clone)]
pub(crate) struct Dag {
    pub(crate) name: &'static str,
    /// The steps, in an order in which they could run.
    pub(crate) nodes: Vec<Definition>,
    /// (upstream, downstream), as places in `nodes`.
    pub(crate) edges: Vec<(usize, usize)>,
    /// Whether it has no way back.
    pub(crate) prohibit_rollback: bool,
    /// Whether every step but a barrier is there once for each host.
    pub(crate) is_batch: bool,
}

/// What stopping and starting all processes of the host may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) stop: Duration,
    pub(crate) start: Duration,
}

/// No step may take longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A step before it has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) node: Node,
    /// What takes its effect back, where it has one.
    pub(crate) undo: Option<Node>,
    pub(crate) name: &'static str,
    pub(crate) class_name: &'static str,
    pub(crate) timeout: Duration,
}

impl Definition {
    /// A step that may take `timeout` seconds.
    pub(crate) fn new(node: Node, name: &'static str, class_name: &'static str, timeout: u64) -> Self {
        Self { node, undo: None, name, class_name, timeout: Duration::from_secs(timeout) }
    }

    /// The same with a way back.
    #[must_use]
    pub(crate) fn undone_by(self, undo: Node) -> Self {
        Self { undo: Some(undo), ..self }
    }
}

/// Why a definition can not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidDag {
    /// There is nothing to do.
    #[error("task `{0}` has no step")]
    Empty(&'static str),
    /// An edge leads to a step that is not there.
    #[error("task `{0}` has an edge to a missing step")]
    MissingStep(&'static str),
    /// A step can not be done in its time.
    #[error("task `{0}` has the step `{1}`, of which the timeout is too short or longer than a day")]
    Timeout(&'static str, &'static str),
    /// A step waits for itself.
    #[error("task `{0}` has a cycle")]
    Cycle(&'static str),
}

impl Dag {
    /// Steps one after the other.
    pub(crate) fn chain<const N: usize>(name: &'static str, nodes: [Definition; N]) -> Self {
        let edges = (1..N).map(|next| (next - 1, next)).collect();
        Self { name, nodes: nodes.into(), edges, prohibit_rollback: false, is_batch: false }
    }

    /// The same for many hosts: each goes its own way along the steps, with the documented barriers drawn between them.
    #[must_use]
    pub(crate) fn for_many(self, name: &'static str) -> Self {
        let wait =
            || Definition::new(Node::Wait, "Wait node", "com.alipay.ocp.service.task.business.WaitNode", 30);
        let mut nodes: Vec<Definition> = Vec::new();
        for step in self.nodes {
            if !nodes.is_empty() {
                nodes.push(wait());
            }
            nodes.push(step);
        }
        let edges = (1..nodes.len()).map(|next| (next - 1, next)).collect();
        Self { name, nodes, edges, prohibit_rollback: self.prohibit_rollback, is_batch: true }
    }

    /// Gives steps that order something the time that the agent says it needs, where they have less: a grace must not be cut
    /// short by the step that it is a part of (hazard D29). What needs more than a day gets a day.
    #[must_use]
    pub(crate) fn fitted(mut self, needs: &Needs, margin: Duration) -> Self {
        for step in &mut self.nodes {
            let time = |node: Node| match node {
                // A start waits for a stop that is under way.
                Node::StartAll | Node::StartWhatRan => needs.stop.saturating_add(needs.start),
                Node::StopAll | Node::StopWhatDidNotRun => needs.stop,
                Node::PrepareStop
                | Node::FinishStop
                | Node::PrepareStart
                | Node::FinishStart
                | Node::PrepareRestart
                | Node::RenewChannel
                | Node::PreCheckCreate
                | Node::FinishCreate
                | Node::Wait
                | Node::Unknown => Duration::ZERO,
            };
            let needed = time(step.node).max(step.undo.map_or(Duration::ZERO, time));
            if !needed.is_zero() {
                let whole =
                    Duration::from_secs(needed.saturating_add(margin * 2).as_secs().saturating_add(1));
                step.timeout = step.timeout.max(whole).min(LONGEST);
            }
        }
        self
    }

    /// Holds the definition against what can be run, and puts its steps into an order in which they could.
    ///
    /// # Errors
    /// [`InvalidDag`], named after the task (hazard D24).
    pub(crate) fn checked(self) -> Result<Self, InvalidDag> {
        let Self { name, nodes, edges, prohibit_rollback, is_batch } = self;
        if nodes.is_empty() {
            return Err(InvalidDag::Empty(name));
        }
        let least = |step: &Definition| if step.node.orders() { MARGIN * 2 } else { Duration::from_secs(1) };
        if let Some(step) = nodes.iter().find(|step| !(least(step)..=LONGEST).contains(&step.timeout)) {
            return Err(InvalidDag::Timeout(name, step.name));
        }
        let mut graph = DiGraph::<usize, ()>::new();
        let places: Vec<_> = (0..nodes.len()).map(|place| graph.add_node(place)).collect();
        for &(upstream, downstream) in &edges {
            let (Some(&from), Some(&to)) = (places.get(upstream), places.get(downstream)) else {
                return Err(InvalidDag::MissingStep(name));
            };
            graph.add_edge(from, to, ());
        }
        let order: Vec<usize> = toposort(&graph, None)
            .map_err(|_| InvalidDag::Cycle(name))?
            .into_iter()
            .map(|index| graph[index])
            .collect();
        let place = |old: usize| order.iter().position(|&at| at == old).unwrap_or(old);
        Ok(Self {
            name,
            edges: edges.iter().map(|&(from, to)| (place(from), place(to))).collect(),
            nodes: order.iter().map(|&old| nodes[old].clone()).collect(),
            prohibit_rollback,
            is_batch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(node: Node) -> Definition {
        Definition::new(node, "a step", "AStep", 60)
    }

    fn dag(nodes: Vec<Definition>, edges: &[(usize, usize)]) -> Result<Dag, InvalidDag> {
        Dag { name: "t", nodes, edges: edges.to_vec(), prohibit_rollback: false, is_batch: false }.checked()
    }

    /// Hazard D24.
    #[test]
    fn refuses_what_can_not_be_run() {
        let two = || vec![step(Node::StopAll), step(Node::PrepareStop)];
        assert_eq!(dag(vec![], &[]).err(), Some(InvalidDag::Empty("t")));
        assert_eq!(dag(two(), &[(0, 2)]).err(), Some(InvalidDag::MissingStep("t")));
        assert_eq!(dag(two(), &[(0, 1), (1, 0)]).err(), Some(InvalidDag::Cycle("t")));
        assert_eq!(dag(two(), &[(0, 0)]).err(), Some(InvalidDag::Cycle("t")));
    }

    /// Hazard D29: a timeout that is too short is refused, and one that a grace does not fit into is made longer.
    #[test]
    fn a_step_has_the_time_that_its_order_needs() {
        let timed = |node, timeout| Definition { timeout: Duration::from_secs(timeout), ..step(node) };
        let refused = |step| dag(vec![step], &[]).err();
        assert_eq!(refused(timed(Node::StopAll, 9)), Some(InvalidDag::Timeout("t", "a step")));
        assert_eq!(refused(timed(Node::PrepareStop, 0)), Some(InvalidDag::Timeout("t", "a step")));
        assert_eq!(refused(timed(Node::PrepareStop, 90_000)), Some(InvalidDag::Timeout("t", "a step")));

        let steps = [Node::PrepareStop, Node::StopAll].map(|node| timed(node, 600));
        let stop = Dag::chain("t", steps.map(|step| step.undone_by(Node::StartWhatRan)));
        let times = |stop_takes, start_takes| {
            let needs =
                Needs { stop: Duration::from_secs(stop_takes), start: Duration::from_secs(start_takes) };
            let fitted = stop.clone().fitted(&needs, MARGIN).checked().expect("runnable");
            fitted.nodes.iter().map(|step| step.timeout.as_secs()).collect::<Vec<_>>()
        };
        assert_eq!(times(10, 60), [600, 600]);
        assert_eq!(times(700, 60), [771, 771]);
        assert_eq!(times(u64::MAX, 60), [86_400, 86_400]);
    }

    #[test]
    fn upstream_steps_come_first() {
        let dag = dag(vec![step(Node::StopAll), step(Node::PrepareStop)], &[(1, 0)]).expect("runnable");
        let order: Vec<_> = dag.nodes.iter().map(|step| step.node).collect();
        assert_eq!((order, dag.edges), (vec![Node::PrepareStop, Node::StopAll], vec![(0, 1)]));
    }
}
