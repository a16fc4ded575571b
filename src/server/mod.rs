//! The server: a web server that knows HEAD and PUT and can only append.
//!
//! * [`decide`]: what to do with a request, as a pure function; read it first.
//! * [`append`]: the one place that writes delivered bytes, and the order in which it does;
//!   [`vouch`]: the way by which a length becomes vouched; [`quarantine`]: nothing is cut off
//!   before it is kept elsewhere; [`quota`]: what each client may fill.
//! * [`commit`]: one transaction for as many changes as wait.
//! * [`recover`]: from row and file to what is known; [`files`]: who may touch a file now.
//! * [`evidence`]: what becomes of a file that is not what its row vouches for.
//! * [`pass`]: whether the files are as the server before left them; [`scrub`]: whether they still
//!   hold what is on record.
//! * [`append_only`]: files that have been quiet can be appended to and nothing else, where the disk
//!   can do that.
//! * [`operator`]: what the operator asks for at the control socket; [`retire`].
//! * [`accept`], [`framing`], [`handler`], [`request`], [`answer`]: HTTP; [`handshake`]: TLS; [`access`]: who
//!   may do what; [`denials`]: who is told of trying more.
//!
//! Promised: a 2xx leaves only after the file's bytes and the row that vouches for them are on
//! stable storage; no byte below a vouched length is ever changed. What a crash leaves at each
//! step stands in `append`, `vouch` and `quarantine`.

mod accept;
mod access;
mod answer;
mod append;
mod append_only;
mod commit;
mod core;
mod data;
mod decide;
mod denials;
mod evidence;
mod files;
mod flight;
mod framing;
mod handler;
mod handshake;
mod pace;
mod operator;
mod pass;
mod peers;
mod quarantine;
mod quota;
pub mod rebuild;
mod recover;
mod reply;
mod request;
mod retire;
mod scrub;
mod status;
mod stream;
mod upkeep;
mod vouch;
mod ways;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use self::accept::Serving;
pub use self::access::Access;
use self::access::Peer;
use self::commit::Committer;
use self::core::Core;
pub use self::core::{Making, Quarantine, Rules};
use self::handshake::Handshakes;
pub use self::quota::Quotas;
pub use self::scrub::Scrub;
use self::ways::Ways;
use crate::config::tls::ClientAuth;
use crate::config::{ServerSettings, Unconditional};
use crate::control::{self, Request};
use crate::index::server::ServerIndex;
use crate::limits::{IDLE_TIMEOUT, OPEN_FILES, SERVER_REQUESTS};
use crate::sys::dir::Dir;
use crate::sys::file::Ownership;
use crate::sys::host;
use crate::tls::{Acceptor, Follow, follow};
use crate::types::Offset;

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken, not ours or not allowed.
    #[error("cannot listen on {address} (bind_address, listen_port): {source}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl From<&ServerSettings> for Rules {
    fn from(settings: &ServerSettings) -> Self {
        Self {
            validate: settings.validate_regex.clone(),
            min_free: settings.min_free,
            allow_unconditional: settings.unconditional == Unconditional::Allow,
            scrub: settings.scrub.period.map(|period| Scrub {
                rate: settings.scrub.rate,
                period,
            }),
            quarantine: Quarantine {
                size: settings.quarantine_size,
                keep: settings.quarantine_keep,
            },
            access: Access::from(settings),
            requests: settings.limits.requests,
            file_size: settings.limits.file_size,
            quotas: Quotas::from(settings),
            making: Making {
                mode: settings.delivered.mode,
                directory_mode: settings.delivered.directory_mode,
                ownership: Ownership::default(),
            },
            append_only: settings.append_only,
        }
    }
}

/// Runs the daemon on its address until `shutdown` is ready, and then ends in order: open
/// requests get [`SHUTDOWN_TIME`](crate::limits::SHUTDOWN_TIME), what was received and not
/// acknowledged stays as tails, all that was acknowledged is in the index.
///
/// The caller holds the datadir's lock. `datadir` is the directory that `index` belongs to. With
/// an `acceptor` clients speak TLS; new files are given to `ownership`; `again` (SIGHUP) asks for its
/// certificates to be read again.
pub async fn run(
    settings: &ServerSettings,
    index: ServerIndex,
    datadir: Dir,
    ownership: Ownership,
    acceptor: Option<Arc<Acceptor>>,
    again: Arc<Notify>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let address = SocketAddr::new(settings.bind_address, settings.listen_port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Listen { address, source })?;
    let mut rules = Rules::from(settings);
    rules.making.ownership = ownership;
    let server = Server::start(index, datadir, rules, settings.idle_timeout)?;
    let bound = listener.local_addr().unwrap_or(address);
    info!("listening on {bound}");
    warn_of_openness(settings);
    let serving = Serving {
        tls: acceptor.clone().map(Handshakes::new).map(Arc::new),
        ..server.serving()
    };
    let certificates = acceptor
        .into_iter()
        .map(|acceptor| acceptor as Arc<dyn Follow>);
    let listening = tokio::spawn(accept::listen(serving, listener, settings.limits));
    tokio::select! {
        () = shutdown => {}
        () = status::report(Arc::clone(&server.core), settings.status_interval) => {}
        () = upkeep::run(Arc::clone(&server.core)) => {}
        () = append_only::run(Arc::clone(&server.core)) => {}
        () = follow(certificates.collect(), again) => {}
        () = server.answer_operators(&settings.datadir) => {}
    }
    server.stop_and_wait_for(listening).await;
    Ok(())
}

