//! `shaftlog sync`: deliver what is there now, end when it is durably confirmed.
//!
//! Three ways to say what and whereto, one way to do it: files are found and taken into a
//! catalogue, every destination gets what it lacks, and the run ends when each has confirmed all
//! or keeping on is in vain. A crash leaves what a crash of the daemons leaves: the next run goes
//! on from there.

mod deliver;
mod embedded;
mod follow;
mod matching;
mod settings;
mod summary;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::MultiProgress;
use tracing::Level;

use self::deliver::{Job, Target};
use self::embedded::Embedded;
use self::settings::To;
use self::summary::Summary;
use super::args::SyncArgs;
use super::daemon;
use super::datadir::{Datadir, State, database_failed, quoted};
use super::exit::{Exit, Failure};
use super::logging::{self, Sink};
use super::progress::Progress;
use super::{load, out, unavailable};
use crate::client;
use crate::client::catalogue::Catalogue;
use crate::client::dirty::Dirty;
use crate::client::http::Connector;
use crate::client::logrotate;
use crate::client::watch::Watches;
use crate::config::{ClientSettings, Destination};
use crate::index::Kind;
use crate::index::client::ClientIndex;
use crate::limits::{self, EMBEDDED_URL, PRIVATE_DIR};
use crate::sys;
use crate::sys::dir::Dir;
use crate::types::Shown;

/// Runs the delivery that `args` ask for.
pub(super) fn run(args: &SyncArgs) -> Result<Exit, Failure> {
    if args.base.is_some() {
        return Err(unavailable("sync -b"));
    }
    let progress = Progress::new();
    let order = Order::read(args)?;
    start_log(progress.screen(), args.debug)?;
    let runtime = daemon::runtime(order.settings.all_connections())?;
    let summary = runtime.block_on(order.carry_out(args.patience.0, progress));
    // What still hangs hangs on a destination that was given up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    let summary = summary?;
    out::print(&summary.text(args.accept_unverified))?;
    Ok(summary.exit(args.accept_unverified))
}

/// Warnings go to stderr, past the bars; what is delivered is the summary's matter.
fn start_log(screen: Option<MultiProgress>, debug: bool) -> Result<(), Failure> {
    let least = if debug { Level::DEBUG } else { Level::WARN };
    let sink = Sink::new(least, move |line| match &screen {
        Some(screen) => screen.suspend(|| out::note(line)),
        None => out::note(line),
    });
    Ok(logging::start(vec![sink])?)
}

/// What is to be done, with the datadir that it is done in taken.
struct Order {
    settings: ClientSettings,
    datadir: Datadir,
    /// Whether the datadir is also the destination, with a server in this process.
    in_process: bool,
    /// Whether the patterns are from the command line.
    typed: bool,
    /// How each destination is reached, unless that is the server in this process.
    connectors: Vec<Connector>,
}

impl Order {
    fn read(args: &SyncArgs) -> Result<Self, Failure> {
        if let Some(config) = &args.config {
            let settings = load::client(config)?;
            let rebuild = format!("-f {}", quoted(config));
            let connectors = load::connectors(Some(config), &settings)?;
            return Self::with_links(settings, connectors, &rebuild);
        }
        let Some(to) = &args.to else {
            return Err(Failure::usage("--pattern needs --to DIR or --to URL"));
        };
        match (To::parse(to)?, &args.datadir) {
            (To::Url(url), Some(datadir)) => {
                let settings = settings::to_url(&args.pattern, &url, datadir)?;
                let rebuild = format!("--datadir {}", quoted(datadir));
                let connectors = load::connectors(None, &settings)?;
                matching::refuse_nothing(&settings.patterns, datadir, Kind::Client)?;
                let order = Self::with_links(settings, connectors, &rebuild)?;
                Ok(Self {
                    typed: true,
                    ..order
                })
            }
            (To::Url(_), None) => Err(Failure::usage(
                "--to URL needs --datadir DIR, for the links and the database, on the \
                 filesystem of the files",
            )),
            (To::Directory(_), Some(_)) => Err(Failure::usage(
                "--datadir goes with a URL: a directory keeps its own state",
            )),
            (To::Directory(directory), None) => {
                let name = Shown(to.as_encoded_bytes()).to_string();
                let destination = Destination::parse(EMBEDDED_URL)?.known_as(&name);
                let settings = ClientSettings {
                    connections: connections(),
                    ..settings::client(&args.pattern, destination, directory)?
                };
                Self::with_descriptors(settings, to.as_ref())
            }
        }
    }

