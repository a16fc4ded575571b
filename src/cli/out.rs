//! Writing to stdout and stderr. A reader that has gone (`shaftlog ... | head`) is no error.

use std::io::{self, ErrorKind, Write};

/// Writes `text` to stdout. `false` when the reader has gone: stop writing, and exit as if all
/// had been written.
pub(super) fn print(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Prints an error with its causes, one line, to stderr.
pub(super) fn complain(error: &anyhow::Error) {
    // Nobody is left to tell when that fails.
    let _ = writeln!(io::stderr(), "shaftlog: {error:#}");
}
