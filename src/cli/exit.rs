//! How the program ends: exit codes and the failures that lead to them.

use std::fmt;
use std::process::ExitCode;

/// Exit codes. Scripts rely on them: a code never changes its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(
    dead_code,
    reason = "the codes are taken; what ends with them is being built"
)]
pub(super) enum Exit {
    /// All that was asked for is done.
    Done = 0,
    /// It failed; the message says why.
    Failed = 1,
    /// The command line is wrong, or asks for what this version does not have.
    Usage = 2,
    /// Not everything was delivered, or evidence is missing.
    Incomplete = 3,
    /// Something diverged or conflicts.
    Diverged = 4,
    /// Another process holds the database or the datadir.
    Locked = 5,
    /// The configuration is bad (`EX_CONFIG` of sysexits.h).
    BadConfig = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a subcommand ended early: the message for the person and the code for the script.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the process exits with.
    pub(super) exit: Exit,
    /// What is printed, its causes behind it.
    pub(super) error: anyhow::Error,
}

impl Failure {
    /// A failure with a code of its own.
    pub(super) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }

    /// What the command line asks for cannot be.
    pub(super) fn usage(message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Self {
        Self::new(Exit::Usage, anyhow::Error::msg(message))
    }
}

/// Errors without a code of their own are plain failures.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Exit::Failed, error)
    }
}
