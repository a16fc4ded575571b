//! What the local file says to what was confirmed of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::remote::{Local, Remote};
use super::{Job, Verify};
use crate::client::overlay::lay_over;
use crate::index::client::{ClientState, Progress, ProgressState, Stretch};
use crate::sys::dir::Access;
use crate::sys::file::{self, File, FileKind};
use crate::sys::way;
use crate::types::{Offset, Prefix, Shown};
use crate::verify::finding::{Finding, Side, Verdict};
use crate::verify::hashes::{Content, Hashes};

/// What was found where the file should be.
enum Opened {
    File(File, Offset),
    /// Nothing, or something else; as a finding.
    Not(Verdict, String),
}

/// A file's bytes as they were delivered: those that are volatile as they were first read.
pub(super) struct Delivered<'a> {
    file: File,
    volatile: &'a [Stretch],
}

impl Content for Delivered<'_> {
    fn read_at(&self, at: Offset, buffer: &mut [u8]) -> io::Result<usize> {
        let read = file::read_at(&self.file, at, buffer)?;
        for stretch in self.volatile {
            lay_over(stretch, at, &mut buffer[..read]);
        }
        Ok(read)
    }
}

impl Verify<'_> {
    /// One finding for each destination, or one about the file.
    pub(super) fn once(&self, job: &Job, remote: Option<&mut Remote>) -> Vec<Finding> {
        let file = &job.file;
        let mut about = Finding::new(Side::Client, file.name.to_string(), Verdict::Right);
        about.source = Some(Shown(&file.source).to_string());
        let verdict = match &file.state {
            ClientState::Superseded { by } => {
                about.detail = format!("closed; file {by} follows it");
                Some(Verdict::Superseded)
            }
            ClientState::Lost => Some(Verdict::Lost),
            ClientState::Released => {
                about.verdict = Verdict::Released;
                let findings = match remote {
                    Some(remote) => self.released(job, &about, remote),
                    None => self.let_go_of(job, &about),
                };
                return self.with_unmet(&about, findings);
            }
            ClientState::Active | ClientState::Renaming { .. } | ClientState::Releasing => None,
        };
        if let Some(verdict) = verdict {
            about.verdict = verdict;
            about.length = file.length;
            return vec![about];
        }
        let opened = self
            .open(job)
            .unwrap_or_else(|error| Opened::Not(Verdict::Unreadable, error.to_string()));
        let (content, size) = match opened {
            Opened::File(file, size) => (
                Delivered {
                    file,
                    volatile: &job.volatile,
                },
                size,
            ),
            Opened::Not(verdict, why) => return vec![about.but(verdict, why)],
        };
        let recorded = recorded(job);
        let lengths: BTreeSet<Offset> = recorded.iter().map(|prefix| prefix.length).collect();
        let hashes = match Hashes::of(&content, &lengths, |bytes| self.figures.read(bytes)) {
            Ok(hashes) => hashes,
            Err(error) => return vec![about.but(Verdict::Unreadable, error.to_string())],
        };
        let checked = |progress: &Option<Progress>, about: Finding| match progress {
            None => about.but(
                Verdict::Unconfirmed,
                "the destination has confirmed nothing of it",
            ),
            Some(progress) => against(about, progress, size, &recorded, &hashes),
        };
        let at = |(to, progress): (&_, &Option<Progress>)| {
            let mut about = about.clone();
            about.destination = Some(self.destinations[to].url.clone());
            (*to, checked(progress, about))
        };
        let findings: Vec<_> = job.progress.iter().map(at).collect();
        let findings = match remote {
            None => findings.into_iter().map(|(_, finding)| finding).collect(),
            Some(remote) => {
                let local = Local {
                    content: &content,
                    size,
                    hashes: &hashes,
                    figures: self.figures,
                };
                remote.compare(job, &local, findings)
            }
        };
        self.with_unmet(&about, findings)
    }

    /// A file of which no bytes are here: what is on record of it at each destination.
    fn let_go_of(&self, job: &Job, about: &Finding) -> Vec<Finding> {
        let at = |(to, progress): (_, &Option<Progress>)| {
            let mut about = about.clone();
            about.destination = Some(self.destinations[to].url.clone());
            match progress {
                None => about.but(Verdict::Unconfirmed, "it has confirmed nothing of it"),
                Some(progress) => {
                    about.length = progress.confirmed.length;
                    about.blake3 = Some(progress.confirmed.hash);
                    standing(about, progress)
                }
            }
        };
        job.progress.iter().map(at).collect()
    }

    /// Adds the destinations that have confirmed nothing of any file: missing evidence is no pass.
    fn with_unmet(&self, about: &Finding, mut findings: Vec<Finding>) -> Vec<Finding> {
        findings.extend(self.unmet.iter().map(|url| {
            let mut about = about.clone();
            about.destination = Some(url.clone());
            about.but(
                Verdict::Unconfirmed,
                "the database does not know the destination",
            )
        }));
        if findings.is_empty() {
            let why = "the database knows no destination";
            findings.push(about.clone().but(Verdict::Unconfirmed, why));
        }
        findings
    }

    /// Opens the file under the name that it has, if it is the one that it should be.
    fn open(&self, job: &Job) -> io::Result<Opened> {
        let opened = if self.linked {
            let names = match &job.file.state {
                ClientState::Renaming { from } => vec![&job.file.name, from],
                _ => vec![&job.file.name],
            };
            names
                .into_iter()
                .map(|name| self.datadir.open_file(name.as_bytes(), Access::Read))
                .reduce(Result::or)
                .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
        } else {
            way::open_file(Path::new(OsStr::from_bytes(&job.file.source)))
        };
        let gone = |why: &str| {
            if self.linked {
                Opened::Not(Verdict::Missing, format!("its link is {why}"))
            } else {
                Opened::Not(Verdict::Gone, format!("its source is {why}"))
            }
        };
        let content = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(gone("gone")),
            opened => opened?,
        };
        let stat = file::stat(&content)?;
        if stat.kind == FileKind::Regular && stat.inode == job.file.inode {
            return Ok(Opened::File(content, stat.size));
        }
        if self.linked {
            let why = format!(
                "its link shows inode {} instead of {}",
                stat.inode.number, job.file.inode.number
            );
            Ok(Opened::Not(Verdict::Replaced, why))
        } else {
            Ok(gone("another file now"))
        }
    }
}

