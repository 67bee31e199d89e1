//! Who has many connections is read in turns.
//!
//! On a connection of HTTP/2 a few bytes begin many requests, each of them a task with memory of its own: with all its
//! connections at once a peer could have hundreds of thousands begin before the first of them is looked at, and everybody
//! else wait behind them. So only some connections of a peer are read at a time, and what they said is worked off before it
//! is the next one's turn.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, task::yield_now};
use tokio_util::sync::PollSemaphore;

use super::seats::Peer;

/// How many connections of one peer are read at a time, where it has more of them. With 256 streams each they begin 1,024
/// requests at the most before others have their turn: that is how long somebody else waits for each thing to be done.
pub(super) const TURNS: usize = 4;

/// Tasks that wait for any thread, up to which they are taken to be worked off.
const WAITING: usize = 64;

/// The turns of one connection.
#[derive(Debug)]
pub(super) struct Turn {
    peer: Arc<Peer>,
    turns: PollSemaphore,
    now: Option<OwnedSemaphorePermit>,
}

impl Turn {
    pub(super) fn new(peer: Arc<Peer>) -> Self {
        let turns = PollSemaphore::new(peer.turns.clone());
        Self { peer, turns, now: None }
    }

    /// Waits until the connection may be read.
    pub(super) fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.now.is_none() && self.peer.is_crowd() {
            self.now = ready!(self.turns.poll_acquire(context));
        }
        Poll::Ready(())
    }

    /// The connection was read, or had nothing to say.
    pub(super) fn end(&mut self, has_said: bool) {
        let Some(now) = self.now.take() else { return };
        if has_said {
            // The requests that begin with it are queued as tasks, some of them where all threads look for work: the next
            // turn begins behind them.
            tokio::spawn(async move {
                yield_now().await;
                while Handle::current().metrics().global_queue_depth() > WAITING {
                    yield_now().await;
                }
                drop(now);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Instant};

    use super::*;
    use crate::listen::{
        Bounds, Speaks,
        seats::{Seat, Seats},
    };

    fn connections(seats: &Seats, count: usize) -> (Vec<Seat>, Vec<Turn>) {
        let (address, now) = ("10.0.0.1".parse().expect("an address"), Instant::now());
        let taken: Vec<Seat> = (0..count).map(|_| seats.take(address, now).expect("a seat")).collect();
        let turns = taken.iter().map(|seat| Turn::new(seat.peer().clone())).collect();
        (taken, turns)
    }

    /// How many of them may be read at once.
    async fn begun(turns: &mut [Turn]) -> usize {
        let mut begun = 0;
        for turn in turns {
            begun += usize::from(poll_fn(|context| Poll::Ready(turn.poll_begin(context).is_ready())).await);
        }
        begun
    }

    /// Hazard L04: what some connections of a peer begin is worked off before the others are read.
    #[tokio::test]
    async fn many_connections_of_one_peer_take_turns() {
        let seats = Seats::new(Bounds::SERVER, Speaks::Http2);
        let (held, mut turns) = connections(&seats, TURNS + 4);
        assert_eq!(begun(&mut turns).await, TURNS);
        let (first, others) = turns.split_at_mut(2);
        first[0].end(true);
        assert_eq!(begun(others).await, TURNS - 2, "what was said is not worked off yet");
        first[1].end(false);
        assert_eq!(begun(others).await, TURNS - 1, "who had nothing to say keeps nobody waiting");
        // The task is behind this one.
        while begun(others).await == TURNS - 1 {
            yield_now().await;
        }
        assert_eq!(begun(others).await, TURNS);
        // Whoever is gone gives its turn back.
        drop(turns);
        let mut again: Vec<Turn> = held.iter().map(|seat| Turn::new(seat.peer().clone())).collect();
        assert_eq!(begun(&mut again).await, TURNS);
    }

    #[tokio::test]
    async fn a_few_connections_are_read_as_they_come() {
        let seats = Seats::new(Bounds::SERVER, Speaks::Http2);
        let (mut held, mut turns) = connections(&seats, TURNS);
        assert_eq!(begun(&mut turns).await, TURNS);
        turns.iter_mut().for_each(|turn| turn.end(true));
        assert_eq!(begun(&mut turns).await, TURNS);
        assert_eq!(held[0].peer().turns.available_permits(), TURNS, "none was taken");
        held.clear();
    }
}
