//! What each step of a task does, by its node.

use belay_proto::{Problem, Reason, fail_point, planted};
use tokio::time::timeout;
use tracing::{Instrument, error};

use super::{Node, context::Context};
use crate::{create, restart, start, stop};

/// Runs one step, for no longer than it may take. Its panic is a failure of it alone (hazard D23).
pub(super) async fn run_step(context: Context) -> (Context, Result<(), Problem>) {
    let limit = context.time_left();
    let mut work = context.clone();
    let node = tokio::spawn(async move { timeout(limit, run_node(&mut work)).await }.in_current_span());
    // Ended with the runner, so that a shutdown leaves nothing behind.
    let _guard = AbortOnDrop(node.abort_handle());
    let result = match node.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Problem::new(
            Reason::TimedOut,
            format!("the step was not done within its timeout of {} s", context.step.timeout.as_secs()),
        )),
        Err(panic) => {
            error!(subtask = %context.step.id, %panic, "A step panicked.");
            Err(Problem::new(
                Reason::Internal,
                "the step failed unexpectedly; the server's log has the cause",
            ))
        }
    };
    (context, result)
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Context {
    /// What this attempt does.
    pub(super) fn node(&self) -> Node {
        if self.attempt.undo { self.step.undo.unwrap_or(self.step.node) } else { self.step.node }
    }
}

/// What each step does.
async fn run_node(context: &mut Context) -> Result<(), Problem> {
    if context.attempt.undo && (context.step.undo.is_none() || planted("undo-skipped")) {
        context.info("there is nothing to undo".into()).await;
        return Ok(());
    }
    let node = context.node();
    fail_point(|| format!("step.{}.runs", node.as_str()));
    match node {
        Node::PrepareStop => stop::prepare_stop(context).await,
        Node::StopAll => stop::send_stop(context).await,
        Node::FinishStop => stop::finish_stop(context).await,
        Node::StartWhatRan => stop::undo_stop(context).await,
        Node::PrepareStart | Node::PrepareRestart => start::prepare_start(context).await,
        Node::StartAll => start::send_start(context).await,
        Node::FinishStart => start::finish_start(context).await,
        Node::StopWhatDidNotRun => start::undo_start(context).await,
        Node::RenewChannel => restart::renew_channel(context).await,
        Node::PreCheckCreate => create::pre_check(context).await,
        Node::FinishCreate => create::finish(context).await,
        // It is drawn only.
        Node::Wait => Ok(()),
        Node::Unknown => {
            Err(Problem::new(Reason::Internal, "this version of the server does not know what the step does")
                .hint("run the version that made the task, then retry; or skip the step"))
        }
    }
}