/// What any destination has confirmed, shortest first.
fn recorded(job: &Job) -> Vec<Prefix> {
    let mut recorded: Vec<Prefix> = job
        .progress
        .values()
        .flatten()
        .map(|progress| progress.confirmed)
        .collect();
    recorded.sort_by_key(|prefix| prefix.length);
    recorded
}

/// A file against what one destination confirmed of it.
fn against(
    mut about: Finding,
    progress: &Progress,
    size: Offset,
    recorded: &[Prefix],
    hashes: &Hashes,
) -> Finding {
    let confirmed = progress.confirmed;
    about.length = confirmed.length;
    about.blake3 = Some(confirmed.hash);
    about.beyond = size.since(confirmed.length);
    match hashes.at(confirmed.length) {
        None => {
            let end = hashes.ended().unwrap_or(size);
            let why = format!("it ends at {end}, and {} are confirmed", confirmed.length);
            return about.but(Verdict::Short, why);
        }
        Some(found) => {
            about.compared = 1;
            if found != confirmed.hash {
                let shorter = recorded.iter().filter(|one| one.length < confirmed.length);
                let difference = hashes.first_difference(shorter.chain([&confirmed]));
                return difference.map_or(about.clone(), |found| about.differing(&found));
            }
        }
    }
    standing(about, progress)
}

/// What is on record of a file at one destination, whose bytes are what was confirmed, or are not
/// here any more.
fn standing(about: Finding, progress: &Progress) -> Finding {
    match &progress.state {
        ProgressState::Conflict => {
            about.but(Verdict::Conflict, "the destination holds something else")
        }
        ProgressState::Error { text } => about.but(Verdict::Refused, text.clone()),
        ProgressState::Retired => about.but(Verdict::Retired, ""),
        ProgressState::Lost => about.but(
            Verdict::Lost,
            "the destination lost it after this client had let go of it",
        ),
        ProgressState::Pending | ProgressState::Current if progress.verified => about,
        ProgressState::Pending | ProgressState::Current => about.but(
            Verdict::Unverified,
            "the destination took it, and cannot vouch for what it holds",
        ),
    }
}
