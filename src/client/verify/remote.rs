//! What destinations say now: a HEAD for each file, and, where the prefixes differ, HEADs of
//! shorter and shorter stretches down to the first chunk that differs.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use hyper::Method;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::local::Delivered;
use super::{Job, Verify};
use crate::client::http::{Connector, Line, LineError, Payload, Reply};
use crate::client::plan::{Asked, FileError, Heard, Holding, Remote as Known, Trust, heard};
use crate::config::Destination;
use crate::index::client::DestinationId;
use crate::limits::{BUSY_PAUSE, PATIENCE};
use crate::prefix::PrefixHasher;
use crate::sys::clock;
use crate::types::{ByteRange, Offset, Prefix, PrefixHash, StableName};
use crate::verify::bisect::Bisect;
use crate::verify::figures::Figures;
use crate::verify::finding::{Finding, Severity, Side, Verdict};
use crate::verify::hashes::{Content as _, Hashes};

/// A destination that may be asked.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its URL, as the database has it.
    pub url: String,
    /// How it is reached, or why it cannot be.
    pub way: Result<(Destination, Connector), String>,
    /// Whether it proves what it says.
    pub trust: Trust,
}

/// The connections of one worker, which drives them itself.
pub(super) struct Remote<'a> {
    runtime: io::Result<Runtime>,
    places: &'a BTreeMap<DestinationId, Place>,
    lines: HashMap<DestinationId, Line>,
}

/// A file that was read.
pub(super) struct Local<'a> {
    pub(super) content: &'a Delivered<'a>,
    pub(super) size: Offset,
    /// At what destinations confirmed.
    pub(super) hashes: &'a Hashes,
    pub(super) figures: &'a Figures,
}

/// Why a destination does not say what it holds.
enum Silent {
    /// It was this when its operator gave it up, and counts as delivered so far.
    Retired(Prefix),
    /// It says that its bytes differ from its own index.
    Diverged,
    /// It refuses.
    Refused(String),
    /// It does not answer, or not now.
    Unreachable(String),
}

impl<'a> Remote<'a> {
    pub(super) fn new(places: &'a BTreeMap<DestinationId, Place>) -> Self {
        Self {
            runtime: Builder::new_current_thread().enable_all().build(),
            places,
            lines: HashMap::new(),
        }
    }

    /// The findings about a local file, with what the destinations hold now put in.
    pub(super) fn compare(
        &mut self,
        job: &Job,
        local: &Local<'_>,
        findings: Vec<(DestinationId, Finding)>,
    ) -> Vec<Finding> {
        let mut compared = Vec::new();
        for (to, finding) in findings {
            let confirmed = job.progress[&to].as_ref().map(|row| row.confirmed);
            compared.push(match self.holding(to, &job.file.name) {
                Ok(holding) => self.judge(to, job, local, finding, confirmed, holding),
                Err(Silent::Diverged) => self.diverged(to, job, local, finding, confirmed),
                Err(Silent::Retired(was)) => retired(finding, local, was),
                Err(silent) => silent.put_into(finding),
            });
        }
        compared
    }

    /// A destination says that its bytes are no longer those that it vouched for: where, if this file
    /// still is what it confirmed.
    fn diverged(
        &mut self,
        to: DestinationId,
        job: &Job,
        local: &Local<'_>,
        finding: Finding,
        confirmed: Option<Prefix>,
    ) -> Finding {
        let is_right = |confirmed: &Prefix| {
            confirmed.length <= local.size
                && local.hashes.at(confirmed.length) == Some(confirmed.hash)
        };
        let mut finding = Silent::Diverged.put_into(finding);
        let Some(confirmed) = confirmed.filter(is_right) else {
            return finding;
        };
        finding.side = Side::Server;
        let name = &job.file.name;
        let place = match self.prefix(to, name, confirmed.length) {
            // What differs lies behind what it confirmed.
            Ok(hash) if hash == confirmed.hash => Ok(None),
            // Perhaps it is shorter now: the search tells.
            Ok(_) | Err(Silent::Diverged) => {
                self.first_difference(to, name, local, confirmed.length)
            }
            Err(silent) => Err(silent.why()),
        };
        match place {
            Ok(place) => finding.first_difference = place,
            Err(why) => {
                let said = std::mem::take(&mut finding.detail);
                finding.detail = format!("{said} (the place was not found: {why})");
            }
        }
        finding
    }

