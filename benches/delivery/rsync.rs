//! `rsync --append-verify` to its own daemon on loopback. It syncs nothing: what it reports as
//! done is in the page cache.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Result, Run};

/// Delivers every file of `source` with one client.
pub fn bulk(source: &Path, target: &Path) -> Result<Run> {
    let daemon = Daemon::start(target)?;
    let start = Instant::now();
    daemon.client(source).run()?;
    Ok(Run::timed(start.elapsed()))
}

/// A daemon with one writable module; dropping it ends it.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn start(target: &Path) -> Result<Self> {
        fs::create_dir_all(target)?;
        let beside = |name: &str| target.with_extension(name);
        let config = format!(
            "use chroot = no\nreverse lookup = no\nlog file = {}\n[target]\npath = {}\nread only = no\n{}",
            beside("log").display(),
            target.display(),
            // As root it would else become nobody; as another user it must not try.
            if rustix::process::geteuid().is_root() {
                "uid = 0\ngid = 0\n"
            } else {
                ""
            },
        );
        fs::write(beside("conf"), config)?;
        let port = free_port()?;
        let child = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--config={}", beside("conf").display()))
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("rsync (Debian package rsync): {error}"))?;
        let mut daemon = Self { child, port };
        wait_for_port(port, &mut daemon.child)?;
        Ok(daemon)
    }

    fn client(&self, source: &Path) -> Client {
        Client {
            from: format!("{}/", source.display()),
            to: format!("rsync://127.0.0.1:{}/target/", self.port),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    from: String,
    to: String,
}

impl Client {
    fn run(&self) -> Result<()> {
        let status = Command::new("rsync")
            .args(["-a", "--append-verify", &self.from, &self.to])
            .stdin(Stdio::null())
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("rsync: {status}").into())
        }
    }
}

/// Runs the client again as soon as it has ended, until dropped: rsync does not follow files.
pub struct Loop {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _daemon: Daemon,
}

impl Loop {
    /// Starts the daemon and the loop.
    pub fn start(source: &Path, target: &Path) -> Result<Self> {
        let daemon = Daemon::start(target)?;
        let client = daemon.client(source);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = client.run() {
                    eprintln!("{error}");
                    return;
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
            _daemon: daemon,
        })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Waits until `child` accepts connections at `port`.
pub fn wait_for_port(port: u16, child: &mut Child) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = child.try_wait()? {
            return Err(format!("the daemon ended: {status}").into());
        }
        if start.elapsed() > Duration::from_secs(30) {
            return Err("the daemon does not accept connections".into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
