//! A file's requests under way: one, or two pieces of a long file. The second goes out on another
//! connection when the first is nearly out, so that the server receives it while it makes the first
//! durable. What it says of the bytes before it is known beforehand, and the server judges it behind
//! the first.
//!
//! The second connection is lent by whoever is free: an [`Errand`] is taken by an idle connection of
//! the destination, or taken back when the own one is free first.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::exchange::{Connection, Exchanged, Lost, Missing};
use super::piece::{Piece, ReadAhead};
use super::visit::Question;
use crate::client::http::Reply;
use crate::client::plan::{Asked, Trust};
use crate::types::StableName;

/// See the module.
#[derive(Default)]
pub(super) struct UnderWay {
    requests: VecDeque<Request>,
    next: Option<Next>,
}

/// A request under way.
struct Request {
    asked: Asked,
    began: Instant,
    /// The one before it had no answer when it was sent.
    early: bool,
    way: Way,
}

enum Way {
    /// Over the own connection.
    Own(Pin<Box<dyn Future<Output = Exchanged> + Send>>),
    /// Over the own connection, and over before it was the oldest.
    Over(Option<Box<Exchanged>>),
    /// Over whichever is free.
    Lent(Lent),
}

/// The piece behind the newest request, being read and hashed meanwhile.
struct Next {
    /// Tells when the newest request is nearly out; `None` once it is.
    nearly_out: Option<oneshot::Receiver<()>>,
    reading: JoinHandle<Option<Piece>>,
}

/// What became of the oldest request.
pub(super) struct Answered {
    pub(super) asked: Asked,
    pub(super) began: Instant,
    pub(super) early: bool,
    pub(super) answer: Result<Reply, Missing>,
    /// The own connection, if it was that one's and is of further use.
    pub(super) open: Option<Connection>,
}

/// What happens first.
pub(super) enum Happened {
    Answered(Box<Answered>),
    /// The next piece is ready, and it is time for it.
    Ready(Option<Box<Piece>>),
}

impl UnderWay {
    /// Takes in a request over the own connection.
    pub(super) fn own(
        &mut self,
        asked: Asked,
        began: Instant,
        exchange: impl Future<Output = Exchanged> + Send + 'static,
    ) {
        self.add(asked, began, Way::Own(Box::pin(exchange)));
    }

    /// Takes in one that somebody else sends.
    pub(super) fn lent(&mut self, asked: Asked, began: Instant, lent: Lent) {
        self.add(asked, began, Way::Lent(lent));
    }

    fn add(&mut self, asked: Asked, began: Instant, way: Way) {
        let early = !self.requests.is_empty();
        self.requests.push_back(Request {
            asked,
            began,
            early,
            way,
        });
    }

    /// Begins to read what follows the newest request, which tells when it is nearly out.
    pub(super) fn read_on(&mut self, reading: ReadAhead, nearly_out: oneshot::Receiver<()>) {
        self.next = Some(Next {
            nearly_out: Some(nearly_out),
            reading: tokio::task::spawn_blocking(move || reading.run()),
        });
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether a further piece could follow.
    pub(super) fn takes_more(&self) -> bool {
        self.requests.len() == 1
    }

    /// Takes the oldest request back if nobody has begun to send it.
    pub(super) fn take_back(&mut self) -> Option<Question> {
        let Way::Lent(lent) = &self.requests.front()?.way else {
            return None;
        };
        let question = lent.question.take()?;
        self.requests.pop_front();
        Some(question)
    }

    /// Waits for the answer to the oldest request, or, if one may `follow`, for the next piece.
    pub(super) async fn happened(&mut self, follow: bool) -> Option<Happened> {
        let follow = follow && self.requests.len() == 1;
        let (oldest, behind) = self.requests.make_contiguous().split_first_mut()?;
        let ready = async {
            match &mut self.next {
                Some(next) if follow => next.ready().await,
                _ => pending().await,
            }
        };
        let (answer, open) = tokio::select! {
            biased;
            exchanged = oldest.way.finish() => (exchanged.answer, exchanged.open),
            // It is on its way meanwhile, too.
            never = go_on(behind.first_mut()) => match never {},
            piece = ready => {
                self.next = None;
                return Some(Happened::Ready(piece.map(Box::new)));
            }
        };
        let oldest = self.requests.pop_front()?;
        Some(Happened::Answered(Box::new(Answered {
            asked: oldest.asked,
            began: oldest.began,
            early: oldest.early,
            answer,
            open,
        })))
    }

    /// What was read ahead, once it is.
    pub(super) async fn read_ahead(mut self) -> Option<Piece> {
        self.next.take()?.reading.await.ok().flatten()
    }
}

/// Sends a request behind the oldest, as far as that is done here.
async fn go_on(request: Option<&mut Request>) -> Infallible {
    if let Some(request) = request
        && let Way::Own(exchange) = &mut request.way
    {
        request.way = Way::Over(Some(Box::new(exchange.await)));
    }
    pending().await
}

impl Way {
    async fn finish(&mut self) -> Exchanged {
        match self {
            Self::Own(exchange) => exchange.await,
            Self::Over(exchanged) => match exchanged.take() {
                Some(exchanged) => *exchanged,
                None => pending().await,
            },
            Self::Lent(lent) => {
                let answer = (&mut lent.answer).await.unwrap_or(Err(Lost::Unsent));
                Exchanged {
                    open: None,
                    answer: answer.map_err(Missing::Lost),
                }
            }
        }
    }
}

impl Next {
    async fn ready(&mut self) -> Option<Piece> {
        if let Some(nearly_out) = &mut self.nearly_out {
            if nearly_out.await.is_err() {
                // It broke before; its answer says how.
                pending::<()>().await;
            }
            self.nearly_out = None;
        }
        (&mut self.reading).await.ok().flatten()
    }
}

/// A piece that any free connection of the destination may send.
pub(super) struct Errand {
    pub(super) trust: Trust,
    pub(super) name: StableName,
    question: Offered,
    answer: oneshot::Sender<Result<Reply, Lost>>,
    _place: Place,
}

/// The other end of an errand.
pub(super) struct Lent {
    question: Offered,
    answer: oneshot::Receiver<Result<Reply, Lost>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Nobody need begin it any more.
        drop(self.question.take());
    }
}

