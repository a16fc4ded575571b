//! Files that an operator has given up: what is told of them then, and what of bytes that came later.

use crate::common::{rows, said};
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
