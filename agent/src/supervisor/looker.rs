//! Looks at living instances, beside the owner: what `/proc` shows of a stuck process may itself get stuck.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};
use tracing::debug;

use super::{Living, Seen};
use crate::process::Alias;

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

/// Looks that are made one after the other.
#[derive(Default)]
struct Round {
    left: VecDeque<Living>,
    looked: usize,
    seen: Vec<Seen>,
}

impl Looker {
    /// Looks at all of these, on one thread unless that gets stuck.
    pub(crate) async fn look(&self, living: Vec<Living>) -> Vec<Seen> {
        let round = Arc::new(Mutex::new(Round { left: living.into(), ..Round::default() }));
        loop {
            let (beside, busy) = (round.clone(), self.busy.clone());
            let mut looking = spawn_blocking(move || look_at_the_rest(&beside, &busy));
            let mut looked = 0;
            loop {
                let ended = timeout(PATIENCE, &mut looking).await.is_ok();
                let mut round = lock(&round);
                if ended {
                    return mem::take(&mut round.seen);
                }
                if mem::replace(&mut looked, round.looked) == round.looked {
                    debug!("A process can not be looked at in time.");
                    // Another thread goes on with the rest.
                    break;
                }
            }
        }
    }
}

fn look_at_the_rest(round: &Mutex<Round>, busy: &Busy) {
    loop {
        let Some(Living { alias, generation, tree }) = lock(round).left.pop_front() else {
            return;
        };
        let key = (alias.clone(), generation);
        let sight = if lock(&busy.0).insert(key.clone()) {
            let sight = tree.look();
            lock(&busy.0).remove(&key);
            sight
        } else {
            None
        };
        let mut round = lock(round);
        round.looked += 1;
        round.seen.extend(sight.map(|sight| Seen { alias, generation, sight }));
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
