//! `shaftlog verify`: exit codes, and what it names.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use indicatif::HumanBytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::common::{append, prefix_hash, rows, run, said, shaftlog, wait_until};
use crate::{Pair, json, told};

const LONG: &[u8] = &[b'x'; 300_000];

#[test]
fn a_server_s_files_are_right_live_killed_and_at_rest() {
    let mut pair = Pair::new(&[("a", b"hello\n"), ("b", LONG), ("empty", b"")]);
    let check = |pair: &Pair| {
        let (exit, findings) = json(&["verify"], &pair.server.datadir);
        assert_eq!(exit, Some(0), "{findings:?}");
        assert_eq!(findings.len(), 3, "{findings:?}");
        for finding in &findings {
            assert_eq!(finding["table"], "verify");
            assert_eq!(finding["side"], "server");
            assert_eq!(finding["verdict"], "right");
            let file = finding["file"].as_str().unwrap().trim_start_matches('/');
            let length = finding["length"].as_u64().unwrap();
            let hash = prefix_hash(&pair.server.datadir.join(file), length);
            assert_eq!(finding["blake3"], hash.as_str());
        }
    };
    check(&pair);
    pair.server.kill();
    check(&pair);
    pair.server.restart();
    assert!(pair.server.terminate().success());
    check(&pair);
}

#[test]
fn what_is_wrong_with_a_server_s_files_is_named_and_ends_with_its_code() {
    let pair = Pair::new(&[
        ("a", b"hello\n"),
        ("b", LONG),
        ("c", b"gone"),
        ("d", b"fine"),
    ]);
    let b = OpenOptions::new().write(true).open(pair.copy("b")).unwrap();
    fs::remove_file(pair.copy("c")).unwrap();
    fs::write(pair.copy("foreign"), "nobody delivered this").unwrap();
    let (exit, findings) = json(&["verify"], &pair.server.datadir);
    assert_eq!(exit, Some(3), "{findings:?}");
    b.write_all_at(b"y", 200_000).unwrap();
    let (exit, findings) = json(&["verify"], &pair.server.datadir);
    assert_eq!(exit, Some(4), "{findings:?}");
    let verdict = |file: &str| {
        let found = findings.iter().find(|finding| finding["file"] == file);
        found.unwrap_or_else(|| panic!("no {file} in {findings:?}"))
    };
    assert_eq!(verdict("/x/a")["verdict"], "right");
    assert_eq!(verdict("/x/b")["verdict"], "differs");
    assert_eq!(verdict("/x/b")["first_difference"]["end"], 300_000);
    assert_eq!(verdict("/x/c")["verdict"], "missing");
    assert_eq!(verdict("/x/foreign")["verdict"], "no_row");
    // Only what is asked for counts.
    for (pattern, code) in [("/x/d", 0), ("/x/c", 3), ("/x/b", 4), ("/y/*", 3)] {
        let output = told(&["verify", pattern], &pair.server.datadir, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    }
    let output = told(&["verify", "/x/b"], &pair.server.datadir, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("/x/b  differs"), "{text}");
    assert!(text.contains("0..300000"), "{text}");
}

#[test]
fn a_file_that_grows_is_right_up_to_what_was_recorded() {
    let pair = Pair::new(&[("a", b"hello\n")]);
    append(&pair.copy("a"), "more");
    let (exit, findings) = json(&["verify"], &pair.server.datadir);
    assert_eq!(exit, Some(0), "{findings:?}");
    assert_eq!(findings[0]["length"], 6);
    assert_eq!(findings[0]["beyond"], 4);
}

#[test]
fn beside_a_writer_every_verification_passes_up_to_what_was_recorded() {
    let content = vec![b'x'; 8_000_000];
    let pair = Pair::new(&[("a", &content)]);
    let recorded = || {
        let rows = rows(&pair.server.datadir, "files");
        rows[0]["length"].as_u64().unwrap()
    };
    thread::scope(|scope| {
        // It ends when nobody holds the other side, after a panic too.
        let (_writes, go_on) = mpsc::channel::<()>();
        let log = pair.logs.join("a");
        scope.spawn(move || {
            let pace = Duration::from_millis(2);
            while go_on.recv_timeout(pace) == Err(RecvTimeoutError::Timeout) {
                append(&log, "another line\n");
            }
        });
        let mut overtaken = BTreeSet::new();
        wait_until("it has grown under several of them", || {
            let before = recorded();
            let (exit, findings) = json(&["verify"], &pair.server.datadir);
            let after = recorded();
            assert_eq!((exit, findings.len()), (Some(0), 1), "{findings:?}");
            let finding = &findings[0];
            assert_eq!(finding["verdict"], "right", "{finding}");
            let length = finding["length"].as_u64().unwrap();
            assert!(
                (before..=after).contains(&length),
                "{before} to {after}: {finding}"
            );
            assert_eq!(
                finding["blake3"],
                prefix_hash(&pair.copy("a"), length).as_str()
            );
            if length < after {
                overtaken.insert(length);
            }
            // The client's side of the same.
            let (exit, findings) = json(&["verify"], &pair.client.datadir);
            assert_eq!((exit, findings.len()), (Some(0), 1), "{findings:?}");
            let length = findings[0]["length"].as_u64().unwrap();
            let hash = prefix_hash(&pair.logs.join("a"), length);
            assert_eq!(findings[0]["blake3"], hash.as_str());
            overtaken.len() >= 5
        });
    });
}

/// Runs the program with a terminal as its stderr; its exit code, what it printed, and what the
/// terminal got.
fn on_a_terminal(words: &[&OsStr]) -> (Option<i32>, String, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let stderr = OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits().cast_signed())
        .open(OsStr::from_bytes(name.as_bytes()))
        .unwrap();
    // A temporary: its side of the terminal goes with it.
    let child = shaftlog()
        .args(words)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    // Linux ends it with EIO when nobody has the other side any more.
    let mut shown = Vec::new();
    let end = File::from(master).read_to_end(&mut shown).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(Errno::IO.raw_os_error()), "{end}");
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&shown))
}

