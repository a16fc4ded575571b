//! What a sync did: a table for the person, an exit code for the script.

use std::fmt::{self, Write as _};

use crate::cli::exit::Exit;
use crate::cli::table::{Column, count, plain, render};

/// Rows of trouble that are shown; beyond it they are counted.
const TROUBLES_SHOWN: usize = 200;

/// The whole result of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// One row a destination, in the configuration's order.
    pub(super) destinations: Vec<Delivery>,
    /// Whatever was not delivered, and why.
    pub(super) troubles: Vec<Trouble>,
    /// What patterns select and is no log file of theirs: that is no trouble.
    pub(super) passed_over: Vec<PassedOver>,
    /// Ended by a signal before it was done.
    pub(super) interrupted: bool,
}

/// What one destination got.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// Its URL or directory, safe for a terminal.
    pub(super) destination: String,
    /// Files that were to be delivered.
    pub(super) files: u64,
    /// Of these, how many it durably confirmed whole.
    pub(super) delivered: u64,
    /// Bytes that this run sent and the destination confirmed.
    pub(super) sent: u64,
    /// Bytes that it held before.
    pub(super) already: u64,
    /// Whether it can prove what it holds.
    pub(super) verified: bool,
}

/// One thing that was not delivered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What is missing.
    pub(super) what: What,
    /// The destination; `None` when it concerns all.
    pub(super) destination: Option<String>,
    /// Why, for the person.
    pub(super) reason: String,
    /// Both sides hold different bytes: nobody but a person can tell which are right.
    pub(super) conflict: bool,
}

/// Things of one kind that a pattern selects and that are never delivered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PassedOver {
    /// How many.
    pub(super) count: u64,
    /// What they are.
    pub(super) what: &'static str,
    /// Name of the pattern, safe for a terminal.
    pub(super) pattern: String,
    /// Path of one of them, safe for a terminal.
    pub(super) example: String,
}

/// What is missing somewhere.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Whatever a pattern was to find; safe for a terminal.
    Pattern(String),
    /// A file, its name safe for a terminal.
    File(String),
    /// So many files, for the same reason.
    Files(u64),
}

impl Summary {
    /// What the process exits with.
    pub(super) fn exit(&self, accept_unverified: bool) -> Exit {
        let complete = |delivery: &Delivery| {
            delivery.delivered == delivery.files && (delivery.verified || accept_unverified)
        };
        if self.troubles.iter().any(|trouble| trouble.conflict) {
            Exit::Diverged
        } else if self.interrupted
            || !self.troubles.is_empty()
            || !self.destinations.iter().all(complete)
        {
            Exit::Incomplete
        } else {
            Exit::Done
        }
    }

    /// The summary as it is printed.
    pub(super) fn text(&self, accept_unverified: bool) -> String {
        let mut text = render(
            &[
                Column::Text("destination"),
                Column::Number("files"),
                Column::Number("delivered"),
                Column::Number("bytes sent"),
                Column::Number("already there"),
                Column::Text("state"),
            ],
            self.destinations.iter().map(Delivery::row),
        );
        if !self.troubles.is_empty() {
            text.push('\n');
            text.push_str(&self.trouble_table());
        }
        if !self.passed_over.is_empty() {
            text.push('\n');
            text.push_str(&self.passed_over_table());
        }
        if self.troubles.is_empty() && self.destinations.iter().all(|it| it.files == 0) {
            text.push_str("\nNo file matched.\n");
        }
        let unverified = self.destinations.iter().any(|delivery| !delivery.verified);
        if unverified && !accept_unverified {
            text.push_str(
                "\nAn unverified destination cannot prove what it holds; \
                 --accept-unverified takes its word.\n",
            );
        }
        if self.interrupted {
            text.push_str("\nInterrupted. Run it again to go on from here.\n");
        }
        text
    }

    fn passed_over_table(&self) -> String {
        render(
            &[
                Column::Number("passed over"),
                Column::Text("what"),
                Column::Text("pattern"),
                Column::Text("such as"),
            ],
            self.passed_over.iter().map(PassedOver::row),
        )
    }

    fn trouble_table(&self) -> String {
        let mut text = render(
            &[
                Column::Text("not delivered"),
                Column::Text("destination"),
                Column::Text("why"),
            ],
            self.troubles.iter().take(TROUBLES_SHOWN).map(Trouble::row),
        );
        if let Some(more) = self.troubles.len().checked_sub(TROUBLES_SHOWN)
            && more > 0
        {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "and {more} more");
        }
        text
    }
}

