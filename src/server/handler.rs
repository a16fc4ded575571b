//! One request: parse, dispatch, feed, answer.
//!
//! The handler does nothing to files itself: HEADs look on a blocking thread, PUTs are tasks of
//! [`append`]. It may be dropped at any await.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response};
use tokio::sync::SemaphorePermit;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::access::Peer;
use super::answer::Answer;
use super::append::{self, End, Fed, Feed};
use super::core::Core;
use super::decide::{self, HeadVerdict, Put};
use super::evidence;
use super::files::{Claim, Occupied, Shown, Work};
use super::pace::Pace;
use super::peers::Place;
use super::recover::{self, Trouble};
use super::reply::{self, Awaited, Event, Reply};
use super::request::{self, Asked, Refusal};
use crate::limits::{BODY_GATHER, BODY_RATE, DRAIN_BYTES, LINGER};
use crate::types::{Offset, WirePath};
use crate::wire::{BadHeader, Problem, Seen};

/// What the requests of one connection share.
pub(super) struct Caller {
    pub(super) core: Arc<Core>,
    /// Who speaks.
    pub(super) peer: Peer,
    /// From where, whoever that is there.
    pub(super) address: Option<IpAddr>,
    /// How long it takes between requests.
    pub(super) pace: Arc<Pace>,
    /// Set when part of a body was left unread.
    pub(super) left_body: AtomicBool,
}

/// The service that hyper calls.
#[derive(Clone)]
pub(super) struct Handler(pub(super) Arc<Caller>);

impl Service<Request<Incoming>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let caller = Arc::clone(&self.0);
        caller.pace.begin();
        Box::pin(async move {
            let response = caller.serve(request).await;
            caller.pace.end();
            Ok(response)
        })
    }
}

