//! The documented objects, as JSON shows them, made from the messages of the wire contract.
//!
//! Keys are in alphabetical order. Process, agent and host objects print `null` for what is not there; task and subtask
//! objects leave it out. Times carry the offset of the zone that is passed in. Nothing of ours is added to a documented
//! object: what OCP has no field for is in [`HostDetail`], [`AgentProcessDetail`], [`Batch`], [`BatchPlan`], [`OrderPreview`],
//! [`User`], [`AccessKey`], [`AuditRecord`] and [`Diagnosis`], which are our own.

mod access_key;
mod agent;
mod audit;
mod batch;
mod detail;
mod diagnosis;
mod host;
mod host_detail;
mod page;
mod preview;
mod process;
mod reference;
mod task;
mod task_list;
mod task_log;
pub(crate) mod time;
mod user;

pub use access_key::{AccessKey, NewAccessKey};
pub use agent::HostAgent;
pub use audit::{AuditFault, AuditRecord, AuditVerification};
pub use batch::{Batch, BatchCounts, BatchHost, BatchHostError, BatchPlan, LeftOutHost, PlannedHost};
pub use detail::{AgentProcessDetail, ExitReport, Leftover, Rung};
pub use diagnosis::{Diagnosis, Finding};
pub use host::{Host, HostService};
pub use host_detail::{HostDetail, HostMaintenance, HostPolicy};
pub use page::{Listed, Page, Paged};
pub use preview::{OrderPreview, PlannedProcess};
pub use process::AgentProcess;
pub use reference::{HostType, Idc, Region};
pub use task::{Context, Creator, StringMap, Subtask, TaskInstance, WrappedSubtask, WrappedTaskInstance};
pub use task_list::{BasicSubtask, BasicTaskInstance};
pub use task_log::SubtaskLog;
pub use user::{Grant, NewToken, Token, User};

/// The name of an enum's value without what every value of that enum begins with.
fn bare(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

/// A text that is empty on the wire where it is not known.
fn known(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
