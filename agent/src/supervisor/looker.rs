//! Looks at living instances, beside the owner: what `/proc` shows of a stuck process may itself get stuck.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
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
pub(super) struct Looker {
    /// Those whose look has not come back: they are not looked at again until it has, or threads would pile up.
    busy: Arc<Mutex<HashSet<(Alias, u64)>>>,
}

impl Looker {
    /// Looks at all of these.
    pub(super) async fn look(&self, living: Vec<Living>) -> Vec<Seen> {
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

async fn look(living: Living, busy: Arc<Mutex<HashSet<(Alias, u64)>>>) -> Option<Seen> {
    let Living { alias, generation, tree } = living;
    let key = (alias.clone(), generation);
    let lock = |busy: &Mutex<HashSet<_>>, change: &mut dyn FnMut(&mut HashSet<(Alias, u64)>) -> bool| {
        change(&mut busy.lock().unwrap_or_else(PoisonError::into_inner))
    };
    if !lock(&busy, &mut |busy| busy.insert(key.clone())) {
        return None;
    }
    let look = tokio::task::spawn_blocking(move || {
        let sight = tree.look();
        lock(&busy, &mut |busy| busy.remove(&key));
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
