//! Orders that go through all that they do to the database but its commit: the dry run of those that are one change of it.
//! What would be refused is refused, and what would stay does not.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::nothing_to_note;

tokio::task_local! {
    /// Whether the order has come to its commit.
    static REHEARSAL: Arc<AtomicBool>;
}

/// Runs an order up to its first commit, which it then hears of as one that failed. Says whether it came so far.
pub(crate) async fn rehearsed<F: Future>(order: F) -> (F::Output, bool) {
    nothing_to_note();
    let reached = Arc::<AtomicBool>::default();
    let output = REHEARSAL.scope(reached.clone(), order).await;
    (output, reached.load(Ordering::Acquire))
}

/// Whether what runs here is only rehearsed.
pub(crate) fn is_rehearsal() -> bool {
    REHEARSAL.try_with(|_| ()).is_ok()
}

/// Says that the order which is rehearsed here has come to its commit. `false` where it is carried out.
pub(super) fn reached() -> bool {
    REHEARSAL.try_with(|reached| reached.store(true, Ordering::Release)).is_ok()
}
