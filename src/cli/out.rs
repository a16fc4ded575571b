//! Writing to stdout and stderr. A reader that has gone (`shaftlog ... | head`) is no error.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write as _};

/// stdout, buffered.
pub(super) struct Out(BufWriter<Stdout>);

impl Out {
    /// Begins to write.
    pub(super) fn new() -> Self {
        Self(BufWriter::new(io::stdout()))
    }

    /// Writes `text`. `false` when the reader has gone: stop writing, and exit as if all had been
    /// written.
    pub(super) fn write(&mut self, text: &str) -> io::Result<bool> {
        unless_gone(self.0.write_all(text.as_bytes()))
    }

    /// Writes what is still buffered.
    pub(super) fn end(mut self) -> io::Result<()> {
        unless_gone(self.0.flush()).map(|_| ())
    }
}

fn unless_gone(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes `text` to stdout.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = Out::new();
    out.write(text)?;
    out.end()
}

/// Prints a line that has its newline to stderr.
pub(super) fn note(line: &str) {
    // Nobody is left to tell when that fails.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Prints an error with its causes, one line, to stderr.
pub(super) fn complain(error: &anyhow::Error) {
    // Nobody is left to tell when that fails.
    let _ = writeln!(io::stderr(), "shaftlog: {}", with_causes(error));
}

/// An error with its causes, in one line. A cause that the text before ends with is not said twice.
pub(super) fn with_causes(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read: {source}")]
    struct Telling {
        source: io::Error,
    }

    #[test]
    fn says_each_cause_once() {
        let telling = Telling {
            source: io::Error::other("gone"),
        };
        let error = anyhow::Error::new(telling).context("no answer");
        assert_eq!(with_causes(&error), "no answer: cannot read: gone");
    }
}
