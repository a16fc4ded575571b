//! Which rows are shown: by file, state, destination, kind and time.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;

use crate::cli::args::Filters;
use crate::cli::exit::Failure;
use crate::cli::table::plain;
use crate::index::EventKind;
use crate::index::inspect::Row;

/// Lets the rows pass that have, and match, whatever is asked for.
#[derive(Clone, Default)]
pub(super) struct Filter {
    pattern: Option<glob::Pattern>,
    /// Stable names of files of which the source matched.
    named: HashSet<Vec<u8>>,
    state: Option<String>,
    destination: Option<String>,
    kind: Option<EventKind>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filter {
    pub(super) fn new(filters: &Filters) -> Result<Self, Failure> {
        let pattern = filters.pattern.as_deref().map(glob::Pattern::new);
        let pattern = pattern
            .transpose()
            .map_err(|error| Failure::usage(format!("not a pattern: {error}")))?;
        Ok(Self {
            pattern,
            state: filters.state.clone(),
            destination: filters.destination.clone(),
            since: filters.times.since,
            until: filters.times.until,
            ..Self::default()
        })
    }

    /// The same for events of one kind.
    pub(super) fn of_kind(self, kind: Option<EventKind>) -> Self {
        Self { kind, ..self }
    }

    pub(super) fn lets_pass(&mut self, row: &Row) -> bool {
        self.by_file(row)
            && matches(self.state.as_deref(), row.state(), |wanted, state| {
                wanted == state
            })
            && matches(
                self.destination.as_deref(),
                row.destination(),
                |wanted, url| url.contains(wanted),
            )
            && matches(self.kind, kind(row), |wanted, kind| wanted == kind)
            && matches(self.since, row.at(), |since, at| at >= since)
            && matches(self.until, row.at(), |until, at| at <= until)
    }

    fn by_file(&mut self, row: &Row) -> bool {
        let Some(pattern) = &self.pattern else {
            return true;
        };
        let Some(subject) = row.subject() else {
            return false;
        };
        if pattern.matches(&String::from_utf8_lossy(&subject)) || self.named.contains(&subject) {
            return true;
        }
        let by_source = matches!(row, Row::ClientFile(file) if pattern.matches(&file.source));
        if by_source {
            self.named.insert(subject);
        }
        by_source
    }
}

/// What is asked for, in words, ` ` before each part; nothing when all is.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map(|kind| serde_json::json!(kind));
        let kind = kind.as_ref().and_then(serde_json::Value::as_str);
        let parts = [
            kind.map(|kind| format!(" of kind {kind}")),
            self.state
                .as_ref()
                .map(|state| format!(" in state {state}")),
            self.pattern
                .as_ref()
                .map(|pattern| format!(" about {}", plain(pattern.as_str()))),
            self.destination
                .as_ref()
                .map(|url| format!(" about {}", plain(url))),
            self.since.map(|since| format!(" since {since:.0}")),
            self.until.map(|until| format!(" until {until:.0}")),
        ];
        parts
            .into_iter()
            .flatten()
            .try_for_each(|part| f.write_str(&part))
    }
}

/// Whether a row has what is asked for, if anything is.
fn matches<A, B>(wanted: Option<A>, found: Option<B>, test: impl FnOnce(A, B) -> bool) -> bool {
    match (wanted, found) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wanted), Some(found)) => test(wanted, found),
    }
}

fn kind(row: &Row) -> Option<EventKind> {
    match row {
        Row::Events(event) => Some(event.kind),
        _ => None,
    }
}
