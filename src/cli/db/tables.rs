//! Rows of a database as tables for people.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::cli::datadir::database_failed;
use crate::cli::exit::Failure;
use crate::cli::out::Out;
use crate::cli::table::Column::{self, Number, Text};
use crate::cli::table::{count, plain, render};
use crate::index::inspect::{
    BootRowShown, CertificateRow, ClientFileRow, DestinationRow, EventRow, HistoryRowShown,
    HoldRow, Inspection, PrefixShown, ProgressRow, QuarantineRow, Row, ServerFileRow, UsageRow,
    VolatileRow,
};
use crate::types::words::span;

/// Rows of one printed table; a longer one is continued under a new header, so that memory does
/// not grow with the database.
const TABLE_ROWS: usize = 2_000;

/// The rows that stand in one table.
#[derive(Clone, Copy)]
struct Sort {
    title: &'static str,
    columns: &'static [Column],
}

/// Prints rows of one kind after the other as tables.
pub(super) struct Tables {
    out: Out,
    sort: Sort,
    rows: Vec<Vec<String>>,
    /// Whether something was printed before.
    begun: bool,
}

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            out: Out::new(),
            sort: NOTHING,
            rows: Vec::new(),
            begun: false,
        }
    }

    pub(super) fn begin(&mut self, path: &Path, inspection: &Inspection) -> Result<bool, Failure> {
        if !self.flush()? {
            return Ok(false);
        }
        let store = inspection.store().map_err(database_failed)?;
        let store = store.map(|store| format!(", store {store}"));
        let gap = if self.begun { "\n" } else { "" };
        self.begun = true;
        self.sort = NOTHING;
        Ok(self.out.write(&format!(
            "{gap}{}: {} database{}\n",
            plain(&path.display().to_string()),
            inspection.kind(),
            store.unwrap_or_default()
        ))?)
    }

    pub(super) fn row(&mut self, row: &Row) -> Result<bool, Failure> {
        let (sort, cells) = cells(row);
        if sort.title != self.sort.title || self.rows.len() >= TABLE_ROWS {
            if !self.flush()? {
                return Ok(false);
            }
            self.sort = sort;
        }
        self.rows.push(cells);
        Ok(true)
    }

    fn flush(&mut self) -> Result<bool, Failure> {
        if self.rows.is_empty() {
            return Ok(true);
        }
        let table = render(self.sort.columns, self.rows.drain(..));
        let text = format!("\n{}\n{table}", self.sort.title);
        Ok(self.out.write(&text)?)
    }

    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.flush()?;
        Ok(self.out.end()?)
    }
}

const NOTHING: Sort = Sort {
    title: "",
    columns: &[],
};

const CLIENT_FILES: Sort = Sort {
    title: "files",
    columns: &[
        Text("name"),
        Text("source"),
        Text("pattern"),
        Number("length"),
        Text("state"),
        Number("inode"),
        Number("generation"),
        Text("discovered"),
    ],
};

const PROGRESS: Sort = Sort {
    title: "progress",
    columns: &[
        Text("destination"),
        Text("name"),
        Number("confirmed"),
        Text("state"),
        Text("verified"),
        Text("confirmed at"),
        Text("blake3"),
        Text("error"),
    ],
};

const DESTINATIONS: Sort = Sort {
    title: "destinations",
    columns: &[
        Text("destination"),
        Text("state"),
        Text("verified"),
        Text("store"),
        Text("sweep pending"),
        Text("reason"),
    ],
};

const VOLATILE: Sort = Sort {
    title: "volatile",
    columns: &[
        Text("name"),
        Number("offset"),
        Number("length"),
        Text("bytes"),
    ],
};

const HOLDS: Sort = Sort {
    title: "holds",
    columns: &[
        Text("name"),
        Number("size"),
        Text("quiet for"),
        Text("written"),
    ],
};

const SERVER_FILES: Sort = Sort {
    title: "files",
    columns: &[
        Text("path"),
        Number("length"),
        Text("state"),
        Text("writer"),
        Text("updated"),
        Text("blake3"),
        Number("high water"),
    ],
};

const HISTORY: Sort = Sort {
    title: "history",
    columns: &[
        Text("path"),
        Number("life"),
        Text("at"),
        Number("length"),
        Text("blake3"),
        Text("writer"),
        Text(""),
    ],
};

const BOOTS: Sort = Sort {
    title: "boots",
    columns: &[Text("boot"), Number("first commit"), Text("started")],
};

const USAGE: Sort = Sort {
    title: "usage",
    columns: &[Text("client"), Number("files"), Number("bytes")],
};

const CERTIFICATES: Sort = Sort {
    title: "certificates",
    columns: &[
        Text("destination"),
        Text("key"),
        Text("subject"),
        Text("state"),
        Text("not after"),
        Text("file"),
    ],
};

const QUARANTINE: Sort = Sort {
    title: "quarantine",
    columns: &[
        Text("copy"),
        Text("path"),
        Number("life"),
        Text("at"),
        Number("start"),
        Number("end"),
        Text("state"),
        Text("recorded"),
        Text("found"),
    ],
};

