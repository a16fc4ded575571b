//! `shaftlog verify`: files against the evidence.

use std::collections::BTreeMap;
use std::path::Path;

use super::args::VerifyArgs;
use super::datadir::{Found, database_failed, databases};
use super::exit::{Exit, Failure};
use super::load;
use super::out::{self, Out};
use super::progress;
use super::table::{Column, count, plain, render};
use crate::client;
use crate::client::http::Connector;
use crate::client::plan::Trust;
use crate::client::verify::Place;
use crate::config::{Destination, Settings};
use crate::index::client::{ClientFile, DestinationId};
use crate::index::inspect::Inspection;
use crate::index::{IndexError, Kind, Problem};
use crate::limits::EMBEDDED_URL;
use crate::sys::dir::Dir;
use crate::tls::Purpose;
use crate::types::{Offset, Prefix, Shown, WirePath};
use crate::verify::figures::Figures;
use crate::verify::finding::{Finding, Severity, Verdict};
use crate::verify::{server, single};

/// Checks what `args` mean.
pub(super) fn run(args: &VerifyArgs) -> Result<Exit, Failure> {
    let mut report = Report::new(args.json, args.all);
    if let (Some(file), Some(length), Some(hash)) = (&args.file, args.length, args.blake3) {
        let length = Offset::new(length)
            .ok_or_else(|| Failure::usage(format!("--length {length}: no file is that long")))?;
        let figures = Figures::default();
        let label = plain(&file.display().to_string());
        let prefix = Prefix { length, hash };
        report.all = true;
        report.recorded = false;
        report.take(progress::during(&label, &figures, || {
            single::check(file, prefix, &figures)
        }))?;
        return report.end();
    }
    let pattern = args.pattern.as_deref().map(glob::Pattern::new).transpose();
    let pattern = pattern.map_err(|error| Failure::usage(format!("not a pattern: {error}")))?;
    let aims = load::aims(&args.target)?;
    let datadirs: Vec<_> = aims.iter().map(|aim| aim.datadir.clone()).collect();
    let found = databases(&datadirs, Exit::Incomplete)?;
    if args.remote && found.iter().all(|found| found.kind == Kind::Server) {
        return Err(Failure::usage(
            "--remote asks a client's destinations, and there is no client's database",
        ));
    }
    for found in found {
        let settings = aims.iter().find(|aim| aim.datadir == found.datadir);
        let settings = settings.and_then(|aim| aim.settings.as_ref());
        let selection = Selection {
            pattern: pattern.as_ref(),
            remote: args.remote,
            configured: match settings {
                Some(Settings::Client(client)) => Some(&client.destinations),
                _ => None,
            },
        };
        check(&found, &selection, &mut report)?;
    }
    if report.counts.is_empty() && pattern.is_some() {
        let error = anyhow::anyhow!("no file that the database knows matches the pattern");
        return Err(Failure::new(Exit::Incomplete, error));
    }
    report.end()
}

/// What of a database is to be checked.
struct Selection<'a> {
    pattern: Option<&'a glob::Pattern>,
    /// Whether a client's destinations are asked.
    remote: bool,
    /// A client's destinations; all that there ever were without a configuration.
    configured: Option<&'a [Destination]>,
}

impl Selection<'_> {
    fn takes(&self, name: &[u8]) -> bool {
        self.pattern
            .is_none_or(|pattern| pattern.matches(&String::from_utf8_lossy(name)))
    }

    /// The configured destinations of which the database knows nothing.
    fn unmet(&self, known: &BTreeMap<DestinationId, Place>) -> Vec<String> {
        let configured = self.configured.unwrap_or_default().iter();
        let urls = configured.map(ToString::to_string);
        urls.filter(|url| known.values().all(|place| place.url != *url))
            .collect()
    }

    /// The destinations of a client that are wanted, and that its database knows.
    fn places(&self, index: &Inspection) -> Result<BTreeMap<DestinationId, Place>, IndexError> {
        let mut places = BTreeMap::new();
        for (id, row) in index.destinations()? {
            let destination = match self.configured {
                None => Destination::parse(&row.url).map_err(|error| error.to_string()),
                Some(all) => match all.iter().find(|one| one.to_string() == row.url) {
                    Some(destination) => Ok(destination.clone()),
                    None => continue,
                },
            };
            let place = Place {
                url: row.url,
                way: destination.and_then(|destination| self.way(destination)),
                trust: if row.verified {
                    Trust::Verified
                } else {
                    Trust::Unverified
                },
            };
            places.insert(id, place);
        }
        Ok(places)
    }

    fn way(&self, destination: Destination) -> Result<(Destination, Connector), String> {
        let connector = if self.remote {
            Connector::Tcp.secured(&destination, Purpose::Look)
        } else {
            Ok(Connector::Tcp)
        };
        let connector = connector.map_err(|error| error.to_string())?;
        Ok((destination, connector))
    }
}

