//! What is wrong with a configuration: always the file, and the line and key where there is one.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use crate::types::plain;

/// A configuration that cannot be used (exit code 78).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot read the configuration: {source}", file.display())]
    Read {
        /// The configuration file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of the file is wrong.
    #[error("{}:{fault}", file.display())]
    Content {
        /// The configuration file.
        file: PathBuf,
        /// What is wrong in it, and where.
        fault: Fault,
    },
    /// A value of this machine that a substitution asks for is not to be had.
    #[error("{}: cannot fill in {{machine}}: {source}", file.display())]
    MachineId {
        /// The configuration file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ConfigError {
    /// The line at fault, counted from 1; `None` when the file as a whole could not be used.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Content { fault, .. } => Some(fault.line),
            Self::Read { .. } | Self::MachineId { .. } => None,
        }
    }
}

/// One fault of a configuration's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, counted from 1.
    pub line: usize,
    /// The key, as in `scan_paths[0].pattern`; empty when the text is no YAML at all.
    pub key: String,
    /// What was expected, and what was found.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", plain(&self.key))?;
        }
        f.write_str(&plain(&self.problem))?;
        match &self.hint {
            Some(hint) => write!(f, " ({})", plain(hint)),
            None => Ok(()),
        }
    }
}

/// One step from a YAML node to one of its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A fault whose line is not known yet: only the way to it through the document.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) steps: Vec<Step>,
    /// The key itself is at fault, not its value.
    pub(super) on_key: bool,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// [`Problem::steps`] lead nowhere in the file: a value of the machine is missing.
    pub(super) machine: Option<io::Error>,
}

impl Problem {
    pub(super) fn new(steps: Vec<Step>, message: impl Into<String>) -> Self {
        Self {
            steps,
            on_key: false,
            message: message.into(),
            hint: None,
            machine: None,
        }
    }

    pub(super) fn on_key(mut self) -> Self {
        self.on_key = true;
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error for `file`, with the line that a second look at its `text` finds.
    pub(super) fn in_file(self, file: &Path, text: &str) -> ConfigError {
        let file = file.to_path_buf();
        if let Some(source) = self.machine {
            return ConfigError::MachineId { file, source };
        }
        let line =
            super::yaml::locate(text, &self.steps, self.on_key).map_or(1, |position| position.line);
        ConfigError::Content {
            file,
            fault: Fault {
                line,
                key: shown(&self.steps),
                problem: self.message,
                hint: self.hint,
            },
        }
    }
}

/// The way through a document as people write it: `scan_paths[0].pattern`.
fn shown(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Index(index) => {
                // Writing to a String cannot fail.
                let _ = write!(path, "[{index}]");
            }
        }
    }
    path
}