#[test]
fn a_terminal_shows_how_far_a_verification_is_and_nothing_else_of_it() {
    let mut length = 128 << 20;
    wait_until("bars show a long file at work", || {
        // Twice as long each time: a fast machine is done before there is anything to show.
        length *= 2;
        let datadir = tempfile::tempdir().unwrap();
        let log = datadir.path().join("log");
        File::create(&log).unwrap().set_len(length).unwrap();
        let output = told(&["db", "rebuild"], datadir.path(), &[]);
        assert!(output.status.success(), "{}", said(&output));
        let all = length.to_string();
        let hash = "0".repeat(64);
        let database = ["--datadir".as_ref(), datadir.path().as_os_str()];
        let mut prefix = ["--file", "", "--length", &all, "--blake3", &hash].map(OsStr::new);
        prefix[1] = log.as_os_str();
        // Nobody has confirmed it since the rebuild, and it is not full of what has that hash.
        [
            (&database[..], datadir.path(), "unproven", 3),
            (&prefix[..], &log, "differs", 4),
        ]
        .into_iter()
        .all(|(target, label, verdict, code)| {
            let words = [&["verify".as_ref(), "--json".as_ref()], target].concat();
            let (exit, printed, shown) = on_a_terminal(&words);
            assert_eq!(exit, Some(code), "{printed}{shown}");
            let finding: Value = serde_json::from_str(&printed).unwrap();
            assert_eq!(finding["verdict"], verdict);
            assert!(!shown.contains(verdict), "{shown:?}");
            let bar = format!("{} [", label.display());
            let total = format!("iB/{} ", HumanBytes(length));
            [&bar, &total, " 0 of 1 files, ", " left"]
                .iter()
                .all(|part| shown.contains(*part))
        })
    });
}

#[test]
fn without_evidence_nothing_passes() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("a"), "a").unwrap();
    let output = told(&["verify"], home.path(), &[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let output = told(&["db", "rebuild"], home.path(), &[]);
    assert!(output.status.success(), "{}", said(&output));
    let (exit, findings) = json(&["verify"], home.path());
    assert_eq!(exit, Some(3), "{findings:?}");
    assert_eq!(findings[0]["verdict"], "unproven");
    fs::write(home.path().join(".shaftlog/server.redb"), "no database").unwrap();
    let output = told(&["verify"], home.path(), &[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
}

#[test]
fn one_prefix_needs_no_database() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("log");
    fs::write(&file, "hello\nworld\n").unwrap();
    let path = file.to_str().unwrap();
    let hello = blake3::hash(b"hello\n").to_hex();
    let verify = |length: &str, hash: &str| {
        let output = run([
            "verify", "--file", path, "--length", length, "--blake3", hash,
        ]);
        (output.status.code(), said(&output))
    };
    let (code, text) = verify("6", &hello);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("record"), "{text}");
    let (code, text) = verify("7", &hello);
    assert_eq!(code, Some(4), "{text}");
    assert!(
        text.contains("was asked for") && !text.contains("record"),
        "{text}"
    );
    let (code, text) = verify("13", &hello);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("it ends at 12"), "{text}");
    for (length, verdict, code) in [(6, "right", 0), (7, "differs", 4), (13, "short", 3)] {
        let all = length.to_string();
        let words = [
            "verify", "--file", path, "--length", &all, "--blake3", &hello,
        ];
        let output = run(words.into_iter().chain(["--json"]));
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        let finding: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&finding["table"], &finding["side"]),
            (&"verify".into(), &"file".into())
        );
        assert_eq!(
            (&finding["file"], &finding["verdict"]),
            (&path.into(), &verdict.into())
        );
        assert_eq!(
            (&finding["length"], &finding["blake3"]),
            (&length.into(), &hello.as_str().into())
        );
        // One chunk is all there is of so short a file.
        let end = &finding["first_difference"]["end"];
        assert_eq!(
            end.as_u64(),
            (verdict == "differs").then_some(7),
            "{finding}"
        );
    }
    for (length, hash) in [
        ("6", "abc"),
        ("-1", &hello),
        ("9223372036854775808", &hello),
    ] {
        let (code, text) = verify(length, hash);
        assert_eq!(code, Some(2), "{text}");
    }
    for words in [
        &["verify", "--file", path][..],
        &["verify", "--file", path, "--length", "1"],
        &["verify", "--length", "1"],
    ] {
        assert_eq!(run(words).status.code(), Some(2), "{words:?}");
    }
    fs::remove_file(&file).unwrap();
    let (code, text) = verify("6", &hello);
    assert_eq!(code, Some(3), "{text}");
}
