//! `shaftlog db`: looking at the databases, and making them anew.

mod inspect;
mod tables;

use std::path::{Path, PathBuf};

use super::exit::{Exit, Failure};
use crate::index::{IndexError, Kind, Problem};
use crate::limits::PRIVATE_DIR;

pub(super) use inspect::run as inspect;

/// Where the database of `kind` lies in a datadir.
pub(super) fn path(datadir: &Path, kind: Kind) -> PathBuf {
    datadir.join(PRIVATE_DIR).join(kind.file_name())
}

/// A database's failure with its exit code.
pub(super) fn failed(error: IndexError) -> Failure {
    let exit = match error.problem {
        Problem::Locked => Exit::Locked,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}
