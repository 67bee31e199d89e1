//! How many connections there are: in all, and of each peer; and how fast a peer may make them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::Semaphore;

use super::{Bounds, Speaks, turn::TURNS};
use crate::Bucket;

/// A connection of HTTP/2 may bring hundreds of requests with its first bytes. Of those that it may have a peer makes this
/// share at once, and this one in each second after that: a site whose hosts all come back at once is through in ten seconds.
const AT_ONCE: f64 = 0.25;
const EACH_SECOND: f64 = 0.1;
/// However few a peer may have, it makes so many at once.
const FEWEST_AT_ONCE: f64 = 16.0;
/// Of so many peers is kept how fast they were before those are dropped that have no connection and were not.
const MANY: usize = 10_000;

/// The seats of a listener.
#[derive(Debug)]
pub(super) struct Seats {
    bounds: Bounds,
    speaks: Speaks,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, Known>,
}

/// A peer that has a seat, or had one not long ago.
#[derive(Debug)]
struct Known {
    peer: Arc<Peer>,
    /// How many more it may have by now.
    new: Bucket,
}

impl Known {
    fn new(address: IpAddr, most: usize, now: Instant) -> Self {
        let (at_once, each_second) = (most as f64 * AT_ONCE, most as f64 * EACH_SECOND);
        let new = Bucket::full((at_once.max(FEWEST_AT_ONCE), each_second.max(1.0)), now);
        Self { peer: Peer::new(address), new }
    }

    fn is_nobody(&self, now: Instant) -> bool {
        self.peer.seats() == 0 && self.new.is_full(now)
    }
}

/// What the connections of one peer have in common.
#[derive(Debug)]
pub(super) struct Peer {
    /// Who it is, as peers are counted.
    pub(super) address: IpAddr,
    /// How many connections it has. Changed under the lock of [`Taken`] only.
    seats: AtomicUsize,
    /// The turns in which it is read where it has more connections than these.
    pub(super) turns: Arc<Semaphore>,
}

impl Peer {
    fn new(address: IpAddr) -> Arc<Self> {
        Arc::new(Self { address, seats: AtomicUsize::new(0), turns: Arc::new(Semaphore::new(TURNS)) })
    }

    fn seats(&self) -> usize {
        self.seats.load(Ordering::Relaxed)
    }

    /// Whether it has so many connections that they are read in turns.
    pub(super) fn is_crowd(&self) -> bool {
        self.seats() > TURNS
    }
}

/// A seat, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    taken: Arc<Mutex<Taken>>,
    peer: Arc<Peer>,
}

impl Seats {
    pub(super) fn new(bounds: Bounds, speaks: Speaks) -> Self {
        Self { bounds, speaks, taken: Arc::default() }
    }

    /// A seat for a connection from this address, where there is one left, and its peer is not too fast.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> Option<Seat> {
        let address = peer(address);
        let most = match address.is_loopback() {
            true => self.bounds.most_of_local_peer,
            false => self.bounds.most_of_peer,
        };
        let mut taken = lock(&self.taken);
        if taken.all >= self.bounds.most {
            return None;
        }
        // Those without a connection, at least: to look at all of them each time would cost a large fleet most.
        if taken.by_peer.len() >= taken.all + MANY {
            taken.by_peer.retain(|_, known| !known.is_nobody(now));
        }
        let known = taken.by_peer.entry(address).or_insert_with(|| Known::new(address, most, now));
        if known.peer.seats() >= most || self.speaks == Speaks::Http2 && !known.new.try_take(1.0, now) {
            return None;
        }
        let peer = known.peer.clone();
        peer.seats.fetch_add(1, Ordering::Relaxed);
        taken.all += 1;
        Some(Seat { taken: self.taken.clone(), peer })
    }
}

impl Seat {
    /// Whose it is.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        self.peer.seats.fetch_sub(1, Ordering::Relaxed);
        let known = taken.by_peer.get(&self.peer.address);
        if known.is_some_and(|known| known.is_nobody(Instant::now())) {
            taken.by_peer.remove(&self.peer.address);
        }
    }
}

/// Who counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that a network is given; the other 64 its
/// hosts choose as they like.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seats() -> Seats {
        let bounds = Bounds { most: 6, most_of_peer: 2, most_of_local_peer: 3, ..Bounds::SERVER };
        Seats::new(bounds, Speaks::Http1)
    }

    fn take(seats: &Seats, address: &str, times: usize) -> Vec<Seat> {
        (0..times).filter_map(|_| seats.take(address.parse().unwrap(), Instant::now())).collect()
    }

    /// Hazard L04: who is cut and comes again at once does so ever more slowly; everybody else does not notice.
    #[test]
    fn a_peer_makes_connections_at_a_bounded_rate() {
        let seats = Seats::new(Bounds { most_of_peer: 1000, ..Bounds::SERVER }, Speaks::Http2);
        let (greedy, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mut now = Instant::now();
        let come = |address, times: usize, now| (0..times).filter_map(|_| seats.take(address, now)).count();
        assert_eq!(come(greedy, 2000, now), 250, "a quarter of what it may have, though none of them lasts");
        assert_eq!(come(other, 1, now), 1);
        now += Duration::from_secs(1);
        assert_eq!(come(greedy, 2000, now), 100);
        now += Duration::from_secs(3600);
        assert_eq!(come(greedy, 2000, now), 250);
        let few = Seats::new(Bounds { most_of_peer: 8, ..Bounds::SERVER }, Speaks::Http2);
        assert_eq!((0..8).filter_map(|_| few.take(greedy, now)).collect::<Vec<_>>().len(), 8);
    }

    /// How fast they were is kept of no more peers than there have to be.
    #[test]
    fn the_memory_of_peers_is_bounded() {
        let seats = Seats::new(Bounds::SERVER, Speaks::Http2);
        let mut now = Instant::now();
        for number in 0..3 * MANY as u32 {
            drop(seats.take(IpAddr::from(number.to_be_bytes()), now));
            now += Duration::from_millis(1);
        }
        assert!(lock(&seats.taken).by_peer.len() <= MANY);
    }

    /// Hazard L04: one peer does not take the seats of the others.
    #[test]
    fn a_peer_has_its_share_and_no_more() {
        let seats = seats();
        let greedy = take(&seats, "10.0.0.1", 10);
        assert_eq!(greedy.len(), 2);
        let same = take(&seats, "::ffff:10.0.0.1", 1);
        assert!(same.is_empty(), "the same address in another writing");
        assert_eq!(take(&seats, "127.0.0.1", 10).len(), 3, "on the host itself there may be a gateway");
        drop(greedy);
        assert_eq!(take(&seats, "10.0.0.1", 10).len(), 2);
        assert!(lock(&seats.taken).by_peer.is_empty(), "nothing is remembered of who is gone");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let seats = seats();
        let one = take(&seats, "2001:db8::1", 1);
        let two = take(&seats, "2001:db8::ffff:2", 2);
        assert_eq!((one.len(), two.len()), (1, 1));
        assert_eq!(take(&seats, "2001:db8:0:1::1", 2).len(), 2, "another network");
    }

    #[test]
    fn there_is_a_bound_in_all() {
        let seats = seats();
        let held: Vec<_> = (0..10).flat_map(|number| take(&seats, &format!("10.0.0.{number}"), 2)).collect();
        assert_eq!(held.len(), 6);
        drop(held);
        assert_eq!(take(&seats, "10.0.0.9", 1).len(), 1);
    }
}
