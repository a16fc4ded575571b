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
use crate::common::{self, Server, wait_for, wait_until};
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
    /// Every row of every table but those of usage.
    rows: Vec<Value>,
    /// Files and bytes that are charged to each client.
    usage: BTreeMap<String, (u64, u64)>,
}

/// The first bytes of a file.
const FIRST: &str = "Content-Range: bytes 0-4/5\r\nContent-Length: 5\r\n";

impl Stage {
    pub fn new(config: &str) -> Self {
        let home = TempDir::new().unwrap();
        fs::create_dir(home.path().join("outside")).unwrap();
        fs::write(home.path().join("outside/secret"), "secret").unwrap();
        // Under a quota, what broken bodies leave is charged too.
        let config = format!("quota: {{bytes: 1T}}\n{config}");
        let server = Server::start(&home.path().join("data"), &config);
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
        failures.extend(self.evidence().err());
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
        let (usage, mut rows): (Vec<_>, Vec<_>) = common::inspect(&self.server.datadir)
            .into_iter()
            .partition(|row| row["table"] == "usage");
        rows.retain(|row| row["path"] != "/good");
        // Everybody here is one client, who pays for `/good` too.
        let number = |value: &Value| value.as_u64().unwrap();
        let charged = usage.iter().map(|row| {
            let (files, bytes) = (number(&row["files"]), number(&row["bytes"]));
            let good = self.good as u64;
            let rest = (files - good.min(1), bytes - good);
            (row["client"].as_str().unwrap().to_owned(), rest)
        });
        State {
            files,
            outside: common::tree(&self.outside()),
            rows,
            usage: charged.collect(),
        }
    }

    /// No file has had another life or other bytes, and what is charged for all of them together is
    /// what is charged for each.
    pub fn evidence(&self) -> Result<(), String> {
        let datadir = self.server.datadir.as_os_str();
        let asked = |words: &[&str]| {
            let words = words.iter().map(OsStr::new);
            let output =
                common::run(words.chain(["--json".as_ref(), "--datadir".as_ref(), datadir]));
            let is_good = output.status.success();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            is_good.then_some(text).ok_or_else(|| common::said(&output))
        };
        for row in common::rows(&self.server.datadir, "files") {
            let path = row["path"].as_str().ok_or("a path")?;
            let text = asked(&["db", "history", path])?;
            let past = text.lines().map(serde_json::from_str::<Value>);
            let past: Vec<_> = past.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
            let [former @ .., present] = &past[..] else {
                return Err(format!("* history: nothing of {path}"));
            };
            // A row that appends more than once may do so in two minutes.
            let is_right = present["length"] == row["length"]
                && present["blake3"] == row["blake3"]
                && former
                    .iter()
                    .all(|it| self.is_prefix(it) && it["life"] == present["life"]);
            if !is_right {
                return Err(format!("* history: {text}"));
            }
        }
        let found = asked(&["db", "check"])?;
        if found.is_empty() {
            return Ok(());
        }
        Err(format!("* check: {found}"))
    }

    /// Every file and every row is as before, but for what the row leaves.
    fn unchanged(&mut self, mut before: State, leaves: &Leaves) -> Result<(), String> {
        let mut after = self.state();
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
            Leaves::Tail(path, bytes) => {
                before.add(path.as_bytes(), bytes);
                after = self.charged(&before);
            }
            Leaves::Dripped(path, byte) => {
                let came = self.server.file(path).unwrap_or_default();
                let is_right = (1..900).contains(&came.len()) && came.iter().all(|it| it == byte);
                if !is_right {
                    return Err(format!("it left {came:?}"));
                }
                before.add(path.as_bytes(), &came);
                after = self.charged(&before);
            }
        }
        if before == after {
            self.last = Some(after);
            return Ok(());
        }
        Err(format!("it changed something: {before:?} became {after:?}"))
    }

    /// Whether a row of the history vouches for what its file holds still.
    fn is_prefix(&self, row: &Value) -> bool {
        let file = row["path"].as_str().and_then(|path| self.server.file(path));
        let length = row["length"]
            .as_u64()
            .and_then(|it| usize::try_from(it).ok());
        let prefix = file.as_deref().zip(length);
        let prefix = prefix.and_then(|(file, length)| file.get(..length));
        prefix.is_some_and(|it| row["blake3"] == blake3::hash(it).to_hex().as_str())
    }

    /// How it is when what a broken body has left is charged, of which no answer tells.
    fn charged(&self, expected: &State) -> State {
        wait_for("it is charged", || {
            Some(self.state()).filter(|state| state.usage == expected.usage)
        })
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
        for (files, charged) in self.usage.values_mut() {
            *files += 1;
            *charged += bytes.len() as u64;
        }
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