    /// What follows from what a destination holds.
    fn judge(
        &mut self,
        to: DestinationId,
        job: &Job,
        local: &Local<'_>,
        mut finding: Finding,
        confirmed: Option<Prefix>,
        holding: Holding,
    ) -> Finding {
        let Holding {
            exists,
            length,
            hash,
            ..
        } = holding;
        let wrong_here = finding.verdict.severity() != Severity::Fine
            && !matches!(finding.verdict, Verdict::Unconfirmed | Verdict::Unverified);
        finding.beyond = local.size.since(length);
        if !wrong_here {
            finding.length = length;
            finding.blake3 = hash;
        }
        let Some(theirs) = hash else {
            // It proves nothing; its length is all that can be compared.
            return if wrong_here || length == local.size {
                finding
            } else {
                let why = format!("it says that it holds {length}; {} are here", local.size);
                finding.but(Verdict::Unverified, why)
            };
        };
        if length > local.size {
            let why = format!("it holds {length}, more than the {} here", local.size);
            return if wrong_here {
                finding
            } else {
                finding.but(Verdict::Conflict, why)
            };
        }
        let ours = match local.hash_at(length) {
            Ok(ours) => ours,
            Err(error) => return finding.but(Verdict::Unreadable, error.to_string()),
        };
        finding.compared += 1;
        if ours != theirs {
            let found = self.first_difference(to, &job.file.name, local, length);
            return differing(finding, confirmed, local, length, found);
        }
        if wrong_here {
            return finding;
        }
        match confirmed {
            Some(confirmed) if length < confirmed.length => {
                let why = format!("it holds {length} of the {} it confirmed", confirmed.length);
                finding.but(Verdict::Behind, why)
            }
            Some(_) if !exists => finding.but(Verdict::Behind, "it has no such file any more"),
            _ if !exists || (length == Offset::ZERO && local.size > Offset::ZERO) => {
                finding.but(Verdict::Unconfirmed, "it holds nothing of it")
            }
            _ => finding.but(Verdict::Right, ""),
        }
    }

    /// Searches the chunk in which the two begin to differ, within their first `differs` bytes.
    fn first_difference(
        &mut self,
        to: DestinationId,
        name: &StableName,
        local: &Local<'_>,
        differs: Offset,
    ) -> Result<Option<ByteRange>, String> {
        let Some(mut bisect) = Bisect::between(Offset::ZERO, differs) else {
            return Ok(None);
        };
        // Of what is the same.
        let mut same = PrefixHasher::new();
        while let Some(at) = bisect.question() {
            let theirs = self.prefix(to, name, at).map_err(|silent| silent.why())?;
            let ours = local
                .hash_on(&same, at)
                .map_err(|error| error.to_string())?;
            let equal = ours.hash() == theirs;
            bisect.answer(at, equal);
            if equal {
                same = ours;
            }
        }
        Ok(Some(bisect.range()))
    }

    fn holding(&mut self, to: DestinationId, name: &StableName) -> Result<Holding, Silent> {
        match self.ask(to, name, &Asked::Head)? {
            Heard::Told(Known::Holds(holding)) => Ok(holding),
            other => Err(Silent::of(other)),
        }
    }

    /// H(length) at a destination.
    fn prefix(
        &mut self,
        to: DestinationId,
        name: &StableName,
        length: Offset,
    ) -> Result<PrefixHash, Silent> {
        match self.ask(to, name, &Asked::HeadPrefix(length))? {
            Heard::ToldPrefix(prefix) => Ok(prefix.hash),
            other => Err(Silent::of(other)),
        }
    }

