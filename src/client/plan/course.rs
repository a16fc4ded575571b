//! One file's way at one destination between two standstills: what was heard, and how often in
//! vain. Kept in memory only; without it the file is asked about again.

use std::time::Duration;

use super::{Asked, Facts, FileError, Heard, Holding, Remote, Trust};
use crate::types::{Offset, Prefix};

/// Requests that bring a file nowhere before it is in error.
const PATIENCE: u32 = 3;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Course {
    /// What is known about the destination's side.
    pub remote: Remote,
    /// What was found out on the way.
    pub facts: Facts,
    /// Requests in a row that brought nothing.
    stalls: u32,
}

/// What an answer asks of the driver, the course being updated already.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum After {
    /// Decide again.
    Again,
    /// Record this as C, then decide again.
    Record(Prefix),
    /// Come back to this file later.
    Wait(Option<Duration>),
    /// Leave the whole destination alone for a while.
    Pause(Option<Duration>, String),
    /// Put the file in error.
    Fail(FileError),
}

impl Course {
    /// The way begins with what is recorded.
    pub fn new(remote: Remote) -> Self {
        Self {
            remote,
            facts: Facts::default(),
            stalls: 0,
        }
    }

    /// An answer never came, or the connection went in the middle: nobody knows what arrived.
    pub fn lost(&mut self, asked: &Asked, trust: Trust) {
        self.remote = Remote::Unasked;
        if let Asked::Append { range, .. } = asked {
            // Its tail is another one now.
            self.facts.refused = None;
            self.facts.sent = (trust == Trust::Unverified).then_some(*range);
        }
    }

    /// C changed to `prefix`: what was found out for the old one is void.
    pub fn moved(&mut self, prefix: Prefix, before: Option<Prefix>) {
        if before.is_none_or(|before| prefix.length > before.length) {
            self.stalls = 0;
        }
        let continued = std::mem::take(&mut self.facts.continued);
        self.facts = Facts {
            continued: continued
                .into_iter()
                .filter(|known| known.length > prefix.length)
                .collect(),
            held: self.facts.held,
            ..Facts::default()
        };
    }

    /// Takes in what an answer said; `confirmed` is C.
    pub fn hear(&mut self, asked: &Asked, heard: Heard, confirmed: Option<Prefix>) -> After {
        match heard {
            Heard::Confirmed(prefix, remote) => {
                self.remote = remote;
                After::Record(prefix)
            }
            Heard::Told(remote @ Remote::Diverged(_)) if matches!(asked, Asked::HeadPrefix(_)) => {
                // It is shorter than that now.
                self.remote = remote;
                self.facts.unlocatable = true;
                After::Again
            }
            Heard::Told(remote) => {
                // What it said of another content's prefixes is void.
                self.facts.theirs.clear();
                self.remote = remote;
                self.facts.held = match remote {
                    Remote::Holds(Holding { length, hash, .. }) => {
                        hash.map(|hash| Prefix { length, hash })
                    }
                    Remote::Diverged(prefix) => Some(prefix),
                    _ => None,
                };
                let base = confirmed.map_or(Offset::ZERO, |prefix| prefix.length);
                match remote {
                    Remote::Holds(holding) if holding.length <= base && self.stalls >= PATIENCE => {
                        self.fail("bytes are accepted and not kept")
                    }
                    _ => After::Again,
                }
            }
            Heard::ToldPrefix(prefix) => {
                self.facts.theirs.push(prefix);
                After::Again
            }
            Heard::NotHeld(prefix) => {
                self.facts.refused = Some(prefix);
                self.remote = Remote::Unasked;
                After::Again
            }
            Heard::Look => {
                self.lost(asked, Trust::Unverified);
                self.stalls += 1;
                After::Again
            }
            Heard::Refused(text) => {
                self.facts.unlocatable |= matches!(asked, Asked::HeadPrefix(_));
                self.remote = Remote::Unasked;
                self.stalls += 1;
                if self.stalls >= PATIENCE {
                    self.fail(&text)
                } else {
                    After::Again
                }
            }
            Heard::Wait(time) => {
                self.remote = Remote::Unasked;
                After::Wait(time)
            }
            Heard::Pause(time, text) => {
                self.remote = Remote::Unasked;
                After::Pause(time, text)
            }
            Heard::Failed(error) => {
                self.remote = Remote::Unasked;
                After::Fail(error)
            }
        }
    }

    fn fail(&mut self, what: &str) -> After {
        self.remote = Remote::Unasked;
        self.stalls = 0;
        After::Fail(FileError::Stuck(what.to_owned()))
    }
}
