//! A destination for the tests: the model of the server's table behind real HTTP, on streams in
//! this process, with everything going wrong that a test asks for.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use crate::client::http::Connector;
use crate::client::plan::Answer;
use crate::client::plan::model::Server;
use crate::types::{BootId, CommitNumber, Prefix, PrefixHash, StoreId};
use crate::wire::{Condition, ContentRange, ETag, Problem, ReprDigest, Stamp, header};

/// What the server does and has done.
#[expect(clippy::struct_excessive_bools, reason = "each is a knob of its own")]
pub(super) struct Inner {
    pub(super) files: BTreeMap<String, Server>,
    /// It sends our headers.
    pub(super) verified: bool,
    pub(super) boot: u8,
    pub(super) number: u64,
    pub(super) kept: bool,
    /// No connection is to be had.
    pub(super) dead: bool,
    /// Every connection breaks after so many bytes from the client.
    pub(super) cut_after: Option<usize>,
    /// Answers to the appends to these paths (or to `*`).
    pub(super) refuse: HashMap<String, (u16, Option<Problem>)>,
    /// Appends are answered and thrown away.
    pub(super) forgets: bool,
    /// Method, path and headers of every request but heartbeats.
    pub(super) requests: Vec<Seen>,
    pub(super) heartbeats: usize,
    pub(super) connections: usize,
    pub(super) open: usize,
    pub(super) most_open: usize,
    /// Appends to paths that begin like this are not answered while it is set.
    pub(super) held: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<String>,
}

#[derive(Clone)]
pub(super) struct TestServer(Arc<Mutex<Inner>>);

