//! Odd names, rotation, and files that change as log files should not.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::common::{Client, Server, append, deliver, rows, wait_until};

#[test]
fn names_of_any_bytes_arrive_under_paths_that_decode_to_them() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let long = vec![b'n'; 200];
    let names: &[&[u8]] = &[
        b"with space",
        b"what?",
        b"ha#sh",
        b"per%cent",
        b"per%25cent",
        b"new\nline",
        b"\xff\xfe not utf-8",
        b"\xff\xfd not utf-8",
        "Zürich".as_bytes(),
        &long,
    ];
    for name in names {
        fs::write(logs.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let server = Server::start(&home.path().join("server"), "");
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    let _client = Client::start(&home.path().join("client"), &config);
    for name in names {
        let path = server.datadir.join("logs").join(OsStr::from_bytes(name));
        wait_until(&format!("{path:?} arrives"), || {
            fs::read(&path).is_ok_and(|b| b == *name)
        });
    }
    assert_eq!(
        fs::read_dir(server.datadir.join("logs")).unwrap().count(),
        names.len()
    );
}

#[test]
fn two_files_of_one_moment_get_two_names() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let moment = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
    for name in ["a", "b"] {
        let file = fs::File::create(logs.join(name)).unwrap();
        std::io::Write::write_all(&mut &file, name.as_bytes()).unwrap();
        file.set_modified(moment).unwrap();
    }
    fs::write(logs.join("empty"), "").unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let config = format!(
        "scan_paths:\n- {{name: two, pattern: '{0}/[ab]'}}\n\
         - {{name: none, pattern: '{0}/empty', regex_from: '^.*$', regex_to: 'empty'}}\n\
         destinations:\n- url: {1}\n",
        logs.display(),
        server.url()
    );
    let _client = Client::start(&home.path().join("client"), &config);
    wait_until("both arrive", || {
        let mut found: Vec<Vec<u8>> = ["two.1700000000123", "two.1700000000123.1"]
            .iter()
            .filter_map(|name| server.file(name))
            .collect();
        found.sort();
        found == [b"a".to_vec(), b"b".to_vec()]
    });
    wait_until("the empty file exists", || server.holds("empty", b""));
}

#[test]
fn three_rotations_while_the_client_is_away() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let config = format!(
        "scan_paths:\n- {{name: log, pattern: '{}/log*', rename: 'log.{{ino}}'}}\n\
         destinations:\n- url: {}\n",
        logs.display(),
        server.url()
    );
    let log = logs.join("log");
    fs::write(&log, "first\n").unwrap();
    let first = inode(&log);
    let mut client = Client::start(&home.path().join("client"), &config);
    wait_until("the first line arrives", || {
        server.holds(&format!("log.{first}"), b"first\n")
    });
    assert!(client.terminate().success());

    append(&log, "first, unseen\n");
    let mut expected = vec![(first, "first\nfirst, unseen\n".to_owned())];
    for generation in 1..=3 {
        for older in (1..generation).rev() {
            fs::rename(
                logs.join(format!("log.{older}")),
                logs.join(format!("log.{}", older + 1)),
            )
            .unwrap();
        }
        fs::rename(&log, logs.join("log.1")).unwrap();
        fs::write(&log, format!("generation {generation}\n")).unwrap();
        expected.push((inode(&log), format!("generation {generation}\n")));
    }
    client.restart();
    for (inode, text) in &expected {
        let name = format!("log.{inode}");
        wait_until(&format!("{name} arrives"), || {
            server.holds(&name, text.as_bytes())
        });
    }
    let delivered = fs::read_dir(&server.datadir).unwrap().flatten();
    let names: Vec<_> = delivered
        .map(|e| e.file_name())
        .filter(|n| n != ".shaftlog")
        .collect();
    assert_eq!(names.len(), expected.len(), "{names:?}");
}

#[test]
fn a_truncated_file_begins_a_new_life_and_is_never_spliced() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let log = logs.join("log");
    fs::write(&log, "the first life\n").unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    let client = Client::start(&home.path().join("client"), &config);
    wait_until("the first life arrives", || {
        server.holds("logs/log", b"the first life\n")
    });
    // As copytruncate does: the same inode, cut and written again, longer than before.
    fs::File::options()
        .write(true)
        .truncate(true)
        .open(&log)
        .unwrap();
    append(&log, "the second life, which is longer than the first\n");
    wait_until("the second life arrives under its own name", || {
        server.holds(
            "logs/log.1",
            b"the second life, which is longer than the first\n",
        )
    });
    assert!(server.holds("logs/log", b"the first life\n"));
    let superseded = || {
        let events = rows(&client.datadir, "events");
        events
            .iter()
            .filter(|event| event["kind"] == "superseded")
            .count()
    };
    wait_until("one event", || superseded() == 1);
    append(&log, "more\n");
    wait_until("it goes on", || {
        server.holds(
            "logs/log.1",
            b"the second life, which is longer than the first\nmore\n",
        )
    });
    assert_eq!(superseded(), 1);
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}
