//! Several files read at the same time.

use std::num::NonZero;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::finding::Finding;

/// Files, or findings, that wait for their turn.
const QUEUE: usize = 256;

/// Has what `feed` gives to its first argument worked on, by a worker from `worker` on each core;
/// what they find, and what `feed` gives to its second argument, goes to `each` in no order. When
/// `each` says false, so do the two, and all comes to an end.
pub fn work<J, E, W>(
    feed: impl FnOnce(&dyn Fn(J) -> bool, &dyn Fn(Finding) -> bool) -> Result<(), E> + Send,
    worker: impl Fn() -> W + Sync,
    mut each: impl FnMut(Finding) -> bool,
) -> Result<(), E>
where
    J: Send,
    E: Send,
    W: FnMut(J) -> Vec<Finding>,
{
    let (jobs, waiting) = sync_channel::<J>(QUEUE);
    let waiting = Arc::new(Mutex::new(waiting));
    let (found, findings) = sync_channel(QUEUE);
    thread::scope(|scope| {
        let feeder = {
            let found = found.clone();
            scope.spawn(move || {
                feed(&|job| jobs.send(job).is_ok(), &|finding| {
                    found.send(finding).is_ok()
                })
            })
        };
        // The workers hold the queue: when they end because nobody wants to hear more, it is gone,
        // and the feeder ends too.
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            let (found, waiting, worker) = (found.clone(), Arc::clone(&waiting), &worker);
            scope.spawn(move || {
                let mut worker = worker();
                loop {
                    let job = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    let Ok(job) = job else { return };
                    if !worker(job).into_iter().all(|one| found.send(one).is_ok()) {
                        return;
                    }
                }
            });
        }
        drop((found, waiting));
        // An iterator that is consumed by value is dropped here, and with it the receiver.
        let _ = findings.into_iter().all(&mut each);
        feeder
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::finding::{Side, Verdict};

    fn finding(name: &str) -> Finding {
        Finding::new(Side::File, name.to_owned(), Verdict::Right)
    }

    fn run(stop_at: usize) -> Vec<String> {
        let mut names = Vec::new();
        let fed: Result<(), ()> = work(
            |job, found| {
                assert!(found(finding("fed")) || stop_at == 0);
                for number in 0..10_000 {
                    if !job(number) {
                        break;
                    }
                }
                Ok(())
            },
            || |number: u32| vec![finding(&number.to_string())],
            |finding| {
                names.push(finding.name);
                names.len() < stop_at
            },
        );
        assert_eq!(fed, Ok(()));
        names.sort();
        names
    }

    #[test]
    fn every_job_is_worked_on_once() {
        let mut expected: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
        expected.push("fed".to_owned());
        expected.sort();
        assert_eq!(run(usize::MAX), expected);
    }

    #[test]
    fn it_ends_when_nobody_wants_more() {
        assert_eq!(run(3).len(), 3);
    }

    #[test]
    fn an_error_of_the_feeder_is_told() {
        let fed = work(
            |_: &dyn Fn(()) -> bool, _: &dyn Fn(Finding) -> bool| Err("damaged"),
            || |()| Vec::new(),
            |_| true,
        );
        assert_eq!(fed, Err("damaged"));
    }
}