/// Says once what strangers can do, where they can reach the server.
fn warn_of_openness(settings: &ServerSettings) {
    let address = settings.bind_address;
    if address.to_canonical().is_loopback() {
        return;
    }
    match &settings.tls {
        None => warn!(
            "{address} is reached over plain HTTP: anybody on the way can read and send; give it \
             certificates (`tls`) or bind it to a loopback address"
        ),
        Some(tls) => match tls.clients {
            ClientAuth::Required(_) => {}
            _ if settings.allow.is_some() => {}
            ClientAuth::None | ClientAuth::Optional(_) => warn!(
                "anybody who reaches {address} can write under any path: no certificate is needed \
                 (`client_auth: required`), and no address is asked for (`allow`)"
            ),
        },
    }
}

/// A running server without a listener: serves whatever streams it is given.
pub struct Server {
    core: Arc<Core>,
    committing: JoinHandle<()>,
    ending: watch::Sender<bool>,
    idle: Duration,
}

impl Server {
    /// Starts it on `datadir`, whose lock the caller holds, in a tokio runtime. `idle` is how long
    /// a connection may lie idle.
    pub fn start(
        index: ServerIndex,
        datadir: Dir,
        rules: Rules,
        idle: Duration,
    ) -> Result<Self, ServerError> {
        let index = Arc::new(index);
        let datadir = Arc::new(datadir);
        let ways = Ways::new(Arc::clone(&datadir));
        let (commits, committing) =
            Committer::start(Arc::clone(&index), ways).map_err(ServerError::Thread)?;
        // A quarter of the descriptors, as `accept` takes half: the rest is for files in work.
        let open_files = OPEN_FILES.min(host::descriptors() / 4);
        let core = Core::new(rules, datadir, index, commits, open_files);
        let core = Arc::new(core);
        let ending = watch::Sender::new(false);
        // Before anybody asks for the path.
        if let Err(failure) = quarantine::finish(&core) {
            error!("a file that is to be in quarantine could not be moved there: {failure}");
        }
        let scrub = scrub::run(Arc::clone(&core), ending.subscribe());
        core.tasks.spawn(scrub);
        Ok(Self {
            core,
            committing,
            ending,
            idle,
        })
    }

    /// As [`start`](Self::start), for a program that is its own only client: no path is refused
    /// and no room is kept.
    pub fn embedded(index: ServerIndex, datadir: Dir) -> Result<Self, ServerError> {
        let rules = Rules {
            validate: None,
            min_free: 0,
            allow_unconditional: false,
            scrub: None,
            quarantine: Quarantine::default(),
            access: Access::default(),
            requests: SERVER_REQUESTS,
            file_size: Offset::MAX,
            quotas: Quotas::default(),
            making: Making::default(),
            append_only: None,
        };
        Self::start(index, datadir, rules, IDLE_TIMEOUT)
    }

    /// Serves one stream to its end; `name` is who speaks on it. The future is independent of
    /// `self`; it ends soon after [`stop`](Self::stop) is called.
    pub fn serve_stream<S>(
        &self,
        stream: S,
        name: String,
    ) -> impl Future<Output = ()> + Send + 'static + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        accept::serve(self.serving(), stream, Peer::Own(name), None)
    }

    /// Does what the operator asks for.
    pub async fn command(&self, request: Request) -> control::Answer {
        operator::run(Arc::clone(&self.core), request).await
    }

    /// Lets the operator ask at the control socket, for ever.
    async fn answer_operators(&self, datadir: &Path) {
        let core = Arc::clone(&self.core);
        control::serve(datadir, move |request| {
            operator::run(Arc::clone(&core), request)
        })
        .await;
    }

    /// Ends in order: connections finish their request, tasks end, the index is closed. Await the
    /// futures of [`serve_stream`](Self::serve_stream) meanwhile, or drop them before.
    pub async fn stop(self) {
        self.stop_and_wait_for(std::future::ready(())).await;
    }

    fn serving(&self) -> Serving {
        Serving {
            core: Arc::clone(&self.core),
            idle: self.idle,
            tls: None,
            ending: self.ending.subscribe(),
        }
    }

    async fn stop_and_wait_for<T>(self, connections: impl Future<Output = T>) {
        self.core.stopping.store(true, Ordering::Relaxed);
        self.ending.send_replace(true);
        connections.await;
        self.core.tasks.finish().await;
        drop(self.core);
        // It ends when the last holder of the core is gone, which hashing threads may be for a
        // moment; all that is to be committed is.
        let join = || self.committing.join();
        let _ = tokio::task::spawn_blocking(join).await;
        info!("ended, everything acknowledged is on disk");
    }
}
