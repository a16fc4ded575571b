//! What one destination is known to be: verified or not, which store, which of its runs, and
//! whether it kept what it acknowledged. Pure; the row that it changes is stored by the caller,
//! before anything else of the same server's answers is used when a sweep begins.

use crate::index::client::{Destination, DestinationState};
use crate::types::{BootId, CommitNumber};
use crate::wire::{Seen, Stamp};

use crate::client::plan::{StopReason, Trust};

/// Runs of a server that are remembered to tell that one came back.
const BOOTS: usize = 64;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Session {
    row: Destination,
    /// Runs that answered before the present one.
    earlier: Vec<BootId>,
    /// Serial number of the connection on which the present run was first heard.
    since: u64,
    /// A heartbeat was answered in this process.
    met: bool,
    /// The sweep under way.
    sweeping: Option<Sweep>,
}

/// A sweep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sweep {
    /// The run of the server at which it began.
    boot: BootId,
    /// The commit at which it began.
    from: CommitNumber,
    /// Whether all files are looked at, or only those that were never verified.
    pub(super) all: bool,
}

/// Why all files of a destination are looked at again. The row is to be durable before the answer
/// that says so is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// It was never met before, or took everything on trust.
    New,
    /// Another store answers than before.
    OtherStore,
    /// It says that it may not have kept all.
    Lost,
    /// An earlier process of ours did not come to the end of it.
    Unfinished,
}

/// Why an answer is not to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A verified destination's answer without `Shaftlog-Store`.
    #[error("its answers lack Shaftlog-Store: it was a shaftlog server before, what answers now?")]
    HeaderLost,
    /// The connection leads to another run than it did, or to one that is over.
    #[error("another run of the server answers than before")]
    OtherBoot,
    /// Two servers answer in turn.
    #[error("{0}")]
    Stop(StopReason),
    /// A verified destination's heartbeat was not answered with 200.
    #[error("its heartbeat was answered with status {0}")]
    Status(u16),
}

impl Session {
    pub(super) fn new(row: Destination) -> Self {
        Self {
            row,
            earlier: Vec::new(),
            since: 0,
            met: false,
            sweeping: None,
        }
    }

    pub(super) fn row(&self) -> &Destination {
        &self.row
    }

    /// Whether a heartbeat was answered in this process.
    pub(super) fn met(&self) -> bool {
        self.met
    }

    pub(super) fn trust(&self) -> Trust {
        if self.row.verified {
            Trust::Verified
        } else {
            Trust::Unverified
        }
    }

    /// What the next heartbeat says was seen; nothing before anything was.
    pub(super) fn seen(&self) -> Option<Seen> {
        Some(Seen {
            boot: self.row.boot?,
            highest: self.row.number,
            swept: self.row.swept,
        })
    }

    /// The answer to a heartbeat, on the connection with this serial number.
    pub(super) fn meet(
        &mut self,
        connection: u64,
        status: u16,
        stamp: Option<Stamp>,
        kept: Option<bool>,
    ) -> Result<Option<Cause>, Refused> {
        let Some(stamp) = stamp else {
            if self.row.verified {
                return Err(Refused::HeaderLost);
            }
            self.met = true;
            return Ok(None);
        };
        if status != 200 {
            return Err(Refused::Status(status));
        }
        let now_verified = !self.row.verified;
        let other_store = self.row.store.is_some_and(|store| store != stamp.store);
        self.enter(connection, stamp.boot)?;
        let known = self.row.store == Some(stamp.store);
        if !known {
            self.row.store = Some(stamp.store);
            self.row.number = CommitNumber(0);
            self.row.swept = CommitNumber(0);
        }
        self.row.verified = true;
        self.heard(stamp);
        self.met = true;
        let begun = self.sweeping.map(|sweep| sweep.boot);
        // What was taken on trust, or by another store, is asked about as well; a sweep that an
        // earlier process of ours began starts anew, as does one that a restart overtook.
        let cause = if other_store {
            Some(Cause::OtherStore)
        } else if !known {
            Some(Cause::New)
        } else if kept == Some(false) && begun != Some(stamp.boot) {
            Some(Cause::Lost)
        } else {
            (self.row.sweep_pending && begun.is_none()).then_some(Cause::Unfinished)
        };
        if cause.is_some() {
            let only_unverified = now_verified && !self.row.sweep_pending;
            self.sweeping = Some(Sweep {
                boot: stamp.boot,
                from: stamp.number,
                all: !only_unverified,
            });
            self.row.sweep_pending = true;
        } else if kept == Some(true) && begun.is_none() {
            self.row.swept = self.row.swept.max(stamp.number);
        }
        Ok(cause)
    }

