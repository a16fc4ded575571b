//! A server in this process, for `--to DIR`: the same that a daemon runs, behind streams in memory.

use std::io;
use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::cli::datadir::{Datadir, State, database_failed};
use crate::cli::exit::Failure;
use crate::client::http::{Connector, Stream};
use crate::index::Kind;
use crate::index::server::ServerIndex;
use crate::limits::IO_CHUNK;
use crate::server::Server;
use crate::sys;
use crate::sys::dir::Dir;

/// The server's side of what is written into the rows: who sent it.
const WRITER: &str = "sync";

/// A running server. It ends when the last connector to it is dropped.
pub(super) struct Embedded {
    serving: JoinHandle<()>,
}

impl Embedded {
    /// Starts the server of a datadir that this process holds, and says how to reach it. Needs a
    /// runtime.
    pub(super) fn start(datadir: &Datadir) -> Result<(Self, Connector), Failure> {
        let database = datadir.database(Kind::Server);
        if datadir.state(Kind::Server)? == State::New {
            ServerIndex::create(&database).map_err(database_failed)?;
        }
        let index = ServerIndex::open(&database, sys::clock::now()).map_err(database_failed)?;
        let server = Server::embedded(index, Dir::open(datadir.dir.path())?)?;
        let (sender, streams) = mpsc::unbounded_channel();
        let connect = move || -> io::Result<Box<dyn Stream>> {
            let (ours, theirs) = duplex(2 * IO_CHUNK);
            sender.send(theirs).map_err(io::Error::other)?;
            Ok(Box::new(ours))
        };
        let serving = tokio::spawn(serve(server, streams));
        Ok((Self { serving }, Connector::InProcess(Arc::new(connect))))
    }

    /// Waits until everything acknowledged is in the index and that is closed. Every connector has
    /// to be dropped before.
    pub(super) async fn end(self) {
        // One that panicked has ended too; the index survives that as it does a kill.
        let _ = self.serving.await;
    }
}

/// Serves streams until nobody can make more, and then those that are left.
async fn serve(server: Server, mut streams: mpsc::UnboundedReceiver<DuplexStream>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = streams.recv() => match stream {
                Some(stream) => {
                    connections.spawn(server.serve_stream(stream, WRITER.to_owned()));
                }
                None => break,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    let rest = async move { while connections.join_next().await.is_some() {} };
    tokio::join!(server.stop(), rest);
}
