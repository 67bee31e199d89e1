//! Answers that nobody takes.
//!
//! A body is asked for its next piece only when the one before could be sent, so whoever opens no window leaves it alone. It
//! can do nothing about that itself: a sweeper looks after all of them.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body as _;
use tokio::time::{Instant, sleep};
use tonic::{Status, body::Body, codegen::Bytes};
use tracing::info;

use crate::listen::Caller;

/// The pieces of all answers that wait to be taken. Cheap to clone.
#[derive(Clone)]
pub(super) struct Untaken {
    time: Duration,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Since when, and by whom.
    pieces: BTreeMap<u64, (Instant, Caller)>,
    swept: bool,
}

impl fmt::Debug for Untaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Untaken").field("time", &self.time).finish_non_exhaustive()
    }
}

impl Untaken {
    /// Cuts the connection of whoever leaves a piece untaken for so long.
    pub(super) fn new(time: Duration) -> Self {
        Self { time, waiting: Arc::default() }
    }

    /// A piece waits from now on. The number grows with time.
    fn wait(&self, caller: &Caller) -> u64 {
        let mut waiting = lock(&self.waiting);
        let number = waiting.next;
        waiting.next += 1;
        waiting.pieces.insert(number, (Instant::now(), caller.clone()));
        if !waiting.swept {
            waiting.swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.waiting), self.time));
        }
        number
    }

    fn taken(&self, number: u64) {
        lock(&self.waiting).pieces.remove(&number);
    }
}

/// Ends when nothing waits: the next piece begins another sweep.
async fn sweep(waiting: Weak<Mutex<Waiting>>, time: Duration) {
    loop {
        sleep(time / 4).await;
        let Some(waiting) = waiting.upgrade() else { return };
        let mut waiting = lock(&waiting);
        if waiting.pieces.is_empty() {
            waiting.swept = false;
            return;
        }
        // The oldest come first.
        while let Some(first) = waiting.pieces.first_entry()
            && first.get().0.elapsed() >= time
        {
            let (_, caller) = first.remove();
            info!(address = %caller.address(), "Connection is cut: what was asked for on it is not taken.");
            caller.cut();
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body whose pieces have to be taken in time.
pub(super) struct Taken {
    body: Body,
    untaken: Untaken,
    caller: Caller,
    /// The number of the piece that waits; nothing does while the body itself has nothing to tell.
    waits: Option<u64>,
}

impl Taken {
    pub(super) fn new(body: Body, untaken: Untaken, caller: Caller) -> Self {
        // Without a window a body is not even asked for its first piece.
        let waits = (!body.is_end_stream()).then(|| untaken.wait(&caller));
        Self { body, untaken, caller, waits }
    }

    fn taken(&mut self) {
        if let Some(number) = self.waits.take() {
            self.untaken.taken(number);
        }
    }
}

impl http_body::Body for Taken {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        this.taken();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.as_ref().is_some_and(|frame| frame.as_ref().is_ok_and(|frame| frame.is_data())) {
            this.waits = Some(this.untaken.wait(&this.caller));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.taken();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::mpsc;

    use super::*;

    const TIME: Duration = Duration::from_secs(120);

    struct Pieces(mpsc::UnboundedReceiver<()>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            let piece = || Ok(http_body::Frame::data(Bytes::from_static(b"piece")));
            self.0.poll_recv(context).map(|told| told.map(|()| piece()))
        }
    }

    fn answer(caller: &Caller) -> (mpsc::UnboundedSender<()>, Untaken, Taken) {
        let (send, pieces) = mpsc::unbounded_channel();
        let untaken = Untaken::new(TIME);
        let body = Taken::new(Body::new(Pieces(pieces)), untaken.clone(), caller.clone());
        (send, untaken, body)
    }

    async fn take(body: &mut Taken) -> bool {
        poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.is_some()
    }

    /// Hazard L10: who asks and never reads is cut, whether it took nothing or only a part.
    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut() {
        for parts in 0..2 {
            let caller = Caller::of_test([127, 0, 0, 1]);
            let (send, _untaken, mut body) = answer(&caller);
            for _ in 0..parts {
                send.send(()).expect("it listens");
                assert!(take(&mut body).await);
            }
            sleep(TIME - Duration::from_secs(1)).await;
            assert!(!caller.is_cut(), "it has its time");
            sleep(TIME / 2).await;
            assert!(caller.is_cut());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_with_nothing_to_tell_is_nobodys_fault() {
        let caller = Caller::of_test([127, 0, 0, 1]);
        let (send, untaken, mut body) = answer(&caller);
        for _ in 0..3 {
            let waits = tokio::spawn(async move {
                assert!(take(&mut body).await);
                body
            });
            sleep(TIME * 3).await;
            send.send(()).expect("it listens");
            body = waits.await.expect("a piece");
        }
        drop(send);
        assert!(!take(&mut body).await, "it has ended");
        drop(body);
        sleep(TIME * 3).await;
        assert!(!caller.is_cut());
        assert!(lock(&untaken.waiting).pieces.is_empty(), "nothing is remembered of what was taken");
        assert!(!lock(&untaken.waiting).swept, "and nobody sweeps");
    }
}
