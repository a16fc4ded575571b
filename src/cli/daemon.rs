//! What both daemons do around their work: the log, the runtime, the signals and an end in time.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{Level, error, info, warn};

use super::args::DaemonFlags;
use super::exit::Failure;
use super::logging::{self, Logfile, Sink};
use super::out;
use crate::limits::{BLOCKING_THREADS, CONNECTION_THREADS};

/// A daemon ends within 10 s of SIGTERM, whatever hangs; its layers take half of it to end in
/// order, this is the bound for all that they do not bound.
const END_TIME: Duration = Duration::from_secs(8);

/// Where a daemon's log goes.
pub(super) struct Log {
    file: Option<Arc<Logfile>>,
    /// Told of each SIGHUP, after the log was reopened.
    pub(super) hangup: Arc<Notify>,
}

impl Log {
    /// Starts the log: in the log file, or on stdout when that is asked for or there is no file.
    /// Debug lines go to stdout only.
    pub(super) fn start(logfile: Option<&Path>, flags: &DaemonFlags) -> Result<Self, Failure> {
        let least = if flags.debug {
            Level::DEBUG
        } else {
            Level::INFO
        };
        let file = match logfile.filter(|_| !flags.stdout) {
            Some(path) => Some(Logfile::open(path).map_err(|error| {
                let context = format!("cannot open the logfile {}", path.display());
                anyhow::Error::new(error).context(context)
            })?),
            None => None,
        };
        let mut sinks = Vec::new();
        if file.is_none() || flags.debug {
            sinks.push(Sink::stdout(least));
        }
        sinks.extend(file.clone().map(Sink::file));
        logging::start(sinks)?;
        let hangup = Arc::default();
        Ok(Self { file, hangup })
    }

    /// Goes on in the file that the path names now.
    fn reopen(&self) {
        if let Some(file) = &self.file {
            match file.reopen() {
                Ok(()) => info!("log file reopened"),
                Err(error) => warn!("cannot reopen the log file, going on in the old one: {error}"),
            }
        }
    }

    /// Puts a failure into the log file, where those look who do not see stderr.
    pub(super) fn note(&self, failure: &Failure) {
        if self.file.is_some() {
            error!("{}", out::with_causes(&failure.error));
        }
    }
}

/// The signals that a daemon answers to.
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals; from here on they do not end the process by themselves. Needs a runtime.
    pub(super) fn take() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits until the process is asked to end; the name of the signal.
    pub(super) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// As [`asked`](Self::asked), reopening the log whenever that is asked for.
    async fn end(mut self, log: &Log) {
        loop {
            let name = tokio::select! {
                _ = self.hangup.recv() => {
                    log.reopen();
                    log.hangup.notify_one();
                    continue;
                }
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.terminate.recv() => "SIGTERM",
            };
            info!("{name}: ending");
            return;
        }
    }
}

/// A runtime for a process that opens up to so many connections.
pub(super) fn runtime(connections: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS + connections * CONNECTION_THREADS)
        .build()
}

/// Runs `work`, which opens up to so many connections, and ends soon after `asked` does or by
/// itself. Once asked, it is given [`END_TIME`]; whatever still hangs then is left behind, as a kill
/// would.
pub(super) fn run<T>(
    log: &Log,
    connections: usize,
    work: impl AsyncFnOnce(tokio::sync::oneshot::Receiver<()>) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let runtime = runtime(connections)?;
    let result = runtime.block_on(async {
        let signals = Signals::take()?;
        let (ask, asked) = tokio::sync::oneshot::channel();
        let mut work = std::pin::pin!(work(asked));
        tokio::select! {
            done = &mut work => return done.map(Some),
            () = signals.end(log) => {}
        }
        // Nobody listens when the work has just ended by itself.
        let _ = ask.send(());
        if let Ok(done) = tokio::time::timeout(END_TIME, work).await {
            return done.map(Some);
        }
        warn!("something hangs: ending without it");
        Ok(None)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.inspect_err(|failure| log.note(failure))
}