    /// Which run answers on a connection: the present one, a new one, or one that was gone.
    fn enter(&mut self, connection: u64, boot: BootId) -> Result<(), Refused> {
        if self.row.boot == Some(boot) {
            return Ok(());
        }
        if self.earlier.contains(&boot) {
            return Err(if connection > self.since {
                Refused::Stop(StopReason::TwoServers)
            } else {
                Refused::OtherBoot
            });
        }
        if let Some(old) = self.row.boot.replace(boot) {
            if self.earlier.len() == BOOTS {
                self.earlier.remove(0);
            }
            self.earlier.push(old);
        }
        self.since = connection;
        self.row.number = CommitNumber(0);
        Ok(())
    }

    fn heard(&mut self, stamp: Stamp) {
        self.row.number = self.row.number.max(stamp.number);
    }

    /// Any other answer, on a connection whose heartbeat was answered by `boot`.
    pub(super) fn note(
        &mut self,
        boot: Option<BootId>,
        stamp: Option<Stamp>,
    ) -> Result<(), Refused> {
        match (boot, stamp) {
            (None, None) if !self.row.verified => Ok(()),
            (_, None) => Err(Refused::HeaderLost),
            (Some(boot), Some(stamp)) if stamp.boot == boot && self.row.boot == Some(boot) => {
                self.heard(stamp);
                Ok(())
            }
            _ => Err(Refused::OtherBoot),
        }
    }

    /// Every file was asked about again in this sweep; false when another one has begun meanwhile.
    /// What was found before the commit at which it began is dealt with.
    pub(super) fn swept(&mut self, sweep: Sweep) -> bool {
        if self.sweeping != Some(sweep) {
            return false;
        }
        self.sweeping = None;
        self.row.sweep_pending = false;
        self.row.swept = sweep.from;
        true
    }

    /// The sweep under way.
    pub(super) fn sweeping(&self) -> Option<Sweep> {
        self.sweeping
    }

    /// No PUT from now on.
    pub(super) fn stop(&mut self, reason: &str) {
        self.row.state = DestinationState::Stopped {
            reason: reason.to_owned(),
        };
    }

    /// A stopped destination is asked again: which runs it had counts no more.
    pub(super) fn forgive(&mut self) {
        self.earlier.clear();
    }

    /// It may be served again.
    pub(super) fn resume(&mut self) {
        self.row.state = DestinationState::Active;
    }

