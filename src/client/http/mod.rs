//! One persistent HTTP/1.1 connection to one destination (RFC 9112): a request at a time, answers
//! of bounded size in bounded time, redirects never followed. Knows nothing of files.

mod body;
mod connect;
mod reply;

use std::future::ready;
use std::io;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::Destination;
use crate::limits::{ANSWER_TIME, CONNECT_TIME, CONNECTION_AGE, HEAD_BYTES, HEADER_LINES};
use crate::sys::clock;

pub use body::{Buffers, Payload, Streamed};
pub use connect::{Connector, Stream, StreamFactory};
pub use reply::Reply;

use connect::{Meter, Metered};

/// How often a request under way is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// It took too long to connect.
    #[error("no connection within {} s", CONNECT_TIME.as_secs())]
    ConnectTime,
    /// The connection had been closed already: nothing was sent.
    #[error("the connection was closed")]
    Closed,
    /// The connection ended, or what came is no HTTP.
    #[error("the connection broke: {}", with_cause(.0))]
    Broken(#[from] hyper::Error),
    /// The connection ended, and the request with it.
    #[error("the connection ended")]
    Ended,
    /// Neither did it take bytes nor did it answer.
    #[error("nothing moved for {} s", ANSWER_TIME.as_secs())]
    Stalled,
    /// A request that HTTP cannot carry.
    #[error("not a request: {0}")]
    Request(#[from] hyper::http::Error),
}

/// hyper's words, which do not tell what lies behind them: such as that the server takes no client
/// without a certificate, which in TLS 1.3 only shows here.
fn with_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// A connection. Dropping it closes it, in the middle of a request too.
pub struct Line {
    requests: SendRequest<Payload>,
    host: HeaderValue,
    meter: Meter,
    opened: Instant,
    fit: bool,
    /// Drives the connection; ends with the line.
    driver: JoinSet<()>,
}

impl Line {
    /// Connects.
    pub async fn open(connector: &Connector, destination: &Destination) -> Result<Self, LineError> {
        let host =
            HeaderValue::from_str(&destination.authority()).map_err(hyper::http::Error::from)?;
        let stream = timeout(CONNECT_TIME, connector.connect(destination))
            .await
            .map_err(|_| LineError::ConnectTime)?
            .map_err(LineError::Connect)?;
        let meter = Meter::default();
        let (requests, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADER_LINES)
            .handshake(Metered::new(stream, meter.clone()))
            .await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
        Ok(Self {
            requests,
            host,
            meter,
            opened: clock::monotonic(),
            fit: true,
            driver,
        })
    }

    /// Whether a further request may go over it: it is neither closed nor old.
    pub fn is_fit(&self) -> bool {
        self.fit
            && !self.requests.is_closed()
            && clock::monotonic().duration_since(self.opened) < CONNECTION_AGE
    }

    /// Returns when the other side has closed it, or it broke.
    pub async fn closed(&mut self) {
        self.driver.join_next().await;
        self.fit = false;
    }

    /// Sends a request and reads its answer. After an error the line is not fit any more, and
    /// nobody knows what arrived.
    pub async fn ask(
        &mut self,
        method: Method,
        target: &str,
        headers: impl IntoIterator<Item = (&'static str, String)>,
        payload: Payload,
    ) -> Result<Reply, LineError> {
        let mut request = Request::builder().method(&method).uri(target);
        request = request.header(HOST, &self.host);
        if method == Method::PUT {
            request = request.header(CONTENT_LENGTH, payload.len());
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(payload)?;
        // Right after an answer the connection is not quite ready for the next request.
        let ready = timeout(ANSWER_TIME, self.requests.ready()).await;
        if !matches!(ready, Ok(Ok(()))) {
            self.fit = false;
            return Err(LineError::Closed);
        }
        let fit = std::mem::replace(&mut self.fit, false);
        let (head, body) = self.answer(request).await?.into_parts();
        self.fit = fit && drained(body).await;
        Ok(Reply::new(head))
    }

    /// Waits for the head of the answer as long as the line still takes bytes, and a while longer.
    /// Bytes that come do not prolong it: a server can send interim answers for ever.
    async fn answer(&mut self, request: Request<Payload>) -> Result<Response<Incoming>, LineError> {
        let mut written = self.meter.written();
        let mut moved = clock::monotonic();
        let answer = self.requests.send_request(request);
        tokio::pin!(answer);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer?),
                _ = self.driver.join_next() => {
                    // A request that meets the end of its connection may be forgotten by it: what has
                    // not been answered by now never will be.
                    tokio::select! {
                        biased;
                        answer = &mut answer => return Ok(answer?),
                        () = ready(()) => return Err(LineError::Ended),
                    }
                }
                () = sleep(LOOK) => {}
            }
            let now = clock::monotonic();
            if self.meter.written() != written {
                (written, moved) = (self.meter.written(), now);
            } else if now.duration_since(moved) >= ANSWER_TIME {
                return Err(LineError::Stalled);
            }
        }
    }
}

/// Reads the rest of an answer away, so that the connection can be used again; whether it can.
async fn drained(body: Incoming) -> bool {
    if hyper::body::Body::is_end_stream(&body) {
        return true;
    }
    let body = Limited::new(body, HEAD_BYTES).collect();
    matches!(timeout(ANSWER_TIME, body).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::duplex;

    use super::*;

    /// The other side closes just when the request is on its way.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_that_meets_the_end_of_its_connection_has_an_end_too() {
        let destination = Destination::parse("http://server/").unwrap();
        let connector = Connector::InProcess(Arc::new(|| {
            let (ours, theirs) = duplex(1024);
            std::thread::spawn(move || drop(theirs));
            Ok(Box::new(ours))
        }));
        for _ in 0..2000 {
            let mut line = Line::open(&connector, &destination).await.unwrap();
            let asked = line.ask(Method::HEAD, "/", [], Payload::Empty);
            let answer = timeout(LOOK * 2, asked).await.expect("an end");
            assert!(answer.is_err());
        }
    }
}