impl Delivery {
    fn row(&self) -> Vec<String> {
        let state = match (self.delivered == self.files, self.verified) {
            (true, true) => "complete",
            (true, false) => "unverified",
            (false, true) => "incomplete",
            (false, false) => "incomplete, unverified",
        };
        vec![
            self.destination.clone(),
            count(self.files),
            count(self.delivered),
            count(self.sent),
            count(self.already),
            state.to_owned(),
        ]
    }
}

impl PassedOver {
    fn row(&self) -> Vec<String> {
        vec![
            count(self.count),
            self.what.to_owned(),
            self.pattern.clone(),
            self.example.clone(),
        ]
    }
}

impl Trouble {
    /// A file that is missing at `destination`, or everywhere.
    pub(super) fn file(
        name: &dyn fmt::Display,
        destination: Option<&str>,
        reason: &dyn fmt::Display,
    ) -> Self {
        Self {
            what: What::File(name.to_string()),
            destination: destination.map(str::to_owned),
            reason: plain(&reason.to_string()),
            conflict: false,
        }
    }

    /// A pattern that finds nothing.
    pub(super) fn pattern(name: &str, reason: &dyn fmt::Display) -> Self {
        Self {
            what: What::Pattern(plain(name)),
            destination: None,
            reason: plain(&reason.to_string()),
            conflict: false,
        }
    }

    fn row(&self) -> Vec<String> {
        let what = match &self.what {
            What::Pattern(name) | What::File(name) => name.clone(),
            What::Files(1) => "1 file".to_owned(),
            What::Files(files) => format!("{} files", count(*files)),
        };
        vec![
            what,
            self.destination.clone().unwrap_or_else(|| "all".to_owned()),
            self.reason.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Delivery {
        Delivery {
            destination: "http://log1/".to_owned(),
            files: 2,
            delivered: 2,
            sent: 12_345,
            already: 0,
            verified: true,
        }
    }

    fn trouble(conflict: bool) -> Trouble {
        Trouble {
            what: What::File("/var/log/btmp".to_owned()),
            destination: None,
            reason: "Permission denied".to_owned(),
            conflict,
        }
    }

    #[test]
    fn only_a_whole_delivery_exits_0() {
        let done = Summary {
            destinations: vec![complete()],
            ..Summary::default()
        };
        assert_eq!(done.exit(false), Exit::Done);

        let missing = Delivery {
            delivered: 1,
            ..complete()
        };
        let unverified = Delivery {
            verified: false,
            ..complete()
        };
        for (destinations, troubles, interrupted, exit) in [
            (vec![complete(), missing], vec![], false, Exit::Incomplete),
            (
                vec![complete()],
                vec![trouble(false)],
                false,
                Exit::Incomplete,
            ),
            (vec![complete()], vec![], true, Exit::Incomplete),
            (
                vec![complete()],
                vec![trouble(false), trouble(true)],
                true,
                Exit::Diverged,
            ),
            (vec![], vec![], false, Exit::Done),
        ] {
            let summary = Summary {
                destinations,
                troubles,
                interrupted,
                ..Summary::default()
            };
            assert_eq!(summary.exit(false), exit, "{summary:?}");
            assert_eq!(summary.exit(true), exit, "{summary:?}");
        }
        let taken = Summary {
            destinations: vec![unverified],
            ..Summary::default()
        };
        assert_eq!(taken.exit(false), Exit::Incomplete);
        assert_eq!(taken.exit(true), Exit::Done);
    }

    #[test]
    fn the_summary_names_what_is_missing() {
        let summary = Summary {
            destinations: vec![complete()],
            troubles: vec![trouble(false)],
            passed_over: vec![PassedOver {
                count: 1_200,
                what: "symbolic links",
                pattern: "app".to_owned(),
                example: "/var/log/app/x".to_owned(),
            }],
            interrupted: false,
        };
        assert_eq!(
            summary.text(false),
            "destination   files  delivered  bytes sent  already there  state\n\
             http://log1/      2          2      12,345              0  complete\n\
             \n\
             not delivered  destination  why\n\
             /var/log/btmp  all          Permission denied\n\
             \n\
             passed over  what            pattern  such as\n\
             \x20     1,200  symbolic links  app      /var/log/app/x\n"
        );
    }

    #[test]
    fn very_many_troubles_are_counted() {
        let mut summary = Summary::default();
        summary
            .troubles
            .resize_with(TROUBLES_SHOWN + 3, || trouble(false));
        let text = summary.text(false);
        assert!(text.ends_with("and 3 more\n"), "{text}");
    }
}
