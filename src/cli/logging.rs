//! The log: one line a record, to a file that is reopened on request or to stdout.
//!
//! A line is `2026-11-22T17:52:04.120Z INFO message key=value`. Lines of level INFO and above say
//! what changed, never what repeats, so that a log file that is itself delivered comes to rest.
//! For the same reason debug lines go to stdout only: appending one for each append to a
//! delivered file would never end.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::sys;

/// Where lines go, and from which level on.
pub(super) struct Sink {
    /// The least important level that it gets.
    least: Level,
    /// Takes one line with its newline.
    write: Box<dyn Fn(&str) + Send + Sync>,
}

impl Sink {
    /// A sink for lines of at least `least`.
    pub(super) fn new(least: Level, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let write = Box::new(write);
        Self { least, write }
    }

    /// stdout.
    pub(super) fn stdout(least: Level) -> Self {
        Self::new(least, |line| {
            let mut stdout = io::stdout().lock();
            // A log that cannot be written must not stop what it tells about.
            let _ = stdout
                .write_all(line.as_bytes())
                .and_then(|()| stdout.flush());
        })
    }

    /// A log file, without debug lines.
    pub(super) fn file(log: Arc<Logfile>) -> Self {
        Self::new(Level::INFO, move |line| log.append(line))
    }
}

/// A log file that can be opened again after a rotation.
pub(super) struct Logfile {
    path: PathBuf,
    file: Mutex<File>,
}

impl Logfile {
    /// Opens `path` for appending, making it (mode 0640) when missing.
    pub(super) fn open(path: &Path) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            path: path.to_owned(),
            file: Mutex::new(sys::file::open_append(path, 0o640)?),
        }))
    }

    /// Goes on in whatever file the path names now; in the old one when that fails.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let file = sys::file::open_append(&self.path, 0o640)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    fn append(&self, line: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line, so that lines of two processes do not mix. A log that cannot be
        // written must not stop what it tells about.
        let _ = file.write_all(line.as_bytes());
    }
}

/// Makes `sinks` the log of this process.
pub(super) fn start(sinks: Vec<Sink>) -> Result<(), tracing::dispatcher::SetGlobalDefaultError> {
    let subscriber = tracing_subscriber::registry().with(Lines { sinks });
    tracing::subscriber::set_global_default(subscriber)
}

/// Renders records and hands them to the sinks.
struct Lines {
    sinks: Vec<Sink>,
}

impl Lines {
    fn least(&self) -> Level {
        let levels = self.sinks.iter().map(|sink| sink.least);
        levels.max().unwrap_or(Level::ERROR)
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Our libraries' talk is not our debug log.
        let ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        *metadata.level() <= if ours { self.least() } else { Level::WARN }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.least()))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut record = Record::default();
        event.record(&mut record);
        let line = record.line(sys::clock::now(), level);
        for sink in self.sinks.iter().filter(|sink| level <= sink.least) {
            (sink.write)(&line);
        }
    }
}

/// The message and the fields of one record.
#[derive(Default)]
struct Record {
    message: String,
    fields: String,
}

impl Record {
    fn line(&self, at: jiff::Timestamp, level: Level) -> String {
        let mut line = format!("{at:.3} {level} ");
        for character in self.message.chars().chain(self.fields.chars()) {
            // One record is one line, and nothing in it talks to the terminal.
            if character.is_control() {
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
        line.push('\n');
        line
    }

    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" || !value.contains([' ', '"', '=']) && !value.is_empty() {
            self.field(field, format_args!("{value}"));
        } else {
            self.field(field, format_args!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.field(field, format_args!("{value}"));
        let mut cause = value.source();
        while let Some(error) = cause {
            // Writing to a String cannot fail.
            let _ = write!(self.fields, ": {error}");
            cause = error.source();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// The lines that `log` writes at level `least`, without their times.
    fn lines(least: Level, log: impl FnOnce()) -> Vec<String> {
        let (sender, receiver) = mpsc::channel();
        let sink = Sink::new(least, move |line| {
            let (time, rest) = line.split_once(' ').unwrap();
            let time: jiff::Timestamp = time.parse().unwrap();
            assert!(time <= sys::clock::now());
            sender.send(rest.to_owned()).unwrap();
        });
        let subscriber = tracing_subscriber::registry().with(Lines { sinks: vec![sink] });
        tracing::subscriber::with_default(subscriber, log);
        receiver.iter().collect()
    }

    #[test]
    fn a_record_is_one_line() {
        let written = lines(Level::INFO, || {
            let name = "a b";
            tracing::info!(file = name, bytes = 7, plain = "x", "found\nit\x1b[1m");
            tracing::error!(error = %"no", "bad");
        });
        assert_eq!(
            written,
            [
                "INFO found\\nit\\u{1b}[1m file=\"a b\" bytes=7 plain=x\n",
                "ERROR bad error=no\n",
            ]
        );
    }

    #[test]
    fn debug_lines_are_on_request_and_ours_alone() {
        let log = || {
            tracing::debug!("ours");
            tracing::debug!(target: "hyper", "theirs");
            tracing::warn!(target: "hyper", "grave");
        };
        assert_eq!(lines(Level::INFO, log), ["WARN grave\n"]);
        assert_eq!(lines(Level::DEBUG, log), ["DEBUG ours\n", "WARN grave\n"]);
    }

    #[test]
    fn after_a_rotation_lines_go_where_the_path_points() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let log = Logfile::open(&path).unwrap();
        log.append("1\n");
        std::fs::rename(&path, home.path().join("log.1")).unwrap();
        log.append("2\n");
        log.reopen().unwrap();
        log.append("3\n");
        assert_eq!(std::fs::read(home.path().join("log.1")).unwrap(), b"1\n2\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"3\n");
    }
}
