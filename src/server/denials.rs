//! Tells of clients that ask for what is not theirs: once for each of them and each directory, not
//! at each of their retries. Whoever makes up directories, or certificates, gets no more lines.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::warn;

use super::access::Peer;
use crate::limits::{DENIALS_TOLD, DENIED_PATHS, DENIED_PEERS};
use crate::sys::clock;
use crate::types::{Shown, WirePath};

/// Whom was told no, and to what.
#[derive(Debug)]
pub(super) struct Denials(Mutex<Told>);

#[derive(Debug)]
struct Told {
    since: Instant,
    paths: HashMap<String, HashSet<Vec<u8>>>,
}

impl Default for Denials {
    fn default() -> Self {
        Self(Mutex::new(Told {
            since: clock::monotonic(),
            paths: HashMap::new(),
        }))
    }
}

impl Denials {
    /// `peer` was refused `path`, or everything when that is `None`.
    pub(super) fn tell(&self, peer: &Peer, path: Option<&WirePath>, why: &str) {
        let directory = path.map_or(&b""[..], |path| first_segment(path.as_bytes()));
        if self.is_news(&peer.to_string(), directory, clock::monotonic()) {
            let asked = match path {
                Some(_) => format!("/{}", Shown(directory)),
                None => "everything".to_owned(),
            };
            warn!("{peer} is refused {asked} (authorize, allow): {why}");
        }
    }

    fn is_news(&self, peer: &str, directory: &[u8], now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(told.since) >= DENIALS_TOLD {
            told.since = now;
            told.paths.clear();
        }
        if !told.paths.contains_key(peer) && told.paths.len() >= DENIED_PEERS {
            return false;
        }
        let paths = told.paths.entry(peer.to_owned()).or_default();
        paths.len() < DENIED_PATHS && paths.insert(directory.to_owned())
    }
}

/// What rules and people tell directories apart by.
fn first_segment(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|byte| *byte == b'/');
    &path[..end.unwrap_or(path.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_in_a_while_and_not_without_end() {
        let denials = Denials::default();
        let now = clock::monotonic();
        assert!(denials.is_news("a", b"x", now));
        assert!(!denials.is_news("a", b"x", now));
        assert!(denials.is_news("a", b"y", now));
        assert!(denials.is_news("b", b"x", now));
        assert!(denials.is_news("a", b"x", now + DENIALS_TOLD));
        let told = |peer: &str| {
            let news = |number: usize| denials.is_news(peer, &number.to_le_bytes(), now);
            (0..DENIED_PATHS * 2).filter(|number| news(*number)).count()
        };
        assert_eq!(told("c"), DENIED_PATHS);
        let peers = (0..DENIED_PEERS * 2).filter(|number| told(&number.to_string()) > 0);
        assert!(peers.count() < DENIED_PEERS);
    }

    #[test]
    fn a_directory_is_the_first_segment() {
        assert_eq!(first_segment(b"host/a/b"), b"host");
        assert_eq!(first_segment(b"log"), b"log");
    }
}