    /// Asks, waiting as the destination says while it is busy.
    fn ask(
        &mut self,
        to: DestinationId,
        name: &StableName,
        asked: &Asked,
    ) -> Result<Heard, Silent> {
        let place = &self.places[&to];
        let (destination, connector) = match &place.way {
            Ok(way) => way,
            Err(why) => return Err(Silent::Unreachable(why.clone())),
        };
        let runtime = match &self.runtime {
            Ok(runtime) => runtime,
            Err(error) => return Err(Silent::Unreachable(error.to_string())),
        };
        let target = match asked {
            Asked::HeadPrefix(length) => format!("{}?length={length}", destination.target(name)),
            _ => destination.target(name),
        };
        let begun = clock::monotonic();
        loop {
            let kept = self.lines.remove(&to);
            let answered = runtime.block_on(head(kept, destination, connector, &target));
            let (line, reply) = answered.map_err(|error| Silent::Unreachable(error.to_string()))?;
            self.lines.insert(to, line);
            if place.trust == Trust::Verified && reply.stamp().is_none() {
                let why = "its answers lack Shaftlog-Store: what answers there now?";
                return Err(Silent::Refused(why.to_owned()));
            }
            let said = heard(place.trust, asked, &reply.answer());
            let (Heard::Wait(pause) | Heard::Pause(pause, _)) = &said else {
                return Ok(said);
            };
            let pause: Duration = pause.unwrap_or(BUSY_PAUSE);
            if clock::monotonic().duration_since(begun) + pause > PATIENCE {
                return Ok(said);
            }
            runtime.block_on(sleep(pause));
        }
    }
}

/// One HEAD; over a new connection when the one that was kept is of no use any more.
async fn head(
    kept: Option<Line>,
    destination: &Destination,
    connector: &Connector,
    target: &str,
) -> Result<(Line, Reply), LineError> {
    if let Some(mut line) = kept.filter(Line::is_fit)
        && let Ok(reply) = line.ask(Method::HEAD, target, [], Payload::Empty).await
    {
        return Ok((line, reply));
    }
    let mut line = Line::open(connector, destination).await?;
    let reply = line.ask(Method::HEAD, target, [], Payload::Empty).await?;
    Ok((line, reply))
}

impl Silent {
    fn of(heard: Heard) -> Self {
        match heard {
            Heard::Told(Known::Retired(was)) => Self::Retired(was),
            Heard::Told(Known::Diverged(_)) => Self::Diverged,
            Heard::Failed(error) => Self::Refused(error.to_string()),
            Heard::Refused(text) => Self::Refused(text),
            Heard::Wait(_) => Self::Unreachable("it is busy with the file".to_owned()),
            Heard::Pause(_, text) => Self::Unreachable(text),
            _ => Self::Refused("its answer is about something else".to_owned()),
        }
    }

    fn why(&self) -> String {
        match self {
            Self::Retired(was) => format!("it retired the file, of {} bytes", was.length),
            Self::Diverged => FileError::Diverged { chunk: None }.to_string(),
            Self::Refused(why) | Self::Unreachable(why) => why.clone(),
        }
    }

    /// What is wrong here stays the verdict; otherwise what is wrong there is.
    fn put_into(self, finding: Finding) -> Finding {
        let verdict = match self {
            Self::Retired(_) => Verdict::Retired,
            Self::Diverged => Verdict::Diverged,
            Self::Refused(_) => Verdict::Refused,
            Self::Unreachable(_) => Verdict::Unreachable,
        };
        if finding.verdict.severity() > verdict.severity() {
            return finding;
        }
        let why = self.why();
        finding.but(verdict, why)
    }
}

/// What follows from what a destination's operator gave up.
fn retired(finding: Finding, local: &Local<'_>, was: Prefix) -> Finding {
    if was.length > local.size {
        return Silent::Retired(was).put_into(finding);
    }
    let mut finding = match local.hash_at(was.length) {
        Ok(ours) if ours == was.hash => finding,
        Ok(_) => {
            let why = format!("it retired {} bytes, and other ones", was.length);
            return finding.but(Verdict::Conflict, why);
        }
        Err(error) => return finding.but(Verdict::Unreadable, error.to_string()),
    };
    finding.compared += 1;
    if was.length < local.size {
        finding.beyond = local.size.since(was.length);
        let why = FileError::Retired { at: was.length };
        return Silent::Refused(why.to_string()).put_into(finding);
    }
    Silent::Retired(was).put_into(finding)
}

