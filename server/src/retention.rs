//! Forgetting what is too old or too much, in the background.

use std::{sync::Arc, time::Duration};

use belay_proto::fail_point;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info};

use crate::{
    app::App,
    config::Retention,
    error::Chain,
    store::{Result, Store},
};

/// How often it is looked whether there is something to forget.
const EVERY: Duration = Duration::from_secs(600);
/// How long everyone else has the database between two pieces of work.
const PAUSE: Duration = Duration::from_millis(20);

/// What was forgotten.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) tasks: u64,
    /// What belonged to tasks: steps, lines of logs and so on.
    pub(crate) rows: u64,
    pub(crate) operations: u64,
    pub(crate) audit_records: u64,
}

/// Forgets what is due, now and from time to time, until the server ends. A piece of work that is under way then is undone.
pub(crate) fn begin(app: &Arc<App>, retention: Retention) {
    let (this, shutdown) = (app.clone(), app.shutdown.clone());
    let forget_on = async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match forget(&this.store, &retention, Timestamp::now()).await {
                Ok(forgotten) if forgotten == Forgotten::default() => {}
                Ok(Forgotten { tasks, rows, operations, audit_records }) => {
                    info!(tasks, rows, operations, audit_records, "Old records removed.");
                }
                Err(error) => {
                    error!(error = %Chain(&error), "Old records cannot be removed; trying again later.")
                }
            }
        }
    };
    app.background.spawn(async move { shutdown.run_until_cancelled(forget_on).await });
}

/// Forgets all that is due, piece by piece.
pub(crate) async fn forget(store: &Store, retention: &Retention, now: Timestamp) -> Result<Forgotten> {
    let Retention { tasks, most_tasks, audit, most_audit_records } = *retention;
    let before = |age: Duration| {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        now.checked_sub(age).unwrap_or(Timestamp::MIN)
    };
    let (tasks, audit) = (before(tasks), before(audit));
    let mut forgotten = Forgotten::default();
    loop {
        fail_point(|| "retention.begins");
        let some = Forgotten {
            tasks: store.remove_tasks(tasks, most_tasks).await?,
            rows: store.remove_what_is_left_of_tasks().await?,
            operations: store.remove_operations(tasks).await?,
            audit_records: store.remove_audit_records(audit, most_audit_records).await?,
        };
        fail_point(|| "retention.removed");
        if some == Forgotten::default() {
            return Ok(forgotten);
        }
        forgotten.tasks += some.tasks;
        forgotten.rows += some.rows;
        forgotten.operations += some.operations;
        forgotten.audit_records += some.audit_records;
        sleep(PAUSE).await;
    }
}
