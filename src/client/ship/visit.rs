//! One turn of one file: the steps that need the disk and the catalogue, on a thread that may
//! block, until a question for the destination is ready or nothing is left to do. What to do,
//! `plan` says.
//!
//! Nothing here has to be undone: bytes are only read, progress is recorded only from a
//! confirmation, and what is lost with a turn is found again by asking.

mod cut;
mod proof;

pub(super) use self::proof::Remembered;

use std::sync::Arc;

use super::cursor::{self, Cursor};
use super::piece::{Ending, Piece, ReadAhead, read_on};
use crate::client::catalogue::{Catalogue, Tracked};
use crate::client::http::{Buffers, Payload};
use crate::client::plan::{
    Asked, Charge, Closed, Course, FileError, Remote, Step, StopReason, Trust, View, next,
};
use crate::client::source::{ReadError, Source};
use crate::index::client::{DestinationId, Progress, ProgressState};
use crate::index::{EventKind, NewEvent};
use crate::limits::PIECE_START;
use crate::sys::clock;
use crate::types::{ByteRange, Offset, Prefix};
use crate::wire::Condition;

/// Steps without a question after which a file is given up for this turn: more than any course of
/// events takes, unless its bytes come and go, or its size is not that of its content.
const ROUNDS: u32 = 64;

/// What a turn needs to know of its destination.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) destination: DestinationId,
    pub(super) called: Arc<str>,
    pub(super) trust: Trust,
    pub(super) buffers: Buffers,
    /// Most bytes of one append.
    pub(super) piece: u64,
    /// This turn may send a piece of a long backlog.
    pub(super) long: bool,
    pub(super) ending: Ending,
}

/// A file under way.
pub(super) struct Visit {
    pub(super) tracked: Arc<Tracked>,
    pub(super) course: Course,
    pub(super) size: Offset,
    source: Source,
    progress: Option<Arc<Progress>>,
    /// The longest that another destination has confirmed.
    elsewhere: Option<Arc<Progress>>,
    /// Prefixes from C on whose cursors are at hand.
    known: Vec<Cursor>,
    /// Cursors of this visit's own reading from the first byte on.
    proof: Vec<Cursor>,
    /// What it was begun for.
    charge: Charge,
    /// What was read ahead.
    ahead: Option<Piece>,
    seam_seen: bool,
    closed_today: bool,
    moved: bool,
    /// What is told of the next row.
    telling: Option<NewEvent>,
    ending: Ending,
}

/// How far the rows are to be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Certainty {
    /// An answer was lost, or something else went wrong: ask.
    Unsure,
    /// They were not contradicted.
    Recorded,
    /// An unverified destination was asked in this run, and all went well since.
    Asked,
}

/// A question for the destination.
pub(super) struct Question {
    pub(super) asked: Asked,
    pub(super) condition: Option<Condition>,
    /// The local file's size, for a PUT of bytes.
    pub(super) total: Offset,
    pub(super) payload: Payload,
}

/// What a turn comes to.
pub(super) enum Turn {
    Ask(Box<Question>),
    /// Nothing is left to do.
    Done,
    /// Its backlog is for another queue.
    Long,
    /// It is active no more: its generation was closed, on this destination's word if so.
    Gone(Option<Closed>),
    Fail(FileError),
    Stop(StopReason),
    /// Broken off, because the process ends.
    Ending,
}

impl Visit {
    /// Begins a turn; `None` when the file is no longer active.
    pub(super) fn begin(
        setting: &Setting,
        tracked: Arc<Tracked>,
        certainty: Certainty,
        cached: Option<Cursor>,
        closed_today: bool,
    ) -> Result<Option<Self>, FileError> {
        let catalogue = &setting.catalogue;
        let id = tracked.id;
        let source = match catalogue.open(id) {
            Ok(source) => source,
            // Closed by another destination's turn since.
            Err(_) if catalogue.tracked(id).is_none() => return Ok(None),
            Err(error) => return Err(FileError::Unreadable(error.to_string())),
        };
        let progress = catalogue.progress(setting.destination, id);
        let state = progress.as_ref().map(|progress| &progress.state);
        let retired = is_retired(progress.as_deref());
        // An earlier process found it so: what is recorded was contradicted.
        let in_error = matches!(
            state,
            Some(ProgressState::Conflict | ProgressState::Error { .. })
        );
        let confirmed = confirmed(progress.as_deref());
        let fresh = catalogue.fresh(setting.destination, id);
        let remote = match certainty {
            Certainty::Unsure => Remote::Unasked,
            _ if catalogue.is_doubted(id) => Remote::Unasked,
            _ if in_error => Remote::Unasked,
            _ if retired => Remote::Recorded,
            Certainty::Asked => Remote::Agreed,
            Certainty::Recorded => Remote::at_first(setting.trust, confirmed, fresh),
        };
        Ok(Some(Self {
            tracked,
            course: Course::new(remote),
            size: Offset::ZERO,
            source,
            progress,
            elsewhere: None,
            known: cached.into_iter().collect(),
            proof: Vec::new(),
            charge: Charge::default(),
            ahead: None,
            seam_seen: false,
            closed_today,
            moved: false,
            telling: None,
            ending: setting.ending.clone(),
        }))
    }

