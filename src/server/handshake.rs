//! The TLS handshake of a connection: bounded in time, and its failures told without a line for each.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::access::Peer;
use crate::limits::{FAILURES_TOLD, HANDSHAKE_TIME};
use crate::sys::clock;
use crate::tls::{Acceptor, NotAccepted};

/// The handshakes of a server.
pub(super) struct Handshakes {
    acceptor: Arc<Acceptor>,
    failures: Mutex<Failures>,
}

/// Handshakes that failed and were not told of yet.
#[derive(Default)]
struct Failures {
    count: u64,
    told: Option<Instant>,
}

impl Handshakes {
    pub(super) fn new(acceptor: Arc<Acceptor>) -> Self {
        Self {
            acceptor,
            failures: Mutex::default(),
        }
    }

    /// Shakes hands with whoever is at `address`. A failure gives the connection back if the client
    /// was told on it.
    pub(super) async fn shake(
        &self,
        stream: TcpStream,
        address: IpAddr,
    ) -> Result<(TlsStream<TcpStream>, Peer), Option<TcpStream>> {
        let shaken = timeout(HANDSHAKE_TIME, self.try_to(stream, address)).await;
        let (error, stream) = match shaken {
            Ok(Ok(shaken)) => return Ok(shaken),
            Ok(Err((error, stream))) => (error, Some(stream)),
            Err(_) => (io::ErrorKind::TimedOut.into(), None),
        };
        self.tell(address, &error);
        let acceptor = Arc::clone(&self.acceptor);
        // A look that panicked leaves what was in force.
        let _ = tokio::task::spawn_blocking(move || acceptor.look_after_failure()).await;
        Err(stream)
    }

    async fn try_to(
        &self,
        mut stream: TcpStream,
        address: IpAddr,
    ) -> Result<(TlsStream<TcpStream>, Peer), (io::Error, TcpStream)> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            // TLS begins with 22 (RFC 8446 section 5.1), every method of HTTP with a letter.
            Ok(1) if first[0].is_ascii_alphabetic() => {
                // The client may be gone.
                let _ = stream.write_all(PLAIN).await;
                return Err((io::Error::other("the client speaks plain HTTP"), stream));
            }
            Ok(_) => {}
            Err(error) => return Err((error, stream)),
        }
        match self.acceptor.accept(stream).await {
            Ok(accepted) => {
                let peer = match accepted.client {
                    None => Peer::Address(address),
                    Some(Ok(identity)) => Peer::Certified(identity),
                    Some(Err(why)) => Peer::Unidentified(address, why),
                };
                Ok((accepted.stream, peer))
            }
            Err(NotAccepted { error, stream }) => Err((error, stream)),
        }
    }

    /// Says that a handshake failed: the first at once, those that follow together.
    fn tell(&self, address: IpAddr, error: &io::Error) {
        debug!("{address}: TLS handshake failed: {error}");
        if error.kind() == io::ErrorKind::UnexpectedEof {
            // Whoever only looks whether the port is open.
            return;
        }
        let now = clock::monotonic();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        let is_told = |told: Instant| now.duration_since(told) < FAILURES_TOLD;
        if failures.told.is_some_and(is_told) {
            return;
        }
        failures.told = Some(now);
        let count = std::mem::take(&mut failures.count);
        drop(failures);
        warn!("TLS handshakes failed since this was last said: {count}; {address}: {error}");
    }
}

/// The answer to a request that came without TLS.
const PLAIN: &[u8] = b"HTTP/1.1 400 This port speaks TLS: use https\r\n\
    shaftlog-problem: method\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::config::tls::{CertifiedKey, ClientAuth, ServerTls};
    use crate::tls::{Purpose, issue};

    const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

    /// Nobody else looks at the files here.
    #[tokio::test]
    async fn a_failed_handshake_has_the_files_looked_at() {
        let home = tempfile::TempDir::new().unwrap();
        issue::init(home.path()).unwrap();
        let [old, new] = ["old", "new"].map(|name| issue::issue(home.path(), name, 90).unwrap());
        let own = CertifiedKey {
            cert: old.cert.clone(),
            key: old.key.clone(),
        };
        let clients = ClientAuth::None;
        let acceptor = Arc::new(Acceptor::load(&ServerTls { own, clients }, Purpose::Use).unwrap());
        let handshakes = Handshakes::new(Arc::clone(&acceptor));
        std::fs::rename(new.key, old.key).unwrap();
        std::fs::rename(new.cert, old.cert).unwrap();
        assert_eq!(acceptor.terms()[0].subject, "CN=old");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        // The look that comes of a failure comes a second after the last.
        let looked = async {
            while acceptor.terms()[0].subject != "CN=new" {
                let mut stranger = TcpStream::connect(address).await.unwrap();
                stranger.write_all(b"\0nonsense").await.unwrap();
                let (stream, peer) = listener.accept().await.unwrap();
                assert!(handshakes.shake(stream, peer.ip()).await.is_err());
            }
        };
        timeout(DEADLINE, looked).await.unwrap();
    }
}