fn check(found: &Found, selection: &Selection<'_>, report: &mut Report) -> Result<(), Failure> {
    let index = Inspection::open(&found.path).map_err(evidence_failed)?;
    let datadir = Dir::open(&found.datadir).map_err(|error| {
        let context = format!("cannot open the datadir {}", found.datadir.display());
        anyhow::Error::new(error).context(context)
    })?;
    report.begin(&found.path, found.kind)?;
    let figures = Figures::default();
    let label = Shown(found.datadir.as_os_str().as_encoded_bytes()).to_string();
    let mut trouble = None;
    let each = |finding| {
        report.take(finding).unwrap_or_else(|error| {
            trouble = Some(error);
            false
        })
    };
    let checked = progress::during(&label, &figures, || match found.kind {
        Kind::Server => verify_server(&datadir, &index, selection, &figures, each),
        Kind::Client => verify_client(&datadir, &index, selection, &figures, each),
    });
    match trouble {
        Some(error) => Err(error),
        None => checked,
    }
}

fn verify_server(
    datadir: &Dir,
    index: &Inspection,
    selection: &Selection<'_>,
    figures: &Figures,
    each: impl FnMut(Finding) -> bool,
) -> Result<(), Failure> {
    let wanted = |path: &WirePath| selection.takes(&[b"/", path.as_bytes()].concat());
    let verify = server::Verify {
        datadir,
        index,
        wanted: &wanted,
        figures,
    };
    verify.run(each).map_err(|error| match error {
        server::VerifyError::Index(error) => evidence_failed(error),
        error @ server::VerifyError::Walk(_) => error.into(),
    })
}

fn verify_client(
    datadir: &Dir,
    index: &Inspection,
    selection: &Selection<'_>,
    figures: &Figures,
    each: impl FnMut(Finding) -> bool,
) -> Result<(), Failure> {
    let destinations = selection.places(index).map_err(evidence_failed)?;
    let unmet = selection.unmet(&destinations);
    let linked = destinations.values().all(|place| place.url != EMBEDDED_URL);
    let wanted =
        |file: &ClientFile| selection.takes(file.name.as_bytes()) || selection.takes(&file.source);
    let verify = client::verify::Verify {
        datadir,
        index,
        destinations: &destinations,
        unmet: &unmet,
        // The server in that directory has no address; its files are verified beside these.
        ask: selection.remote && linked,
        linked,
        wanted: &wanted,
        figures,
    };
    verify.run(each).map_err(evidence_failed)
}

/// A database that cannot be read is missing evidence.
fn evidence_failed(error: IndexError) -> Failure {
    match error.problem {
        Problem::Missing | Problem::NotOurs(_) | Problem::Row { .. } | Problem::Panicked(_) => {
            Failure::new(Exit::Incomplete, error)
        }
        _ => database_failed(error),
    }
}

/// Prints findings and counts them.
struct Report {
    /// Where JSON goes.
    json: Option<Out>,
    /// Whether the table has the files that are right, too.
    all: bool,
    /// Whether what is checked is on record, and not what somebody asks for.
    recorded: bool,
    /// What the next table will have.
    listed: Vec<Finding>,
    counts: BTreeMap<&'static str, u64>,
    compared: u64,
    worst: Severity,
    begun: bool,
}

impl Report {
    fn new(json: bool, all: bool) -> Self {
        Self {
            json: json.then(Out::new),
            all,
            recorded: true,
            listed: Vec::new(),
            counts: BTreeMap::new(),
            compared: 0,
            worst: Severity::default(),
            begun: false,
        }
    }

