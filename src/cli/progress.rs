//! How far it is: bars on a terminal, a quiet line now and then anywhere else.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::table::count;
use crate::sys;
use crate::verify::figures::Figures;

/// How often the progress of a long reading is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written when nobody looks at bars.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How far one destination, or one datadir, is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its URL or path, safe for a terminal.
    pub(super) label: String,
    /// Files to be done, and how many are.
    pub(super) files: u64,
    /// See `files`.
    pub(super) files_done: u64,
    /// Bytes to be done, and how many are.
    pub(super) bytes: u64,
    /// See `bytes`.
    pub(super) bytes_done: u64,
}

impl Standing {
    /// How far a long reading is.
    fn of(label: &str, figures: &Figures) -> Self {
        Self {
            label: label.to_owned(),
            files: figures.files.load(Ordering::Relaxed),
            files_done: figures.files_done.load(Ordering::Relaxed),
            bytes: figures.bytes.load(Ordering::Relaxed),
            bytes_done: figures.bytes_done.load(Ordering::Relaxed),
        }
    }

    fn files_text(&self) -> String {
        format!("{} of {} files", count(self.files_done), count(self.files))
    }
}

/// Shows under `label` how far `work` is, which counts in `figures`, until it ends.
pub(super) fn during<T: Send>(
    label: &str,
    figures: &Figures,
    work: impl FnOnce() -> T + Send,
) -> T {
    let done = thread::scope(|scope| {
        let shower = thread::current();
        let work = scope.spawn(move || {
            let done = work();
            shower.unpark();
            done
        });
        let mut progress = Progress::new();
        while !work.is_finished() {
            progress.show(&[Standing::of(label, figures)]);
            thread::park_timeout(SHOW_EVERY);
        }
        progress.end();
        work.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Shows standings as they come.
pub(super) enum Progress {
    /// One bar each.
    Bars {
        /// Where they are drawn.
        screen: MultiProgress,
        /// In their order.
        bars: Vec<ProgressBar>,
    },
    /// Lines.
    Lines {
        /// When it began.
        begun: Instant,
        /// When the last line was written.
        last: Instant,
    },
}

impl Progress {
    /// Bars when stderr is a terminal, lines otherwise.
    pub(super) fn new() -> Self {
        if io::stderr().is_terminal() {
            Self::Bars {
                screen: MultiProgress::new(),
                bars: Vec::new(),
            }
        } else {
            let begun = sys::clock::monotonic();
            Self::Lines { begun, last: begun }
        }
    }

    /// Where log lines have to go, so that they do not tear the bars.
    pub(super) fn screen(&self) -> Option<MultiProgress> {
        match self {
            Self::Bars { screen, .. } => Some(screen.clone()),
            Self::Lines { .. } => None,
        }
    }

    /// Shows how far each is now.
    pub(super) fn show(&mut self, standings: &[Standing]) {
        match self {
            Self::Bars { screen, bars } => {
                for standing in &standings[bars.len().min(standings.len())..] {
                    bars.push(screen.add(new_bar(standing)));
                }
                for (bar, standing) in bars.iter().zip(standings) {
                    bar.set_length(standing.bytes);
                    bar.set_position(standing.bytes_done);
                    bar.set_message(standing.files_text());
                }
            }
            Self::Lines { begun, last } => {
                let now = sys::clock::monotonic();
                if now.duration_since(*last) >= LINE_EVERY {
                    *last = now;
                    let elapsed = now.duration_since(*begun);
                    for standing in standings {
                        // Nobody is left to tell when that fails.
                        let _ = writeln!(io::stderr(), "{}", line(standing, elapsed));
                    }
                }
            }
        }
    }

    /// Takes the bars away: the summary says it all.
    pub(super) fn end(self) {
        if let Self::Bars { screen, .. } = self {
            // A terminal that has gone needs no cleaning.
            let _ = screen.clear();
        }
    }
}

fn new_bar(standing: &Standing) -> ProgressBar {
    let bar = ProgressBar::new(standing.bytes).with_prefix(standing.label.clone());
    let template = "{prefix} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {msg}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn line(standing: &Standing, elapsed: Duration) -> String {
    let mut line = format!(
        "{}: {} of {}, {}",
        standing.label,
        HumanBytes(standing.bytes_done),
        HumanBytes(standing.bytes),
        standing.files_text(),
    );
    let seconds = elapsed.as_secs();
    if let Some(rate) = standing
        .bytes_done
        .checked_div(seconds)
        .filter(|rate| *rate > 0)
    {
        let left = standing.bytes.saturating_sub(standing.bytes_done) / rate;
        let left = HumanDuration(Duration::from_secs(left));
        // Writing to a String cannot fail.
        let _ = write!(line, ", {}/s, {left} left", HumanBytes(rate));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_and_what_is_left() {
        let standing = Standing {
            label: "http://log1/".to_owned(),
            files: 10_000,
            files_done: 1_200,
            bytes: 4 << 30,
            bytes_done: 1 << 30,
        };
        assert_eq!(
            line(&standing, Duration::from_secs(8)),
            "http://log1/: 1.00 GiB of 4.00 GiB, 1,200 of 10,000 files, 128.00 MiB/s, 24 seconds left"
        );
        assert_eq!(
            line(&standing, Duration::ZERO),
            "http://log1/: 1.00 GiB of 4.00 GiB, 1,200 of 10,000 files"
        );
    }
}
