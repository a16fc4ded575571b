//! HEAD and PUT are served; anything else is told so (RFC 9110 section 15.5.6), and nothing is done.

use super::row::{Leaves, Row, Sent, answer};
use super::stage::Stage;

/// Method and target; the rest of the request is that of a good append.
const METHODS: &[(&str, &str)] = &[
    ("GET", "/log"),
    ("GET", "/"),
    ("POST", "/log"),
    ("DELETE", "/log"),
    ("DELETE", "/"),
    ("PATCH", "/log"),
    ("OPTIONS", "/log"),
    ("OPTIONS", "*"),
    ("TRACE", "/log"),
    ("MKCOL", "/dir/"),
    ("MOVE", "/log"),
    ("COPY", "/log"),
    ("LOCK", "/log"),
    ("UNLOCK", "/log"),
    ("PROPFIND", "/log"),
    ("PROPPATCH", "/log"),
    ("SEARCH", "/log"),
    ("M-SEARCH", "/log"),
    ("PURGE", "/log"),
    ("put", "/log"),
    ("Put", "/log"),
    ("head", "/log"),
    ("PUTS", "/log"),
    ("PU", "/log"),
    ("HEADPUT", "/log"),
    ("!#$%&'*+-.^_`|~", "/log"),
];

const ROWS: usize = 26;

#[test]
fn methods() {
    let rows = METHODS.iter().map(|(method, target)| {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 5-9/10\r\n\
             Content-Length: 5\r\nDestination: /moved\r\n\r\nworld"
        );
        Row {
            name: method,
            sent: vec![Sent::Bytes(request.into_bytes().into())],
            answers: vec![answer(405, "method").allowing()],
            leaves: Leaves::Same,
        }
    });
    let count = Stage::new("").play(rows.collect());
    println!("methods: {count} rows");
    assert_eq!(count, ROWS);
}
