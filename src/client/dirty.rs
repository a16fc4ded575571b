//! Which files to look at. Whatever happens (a write, a scan, a timer, a heartbeat) only marks a
//! file here; what is to be done with it, `plan` decides when its turn comes.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::types::FileId;

/// The marks of every destination.
#[derive(Default)]
pub struct Dirty {
    queues: Mutex<Vec<Arc<Queue>>>,
}

impl Dirty {
    /// A further destination's queue, which from now on gets every mark.
    pub fn queue(&self) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        lock(&self.queues).push(Arc::clone(&queue));
        queue
    }

    /// Marks a file at every destination; one that is marked already stays where it waits.
    pub fn mark(&self, id: FileId) {
        for queue in lock(&self.queues).iter() {
            queue.mark(id);
        }
    }
}

/// The marked files of one destination, each once, in the order of their marks.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    order: VecDeque<FileId>,
    members: HashSet<FileId>,
}

impl Queue {
    /// Marks a file at this destination alone.
    pub fn mark(&self, id: FileId) {
        let mut waiting = lock(&self.waiting);
        if waiting.members.insert(id) {
            waiting.order.push_back(id);
            self.filled.notify_one();
        }
    }

    /// The file that has waited longest; its mark is gone.
    pub fn take(&self) -> Option<FileId> {
        let mut waiting = lock(&self.waiting);
        let id = waiting.order.pop_front()?;
        waiting.members.remove(&id);
        Some(id)
    }

    /// Returns when there may be something to [`take`](Self::take).
    pub async fn filled(&self) {
        self.filled.notified().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_kept_once_for_each_destination_in_order() {
        let dirty = Dirty::default();
        let queues = [dirty.queue(), dirty.queue()];
        for id in [2, 1, 2] {
            dirty.mark(FileId(id));
        }
        for queue in queues {
            assert_eq!(queue.take(), Some(FileId(2)));
            queue.mark(FileId(2));
            assert_eq!(queue.take(), Some(FileId(1)));
            assert_eq!(queue.take(), Some(FileId(2)));
            assert_eq!(queue.take(), None);
        }
    }
}
