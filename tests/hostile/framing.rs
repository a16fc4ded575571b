//! What is no request, or cannot be told where it ends (RFC 9112), and requests that come too slowly
//! or not to their end.

use super::row::{Expected, Leaves, Row, Sent, answer, say, times};
use super::stage::Stage;

/// An append to `/log`, which is at its place there: but for the rest of it, it would be taken.
macro_rules! append {
    ($rest:literal) => {
        concat!(
            "PUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 5-7/8\r\n",
            $rest
        )
    };
}

/// The same with a body in chunks.
macro_rules! chunked {
    ($body:literal) => {
        concat!(append!("Transfer-Encoding: chunked\r\n\r\n"), $body)
    };
}

/// Name, bytes, status, token: heads that end their connection, whatever comes behind them.
#[rustfmt::skip]
const BAD_HEADS: &[(&str, &str, u16, &str)] = &[
    ("CL and TE", append!("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("TE and CL", append!("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("two lengths", append!("Content-Length: 3\r\nContent-Length: 4\r\n\r\nword"), 400, "length"),
    ("two equal lengths", append!("Content-Length: 3\r\nContent-Length: 3\r\n\r\nwor"), 400, "length"),
    ("two equal lengths, one in capitals", append!("Content-Length: 3\r\nCONTENT-LENGTH: 3\r\n\r\nwor"), 400, "length"),
    ("3, 3", append!("Content-Length: 3, 3\r\n\r\nwor"), 400, "length"),
    ("3 3", append!("Content-Length: 3 3\r\n\r\nwor"), 400, "length"),
    ("+3", append!("Content-Length: +3\r\n\r\nwor"), 400, "length"),
    ("-1", append!("Content-Length: -1\r\n\r\nwor"), 400, "length"),
    ("0x3", append!("Content-Length: 0x3\r\n\r\nwor"), 400, "length"),
    ("3.0", append!("Content-Length: 3.0\r\n\r\nwor"), 400, "length"),
    ("3;", append!("Content-Length: 3;\r\n\r\nwor"), 400, "length"),
    ("three", append!("Content-Length: three\r\n\r\nwor"), 400, "length"),
    ("a digit of another script", append!("Content-Length: \u{0663}\r\n\r\nwor"), 400, "length"),
    ("2^63", append!("Content-Length: 9223372036854775808\r\n\r\nwor"), 400, "length"),
    ("2^64-1", append!("Content-Length: 18446744073709551615\r\n\r\nwor"), 400, "length"),
    ("2^64", append!("Content-Length: 18446744073709551616\r\n\r\nwor"), 400, "length"),
    ("2^64+3", append!("Content-Length: 18446744073709551619\r\n\r\nwor"), 400, "length"),
    ("an empty length", append!("Content-Length:\r\n\r\nwor"), 400, "length"),
    ("a blank length", append!("Content-Length:  \r\n\r\nwor"), 400, "length"),

    ("a space in front of the colon", append!("Content-Length : 3\r\n\r\nwor"), 400, "method"),
    ("a tab in front of the colon", append!("Content-Length\t: 3\r\n\r\nwor"), 400, "method"),
    ("a space in a name", append!("Content Length: 3\r\n\r\nwor"), 400, "method"),
    ("no name", append!(": 3\r\n\r\nwor"), 400, "method"),
    ("no colon", append!("Content-Length 3\r\n\r\nwor"), 400, "method"),
    ("a folded line", append!("Content-Length: 3\r\nX: y\r\n z\r\n\r\nwor"), 400, "method"),
    ("a line folded by a tab", append!("Content-Length: 3\r\nX:\r\n\ty\r\n\r\nwor"), 400, "method"),
    ("a fold in front of all lines", "PUT /log HTTP/1.1\r\n Host: x\r\n\r\n", 400, "method"),

    ("TE: chunked", chunked!("3\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("TE: CHUNKED", append!("Transfer-Encoding: CHUNKED\r\n\r\n3\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("TE: gzip, chunked", append!("Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("TE: chunked, gzip", append!("Transfer-Encoding: chunked, gzip\r\n\r\nwor"), 411, "length"),
    ("TE: chunked, chunked", append!("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), 411, "length"),
    ("TE: identity", append!("Content-Length: 3\r\nTransfer-Encoding: identity\r\n\r\nwor"), 411, "length"),
    ("TE: xchunked", append!("Content-Length: 3\r\nTransfer-Encoding: xchunked\r\n\r\nwor"), 411, "length"),
    ("TE with nothing in it", append!("Content-Length: 3\r\nTransfer-Encoding:\r\n\r\nwor"), 411, "length"),
    ("TE twice", append!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"), 411, "length"),
    ("TE behind a vertical tab", append!("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), 400, "method"),
    ("TE of a GET", "GET /log HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "length"),
    ("TE of HTTP/1.0", "PUT /log HTTP/1.0\r\nContent-Range: bytes 5-7/8\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "length"),

    ("a chunk with an extension", chunked!("3;a=b\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("a chunk longer than 2^64", chunked!("10000000000000003\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("a chunk of a negative length", chunked!("-3\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("a chunk of 0x3", chunked!("0x3\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("chunks with lone line feeds", chunked!("3\nwor\n0\n\n"), 411, "length"),
    ("chunks without an end", chunked!("3\r\nwor\r\n"), 411, "length"),
    ("a chunk shorter than it says", chunked!("5\r\nwor\r\n0\r\n\r\n"), 411, "length"),
    ("a request behind the last chunk", chunked!("0\r\n\r\nPUT /smuggled HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-0/1\r\nContent-Length: 1\r\n\r\nx"), 411, "length"),
    ("Content-Range in trailers", "PUT /log HTTP/1.1\r\nHost: x\r\nTrailer: Content-Range\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwor\r\n0\r\nContent-Range: bytes 5-7/8\r\n\r\n", 411, "length"),
    ("another Content-Range in trailers", chunked!("3\r\nwor\r\n0\r\nContent-Range: bytes 0-2/3\r\n\r\n"), 411, "length"),

    ("LF only", "PUT /log HTTP/1.1\nHost: x\nContent-Range: bytes 5-7/8\nContent-Length: 3\n\nwor", 400, "method"),
    ("LF behind the request line", "PUT /log HTTP/1.1\nHost: x\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3\r\n\r\nwor", 400, "method"),
    ("LF behind a header line", append!("Content-Length: 3\n\r\nwor"), 400, "method"),
    ("LF behind the head", append!("Content-Length: 3\r\n\nwor"), 400, "method"),
    ("LF in front of the request", "\nPUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3\r\n\r\nwor", 400, "method"),
    ("bare CR in a value", append!("X: a\rb\r\nContent-Length: 3\r\n\r\nwor"), 400, "method"),
    ("bare CR for the end of a line", append!("X: a\rContent-Length: 3\r\n\r\nwor"), 400, "method"),
    ("bare CR in a name", append!("Content\r-Length: 3\r\n\r\nwor"), 400, "method"),
    ("bare CR in the request line", "PUT /log\r HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("CR CR LF", append!("Content-Length: 3\r\r\n\r\nwor"), 400, "method"),
    ("NUL in the method", "PUT\0 /log HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("NUL in the target", "PUT /log\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("NUL in a name", append!("Content\0-Length: 3\r\n\r\nwor"), 400, "method"),
    ("NUL in a value", append!("X: a\0b\r\nContent-Length: 3\r\n\r\nwor"), 400, "method"),
    ("NUL in a range", "PUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 5-7\0/8\r\nContent-Length: 3\r\n\r\nwor", 400, "method"),
    ("ESC in a value", append!("X: \x1b[2J\r\nContent-Length: 3\r\n\r\nwor"), 400, "method"),
    ("DEL in a value", append!("X: \x7f\r\nContent-Length: 3\r\n\r\nwor"), 400, "method"),

    ("HTTP/0.9", "GET /log\r\n", 400, "method"),
    ("HTTP/0.9 by PUT", "PUT /log\r\n\r\n", 400, "method"),
    ("HTTP/0.9 by name", "PUT /log HTTP/0.9\r\n\r\n", 400, "method"),
    ("HTTP/2.0 by name", "PUT /log HTTP/2.0\r\nHost: x\r\n\r\n", 400, "method"),
    ("HTTP/1.2", "PUT /log HTTP/1.2\r\nHost: x\r\n\r\n", 400, "method"),
    ("HTTP/1.10", "PUT /log HTTP/1.10\r\nHost: x\r\n\r\n", 400, "method"),
    ("http/1.1", "PUT /log http/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("another protocol", "PUT /log ICY/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("no method", " /log HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("an odd method", "PUT(1) /log HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("no target", "PUT HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("an empty target", "PUT  HTTP/1.1\r\nHost: x\r\n\r\n", 400, "path"),
    ("two spaces", "PUT  /log HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("tabs for spaces", "PUT\t/log\tHTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("a space behind the version", "PUT /log HTTP/1.1 \r\nHost: x\r\n\r\n", 400, "method"),
    ("a space in the target", "PUT /lo g HTTP/1.1\r\nHost: x\r\n\r\n", 400, "method"),
    ("no HTTP at all", "hello?\r\n\r\n", 400, "method"),
    ("the h2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 400, "method"),
    ("TLS on plain", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03 and so on", 400, "method"),
    ("SSH on plain", "SSH-2.0-OpenSSH_9.2\r\n", 400, "method"),
    ("an unknown Expect", append!("Content-Length: 3\r\nExpect: a miracle\r\n\r\nwor"), 417, "method"),
    ("an unknown Expect among known ones", append!("Content-Length: 3\r\nExpect: 100-continue\r\nExpect: a miracle\r\n\r\nwor"), 417, "method"),
    ("a list of expectations", append!("Content-Length: 3\r\nExpect: 100-continue, 100-continue\r\n\r\nwor"), 417, "method"),
];

/// The same for requests that are refused by themselves; the connection goes on.
#[rustfmt::skip]
const BAD_REQUESTS: &[(&str, &str, u16, &str)] = &[
    ("no length", append!("\r\n"), 411, "length"),
    ("no length of a confirm", "PUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes */0\r\nIf-None-Match: *\r\n\r\n", 411, "length"),
    ("no Host", "PUT /log HTTP/1.1\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3\r\n\r\nwor", 400, "path"),
    ("two Hosts", append!("Host: y\r\nContent-Length: 3\r\n\r\nwor"), 400, "path"),
    ("two equal Hosts", append!("Host: x\r\nContent-Length: 3\r\n\r\nwor"), 400, "path"),
    ("a Host with a path", "PUT /log HTTP/1.1\r\nHost: x/y\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3\r\n\r\nwor", 400, "path"),
    ("a Host with a space", "PUT /log HTTP/1.1\r\nHost: x y\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3\r\n\r\nwor", 400, "path"),
    ("a Host with somebody at it", "PUT /log HTTP/1.1\r\nHost: me@x\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3\r\n\r\nwor", 400, "path"),
    ("CONNECT", "CONNECT logs.example.net:80 HTTP/1.1\r\nHost: logs.example.net:80\r\n\r\n", 400, "path"),
    ("CONNECT to a path", "CONNECT /log HTTP/1.1\r\nHost: x\r\n\r\n", 400, "path"),
    ("gzip", append!("Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nwor"), 415, "coding"),
    ("gzip behind identity", append!("Content-Encoding: identity, gzip\r\nContent-Length: 3\r\n\r\nwor"), 415, "coding"),
    ("gzip on a second line", append!("Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nwor"), 415, "coding"),
    ("gzip of a confirm", "PUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes */0\r\nIf-None-Match: *\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 415, "coding"),
    ("h2c", "PUT /log HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nhello", 204, ""),
];

const ROWS: usize = 145;

#[test]
fn framing() {
    let mut rows = Vec::new();
    for (name, bytes, status, problem) in BAD_HEADS {
        rows.push(row(
            name,
            vec![say(bytes)],
            vec![answer(*status, problem).ends()],
        ));
    }
    for (name, bytes, status, problem) in BAD_REQUESTS {
        rows.push(row(name, vec![say(bytes)], vec![answer(*status, problem)]));
    }
    rows.extend(heads());
    rows.extend(long());
    rows.extend(several());
    rows.extend(ended());
    let quick = Stage::new("").play(rows);
    let slow = Stage::new("idle_timeout: 1s\n").play(slow());
    let plain = Stage::guarded().play(plain_on_tls());
    let count = quick + slow + plain;
    println!("framing: {count} rows");
    assert_eq!(count, ROWS);
}

fn row(name: &'static str, sent: Vec<Sent>, answers: Vec<Expected>) -> Row {
    Row {
        name,
        sent,
        answers,
        leaves: Leaves::Same,
    }
}

/// HEADs, and what HTTP allows.
fn heads() -> Vec<Row> {
    let head = |status, problem| answer(status, problem).to_head();
    vec![
        row(
            "a HEAD without Host",
            vec![say("HEAD /log HTTP/1.1\r\n\r\n")],
            vec![head(400, "path")],
        ),
        row(
            "a HEAD with LF only",
            vec![say("HEAD /log HTTP/1.1\nHost: x\n\n")],
            vec![head(400, "method").ends()],
        ),
        row(
            "a HEAD with TE",
            vec![say(
                "HEAD /log HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            )],
            vec![head(411, "length").ends()],
        ),
        row(
            "a PUT in the body of a HEAD",
            vec![say(concat!(
                "HEAD /log HTTP/1.1\r\nHost: x\r\nContent-Length: 80\r\n\r\n",
                append!("Content-Length: 3\r\n\r\nwor")
            ))],
            vec![head(200, "")],
        ),
        row(
            "an Expect with nothing behind it",
            vec![say(
                "HEAD /log HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            )],
            vec![head(200, "")],
        ),
        row(
            "a HEAD that asks for h2c",
            vec![say(
                "HEAD /log HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            )],
            vec![head(200, "")],
        ),
        row(
            "empty lines in front",
            vec![say("\r\n\r\nHEAD /log HTTP/1.1\r\nHost: x\r\n\r\n")],
            vec![head(200, "")],
        ),
        row(
            "HTTP/1.0",
            vec![say("HEAD /log HTTP/1.0\r\n\r\n")],
            vec![head(200, "").ends_unsaid()],
        ),
    ]
}

/// Heads beyond every bound.
fn long() -> Vec<Row> {
    let head = say("HEAD /log HTTP/1.1\r\nHost: x\r\n");
    let too_large = || vec![answer(431, "too-large").to_head().ends()];
    vec![
        row(
            "100 headers",
            vec![head.clone(), times(99, "X: y\r\n"), say("\r\n")],
            vec![answer(200, "").to_head()],
        ),
        row(
            "101 headers",
            vec![head.clone(), times(100, "X: y\r\n"), say("\r\n")],
            too_large(),
        ),
        row(
            "10,000 headers",
            vec![head.clone(), times(9_999, "X: y\r\n"), say("\r\n")],
            too_large(),
        ),
        row(
            "a header of 500 KB",
            vec![
                head.clone(),
                say("X: "),
                times(500_000, "y"),
                say("\r\n\r\n"),
            ],
            too_large(),
        ),
        row(
            "a name of 500 KB",
            vec![head.clone(), times(500_000, "X"), say(": y\r\n\r\n")],
            too_large(),
        ),
        row(
            "70 headers of 1 KB",
            vec![
                head,
                times(70, &format!("X: {}\r\n", "y".repeat(1_019))),
                say("\r\n"),
            ],
            too_large(),
        ),
        row(
            "a URI of 70 KB",
            vec![
                say("HEAD /"),
                times(70_000, "x"),
                say(" HTTP/1.1\r\nHost: x\r\n\r\n"),
            ],
            vec![answer(414, "path").to_head().ends()],
        ),
        row(
            "a URI of 70 KB to PUT",
            vec![
                say("PUT /"),
                times(70_000, "x"),
                say(" HTTP/1.1\r\nHost: x\r\n\r\n"),
            ],
            vec![answer(414, "path").ends()],
        ),
        row(
            "a method of 70 KB",
            vec![times(70_000, "X"), say(" /log HTTP/1.1\r\nHost: x\r\n\r\n")],
            vec![answer(400, "method").ends()],
        ),
    ]
}

/// `PUT` of one byte more to `path`, at `at`.
fn one_more(path: &str, at: usize) -> String {
    format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes {at}-{at}/{}\r\n\
         Content-Length: 1\r\n\r\n{}",
        at + 1,
        at % 10
    )
}

fn digits(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| b'0' + u8::try_from(at % 10).unwrap())
        .collect()
}

/// Several requests in one go: each is answered, in its order, up to the first bad one.
fn several() -> Vec<Row> {
    const INNER: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let pipelined = |path: &str, range: std::ops::Range<usize>| {
        let all: String = range.map(|at| one_more(path, at)).collect();
        Sent::Bytes(all.into_bytes().into())
    };
    let mut thousand = vec![answer(201, "")];
    thousand.resize(1_000, answer(204, ""));
    let mut half = thousand[..500].to_vec();
    half.push(answer(400, "method").ends());
    vec![
        Row {
            name: "1,000 pipelined PUTs",
            sent: vec![pipelined("/pipelined", 0..1_000)],
            answers: thousand,
            leaves: Leaves::File(b"pipelined".into(), digits(1_000).into()),
        },
        Row {
            name: "1,000 pipelined PUTs, with a lone LF in the 501st",
            sent: vec![
                pipelined("/half", 0..500),
                say("PUT /half HTTP/1.1\nHost: x\r\n\r\n"),
                pipelined("/half", 500..1_000),
            ],
            answers: half,
            leaves: Leaves::File(b"half".into(), digits(500).into()),
        },
        Row {
            name: "a GET in a body",
            sent: vec![
                say("PUT /body HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-34/35\r\n"),
                say("Content-Length: 35\r\n\r\n"),
                say(INNER),
            ],
            answers: vec![answer(201, "")],
            leaves: Leaves::File(b"body".into(), INNER.as_bytes().into()),
        },
        row(
            "a PUT in the body of a GET",
            vec![
                say("GET /log HTTP/1.1\r\nHost: x\r\nContent-Length: 80\r\n\r\n"),
                say(append!("Content-Length: 3\r\n\r\nwor")),
            ],
            vec![answer(405, "method").allowing()],
        ),
        row(
            "a GET behind a body",
            vec![
                say("PUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-4/5\r\n"),
                say("Content-Length: 5\r\n\r\nhello"),
                say(INNER),
            ],
            vec![answer(204, ""), answer(405, "method").allowing()],
        ),
        row(
            "a body longer than its length",
            vec![
                say("PUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-4/5\r\n"),
                say("Content-Length: 5\r\n\r\nhello, world\r\n\r\n"),
            ],
            vec![answer(204, ""), answer(400, "method").ends()],
        ),
        row(
            "a body without a length",
            vec![say(append!("\r\nwor\r\n\r\n"))],
            vec![answer(411, "length"), answer(400, "method").ends()],
        ),
    ]
}

/// A PUT to a new file, with five of ten bytes.
macro_rules! cut {
    ($path:literal, $more:literal) => {
        say(concat!(
            "PUT ",
            $path,
            " HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-9/10\r\n",
            "Content-Length: 10\r\n",
            $more,
            "\r\nhello"
        ))
    };
}

/// Connections that end too early. What came of a body is a tail; nothing of it is acknowledged.
fn ended() -> Vec<Row> {
    vec![
        Row {
            name: "FIN in the body",
            sent: vec![cut!("/fin", ""), Sent::Finish],
            answers: vec![answer(400, "length").ends()],
            leaves: Leaves::Tail("fin", b"hello"),
        },
        Row {
            name: "RST in the body",
            sent: vec![cut!("/rst", ""), Sent::Arrived("rst", 5), Sent::Reset],
            answers: vec![],
            leaves: Leaves::Tail("rst", b"hello"),
        },
        row(
            "FIN in front of the body",
            vec![say(append!("Content-Length: 3\r\n\r\n")), Sent::Finish],
            vec![answer(400, "length").ends()],
        ),
        row(
            "FIN in the head",
            vec![say("PUT /log HTTP/1.1\r\nHost:"), Sent::Finish],
            vec![],
        ),
        row(
            "RST in the head",
            vec![say("PUT /log HTTP/1.1\r\nHost:"), Sent::Reset],
            vec![],
        ),
        row(
            "RST in front of the body",
            vec![say(append!("Content-Length: 3\r\n\r\n")), Sent::Reset],
            vec![],
        ),
        row("FIN at once", vec![Sent::Finish], vec![]),
    ]
}

/// Who is slower than a second, where that is what a connection may lie idle.
fn slow() -> Vec<Row> {
    let late = || vec![answer(408, "timeout").ends()];
    vec![
        row("silence", vec![], vec![]),
        row(
            "half a head",
            vec![say("HEAD /log HTTP/1.1\r\nHos")],
            late(),
        ),
        row(
            "a head that drips",
            vec![Sent::Drip(&[b'x'; 1_000])],
            late(),
        ),
        Row {
            name: "Expect and then silence",
            sent: vec![say(append!(
                "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
            ))],
            answers: vec![answer(100, ""), answer(408, "timeout").ends()],
            leaves: Leaves::Same,
        },
        Row {
            name: "half a body",
            sent: vec![cut!("/half", "")],
            answers: late(),
            leaves: Leaves::Tail("half", b"hello"),
        },
        row(
            "a repeat that drips",
            vec![
                say("PUT /log HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-4/5\r\n"),
                say("Content-Length: 5\r\n\r\n"),
                Sent::Drip(b"hell"),
            ],
            late(),
        ),
        Row {
            name: "a body that drips",
            sent: vec![
                say("PUT /drip HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-999/1000\r\n"),
                say("Content-Length: 1000\r\n\r\n"),
                Sent::Drip(&[b'x'; 900]),
            ],
            answers: late(),
            leaves: Leaves::Dripped("drip", b'x'),
        },
    ]
}

/// Requests without TLS where TLS is spoken.
fn plain_on_tls() -> Vec<Row> {
    let plain = answer(400, "method").bare().ends();
    vec![
        row(
            "plain on TLS",
            vec![say("PUT /hosta/log HTTP/1.1\r\nHost: x\r\n\r\n")],
            vec![plain],
        ),
        row(
            "a plain HEAD on TLS",
            vec![say("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")],
            vec![plain.to_head()],
        ),
    ]
}
