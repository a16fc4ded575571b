//! The real program: a server daemon, and `sync` or a client daemon against it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::rsync::{free_port, wait_for_port};
use crate::{Result, Run};

/// Delivers every file of `source` with `shaftlog sync` from an empty client to an empty server.
pub fn bulk(source: &Path, target: &Path) -> Result<Run> {
    let server = Process::server(target)?;
    let config = client_config(source, target, server.port)?;
    let start = Instant::now();
    let mut sync = Process::start("sync", &config, server.port)?;
    let client = sync.wait_and_watch_memory()?;
    let time = start.elapsed();
    Ok(Run {
        time,
        slow: None,
        memory: Some((client, server.peak_memory()?)),
    })
}

/// Both daemons at work, until dropped.
pub struct Pair {
    server: Process,
    client: Process,
}

impl Pair {
    /// Starts a server that stores below `target`, and a client that watches `source`.
    pub fn start(source: &Path, target: &Path) -> Result<Self> {
        let server = Process::server(target)?;
        let config = client_config(source, target, server.port)?;
        let client = Process::start("client", &config, server.port)?;
        Ok(Self { server, client })
    }

    /// Peak memory of client and server in KiB.
    pub fn peak_memory(&self) -> Result<(u64, u64)> {
        Ok((self.client.peak_memory()?, self.server.peak_memory()?))
    }
}

/// A child of ours; dropping it kills it.
struct Process {
    child: Child,
    port: u16,
    output: PathBuf,
}

impl Process {
    fn server(target: &Path) -> Result<Self> {
        let port = free_port()?;
        let config = target.with_extension("server.yaml");
        let text = format!(
            "datadir: '{}'\nlogfile: '{}'\nlisten_port: {port}\nbind_address: 127.0.0.1\n",
            target.display(),
            target.with_extension("server.log").display()
        );
        fs::write(&config, text)?;
        let mut server = Self::start("server", &config, port)?;
        wait_for_port(port, &mut server.child)
            .map_err(|error| format!("{error}\n{}", server.said()))?;
        Ok(server)
    }

    fn start(subcommand: &str, config: &Path, port: u16) -> Result<Self> {
        let output = config.with_extension(format!("{subcommand}.out"));
        let file = File::create(&output)?;
        let child = Command::new(env!("CARGO_BIN_EXE_shaftlog"))
            .args([subcommand, "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self {
            child,
            port,
            output,
        })
    }

    /// Waits for success; gives the highest peak that was seen, in KiB.
    fn wait_and_watch_memory(&mut self) -> Result<u64> {
        let mut peak = 0;
        loop {
            // Gone as soon as the child has ended, hence no error.
            peak = self.peak_memory().unwrap_or_default().max(peak);
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(peak);
                }
                return Err(format!("{status}\n{}", self.said()).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(value.ok_or("no VmHWM")?.parse()?)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client_config(source: &Path, target: &Path, port: u16) -> Result<PathBuf> {
    let config = target.with_extension("client.yaml");
    let text = format!(
        "datadir: '{}'\nlogfile: '{}'\nscan_paths:\n- name: bench\n  pattern: '{}/*.log'\n  \
         regex_from: '^.*/'\n  regex_to: ''\ndestinations:\n- url: http://127.0.0.1:{port}/\n",
        target.with_extension("links").display(),
        target.with_extension("client.log").display(),
        source.display()
    );
    fs::write(&config, text)?;
    Ok(config)
}