impl TestServer {
    pub(super) fn new(verified: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            files: BTreeMap::new(),
            verified,
            boot: 1,
            number: 1,
            kept: true,
            dead: false,
            cut_after: None,
            refuse: HashMap::new(),
            forgets: false,
            requests: Vec::new(),
            heartbeats: 0,
            connections: 0,
            open: 0,
            most_open: 0,
            held: None,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is vouched for of a file.
    pub(super) fn content(&self, path: &str) -> Option<Vec<u8>> {
        let inner = self.lock();
        let file = inner.files.get(path)?;
        Some(file.disk[..file.vouched].to_vec())
    }

    pub(super) fn count(&self, method: &Method, path: &str) -> usize {
        let inner = self.lock();
        let matches = |seen: &&Seen| seen.method == *method && seen.path == path;
        inner.requests.iter().filter(matches).count()
    }

    pub(super) fn connector(&self) -> Connector {
        let server = self.clone();
        Connector::InProcess(Arc::new(move || {
            let mut inner = server.lock();
            if inner.dead {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            inner.connections += 1;
            inner.open += 1;
            inner.most_open = inner.most_open.max(inner.open);
            let (ours, theirs) = duplex(64 * 1024);
            let left = inner.cut_after;
            drop(inner);
            let stream = Cut {
                stream: theirs,
                left,
            };
            tokio::spawn(server.clone().serve(stream));
            Ok(Box::new(ours))
        }))
    }

    async fn serve(self, stream: Cut) {
        let boot = self.lock().boot;
        let service = hyper::service::service_fn(|request| {
            let server = self.clone();
            async move {
                // A connection ends with the run of the server to which it led.
                if server.lock().boot != boot {
                    return Err(io::Error::from(io::ErrorKind::ConnectionReset));
                }
                Ok(server.respond(request).await)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        let _ = connection.await;
        self.lock().open -= 1;
    }

    async fn respond(self, request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let path = request.uri().path().to_owned();
        if path.ends_with('/') {
            return self.heartbeat();
        }
        let (parts, body) = request.into_parts();
        let text = |name: &str| {
            parts
                .headers
                .get(name)
                .map(|v| v.to_str().unwrap().to_owned())
        };
        let mut names: Vec<String> = parts.headers.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        self.lock().requests.push(Seen {
            method: parts.method.clone(),
            path: path.clone(),
            headers: names,
        });
        if parts.method == Method::HEAD {
            let length = parts
                .uri
                .query()
                .and_then(|query| query.strip_prefix("length="));
            let mut inner = self.lock();
            let file = inner.files.entry(path.clone()).or_default();
            let answer = match length {
                Some(length) => file.head_prefix(length.parse().unwrap()),
                None => file.head(),
            };
            if answer.status == 404 {
                inner.files.remove(&path);
            }
            return inner.answer(&answer);
        }
        let range: ContentRange = text("content-range").unwrap().parse().unwrap();
        let condition = Condition::parse(
            text("if-match").as_deref(),
            text("if-none-match").as_deref(),
        );
        let condition = condition.unwrap();
        let digest =
            text(header::REPR_DIGEST).map(|digest| digest.parse::<ReprDigest>().unwrap().0);
        let whole = usize::try_from(body.size_hint().exact().unwrap()).unwrap();
        let body = received(body).await;
        while self.lock().held.is_some_and(|held| path.starts_with(held)) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let mut inner = self.lock();
        let refuse = inner.refuse.get(&path).or_else(|| inner.refuse.get("*"));
        if let Some((status, problem)) = refuse.copied() {
            let file = inner.files.get(&path).cloned().unwrap_or_default();
            let mut answer = file.head();
            (answer.status, answer.problem) = (status, problem);
            return inner.answer(&answer);
        }
        inner.number += 1;
        let forgets = inner.forgets;
        let file = inner.files.entry(path).or_default();
        let answer = match range {
            ContentRange::Length(length) => {
                let hash = match condition.unwrap() {
                    Condition::Prefix(hash) => hash,
                    Condition::Nothing => PrefixHash::of_nothing(),
                };
                file.confirm(Prefix { length, hash })
            }
            ContentRange::Bytes { range, total } => {
                let start = usize::try_from(range.start().bytes()).unwrap();
                let total = usize::try_from(total.bytes()).unwrap();
                let before = file.clone();
                let end = digest.unwrap_or_else(|| {
                    let mut all = file.disk[..start.min(file.disk.len())].to_vec();
                    all.extend_from_slice(&body);
                    PrefixHash(*blake3::hash(&all).as_bytes())
                });
                let answer = file.append(start, &body, whole, total, condition, end);
                if forgets {
                    *file = before;
                }
                answer
            }
        };
        inner.answer(&answer)
    }

    fn heartbeat(&self) -> Response<Empty<Bytes>> {
        let mut inner = self.lock();
        inner.heartbeats += 1;
        let mut response = Response::builder().status(200);
        if inner.verified {
            response = response
                .header(header::STORE, inner.stamp().to_string())
                .header(header::KEPT, if inner.kept { "yes" } else { "no" });
        }
        response.body(Empty::new()).unwrap()
    }
}

impl Inner {
    fn stamp(&self) -> Stamp {
        Stamp {
            store: StoreId([1; 16]),
            boot: BootId([self.boot; 16]),
            number: CommitNumber(self.number),
        }
    }

    fn answer(&self, answer: &Answer) -> Response<Empty<Bytes>> {
        let mut response = Response::builder().status(answer.status);
        if let Some(length) = answer.content_length.filter(|_| answer.status == 200) {
            response = response.header("content-length", length.to_string());
        }
        if self.verified {
            response = response.header(header::STORE, self.stamp().to_string());
            if let Some(about) = answer.about {
                response = response.header(header::LENGTH, about.length.to_string());
                if let Some(tail) = about.tail {
                    response = response.header(header::TAIL, tail.to_string());
                }
            }
            if let Some(tag) = answer.tag {
                response = response.header("etag", ETag(tag).to_string());
            }
            if let Some(problem) = answer.problem {
                response = response.header(header::PROBLEM, problem.token());
            }
        }
        response.body(Empty::new()).unwrap()
    }
}

/// What comes of a body, also when it is cut.
async fn received(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    bytes
}

/// A stream that breaks after some bytes were read.
struct Cut {
    stream: DuplexStream,
    left: Option<usize>,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        };
        if left == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = vec![0; left.min(buffer.remaining())];
        let mut part = ReadBuf::new(&mut bytes);
        let result = Pin::new(&mut self.stream).poll_read(context, &mut part);
        let read = part.filled().len();
        buffer.put_slice(part.filled());
        self.left = Some(left - read);
        result
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
