//! Files that an operator has given up: what is told of them then, and what of bytes that came later.

use crate::common::{append, rows, said, wait_until};
use crate::{Pair, json, told};

impl Pair {
    /// Gives up what was delivered.
    fn retire(&self, pattern: &str) {
        let words = ["retire", pattern, "--older-than", "1ms"];
        let output = told(&words, &self.server.datadir, &[]);
        assert!(output.status.success(), "{}", said(&output));
        let expected = "\n1 file retired\n";
        assert!(said(&output).contains(expected), "{}", said(&output));
    }
}

#[test]
fn a_retirement_leaves_when_the_length_came() {
    let pair = Pair::new(&[("a", b"hello\n")]);
    let server = &pair.server.datadir;
    let history = |more: &[&str]| {
        let words = [&["db", "history", "/x/a"], more].concat();
        json(&words, server).1
    };
    let before = history(&[]);
    pair.retire("/x/a");
    assert_eq!(history(&[]), before);
    let came = before[0]["at"].as_str().unwrap();
    assert_eq!(history(&["--until", came]), before);
    let file = &rows(server, "files")[0];
    assert_eq!(file["state"], "retired");
    assert_ne!(file["updated"], came);
    assert_eq!(json(&["db", "check"], server), (Some(0), Vec::new()));
}

#[test]
fn retire_says_what_it_did_and_why_it_did_nothing() {
    let pair = Pair::new(&[("a", b"hello\n"), ("b", b"other\n")]);
    let retire = |pattern: &str, age: &str| {
        let words = ["retire", pattern, "--older-than", age];
        let output = told(&words, &pair.server.datadir, &[]);
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().last().unwrap().to_owned()
    };
    let nothing = "nothing retired: no delivered file matches /y/*";
    assert_eq!(retire("/y/*", "1ms"), nothing);
    assert_eq!(
        retire("/x/a", "90d"),
        "nothing retired; 1 file got something within 90days"
    );
    assert_eq!(retire("/x/a", "1ms"), "1 file retired");
    assert_eq!(
        retire("/x/*", "1ms"),
        "1 file retired; 1 file retired before"
    );
    assert_eq!(
        retire("/x/*", "1ms"),
        "nothing retired; 2 files retired before"
    );
}

/// What the client's log says.
const WHY: &str = "x/a: it was retired there with 6 bytes";

#[test]
fn what_came_after_a_retirement_is_not_delivered_and_is_told() {
    let mut pair = Pair::new(&[("a", b"hello\n"), ("b", b"other")]);
    let goes_on = |pair: &Pair, name: &str| append(&pair.logs.join(name), "world\n");
    let events = |pair: &Pair| {
        let events = rows(&pair.client.datadir, "events");
        let retired = events.iter().filter(|event| event["kind"] == "retired");
        retired.count()
    };
    pair.retire("/x/a");
    goes_on(&pair, "a");
    wait_until("the client says so", || events(&pair) == 1);
    goes_on(&pair, "a");
    goes_on(&pair, "b");
    pair.wait_confirmed("b", 11);
    let log = pair.client.process().output();
    assert_eq!(log.matches(WHY).count(), 1, "{log}");

    // Nor does a run that starts with it call it delivered.
    assert!(pair.client.terminate().success());
    for _ in 0..2 {
        let output = pair.client.sync(&[]);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        let summary = said(&output);
        let line = summary.lines().find(|line| line.starts_with("x/a "));
        let line = line.unwrap_or_else(|| panic!("{summary}"));
        assert!(line.contains("retired there with 6 bytes"), "{line}");
        assert!(line.contains(&pair.server.url()), "{line}");
        assert!(!summary.contains("x/b "), "{summary}");
    }
    assert_eq!(events(&pair), 1);
    let progress = rows(&pair.client.datadir, "progress");
    let row = progress.iter().find(|row| row["name"] == "x/a").unwrap();
    assert_eq!(
        (&row["confirmed"], &row["state"]),
        (&6.into(), &"error".into())
    );
    let (exit, findings) = json(&["verify"], &pair.client.datadir);
    assert_eq!(exit, Some(3), "{findings:?}");
}

#[test]
fn what_was_retired_is_delivered_for_a_client_that_has_forgotten() {
    let mut pair = Pair::new(&[("a", b"hello\n")]);
    pair.retire("/x/a");
    assert!(pair.client.terminate().success());
    let database = pair.client.datadir.join(".shaftlog/client.redb");
    std::fs::remove_file(database).unwrap();
    let rebuilt = told(&["db", "rebuild"], &pair.client.datadir, &[]);
    assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    let output = pair.client.sync(&[]);
    assert!(output.status.success(), "{}", said(&output));
    let row = &rows(&pair.client.datadir, "progress")[0];
    assert_eq!(
        (&row["confirmed"], &row["state"]),
        (&6.into(), &"retired".into())
    );
    assert_eq!(row["blake3"], blake3::hash(b"hello\n").to_hex().as_str());
}
