//! The server that is attacked, and what is checked after each row.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::row::{Expected, Leaves, Row, Sent};
use crate::authority::{Authority, Certified, put};
use crate::common::{self, Server, wait_until};
use crate::contract;
use crate::http::{Answer, Asked, Connection};
use crate::speaker::Speaker;

/// A server that holds `/log` with the bytes `hello`, and `/good`, to which everybody may append.
pub struct Stage {
    pub server: Server,
    /// Who comes by TLS, when the server speaks that.
    pub tls: Option<(Authority, Certified)>,
    home: TempDir,
    /// The highest commit number that was seen.
    known: u64,
    /// The bytes of `/good`.
    good: usize,
    /// How it was after the last row.
    last: Option<State>,
}

/// What must not change.
#[derive(PartialEq, Debug)]
struct State {
    files: BTreeMap<PathBuf, (u64, blake3::Hash)>,
    outside: BTreeMap<PathBuf, (u64, blake3::Hash)>,
    rows: Vec<Value>,
}

/// The first bytes of a file.
const FIRST: &str = "Content-Range: bytes 0-4/5\r\nContent-Length: 5\r\n";

impl Stage {
    pub fn new(config: &str) -> Self {
        let home = TempDir::new().unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        fs::write(home.path().join("outside/secret"), "secret").unwrap();
        let server = Server::start(&home.path().join("data"), config);
        let stage = Self {
            server,
            tls: None,
            home,
            known: 0,
            good: 0,
            last: None,
        };
        let mut connection = Connection::open(stage.server.port);
        let said = ask(&mut connection, "PUT", "/log", FIRST, b"hello").unwrap();
        assert_eq!(said.status, 201, "{}", said.shown());
        stage
    }

    /// A server that speaks TLS, and gives each identity its own directory. `hosta` comes.
    pub fn guarded() -> Self {
        let authority = Authority::new("CA");
        let home = TempDir::new().unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        let (cert, key) = authority.certify("localhost").put(home.path(), "own");
        let ca = home.path().join("ca.pem");
        put(&ca, authority.pem(), 0o644);
        let config = format!(
            "tls: {{cert: {}, key: {}, client_ca: {}}}\nauthorize:\n\
             - {{identity: '*', paths: ['/{{identity}}', /good]}}\n",
            common::yaml(&cert),
            common::yaml(&key),
            common::yaml(&ca)
        );
        let server = Server::start(&home.path().join("data"), &config);
        let own = authority.certify("hosta");
        let mut speaker = Speaker::meet(server.port, &authority, Some(&own)).unwrap();
        assert_eq!(speaker.put("/hosta/log", b"hello").unwrap().status, 201);
        Self {
            server,
            tls: Some((authority, own)),
            home,
            known: 0,
            good: 0,
            last: None,
        }
    }

    /// A directory that is not the server's.
    pub fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    /// Plays all rows; fails with all that did not hold. How many there were.
    pub fn play(&mut self, rows: Vec<Row>) -> usize {
        let mut failures = Vec::new();
        let count = rows.len();
        for row in rows {
            if let Err(problem) = self.try_row(&row) {
                self.last = None;
                failures.push(format!("* {}: {problem}", row.name));
            }
        }
        let failed = failures.len();
        assert!(failed == 0, "{failed} of {count}:\n{}", failures.join("\n"));
        count
    }

    fn try_row(&mut self, row: &Row) -> Result<(), String> {
        let before = self.before();
        self.exchange(row)?;
        self.unchanged(before, &row.leaves)?;
        self.append_again()
    }

    /// Does what the client does, reads all answers, and goes on if it may.
    fn exchange(&mut self, row: &Row) -> Result<(), String> {
        let mut connection = Connection::open(self.server.port);
        for sent in &row.sent {
            match sent {
                Sent::Bytes(bytes) => connection.send(bytes),
                Sent::Drip(bytes) => connection.drip(bytes),
                Sent::Arrived(path, size) => wait_until("it arrives", || {
                    self.server
                        .file(path)
                        .is_some_and(|file| file.len() as u64 == *size)
                }),
                Sent::Finish => connection.finish(),
                Sent::Reset => {
                    connection.reset();
                    return Ok(());
                }
            }
        }
        let mut is_open = false;
        for expected in &row.answers {
            if !is_open {
                connection.expect(Asked {
                    method: expected.to.to_owned(),
                    known: self.known,
                    ..Asked::default()
                });
            }
            is_open = expected.status < 200;
            self.answer(&mut connection, expected)?;
        }
        if row.answers.last().is_none_or(|last| last.ends) {
            return connection.ended();
        }
        let range = self.next_range();
        self.goes_on(ask(&mut connection, "PUT", "/good", &range, b"x")?.status)
    }