impl Local<'_> {
    fn hash_at(&self, length: Offset) -> io::Result<PrefixHash> {
        match self.hashes.at(length) {
            Some(hash) => Ok(hash),
            None => Ok(self.hash_on(&PrefixHasher::new(), length)?.hash()),
        }
    }

    /// Goes on hashing up to `to`.
    fn hash_on(&self, from: &PrefixHasher, to: Offset) -> io::Result<PrefixHasher> {
        let mut hasher = from.clone();
        let mut buffer = vec![0; crate::limits::IO_CHUNK];
        while hasher.length() < to {
            let want = usize::try_from(to.since(hasher.length()))
                .unwrap_or(buffer.len())
                .min(buffer.len());
            let read = self.content.read_at(hasher.length(), &mut buffer[..want])?;
            if read == 0 {
                return Err(io::Error::other("it became shorter meanwhile"));
            }
            hasher.update(&buffer[..read]);
            self.figures.read(read as u64);
        }
        Ok(hasher)
    }
}

/// The finding that the two sides differ, with the side whose bytes are no longer those that were
/// confirmed, as far as the confirmation tells.
fn differing(
    mut finding: Finding,
    confirmed: Option<Prefix>,
    local: &Local<'_>,
    length: Offset,
    found: Result<Option<ByteRange>, String>,
) -> Finding {
    let (range, trouble) = match found {
        Ok(range) => (range, String::new()),
        Err(why) => (None, format!(" (the place was not found: {why})")),
    };
    finding.first_difference = range;
    let confirmed =
        confirmed.filter(|confirmed| range.is_some_and(|range| range.start() < confirmed.length));
    let why = match confirmed {
        Some(confirmed) if local.hashes.at(confirmed.length) == Some(confirmed.hash) => {
            finding.side = Side::Server;
            format!(
                "this file still is what it confirmed at {}",
                confirmed.length
            )
        }
        Some(confirmed) => format!("this file is not what it confirmed at {}", confirmed.length),
        None => "behind what it confirmed".to_owned(),
    };
    let why = format!("its first {length} bytes are others than here: {why}{trouble}");
    finding.but(Verdict::Differs, why)
}

impl Verify<'_> {
    /// A file of which no bytes are here: whether the destinations still hold what they confirmed.
    pub(super) fn released(
        &self,
        job: &Job,
        about: &Finding,
        remote: &mut Remote<'_>,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (&to, progress) in &job.progress {
            let mut finding = about.clone();
            finding.destination = Some(self.destinations[&to].url.clone());
            let Some(confirmed) = progress.as_ref().map(|row| row.confirmed) else {
                findings.push(finding.but(Verdict::Unconfirmed, "it has confirmed nothing of it"));
                continue;
            };
            finding.length = confirmed.length;
            finding.blake3 = Some(confirmed.hash);
            findings.push(match remote.prefix(to, &job.file.name, confirmed.length) {
                Ok(hash) if hash == confirmed.hash => {
                    finding.compared = 1;
                    finding
                }
                Ok(hash) => {
                    finding.side = Side::Server;
                    finding.compared = 1;
                    let why = format!("its first {} bytes hash to {hash} now", confirmed.length);
                    finding.but(Verdict::Differs, why)
                }
                Err(silent) => match remote.holding(to, &job.file.name) {
                    Ok(holding) if holding.length < confirmed.length => {
                        let (has, had) = (holding.length, confirmed.length);
                        let why = format!("it holds {has} of the {had} it confirmed");
                        finding.but(Verdict::Behind, why)
                    }
                    _ => silent.put_into(finding),
                },
            });
        }
        findings
    }
}