const EVENTS: Sort = Sort {
    title: "events",
    columns: &[
        Number("sequence"),
        Text("at"),
        Text("kind"),
        Text("file"),
        Text("detail"),
        Number("times"),
    ],
};

/// The table that a row stands in, and its cells.
fn cells(row: &Row) -> (Sort, Vec<String>) {
    match row {
        Row::ClientFile(row) => (CLIENT_FILES, client_file(row)),
        Row::Progress(row) => (PROGRESS, progress(row)),
        Row::Destinations(row) => (DESTINATIONS, destination(row)),
        Row::Volatile(row) => (VOLATILE, volatile(row)),
        Row::Holds(row) => (HOLDS, hold(row)),
        Row::ServerFile(row) => (SERVER_FILES, server_file(row)),
        Row::History(row) => (HISTORY, history(row)),
        Row::Boots(row) => (BOOTS, boot(row)),
        Row::Usage(row) => (USAGE, usage(row)),
        Row::Certificates(row) => (CERTIFICATES, certificate(row)),
        Row::Quarantine(row) => (QUARANTINE, quarantine(row)),
        Row::Events(row) => (EVENTS, event(row)),
    }
}

fn client_file(row: &ClientFileRow) -> Vec<String> {
    vec![
        row.name.clone(),
        row.source.clone(),
        plain(&row.pattern),
        count(row.length.bytes()),
        row.state.to_owned(),
        row.inode.to_string(),
        row.generation.to_string(),
        time(row.discovered),
    ]
}

fn progress(row: &ProgressRow) -> Vec<String> {
    vec![
        plain(&row.destination),
        row.name.clone(),
        count(row.confirmed.bytes()),
        row.state.to_owned(),
        yes(row.verified),
        time(row.confirmed_at),
        row.blake3.to_string(),
        plain(row.error.as_deref().unwrap_or_default()),
    ]
}

fn destination(row: &DestinationRow) -> Vec<String> {
    vec![
        plain(&row.destination),
        row.state.to_owned(),
        yes(row.verified),
        row.store.clone().unwrap_or_default(),
        yes(row.sweep_pending),
        plain(row.reason.as_deref().unwrap_or_default()),
    ]
}

/// Characters of hex that a cell shows.
const HEX: usize = 32;

fn volatile(row: &VolatileRow) -> Vec<String> {
    let bytes = match row.bytes.get(..HEX) {
        Some(start) if row.bytes.len() > HEX => format!("{start}..."),
        _ => row.bytes.clone(),
    };
    vec![
        row.name.clone(),
        count(row.offset.bytes()),
        count(row.length),
        bytes,
    ]
}

fn hold(row: &HoldRow) -> Vec<String> {
    let quiet = Duration::from_secs(row.quiet);
    vec![
        row.name.clone(),
        count(row.size.bytes()),
        span(quiet),
        time(row.at),
    ]
}

fn quarantine(row: &QuarantineRow) -> Vec<String> {
    let prefix = |prefix: Option<PrefixShown>| {
        prefix.map_or_else(String::new, |prefix| {
            format!("{} {}", count(prefix.length.bytes()), prefix.blake3)
        })
    };
    vec![
        plain(&row.copy),
        row.path.clone(),
        row.life.map_or_else(String::new, |life| life.to_string()),
        exact(row.at),
        count(row.start.bytes()),
        count(row.end.bytes()),
        row.state.to_owned(),
        prefix(row.recorded),
        prefix(row.found),
    ]
}

fn server_file(row: &ServerFileRow) -> Vec<String> {
    vec![
        row.path.clone(),
        count(row.length.bytes()),
        word(&row.state),
        plain(&row.writer),
        time(row.updated),
        row.blake3.to_string(),
        row.high_water
            .map_or_else(String::new, |mark| count(mark.length.bytes())),
    ]
}

fn history(row: &HistoryRowShown) -> Vec<String> {
    vec![
        row.path.clone(),
        row.life.to_string(),
        exact(row.at),
        count(row.length.bytes()),
        row.blake3.to_string(),
        plain(&row.writer),
        if row.present { "present" } else { "" }.to_owned(),
    ]
}

fn boot(row: &BootRowShown) -> Vec<String> {
    vec![row.boot.clone(), row.first.0.to_string(), time(row.at)]
}

fn certificate(row: &CertificateRow) -> Vec<String> {
    vec![
        plain(row.destination.as_deref().unwrap_or_default()),
        row.key.to_owned(),
        plain(&row.subject),
        row.state.to_owned(),
        time(row.not_after),
        row.file.clone(),
    ]
}

fn usage(row: &UsageRow) -> Vec<String> {
    vec![plain(&row.client), count(row.files), count(row.bytes)]
}

fn event(row: &EventRow) -> Vec<String> {
    let file = row.path.as_ref().or(row.name.as_ref());
    vec![
        row.sequence.to_string(),
        time(row.at),
        word(&row.kind),
        file.cloned().unwrap_or_default(),
        plain(&row.detail),
        row.times.to_string(),
    ]
}

/// The word that a state or kind has in JSON.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn time(at: jiff::Timestamp) -> String {
    format!("{at:.0}")
}

/// A time that is evidence.
fn exact(at: jiff::Timestamp) -> String {
    format!("{at:.3}")
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