    /// C.
    pub(super) fn confirmed(&self) -> Option<Prefix> {
        confirmed(self.progress.as_deref())
    }

    /// Whether C was recorded anew since this was last asked.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Bytes that wait.
    pub(super) fn behind(&self) -> u64 {
        let base = self
            .confirmed()
            .map_or(Offset::ZERO, |prefix| prefix.length);
        self.size.since(base)
    }

    /// The cursor at C, for the next turn.
    pub(super) fn into_cursor(self) -> Option<Cursor> {
        let base = self.confirmed()?.length;
        self.known
            .into_iter()
            .find(|cursor| cursor.length() == base)
    }

    /// Goes on until the destination has to be asked.
    pub(super) fn advance(&mut self, setting: &Setting) -> Turn {
        match self.try_advance(setting) {
            Ok(turn) => turn,
            Err(_) if self.ending.has_begun() => Turn::Ending,
            Err(error) => Turn::Fail(FileError::Unreadable(error.to_string())),
        }
    }

    fn try_advance(&mut self, setting: &Setting) -> Result<Turn, ReadError> {
        let id = self.tracked.id;
        for _ in 0..ROUNDS {
            if setting.catalogue.tracked(id).is_none() {
                return Ok(Turn::Gone(None));
            }
            self.size = self.source.size()?;
            self.elsewhere = setting
                .catalogue
                .largest_confirmed(id)
                .filter(|(destination, _)| *destination != setting.destination)
                .map(|(_, progress)| progress);
            self.note_cut(setting);
            if !setting.long && self.behind() > PIECE_START {
                return Ok(Turn::Long);
            }
            let turn = match self.decide(setting) {
                Step::Idle if !self.seam_seen => self.look_at_seam()?,
                Step::Idle => Some(self.settle(setting)),
                Step::Head => Some(ask(Asked::Head)),
                Step::HeadPrefix(length) => Some(ask(Asked::HeadPrefix(length))),
                Step::Confirm(prefix) => Some(self.confirm(prefix)),
                Step::Prove(lengths) => self.prove(&lengths)?,
                Step::Hash(to) => self.hash(to)?,
                Step::Adopt(prefix) => self.adopt(setting, prefix)?,
                Step::Restore(prefix) => self.restore(setting, prefix)?,
                Step::Append {
                    base,
                    range,
                    condition,
                } => self.append(setting, base, range, condition)?,
                Step::Supersede(why) => Some(self.supersede(setting, why)),
                Step::Fail(error) => Some(Turn::Fail(error)),
                Step::Stop(reason) => Some(Turn::Stop(reason)),
            };
            if let Some(turn) = turn {
                return Ok(turn);
            }
        }
        let why = "it changes whenever it is read, or ends before its size";
        Ok(Turn::Fail(FileError::Unreadable(why.to_owned())))
    }

    fn decide(&self, setting: &Setting) -> Step {
        next(&View {
            trust: setting.trust,
            size: self.size,
            confirmed: self.confirmed(),
            elsewhere: confirmed(self.elsewhere.as_deref()),
            remote: self.course.remote,
            facts: &self.course.facts,
            had: setting.catalogue.length(self.tracked.id),
            fresh: setting
                .catalogue
                .fresh(setting.destination, self.tracked.id),
            unsure: self.is_unsure(setting),
            closed_today: self.closed_today,
            piece: setting.piece,
        })
    }

    /// The ends of what was confirmed, here and elsewhere, as they are now.
    fn look_at_seam(&mut self) -> Result<Option<Turn>, ReadError> {
        self.seam_seen = true;
        if !self.seams_hold()? {
            self.course.facts.seam_broken = true;
        }
        Ok(None)
    }