impl Caller {
    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, mut body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let awaits_continue = request::awaits_continue(&parts.headers);
        let answer = match self.asked(&parts) {
            Err(refusal) => Answer::from(refusal),
            Ok(asked) => match self.place() {
                Some(_working) => self.work(asked, &mut body, awaits_continue).await,
                // It costs nothing, and tells that the server lives.
                None if asked.path().is_none() => self.work(asked, &mut body, false).await,
                None => Answer::refusal(Problem::Busy, "too many requests are being served"),
            },
        };
        let answer = if self.finish_body(&mut body, awaits_continue).await {
            answer
        } else {
            self.left_body.store(true, Ordering::Relaxed);
            answer.closing()
        };
        self.count(answer.problem());
        if let Some(problem) = answer.problem() {
            debug!("{}: {} {}: {problem}", self.peer, parts.method, parts.uri);
        }
        answer.into_response(&self.core.stamp(), is_head)
    }

    /// A place among the requests that are worked on, if there is one and this peer has not taken its
    /// share: silent bodies hold theirs for a while.
    fn place(&self) -> Option<(Option<Place>, SemaphorePermit<'_>)> {
        let own = match self.address {
            Some(address) => Some(self.core.requesters.enter(address)?),
            None => None,
        };
        Some((own, self.core.requests.try_acquire().ok()?))
    }

    /// Counts a request that was answered.
    pub(super) fn count(&self, problem: Option<Problem>) {
        let traffic = &self.core.traffic;
        traffic.requests.fetch_add(1, Ordering::Relaxed);
        if problem.is_some() {
            traffic.refusals.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn work(&self, asked: Asked, body: &mut Incoming, awaits_continue: bool) -> Answer {
        match asked {
            Asked::Heartbeat(seen) => self.heartbeat(seen).await,
            Asked::Head(path, length) => self.head(&path, length).await,
            Asked::Put(path, put) => self.put(path, put, body, awaits_continue).await,
        }
    }

    /// What is asked for, if it is well-formed and the peer may ask for it.
    fn asked(&self, parts: &Parts) -> Result<Asked, Refusal> {
        let rules = &self.core.rules;
        let asked = request::parse(parts, rules)?;
        match rules.access.judge(&self.peer, asked.path()) {
            Ok(()) => Ok(asked),
            Err(refusal) => {
                let denials = &self.core.denials;
                denials.tell(&self.peer, asked.path(), &refusal.detail);
                Err(refusal)
            }
        }
    }

    async fn heartbeat(&self, seen: Option<Result<Seen, BadHeader>>) -> Answer {
        let number = self.core.index.number();
        let kept = match seen {
            Some(Ok(seen)) => {
                let kept = self.core.index.kept(&seen);
                evidence::compare(&self.core, &self.peer, &seen).await;
                Some(kept)
            }
            // Who knows what it saw?
            Some(Err(_)) => Some(false),
            None => None,
        };
        Answer::heartbeat(kept.map(|kept| (kept, number)))
    }

    async fn head(&self, path: &WirePath, length: Option<Offset>) -> Answer {
        let claim = match self.core.files.claim(path, Work::Looking).await {
            Ok(claim) => claim,
            Err(Occupied::Hashing) => return hashing(),
            Err(Occupied::Receiving(shown)) => return self.head_meanwhile(shown, length),
        };
        let (reply, awaited) = reply::pair(false);
        let core = Arc::clone(&self.core);
        // Ends by itself; when the request is gone, what it found is kept.
        tokio::task::spawn_blocking(move || look(&core, claim, length, reply));
        awaited.finish().await
    }

    /// A PUT is receiving: what was vouched for before it is what is durable.
    fn head_meanwhile(&self, shown: Option<Shown>, length: Option<Offset>) -> Answer {
        let current = shown.filter(|shown| shown.epoch == self.core.commits.epoch());
        let Some(shown) = current else {
            return busy();
        };
        match decide::head(length, &shown.standing, &[]) {
            HeadVerdict::NeedHash(_) => busy(),
            verdict => answer_head(verdict, &shown),
        }
    }

    async fn put(
        &self,
        path: WirePath,
        put: Put,
        body: &mut Incoming,
        awaits_continue: bool,
    ) -> Answer {
        let work = match put {
            Put::Append(append) => Work::Receiving(append.range),
            Put::Confirm(_) => Work::Looking,
        };
        let claim = match self.core.files.claim(&path, work).await {
            Ok(claim) => claim,
            Err(Occupied::Hashing) => return hashing(),
            Err(Occupied::Receiving(shown)) => return busy().about(shown),
        };
        let (reply, awaited) = reply::pair(awaits_continue);
        let mut start = append::Start::new(append::Task {
            core: Arc::clone(&self.core),
            claim,
            put,
            writer: self.peer.to_string(),
            reply,
        });
        let over = if awaits_continue {
            None
        } else {
            self.gather(body, &mut start).await
        };
        match start.go() {
            Some(feed) => {
                let feeding = feed_all(body, over, feed, Patience::new(self.pace.stall()));
                pump(feeding, awaited, awaits_continue).await
            }
            None => awaited.finish().await,
        }
    }

    /// Takes what comes of a body in a moment, up to one write or its end; gives what there is no
    /// room for. Nothing waits for room here: what is gathered holds some until it is written.
    async fn gather(&self, body: &mut Incoming, start: &mut append::Start) -> Option<Bytes> {
        let mut moment = pin!(sleep(BODY_GATHER));
        while start.wants_more() {
            let next = tokio::select! {
                biased;
                frame = body.frame() => Next::of(frame),
                () = &mut moment => return None,
            };
            match next {
                Next::Part(part) => {
                    match Fed::bytes_at_once(part, &self.core.budget) {
                        Ok(part) => start.take(part),
                        Err(part) => return Some(part),
                    }
                    if body.is_end_stream() {
                        start.take(Fed::End(End::Complete));
                    }
                }
                Next::Nothing => {}
                Next::End(end) => start.take(Fed::End(end)),
            }
        }
        None
    }

    /// Reads away what is left of a body, so that the answer survives; `false` if it cannot be.
    async fn finish_body(&self, body: &mut Incoming, awaits_continue: bool) -> bool {
        if body.is_end_stream() {
            return true;
        }
        if awaits_continue || body.size_hint().lower() > DRAIN_BYTES {
            return false;
        }
        let drain = async {
            let mut left = DRAIN_BYTES;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(less) = left.checked_sub(bytes) else {
                    return false;
                };
                left = less;
            }
            true
        };
        timeout(LINGER, drain).await.unwrap_or(false)
    }
}

/// Feeds the task until that has answered.
async fn pump(
    feeding: impl Future<Output = ()>,
    mut awaited: Awaited,
    awaits_continue: bool,
) -> Answer {
    if awaits_continue && let Event::Answer(answer) = awaited.next().await {
        return *answer;
    }
    let mut feeding = pin!(feeding);
    loop {
        tokio::select! {
            biased;
            event = awaited.next() => {
                if let Event::Answer(answer) = event {
                    return *answer;
                }
            }
            () = &mut feeding => return awaited.finish().await,
        }
    }
}

/// Feeds `first` and the rest of the body.
async fn feed_all(body: &mut Incoming, first: Option<Bytes>, feed: Feed, mut patience: Patience) {
    if let Some(part) = first
        && !feed.bytes(part).await
    {
        return;
    }
    loop {
        let next = patience.wait_for(body.frame()).await.map(Next::of);
        match next.unwrap_or(Next::End(End::Stalled)) {
            Next::Part(part) => {
                patience.earn(part.len());
                if !feed.bytes(part).await {
                    return;
                }
            }
            Next::Nothing => {}
            Next::End(end) => return feed.end(end).await,
        }
    }
}

