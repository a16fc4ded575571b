//! Files that an operator has given up: what is told of them then, and what of bytes that came later.

use crate::common::{rows, said};
use crate::{Pair, json, told};

impl Pair {
    /// Gives up what was delivered.
    fn retire(&self, pattern: &str) {
        let words = ["retire", pattern, "--older-than", "1ms"];
        let output = told(&words, &self.server.datadir, &[]);
        assert!(output.status.success(), "{}", said(&output));
        let expected = "1 files retired, 0 kept";
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