    fn answer(&mut self, connection: &mut Connection, expected: &Expected) -> Result<(), String> {
        let Some((asked, answer)) = connection.answer()? else {
            return Err(format!(
                "expected {}, the connection ended",
                expected.status
            ));
        };
        let shown = || format!("expected {}, got {}", expected.status, answer.shown());
        if answer.status != expected.status {
            return Err(shown());
        }
        if answer.status < 200 {
            return Ok(());
        }
        let problem = answer.header("shaftlog-problem").unwrap_or_default();
        let is_right = problem == expected.problem
            && answer.closes() == (expected.ends && !expected.is_unsaid)
            && answer.header("allow") == expected.allow;
        if !is_right {
            return Err(format!("expected {:?}, {}", expected.problem, shown()));
        }
        if !expected.is_bare {
            let stamp = contract::check(&asked, &answer, None)?;
            self.known = self.known.max(stamp.number);
            // RFC 9110 section 6.6.1.
            answer.header("date").ok_or("an answer without Date")?;
        }
        Ok(())
    }

    fn before(&mut self) -> State {
        self.last.take().unwrap_or_else(|| self.state())
    }

    fn state(&self) -> State {
        let mut files = common::tree(&self.server.datadir);
        files.remove(Path::new("good"));
        let mut rows = common::rows(&self.server.datadir, "files");
        rows.retain(|row| row["path"] != "/good");
        State {
            files,
            outside: common::tree(&self.outside()),
            rows,
        }
    }

    /// Every file and every row is as before, but for what the row leaves.
    fn unchanged(&mut self, mut before: State, leaves: &Leaves) -> Result<(), String> {
        let after = self.state();
        match leaves {
            Leaves::Same => {}
            Leaves::File(path, bytes) => {
                before.add(path, bytes);
                let added = after.rows.iter().position(|row| !before.rows.contains(row));
                let (at, row) = added
                    .map(|at| (at, &after.rows[at]))
                    .ok_or("no row of what it leaves")?;
                let is_right = row["length"] == bytes.len()
                    && row["blake3"] == blake3::hash(bytes).to_hex().as_str()
                    && row["state"] == "vouched";
                if !is_right {
                    return Err(format!("it left {row}"));
                }
                before.rows.insert(at, row.clone());
            }
            Leaves::Tail(path, bytes) => before.add(path.as_bytes(), bytes),
            Leaves::Dripped(path, byte) => {
                let came = self.server.file(path).unwrap_or_default();
                let is_right = (1..900).contains(&came.len()) && came.iter().all(|it| it == byte);
                if !is_right {
                    return Err(format!("it left {came:?}"));
                }
                before.add(path.as_bytes(), &came);
            }
        }
        if before == after {
            self.last = Some(after);
            return Ok(());
        }
        Err(format!("it changed something: {before:?} became {after:?}"))
    }

    fn next_range(&self) -> String {
        let at = self.good;
        format!(
            "Content-Range: bytes {at}-{at}/{}\r\nContent-Length: 1\r\n",
            at + 1
        )
    }

    fn goes_on(&mut self, status: u16) -> Result<(), String> {
        let holds = self
            .server
            .holds("good", "x".repeat(self.good + 1).as_bytes());
        if !matches!(status, 201 | 204) || !holds {
            return Err(format!("the next request: {status}, written: {holds}"));
        }
        self.good += 1;
        Ok(())
    }

    /// Asks for what is another identity's.
    pub fn try_as_another(&mut self, method: &str, target: &str) -> Result<(), String> {
        let before = self.before();
        let (authority, own) = self.tls.as_ref().ok_or("no TLS")?;
        let mut speaker = Speaker::meet(self.server.port, authority, Some(own)).unwrap();
        let head = if method == "PUT" { FIRST } else { "" };
        let body: &[u8] = if method == "PUT" { b"hello" } else { b"" };
        let said = speaker.ask(method, target, head, body).unwrap();
        let is_right = said.status == 403
            && said.text.contains("shaftlog-problem: forbidden\r\n")
            && !said.text.contains("shaftlog-length");
        if !is_right {
            return Err(format!("expected 403, got {said:?}"));
        }
        let range = self.next_range();
        self.unchanged(before, &Leaves::Same)?;
        let status = speaker.ask("PUT", "/good", &range, b"x").unwrap().status;
        self.goes_on(status)?;
        self.append_again()
    }

    /// The next good request on a new connection.
    fn append_again(&mut self) -> Result<(), String> {
        let range = self.next_range();
        let status = if let Some((authority, own)) = &self.tls {
            let mut speaker = Speaker::meet(self.server.port, authority, Some(own)).unwrap();
            speaker.ask("PUT", "/good", &range, b"x").unwrap().status
        } else {
            let mut connection = Connection::open(self.server.port);
            ask(&mut connection, "PUT", "/good", &range, b"x")?.status
        };
        self.goes_on(status)
    }
}

impl State {
    fn add(&mut self, path: &[u8], bytes: &[u8]) {
        let path = Path::new(OsStr::from_bytes(path)).to_owned();
        let entry = (bytes.len() as u64, blake3::hash(bytes));
        self.files.insert(path, entry);
    }
}

fn ask(
    connection: &mut Connection,
    method: &str,
    target: &str,
    head: &str,
    body: &[u8],
) -> Result<Answer, String> {
    connection.expect(Asked {
        method: method.to_owned(),
        ..Asked::default()
    });
    let line = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{head}\r\n");
    connection.send(&[line.as_bytes(), body].concat());
    let answer = connection.answer()?.ok_or("the connection ended")?;
    Ok(answer.1)
}
