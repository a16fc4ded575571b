//! The settings of a client: the keys of its file, checked once, with every default filled in.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::destination::{BadTemplate, BadUrl, Destination};
use super::error::Problem;
use super::fields::Fields;
use super::glob::{Exclude, Glob};
use super::keys;
use super::owner::{self, Owners};
use super::rename::Naming;
use super::tls;
use super::upkeep::{self, Upkeep};
use super::yaml::Node;
use crate::types::ByteRange;
use crate::{limits, sys};

/// What a configuration may ask of the machine it is read on.
pub struct Environment {
    /// What `gethostname(2)` says, for `{hostname}`.
    pub hostname: String,
    /// The machine's id, for `{machine}`; asked only when a URL holds it, with the client's
    /// datadir, where the id of a machine without one is kept.
    pub machine_id: fn(&Path) -> io::Result<String>,
    /// The id of a user by name, for `owner`.
    pub user_id: fn(&str) -> io::Result<Option<u32>>,
}

impl Environment {
    /// This machine; when it has no id and one is asked for, one is made and kept in the datadir.
    pub fn here() -> Self {
        Self {
            hostname: sys::host::hostname(),
            machine_id: sys::host::machine_id_or_new,
            user_id: sys::host::user_id,
        }
    }

    /// This machine, looked at without changing anything: `made-at-the-first-start` stands for an
    /// id that it does not have yet.
    pub fn here_untouched() -> Self {
        Self {
            hostname: sys::host::hostname(),
            machine_id: |datadir| {
                let id = sys::host::machine_id(datadir)?;
                Ok(id.unwrap_or_else(|| "made-at-the-first-start".to_owned()))
            },
            user_id: sys::host::user_id,
        }
    }
}

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Directory of the hard links, absolute.
    pub datadir: PathBuf,
    /// File for messages, absolute; without it they go to standard output.
    pub logfile: Option<PathBuf>,
    /// Time between two scans for files that the notifications missed.
    pub scan_interval: Duration,
    /// Time between two status lines.
    pub status_interval: Duration,
    /// Time after which the next known file is looked at again, in turn.
    pub periodic_trigger_interval: Duration,
    /// Persistent connections to each destination, at least 1.
    pub connections: usize,
    /// What is done with files that are delivered.
    pub upkeep: Upkeep,
    /// Which files to deliver; the first pattern that selects a file has it.
    pub patterns: Vec<PatternSettings>,
    /// Where to deliver them; no two are the same.
    pub destinations: Vec<Destination>,
}

impl ClientSettings {
    /// How many connections there may be to all destinations together.
    pub fn all_connections(&self) -> usize {
        self.destinations.len() * self.connections
    }
}

/// An entry of `scan_paths`.
#[derive(Debug, Clone)]
pub struct PatternSettings {
    /// The pattern's name, `{name}` in templates.
    pub name: String,
    /// The paths of its files.
    pub glob: Glob,
    /// Those of them that are left out.
    pub exclude: Exclude,
    /// Whose files they are: others at these paths are passed over.
    pub owners: Owners,
    /// The stable names of its files.
    pub naming: Naming,
    /// Ranges of bytes that change later, in ascending order: delivered as they were first read.
    pub volatile: Vec<ByteRange>,
}

impl PatternSettings {
    /// True for the absolute path of a file that is to be delivered.
    pub fn selects(&self, path: &[u8]) -> bool {
        self.glob.matches(path) && !self.exclude.matches(path)
    }

    /// True when a file below the absolute path `directory` may be selected: what a walk enters.
    pub fn may_descend(&self, directory: &[u8]) -> bool {
        self.glob.may_descend(directory)
            && !(self.glob.is_dotless() && self.exclude.covers(directory))
    }
}

pub(super) fn read(
    text: &str,
    node: &Node,
    environment: &Environment,
) -> Result<ClientSettings, Problem> {
    let fields = Fields::of(text, Vec::new(), node, keys::CLIENT, "a client")?;
    let datadir = fields.path("datadir")?.unwrap_or_default();
    let connections = fields.integer("connections", 1, 64)?;
    Ok(ClientSettings {
        logfile: fields.path("logfile")?,
        scan_interval: fields
            .duration("scan_interval")?
            .unwrap_or(limits::SCAN_INTERVAL),
        status_interval: fields
            .duration("status_interval")?
            .unwrap_or(limits::STATUS_INTERVAL),
        periodic_trigger_interval: fields
            .duration("periodic_trigger_interval")?
            .unwrap_or(limits::PERIODIC_TRIGGER_INTERVAL),
        connections: connections
            .and_then(|connections| usize::try_from(connections).ok())
            .unwrap_or(limits::CONNECTIONS),
        upkeep: upkeep::read(&fields)?,
        patterns: patterns(text, &fields, &datadir, environment)?,
        destinations: destinations(text, &fields, &datadir, environment)?,
        datadir,
    })
}

fn patterns(
    text: &str,
    fields: &Fields<'_>,
    datadir: &Path,
    environment: &Environment,
) -> Result<Vec<PatternSettings>, Problem> {
    let everybody = owner::read(fields, environment)?.unwrap_or_default();
    let mut alternatives = 0;
    let mut patterns: Vec<PatternSettings> = Vec::new();
    for (steps, node) in fields.list("scan_paths")? {
        let fields = Fields::of(
            text,
            steps.clone(),
            node,
            keys::SCAN_PATH,
            "an entry of `scan_paths`",
        )?;
        let owners = owner::read(&fields, environment)?;
        let owners = owners.unwrap_or_else(|| everybody.clone());
        let settings = pattern(text, &fields, datadir, owners)?;
        upkeep::one_volatile_a_name(&patterns, &settings, &steps)?;
        alternatives += settings.glob.alternatives() + settings.exclude.alternatives();
        if alternatives > limits::GLOB_ALTERNATIVES_IN_ALL {
            let problem = format!(
                "up to here the braces of all patterns expand to more than {} alternatives",
                limits::GLOB_ALTERNATIVES_IN_ALL
            );
            return Err(Problem::new(steps, problem).hint("write * where any text will do"));
        }
        patterns.push(settings);
    }
    Ok(patterns)
}

