//! How many connections there are: in all, and of each peer.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Bounds;

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
    by_peer: HashMap<IpAddr, usize>,
}

/// A seat, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    taken: Arc<Mutex<Taken>>,
    peer: IpAddr,
}

impl Seats {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, taken: Arc::default() }
    }

    /// A seat for a connection from this address, where there is one left.
    pub(super) fn take(&self, address: IpAddr) -> Option<Seat> {
        let peer = peer(address);
        let most = match peer.is_loopback() {
            true => self.bounds.most_of_local_peer,
            false => self.bounds.most_of_peer,
        };
        let mut taken = lock(&self.taken);
        if taken.all >= self.bounds.most {
            return None;
        }
        let of_peer = taken.by_peer.entry(peer).or_default();
        if *of_peer >= most {
            return None;
        }
        *of_peer += 1;
        taken.all += 1;
        Some(Seat { taken: self.taken.clone(), peer })
    }
}

impl Seat {
    /// Whose it is, as peers are counted.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&self.peer);
            }
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
