//! A file that somebody changed at the server, moved aside and delivered anew: both copies, and the
//! evidence of both lives of the path.

use std::fs;

use serde_json::Value;

use crate::common::{rows, said, wait_until};
use crate::{Pair, json, told};

/// Kinds of the client's events about `name`, oldest first.
fn kinds(pair: &Pair, name: &str) -> Vec<String> {
    rows(&pair.client.datadir, "events")
        .iter()
        .filter(|row| row["name"] == name)
        .map(|row| row["kind"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn both_lives_of_a_quarantined_path_are_kept_and_told() {
    let mut pair = Pair::new(&[("a", b"hello\n"), ("b", b"other\n")]);
    pair.server.kill();
    fs::write(pair.copy("a"), "jello\n").unwrap();
    pair.server.restart();
    wait_until("the client has found it out", || {
        kinds(&pair, "x/a") == ["discovered", "diverged"]
    });
    assert!(pair.server.holds("x/a", b"jello\n"));
    let server = pair.server.datadir.clone();
    let output = told(&["quarantine", "/x/a"], &server, &[]);
    assert!(output.status.success(), "{}", said(&output));
    wait_until("it is delivered anew", || {
        pair.server.holds("x/a", b"hello\n")
    });
    wait_until("the client says so", || {
        rows(&pair.client.datadir, "progress")
            .iter()
            .all(|row| row["state"] == "current")
            && kinds(&pair, "x/a").len() > 2
    });
    assert_eq!(
        kinds(&pair, "x/a"),
        ["discovered", "diverged", "server_restored"]
    );
    assert_eq!(fs::read(pair.logs.join("a")).unwrap(), b"hello\n");

    let (exit, kept) = json(&["db", "inspect", "/x/a", "--state", "kept"], &server);
    assert_eq!((exit, kept.len()), (Some(0), 1), "{kept:?}");
    let kept = &kept[0];
    let hash = |bytes: &[u8]| Value::from(blake3::hash(bytes).to_hex().as_str());
    assert_eq!(kept["table"], "quarantine");
    assert_eq!((&kept["start"], &kept["end"]), (&0.into(), &6.into()));
    assert_eq!(kept["recorded"]["blake3"], hash(b"hello\n"));
    assert_eq!(kept["found"]["blake3"], hash(b"jello\n"));
    let copy = server
        .join(".shaftlog/quarantine")
        .join(kept["copy"].as_str().unwrap());
    assert_eq!(fs::read(&copy).unwrap(), b"jello\n");
    assert!(
        said(&output).contains(copy.to_str().unwrap()),
        "{}",
        said(&output)
    );

    let (exit, history) = json(&["db", "history", "/x/a"], &server);
    assert_eq!((exit, history.len()), (Some(0), 2), "{history:?}");
    let [before, now] = &history[..] else {
        panic!("{history:?}")
    };
    assert_eq!(before["life"], kept["life"]);
    assert!(now["life"].as_u64() > before["life"].as_u64());
    assert_eq!(
        (&before["present"], &now["present"]),
        (&false.into(), &true.into())
    );
    for row in [before, now] {
        assert_eq!(
            (&row["length"], &row["blake3"]),
            (&6.into(), &hash(b"hello\n"))
        );
    }
    let printed = |words: &[&str]| said(&told(words, &server, &[]));
    assert!(printed(&["db", "history", "/x/a"]).contains("life"));
    assert!(printed(&["db", "inspect"]).contains("\nquarantine\n"));

    // A copy that is gone although nobody let go of it.
    let check = || json(&["db", "check"], &server);
    assert_eq!(check(), (Some(0), Vec::new()));
    fs::remove_file(&copy).unwrap();
    let (exit, faults) = check();
    assert_eq!((exit, faults.len()), (Some(3), 1), "{faults:?}");
    assert_eq!(
        (&faults[0]["in"], &faults[0]["key"]),
        (&"quarantine".into(), &kept["copy"])
    );
}

#[test]
fn a_life_that_ended_without_a_file_is_told_too() {
    let mut pair = Pair::new(&[("a", b"hello\n")]);
    assert!(pair.client.terminate().success());
    let server = pair.server.datadir.clone();
    fs::remove_file(pair.copy("a")).unwrap();
    let output = told(&["quarantine", "/x/a"], &server, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let history = || json(&["db", "history", "/x/a"], &server).1;
    let ended = history();
    assert_eq!(
        (ended.len(), &ended[0]["present"]),
        (1, &false.into()),
        "{ended:?}"
    );
    assert_eq!(rows(&server, "quarantine")[0]["state"], "gone");
    assert_eq!(json(&["db", "check"], &server), (Some(0), Vec::new()));
    pair.client.restart();
    wait_until("it is delivered anew", || history().len() == 2);
    assert_eq!(history()[0], ended[0]);
}

#[test]
fn a_life_that_an_operator_made_shorter_is_told_too() {
    let mut pair = Pair::new(&[("a", b"hello world\n")]);
    assert!(pair.client.terminate().success());
    let server = pair.server.datadir.clone();
    let history = || json(&["db", "history", "/x/a"], &server).1;
    let before = history();
    let quarantine = |from: &str| {
        let output = told(&["quarantine", "/x/a", "--from", from], &server, &[]);
        assert!(output.status.success(), "{}", said(&output));
    };
    quarantine("5");
    let kept = &rows(&server, "quarantine")[0];
    assert_eq!(kept["life"], before[0]["life"]);
    assert_eq!(kept["recorded"]["blake3"], before[0]["blake3"]);
    let [ended, now] = &history()[..] else {
        panic!("{:?}", history())
    };
    for key in ["life", "length", "blake3", "at", "writer"] {
        assert_eq!(ended[key], before[0][key], "{key}");
    }
    assert_eq!(
        (&ended["present"], &now["present"], &now["length"]),
        (&false.into(), &true.into(), &5.into())
    );
    quarantine("3");
    let lengths: Vec<_> = history()
        .iter()
        .map(|row| row["length"].as_u64().unwrap())
        .collect();
    assert_eq!(lengths, [12, 5, 3]);
    assert_eq!(json(&["db", "check"], &server), (Some(0), Vec::new()));
}

#[test]
fn the_end_of_a_file_is_kept_where_the_command_says() {
    let mut pair = Pair::new(&[("a", b"hello\n")]);
    pair.client.kill();
    pair.server.kill();
    let output = told(
        &["quarantine", "/x/a", "--from", "4"],
        &pair.server.datadir,
        &[],
    );
    assert!(output.status.success(), "{}", said(&output));
    let line = String::from_utf8(output.stdout).unwrap();
    let (_, copy) = line.trim_end().split_once("are kept as ").unwrap();
    assert_eq!(fs::read(copy).unwrap(), b"o\n");
}

/// One bit in what was told last keeps an operator from nothing.
#[test]
fn a_file_is_moved_aside_though_the_newest_event_is_damaged() {
    let mut pair = Pair::new(&[("a", b"hello\n")]);
    pair.server.kill();
    fs::write(pair.copy("a"), "jello\n").unwrap();
    pair.server.restart();
    wait_until("the client has found it out", || {
        kinds(&pair, "x/a") == ["discovered", "diverged"]
    });
    assert!(pair.client.terminate().success());
    assert!(pair.server.terminate().success());
    let server = pair.server.datadir.clone();
    let database = server.join(".shaftlog/server.redb");
    let mut bytes = fs::read(&database).unwrap();
    let words = b"it differs between byte";
    let places: Vec<_> = (0..bytes.len() - words.len())
        .filter(|&at| bytes[at..].starts_with(words))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&database, bytes).unwrap();
    let output = told(&["quarantine", "/x/a"], &server, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!pair.copy("a").exists());
    let (exit, faults) = json(&["db", "check"], &server);
    let damaged = |fault: &Value| fault["in"] == "events";
    assert!(exit == Some(3) && faults.iter().all(damaged), "{faults:?}");
    pair.server.restart();
    pair.client.restart();
    wait_until("it is delivered anew", || {
        pair.server.holds("x/a", b"hello\n")
    });
}
