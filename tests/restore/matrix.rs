//! What is restored, and how the client stands.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

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

const RESTORED: [Restored; 4] = [
    Restored::Both,
    Restored::Files,
    Restored::Index,
    Restored::Nothing,
];

/// Request heads, confirms and heartbeats of a run: far less than a log.
const OVERHEAD: u64 = 60_000;

/// Events that would say something is wrong, in a restore that can be healed.
const ALARMS: [&str; 5] = [
    "superseded",
    "conflict",
    "lost",
    "diverged",
    "tail_quarantined",
];

fn last_event(datadir: &Path) -> u64 {
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
    let before = stage.proxy.sent();
    let (files, index) = match restored {
        Restored::Both => (true, true),
        Restored::Files => (true, false),
        Restored::Index => (false, true),
        Restored::Nothing => (false, false),
    };
    stage.restore(files, index);
    stage.server.restart();
    if standing == Standing::Rebuilt {
        rebuild(stage);
    }
    if matches!(standing, Standing::Restarted | Standing::Rebuilt) {
        stage.client.restart();
    }
    if standing == Standing::Released {
        released(stage, restored, seen);
        return;
    }
    stage.wait_delivered();
    wait_until("the sweep is over", || {
        let destinations = rows(&stage.client.datadir, "destinations");
        destinations.iter().all(|row| row["sweep_pending"] == false)
    });
    stage.wait_delivered();
    assert_eq!(stage.foreign(), [""; 0].map(std::path::PathBuf::from));
    let sent = stage.proxy.sent() - before;
    let missing = match restored {
        Restored::Both | Restored::Files => all() - stage.in_the_backup(),
        Restored::Index => 0,
        Restored::Nothing => all(),
    };
    assert!(
        sent <= missing + OVERHEAD,
        "{sent} bytes sent, {missing} were missing"
    );
    tells(stage, restored, standing, seen);
}

/// What both sides' events say of a restore that was healed.
fn tells(stage: &Stage, restored: Restored, standing: Standing, seen: u64) {
    let from = if standing == Standing::Rebuilt {
        0
    } else {
        seen + 1
    };
    let client = Stage::events(&stage.client.datadir, from);
    for (kind, name) in &client {
        assert!(!ALARMS.contains(&kind.as_str()), "{kind} {name}");
    }
    let told = |kind: &str, moment: Moment| {
        client
            .iter()
            .any(|(it, name)| it == kind && name == path(moment))
    };
    // A rebuilt client does not know what was confirmed: to it nothing was lost.
    let short = matches!(
        restored,
        Restored::Both | Restored::Files | Restored::Nothing
    );
    if short && standing != Standing::Rebuilt {
        for moment in [Moment::Before, Moment::Middle, Moment::End] {
            assert!(told("server_restored", moment), "{moment:?}: {client:?}");
        }
    }
}

/// Loses the database and makes it anew.
fn rebuild(stage: &Stage) {
    fs::remove_file(stage.client.datadir.join(".shaftlog/client.redb")).unwrap();
    let config = stage.client.config();
    let args: [&std::ffi::OsStr; 4] = [
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

/// Nobody has the bytes but the server: they are vouched for again, or lost, which is said once.
fn released(stage: &mut Stage, restored: Restored, seen: u64) {
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
            wait_until("it is vouched for", || {
                let files = rows(&stage.server.datadir, "files");
                let row = files
                    .iter()
                    .find(|row| row["path"] == format!("/{}", path(moment)));
                row.is_some_and(|row| row["length"] == moment.content().len())
            });
        }
    }
    // A second look, after a restart of both, says nothing more.
    assert!(stage.client.terminate().success());
    stage.server.kill();
    stage.server.restart();
    stage.client.restart();
    wait_until("it was looked at", || {
        let destinations = rows(&stage.client.datadir, "destinations");
        destinations.iter().all(|row| row["sweep_pending"] == false)
    });
    let events = Stage::events(&stage.client.datadir, seen + 1);
    for moment in MOMENTS {
        let of = |(kind, name): &&(String, String)| kind == "lost" && name == path(moment);
        let lost = events.iter().filter(of).count();
        assert_eq!(
            lost,
            usize::from(restored != Restored::Index),
            "{moment:?}: {events:?}"
        );
    }
}

/// Two of the client's states in the short form, which takes a minute; all of them in the long one.
fn all_of(restored: Restored, short: [Standing; 2]) {
    let all = [
        Standing::Running,
        Standing::Restarted,
        Standing::Rebuilt,
        Standing::Released,
    ];
    let long = std::env::var_os("SHAFTLOG_LONG").is_some();
    for standing in all.into_iter().filter(|it| long || short.contains(it)) {
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

/// The same with snapshots of a filesystem, taken while the server wrote.
#[test]
#[ignore = "needs root and btrfs"]
fn restored_from_snapshots() {
    let image = Btrfs::mount();
    for restored in RESTORED {
        for standing in [Standing::Running, Standing::Released] {
            let scratch = TempDir::new_in(image.path()).unwrap();
            let mut stage = Stage::new(scratch, Copying::Snapshot);
            check(&mut stage, restored, standing);
        }
    }
}
