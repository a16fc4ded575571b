//! Ranges, conditions and digests of a PUT to a file that holds `hello`.

use super::row::{Leaves, Row, Sent, answer};
use super::stage::Stage;
use crate::data::{digest, etag};

/// Name, header lines, body, status, token. `<etag:x>` is the entity tag of these bytes, `<digest:x>`
/// their Repr-Digest. A Content-Length is added that is the body's.
type Range = (
    &'static str,
    &'static [&'static str],
    &'static str,
    u16,
    &'static str,
);

#[rustfmt::skip]
const RANGES: &[Range] = &[
    ("none", &[], "world", 400, "range"),
    ("none, and no bytes", &[], "", 400, "range"),
    ("nothing in it", &["Content-Range:"], "world", 400, "range"),
    ("only the unit", &["Content-Range: bytes"], "world", 400, "range"),
    ("backwards", &["Content-Range: bytes 5-4/9"], "", 400, "range"),
    ("backwards, with a byte", &["Content-Range: bytes 5-4/9"], "x", 400, "range"),
    ("beyond its total", &["Content-Range: bytes 0-9/5"], "helloworld", 400, "range"),
    ("up to its total", &["Content-Range: bytes 5-9/9"], "world", 400, "range"),
    ("a confirm without a condition", &["Content-Range: bytes */9"], "", 428, "unconditional"),
    ("a confirm with a body", &["Content-Range: bytes */9"], "world", 400, "length"),
    ("a confirm of the wrong bytes", &["Content-Range: bytes */5", "If-Match: <etag:HELLO>"], "", 412, "condition"),
    ("a confirm of more than there is", &["Content-Range: bytes */9", "If-Match: <etag:helloworl>"], "", 416, "gap"),
    ("an unknown total", &["Content-Range: bytes 0-9/*"], "helloworld", 400, "range"),
    ("nothing of an unknown total", &["Content-Range: bytes */*"], "", 400, "range"),
    ("no total", &["Content-Range: bytes 5-9"], "world", 400, "range"),
    ("another unit", &["Content-Range: lines 5-9/10"], "world", 400, "range"),
    ("no unit", &["Content-Range: 5-9/10"], "world", 400, "range"),
    ("a unit in capitals", &["Content-Range: BYTES 5-9/10"], "world", 400, "range"),
    ("two ranges", &["Content-Range: bytes 5-6,7-9/10"], "world", 400, "range"),
    ("two values", &["Content-Range: bytes 5-9/10, bytes 5-9/10"], "world", 400, "range"),
    ("the header twice", &["Content-Range: bytes 5-9/10", "Content-Range: bytes 5-9/10"], "world", 400, "range"),
    ("the header twice, with another range", &["Content-Range: bytes 5-9/10", "Content-Range: bytes 0-4/5"], "world", 400, "range"),
    ("2^63", &["Content-Range: bytes 9223372036854775807-9223372036854775807/9223372036854775808"], "x", 400, "range"),
    ("2^64", &["Content-Range: bytes 18446744073709551615-18446744073709551615/18446744073709551616"], "x", 400, "range"),
    ("beyond 2^64", &["Content-Range: bytes 18446744073709551616-18446744073709551620/18446744073709551621"], "world", 400, "range"),
    ("0 by overflow", &["Content-Range: bytes 5-18446744073709551625/18446744073709551626"], "world", 400, "range"),
    ("a confirm of 2^63", &["Content-Range: bytes */9223372036854775808", "If-Match: <etag:hello>"], "", 400, "range"),
    ("a confirm of 2^64", &["Content-Range: bytes */18446744073709551616", "If-Match: <etag:hello>"], "", 400, "range"),
    ("the last byte that a file can have", &["Content-Range: bytes 9223372036854775806-9223372036854775806/9223372036854775807"], "x", 416, "gap"),
    ("a leading +", &["Content-Range: bytes +5-9/10"], "world", 400, "range"),
    ("a + in front of the last", &["Content-Range: bytes 5-+9/10"], "world", 400, "range"),
    ("a + in front of the total", &["Content-Range: bytes 5-9/+10"], "world", 400, "range"),
    ("negative", &["Content-Range: bytes -1-9/10"], "world", 400, "range"),
    ("hexadecimal", &["Content-Range: bytes 0x5-0x9/0xa"], "world", 400, "range"),
    ("hexadecimal digits", &["Content-Range: bytes 5-9/a"], "world", 400, "range"),
    ("spaces around the dash", &["Content-Range: bytes 5 - 9/10"], "world", 400, "range"),
    ("spaces around the slash", &["Content-Range: bytes 5-9 / 10"], "world", 400, "range"),
    ("two spaces", &["Content-Range: bytes  5-9/10"], "world", 400, "range"),
    ("a tab", &["Content-Range: bytes\t5-9/10"], "world", 400, "range"),
    ("an equals sign", &["Content-Range: bytes=5-9/10"], "world", 400, "range"),
    ("no last", &["Content-Range: bytes 5-/10"], "world", 400, "range"),
    ("no first", &["Content-Range: bytes -9/10"], "world", 400, "range"),
    ("a fraction", &["Content-Range: bytes 5.0-9/10"], "world", 400, "range"),
    ("digits of another script", &["Content-Range: bytes \u{0665}-\u{0669}/10"], "world", 400, "range"),
    ("Range in its place", &["Range: bytes=5-9"], "world", 400, "range"),
    ("a body too short", &["Content-Range: bytes 5-9/10"], "worl", 400, "length"),
    ("a body too long", &["Content-Range: bytes 5-9/10"], "world!", 400, "length"),
    ("no body", &["Content-Range: bytes 5-9/10"], "", 400, "length"),
    ("a gap", &["Content-Range: bytes 6-9/10"], "orld", 416, "gap"),
    ("a gap under a condition that holds", &["Content-Range: bytes 6-9/10", "If-Match: <etag:hello>"], "orld", 416, "gap"),
    ("the file at the client is shorter", &["Content-Range: bytes 0-1/2"], "he", 416, "shrunk"),
    ("an equal overlap inside", &["Content-Range: bytes 1-3/5"], "ell", 204, ""),
    ("an equal overlap, all of it", &["Content-Range: bytes 0-4/5"], "hello", 204, ""),
    ("an unequal overlap", &["Content-Range: bytes 1-3/5"], "eLl", 409, "differs"),
    ("an unequal overlap, all of it", &["Content-Range: bytes 0-4/5"], "HELLO", 409, "differs"),
    ("an overlap across the end without a digest", &["Content-Range: bytes 3-9/10"], "loworld", 416, "range"),
    ("an unequal overlap across the end", &["Content-Range: bytes 3-9/10", "Repr-Digest: <digest:helLOworld>"], "LOworld", 409, "differs"),
    ("an overlap across the end under the wrong digest", &["Content-Range: bytes 3-9/10", "Repr-Digest: <digest:hello>"], "loworld", 400, "digest"),
    ("a wrong condition", &["Content-Range: bytes 5-9/10", "If-Match: <etag:HELLO>"], "world", 412, "condition"),
    ("nothing expected where something is", &["Content-Range: bytes 5-9/10", "If-None-Match: *"], "world", 412, "condition"),
    ("If-Match of everything", &["Content-Range: bytes 5-9/10", "If-Match: *"], "world", 400, "condition"),
    ("a short hash", &["Content-Range: bytes 5-9/10", "If-Match: \"blake3:123\""], "world", 400, "condition"),
    ("another hash", &["Content-Range: bytes 5-9/10", "If-Match: \"sha256:0000000000000000000000000000000000000000000000000000000000000000\""], "world", 400, "condition"),
    ("a weak entity tag", &["Content-Range: bytes 5-9/10", "If-Match: W/<etag:hello>"], "world", 400, "condition"),
    ("two entity tags", &["Content-Range: bytes 5-9/10", "If-Match: <etag:hello>, <etag:>"], "world", 400, "condition"),
    ("If-Match twice", &["Content-Range: bytes 5-9/10", "If-Match: <etag:hello>", "If-Match: <etag:hello>"], "world", 400, "condition"),
    ("If-None-Match of an entity tag", &["Content-Range: bytes 5-9/10", "If-None-Match: <etag:hello>"], "world", 400, "condition"),
    ("both conditions", &["Content-Range: bytes 5-9/10", "If-Match: <etag:hello>", "If-None-Match: *"], "world", 400, "condition"),
    ("a wrong digest", &["Content-Range: bytes 5-9/10", "Repr-Digest: <digest:helloWORLD>"], "world", 400, "digest"),
    ("the digest of the body alone", &["Content-Range: bytes 5-9/10", "Repr-Digest: <digest:world>"], "world", 400, "digest"),
    // RFC 9530 lets a recipient ignore it. Then the bytes would be taken unchecked, although their
    // sender asked for a check.
    ("an unknown digest algorithm", &["Content-Range: bytes 5-9/10", "Repr-Digest: sha-256=:k2oYXKqiZrucvpgengXLeM1zKwsygOuURBK7b4+PB68=:"], "world", 400, "digest"),
    ("a short digest", &["Content-Range: bytes 5-9/10", "Repr-Digest: blake3=:AAAA:"], "world", 400, "digest"),
    ("a digest that is no base64", &["Content-Range: bytes 5-9/10", "Repr-Digest: blake3=:????:"], "world", 400, "digest"),
    ("a digest without colons", &["Content-Range: bytes 5-9/10", "Repr-Digest: blake3=AAAA"], "world", 400, "digest"),
    ("an empty digest", &["Content-Range: bytes 5-9/10", "Repr-Digest:"], "world", 400, "digest"),
    ("the digest twice", &["Content-Range: bytes 5-9/10", "Repr-Digest: <digest:helloworld>", "Repr-Digest: <digest:helloworld>"], "world", 400, "digest"),
];

const ROWS: usize = 76;

#[test]
fn ranges() {
    let rows = RANGES.iter().map(|(name, lines, body, status, problem)| {
        let lines: Vec<_> = lines.iter().map(|line| filled(line) + "\r\n").collect();
        let head = lines.concat();
        let request = format!(
            "PUT /log HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Row {
            name,
            sent: vec![Sent::Bytes(request.into_bytes().into())],
            answers: vec![answer(*status, problem)],
            leaves: Leaves::Same,
        }
    });
    let count = Stage::new("").play(rows.collect());
    println!("ranges: {count} rows");
    assert_eq!(count, ROWS);
}

/// The line with its hashes in it.
fn filled(line: &str) -> String {
    let Some((before, rest)) = line.split_once('<') else {
        return line.to_owned();
    };
    let (inner, after) = rest.split_once('>').unwrap();
    let (kind, bytes) = inner.split_once(':').unwrap();
    let hash = blake3::hash(bytes.as_bytes());
    let value = match kind {
        "etag" => etag(&hash),
        _ => digest(&hash),
    };
    format!("{before}{value}{}", filled(after))
}