fn pattern(
    text: &str,
    fields: &Fields<'_>,
    datadir: &Path,
    owners: Owners,
) -> Result<PatternSettings, Problem> {
    let name = fields.text("name")?.unwrap_or_default();
    let settings = PatternSettings {
        name: name.to_owned(),
        glob: Glob::parse(fields.text("pattern")?.unwrap_or_default())
            .map_err(|error| fields.problem("pattern", error.to_string()))?,
        exclude: Exclude::parse(fields.texts("exclude")?)
            .map_err(|error| fields.problem("exclude", error.to_string()))?,
        owners,
        naming: naming(name, fields)?,
        volatile: upkeep::volatile(text, fields)?,
    };
    check_reach(fields, &settings, datadir)?;
    Ok(settings)
}

/// Refuses a pattern over the whole machine and one that reaches into our own datadir: a client
/// that finds its own links would deliver each file once more with every scan.
fn check_reach(
    fields: &Fields<'_>,
    settings: &PatternSettings,
    datadir: &Path,
) -> Result<(), Problem> {
    if settings.glob.spans_the_machine() {
        return Err(fields
            .problem("pattern", "the pattern searches the whole machine")
            .hint("begin it with a directory, as in /var/log/**"));
    }
    if settings.may_descend(datadir.as_os_str().as_encoded_bytes()) {
        let problem = format!("the pattern reaches into the datadir {}", datadir.display());
        return Err(fields.problem("pattern", problem).hint(format!(
            "add `exclude: \"{}/**\"`, or put the datadir elsewhere",
            datadir.display()
        )));
    }
    Ok(())
}

fn naming(name: &str, fields: &Fields<'_>) -> Result<Naming, Problem> {
    let at = |key: &'static str| {
        move |problem: super::rename::BadNaming| {
            let found = fields.problem(key, problem.to_string());
            match problem.hint() {
                Some(hint) => found.hint(hint),
                None => found,
            }
        }
    };
    let template = fields.text("rename")?;
    match (fields.text("regex_from")?, fields.text("regex_to")?) {
        (None, None) => Naming::template(name, template).map_err(at(match template {
            Some(_) => "rename",
            None => "name",
        })),
        (Some(_), Some(_)) if template.is_some() => Err(fields
            .problem(
                "rename",
                "both `rename` and `regex_from` say how a file is called",
            )
            .hint("keep one of them")),
        (Some(from), Some(to)) => {
            let regex =
                super::regex(from).map_err(|refusal| fields.refused("regex_from", refusal))?;
            Naming::regex(name, regex, to).map_err(at("regex_to"))
        }
        (Some(_), None) => Err(fields
            .problem("regex_from", "`regex_from` needs `regex_to`")
            .hint("say what stands for what it matches")),
        (None, Some(_)) => Err(fields
            .problem("regex_to", "`regex_to` needs `regex_from`")
            .hint("say what it stands for")),
    }
}

fn destinations(
    text: &str,
    fields: &Fields<'_>,
    datadir: &Path,
    environment: &Environment,
) -> Result<Vec<Destination>, Problem> {
    let mut known: Vec<(Destination, Fields<'_>)> = Vec::new();
    for (steps, node) in fields.list("destinations")? {
        let whose = "an entry of `destinations`";
        let fields = Fields::of(text, steps, node, keys::DESTINATION, whose)?;
        let destination = destination(&fields, datadir, environment)?;
        let url = destination.to_string();
        if let Some((_, first)) = known.iter().find(|(other, _)| other.to_string() == url) {
            let line = first.line("url");
            let problem = format!("{url} stands in line {line} already");
            return Err(fields
                .problem("url", problem)
                .hint("name each destination once"));
        }
        known.push((destination, fields));
    }
    Ok(known
        .into_iter()
        .map(|(destination, _)| destination)
        .collect())
}

fn destination(
    fields: &Fields<'_>,
    datadir: &Path,
    environment: &Environment,
) -> Result<Destination, Problem> {
    let template = fields.text("url")?.unwrap_or_default();
    let error = match Destination::from_template(template, datadir, environment) {
        Ok(destination) => return secured(fields, destination),
        Err(BadTemplate::Url(error)) => error,
        Err(BadTemplate::MachineId(error)) => {
            let mut problem = fields.problem("url", "");
            problem.machine = Some(error);
            return Err(problem);
        }
    };
    let problem = fields.problem("url", error.to_string());
    Err(match error {
        BadUrl::Substitution(_) => problem.hint("there are {hostname} and {machine}"),
        BadUrl::NoScheme | BadUrl::Host | BadUrl::Port => {
            problem.hint("as in https://logs.example.net:10655/{hostname}/")
        }
        _ => problem,
    })
}

/// The destination with its `tls`, which plain HTTP has no use for: whoever gives a key to it
/// believes that something protects the line.
fn secured(fields: &Fields<'_>, destination: Destination) -> Result<Destination, Problem> {
    if destination.tls().is_none() && fields.has("tls") {
        let problem = format!("{destination} is plain HTTP, which has no use for certificates");
        return Err(fields
            .problem("tls", problem)
            .hint("write https:// in the url, or leave `tls` out")
            .on_key());
    }
    destination.secured(|host| tls::destination(fields, host))
}
