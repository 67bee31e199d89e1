//! A few threads for what may block, so that a hundred processes at once do not need a hundred of them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
    time::timeout,
};

/// How much runs side by side: more than a host of two processors has use for.
const SIDE_BY_SIDE: usize = 4;

/// How long a piece of work keeps its place. What takes longer hangs in the kernel, and holds up nobody else.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs what may block, a few at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Lane(Arc<Semaphore>);

impl Default for Lane {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SIDE_BY_SIDE)))
    }
}

impl Lane {
    /// Runs this when there is place for it, and to its end, however long that takes. An error is a panic.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        // It is never closed; without a place it would run all the same.
        let place = self.0.acquire().await;
        let mut task = spawn_blocking(work);
        match timeout(PATIENCE, &mut task).await {
            Ok(done) => done,
            Err(_) => {
                drop(place);
                task.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_few_run_side_by_side() {
        let (lane, running, most) =
            (Lane::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut works = JoinSet::new();
        for _ in 0..50 {
            let (lane, running, most) = (lane.clone(), running.clone(), most.clone());
            works.spawn(async move {
                let work = move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                lane.run(work).await.unwrap();
            });
        }
        works.join_all().await;
        assert!(most.load(Ordering::SeqCst) <= SIDE_BY_SIDE);
    }

    /// Hazard P13: what hangs does not hold up the others.
    #[tokio::test]
    async fn what_hangs_gives_up_its_place() {
        let (lane, begun) = (Lane::default(), Arc::new(AtomicUsize::new(0)));
        let (release, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(Mutex::new(hangs));
        let mut hanging = JoinSet::new();
        for _ in 0..SIDE_BY_SIDE {
            let (lane, begun, hangs) = (lane.clone(), begun.clone(), hangs.clone());
            hanging.spawn(async move {
                let hang = move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    hangs.lock().unwrap().recv().unwrap_err();
                };
                lane.run(hang).await.unwrap();
            });
        }
        while begun.load(Ordering::SeqCst) < SIDE_BY_SIDE {
            tokio::task::yield_now().await;
        }
        lane.run(|| ()).await.unwrap();
        assert_eq!(hanging.len(), SIDE_BY_SIDE);
        drop(release);
        hanging.join_all().await;
    }
}
