//! How byte streams get here: the listener, and any other stream a program has. The connection
//! seam: nothing behind it knows what carries the bytes.

use std::future::poll_fn;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info};

use super::access::Peer;
use super::answer::Answer;
use super::core::Core;
use super::handler::{Caller, Handler};
use super::handshake::Handshakes;
use super::pace::Pace;
use super::peers::{self, Peers};
use super::request::Refusal;
use super::stream::Watched;
use crate::config::Limits;
use crate::limits::{
    ACCEPT_PAUSE, CONNECTION_BUFFER, DRAIN_BYTES, LINGER, OPEN_FILES, SERVER_CONNECTION_AGE,
    SERVER_CONNECTION_GRACE, SHUTDOWN_TIME,
};
use crate::sys::{clock, host};
use crate::wire::Problem;

/// What connections need.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) core: Arc<Core>,
    /// How long a connection may lie idle.
    pub(super) idle: Duration,
    /// Shakes hands on what the listener accepts.
    pub(super) tls: Option<Arc<Handshakes>>,
    /// Becomes true when the server ends.
    pub(super) ending: watch::Receiver<bool>,
}

/// How many connections are taken at once. Whoever only connects must leave descriptors for the
/// files of the others: half of them, or, where that is less, what all requests at once may need.
fn most_connections(limits: &Limits, descriptors: usize) -> usize {
    let for_files = limits
        .requests
        .saturating_mul(2)
        .saturating_add(2 * OPEN_FILES)
        .min(descriptors / 2);
    limits.connections.min(descriptors - for_files).max(1)
}

/// Accepts connections until the server ends, and gives those that are open then time to finish.
pub(super) async fn listen(serving: Serving, listener: TcpListener, limits: Limits) {
    let mut connections = JoinSet::new();
    let most = most_connections(&limits, host::descriptors());
    let of_one = limits
        .connections_per_peer
        .unwrap_or_else(|| peers::share(most));
    let peers = Peers::new(of_one);
    let room = Arc::new(Semaphore::new(most));
    let mut ending = serving.ending.clone();
    let mut complained = false;
    loop {
        let accepted = tokio::select! {
            biased;
            // An error means that the server itself is gone.
            _ = ending.wait_for(|ending| *ending) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                if std::mem::take(&mut complained) {
                    info!("accepting connections again");
                }
                let Some(place) = peers.enter(peer.ip()) else {
                    refuse(&serving, stream, peer);
                    continue;
                };
                let connection = serve_tcp(serving.clone(), stream, peer);
                connections.spawn(async move {
                    connection.await;
                    drop((permit, place));
                });
            }
            Err(failure) => {
                // No descriptors, no memory, a peer that is gone again: whatever it is passes.
                if !std::mem::replace(&mut complained, true) {
                    error!("cannot accept connections, trying on: {failure}");
                }
                serving.core.files.forget_idle();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_TIME, all).await.is_err() {
        connections.shutdown().await;
    }
}

type Permit = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, Permit)> {
    let permit = Arc::clone(room).acquire_owned().await;
    let permit = permit.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// Sends a peer away that has as many connections as it may. No time is spent on it: what does not
/// fit into the socket's buffer is not said.
fn refuse(serving: &Serving, stream: TcpStream, peer: SocketAddr) {
    debug!("{}: has too many connections", peer.ip());
    if serving.tls.is_none()
        && let Ok(mut stream) = stream.into_std()
    {
        // It may be gone.
        let _ = stream.write(TOO_MANY);
    }
}

async fn serve_tcp(mut serving: Serving, stream: TcpStream, peer: SocketAddr) {
    // Answers are small and awaited; failing to say so only makes them slower.
    let _ = stream.set_nodelay(true);
    let address = peer.ip().to_canonical();
    let Some(tls) = serving.tls.clone() else {
        return serve(serving, stream, Peer::Address(address), Some(address)).await;
    };
    let shaken = tokio::select! {
        shaken = tls.shake(stream, address) => shaken,
        _ = serving.ending.wait_for(|ending| *ending) => return,
    };
    match shaken {
        Ok((stream, peer)) => serve(serving, stream, peer, Some(address)).await,
        // The client is told; a reset would take that away from it.
        Err(Some(stream)) => finish(stream, true).await,
        Err(None) => {}
    }
}

/// Serves one connection, on which `peer` speaks from `address`, to its end.
pub(super) async fn serve<S>(mut serving: Serving, stream: S, peer: Peer, address: Option<IpAddr>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let core = Arc::clone(&serving.core);
    core.traffic.connections.fetch_add(1, Ordering::Relaxed);
    let pace = Arc::new(Pace::new(serving.idle));
    let caller = Arc::new(Caller {
        core: Arc::clone(&core),
        peer,
        address,
        pace: Arc::clone(&pace),
        left_body: AtomicBool::new(false),
    });
    let watched = Watched::new(stream, Arc::clone(&pace));
    // `framing` bounds heads. The number of header lines is hyper's own 100 there, too: the parser
    // is slower with any other.
    let mut connection = http1::Builder::new()
        // Who has nothing more to say may still wait for its answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(CONNECTION_BUFFER)
        .serve_connection(TokioIo::new(watched), Handler(Arc::clone(&caller)));
    let mut alarm = pin!(sleep(serving.idle));
    let mut old = pin!(sleep(SERVER_CONNECTION_AGE));
    let (mut is_ending, mut is_old) = (false, false);
    let is_certified = matches!(caller.peer, Peer::Certified(_));
    let result = loop {
        // All that moves the deadline happens while the connection is polled. It is polled to its
        // shutdown, which `Watched` makes a flush: without, hyper drops what there was no room for.
        let polling = poll_fn(|context| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => pace.poll_overdue(alarm.as_mut(), context).map(Ok),
        });
        tokio::select! {
            biased;
            result = polling => break result,
            _ = serving.ending.wait_for(|ending| *ending), if !is_ending => {}
            // Only who had to show a certificate has to show it again.
            () = &mut old, if !is_old || is_certified => {
                if is_old {
                    info!("{}: connection ended in a request: too old", caller.peer);
                    break Ok(());
                }
                is_old = true;
                let latest = old.deadline() + SERVER_CONNECTION_GRACE;
                old.as_mut().reset(latest);
            }
        }
        is_ending = true;
        Pin::new(&mut connection).graceful_shutdown();
    };
    if let Err(failure) = result {
        debug!("{}: connection ended: {failure}", caller.peer);
    }
    let (mut stream, bad) = connection.into_parts().io.into_inner().into_parts();
    let refused = match bad {
        Some(bad) => Some((bad.refusal, bad.to_head)),
        None if pace.is_late() && pace.is_in_head() => Some((late(), false)),
        None => None,
    };
    let left_body = caller.left_body.load(Ordering::Relaxed);
    let is_peer_sending = left_body || refused.is_some();
    if let Some((refusal, to_head)) = refused {
        caller.count(Some(refusal.problem));
        debug!("{}: {}", caller.peer, refusal.detail);
        let answer = Answer::from(refusal).closing();
        let bytes = answer.into_bytes(&core.stamp(), to_head, clock::now());
        // The peer may be gone.
        let _ = timeout(LINGER, stream.write_all(&bytes)).await;
    }
    finish(stream, is_peer_sending).await;
    core.traffic.connections.fetch_sub(1, Ordering::Relaxed);
}

