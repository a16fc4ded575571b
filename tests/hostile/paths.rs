//! Request targets. The server's tree holds `/log`, the directory `/dir` with a file in it, and what
//! somebody planted: links out of it and about in it, a FIFO, another name of a file elsewhere.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::row::{Expected, Leaves, Row, Sent, answer};
use super::stage::Stage;
use crate::common;

/// Targets under which there is no file, for PUT, confirm and HEAD alike: 400 `path`.
#[rustfmt::skip]
const NO_FILES: &[(&str, &str)] = &[
    ("..", "/../log"),
    (".. inside", "/x/../log"),
    (".. at the end", "/x/.."),
    (".. beyond the root", "/../../../../etc/passwd"),
    ("%2e%2e", "/%2e%2e/log"),
    ("%2E.", "/%2E./log"),
    (".%2e inside", "/dir/.%2e/log"),
    (".", "/./log"),
    (". inside", "/dir/./log"),
    (". at the end", "/x/."),
    ("%2e", "/%2e"),
    ("%2f", "/dir%2flog"),
    ("%2F", "/x%2Fy"),
    ("%2f and ..", "/..%2flog"),
    ("%2e%2e%2f", "/%2e%2e%2flog"),
    ("%00", "/log%00"),
    ("%00 inside", "/lo%00g"),
    ("%zz", "/x%zz"),
    ("% alone", "/x%"),
    ("% with one digit", "/x%2"),
    ("%+5", "/x%+5"),
    ("// in front", "//log"),
    ("// inside", "/dir//log"),
    ("our own directory", "/.shaftlog/server.redb"),
    ("our own directory itself", "/.shaftlog"),
    ("our own directory deeper", "/x/.shaftlog/y"),
    ("our own directory encoded", "/%2eshaftlog/lock"),
    ("our own directory fully encoded", "/%2e%73%68%61%66%74%6c%6f%67/lock"),
    ("absolute form", "http://logs.example.net/log"),
    ("absolute form by https", "https://logs.example.net/log"),
    ("authority form", "logs.example.net:80"),
    ("*", "*"),
    ("no slash", "log"),
    ("a directory as file", "/dir"),
    ("a symlink to a file outside", "/secret"),
    ("a symlink to a directory outside", "/outside/secret"),
    ("a new file behind a symlink", "/outside/new"),
    ("a symlink to /etc", "/etc/passwd"),
    ("a symlink to a file of ours", "/alias"),
    ("a symlink to a directory of ours", "/aliases/file"),
    ("a symlink to nothing", "/dangling"),
    ("a symlink to itself", "/loop"),
    ("a FIFO", "/fifo"),
    ("a second name of a file outside", "/linked"),
];

/// The same, too long to be written down: what is repeated, and how often.
#[rustfmt::skip]
const TOO_LONG: &[(&str, &str, &str, usize)] = &[
    ("a segment of 256 bytes", "/", "n", 256),
    ("a segment of 256 encoded bytes", "/", "%6e", 256),
    ("a path of 4,097 bytes", "/four", "/a_segment_of_two_and_thirty_byte", 124),
    ("500 levels", "", "/d", 500),
    ("129 levels", "", "/d", 129),
];

/// As long as a path may be, in the same way: taken.
#[rustfmt::skip]
const LONGEST: &[(&str, &str, &str, usize)] = &[
    ("a segment of 255 bytes", "/", "n", 255),
    ("128 levels", "", "/d", 128),
];

