//! The control socket: how a command asks a running daemon for something. A UNIX socket beside the
//! database; one line of JSON asks, one line of JSON answers, and the connection ends.
//!
//! Both lines are bounded, and so are the connections: a stuck asker costs a daemon nothing. The
//! directory's mode (0700) and the socket's (0600) say who may ask.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::limits::{CONTROL_ASKERS, CONTROL_LINE, CONTROL_TIME};
use crate::sys::socket;

/// What a daemon can be asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// Move a delivered file aside, or its bytes from `from` on.
    Quarantine {
        /// Its path, as it is shown, with its leading slash.
        path: String,
        /// The first byte that goes; without it the whole file does.
        from: Option<u64>,
    },
    /// Give up delivered files.
    Retire {
        /// Their paths, as a glob with a leading slash.
        pattern: String,
        /// Seconds since something was last delivered to them, at least.
        older_than: u64,
    },
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done; what was done, in words, one line each.
    Done(Vec<String>),
    /// Nothing was done, for this reason.
    Refused(String),
}

/// Answers whoever asks at the socket of `datadir`, for ever. A daemon that cannot listen says so
/// and goes on without.
pub async fn serve<F, A>(datadir: &Path, handle: F)
where
    F: Fn(Request) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = match socket::bind(datadir).and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(failure) => {
            warn!("no control socket, commands need the daemon stopped: {failure}");
            return std::future::pending().await;
        }
    };
    let handle = Arc::new(handle);
    let mut askers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if askers.len() < CONTROL_ASKERS => match accepted {
                Ok((stream, _)) => {
                    let handle = Arc::clone(&handle);
                    askers.spawn(async move { answer(stream, &*handle).await });
                }
                Err(failure) => {
                    warn!("the control socket: {failure}");
                    tokio::time::sleep(CONTROL_TIME).await;
                }
            },
            Some(_) = askers.join_next() => {}
        }
    }
}

async fn answer<F, A>(mut stream: UnixStream, handle: &F)
where
    F: Fn(Request) -> A,
    A: Future<Output = Answer>,
{
    let Ok(Ok(line)) = timeout(CONTROL_TIME, read_line(&mut stream)).await else {
        return;
    };
    let answer = match serde_json::from_slice(&line) {
        Ok(request) => handle(request).await,
        Err(error) => Answer::Refused(format!("not a request that this version knows: {error}")),
    };
    if let Ok(line) = line_of(&answer) {
        // Whoever asked may be gone.
        let _ = timeout(CONTROL_TIME, stream.write_all(&line)).await;
    }
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut bounded = stream.take(CONTROL_LINE);
    while !line.ends_with(b"\n") {
        if bounded.read_buf(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(line)
}

/// Asks the daemon of `datadir`, however long it takes; `None` when none listens there.
pub fn ask(datadir: &Path, request: &Request) -> io::Result<Option<Answer>> {
    let Some(mut stream) = socket::connect(datadir)? else {
        return Ok(None);
    };
    stream.write_all(&line_of(request)?)?;
    let mut line = Vec::new();
    stream.take(CONTROL_LINE).read_to_end(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::other("the daemon ended before it answered"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

fn line_of(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PRIVATE_DIR;

    fn request(path: &str) -> Request {
        Request::Quarantine {
            path: path.to_owned(),
            from: None,
        }
    }

    #[tokio::test]
    async fn asks_and_is_answered_and_rubbish_is_refused() {
        // Longer than a socket's address may be.
        let home = tempfile::tempdir().unwrap();
        let datadir = home.path().join("d".repeat(120));
        std::fs::create_dir_all(datadir.join(PRIVATE_DIR)).unwrap();
        assert_eq!(ask(&datadir, &request("/a")).unwrap(), None);
        let serving = {
            let datadir = datadir.clone();
            async move {
                serve(&datadir, async |request| match request {
                    Request::Quarantine { path, .. } => Answer::Done(vec![path]),
                    Request::Retire { .. } => Answer::Refused("no".to_owned()),
                })
                .await;
            }
        };
        let asking = tokio::task::spawn_blocking(move || {
            let answer = loop {
                if let Some(answer) = ask(&datadir, &request("/a")).unwrap() {
                    break answer;
                }
                std::thread::yield_now();
            };
            assert_eq!(answer, Answer::Done(vec!["/a".to_owned()]));
            let mut stream = socket::connect(&datadir).unwrap().unwrap();
            stream.write_all(b"{\"command\":\"fly\"}\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.contains("refused"), "{text}");
            // A line without an end is read to its bound, and nobody is kept from asking by it.
            let mut stream = socket::connect(&datadir).unwrap().unwrap();
            let bound = usize::try_from(CONTROL_LINE).unwrap();
            let sent = stream.write_all(&vec![b'x'; 4 * bound]);
            assert!(sent.is_err(), "more than its bound was read");
            assert!(ask(&datadir, &request("/b")).unwrap().is_some());
        });
        tokio::select! {
            () = serving => {}
            asked = asking => asked.unwrap(),
        }
    }
}
