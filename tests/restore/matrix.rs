//! What is restored, and how the client stands.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::load;
use super::snapshots::Btrfs;
use super::stage::{Copying, MOMENTS, Moment, Stage, all, log, path};
use crate::common::{rows, run, said, wait_until};

/// What comes back as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Restored {
    Both,
    Files,
    Index,
    Nothing,
}

/// How the client stands when it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Running,
    Restarted,
    Rebuilt,
    Released,
}

const STANDINGS: [Standing; 4] = [
    Standing::Running,
    Standing::Restarted,
    Standing::Rebuilt,
    Standing::Released,
];

const RESTORED: [Restored; 4] = [
    Restored::Both,
    Restored::Files,
    Restored::Index,
    Restored::Nothing,
];

/// What a client says of every file, whatever happens to the server.
const USUAL: [&str; 4] = ["discovered", "renamed_source", "rebuilt", "released"];

/// Kinds and subjects, in order.
type Told = Vec<(String, String)>;

fn last_event(datadir: &Path) -> u64 {
    if !datadir.join(".shaftlog").exists() {
        return 0;
    }
    let events = rows(datadir, "events");
    events
        .iter()
        .filter_map(|row| row["sequence"].as_u64())
        .max()
        .unwrap_or(0)
}

fn check(stage: &mut Stage, restored: Restored, standing: Standing) {
    println!("{restored:?} restored, client {standing:?}");
    if standing == Standing::Released {
        release(stage);
    }
    let seen = last_event(&stage.client.datadir);
    if matches!(standing, Standing::Restarted | Standing::Rebuilt) {
        assert!(stage.client.terminate().success());
    }
    stage.server.kill();
    let before = stage.proxy.bodies();
    let (files, index) = match restored {
        Restored::Both => (true, true),
        Restored::Files => (true, false),
        Restored::Index => (false, true),
        Restored::Nothing => (false, false),
    };
    stage.restore(files, index);
    let (inodes, recorded) = (inodes(stage), last_event(&stage.server.datadir));
    stage.server.restart();
    if standing == Standing::Rebuilt {
        rebuild(stage);
    }
    if matches!(standing, Standing::Restarted | Standing::Rebuilt) {
        stage.client.restart();
    }
    let missing = if standing == Standing::Released {
        released(stage, restored);
        0
    } else {
        healed(stage);
        match restored {
            Restored::Both | Restored::Files => all() - stage.in_the_backup(),
            Restored::Index => 0,
            Restored::Nothing => all(),
        }
    };
    // Nothing was sent that was there already, vouched for or not.
    assert_eq!(stage.proxy.bodies() - before, missing);
    if let Some(load) = stage.load.take() {
        load.finish(&stage.server);
    }
    assert_eq!(stage.foreign(), [""; 0].map(PathBuf::from));
    for (path, inode) in inodes {
        let now = fs::metadata(stage.server.datadir.join(path)).unwrap().ino();
        assert_eq!(now, inode, "{path} is another file");
    }
    let from = if standing == Standing::Rebuilt {
        0
    } else {
        seen + 1
    };
    let mut client = Stage::events(&stage.client.datadir, from);
    client.retain(|(kind, _)| !USUAL.contains(&kind.as_str()));
    client.sort();
    assert_eq!(client, client_tells(restored, standing), "the client");
    let mut server = Stage::events(&stage.server.datadir, recorded + 1);
    server.retain(|(_, name)| name != load::PATH);
    server.sort();
    let is_live = stage.copying == Copying::Snapshot;
    assert_eq!(
        server,
        server_tells(restored, standing, is_live),
        "the server"
    );
}

/// The inodes of the logs' copies.
fn inodes(stage: &Stage) -> Vec<(&'static str, u64)> {
    let paths = MOMENTS.into_iter().map(path);
    let inode = |path| Some((path, fs::metadata(stage.server.datadir.join(path)).ok()?));
    let found = paths.filter_map(inode);
    found.map(|(path, stat)| (path, stat.ino())).collect()
}

/// Until all is confirmed and the client has looked at everything; both sides' evidence agrees.
fn healed(stage: &Stage) {
    stage.wait_delivered();
    wait_swept(stage);
    stage.wait_delivered();
    for datadir in [&stage.client.datadir, &stage.server.datadir] {
        let how: &[&OsStr] = if datadir == &stage.client.datadir {
            &["--remote".as_ref()]
        } else {
            &["/logs/*".as_ref()]
        };
        let args = ["verify".as_ref(), "--datadir".as_ref(), datadir.as_os_str()];
        let output = run(args.iter().chain(how));
        assert!(output.status.success(), "{}", said(&output));
    }
}

fn wait_swept(stage: &Stage) {
    wait_until("all was looked at", || {
        let destinations = rows(&stage.client.datadir, "destinations");
        destinations.iter().all(|row| row["sweep_pending"] == false)
    });
}

/// The same event about each of these.
fn each(kind: &str, moments: &[Moment]) -> Told {
    let paths = moments.iter().map(|moment| path(*moment));
    paths
        .map(|path| (kind.to_owned(), path.to_owned()))
        .collect()
}

