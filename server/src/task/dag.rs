//! The definition of a task: which steps there are, and which waits for which.

use std::time::Duration;

use petgraph::{algo::toposort, graph::DiGraph};

use super::Node;

/// The graph of a task before it has ids.
#[derive(Debug, Clone)]
pub(crate) struct Dag {
    pub(crate) name: &'static str,
    /// The steps, in an order in which they could run.
    pub(crate) nodes: Vec<Definition>,
    /// (upstream, downstream), as places in `nodes`.
    pub(crate) edges: Vec<(usize, usize)>,
}

/// A step before it has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) node: Node,
    pub(crate) name: &'static str,
    pub(crate) class_name: &'static str,
    pub(crate) timeout: Duration,
}

impl Definition {
    /// A step that may take `timeout` seconds.
    pub(crate) fn new(node: Node, name: &'static str, class_name: &'static str, timeout: u64) -> Self {
        Self { node, name, class_name, timeout: Duration::from_secs(timeout) }
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
    /// A step waits for itself.
    #[error("task `{0}` has a cycle")]
    Cycle(&'static str),
}

impl Dag {
    /// Steps one after the other.
    pub(crate) fn chain<const N: usize>(name: &'static str, nodes: [Definition; N]) -> Self {
        Self { name, nodes: nodes.into(), edges: (1..N).map(|next| (next - 1, next)).collect() }
    }

    /// Holds the definition against what can be run, and puts its steps into an order in which they could.
    ///
    /// # Errors
    /// [`InvalidDag`], named after the task (hazard D24).
    pub(crate) fn checked(self) -> Result<Self, InvalidDag> {
        let Self { name, nodes, edges } = self;
        if nodes.is_empty() {
            return Err(InvalidDag::Empty(name));
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(node: Node) -> Definition {
        Definition::new(node, "a step", "AStep", 1)
    }

    fn dag(nodes: Vec<Definition>, edges: &[(usize, usize)]) -> Result<Dag, InvalidDag> {
        Dag { name: "t", nodes, edges: edges.to_vec() }.checked()
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

    #[test]
    fn upstream_steps_come_first() {
        let dag = dag(vec![step(Node::StopAll), step(Node::PrepareStop)], &[(1, 0)]).expect("runnable");
        let order: Vec<_> = dag.nodes.iter().map(|step| step.node).collect();
        assert_eq!((order, dag.edges), (vec![Node::PrepareStop, Node::StopAll], vec![(0, 1)]));
    }
}
