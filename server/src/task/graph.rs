//! The steps of a task as they hang together: which one waits for which, and which host each of them works on.

use std::collections::{HashMap, HashSet};

use belay_proto::{HostId, SubtaskId};

use super::{Batch, Node, Step};

/// What a task was made with. It does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Graph {
    /// Its steps, in an order in which they could run.
    pub(crate) steps: Vec<Step>,
    /// Its hosts, in the order in which they begin.
    pub(crate) hosts: Vec<HostId>,
    /// How it goes, where it is for many hosts.
    pub(crate) batch: Option<Batch>,
    /// For each host its steps, as places in `steps`. Barriers belong to no host.
    pub(crate) lanes: Vec<Vec<usize>>,
}

impl Graph {
    /// Hangs steps together that know those that are drawn before and after them.
    ///
    /// A barrier is drawn between the steps of a batch, as the documents have it, and holds nobody up: a step that is drawn
    /// behind one waits for the steps of its own host before it (hazard D12).
    pub(crate) fn new(mut steps: Vec<Step>, hosts: Vec<HostId>, batch: Option<Batch>) -> Self {
        let mut lanes = vec![Vec::new(); hosts.len()];
        let mut before: HashMap<(SubtaskId, usize), Vec<SubtaskId>> = HashMap::new();
        let mut barriers = HashSet::new();
        for (place, step) in steps.iter().enumerate() {
            if step.node == Node::Wait {
                barriers.insert(step.id);
                continue;
            }
            if let Some(lane) = lanes.get_mut(step.lane) {
                lane.push(place);
            }
            for &drawn in &step.downstreams {
                before.entry((drawn, step.lane)).or_default().push(step.id);
            }
        }
        let mut carries: HashMap<SubtaskId, Vec<SubtaskId>> = HashMap::new();
        for step in steps.iter_mut().filter(|step| step.node != Node::Wait) {
            let through = |drawn: &SubtaskId| match barriers.contains(drawn) {
                true => before.get(&(*drawn, step.lane)).cloned().unwrap_or_default(),
                false => vec![*drawn],
            };
            step.needs = step.upstreams.iter().flat_map(through).collect();
            for needed in &step.needs {
                carries.entry(*needed).or_default().push(step.id);
            }
        }
        for step in &mut steps {
            step.carries = carries.remove(&step.id).unwrap_or_default();
        }
        Self { steps, hosts, batch, lanes }
    }

    /// The steps of one host.
    pub(crate) fn lane(&self, lane: usize) -> impl Iterator<Item = &Step> {
        self.lanes.get(lane).into_iter().flatten().filter_map(|&place| self.steps.get(place))
    }
}
