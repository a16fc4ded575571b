//! How a byte stream to a destination comes about: the connection seam. Whoever gives the stream
//! (the kernel, a server in this process, a simulated network) is all that differs.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::config::Destination;
use crate::tls::{self, Purpose, TlsError};

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes a stream to a server in this process.
pub type StreamFactory = dyn Fn() -> io::Result<Box<dyn Stream>> + Send + Sync;

/// Where the streams of one destination come from.
#[derive(Clone)]
pub enum Connector {
    /// TCP to the URL's host and port, its name being resolved for each connection.
    Tcp,
    /// A server in this process.
    InProcess(Arc<StreamFactory>),
    /// TLS over another's.
    Tls(Arc<tls::Connector>, Box<Self>),
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "Tcp",
            Self::InProcess(_) => "InProcess",
            Self::Tls(..) => "Tls",
        })
    }
}

impl Connector {
    /// The same with TLS over it if the destination's URL says so, for connections to that
    /// destination only. Reads certificates; blocks.
    pub fn secured(&self, destination: &Destination, purpose: Purpose) -> Result<Self, TlsError> {
        let Some(tls) = destination.tls() else {
            return Ok(self.clone());
        };
        let tls = tls::Connector::load(destination.to_string(), tls, purpose)?;
        Ok(Self::Tls(Arc::new(tls), Box::new(self.clone())))
    }

    /// Its certificates, if it has any.
    pub fn certificates(&self) -> Option<Arc<tls::Connector>> {
        match self {
            Self::Tls(tls, _) => Some(Arc::clone(tls)),
            Self::Tcp | Self::InProcess(_) => None,
        }
    }

    /// Opens a stream; unbounded in time.
    pub(super) async fn connect(&self, destination: &Destination) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp => {
                let address = (destination.host(), destination.port());
                let stream = TcpStream::connect(address).await?;
                // A line is to leave at once; pieces are large enough by themselves.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::InProcess(factory) => factory(),
            Self::Tls(tls, below) => {
                let stream = Box::pin(below.connect(destination)).await?;
                // The last attempt may have failed for what has been mended since.
                let looking = Arc::clone(tls);
                let look = move || looking.look_after_failure();
                // A look that panicked leaves what was in force.
                let _ = tokio::task::spawn_blocking(look).await;
                Ok(Box::new(tls.connect(stream).await?))
            }
        }
    }
}

/// Counts what a stream has taken, for whoever has to know whether it still moves.
#[derive(Clone, Default, Debug)]
pub(super) struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Bytes that the stream has taken so far.
    pub(super) fn written(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = result {
            self.0.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

/// A stream with a meter on it.
pub(super) struct Metered {
    stream: Box<dyn Stream>,
    meter: Meter,
}

impl Metered {
    pub(super) fn new(stream: Box<dyn Stream>, meter: Meter) -> TokioIo<Self> {
        TokioIo::new(Self { stream, meter })
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.meter.add(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.meter.add(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::timeout;

    use super::*;
    use crate::config::tls::{CertifiedKey, ClientAuth, DestinationTls, ServerTls};
    use crate::tls::{Acceptor, issue};

    const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

    /// Nobody else looks at the files here.
    #[tokio::test]
    async fn after_a_failed_handshake_the_files_are_looked_at_before_the_next() {
        let home = tempfile::TempDir::new().unwrap();
        let (known, other) = (home.path().join("known"), home.path().join("other"));
        let known = issue::init(&known).unwrap().ca;
        let others = issue::init(&other).unwrap().ca;
        let own = issue::issue(&other, "server", 90).unwrap();
        let own = CertifiedKey {
            cert: own.cert,
            key: own.key,
        };
        let clients = ClientAuth::None;
        let acceptor = Arc::new(Acceptor::load(&ServerTls { own, clients }, Purpose::Use).unwrap());
        let below = Connector::InProcess(Arc::new(move || {
            let (ours, theirs) = duplex(64 * 1024);
            let acceptor = Arc::clone(&acceptor);
            tokio::spawn(async move { acceptor.accept(theirs).await.map(drop).map_err(drop) });
            Ok(Box::new(ours))
        }));
        let settings = DestinationTls {
            ca: Some(known.clone()),
            own: None,
            server_name: "server".try_into().unwrap(),
        };
        let tls = tls::Connector::load("server".to_owned(), &settings, Purpose::Use).unwrap();
        let connector = Connector::Tls(Arc::new(tls), Box::new(below));
        let destination = Destination::parse("https://server/").unwrap();
        assert!(connector.connect(&destination).await.is_err());
        std::fs::rename(others, known).unwrap();
        // The look that comes of a failure comes a second after the last.
        let connected = async { while connector.connect(&destination).await.is_err() {} };
        timeout(DEADLINE, connected).await.unwrap();
    }
}
