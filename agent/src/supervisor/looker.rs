//! Looks at living instances, beside the owner: what `/proc` shows of a stuck process may itself get stuck.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tracing::debug;

use super::{Living, Seen};
use crate::process::Alias;

/// How many instances are looked at side by side.
const SIDE_BY_SIDE: usize = 4;

/// How long one look may take. What takes longer is shown as it was seen before.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at living instances.
#[derive(Debug, Default)]
pub(crate) struct Looker {
    busy: Arc<Busy>,
}

/// Those whose look has not come back: they are not looked at again until it has, or threads would pile up.
#[derive(Debug, Default)]
struct Busy(Mutex<HashSet<(Alias, u64)>>);

impl Looker {
    /// Looks at all of these.
    pub(crate) async fn look(&self, living: Vec<Living>) -> Vec<Seen> {
        let lane = Arc::new(Semaphore::new(SIDE_BY_SIDE));
        let mut looks = JoinSet::new();
        for living in living {
            let (lane, busy) = (lane.clone(), self.busy.clone());
            looks.spawn(async move {
                let _turn = lane.acquire_owned().await;
                look(living, busy).await
            });
        }
        looks.join_all().await.into_iter().flatten().collect()
    }
}

async fn look(living: Living, busy: Arc<Busy>) -> Option<Seen> {
    let Living { alias, generation, tree } = living;
    let key = (alias.clone(), generation);
    if !busy.set().insert(key.clone()) {
        return None;
    }
    let look = tokio::task::spawn_blocking(move || {
        let sight = tree.look();
        busy.set().remove(&key);
        sight
    });
    match timeout(PATIENCE, look).await {
        Ok(sight) => Some(Seen { alias, generation, sight: sight.ok()?? }),
        Err(_) => {
            debug!(%alias, "A process can not be looked at in time.");
            None
        }
    }
}

impl Busy {
    fn set(&self) -> MutexGuard<'_, HashSet<(Alias, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
