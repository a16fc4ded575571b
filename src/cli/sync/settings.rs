//! What `--pattern ... --to` mean, in the terms of a client's configuration.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use regex::bytes::Regex;

use crate::cli::exit::Failure;
use crate::config::glob::{Exclude, Glob};
use crate::config::owner::Owners;
use crate::config::rename::Naming;
use crate::config::{ClientSettings, Destination, Environment, PatternSettings, Upkeep};
use crate::limits;

/// Where `--to` leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum To {
    /// A directory, absolute.
    Directory(PathBuf),
    /// A server's URL, substitutions not yet filled in.
    Url(String),
}

impl To {
    /// Tells a URL from a directory.
    pub(super) fn parse(text: &OsStr) -> Result<Self, Failure> {
        match text.to_str() {
            Some(url) if url.contains("://") => Ok(Self::Url(url.to_owned())),
            _ => Ok(Self::Directory(std::path::absolute(text)?)),
        }
    }
}

/// The settings of a client that delivers what `patterns` match to a server, each file under its
/// absolute path.
pub(super) fn to_url(
    patterns: &[String],
    url: &str,
    datadir: &Path,
) -> Result<ClientSettings, Failure> {
    let datadir = std::path::absolute(datadir)?;
    let destination = Destination::from_template(url, &datadir, &Environment::here())
        .map_err(|error| Failure::usage(format!("--to {url}: {error}")))?;
    client(patterns, destination, datadir)
}

/// The settings of a client whose links and database lie in `datadir`.
pub(super) fn client(
    patterns: &[String],
    destination: Destination,
    datadir: PathBuf,
) -> Result<ClientSettings, Failure> {
    let here = std::env::current_dir()?;
    let patterns = patterns.iter().map(|text| pattern(text, &here, &datadir));
    Ok(ClientSettings {
        patterns: patterns.collect::<Result<_, _>>()?,
        logfile: None,
        scan_interval: limits::SCAN_INTERVAL,
        status_interval: limits::STATUS_INTERVAL,
        periodic_trigger_interval: limits::PERIODIC_TRIGGER_INTERVAL,
        connections: limits::CONNECTIONS,
        upkeep: Upkeep::default(),
        destinations: vec![destination],
        datadir,
    })
}

fn pattern(text: &str, here: &Path, datadir: &Path) -> Result<PatternSettings, Failure> {
    let refused = |why: &dyn std::fmt::Display| Failure::usage(format!("--pattern {text}: {why}"));
    let absolute = absolute(text, here).map_err(|why| refused(&why))?;
    let glob = Glob::parse(&absolute).map_err(|error| refused(&error))?;
    if glob.spans_the_machine() {
        return Err(refused(
            &"it searches the whole machine; begin it with a directory, as in '/var/log/**'",
        ));
    }
    if glob.may_descend(datadir.as_os_str().as_bytes()) {
        return Err(refused(&format!(
            "it reaches into {}, where the copies would be found and copied again",
            datadir.display()
        )));
    }
    Ok(PatternSettings {
        name: text.to_owned(),
        glob,
        exclude: Exclude::default(),
        owners: Owners::Any,
        naming: own_path().map_err(|error| refused(&error))?,
        volatile: Vec::new(),
    })
}

/// Names that are the files' absolute paths, without the leading slash.
fn own_path() -> anyhow::Result<Naming> {
    Ok(Naming::regex("", Regex::new("^/")?, "")?)
}

/// The pattern as one of absolute paths: what is relative begins in `here`, whose own name is
/// taken literally.
fn absolute(text: &str, here: &Path) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with(['/', '!', '#']) {
        return Ok(text.to_owned());
    }
    let here = here
        .to_str()
        .ok_or("the current directory's name is not UTF-8: write the pattern from / on")?;
    let mut absolute = String::new();
    for character in here.trim_end_matches('/').chars() {
        if "*?[]{}!\\,".contains(character) {
            absolute.push('\\');
        }
        absolute.push(character);
    }
    absolute.push('/');
    let mut rest = text;
    while let Some(shorter) = rest.strip_prefix("./") {
        rest = shorter;
    }
    absolute.push_str(rest);
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rename::FileFacts;

    fn parsed(text: &str, here: &str) -> Result<PatternSettings, String> {
        pattern(text, Path::new(here), Path::new("/srv/copies"))
            .map_err(|failure| failure.error.to_string())
    }

    #[test]
    fn relative_patterns_begin_where_the_person_is() {
        let pattern = parsed("./logs/*.log", "/home/[x] {a,b}*").unwrap();
        assert!(pattern.glob.matches(b"/home/[x] {a,b}*/logs/a.log"));
        assert!(!pattern.glob.matches(b"/home/x a/logs/a.log"));
        let pattern = parsed("*.log", "/").unwrap();
        assert!(pattern.glob.matches(b"/a.log"));
    }

    #[test]
    fn files_are_called_by_their_whole_path() {
        let pattern = parsed("/var/log/**/*.log", "/").unwrap();
        let path = b"/var/log/odd \xff$1{ino}/a.log";
        let name = pattern.naming.name(path, &FileFacts::default()).unwrap();
        assert_eq!(name.as_bytes(), &path[1..]);
    }

    #[test]
    fn a_pattern_that_would_find_the_copies_is_refused() {
        for text in ["/srv/**", "/srv/copies/*", "/**/*.log", "!a", "/a/../b"] {
            let error = parsed(text, "/").unwrap_err();
            assert!(error.starts_with(&format!("--pattern {text}: ")), "{error}");
        }
        parsed("/srv/*.log", "/").unwrap();
        parsed("/srv/copies2/**", "/").unwrap();
    }

    #[test]
    fn a_url_is_told_from_a_directory() {
        let to = |text: &str| To::parse(OsStr::new(text)).unwrap();
        assert_eq!(to("/srv/x"), To::Directory("/srv/x".into()));
        assert_eq!(
            to("http://log1/{hostname}"),
            To::Url("http://log1/{hostname}".to_owned())
        );
        let here = std::env::current_dir().unwrap();
        assert_eq!(to("delivered"), To::Directory(here.join("delivered")));
    }
}