/// What the client has to say of a restore, and nothing else.
fn client_tells(restored: Restored, standing: Standing) -> Told {
    let mut told = match (restored, standing) {
        // The bytes are there; and a rebuilt client does not know that more was confirmed.
        (Restored::Index, _) | (_, Standing::Rebuilt) => Vec::new(),
        (_, Standing::Released) => each("lost", &MOMENTS),
        (_, Standing::Running | Standing::Restarted) => each("server_restored", &MOMENTS),
    };
    told.sort();
    told
}

/// What the server has to say, and nothing else. A rebuilt client has forgotten what it has seen of
/// the index; the one that loads a live server has not.
fn server_tells(restored: Restored, standing: Standing, is_live: bool) -> Told {
    let is_released = standing == Standing::Released;
    let mut told = match restored {
        Restored::Both if !is_released => each("tail_adopted", &[Moment::MidAppend]),
        Restored::Files if !is_released => {
            [each("regressed", &MOMENTS), each("refilled", &MOMENTS)].concat()
        }
        Restored::Files => each("regressed", &MOMENTS),
        Restored::Index => each("tail_adopted", &MOMENTS),
        Restored::Both | Restored::Nothing => Vec::new(),
    };
    let is_seen = standing != Standing::Rebuilt || is_live;
    if restored != Restored::Files && is_seen {
        told.push(("server_restored".to_owned(), String::new()));
    }
    told.sort();
    told
}

/// Loses the database and makes it anew.
fn rebuild(stage: &Stage) {
    fs::remove_file(stage.client.datadir.join(".shaftlog/client.redb")).unwrap();
    let config = stage.client.config();
    let args: [&OsStr; 4] = [
        "db".as_ref(),
        "rebuild".as_ref(),
        "-f".as_ref(),
        config.as_ref(),
    ];
    let output = run(args);
    assert!(output.status.success(), "{}", said(&output));
}

/// Has every link released.
fn release(stage: &mut Stage) {
    let config = fs::read_to_string(stage.client.config()).unwrap();
    assert!(stage.client.terminate().success());
    let config = config.replace("release_after: never", "release_after: 100ms");
    fs::write(stage.client.config(), config).unwrap();
    for moment in MOMENTS {
        fs::remove_file(log(&stage.home, moment)).unwrap();
    }
    stage.client.restart();
    for moment in MOMENTS {
        wait_until("it is released", || {
            let files = rows(&stage.client.datadir, "files");
            let row = files.iter().find(|row| row["name"] == path(moment));
            row.is_some_and(|row| row["state"] == "released")
        });
    }
}

/// Nobody has the bytes but the server: they are vouched for again, or lost.
fn released(stage: &mut Stage, restored: Restored) {
    let wanted = match restored {
        Restored::Index => "current",
        _ => "lost",
    };
    for moment in MOMENTS {
        wait_until(moment.name(), || {
            let progress = rows(&stage.client.datadir, "progress");
            let row = progress.iter().find(|row| row["name"] == path(moment));
            row.is_some_and(|row| row["state"] == wanted)
        });
        if restored == Restored::Index {
            assert!(stage.server.holds(path(moment), &moment.content()));
            wait_until("it is vouched for", || stage.is_vouched_for(moment));
        }
    }
    wait_swept(stage);
    // A second look, after a restart of both, says nothing more.
    assert!(stage.client.terminate().success());
    stage.server.kill();
    stage.server.restart();
    stage.client.restart();
    wait_swept(stage);
}

/// Two of the client's states in the short form, which takes a minute; all of them in the long one.
fn all_of(restored: Restored, short: [Standing; 2]) {
    let long = std::env::var_os("SHAFTLOG_LONG").is_some();
    for standing in STANDINGS
        .into_iter()
        .filter(|it| long || short.contains(it))
    {
        let mut stage = Stage::new(TempDir::new().unwrap(), Copying::Archive);
        check(&mut stage, restored, standing);
    }
}

#[test]
fn files_and_index_restored() {
    all_of(Restored::Both, [Standing::Running, Standing::Released]);
}

#[test]
fn older_files_under_a_newer_index() {
    all_of(Restored::Files, [Standing::Running, Standing::Restarted]);
}

#[test]
fn newer_files_under_an_older_index() {
    all_of(Restored::Index, [Standing::Rebuilt, Standing::Released]);
}

#[test]
fn nothing_restored() {
    all_of(Restored::Nothing, [Standing::Running, Standing::Rebuilt]);
}

/// The same with snapshots of a filesystem, taken while the server wrote: nothing was stopped for
/// them, and the load goes on to the end.
#[test]
#[ignore = "needs root and btrfs"]
fn restored_from_snapshots() {
    let image = Btrfs::mount();
    for restored in RESTORED {
        for standing in STANDINGS {
            let scratch = TempDir::new_in(image.path()).unwrap();
            let mut stage = Stage::new(scratch, Copying::Snapshot);
            check(&mut stage, restored, standing);
        }
    }
}
