//! The wire contract of Belay: generated code, and the few types that every part shares.

/// The public API: hosts, agents, processes, tasks, users, audit.
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("belay.v1");
}

/// The server's orders to an agent, and what an agent observes.
pub mod agent {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::unwrap_used)]
    pub mod v1 {
        tonic::include_proto!("belay.agent.v1");
    }
}

/// An agent's reports to the server.
pub mod fleet {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::unwrap_used)]
    pub mod v1 {
        tonic::include_proto!("belay.fleet.v1");
    }
}

/// The encoded `google.protobuf.FileDescriptorSet` of the whole contract, comments and options included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Every RPC of the whole contract, as `/package.Service/Method`.
pub const RPCS: &[&str] = include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));

mod bucket;
mod core_dumps;
mod exit;
mod fail_point;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod http2;
mod ids;
mod label;
pub mod listen;
mod passed;
mod planted;
mod private_file;
mod problem;
mod seldom;
pub mod tls;
mod together;
mod trace;

pub use bucket::Bucket;
pub use core_dumps::forbid_core_dumps;
pub use exit::Exit;
pub use fail_point::{fail_io, fail_point};
pub use ids::{HostId, HostTypeId, IdcId, InvalidId, ProcessId, RegionId, SubtaskId, TaskId, UserId};
pub use label::{InvalidLabel, MOST_LABELS, check_label_key, check_label_value, check_labels};
pub use passed::{
    CLIENT_ADDRESS, LONGEST_STRING_TO_SIGN, RATE_LIMIT, SIGNATURE_FAMILY, SIGNATURE_SCHEME, STRING_TO_SIGN,
};
pub use planted::planted;
pub use private_file::{UnsafeFile, open_private, read_private, replace_private};
pub use problem::{CHINESE, Chinese, DOMAIN, Facts, Problem, Reason, field_in_chinese};
pub use seldom::Seldom;
pub use together::{Join, Together, all};
pub use trace::Trace;
