//! A log that is written and delivered all the time, by a client of its own: whatever is done to the
//! server is done to one at work.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::stage::Stage;
use crate::common::{Client, Server, deliver, pause, wait_until};

/// Its path at the server, and its stable name.
pub const PATH: &str = "load/log";

/// See the module.
pub struct Load {
    client: Client,
    log: PathBuf,
    over: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins to write, and waits until some of it has arrived.
    pub fn start(home: &Path, server: &Server) -> Self {
        let directory = home.join("load");
        fs::create_dir(&directory).unwrap();
        let log = directory.join("log");
        let config = deliver(&[("load", &directory.join("*"))], &[&server.url()]);
        let over = Arc::new(AtomicBool::new(false));
        let (ending, to) = (Arc::clone(&over), log.clone());
        let load = Self {
            client: Client::start(&home.join("loader"), &config),
            log,
            over,
            writer: Some(thread::spawn(move || write(&to, &ending))),
        };
        wait_for_more(server);
        load
    }

    /// Ends; all of it is at the server then.
    pub fn finish(mut self, server: &Server) {
        self.over.store(true, Ordering::Relaxed);
        self.writer.take().unwrap().join().unwrap();
        let all = fs::read(&self.log).unwrap();
        wait_until("all of the load is there", || server.holds(PATH, &all));
        for (kind, name) in Stage::events(&self.client.datadir, 0) {
            let expected = ["discovered", "server_restored"].contains(&kind.as_str());
            assert!(expected, "{kind} {name}");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Waits until the server has more of the load than now.
pub fn wait_for_more(server: &Server) {
    let length = || fs::metadata(server.datadir.join(PATH)).map_or(0, |stat| stat.len());
    let before = length();
    wait_until("the load is delivered", || length() > before);
}

/// Some 100 KB a second, no two lines alike.
fn write(log: &Path, over: &AtomicBool) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        writeln!(file, "{number:0>200}").unwrap();
        pause(Duration::from_millis(2));
    }
}
