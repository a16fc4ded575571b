//! One prefix of one file, without any database: what `head -c N FILE | b3sum` answers, as a yes
//! or no.

use std::path::Path;

use super::figures::Figures;
use super::finding::{Finding, Side, Verdict};
use super::hashes::Hashes;
use crate::sys::file::{self, FileKind};
use crate::types::{Prefix, Shown};

/// Checks that the file at `path` begins with `prefix`.
pub fn check(path: &Path, prefix: Prefix, figures: &Figures) -> Finding {
    let name = Shown(path.as_os_str().as_encoded_bytes()).to_string();
    let mut finding = Finding::new(Side::File, name, Verdict::Right);
    finding.length = prefix.length;
    finding.blake3 = Some(prefix.hash);
    figures.found(prefix.length.bytes());
    let read = file::open_named(path).and_then(|file| {
        let stat = file::stat(&file)?;
        let hashes = if stat.kind == FileKind::Regular {
            let lengths = [prefix.length].into();
            Some(Hashes::of(&file, &lengths, |bytes| figures.read(bytes))?)
        } else {
            None
        };
        Ok((stat, hashes))
    });
    figures.done();
    let (stat, hashes) = match read {
        Ok((stat, Some(hashes))) => (stat, hashes),
        Ok((_, None)) => return finding.but(Verdict::Unreadable, "not a regular file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return finding.but(Verdict::Missing, "there is no such file");
        }
        Err(error) => return finding.but(Verdict::Unreadable, error.to_string()),
    };
    finding.beyond = stat.size.since(prefix.length);
    if let Some(end) = hashes.ended() {
        return finding.but(Verdict::Short, format!("it ends at {end}"));
    }
    finding.compared = 1;
    match hashes.first_difference([&prefix]) {
        Some(difference) => finding.differing(&difference),
        None => finding,
    }
}
