//! What every part of a running server shares.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use belay_proto::{TaskId, planted};
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error};

use crate::{
    access::Verifier,
    agents::Agents,
    batch::Plans,
    config::Config,
    error::{Chain, Error},
    fleet::Fleet,
    flood::Floods,
    registrar::Registrar,
    store::{AuditEntry, Store, carried, is_rehearsal},
    task::{batch::Amount, executor::Runners},
    trust::Trust,
    watch::Watches,
};

/// Changes of tasks that a watcher may fall behind; it then reads the task anew.
const TASK_CHANGES: usize = 256;

/// The server's parts.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Arc<Store>,
    pub(crate) fleet: Fleet,
    pub(crate) registrar: Registrar,
    pub(crate) agents: Agents,
    /// How much each agent may say.
    pub(crate) floods: Floods,
    pub(crate) verifier: Arc<Verifier>,
    /// Where this server listens.
    pub(crate) address: SocketAddr,
    /// The settings with which it was started.
    pub(crate) config: Config,
    /// Who vouches for the parts of the fleet. `None` where plain text is spoken.
    pub(crate) trust: Option<Arc<Trust>>,
    /// The address of this server, as tasks show it.
    pub(crate) executor: String,
    pub(crate) heartbeat: Duration,
    /// A batch of more hosts needs their number said.
    pub(crate) confirm_above: Option<Amount>,
    /// How many access keys one user may have.
    pub(crate) max_access_keys: u32,
    /// What batches would do, for a while.
    pub(crate) plans: Plans,
    /// Who watches what.
    pub(crate) watches: Watches,
    /// Who runs which task here.
    pub(crate) runners: Runners,
    /// Says which task has changed.
    pub(crate) task_changes: broadcast::Sender<TaskId>,
    /// What goes on when its caller has gone away. A shutdown waits for it.
    pub(crate) background: TaskTracker,
    /// Ends streams and loops.
    pub(crate) shutdown: CancellationToken,
}

impl App {
    /// A channel for the changes of tasks.
    pub(crate) fn task_changes() -> broadcast::Sender<TaskId> {
        broadcast::channel(TASK_CHANGES).0
    }

    /// Runs an order to its end, also where its caller goes away in the middle: what is committed must be carried out.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let ended = self.background.spawn(carried(work.in_current_span())).await;
        ended.unwrap_or_else(|panic| Err(Error::Internal(format!("an order ended unexpectedly: {panic}"))))
    }

    /// What an order needs. Where it is refused for want of that, the audit trail says so before its caller hears of it.
    pub(crate) async fn or_refused<T>(
        &self,
        audit: &AuditEntry,
        needed: Result<T, Error>,
    ) -> Result<T, Error> {
        match needed {
            Ok(needed) => Ok(needed),
            Err(why) => Err(self.refused(audit.clone(), why).await),
        }
    }

    /// Writes into the audit trail that an order of someone who may give it was refused, and gives the refusal back.
    pub(crate) async fn refused(&self, audit: AuditEntry, why: Error) -> Error {
        if is_rehearsal() || planted("refusal-not-audited") {
            return why;
        }
        let outcome = belay_proto::Problem::from(&why).reason.as_str().into();
        match self.store.audit(AuditEntry { outcome, ..audit }).await {
            Ok(()) => why,
            Err(error) => {
                error!(error = %Chain(&error), "A refusal could not be written into the audit trail.");
                Error::Store(error)
            }
        }
    }
}