    /// Files are held by links, as the daemon holds them.
    fn with_links(
        settings: ClientSettings,
        connectors: Vec<Connector>,
        rebuild: &str,
    ) -> Result<Self, Failure> {
        let datadir = Datadir::take(&settings.datadir, Kind::Client)?;
        if datadir.refuse_lost(Kind::Client, rebuild)? == State::New
            && let Some(warning) = logrotate::warning()
        {
            // Once is enough for what a timer runs every minute.
            out::note(&format!("shaftlog: {warning}\n"));
        }
        Ok(Self {
            settings,
            datadir,
            in_process: false,
            typed: false,
            connectors,
        })
    }

    /// Files are held by descriptors, and delivered to a server in this process.
    fn with_descriptors(settings: ClientSettings, written: &Path) -> Result<Self, Failure> {
        refuse_foreign(&settings.datadir)?;
        matching::refuse_nothing(&settings.patterns, &settings.datadir, Kind::Server)?;
        let datadir = Datadir::take(&settings.datadir, Kind::Server)?;
        let rebuild = format!("--datadir {}", quoted(written));
        datadir.refuse_lost(Kind::Server, &rebuild)?;
        Ok(Self {
            settings,
            datadir,
            in_process: true,
            typed: true,
            connectors: Vec::new(),
        })
    }

    async fn carry_out(
        mut self,
        patience: Duration,
        progress: Progress,
    ) -> Result<Summary, Failure> {
        let index = self.index()?;
        let dirty = Arc::new(Dirty::default());
        let destinations = &self.settings.destinations;
        let (catalogue, connectors, server) = if self.in_process {
            client::warn_of_hard_links(&self.settings);
            let (server, connector) = Embedded::start(&self.datadir)?;
            // The server keeps as many open; the other half is for files in work.
            let most = sys::host::descriptors() / 4;
            let catalogue =
                Catalogue::with_descriptors(index, destinations, Arc::clone(&dirty), most)?;
            (catalogue, vec![connector], Some(server))
        } else {
            client::warn_of_plain_http(&self.settings);
            client::warn_of_hard_links(&self.settings);
            let watches = Arc::new(Watches::new(Arc::clone(&dirty)));
            let links = Dir::open(self.datadir.dir.path())?;
            let catalogue =
                Catalogue::with_links(links, index, destinations, Arc::clone(&dirty), watches)?;
            (catalogue, std::mem::take(&mut self.connectors), None)
        };
        let job = Job {
            patterns: self.settings.patterns.clone().into(),
            catalogue: Arc::new(catalogue.with_volatile(&self.settings.patterns)),
            dirty,
            targets: self.targets(connectors),
            typed: self.typed,
            connections: self.settings.connections,
            patience,
        };
        let summary = deliver::run(job, progress).await;
        if let Some(server) = server {
            server.end().await;
        }
        summary
    }

    fn index(&self) -> Result<ClientIndex, Failure> {
        let path = self.datadir.database(Kind::Client);
        let is_new = self.datadir.state(Kind::Client)? != State::Present;
        if is_new {
            ClientIndex::create(&path).map_err(database_failed)?;
        }
        let index = ClientIndex::open(&path).map_err(database_failed)?;
        // The directory has copies, and what is known of them was lost: they are asked for before
        // anything is sent.
        let has_copies = || {
            self.datadir
                .state(Kind::Server)
                .map(|s| s == State::Present)
        };
        if is_new && self.in_process && has_copies()? {
            let asked = index.ask_before_first_append(EMBEDDED_URL);
            asked.map_err(database_failed)?;
        }
        Ok(index)
    }

    fn targets(&self, connectors: Vec<Connector>) -> Vec<Target> {
        let target = |(destination, connector): (&Destination, Connector)| Target {
            label: destination.name(),
            destination: destination.clone(),
            connector,
        };
        let destinations = self.settings.destinations.iter();
        destinations.zip(connectors).map(target).collect()
    }
}

/// Appends at once to a server in this process. Each needs some descriptors on both sides, for which
/// half of all are left.
fn connections() -> usize {
    limits::CONNECTIONS
        .min(sys::host::descriptors() / 16)
        .max(1)
}

/// Refuses a directory that holds files which are not ours.
fn refuse_foreign(path: &Path) -> Result<(), Failure> {
    let entries = match Dir::open(path).and_then(|directory| directory.list(b"")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let context = format!("cannot open {}", path.display());
            return Err(anyhow::Error::new(error).context(context).into());
        }
    };
    let ours = entries
        .iter()
        .any(|entry| entry.name == PRIVATE_DIR.as_bytes());
    match entries
        .iter()
        .find(|entry| sys::datadir::is_data(&entry.name))
    {
        Some(foreign) if !ours => Err(Failure::usage(format!(
            "{} holds files that were not delivered there ({}): name an empty directory, or one \
             that does not exist",
            path.display(),
            Shown(&foreign.name)
        ))),
        _ => Ok(()),
    }
}
