//! Logs that are found by a backup at four moments of their delivery, and the backup.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::load::{self, Load};
use crate::common::{Client, Server, append, deliver, rows, said, wait_until};
use crate::faults::{Fault, Proxy};

/// Bytes of a log; a body of this length does not go through a stalled line.
const LENGTH: usize = 600_000;
/// What gets through a line before it stalls.
const STALL: u64 = 250_000;

/// How a log stood when the backup was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    Before,
    Middle,
    End,
    MidAppend,
}

pub const MOMENTS: [Moment; 4] = [
    Moment::Before,
    Moment::Middle,
    Moment::End,
    Moment::MidAppend,
];

impl Moment {
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Middle => "middle",
            Self::End => "end",
            Self::MidAppend => "mid-append",
        }
    }

    /// Bytes that are acknowledged when the backup is made.
    fn at_the_backup(self) -> usize {
        match self {
            Self::Before => 0,
            Self::Middle => LENGTH / 2,
            Self::End => LENGTH - 1,
            Self::MidAppend => 100_000,
        }
    }

    pub fn content(self) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.name().as_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }
}

/// How a directory is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copying {
    /// `cp -a`, of a server that does not run.
    Archive,
    /// A snapshot of the filesystem, of a server at work.
    Snapshot,
}

impl Copying {
    pub fn copy(self, from: &Path, to: &Path) {
        let mut command = match self {
            Self::Archive => Command::new("cp"),
            Self::Snapshot => Command::new("btrfs"),
        };
        match self {
            Self::Archive => command.arg("-a"),
            Self::Snapshot => command.args(["subvolume", "snapshot"]),
        };
        let output = command.args([from, to]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// The logs, both sides, and the backup.
pub struct Stage {
    pub home: PathBuf,
    pub server: Server,
    pub client: Client,
    pub proxy: Proxy,
    /// What goes on all the time, if the server is copied live.
    pub load: Option<Load>,
    pub copying: Copying,
    _scratch: TempDir,
}

impl Stage {
    /// Delivers all logs, with a backup of the server on the way.
    pub fn new(scratch: TempDir, copying: Copying) -> Self {
        let home = scratch.path().to_owned();
        fs::create_dir(home.join("logs")).unwrap();
        if copying == Copying::Snapshot {
            let made = Command::new("btrfs")
                .args(["subvolume", "create"])
                .arg(home.join("server"))
                .output();
            let made = made.unwrap();
            assert!(made.status.success(), "{}", said(&made));
        }
        let mut server = Server::start(&home.join("server"), "min_free: 1MiB");
        let proxy = Proxy::start(server.port, Fault::None);
        for moment in MOMENTS.into_iter().filter(|it| *it != Moment::Before) {
            let content = moment.content();
            fs::write(log(&home, moment), &content[..moment.at_the_backup()]).unwrap();
        }
        let config = deliver(&[("logs", &home.join("logs/*"))], &[&proxy.url()]);
        let extra = "scan_interval: 300ms\nconnections: 2\nwarn_free: 1MiB\nrelease_after: never";
        let config = format!("{extra}\n{config}");
        let mut client = Client::start(&home.join("client"), &config);
        for moment in MOMENTS.into_iter().filter(|it| *it != Moment::Before) {
            let content = &moment.content()[..moment.at_the_backup()];
            wait_until(moment.name(), || server.holds(path(moment), content));
        }
        // A body that stops on its way.
        client.kill();
        proxy.set(Fault::StallAfter(STALL));
        grow(&home, Moment::MidAppend);
        client.restart();
        let vouched = Moment::MidAppend.at_the_backup();
        wait_until("a part of it is there", || {
            let copy = server.file(path(Moment::MidAppend));
            copy.is_some_and(|copy| copy.len() > vouched)
        });
        let load = back_up(&home, &mut server, copying);
        let half = fs::metadata(home.join("backup").join(path(Moment::MidAppend)))
            .unwrap()
            .len();
        assert!(half > vouched as u64 && half < LENGTH as u64);
        proxy.set(Fault::None);
        for moment in [Moment::Before, Moment::Middle, Moment::End] {
            grow(&home, moment);
        }
        let stage = Self {
            home,
            server,
            client,
            proxy,
            load,
            copying,
            _scratch: scratch,
        };
        stage.wait_delivered();
        stage
    }

    /// Restores the server's files, its index, both or nothing.
    pub fn restore(&self, files: bool, index: bool) {
        let (live, backup) = (&self.server.datadir, self.home.join("backup"));
        let aside = self.home.join("aside");
        self.copying.copy(&backup, &aside);
        let fresh = self.home.join("fresh");
        match (files, index) {
            (true, true) => fs::rename(&aside, &fresh).unwrap(),
            (true, false) => {
                fs::remove_dir_all(aside.join(".shaftlog")).unwrap();
                move_over(&live.join(".shaftlog"), &aside.join(".shaftlog"));
                fs::rename(&aside, &fresh).unwrap();
            }
            (false, true) => {
                fs::remove_dir_all(live.join(".shaftlog")).unwrap();
                move_over(&aside.join(".shaftlog"), &live.join(".shaftlog"));
                return;
            }
            (false, false) => fs::create_dir(&fresh).unwrap(),
        }
        fs::rename(live, self.home.join("old")).unwrap();
        fs::rename(&fresh, live).unwrap();
    }

    /// Until the client says that every byte is confirmed, and the server has it and vouches for it.
    pub fn wait_delivered(&self) {
        for moment in MOMENTS {
            let content = moment.content();
            wait_until(moment.name(), || {
                self.server.holds(path(moment), &content)
                    && self.is_vouched_for(moment)
                    && self.is_confirmed(moment)
            });
        }
    }

    /// Whether the server's index says that it has all of a log.
    pub fn is_vouched_for(&self, moment: Moment) -> bool {
        let files = rows(&self.server.datadir, "files");
        let path = format!("/{}", path(moment));
        let row = files.iter().find(|row| row["path"] == path);
        row.is_some_and(|row| row["length"] == LENGTH && row["state"] == "vouched")
    }

    fn is_confirmed(&self, moment: Moment) -> bool {
        let progress = rows(&self.client.datadir, "progress");
        let row = progress.iter().find(|row| row["name"] == path(moment));
        row.is_some_and(|row| row["confirmed"] == LENGTH && row["state"] == "current")
    }

    /// Every file at the server that is none of the logs.
    pub fn foreign(&self) -> Vec<PathBuf> {
        let files = crate::common::tree(&self.server.datadir).into_keys();
        let logs = MOMENTS.into_iter().map(path).chain([load::PATH]);
        let ours: Vec<PathBuf> = logs.map(PathBuf::from).collect();
        files.filter(|file| !ours.contains(file)).collect()
    }

    /// Kinds and subjects of the events of either side, from the one with this number on.
    pub fn events(datadir: &Path, from: u64) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| {
            value
                .as_str()
                .unwrap_or("")
                .trim_start_matches('/')
                .to_owned()
        };
        let rows = rows(datadir, "events").into_iter();
        let rows = rows.filter(|row| row["sequence"].as_u64() >= Some(from));
        rows.map(|row| {
            let subject = row["name"].as_str().map_or(&row["path"], |_| &row["name"]);
            (text(&row["kind"]), text(subject))
        })
        .collect()
    }

    /// Bytes of the logs that the backup has, whether its index vouches for them or not.
    pub fn in_the_backup(&self) -> u64 {
        let length = |moment: Moment| {
            let copy = self.home.join("backup").join(path(moment));
            fs::metadata(copy).map_or(0, |stat| stat.len())
        };
        MOMENTS.into_iter().map(length).sum()
    }
}

/// Makes the backup. A server that is copied live has its load, before, meanwhile and from then on.
fn back_up(home: &Path, server: &mut Server, copying: Copying) -> Option<Load> {
    let (from, to) = (&server.datadir.clone(), &home.join("backup"));
    match copying {
        Copying::Archive => {
            server.kill();
            copying.copy(from, to);
            server.restart();
            None
        }
        Copying::Snapshot => {
            let load = Load::start(home, server);
            copying.copy(from, to);
            load::wait_for_more(server);
            Some(load)
        }
    }
}

/// Moves a directory, between two subvolumes too.
fn move_over(from: &Path, to: &Path) {
    let output = Command::new("mv")
        .arg("-T")
        .args([from, to])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

pub fn log(home: &Path, moment: Moment) -> PathBuf {
    home.join("logs").join(moment.name())
}

/// The log's path at the server, and its stable name.
pub fn path(moment: Moment) -> &'static str {
    match moment {
        Moment::Before => "logs/before",
        Moment::Middle => "logs/middle",
        Moment::End => "logs/end",
        Moment::MidAppend => "logs/mid-append",
    }
}

/// Writes the rest of a log.
fn grow(home: &Path, moment: Moment) {
    let rest = &moment.content()[moment.at_the_backup()..];
    append(&log(home, moment), rest);
}

/// Bytes of all logs.
pub fn all() -> u64 {
    (LENGTH * MOMENTS.len()) as u64
}
