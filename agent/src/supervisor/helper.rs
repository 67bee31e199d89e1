//! Programs that are run on behalf of an instance: hooks, and probes.

use std::{sync::Arc, time::Duration};

use crate::{
    error::Chain,
    os::{Instance, Launch, Os},
    process::Exit,
};

/// Runs a helper until it ends or its time is over; then it is killed. An error says why it did not end well.
pub(super) async fn run_helper(
    os: Arc<dyn Os>,
    instance: Instance,
    launch: Launch,
    patience: Duration,
) -> Result<(), String> {
    let command = launch.command.display().to_string();
    let begun = tokio::task::spawn_blocking(move || os.run(&instance, &launch));
    let helper =
        begun.await.map_err(|panic| panic.to_string())?.map_err(|error| Chain(&error).to_string())?;
    match tokio::time::timeout(patience, helper.ended()).await {
        Ok(Exit::Code(0)) => Ok(()),
        Ok(exit) => Err(format!("`{command}` ended: {exit}")),
        Err(_) => {
            helper.kill();
            Err(format!("`{command}` did not end within {patience:?}, and was killed"))
        }
    }
}
