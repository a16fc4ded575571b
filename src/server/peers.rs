//! How many connections, or requests under way, each peer has: whoever takes as many as it can shuts
//! nobody else out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::PEER_RESERVE;

/// What one peer may have of `all`: some are for the others, unless there is but one.
pub(super) fn share(all: usize) -> usize {
    let reserve = (all / PEER_RESERVE).max(1);
    all.saturating_sub(reserve).max(1)
}

/// The open connections of each peer, or its requests under way.
#[derive(Debug)]
pub(super) struct Peers {
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them; it is counted until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    /// Each peer may have `most`.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: Mutex::default(),
        })
    }

    /// A place for one more from `address`, if there is one.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let peer = peer_of(address);
        let mut open = self.open();
        let count = open.entry(peer).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place {
            peers: Arc::clone(self),
            peer,
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open();
        if let Some(count) = open.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// Whose an address is: the smallest IPv6 network that anybody is given is a /64, with more
/// addresses than could be told apart.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_everything_where_there_are_two() {
        for (all, of_one) in [(1, 1), (2, 1), (8, 7), (9, 8), (8_192, 7_168)] {
            assert_eq!(share(all), of_one, "of {all}");
        }
    }

    #[test]
    fn each_peer_has_its_own_places_and_gets_them_back() {
        let peers = Peers::new(2);
        let enter = |address: &str| peers.enter(address.parse().unwrap());
        let one = enter("192.0.2.1");
        let _other = enter("::ffff:192.0.2.1");
        assert!(one.is_some() && enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some());
        drop(one);
        assert!(enter("192.0.2.1").is_some());
        let _held = [enter("2001:db8::1"), enter("2001:db8:0:0:ffff::1")];
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::1").is_some());
        assert_eq!(peers.open().len(), 2, "who has left is forgotten");
    }
}
