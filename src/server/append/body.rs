//! Taking a body and ending it: in full, cut short, or refused in the middle.

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::super::answer::Answer;
use super::super::decide::{Append, Base};
use super::super::quota::{self, Hold};
use super::super::recover::{self, Trouble};
use super::super::vouch::{self, Vouching};
use super::writer::{Refused, Writer};
use super::{End, Fed, Intake, Task, gather, known_hasher, why};
use crate::index::server::ServerState;
use crate::limits::{BODY_PARK, IO_CHUNK};
use crate::types::Offset;
use crate::wire::Problem;

/// Parts of a body from this size on are written as they come; smaller ones are gathered.
const PART: usize = 64 * 1024;

/// An append whose body is being taken.
pub(super) struct Running {
    task: Task,
    append: Append,
    /// `None`: the body is only compared.
    base: Option<Base>,
    writer: Writer,
    intake: Intake,
    pending: BytesMut,
    permit: Option<OwnedSemaphorePermit>,
    /// Its room in the client's quota.
    hold: Hold,
}

impl Running {
    pub(super) fn new(
        mut task: Task,
        append: Append,
        base: Option<Base>,
        hold: Hold,
        intake: Intake,
    ) -> Option<Self> {
        let state = task.claim.known().ok()?;
        let start = append.range.start();
        let writer = match base {
            None => Writer::comparing(append.range, state),
            Some(base) => {
                let hasher = known_hasher(state, base.prefix.length)?;
                Writer::new(start, base.prefix.length, hasher, state)
            }
        };
        Some(Self {
            task,
            append,
            base,
            writer,
            intake,
            pending: BytesMut::new(),
            permit: None,
            hold,
        })
    }

    /// What comes next, however long it takes.
    pub(super) async fn next(&mut self) -> Vec<Fed> {
        let next = self.intake.next().await;
        gather(&mut self.intake, vec![next]).await
    }

    /// Takes `first` and what follows; something when nothing comes for a while.
    pub(super) fn go_on(mut self: Box<Self>, first: Vec<Fed>) -> Option<Box<Self>> {
        let mut first = first.into_iter();
        loop {
            let fed = first.next().or_else(|| self.wait());
            let taken = match fed {
                Some(Fed::Bytes(part, permit)) => self.take(&part, permit),
                Some(Fed::End(end)) => {
                    match self.flush() {
                        Ok(()) => self.end(end),
                        Err(refused) => self.refuse(refused),
                    }
                    return None;
                }
                None => match self.flush() {
                    Ok(()) => {
                        // Bodies that wait may be many.
                        self.pending = BytesMut::new();
                        self.writer.forget_buffer();
                        return Some(self);
                    }
                    Err(refused) => Err(refused),
                },
            };
            if let Err(refused) = taken {
                self.refuse(refused);
                return None;
            }
        }
    }

    /// The next part if it is there or comes soon. Only some may wait on their threads: those who
    /// send a byte now and then must not hold all that there are.
    fn wait(&mut self) -> Option<Fed> {
        self.intake.try_next().or_else(|| {
            let _seat = self.task.core.seats.try_acquire().ok()?;
            let next = async { timeout(BODY_PARK, self.intake.next()).await.ok() };
            Handle::current().block_on(next)
        })
    }

