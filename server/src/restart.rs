//! The whole Restart workflow of one process: one order, stop proven before the start.

use std::sync::Arc;

use crate::{
    access::Caller,
    agents::Verb,
    app::App,
    error::Error,
    order::{ProcessOrder, order_process},
    process::Process,
};

/// Restarts one process, and answers when it runs again.
pub(crate) async fn restart(app: &Arc<App>, caller: &Caller, order: ProcessOrder) -> Result<Process, Error> {
    order_process(app, caller, order, "RestartAgentProcess", Verb::Restart).await
}
