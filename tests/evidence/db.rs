//! `shaftlog db history`, `events`, `check` and the filters.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use serde_json::Value;

use crate::common::{append, program, rows, said, wait_until};
use crate::{Pair, json, told};

#[test]
fn the_history_of_a_path_tells_length_hash_time_and_writer() {
    let pair = Pair::new(&[("a", b"hello\n"), ("b", b"other")]);
    let (exit, rows) = json(&["db", "history", "/x/a"], &pair.server.datadir);
    assert_eq!(exit, Some(0));
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(row["table"], "history");
    assert_eq!(row["path"], "/x/a");
    assert_eq!(row["length"], 6);
    assert_eq!(row["blake3"], blake3::hash(b"hello\n").to_hex().as_str());
    assert_eq!(row["present"], true);
    assert_eq!(row["writer"], "127.0.0.1");
    let at = row["at"].as_str().unwrap();
    // The moment is in it, and no other.
    let history = |more: &[&str]| {
        let output = told(&["db", "history", "x/a"], &pair.server.datadir, more);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("present")
    };
    assert!(history(&["--since", at]) && history(&["--until", at]));
    assert!(history(&["--since", "1h"]) && !history(&["--until", "1h"]));
    assert!(!history(&["--since", "2999-01-01"]));
    for (words, code, text) in [
        (&["db", "history", "/x/c"][..], 3, "did you mean /x/"),
        (&["db", "history", "b"], 3, "did you mean /x/b?"),
        (
            &["db", "history", "/elsewhere"],
            3,
            "`shaftlog db inspect` lists",
        ),
        (
            &["db", "history", "/x/a", "--until", "2001-01-01"],
            0,
            "no length of /x/a until 2001",
        ),
        (
            &["db", "history", "/x/a", "--since", "soon"],
            2,
            "2026-11-25",
        ),
    ] {
        let output = told(words, &pair.server.datadir, &[]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(output.stdout.is_empty(), "{}", said(&output));
        assert!(said(&output).contains(text), "{}", said(&output));
    }
    let output = told(&["db", "history", "/x/a"], &pair.client.datadir, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("only a server's"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_path_is_named_as_it_is_or_as_it_is_shown() {
    let pair = Pair::new(&[("a b%41", b"odd\n")]);
    for path in ["/x/a b%41", "/x/a b%2541"] {
        let (exit, rows) = json(&["db", "history", path], &pair.server.datadir);
        assert_eq!(exit, Some(0), "{path}");
        assert_eq!(rows[0]["path"], "/x/a b%2541");
    }
}

#[test]
fn events_and_rows_are_picked_by_kind_file_state_destination_and_time() {
    let pair = Pair::new(&[("a", b"hello\n"), ("b", b"other")]);
    let client = &pair.client.datadir;
    let picked = |words: &[&str]| -> Vec<Value> {
        let (exit, rows) = json(words, client);
        assert_eq!(exit, Some(0), "{words:?}");
        rows
    };
    let events = picked(&["db", "events"]);
    let first = &events[0];
    for key in ["sequence", "at", "kind", "name", "detail"] {
        assert!(first.get(key).is_some(), "no {key} in {first}");
    }
    assert!(events.iter().all(|event| event["table"] == "events"));
    let discovered = picked(&["db", "events", "--kind", "discovered"]);
    assert_eq!(discovered.len(), 2, "{events:?}");
    let of_a = picked(&["db", "events", "--kind", "discovered", "x/a"]);
    assert_eq!(of_a.len(), 1, "{of_a:?}");

    let current = picked(&["db", "inspect", "--state", "current", "x/*"]);
    assert_eq!(current.len(), 2, "{current:?}");
    assert!(current.iter().all(|row| row["table"] == "progress"));
    let there = picked(&["db", "inspect", "--destination", &pair.server.url()]);
    let tables: Vec<_> = there
        .iter()
        .map(|row| row["table"].as_str().unwrap())
        .collect();
    assert_eq!(tables, ["destinations", "progress", "progress"]);
}

/// When what a row speaks of was; none of a row that is not about a moment.
fn moment(row: &Value) -> Option<Timestamp> {
    let keys = ["at", "discovered", "confirmed_at", "updated"];
    let at = keys.iter().find_map(|key| row[key].as_str());
    at.map(|at| at.parse().unwrap())
}

#[test]
fn a_time_picks_what_is_not_older_or_not_newer_of_rows_and_events_on_both_sides() {
    let mut pair = Pair::new(&[("a", b"hello\n")]);
    append(&pair.logs.join("b"), "other\n");
    pair.wait_confirmed("b", 6);
    assert!(pair.client.terminate().success());
    for name in ["/x/a", "/x/b"] {
        let output = told(&["quarantine", name], &pair.server.datadir, &[]);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert!(pair.server.terminate().success());
    for datadir in [&pair.client.datadir, &pair.server.datadir] {
        for command in ["inspect", "events"] {
            let picked = |bounds: &[&str]| {
                let (exit, rows) = json(&[&["db", command], bounds].concat(), datadir);
                assert_eq!(exit, Some(0), "{command} {bounds:?}");
                rows
            };
            let all = picked(&[]);
            let moments: BTreeSet<_> = all.iter().filter_map(moment).collect();
            let (Some(first), Some(&last)) = (moments.first(), moments.last()) else {
                panic!("{all:?}")
            };
            assert!(first < &last, "{command}: {all:?}");
            for &bound in &moments {
                let at = bound.to_string();
                let that = |is: fn(&Timestamp, &Timestamp) -> bool| {
                    let mut rows = all.clone();
                    rows.retain(|row| moment(row).is_some_and(|moment| is(&moment, &bound)));
                    rows
                };
                assert_eq!(picked(&["--since", &at]), that(Timestamp::ge));
                assert_eq!(picked(&["--until", &at]), that(Timestamp::le));
                let both = ["--since", &at, "--until", &at];
                assert_eq!(picked(&both), that(Timestamp::eq));
            }
            // A file's name and a time, together.
            let is_client = datadir == &pair.client.datadir;
            let file = if is_client { "x/b" } else { "/x/b" };
            let mut of_file = picked(&[file]);
            let latest = of_file.iter().filter_map(moment).max().unwrap();
            let now = picked(&[file, "--since", &latest.to_string()]);
            of_file.retain(|row| moment(row) == Some(latest));
            assert_eq!(now, of_file);
        }
    }
}

#[test]
fn what_is_asked_for_and_not_there_is_said_and_a_misspelling_is_refused() {
    let pair = Pair::new(&[("a", b"hello\n")]);
    let (client, server) = (&pair.client.datadir, &pair.server.datadir);
    let url = pair.server.url();
    for (words, datadir, code, texts) in [
        (
            &["db", "events", "--until", "2001-01-01"][..],
            client,
            0,
            &["no event until 2001-01-01T00:00:00Z in ", "client.redb"][..],
        ),
        (
            &["db", "events", "--kind", "diverged", "x/*"],
            client,
            0,
            &["no event of kind diverged about x/* in "],
        ),
        (
            &["db", "inspect", "--state", "vouched"],
            client,
            0,
            &["no row in state vouched in "],
        ),
        (
            &["db", "inspect", "--state", "voched"],
            server,
            2,
            &["'vouched'", "unproven"],
        ),
        (
            &["db", "events", "--kind", "divirged"],
            client,
            2,
            &["'diverged'", "rebuilt"],
        ),
        (
            &["db", "inspect", "--destination", "https://"],
            client,
            2,
            &["no destination has that", &url],
        ),
        (
            &["db", "inspect", "--destination", &url],
            server,
            2,
            &["only a client's database"],
        ),
    ] {
        for more in [&[][..], &["--json"]] {
            let output = told(words, datadir, more);
            assert_eq!(output.status.code(), Some(code), "{}", said(&output));
            assert!(output.stdout.is_empty(), "{}", said(&output));
            for text in texts {
                assert!(
                    said(&output).contains(text),
                    "no {text} in {}",
                    said(&output)
                );
            }
        }
    }
}

#[test]
fn the_runs_of_a_server_are_shown_in_their_order() {
    let mut pair = Pair::new(&[("a", b"hello\n")]);
    // Their identities are random: among so many, their order is not the right one by chance.
    for _ in 0..6 {
        pair.server.kill();
        pair.server.restart();
    }
    let boots = rows(&pair.server.datadir, "boots");
    let firsts: Vec<_> = boots.iter().map(|row| row["first"].as_u64()).collect();
    assert_eq!(firsts.len(), 7, "{boots:?}");
    assert!(firsts.is_sorted(), "{firsts:?}");
}

#[test]
fn a_check_compares_rows_with_files() {
    let mut pair = Pair::new(&[("a", b"hello\n"), ("b", b"other"), ("c", b"third")]);
    let faults = |pair: &Pair| {
        let (server, mut faults) = json(&["db", "check"], &pair.server.datadir);
        let (client, more) = json(&["db", "check"], &pair.client.datadir);
        let bad = [&faults, &more].map(|faults| if faults.is_empty() { 0 } else { 3 });
        assert_eq!(
            (server, client),
            (Some(bad[0]), Some(bad[1])),
            "{faults:?} {more:?}"
        );
        faults.extend(more);
        faults
            .iter()
            .map(|fault| {
                assert_eq!(
                    (&fault["table"], &fault["in"]),
                    (&"check".into(), &"files".into())
                );
                format!("{}: {}", fault["key"], fault["fault"])
            })
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(faults(&pair), "");
    pair.client.kill();
    pair.server.kill();
    assert_eq!(faults(&pair), "");
    fs::remove_file(pair.copy("a")).unwrap();
    fs::write(pair.copy("b"), "oth").unwrap();
    fs::copy(pair.copy("c"), pair.copy("d")).unwrap();
    fs::rename(pair.copy("d"), pair.copy("c")).unwrap();
    fs::remove_file(pair.client.datadir.join("x/a")).unwrap();
    fs::write(pair.logs.join("b"), "o").unwrap();
    let link = pair.client.datadir.join("x/c");
    fs::copy(&link, link.with_file_name("copy")).unwrap();
    fs::rename(link.with_file_name("copy"), &link).unwrap();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let shows = format!(
        "its link shows inode {} instead of {}",
        inode(&link),
        inode(&pair.logs.join("c"))
    );
    let found = faults(&pair);
    for (file, what) in [
        ("/x/a", "there is no such file"),
        ("/x/b", "shorter than the 5 that are vouched for"),
        ("/x/c", "restored, or replaced"),
        ("(x/a)", "its link is gone"),
        ("(x/b)", "shorter than the 5 that were confirmed"),
        ("(x/c)", &shows),
    ] {
        let named = |line: &str| line.contains(file) && line.contains(what);
        assert!(found.lines().any(named), "no {file} {what} in\n{found}");
    }
    assert_eq!(found.lines().count(), 6, "{found}");
    let output = told(&["db", "check"], &pair.server.datadir, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("3 things are wrong"), "{text}");
    assert!(text.contains("and the store's pages"), "{text}");
}

#[test]
fn a_damaged_row_is_named_and_hides_no_other() {
    let mut pair = Pair::new(&[("a", b"hello\n"), ("b", b"other"), ("c", b"third")]);
    assert!(pair.server.terminate().success());
    let database = pair.server.datadir.join(".shaftlog/server.redb");
    let mut bytes = fs::read(&database).unwrap();
    // The key of the row, wherever it is.
    let mut hits = 0;
    for at in 0..bytes.len() - 3 {
        if bytes[at..].starts_with(b"x/b") {
            bytes[at + 2] = b'Z';
            hits += 1;
        }
    }
    assert!(hits > 0);
    fs::write(&database, bytes).unwrap();
    let (exit, faults) = json(&["db", "check"], &pair.server.datadir);
    assert_eq!(exit, Some(3));
    let named = |fault: &Value| fault["key"].as_str().unwrap().contains("x/Z");
    assert!(faults.iter().any(named), "{faults:?}");
    let (exit, findings) = json(&["verify"], &pair.server.datadir);
    assert_eq!(exit, Some(3), "{findings:?}");
    let right = findings
        .iter()
        .filter(|finding| finding["verdict"] == "right");
    assert!(right.count() >= 1, "{findings:?}");
    // Looking has changed nothing: the daemon has not gone either.
    wait_until("the client still runs", || {
        pair.client.process().ended().is_none()
    });
}

#[test]
fn a_read_only_database_is_looked_at_and_never_served_from() {
    let mut pair = Pair::new(&[("a", b"hello\n")]);
    pair.client.kill();
    // As a kill leaves it, it would have to be repaired.
    pair.server.kill();
    let datadir = pair.server.datadir.clone();
    let database = datadir.join(".shaftlog/server.redb");
    let before = fs::read(&database).unwrap();
    let locked_up = |words: &[&str]| {
        let script =
            "mount --bind \"$1\" \"$1\"; mount -o remount,bind,ro \"$1\"; shift; exec \"$@\"";
        Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-ec", script, "sh"])
            .arg(&datadir)
            .arg(program())
            .args(words)
            .output()
            .unwrap()
    };
    let directory = datadir.to_str().unwrap();
    let output = locked_up(&["db", "inspect", "--json", "--datadir", directory]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("\"path\":\"/x/a\""),
        "{}",
        said(&output)
    );
    for words in [
        &["db", "check"][..],
        &["verify"],
        &["db", "history", "/x/a"],
    ] {
        let output = locked_up(&[words, &["--datadir", directory]].concat());
        assert!(output.status.success(), "{words:?}: {}", said(&output));
    }
    let config = pair.server.config();
    let output = locked_up(&["server", "--stdout", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("Read-only file system"),
        "{}",
        said(&output)
    );
    assert!(said(&output).contains(directory), "{}", said(&output));
    assert_eq!(fs::read(&database).unwrap(), before);
}
