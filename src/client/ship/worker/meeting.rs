//! Opening a connection and meeting the destination over it: the heartbeat, what becomes of a
//! failure, and the probing of a destination that was stopped.

use std::sync::Arc;

use hyper::Method;

use super::Worker;
use crate::client::http::{Line, Payload};
use crate::client::plan::{Asked, Heard, Remote, Trust, heard};
use crate::client::ship::exchange::{Connection, NoAnswer, heartbeat};
use crate::client::ship::session::Refused;
use crate::client::ship::shared::{Failure, Fault};
use crate::index::client::Progress;
use crate::limits::HEARTBEAT;
use crate::sys::clock;
use crate::types::{FileId, Offset, StableName};

impl Worker {
    /// Opens the connection if there is none and sends the heartbeat; the gate follows.
    pub(super) async fn meet(&mut self) {
        let stopped = self.shared.state().session.stopped().is_some();
        if stopped {
            self.shared.state().session.forgive();
            self.connection = None;
        }
        let met = match self.connection.take() {
            Some(open) => match self.beat_over(open).await {
                // The other side may close what was idle.
                Err(NoAnswer::Line(_)) => self.connect().await,
                met => met,
            },
            None => self.connect().await,
        };
        match met {
            Ok(()) if stopped => self.probe().await,
            Ok(()) => self.shared.open_gate(),
            Err(error) => self.failed(true, &error).await,
        }
    }

    async fn beat_over(&mut self, mut open: Connection) -> Result<(), NoAnswer> {
        let reply = heartbeat(&self.shared, &mut open.line).await?;
        open.boot = self.shared.met(open.serial, &reply).await?;
        self.beaten(open);
        Ok(())
    }

    /// The heartbeat was answered.
    fn beaten(&mut self, mut open: Connection) {
        let now = clock::monotonic();
        open.trust = self.shared.state().session.trust();
        open.used = now;
        self.connection = Some(open);
        self.beat = Some(now + HEARTBEAT);
    }

    pub(super) async fn connect(&mut self) -> Result<(), NoAnswer> {
        self.connection = None;
        let serial = self.shared.next_connection();
        let mut line = Line::open(&self.shared.connector, &self.shared.target).await?;
        let reply = heartbeat(&self.shared, &mut line).await?;
        let boot = self.shared.met(serial, &reply).await?;
        self.beaten(Connection {
            line,
            serial,
            boot,
            trust: Trust::Unverified,
            used: clock::monotonic(),
            proven: false,
        });
        Ok(())
    }

    /// The connection is of no use, or the destination is not.
    pub(super) async fn failed(&mut self, meeting: bool, error: &NoAnswer) {
        self.connection = None;
        self.beat = None;
        if let NoAnswer::Fault(Fault::Refused(Refused::Stop(reason))) = error {
            self.shared.stop(*reason, None).await;
        } else {
            let failure = Failure {
                why: error.to_string(),
                took: error.took(),
                retry_after: None,
            };
            self.shared.shut_gate(meeting, &failure);
        }
    }

    /// Asks a stopped destination whether it is well again.
    async fn probe(&mut self) {
        match self.is_well().await {
            Ok(true) => {
                self.shared.resume().await;
                self.shared.open_gate();
            }
            Ok(false) => self.shared.stay_stopped(),
            Err(_) => {
                self.connection = None;
                self.shared.stay_stopped();
            }
        }
    }

    /// A verified destination is when one and the same run answers on several connections, an
    /// unverified one when it has what it was given.
    async fn is_well(&mut self) -> Result<bool, NoAnswer> {
        if self.shared.state().session.trust() == Trust::Verified {
            for _ in 0..3 {
                self.connect().await?;
            }
            return Ok(true);
        }
        let Some((id, name, progress)) = self.witness() else {
            return Ok(true);
        };
        let Some(open) = &mut self.connection else {
            return Ok(false);
        };
        let target = self.shared.target.target(&name);
        let reply = open
            .line
            .ask(Method::HEAD, &target, [], Payload::Empty)
            .await?;
        self.shared.state().schedule.ask(id);
        let held = match heard(Trust::Unverified, &Asked::Head, &reply.answer()) {
            Heard::Told(Remote::Holds(holding)) => holding.length,
            _ => return Ok(false),
        };
        Ok(held >= progress.confirmed.length)
    }

    /// The file by which a stopped destination is judged: the one that stopped it, or the newest
    /// of which it should have something.
    fn witness(&self) -> Option<(FileId, StableName, Arc<Progress>)> {
        let catalogue = &self.shared.catalogue;
        let culprit = self.shared.state().culprit;
        let find = |id| {
            let progress = catalogue.progress(self.shared.destination, id)?;
            let name = catalogue.tracked(id)?.name.clone();
            (progress.confirmed.length > Offset::ZERO).then_some((id, name, progress))
        };
        culprit.and_then(find).or_else(|| {
            let mut ids = catalogue.active();
            ids.sort_unstable();
            ids.into_iter().rev().find_map(find)
        })
    }
}
