//! The channel between the handler, which receives a body, and the task, which writes it. Bounded
//! twice: in parts for each body, in bytes over all bodies of the server.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::BODY_QUEUE;

/// What the handler hands over.
#[derive(Debug)]
pub(in crate::server) enum Fed {
    /// The next part of the body, and its share of the budget.
    Bytes(Bytes, OwnedSemaphorePermit),
    /// There is no more.
    End(End),
}

impl Fed {
    /// A part, when there is room for it; `None` for one that no budget has room for.
    pub(in crate::server) async fn bytes(part: Bytes, budget: &Arc<Semaphore>) -> Option<Self> {
        let share = u32::try_from(part.len()).ok()?;
        let permit = Arc::clone(budget).acquire_many_owned(share).await.ok()?;
        Some(Self::Bytes(part, permit))
    }

    /// The same if there is room at once; else the part.
    pub(in crate::server) fn bytes_at_once(
        part: Bytes,
        budget: &Arc<Semaphore>,
    ) -> Result<Self, Bytes> {
        let permit = u32::try_from(part.len())
            .ok()
            .and_then(|share| Arc::clone(budget).try_acquire_many_owned(share).ok());
        match permit {
            Some(permit) => Ok(Self::Bytes(part, permit)),
            None => Err(part),
        }
    }
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::server) enum End {
    /// All of it came.
    Complete,
    /// Nothing came for too long.
    Stalled,
    /// The connection broke.
    Broken,
}

/// The handler's side. Dropped without an [`End`], the body was broken off.
#[derive(Debug)]
pub(in crate::server) struct Feed {
    parts: mpsc::Sender<Fed>,
    budget: Arc<Semaphore>,
}

/// The task's side.
#[derive(Debug)]
pub(in crate::server) struct Intake(mpsc::Receiver<Fed>);

/// Both sides.
pub(in crate::server) fn channel(budget: &Arc<Semaphore>) -> (Feed, Intake) {
    let (parts, taken) = mpsc::channel(BODY_QUEUE);
    let budget = Arc::clone(budget);
    (Feed { parts, budget }, Intake(taken))
}

impl Feed {
    /// Hands over the next part, when there is room for it. `false`: the task wants no more.
    pub(in crate::server) async fn bytes(&self, part: Bytes) -> bool {
        match Fed::bytes(part, &self.budget).await {
            Some(fed) => self.parts.send(fed).await.is_ok(),
            None => false,
        }
    }

    /// Says how the body ended.
    pub(in crate::server) async fn end(&self, end: End) {
        // A task that wants no more needs not know.
        let _ = self.parts.send(Fed::End(end)).await;
    }
}

impl Intake {
    /// The next part or the end.
    pub(in crate::server) async fn next(&mut self) -> Fed {
        self.0.recv().await.unwrap_or(Fed::End(End::Broken))
    }

    /// The same if it is there already.
    pub(in crate::server) fn try_next(&mut self) -> Option<Fed> {
        match self.0.try_recv() {
            Ok(fed) => Some(fed),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Fed::End(End::Broken)),
        }
    }
}