/// Requests whose target is odd only for their method: method, target, status, token.
#[rustfmt::skip]
const ODD: &[(&str, &str, &str, u16, &str)] = &[
    ("a trailing slash", "PUT", "/log/", 400, "path"),
    ("nothing but a slash", "PUT", "/", 400, "path"),
    ("a trailing slash behind a directory", "PUT", "/dir/", 400, "path"),
    ("a query", "PUT", "/log?length=5", 400, "path"),
    ("an empty query", "PUT", "/log?", 400, "path"),
    ("an empty query", "HEAD", "/log?", 400, "path"),
    ("an unknown query", "HEAD", "/log?size=5", 400, "path"),
    ("no length", "HEAD", "/log?length=", 400, "path"),
    ("a signed length", "HEAD", "/log?length=+5", 400, "path"),
    ("a negative length", "HEAD", "/log?length=-5", 400, "path"),
    ("two lengths", "HEAD", "/log?length=5&length=5", 400, "path"),
    ("a length of 2^63", "HEAD", "/log?length=9223372036854775808", 400, "path"),
    ("a length beyond the file", "HEAD", "/log?length=6", 416, "gap"),
    ("a file as directory", "PUT", "/log/x", 400, "path"),
    ("a file as directory", "HEAD", "/log/x", 404, ""),
    ("a file as directory, encoded", "PUT", "/%6cog/x", 400, "path"),
    ("a file in a FIFO", "PUT", "/fifo/x", 400, "path"),
    ("a file in a FIFO", "HEAD", "/fifo/x", 404, ""),
    ("double-encoded ..", "HEAD", "/%252e%252e/log", 404, ""),
    ("%5c", "HEAD", "/..%5clog", 404, ""),
    ("another case", "HEAD", "/LOG", 404, ""),
];

/// Targets that end the connection: nobody can tell what was meant.
#[rustfmt::skip]
const NO_TARGETS: &[(&str, &str)] = &[
    ("a fragment", "/log#x"),
    ("an empty fragment", "/log#"),
    ("a fragment behind a query", "/log?length=5#x"),
    ("an angle bracket", "/<log>"),
    ("absolute form of a file", "file:///log"),
];

/// Names that look dangerous and are none: what is asked for, what lies on the disk, what is shown.
#[rustfmt::skip]
const ACCEPTED: &[(&str, &str, &[u8], &str)] = &[
    ("double-encoded", "/%252e%252e", b"%2e%2e", "/%252e%252e"),
    ("%5c", "/..%5c..%5cetc", b"..\\..\\etc", "/..\\..\\etc"),
    ("a newline", "/new%0aline", b"new\nline", "/new%0Aline"),
    ("CR", "/carriage%0dreturn", b"carriage\rreturn", "/carriage%0Dreturn"),
    ("ESC", "/%1b%5b2J", b"\x1b[2J", "/%1B[2J"),
    ("DEL", "/%7f", b"\x7f", "/%7F"),
    ("CSI in one byte", "/%9b2J", b"\x9b2J", "/%9B2J"),
    ("CSI in UTF-8", "/%c2%9b2J", "\u{9b}2J".as_bytes(), "/%C2%9B2J"),
    ("right to left", "/%e2%80%aegol", "\u{202e}gol".as_bytes(), "/%E2%80%AEgol"),
    ("a leading -", "/-rf", b"-rf", "/-rf"),
    ("a leading - in a directory", "/--/-rf", b"--/-rf", "/--/-rf"),
    ("invalid UTF-8", "/%ff%fe", b"\xff\xfe", "/%FF%FE"),
    ("half a letter", "/Z%c3", b"Z\xc3", "/Z%C3"),
    ("a surrogate", "/%ed%a0%80", b"\xed\xa0\x80", "/%ED%A0%80"),
    ("UTF-8", "/Z%c3%bcrich", "Zürich".as_bytes(), "/Zürich"),
    ("a space", "/a%20b", b"a b", "/a b"),
    ("a question mark", "/what%3f", b"what?", "/what?"),
    ("a hash", "/%23", b"#", "/#"),
    ("three dots", "/...", b"...", "/..."),
    ("dots and more", "/..log", b"..log", "/..log"),
    ("nearly our own directory", "/.shaftlogs", b".shaftlogs", "/.shaftlogs"),
    ("a tilde", "/~root", b"~root", "/~root"),
    ("a dollar", "/$(reboot)", b"$(reboot)", "/$(reboot)"),
];

/// What is not `hosta`'s: 403 to HEAD and PUT.
#[rustfmt::skip]
const ANOTHERS: &[(&str, &str)] = &[
    ("another identity's prefix", "/hostb/log"),
    ("another identity's prefix, encoded", "/%68ostb/log"),
    ("a longer name", "/hostab/log"),
    ("a longer name by one byte", "/hosta-/log"),
    ("a shorter name", "/host/log"),
    ("another case", "/hostA/log"),
    ("no directory", "/log"),
    ("a space behind it", "/hosta%20/log"),
];

const ROWS: usize = 219;