    /// Why it is stopped, if it is.
    pub(super) fn stopped(&self) -> Option<&str> {
        match &self.row.state {
            DestinationState::Active => None,
            DestinationState::Stopped { reason } => Some(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FileId, StoreId};

    fn session() -> Session {
        Session::new(Destination {
            url: "http://server/".to_owned(),
            store: None,
            boot: None,
            number: CommitNumber(0),
            swept: CommitNumber(0),
            verified: false,
            state: DestinationState::Active,
            sweep_pending: false,
            since: FileId(1),
        })
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "as an answer's header is, or is not"
    )]
    fn stamp(boot: u8, number: u64) -> Option<Stamp> {
        Some(Stamp {
            store: StoreId([1; 16]),
            boot: BootId([boot; 16]),
            number: CommitNumber(number),
        })
    }

    fn end_sweep(session: &mut Session) {
        let sweep = session.sweeping().unwrap();
        assert!(session.swept(sweep));
    }

    /// A session that met boot 1 at commit 10 and has nothing left to look at.
    fn settled() -> Session {
        let mut session = session();
        session.meet(1, 200, stamp(1, 10), None).unwrap();
        end_sweep(&mut session);
        session
    }

    #[test]
    fn without_our_header_it_is_unverified_and_with_it_for_ever_verified() {
        let mut session = session();
        assert_eq!(session.seen(), None);
        assert_eq!(session.meet(1, 404, None, None), Ok(None));
        assert!(session.met());
        assert_eq!(session.trust(), Trust::Unverified);
        let met = session.meet(2, 200, stamp(1, 10), None).unwrap();
        assert_eq!(met, Some(Cause::New));
        assert!(!session.sweeping().unwrap().all);
        assert_eq!(session.trust(), Trust::Verified);
        assert_eq!(session.meet(3, 200, None, None), Err(Refused::HeaderLost));
        assert_eq!(
            session.note(Some(BootId([1; 16])), None),
            Err(Refused::HeaderLost)
        );
        assert_eq!(session.trust(), Trust::Verified);
        assert_eq!(
            session.meet(4, 503, stamp(1, 11), None),
            Err(Refused::Status(503))
        );
    }

    #[test]
    fn a_restart_that_kept_everything_needs_no_sweep() {
        let mut session = settled();
        assert_eq!(session.row().swept, CommitNumber(10));
        let met = session.meet(2, 200, stamp(2, 12), Some(true)).unwrap();
        assert_eq!(met, None);
        let seen = session.seen().unwrap();
        assert_eq!((seen.boot, seen.highest.0), (BootId([2; 16]), 12));
        assert_eq!(seen.swept.0, 12);
    }

    #[test]
    fn a_loss_is_pending_until_the_sweep_has_ended() {
        let mut session = settled();
        let met = session.meet(2, 200, stamp(2, 12), Some(false)).unwrap();
        assert_eq!(met, Some(Cause::Lost));
        assert!(session.row().sweep_pending);
        // Answers during the sweep neither begin it anew nor move what was swept.
        session.note(Some(BootId([2; 16])), stamp(2, 40)).unwrap();
        for kept in [true, false] {
            let met = session.meet(2, 200, stamp(2, 41), Some(kept)).unwrap();
            assert_eq!(met, None);
        }
        assert_eq!(session.row().swept, CommitNumber(10));
        end_sweep(&mut session);
        assert!(!session.row().sweep_pending);
        // What the server found wrong behind commit 12 is still to be told.
        assert_eq!(session.row().swept, CommitNumber(12));
        let met = session.meet(2, 200, stamp(2, 42), Some(false)).unwrap();
        assert_eq!(met, Some(Cause::Lost));
        assert!(session.sweeping().unwrap().all);
    }

    #[test]
    fn a_sweep_starts_anew_after_a_restart_of_either_side() {
        let mut session = settled();
        session.meet(2, 200, stamp(2, 12), Some(false)).unwrap();
        let mut restarted = Session::new(session.row().clone());
        let met = restarted.meet(1, 200, stamp(2, 13), Some(true)).unwrap();
        assert_eq!(met, Some(Cause::Unfinished));
        // Restored once more, to an earlier commit.
        let overtaken = session.sweeping().unwrap();
        let met = session.meet(3, 200, stamp(3, 5), Some(false)).unwrap();
        assert_eq!(met, Some(Cause::Lost));
        assert!(!session.swept(overtaken));
        end_sweep(&mut session);
        assert_eq!(session.row().swept, CommitNumber(5));
    }

    #[test]
    fn another_store_is_swept_whatever_it_says() {
        let mut session = settled();
        let other = stamp(2, 3).map(|stamp| Stamp {
            store: StoreId([9; 16]),
            ..stamp
        });
        let met = session.meet(2, 200, other, Some(true)).unwrap();
        assert_eq!(met, Some(Cause::OtherStore));
        assert_eq!(session.row().number, CommitNumber(3));
    }

    #[test]
    fn a_boot_that_comes_back_on_a_later_connection_is_a_second_server() {
        let mut session = settled();
        session.meet(2, 200, stamp(2, 12), Some(true)).unwrap();
        // An old connection may still lead to the old run.
        assert_eq!(
            session.meet(1, 200, stamp(1, 11), Some(true)),
            Err(Refused::OtherBoot)
        );
        assert_eq!(
            session.note(Some(BootId([1; 16])), stamp(1, 11)),
            Err(Refused::OtherBoot)
        );
        assert_eq!(
            session.meet(3, 200, stamp(1, 11), Some(true)),
            Err(Refused::Stop(StopReason::TwoServers))
        );
        session.stop("two servers");
        assert_eq!(session.stopped(), Some("two servers"));
        session.forgive();
        assert!(session.meet(4, 200, stamp(1, 11), Some(true)).is_ok());
        session.resume();
        assert_eq!(session.stopped(), None);
    }
}