    fn take(&mut self, part: &Bytes, permit: OwnedSemaphorePermit) -> Result<(), Refused> {
        if self.pending.is_empty() && part.len() >= PART {
            return self.write(part);
        }
        self.pending.extend_from_slice(part);
        match &mut self.permit {
            Some(permits) => permits.merge(permit),
            None => self.permit = Some(permit),
        }
        if self.pending.len() >= IO_CHUNK {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), Refused> {
        let pending = self.pending.split();
        self.write(&pending)?;
        self.permit = None;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let path = self.task.claim.path().clone();
        let state = self.task.claim.known()?;
        self.writer.take(&self.task.core, &path, state, bytes)
    }

    fn end(self, end: End) {
        match end {
            // HTTP has counted them; nothing is vouched for on its word alone.
            End::Complete if self.writer.at() != self.append.range.end() => {
                self.leave_tail(Answer::malformed(
                    Problem::Length,
                    "the body has another length",
                ));
            }
            End::Complete if self.base.is_none() => {
                let shown = self.task.claim.shown();
                self.task.end(Answer::done(false).about(shown));
            }
            End::Complete => self.complete(),
            End::Broken => {
                let words = "the body ended before its Content-Length";
                self.leave_tail(Answer::malformed(Problem::Length, words).closing());
            }
            End::Stalled => {
                self.leave_tail(Answer::refusal(Problem::Timeout, why(Problem::Timeout)));
            }
        }
    }

    /// All of it is there: right, it is vouched for; wrong, its bytes go again.
    fn complete(self) {
        let hash = self.append.digest;
        if hash.is_some_and(|hash| hash != self.writer.hasher().hash()) {
            return self.take_back();
        }
        let Some(base) = self.base else { return };
        let row = self
            .task
            .claim
            .state
            .as_ref()
            .and_then(|state| state.row.as_ref());
        let conditional = self.append.is_conditional();
        let vouching = Vouching {
            size: self.writer.size(),
            adopts: self.writer.adopts(),
            creates: base.creates,
            state: match row {
                Some(row) if !conditional => row.state,
                _ => ServerState::Vouched,
            },
            conditional: conditional || row.is_some_and(|row| row.conditional),
            hasher: self.writer.into_hasher(),
            writer: self.task.writer,
        };
        let Task {
            core, claim, reply, ..
        } = self.task;
        vouch::vouch(&core, claim, vouching, self.hold, reply);
    }

    fn take_back(mut self) {
        let path = self.task.claim.path().clone();
        let taken = match self.task.claim.known() {
            Ok(state) => self.writer.take_back(&self.task.core, &path, state),
            Err(trouble) => Err(trouble),
        };
        match taken {
            Ok(()) => self.leave_tail(Answer::malformed(Problem::Digest, why(Problem::Digest))),
            Err(trouble) => self.give_up(&trouble),
        }
    }

    fn refuse(self, refused: Refused) {
        match refused {
            Refused::Differs => {
                self.leave_tail(Answer::refusal(Problem::Differs, why(Problem::Differs)));
            }
            Refused::Trouble(Trouble::Full) => self.leave_tail(Trouble::Full.to_put()),
            Refused::Trouble(trouble) => self.give_up(&trouble),
        }
    }

    /// Nobody knows what the file holds now: whoever comes next finds out.
    fn give_up(mut self, trouble: &Trouble) {
        self.task.claim.state = None;
        self.task.end(trouble.to_put());
    }

    /// Ends with what was taken as a tail.
    fn leave_tail(mut self, answer: Answer) {
        if self.writer.has_changed_file() {
            match self.look_again() {
                Ok(()) => self.charge_tail(),
                Err(_) => self.task.claim.state = None,
            }
        }
        let shown = self.task.claim.shown();
        self.task.end(answer.about(shown));
    }

    fn charge_tail(&mut self) {
        let Task {
            core,
            claim,
            writer,
            ..
        } = &mut self.task;
        let path = claim.path().clone();
        if let Ok(state) = claim.known() {
            quota::charge_tail(core, &path, state, writer, std::mem::take(&mut self.hold));
        }
    }

    /// The file is as this process left it, or nothing is known of it.
    fn look_again(&mut self) -> Result<(), Trouble> {
        let core = &self.task.core;
        let stat = recover::regular(core, self.task.claim.path())?;
        let hasher = self.writer.hasher().clone();
        let expected = self.writer.size();
        let state = self.task.claim.known()?;
        let ours = state
            .file
            .as_ref()
            .map(|file| crate::sys::file::stat(file))
            .transpose()?;
        let size = stat.map_or(Offset::ZERO, |stat| stat.size);
        if stat.map(|stat| stat.inode) != ours.map(|stat| stat.inode) || size != expected {
            return Err(Trouble::Busy("the file was moved or changed meanwhile"));
        }
        state.seen = stat;
        state.ahead.retain(|kept| kept.length() <= expected);
        state.keep_ahead(hasher);
        Ok(())
    }
}