/// What comes next of a body.
enum Next {
    Part(Bytes),
    /// Trailers; there are none without a transfer coding.
    Nothing,
    End(End),
}

impl Next {
    fn of(frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Self {
        match frame {
            None => Self::End(End::Complete),
            Some(Err(_)) => Self::End(End::Broken),
            Some(Ok(frame)) => frame.into_data().map_or(Self::Nothing, Self::Part),
        }
    }
}

/// How long a body is still waited for. Waiting uses it up and bytes win it back: silence ends a
/// body, and so does a byte now and then, which would hold its file for ever.
struct Patience {
    left: Duration,
    most: Duration,
}

impl Patience {
    fn new(most: Duration) -> Self {
        Self { left: most, most }
    }

    /// Waits as long as there is patience left.
    async fn wait_for<T>(&mut self, next: impl Future<Output = T>) -> Result<T, Elapsed> {
        let begun = Instant::now();
        let result = timeout(self.left, next).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        result
    }

    fn earn(&mut self, bytes: usize) {
        let earned = Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / BODY_RATE;
        self.left = self.left.saturating_add(earned).min(self.most);
    }
}

/// A HEAD with the claim in hand; blocks.
fn look(core: &Core, mut claim: Claim, length: Option<Offset>, mut reply: Reply) {
    let answer = find(core, &mut claim, length).unwrap_or_else(|trouble| trouble.to_head());
    reply.decided();
    drop(claim);
    reply.send(answer);
}

fn find(core: &Core, claim: &mut Claim, length: Option<Offset>) -> Result<Answer, Trouble> {
    recover::look(core, claim)?;
    let path = claim.path().clone();
    let state = claim.known()?;
    recover::hash_short_tail(core, state)?;
    loop {
        match decide::head(length, &state.standing(), &state.known()) {
            HeadVerdict::NeedHash(length) if state.is_frozen() => {
                recover::find_as_it_lies(core, &path, state, length)?;
            }
            HeadVerdict::NeedHash(length) => recover::find_hash(core, state, length)?,
            verdict => return Ok(answer_head(verdict, &state.shown())),
        }
    }
}

fn answer_head(verdict: HeadVerdict, shown: &Shown) -> Answer {
    match verdict {
        HeadVerdict::NotFound => Answer::not_found(),
        HeadVerdict::Refuse(problem) => {
            Answer::refusal(problem, "there is no such prefix").about(Some(*shown))
        }
        HeadVerdict::Prefix(prefix) => Answer::content(prefix).about(Some(*shown)),
        HeadVerdict::NeedHash(_) => hashing(),
    }
}

fn busy() -> Answer {
    Answer::refusal(Problem::Busy, "another request is at work on this file")
}

fn hashing() -> Answer {
    Answer::refusal(Problem::Hashing, "the file is being hashed")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::index::server::ServerIndex;
    use crate::limits::BODY_STALL;
    use crate::server::Server;
    use crate::sys::clock;
    use crate::sys::dir::Dir;

    /// What is gathered before an append begins must not wait, with its share in hand, for more:
    /// when many do that, nobody ever writes.
    #[tokio::test]
    async fn a_body_makes_do_with_the_room_that_there_is() {
        let home = tempfile::tempdir().unwrap();
        let database = home.path().join("server.redb");
        ServerIndex::create(&database).unwrap();
        let index = ServerIndex::open(&database, clock::now()).unwrap();
        let server = Server::embedded(index, Dir::open(home.path()).unwrap()).unwrap();
        let budget = Arc::clone(&server.core.budget);
        let most = u32::try_from(budget.available_permits() - 100).unwrap();
        let _others = budget.acquire_many_owned(most).await.unwrap();

        // Parts of 64 bytes: one has room, two have not.
        let (mut stream, theirs) = duplex(64);
        let serving = tokio::spawn(server.serve_stream(theirs, "test".to_owned()));
        let head = "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-299/300\r\n\
            Content-Length: 300\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        let exchange = async {
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&[b'x'; 300]).await.unwrap();
            stream.read_to_string(&mut answer).await.unwrap();
        };
        timeout(BODY_STALL, exchange).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        serving.await.unwrap();
        server.stop().await;
    }

    /// Seconds until a body with so many bytes a second is given up; at most 1000.
    async fn given_up_after(rate: usize) -> u64 {
        let mut patience = Patience::new(BODY_STALL);
        let begun = Instant::now();
        for _ in 0..1000 {
            let second = sleep(Duration::from_secs(1));
            if patience.wait_for(second).await.is_err() {
                break;
            }
            patience.earn(rate);
        }
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_dribble_end_a_body_and_a_slow_line_does_not() {
        assert_eq!(given_up_after(0).await, BODY_STALL.as_secs());
        assert!(given_up_after(1).await <= BODY_STALL.as_secs() + 1);
        assert_eq!(given_up_after(600).await, 1000);
    }
}
