//! The central server: what people asked for is durable here, what hosts are doing is known here with its age.
//!
//! In reading order:

mod access; // who may do what
mod access_keys; // changes of the keys that requests are signed with
mod agents; // the only way out to a host
mod api; // gRPC in: decode, call, encode
mod app; // what all of these share
mod audit_report; // whether the audit trail of a server that does not run is as it was written
mod batch; // orders to many hosts at once
mod clones; // whether agents with one identity are one or copies
mod config; // settings
mod convert; // wire types to domain types and back
mod create; // the whole workflow of hosts that are added
mod delete; // hosts that leave the fleet
mod diagnose; // whether this installation is as safe as it could be
mod error; // the domain error, and the one table from it to what a caller is told
mod fleet; // what is known of the fleet, in memory
mod flood; // how much one agent may say
#[cfg(fuzzing)]
pub mod fuzzing; // what fuzz targets call
mod grants; // changes of what users may
mod host; // a host: record and states
mod joins; // the service with which parts come to their certificates
mod labels; // what hosts are selected by, and how operators say it
mod load; // how many requests are answered at a time
mod local; // what people ordered on the hosts themselves
mod local_policy; // what agents refuse by their own word
mod maintenance; // hosts that are left out of orders to many
mod open_files; // how many connections there may be
mod order; // an order to one process, whatever its verb
mod process; // a process: record and states
mod profile; // what operators say that a host is
mod read_log; // reading the log of a process
mod reference; // regions, data centres and host types
mod registrar; // takes in agents of which something is to be written down
mod repeat; // the first answer again for an order that is sent again
mod reports; // the streams on which agents report
mod restart; // the whole Restart workflow
mod retention; // forgetting what is too old or too much
mod selector; // which hosts are meant, by their labels
mod server; // opens and runs all of it
mod start; // the whole Start workflow
mod stop; // the whole Stop workflow
mod store; // what must survive a crash
mod task; // what a durable task is, and its runner
mod task_log; // reading and following the log of a step
mod terms; // on which terms an order is given
mod throttle; // how many requests each user may send
mod tokens; // bearer tokens of users
mod trust; // whom parts of the fleet believe, and who is one
mod users; // changes of users
mod watch; // hosts and processes as they change

/// What is logged where nobody says otherwise: libraries only when something is wrong.
pub const LOG_FILTER: &str = "info,sea_orm=warn,sea_orm_migration=warn,sqlx=warn";

pub use access::policy::UncoveredRpc;
pub use audit_report::{AuditReport, verify_audit};
pub use config::{Config, ConfigError, RateLimit, TlsMode, TlsSettings};
pub use diagnose::{Finding, Level, check_private_file, check_private_folder, check_server_files};
pub use error::Error;
pub use server::{Server, run, start};
pub use store::{StoreError, VerifyError};