/// The answer to one connection more than a peer may have.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Connections\r\nretry-after: 10\r\n\
    shaftlog-problem: busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Of a head that did not come to its end in time.
fn late() -> Refusal {
    Refusal::usual(Problem::Timeout, "the head did not come to its end in time")
}

/// Closes a connection. When the peer is still sending, its bytes are read away for a while: a
/// reset would destroy the answer before it is read.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, is_peer_sending: bool) {
    let closing = async {
        if stream.shutdown().await.is_err() || !is_peer_sending {
            return;
        }
        let mut buffer = vec![0; 16 * 1024];
        let mut read = 0;
        while read < DRAIN_BYTES {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => read += bytes as u64,
            }
        }
    };
    // The peer's time is up.
    let _ = timeout(LINGER, closing).await;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::duplex;

    use super::*;
    use crate::index::server::ServerIndex;
    use crate::limits::{BODY_RATE, BODY_STALL};
    use crate::server::Server;
    use crate::sys::dir::Dir;
    use crate::types::Identity;

    fn server(home: &Path) -> Server {
        let database = home.join("server.redb");
        ServerIndex::create(&database).unwrap();
        let index = ServerIndex::open(&database, clock::now()).unwrap();
        Server::embedded(index, Dir::open(home).unwrap()).unwrap()
    }

    #[test]
    fn connections_leave_descriptors_for_the_files() {
        let limits = |connections, requests| Limits {
            connections,
            requests,
            connections_per_peer: None,
            file_size: crate::types::Offset::MAX,
        };
        for (limits, descriptors, most) in [
            (limits(10, 8_000), 20_000, 10),
            (limits(16_384, 8_000), 20_000, 10_000),
            (limits(16_384, 1_000), 20_000, 16_384),
            (
                limits(20_000, 1_000),
                20_000,
                20_000 - 2_000 - 2 * OPEN_FILES,
            ),
            (limits(16_384, 1_000), 1_024, 512),
            (limits(16_384, usize::MAX), 1, 1),
        ] {
            assert_eq!(most_connections(&limits, descriptors), most);
        }
    }

    /// Also when the stream has no room for it at once.
    #[tokio::test]
    async fn the_last_answer_is_said_to_its_end() {
        let home = tempfile::tempdir().unwrap();
        let server = server(home.path());
        for (last, statuses) in [
            (
                "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                [200, 200],
            ),
            ("no request\r\n\r\n", [200, 400]),
        ] {
            let (mut stream, theirs) = duplex(64);
            let serving = tokio::spawn(server.serve_stream(theirs, "test".to_owned()));
            let (mut reading, mut writing) = tokio::io::split(&mut stream);
            let requests = format!("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n{last}");
            let mut said = String::new();
            let (written, read) = tokio::join!(
                writing.write_all(requests.as_bytes()),
                reading.read_to_string(&mut said),
            );
            written.and(read).unwrap();
            let heads: Vec<_> = said.split("\r\n\r\n").collect();
            for (head, status) in heads.iter().zip(statuses) {
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
            }
            assert_eq!(heads.len(), 3, "{said}");
            assert!(heads[2].is_empty() || heads[2].ends_with('}'), "{said}");
            serving.await.unwrap();
        }
        server.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_it_is_old_and_not_before() {
        let home = tempfile::tempdir().unwrap();
        let server = server(home.path());
        let (mut stream, theirs) = duplex(64 * 1024);
        let serving = tokio::spawn(server.serve_stream(theirs, "test".to_owned()));
        let begun = tokio::time::Instant::now();
        let mut answer = [0; 4096];
        let last = loop {
            // It may have been closed.
            let _ = stream
                .write_all(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
                .await;
            match stream.read(&mut answer).await {
                Ok(0) | Err(_) => break begun.elapsed(),
                Ok(_) => sleep(Duration::from_secs(60)).await,
            }
        };
        let late = SERVER_CONNECTION_AGE + Duration::from_secs(60);
        assert!((SERVER_CONNECTION_AGE..=late).contains(&last), "{last:?}");
        serving.await.unwrap();
        server.stop().await;
    }

    /// A body that brings just enough would else be taken for days from whoever is shut out by now.
    #[tokio::test(start_paused = true)]
    async fn a_body_outlives_its_certificates_time_by_the_grace_and_no_more() {
        let home = tempfile::tempdir().unwrap();
        let server = server(home.path());
        // Virtual time stands still while a thread waits for the next bytes.
        let seats = u32::try_from(server.core.seats.available_permits()).unwrap();
        let seats = server.core.seats.acquire_many(seats).await;
        seats.unwrap().forget();
        let latest = SERVER_CONNECTION_AGE + SERVER_CONNECTION_GRACE;
        let pause = BODY_STALL / 2;
        let part = vec![b'x'; 2 * BODY_RATE as usize * 15];
        let named = Peer::Certified(Identity::dns("web1").unwrap());
        let anybody = Peer::Address(IpAddr::from([192, 0, 2, 1]));
        for (path, peer, is_cut) in [("one", named, true), ("other", anybody, false)] {
            let (mut stream, theirs) = duplex(64 * 1024);
            let serving = tokio::spawn(serve(server.serving(), theirs, peer, None));
            let head = format!(
                "PUT /{path} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-99999999/100000000\r\n\
                 Content-Length: 100000000\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let begun = tokio::time::Instant::now();
            let mut answer = [0; 4096];
            let cut = loop {
                // It may have been closed.
                let _ = stream.write_all(&part).await;
                match timeout(pause, stream.read(&mut answer)).await {
                    Ok(Ok(0) | Err(_)) => break Some(begun.elapsed()),
                    Ok(Ok(bytes)) => panic!("{}", String::from_utf8_lossy(&answer[..bytes])),
                    Err(_) if begun.elapsed() > latest * 2 => break None,
                    Err(_) => {}
                }
            };
            assert_eq!(cut.is_some(), is_cut, "{cut:?}");
            if let Some(cut) = cut {
                assert!((latest..=latest + pause).contains(&cut), "{cut:?}");
            }
            drop(stream);
            serving.await.unwrap();
            let tail = std::fs::read(home.path().join(path)).unwrap();
            assert!(tail.len() > part.len(), "what came stays");
        }
        server.stop().await;
    }
}