#[test]
fn paths() {
    let mut stage = Stage::new("");
    plant(&stage);
    let mut rows = Vec::new();
    let written = NO_FILES
        .iter()
        .map(|(name, target)| (*name, (*target).to_owned()));
    let repeated = TOO_LONG
        .iter()
        .map(|(name, start, part, count)| (*name, format!("{start}{}", part.repeat(*count))));
    for (name, target) in written.chain(repeated) {
        for request in [append(&target), confirm(&target)] {
            rows.push(row(name, request, answer(400, "path")));
        }
        rows.push(row(name, head(&target), answer(400, "path").to_head()));
    }
    for (name, method, target, status, problem) in ODD {
        let expected = answer(*status, problem);
        rows.push(match *method {
            "PUT" => row(name, append(target), expected),
            _ => row(name, head(target), expected.to_head()),
        });
    }
    for (name, target) in NO_TARGETS {
        rows.push(row(name, append(target), answer(400, "path").ends()));
        rows.push(row(
            name,
            head(target),
            answer(400, "path").to_head().ends(),
        ));
    }
    for (name, target, on_disk, _) in ACCEPTED {
        rows.push(Row {
            leaves: Leaves::File((*on_disk).into(), b"hello".into()),
            ..row(name, append(target), answer(201, ""))
        });
    }
    for (name, start, part, count) in LONGEST {
        let target = format!("{start}{}", part.repeat(*count));
        rows.push(Row {
            leaves: Leaves::File(target.as_bytes()[1..].to_vec().into(), b"hello".into()),
            ..row(name, append(&target), answer(201, ""))
        });
    }
    let mut count = stage.play(rows);
    check_shown(&stage);
    let mut guarded = Stage::guarded();
    for (name, target) in ANOTHERS {
        for method in ["HEAD", "PUT"] {
            let tried = guarded.try_as_another(method, target);
            assert_eq!(tried, Ok(()), "{name}: {method} {target}");
            count += 1;
        }
    }
    assert_eq!(guarded.evidence(), Ok(()));
    println!("paths: {count} rows");
    assert_eq!(count, ROWS);
}

fn row(name: &'static str, request: String, expected: Expected) -> Row {
    Row {
        name,
        sent: vec![Sent::Bytes(request.into_bytes().into())],
        answers: vec![expected],
        leaves: Leaves::Same,
    }
}

fn append(target: &str) -> String {
    format!(
        "PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-4/5\r\n\
         Content-Length: 5\r\n\r\nhello"
    )
}

fn confirm(target: &str) -> String {
    format!(
        "PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes */0\r\n\
         If-None-Match: *\r\nContent-Length: 0\r\n\r\n"
    )
}

fn head(target: &str) -> String {
    format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Puts into the server's tree what is not its own.
fn plant(stage: &Stage) {
    let (tree, outside) = (&stage.server.datadir, stage.outside());
    fs::create_dir(tree.join("dir")).unwrap();
    fs::write(tree.join("dir/file"), "hello").unwrap();
    for (link, target) in [
        ("secret", outside.join("secret")),
        ("outside", outside.clone()),
        ("etc", "/etc".into()),
        ("alias", "log".into()),
        ("aliases", "dir".into()),
        ("dangling", outside.join("new")),
        ("loop", "loop".into()),
    ] {
        symlink(target, tree.join(link)).unwrap();
    }
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, tree.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    fs::hard_link(outside.join("secret"), tree.join("linked")).unwrap();
}

/// Every accepted name is shown, and nothing of it reaches a terminal as it is.
fn check_shown(stage: &Stage) {
    let rows = common::rows(&stage.server.datadir, "files");
    let datadir = stage.server.datadir.as_os_str();
    let table = common::run([
        "db".as_ref(),
        "inspect".as_ref(),
        "--datadir".as_ref(),
        datadir,
    ]);
    let table = String::from_utf8(table.stdout).expect("the table is UTF-8");
    for (name, _, _, shown) in ACCEPTED {
        assert!(
            rows.iter().any(|row| row["path"] == *shown),
            "{name}: {rows:?}"
        );
        assert!(table.contains(shown), "{name}: {table}");
    }
    for text in [table, stage.server.output()] {
        let raw = text
            .chars()
            .find(|it| *it != '\n' && (it.is_control() || *it == '\u{202e}'));
        assert_eq!(raw, None, "{text:?}");
    }
}
