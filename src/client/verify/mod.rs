//! A client's files against what destinations confirmed, and against what they say now.
//!
//! Read-only, on rows from a snapshot: runs beside the daemon as well as at rest. A file is read
//! once for all its destinations, and again only where a difference is looked for.

mod local;
mod remote;

use std::collections::BTreeMap;

pub use self::remote::Place;
use self::remote::Remote;
use crate::index::IndexError;
use crate::index::client::{ClientFile, DestinationId, Progress, Stretch};
use crate::index::inspect::Inspection;
use crate::limits::VERIFY_AGAIN;
use crate::sys::dir::Dir;
use crate::types::FileId;
use crate::verify::crew;
use crate::verify::figures::Figures;
use crate::verify::finding::{Finding, Severity, Side};

/// A client's datadir, its catalogue, and which of its files are wanted where.
pub struct Verify<'a> {
    /// Where the links are.
    pub datadir: &'a Dir,
    /// What is known of them.
    pub index: &'a Inspection,
    /// The destinations that are wanted, with their URLs.
    pub destinations: &'a BTreeMap<DestinationId, Place>,
    /// URLs of those that are wanted too, and have confirmed nothing yet.
    pub unmet: &'a [String],
    /// Whether they are asked what they hold now.
    pub ask: bool,
    /// Whether files are held by links; otherwise they are looked for where they were.
    pub linked: bool,
    /// Whether a file is to be checked.
    pub wanted: &'a (dyn Fn(&ClientFile) -> bool + Sync),
    /// How far it is.
    pub figures: &'a Figures,
}

/// A file and what is on record of it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Job {
    id: FileId,
    file: ClientFile,
    /// What each wanted destination has confirmed.
    progress: BTreeMap<DestinationId, Option<Progress>>,
    /// What was first read of its volatile bytes.
    volatile: Vec<Stretch>,
}

impl Verify<'_> {
    /// Checks all files that are wanted, in no order; until `each` says false.
    pub fn run(&self, each: impl FnMut(Finding) -> bool) -> Result<(), IndexError> {
        self.index.client_files(|row| {
            if let Some((_, file)) = row.ok().filter(|(_, file)| (self.wanted)(file)) {
                self.figures.found(file.length.bytes());
            }
            true
        })?;
        crew::work(
            |job, found| {
                self.index.client_files(|row| match row {
                    Ok((id, file)) if (self.wanted)(&file) => job((id, file)),
                    Ok(_) => true,
                    Err(problem) => found(Finding::of_damage(Side::Client, &problem)),
                })
            },
            || {
                let mut remote = self.ask.then(|| Remote::new(self.destinations));
                move |(id, file)| {
                    let findings = self.file(id, file, remote.as_mut());
                    self.figures.done();
                    findings
                }
            },
            each,
        )
    }

    /// Checks one file at all destinations; again when what is on record has changed meanwhile.
    fn file(&self, id: FileId, file: ClientFile, mut remote: Option<&mut Remote>) -> Vec<Finding> {
        let damaged = |error: IndexError| vec![Finding::of_damage(Side::Client, &error.problem)];
        let mut job = match self.job(id, file) {
            Ok(job) => job,
            Err(error) => return damaged(error),
        };
        let mut again = 0;
        loop {
            let findings = self.once(&job, remote.as_deref_mut());
            let is_fine = |finding: &Finding| finding.verdict.severity() == Severity::Fine;
            if findings.iter().all(is_fine) || again == VERIFY_AGAIN {
                return findings;
            }
            again += 1;
            match self.index.client_file(id) {
                Ok(Some(file)) => match self.job(id, file) {
                    Ok(now) if now != job => job = now,
                    _ => return findings,
                },
                _ => return findings,
            }
        }
    }

    fn job(&self, id: FileId, file: ClientFile) -> Result<Job, IndexError> {
        let progress = self
            .destinations
            .keys()
            .map(|&to| Ok((to, self.index.progress(to, id)?)))
            .collect::<Result<_, IndexError>>()?;
        let volatile = self.index.volatile(id)?;
        Ok(Job {
            id,
            file,
            progress,
            volatile,
        })
    }
}