    fn seams_hold(&self) -> Result<bool, ReadError> {
        for progress in [&self.progress, &self.elsewhere].into_iter().flatten() {
            let length = progress.confirmed.length;
            if length > Offset::ZERO && !cursor::holds(&self.source, length, &progress.seam)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Nothing is left to do; what the row still says otherwise is put right.
    fn settle(&mut self, setting: &Setting) -> Turn {
        self.settle_doubt(setting);
        let state = match self.course.remote {
            Remote::Retired(_) => ProgressState::Retired,
            Remote::Recorded if is_retired(self.progress.as_deref()) => ProgressState::Retired,
            _ => ProgressState::Current,
        };
        let verified = setting.trust == Trust::Verified;
        let outdated =
            |progress: &Progress| progress.state != state || progress.verified != verified;
        match self.progress.as_deref() {
            Some(progress) if outdated(progress) && self.course.remote != Remote::Unasked => {
                let mut progress = progress.clone();
                progress.state = state;
                // Recorded while it was unverified: proven only by an answer to a HEAD.
                progress.verified |= verified && matches!(self.course.remote, Remote::Holds(_));
                self.put(setting, progress);
            }
            None if state == ProgressState::Retired => {
                let progress = at(&Cursor::new(), state, verified);
                self.put(setting, progress);
            }
            _ => {}
        }
        Turn::Done
    }

    fn confirm(&mut self, prefix: Prefix) -> Turn {
        if prefix.length == Offset::ZERO {
            self.learn(Cursor::new());
        }
        let condition = Condition::of(prefix);
        Turn::Ask(Box::new(Question {
            condition: Some(condition),
            ..question(Asked::Confirm(prefix))
        }))
    }

    /// The cursor at a length that is at hand, or that C's row leads to. `None` when the bytes
    /// around C are no longer there, which is noted.
    fn cursor(&mut self, length: Offset) -> Result<Option<Cursor>, ReadError> {
        if let Some(cursor) = self.known.iter().find(|known| known.length() == length) {
            return Ok(Some(cursor.clone()));
        }
        let cursor = match self.progress.as_deref() {
            Some(progress) if progress.confirmed.length > Offset::ZERO => {
                Cursor::resume(&self.source, progress)?
            }
            _ => Some(Cursor::new()),
        };
        let Some(mut cursor) = cursor else {
            self.course.facts.seam_broken = true;
            return Ok(None);
        };
        self.learn(cursor.clone());
        if cursor.length() < length && !read_on(&self.source, &mut cursor, length, &self.ending)? {
            return Ok(None);
        }
        Ok(Some(cursor))
    }

    fn learn(&mut self, cursor: Cursor) {
        self.known.retain(|known| known.length() != cursor.length());
        self.known.push(cursor);
    }

    /// Hashes on from C.
    fn hash(&mut self, to: Offset) -> Result<Option<Turn>, ReadError> {
        let Some(cursor) = self.cursor(to)? else {
            return Ok(None);
        };
        if !self.seams_hold()? {
            self.course.facts.seam_broken = true;
            return Ok(None);
        }
        self.course.facts.continued.push(cursor.prefix());
        self.learn(cursor);
        Ok(None)
    }

    fn adopt(&mut self, setting: &Setting, prefix: Prefix) -> Result<Option<Turn>, ReadError> {
        if let Some(cursor) = self.cursor(prefix.length)? {
            self.learn(cursor);
            self.record(setting, prefix);
        }
        Ok(None)
    }

    fn restore(&mut self, setting: &Setting, prefix: Prefix) -> Result<Option<Turn>, ReadError> {
        let had = self
            .confirmed()
            .map_or(Offset::ZERO, |prefix| prefix.length);
        // What was proven stands in `known`; C's row does not lead back to it.
        if prefix.length == Offset::ZERO {
            self.learn(Cursor::new());
        }
        let detail = format!(
            "{} has {} of {had} confirmed bytes; the rest is sent again",
            setting.called, prefix.length
        );
        let name = self.tracked.name.as_bytes();
        self.telling = Some(NewEvent::now(EventKind::ServerRestored, name, detail));
        let adopted = self.adopt(setting, prefix);
        self.telling = None;
        adopted
    }

    fn append(
        &mut self,
        setting: &Setting,
        base: Prefix,
        range: ByteRange,
        condition: Option<Condition>,
    ) -> Result<Option<Turn>, ReadError> {
        let ahead = self.ahead.take();
        let piece = match ahead.filter(|ahead| ahead.range.start() == range.start()) {
            Some(piece) => Some(piece),
            None => match self.cursor(base.length)? {
                Some(cursor) => {
                    Piece::read(&self.source, cursor, range, &setting.buffers, &self.ending)?
                }
                None => return Ok(None),
            },
        };
        // After the reading, so that a truncation during it is seen.
        self.seam_seen = true;
        if !self.seams_hold()? {
            self.course.facts.seam_broken = true;
            return Ok(None);
        }
        let Some(piece) = piece else {
            // Bytes behind C changed under our hands: what was read of them is void.
            let confirmed = self
                .confirmed()
                .map_or(Offset::ZERO, |prefix| prefix.length);
            self.known.retain(|known| known.length() <= confirmed);
            self.course.facts.continued.clear();
            return Ok(None);
        };
        let question = self.question(setting, piece, condition);
        Ok(Some(Turn::Ask(Box::new(question))))
    }

    fn question(
        &mut self,
        setting: &Setting,
        piece: Piece,
        condition: Option<Condition>,
    ) -> Question {
        let Piece { range, end, bytes } = piece;
        let prefix = end.prefix();
        self.learn(end);
        let payload = match bytes {
            Some(bytes) => Payload::Whole(bytes),
            None => Payload::stream(self.source.clone(), range, setting.buffers.clone()),
        };
        Question {
            asked: Asked::Append {
                range,
                end: prefix.hash,
            },
            condition,
            total: self.size.max(range.end()),
            payload,
        }
    }

    /// The piece behind the one under way, as a question: it stands on bytes that are on their way.
    pub(super) fn follow(&mut self, setting: &Setting, piece: Piece) -> Option<Question> {
        let base = self
            .known
            .iter()
            .find(|known| known.length() == piece.range.start())?
            .prefix();
        Some(self.question(setting, piece, Some(Condition::of(base))))
    }

    /// What reads the piece behind `range` while that is being sent, if there is one.
    pub(super) fn read_ahead(&self, setting: &Setting, range: ByteRange) -> Option<ReadAhead> {
        let end = range
            .end()
            .plus(setting.piece)
            .unwrap_or(self.size)
            .min(self.size);
        let next = ByteRange::new(range.end(), end)?;
        let cursor = self
            .known
            .iter()
            .find(|known| known.length() == range.end())?;
        Some(ReadAhead {
            source: self.source.clone(),
            cursor: cursor.clone(),
            range: next,
            buffers: setting.buffers.clone(),
            ending: self.ending.clone(),
        })
    }

    /// Keeps what was read ahead.
    pub(super) fn keep_ahead(&mut self, piece: Option<Piece>) {
        self.ahead = piece;
    }

    /// After a PUT to an unverified destination: what was sent is at hand, should it be held.
    pub(super) fn sent(&mut self, asked: &Asked) {
        if let Asked::Append { range, end } = asked {
            let prefix = Prefix {
                length: range.end(),
                hash: *end,
            };
            self.course.facts.continued.push(prefix);
        }
    }

    /// C is `prefix` now, whose cursor is at hand.
    pub(super) fn record(&mut self, setting: &Setting, prefix: Prefix) {
        let before = self.confirmed();
        self.course.moved(prefix, before);
        self.proof.clear();
        let found = self
            .known
            .iter()
            .find(|known| known.length() == prefix.length);
        let verified = setting.trust == Trust::Verified;
        let state = if prefix.length >= self.size {
            ProgressState::Current
        } else {
            ProgressState::Pending
        };
        let progress = match (found, self.progress.as_deref()) {
            (Some(cursor), _) => at(cursor, state, verified),
            (None, Some(progress)) if progress.confirmed == prefix => Progress {
                state,
                verified,
                confirmed_at: clock::now(),
                ..progress.clone()
            },
            // Never: a prefix is confirmed only after its cursor was here. Asked about again.
            (None, _) => {
                self.course.remote = Remote::Unasked;
                return;
            }
        };
        self.put(setting, progress);
        self.moved = true;
        self.known.retain(|known| known.length() >= prefix.length);
    }

    fn put(&mut self, setting: &Setting, progress: Progress) {
        let progress = Arc::new(progress);
        self.progress = Some(Arc::clone(&progress));
        let (id, told) = (self.tracked.id, self.telling.take());
        let catalogue = &setting.catalogue;
        catalogue.record_telling(setting.destination, id, progress, told);
    }

    /// Says how long the generation is, when its bytes wait longer than a turn.
    pub(super) fn observed(&self, setting: &Setting) {
        if self.seam_seen && !self.course.facts.seam_broken {
            setting.catalogue.observed(self.tracked.id, self.size);
        }
    }
}

/// What was confirmed; an error's row of a file of which nothing was is no confirmation.
fn confirmed(progress: Option<&Progress>) -> Option<Prefix> {
    let progress = progress?;
    let any = progress.confirmed.length > Offset::ZERO || progress.state == ProgressState::Current;
    any.then_some(progress.confirmed)
}

fn is_retired(progress: Option<&Progress>) -> bool {
    progress.is_some_and(|progress| progress.state == ProgressState::Retired)
}

fn at(cursor: &Cursor, state: ProgressState, verified: bool) -> Progress {
    Progress {
        confirmed: cursor.prefix(),
        hasher: cursor.state(),
        seam: cursor.seam(),
        confirmed_at: clock::now(),
        state,
        verified,
    }
}

fn ask(asked: Asked) -> Turn {
    Turn::Ask(Box::new(question(asked)))
}

/// A question without a body.
fn question(asked: Asked) -> Question {
    Question {
        asked,
        condition: None,
        total: Offset::ZERO,
        payload: Payload::Empty,
    }
}
