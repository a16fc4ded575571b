//! `shaftlog verify` at a client: its files against what was confirmed, and against what the
//! destinations say now.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::Value;

use crate::common::{Client, Server, deliver, run, said};
use crate::{Pair, json, told};

/// Several blocks, and no two alike.
fn long() -> Vec<u8> {
    let mut bytes = vec![0; 300_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn of<'v>(findings: &'v [Value], file: &str) -> &'v Value {
    let found = findings.iter().find(|finding| finding["file"] == file);
    found.unwrap_or_else(|| panic!("no {file} in {findings:?}"))
}

#[test]
fn what_was_confirmed_is_right_live_and_killed_and_the_server_agrees() {
    let mut pair = Pair::new(&[("a", b"hello\n"), ("b", &long())]);
    let check = |pair: &Pair, words: &[&str]| {
        let (exit, findings) = json(words, &pair.client.datadir);
        assert_eq!(exit, Some(0), "{findings:?}");
        assert_eq!(findings.len(), 2, "{findings:?}");
        let finding = of(&findings, "x/a");
        assert_eq!(finding["table"], "verify");
        assert_eq!(finding["side"], "client");
        assert_eq!(finding["verdict"], "right");
        assert_eq!(finding["length"], 6);
        assert_eq!(finding["destination"], pair.server.url());
        assert_eq!(finding["source"], pair.logs.join("a").to_str().unwrap());
    };
    check(&pair, &["verify"]);
    check(&pair, &["verify", "--remote"]);
    pair.client.kill();
    check(&pair, &["verify"]);
    check(&pair, &["verify", "--remote"]);
    // By name, by source, and with the configuration.
    let source = pair.logs.join("a");
    for pattern in ["x/a", source.to_str().unwrap()] {
        let (exit, findings) = json(&["verify", pattern], &pair.client.datadir);
        assert_eq!((exit, findings.len()), (Some(0), 1), "{findings:?}");
    }
    let config = pair.client.config();
    let output = run(["verify", "-f", config.to_str().unwrap(), "--all"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("2 right"), "{}", said(&output));
}

#[test]
fn a_byte_that_changed_here_after_delivery_is_told_from_one_that_changed_there() {
    let mut pair = Pair::new(&[("a", &long()), ("b", &long()), ("c", &long())]);
    pair.client.kill();
    pair.server.kill();
    let here = OpenOptions::new().write(true).open(pair.logs.join("a"));
    here.unwrap().write_all_at(b"!!!!", 123_456).unwrap();
    let (exit, findings) = json(&["verify"], &pair.client.datadir);
    assert_eq!(exit, Some(4), "{findings:?}");
    let a = of(&findings, "x/a");
    assert_eq!(
        (&a["verdict"], &a["side"]),
        (&"differs".into(), &"client".into())
    );
    assert_eq!(of(&findings, "x/b")["verdict"], "right");

    // Another server's word, of which nothing was recorded as changed: whoever wrote it was never
    // this client.
    let home = tempfile::tempdir().unwrap();
    let mut other = Server::start(&home.path().join("other"), "");
    other.port = pair.server.port;
    let mut changed = long();
    changed[200_000..200_004].copy_from_slice(b"????");
    other.kill();
    fs::create_dir_all(other.datadir.join("x")).unwrap();
    fs::write(other.datadir.join("x/a"), long()).unwrap();
    fs::write(other.datadir.join("x/b"), &changed).unwrap();
    fs::write(other.datadir.join("x/c"), &long()[..1000]).unwrap();
    fs::remove_file(other.datadir.join(".shaftlog/server.redb")).unwrap();
    let output = told(&["db", "rebuild"], &other.datadir, &[]);
    assert!(output.status.success(), "{}", said(&output));
    other.restart();

    let (exit, findings) = json(&["verify", "--remote"], &pair.client.datadir);
    assert_eq!(exit, Some(4), "{findings:?}");
    let a = of(&findings, "x/a");
    assert_eq!(
        (&a["verdict"], &a["side"]),
        (&"differs".into(), &"client".into())
    );
    // 123,456 lies in the chunk that begins at 120 KiB.
    assert_eq!(a["first_difference"]["start"], 122_880);
    assert_eq!(a["first_difference"]["end"], 123_904);
    let b = of(&findings, "x/b");
    assert_eq!(
        (&b["verdict"], &b["side"]),
        (&"differs".into(), &"server".into())
    );
    assert_eq!(b["first_difference"]["start"], 199_680);
    assert_eq!(b["first_difference"]["end"], 200_704);
    let c = of(&findings, "x/c");
    assert_eq!(c["verdict"], "behind");
    assert_eq!(c["length"], 1000);
}

#[test]
fn what_is_missing_at_a_client_is_never_a_pass() {
    let mut pair = Pair::new(&[
        ("a", b"hello\n"),
        ("b", b"cut\n"),
        ("c", b"replaced"),
        ("d", b"fine"),
    ]);
    pair.client.kill();
    fs::remove_file(pair.client.datadir.join("x/a")).unwrap();
    fs::write(pair.logs.join("b"), "cu").unwrap();
    fs::remove_file(pair.client.datadir.join("x/c")).unwrap();
    fs::write(pair.client.datadir.join("x/c"), "replaced").unwrap();
    let (exit, findings) = json(&["verify"], &pair.client.datadir);
    assert_eq!(exit, Some(3), "{findings:?}");
    for (file, verdict) in [
        ("x/a", "missing"),
        ("x/b", "short"),
        ("x/c", "replaced"),
        ("x/d", "right"),
    ] {
        assert_eq!(of(&findings, file)["verdict"], verdict, "{findings:?}");
    }
}

#[test]
fn a_destination_without_evidence_is_never_a_pass() {
    let mut pair = Pair::new(&[("a", b"hello\n")]);
    pair.client.kill();
    // One that was configured since.
    let urls = [pair.server.url(), "http://127.0.0.1:9".to_owned()];
    let urls = urls.each_ref().map(String::as_str);
    pair.client
        .reconfigure(&deliver(&[("x", &pair.logs.join("*"))], &urls));
    let config = pair.client.config();
    let output = run(["verify", "-f", config.to_str().unwrap(), "--json"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    for (url, verdict) in [(urls[0], "right"), (urls[1], "unconfirmed")] {
        let told = text.lines().filter(|line| line.contains(url));
        assert!(
            told.filter(|line| line.contains(verdict)).count() == 1,
            "{text}"
        );
    }
    // And a database that was made anew knows none.
    fs::remove_file(pair.client.datadir.join(".shaftlog/client.redb")).unwrap();
    let output = told(&["db", "rebuild"], &pair.client.datadir, &[]);
    assert!(output.status.success(), "{}", said(&output));
    for words in [&["verify"][..], &["verify", "--remote"]] {
        let (exit, findings) = json(words, &pair.client.datadir);
        assert_eq!((exit, findings.len()), (Some(3), 1), "{findings:?}");
        assert_eq!(of(&findings, "x/a")["verdict"], "unconfirmed");
    }
}

#[test]
fn destinations_stand_side_by_side_and_one_that_cannot_be_asked_is_named() {
    let home = tempfile::tempdir().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("a"), "hello\n").unwrap();
    let one = Server::start(&home.path().join("one"), "");
    let mut two = Server::start(&home.path().join("two"), "");
    let settings = deliver(&[("x", &logs.join("*"))], &[&one.url(), &two.url()]);
    let client = Client::configure(&home.path().join("client"), &settings);
    let output = client.sync(&[]);
    assert!(output.status.success(), "{}", said(&output));
    let (exit, findings) = json(&["verify", "--remote"], &client.datadir);
    assert_eq!((exit, findings.len()), (Some(0), 2), "{findings:?}");
    two.kill();
    let (exit, findings) = json(&["verify", "--remote"], &client.datadir);
    assert_eq!((exit, findings.len()), (Some(3), 2), "{findings:?}");
    let verdict = |url: String| {
        let found = findings
            .iter()
            .find(|finding| finding["destination"] == url);
        found.unwrap()["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verdict(one.url()), "right");
    assert_eq!(verdict(two.url()), "unreachable");
    // A destination that is no longer configured is no longer asked.
    client.reconfigure(&deliver(&[("x", &logs.join("*"))], &[&one.url()]));
    let config = client.config();
    let output = run(["verify", "--remote", "-f", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = told(&["verify", "--remote"], &one.datadir, &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

/// Both sides, and a file `a` of `logs` that was delivered and then rewritten.
fn with_a_rewritten_file(home: &Path, logs: &Path) -> (Server, Client) {
    fs::create_dir(logs).unwrap();
    fs::write(logs.join("a"), "first generation\n").unwrap();
    let server = Server::start(&home.join("server"), "");
    let settings = deliver(&[("x", &logs.join("*"))], &[&server.url()]);
    let client = Client::configure(&home.join("client"), &settings);
    assert!(client.sync(&[]).status.success());
    fs::write(logs.join("a"), "second\n").unwrap();
    (server, client)
}

#[test]
fn a_closed_generation_is_listed_and_no_failure() {
    let home = tempfile::tempdir().unwrap();
    let logs = home.path().join("logs");
    let (_server, client) = with_a_rewritten_file(home.path(), &logs);
    // The run that closes a generation says so.
    assert_eq!(client.sync(&[]).status.code(), Some(3));
    let output = client.sync(&[]);
    assert!(output.status.success(), "{}", said(&output));
    for words in [&["verify"][..], &["verify", "--remote"]] {
        let (exit, findings) = json(words, &client.datadir);
        assert_eq!((exit, findings.len()), (Some(0), 2), "{findings:?}");
        assert_eq!(of(&findings, "x/a")["verdict"], "superseded");
        let next = findings.iter().find(|finding| finding["file"] != "x/a");
        assert_eq!(next.unwrap()["verdict"], "right");
    }
}

/// Delivery begins while it is still looked for what is there.
#[test]
fn a_generation_that_ends_while_sync_looks_is_told_of_too() {
    let home = tempfile::tempdir().unwrap();
    let logs = home.path().join("logs");
    let (_server, client) = with_a_rewritten_file(home.path(), &logs);
    for number in 0..2_000 {
        fs::write(logs.join(format!("new{number}")), "").unwrap();
    }
    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("x/a "), "{}", said(&output));
    let output = client.sync(&[]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn what_sync_delivered_into_a_directory_is_verified_on_both_sides() {
    let home = tempfile::tempdir().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("a"), "hello\n").unwrap();
    fs::write(logs.join("b"), "rotated away\n").unwrap();
    let to = home.path().join("to");
    let pattern = logs.join("*");
    let words = ["sync", "--pattern", pattern.to_str().unwrap(), "--to"];
    let output = run(words.into_iter().chain([to.to_str().unwrap()]));
    assert!(output.status.success(), "{}", said(&output));
    fs::remove_file(logs.join("b")).unwrap();
    let (exit, findings) = json(&["verify", "--remote"], &to);
    assert_eq!((exit, findings.len()), (Some(0), 4), "{findings:?}");
    let verdicts: Vec<_> = findings
        .iter()
        .filter(|finding| finding["side"] == "client")
        .map(|finding| finding["verdict"].as_str().unwrap())
        .collect();
    assert!(
        verdicts.contains(&"right") && verdicts.contains(&"gone"),
        "{verdicts:?}"
    );
}

#[test]
fn a_volatile_byte_that_changed_is_no_difference() {
    let home = tempfile::tempdir().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("bin"), long()).unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let settings = deliver(&[("x", &logs.join("*"))], &[&server.url()]).replace(
        "{name: x,",
        "{name: x, volatile: [{offset: 21, length: 1}],",
    );
    let client = Client::configure(&home.path().join("client"), &settings);
    assert!(client.sync(&[]).status.success());
    let bin = OpenOptions::new().write(true).open(logs.join("bin"));
    let bin = bin.unwrap();
    bin.write_all_at(&[!long()[21]], 21).unwrap();
    for words in [&["verify"][..], &["verify", "--remote"]] {
        let (exit, findings) = json(words, &client.datadir);
        assert_eq!((exit, findings.len()), (Some(0), 1), "{findings:?}");
    }
    bin.write_all_at(&[!long()[22]], 22).unwrap();
    let (exit, findings) = json(&["verify", "--remote"], &client.datadir);
    assert_eq!(exit, Some(4), "{findings:?}");
    assert_eq!(findings[0]["first_difference"]["end"], 1024);
}