/// A question that the first to come may take.
#[derive(Clone)]
struct Offered(Arc<Mutex<Option<Question>>>);

impl Offered {
    fn take(&self) -> Option<Question> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Errand {
    pub(super) fn new(
        trust: Trust,
        name: StableName,
        question: Question,
        place: Place,
    ) -> (Self, Lent) {
        let question = Offered(Arc::new(Mutex::new(Some(question))));
        let (answer, answered) = oneshot::channel();
        let lent = Lent {
            question: question.clone(),
            answer: answered,
        };
        let errand = Self {
            trust,
            name,
            question,
            answer,
            _place: place,
        };
        (errand, lent)
    }

    /// The question, unless it was taken back.
    pub(super) fn take(&self) -> Option<Question> {
        self.question.take()
    }

    /// Returns when nobody wants the answer any more.
    pub(super) async fn closed(&mut self) {
        self.answer.closed().await;
    }

    pub(super) fn answer(self, answer: Result<Reply, Lost>) {
        // Nobody may want it any more.
        let _ = self.answer.send(answer);
    }
}

/// Errands that are not done.
#[derive(Clone, Default, Debug)]
pub(super) struct Places(Arc<AtomicUsize>);

/// One of them; gone when dropped.
pub(super) struct Place(Places);

impl Places {
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::client::http::Payload;
    use crate::sys::clock;
    use crate::types::Offset;

    /// Puts a request on its way whose answer is lost as soon as anybody sends it.
    fn send(under_way: &mut UnderWay, sent: oneshot::Sender<()>) {
        let exchange = async {
            sent.send(()).unwrap();
            Exchanged {
                open: None,
                answer: Err(Missing::Lost(Lost::Stale)),
            }
        };
        under_way.own(Asked::Head, clock::monotonic(), exchange);
    }

    async fn outcome(under_way: &mut UnderWay) -> Lost {
        match under_way.happened(false).await {
            Some(Happened::Answered(answered)) => match answered.answer {
                Err(Missing::Lost(lost)) => lost,
                _ => panic!("answered"),
            },
            _ => panic!("nothing is under way"),
        }
    }

    #[tokio::test]
    async fn a_request_goes_out_while_the_one_before_it_is_unanswered() {
        let mut under_way = UnderWay::default();
        let question = Question {
            asked: Asked::Head,
            condition: None,
            total: Offset::ZERO,
            payload: Payload::Empty,
        };
        let name = StableName::parse("a").unwrap();
        let place = Places::default().take();
        let (errand, lent) = Errand::new(Trust::Verified, name, question, place);
        under_way.lent(Asked::Head, clock::monotonic(), lent);
        let (sent, mut is_sent) = oneshot::channel();
        send(&mut under_way, sent);

        // The second is out before the first is answered, and its answer is not lost over that.
        tokio::select! {
            biased;
            _ = outcome(&mut under_way) => panic!("the first has no answer"),
            () = ready(()) => {}
        }
        assert_eq!(is_sent.try_recv(), Ok(()));
        errand.answer(Err(Lost::Failed));
        assert!(matches!(outcome(&mut under_way).await, Lost::Failed));
        assert!(matches!(outcome(&mut under_way).await, Lost::Stale));
        assert!(under_way.is_empty());
    }
}
