//! How many connections there are: in all, and of each peer.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Semaphore;

use super::{Bounds, turn::TURNS};

/// The seats of a listener.
#[derive(Debug)]
pub(super) struct Seats {
    bounds: Bounds,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Peers without a seat are not in it.
    by_peer: HashMap<IpAddr, Arc<Peer>>,
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
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, taken: Arc::default() }
    }

    /// A seat for a connection from this address, where there is one left.
    pub(super) fn take(&self, address: IpAddr) -> Option<Seat> {
        let address = peer(address);
        let most = match address.is_loopback() {
            true => self.bounds.most_of_local_peer,
            false => self.bounds.most_of_peer,
        };
        let mut taken = lock(&self.taken);
        if taken.all >= self.bounds.most {
            return None;
        }
        let peer = taken.by_peer.entry(address).or_insert_with(|| Peer::new(address)).clone();
        if peer.seats() >= most {
            return None;
        }
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
        if self.peer.seats.fetch_sub(1, Ordering::Relaxed) == 1 {
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
    use super::*;

    fn seats() -> Seats {
        Seats::new(Bounds { most: 6, most_of_peer: 2, most_of_local_peer: 3, ..Bounds::SERVER })
    }

    fn take(seats: &Seats, address: &str, times: usize) -> Vec<Seat> {
        (0..times).filter_map(|_| seats.take(address.parse().unwrap())).collect()
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
