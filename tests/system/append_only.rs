//! Files that have been quiet become append-only, on a filesystem that has the flag: nobody cuts or
//! removes them by mistake, and the server itself does all that it did.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_getflags};

use crate::common::{self, Client, Server, append, said, wait_until};
use crate::filesystems::{other_filesystem, settings};
use crate::{need, scratch};

const ON: &str = "min_free: 0\nappend_only: {after: 1s}";
const OFF: &str = "min_free: 0";

fn is_append_only(path: &Path) -> bool {
    let file = File::open(path).expect("the file");
    let flags = ioctl_getflags(&file).expect("a filesystem with flags");
    flags.contains(IFlags::APPEND)
}

/// Restarts the server, each start being a walk, until these are append-only.
fn wait_for_flags(server: &mut Server, files: &[PathBuf]) {
    wait_until("the quiet files are append-only", || {
        server.terminate();
        server.restart();
        files.iter().all(|file| is_append_only(file))
    });
}

/// The files of the events that say that a flag was lifted.
fn lifted(server: &Server) -> BTreeSet<String> {
    let events = common::rows(&server.datadir, "events");
    let events = events
        .iter()
        .filter(|event| event["kind"] == "append_only_lifted");
    events
        .filter_map(|event| event["path"].as_str().map(str::to_owned))
        .collect()
}

fn operate(server: &Server, args: &[&str]) {
    let config = server.config();
    let args = args.iter().map(OsStr::new);
    let output = common::run(args.chain([OsStr::new("--config"), config.as_os_str()]));
    assert!(output.status.success(), "{}", said(&output));
}

fn copies(server: &Server) -> Vec<Vec<u8>> {
    let quarantine = server.datadir.join(".shaftlog/quarantine");
    let copies = fs::read_dir(quarantine).into_iter().flatten();
    copies
        .map(|copy| fs::read(copy.expect("a name").path()).expect("a copy"))
        .collect()
}

#[test]
#[ignore = "needs root, loop mounts"]
fn quiet_files_are_append_only_until_the_server_has_to_cut_or_move_them() {
    need(&["mkfs.ext4", "mount", "setpriv"]);
    let home = scratch();
    let _other = other_filesystem(home.path());
    let logs = home.path().join("logs");
    fs::create_dir(&logs).expect("a directory");
    let names = ["quiet", "cut", "moved", "gone"];
    let source = |name: &str| logs.join(format!("{name}.log"));
    for name in names {
        append(&source(name), b"one\n");
    }
    let mut server = Server::start(&home.path().join("other/server"), ON);
    let there = server.datadir.clone();
    let file = |name: &str| there.join(format!("a/{name}.log"));
    let pattern = logs.join("*.log");
    let client = settings(&[("a", &pattern)], &server);
    let client = Client::configure(&home.path().join("client"), &client);
    let sync = || {
        let output = client.sync(&["--patience", "3s"]);
        output.status.success()
    };
    assert!(sync());
    let files = names.map(file);
    wait_for_flags(&mut server, &files);

    // Nobody can, root included.
    let quiet = file("quiet");
    for refused in [
        fs::remove_file(&quiet),
        fs::rename(&quiet, file("other")),
        File::options().write(true).open(&quiet).map(drop),
    ] {
        let kind = refused.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::PermissionDenied));
    }
    // The server goes on, and knows its files after a restart.
    append(&source("quiet"), b"two\n");
    assert!(sync());
    assert!(server.holds("a/quiet.log", b"one\ntwo\n") && is_append_only(&quiet));
    server.terminate();
    server.restart();
    assert!(!server.output().contains("touched by"));
    assert_eq!(lifted(&server), BTreeSet::new());

    // What was set stays, and is lifted where it has to be, without the setting too.
    server.terminate();
    server.reconfigure(OFF);
    server.restart();
    append(&file("cut"), b"no bytes of the source\n");
    append(&source("cut"), b"two\n");
    assert!(sync());
    assert!(server.holds("a/cut.log", b"one\ntwo\n") && !is_append_only(&file("cut")));
    operate(&server, &["quarantine", "/a/moved.log"]);
    operate(&server, &["retire", "/a/gone.log", "--older-than", "1ms"]);
    assert!(!file("moved").exists() && !file("gone").exists());
    let kept = copies(&server);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.contains(&b"no bytes of the source\n".to_vec()));
    let expected = ["/a/cut.log", "/a/gone.log", "/a/moved.log"].map(str::to_owned);
    assert_eq!(lifted(&server), BTreeSet::from(expected));

    // Without the capability: one warning, appends go on, and no cut leaves a copy behind each time.
    server.terminate();
    server.reconfigure(ON);
    server.wrap(&["setpriv", "--bounding-set", "-linux_immutable"]);
    let warnings = |server: &Server| {
        let output = server.output();
        output.matches("cannot be made append-only").count()
    };
    append(&source("quiet"), b"three\n");
    append(&source("new"), b"one\n");
    let mut runs = 0;
    wait_until("it is told that the flag cannot be set", || {
        if server.daemon.is_some() {
            server.terminate();
        }
        server.restart();
        runs += 1;
        warnings(&server) > 0
    });
    assert!(warnings(&server) <= runs, "{}", server.output());
    sync();
    assert!(server.holds("a/quiet.log", b"one\ntwo\nthree\n"));
    append(&quiet, b"nor these\n");
    append(&source("quiet"), b"four\n");
    for _ in 0..2 {
        assert!(!sync());
    }
    assert_eq!(copies(&server).len(), 2);
    server.terminate();
    server.wrap(&[]);
    server.restart();
    sync();
    assert!(server.holds("a/quiet.log", b"one\ntwo\nthree\nfour\n"));
    assert_eq!(copies(&server).len(), 3);
    server.terminate();
}