    /// Announces the findings of another database.
    fn begin(&mut self, database: &Path, kind: Kind) -> Result<(), Failure> {
        if self.json.is_none() {
            self.flush()?;
            let gap = if self.begun { "\n" } else { "" };
            self.begun = true;
            let database = plain(&database.display().to_string());
            out::print(&format!("{gap}{database}: {kind} database\n"))?;
        }
        Ok(())
    }

    /// Whether anybody wants more.
    fn take(&mut self, finding: Finding) -> Result<bool, Failure> {
        self.worst = self.worst.max(finding.verdict.severity());
        *self.counts.entry(finding.verdict.as_str()).or_default() += 1;
        self.compared += finding.compared as u64;
        if let Some(out) = &mut self.json {
            let mut line = serde_json::to_string(&finding)?;
            line.push('\n');
            return Ok(out.write(&line)?);
        }
        if self.all || finding.verdict != Verdict::Right || finding.beyond > 0 {
            self.listed.push(finding);
        }
        Ok(true)
    }

    /// Prints the table of what was found so far.
    fn flush(&mut self) -> Result<(), Failure> {
        let mut listed = std::mem::take(&mut self.listed);
        if listed.is_empty() {
            return Ok(());
        }
        listed.sort_by(|a, b| (&a.name, &a.destination).cmp(&(&b.name, &b.destination)));
        let columns = columns(&listed);
        let rows = listed.iter().map(|finding| {
            let cells = columns.iter().map(|(_, cell)| cell(finding));
            cells.collect()
        });
        let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
        let gap = if self.begun { "\n" } else { "" };
        out::print(&format!("{gap}{}", render(&titles, rows)))?;
        Ok(())
    }

    fn end(mut self) -> Result<Exit, Failure> {
        if self.json.is_none() {
            self.flush()?;
        }
        if self.json.is_none() && self.recorded {
            let counts: Vec<_> = self
                .counts
                .iter()
                .map(|(verdict, number)| format!("{} {verdict}", count(*number)))
                .collect();
            let what = if counts.is_empty() {
                "nothing to check".to_owned()
            } else {
                counts.join(", ")
            };
            let compared = match self.compared {
                1 => "1 recorded prefix".to_owned(),
                number => format!("{} recorded prefixes", count(number)),
            };
            out::print(&format!("\n{what}; {compared} compared\n"))?;
        }
        if let Some(out) = self.json {
            out.end()?;
        }
        Ok(match self.worst {
            Severity::Fine => Exit::Done,
            Severity::Missing => Exit::Incomplete,
            Severity::Differs => Exit::Diverged,
        })
    }
}

type Cell = fn(&Finding) -> String;

/// The columns that these findings fill.
fn columns(findings: &[Finding]) -> Vec<(Column, Cell)> {
    use Column::{Number, Text};
    let any = |is: fn(&Finding) -> bool| findings.iter().any(is);
    let mut columns: Vec<(Column, Cell)> = vec![(Text("file"), |finding| finding.name.clone())];
    if any(|finding| finding.source.is_some()) {
        columns.push((Text("source"), |finding| {
            finding.source.clone().unwrap_or_default()
        }));
    }
    if any(|finding| finding.destination.is_some()) {
        columns.push((Text("destination"), |finding| {
            plain(finding.destination.as_deref().unwrap_or_default())
        }));
    }
    columns.push((Text("verdict"), |finding| {
        finding.verdict.as_str().to_owned()
    }));
    columns.push((Number("length"), |finding| count(finding.length.bytes())));
    if any(|finding| finding.beyond > 0) {
        columns.push((Number("beyond"), |finding| count(finding.beyond)));
    }
    if any(|finding| finding.first_difference.is_some()) {
        columns.push((Text("first difference in bytes"), |finding| {
            let range = finding.first_difference;
            let text = range.map(|range| format!("{}..{}", range.start(), range.end()));
            text.unwrap_or_default()
        }));
    }
    if any(|finding| !finding.detail.is_empty()) {
        columns.push((Text("detail"), |finding| plain(&finding.detail)));
    }
    columns
}
