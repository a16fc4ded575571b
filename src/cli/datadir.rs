//! Taking a datadir: created when missing, locked before anything in it or for it is opened.

use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use crate::index::{IndexError, Kind, Problem};
use crate::limits::PRIVATE_DIR;
use crate::sys;
use crate::sys::dir::Dir;
use crate::sys::lock::{DatadirLock, LockError};

/// A datadir that no other process works in.
pub(super) struct Datadir {
    /// The directory.
    pub(super) dir: Dir,
    _lock: DatadirLock,
}

/// What a database needs before it can be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is there.
    Present,
    /// Neither it nor data are there.
    New,
    /// Data are there, it is not.
    Lost,
}

impl Datadir {
    /// Takes the datadir of a `kind`, making it when missing: a client's for its owner alone, a
    /// server's readable for the group.
    pub(super) fn take(path: &Path, kind: Kind) -> Result<Self, Failure> {
        let mode = match kind {
            Kind::Client => 0o700,
            Kind::Server => 0o750,
        };
        let dir = Dir::create(path, mode).map_err(|error| {
            let context = format!("cannot open the datadir {}", path.display());
            anyhow::Error::new(error).context(context)
        })?;
        Self::lock(dir)
    }

    /// Takes a datadir that must be there.
    pub(super) fn take_existing(path: &Path) -> Result<Self, Failure> {
        let dir = Dir::open(path).map_err(|error| {
            let context = format!("cannot open the datadir {}", path.display());
            anyhow::Error::new(error).context(context)
        })?;
        Self::lock(dir)
    }

    fn lock(dir: Dir) -> Result<Self, Failure> {
        let lock = DatadirLock::acquire(dir.path()).map_err(|error| match error {
            held @ LockError::Held { .. } => Failure::new(Exit::Locked, held),
            io @ LockError::Io { .. } => io.into(),
        })?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where the database of `kind` lies.
    pub(super) fn database(&self, kind: Kind) -> PathBuf {
        database(self.dir.path(), kind)
    }

    /// Whether the database of `kind` is there, and if not, whether it ever was.
    pub(super) fn state(&self, kind: Kind) -> Result<State, Failure> {
        match sys::file::stat_path(&self.database(kind)) {
            Ok(_) => Ok(State::Present),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let data = sys::datadir::holds_data(&self.dir)?;
                Ok(if data { State::Lost } else { State::New })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses to go on without the database of `kind` when there are files that it should know:
    /// making it anew is for a person to decide, with the command that is named: `rebuild` are its
    /// arguments.
    pub(super) fn refuse_lost(&self, kind: Kind, rebuild: &str) -> Result<State, Failure> {
        match self.state(kind)? {
            State::Lost => Err(Failure::new(
                Exit::Incomplete,
                anyhow::anyhow!(
                    "{} holds files but no {kind} database; if that is right (the original \
                     left them, or the database was lost), make it from the files with\n  \
                     shaftlog db rebuild {rebuild}",
                    self.dir.path().display(),
                ),
            )),
            state => Ok(state),
        }
    }
}

/// Where the database of `kind` lies in a datadir.
pub(super) fn database(datadir: &Path, kind: Kind) -> PathBuf {
    datadir.join(PRIVATE_DIR).join(kind.file_name())
}

/// A database that was found.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The datadir it lies in.
    pub(super) datadir: PathBuf,
    /// Whose it is, by its name.
    pub(super) kind: Kind,
    /// Its file.
    pub(super) path: PathBuf,
}

/// The databases that lie in `datadirs`, in each the client's before the server's; none at all is
/// a failure, which ends with `exit`.
pub(super) fn databases(datadirs: &[PathBuf], exit: Exit) -> Result<Vec<Found>, Failure> {
    let mut all: Vec<Found> = Vec::new();
    for datadir in datadirs {
        for kind in [Kind::Client, Kind::Server] {
            let path = database(datadir, kind);
            match sys::file::stat_path(&path) {
                Ok(_) if all.iter().any(|found| found.path == path) => {}
                Ok(_) => all.push(Found {
                    datadir: datadir.clone(),
                    kind,
                    path,
                }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let context = format!("cannot read {}", path.display());
                    return Err(anyhow::Error::new(error).context(context).into());
                }
            }
        }
    }
    if all.is_empty() {
        let datadirs: Vec<_> = datadirs
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let error = anyhow::anyhow!(
            "no database in {}; one that was lost is made again by `shaftlog db rebuild`",
            datadirs.join(" or ")
        );
        return Err(Failure::new(exit, error));
    }
    Ok(all)
}

/// A database's failure with its exit code.
pub(super) fn database_failed(error: IndexError) -> Failure {
    let exit = match error.problem {
        Problem::Locked => Exit::Locked,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let safe = |character: char| character.is_ascii_alphanumeric() || "/._-+:@".contains(character);
    if text.chars().all(safe) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_without_a_database_is_refused_with_the_command() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data");
        let datadir = Datadir::take(&path, Kind::Server).unwrap();
        let rebuild = format!("-f {}", quoted(Path::new("/etc/it's.yaml")));
        assert_eq!(
            datadir.refuse_lost(Kind::Server, &rebuild).unwrap(),
            State::New
        );
        std::fs::write(path.join("a.log"), "a").unwrap();
        let failure = datadir.refuse_lost(Kind::Server, &rebuild).unwrap_err();
        assert_eq!(failure.exit, Exit::Incomplete);
        let text = failure.error.to_string();
        assert!(
            text.ends_with(r"shaftlog db rebuild -f '/etc/it'\''s.yaml'"),
            "{text}"
        );
        std::fs::write(datadir.database(Kind::Server), "").unwrap();
        assert_eq!(
            datadir.refuse_lost(Kind::Server, &rebuild).unwrap(),
            State::Present
        );
    }

    #[test]
    fn a_second_process_is_told_the_firsts_pid() {
        let home = tempfile::tempdir().unwrap();
        let _held = Datadir::take(home.path(), Kind::Client).unwrap();
        let Err(failure) = Datadir::take(home.path(), Kind::Client) else {
            panic!("taken twice");
        };
        assert_eq!(failure.exit, Exit::Locked);
        let pid = std::process::id().to_string();
        assert!(failure.error.to_string().contains(&pid));
    }
}
