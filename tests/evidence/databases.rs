//! Databases that are none, are damaged, of another time, or in other hands: `db inspect` and the
//! daemons name the file and what is wrong with it, print nothing that is not so, and change nothing
//! by looking.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use redb::{Database, ReadableTable as _, TableDefinition};

use crate::common::{Daemon, program, said, shaftlog, wait_for};
use crate::{Pair, told};

/// One side's datadir at rest, its database in order.
struct Side {
    name: &'static str,
    datadir: PathBuf,
    config: PathBuf,
    database: PathBuf,
    bytes: Vec<u8>,
    /// What `db inspect` prints of it.
    rows: Vec<String>,
}

/// What became of a daemon.
#[derive(Debug, PartialEq)]
enum Daemonic {
    Runs,
    Ended(Option<i32>),
}

impl Side {
    fn new(name: &'static str, datadir: &Path, config: PathBuf) -> Self {
        let database = datadir.join(".shaftlog").join(name).with_extension("redb");
        let mut side = Self {
            name,
            datadir: datadir.to_owned(),
            config,
            bytes: fs::read(&database).unwrap(),
            database,
            rows: Vec::new(),
        };
        let (code, rows, said) = side.inspect();
        assert_eq!(code, Some(0), "{said}");
        side.rows = rows;
        side
    }

    /// Puts this in the database's place.
    fn put(&self, bytes: &[u8]) {
        self.clear();
        fs::write(&self.database, bytes).unwrap();
    }

    fn clear(&self) {
        if fs::symlink_metadata(&self.database).is_ok_and(|it| it.is_dir()) {
            fs::remove_dir(&self.database).unwrap();
        } else {
            let _ = fs::remove_file(&self.database);
        }
    }

    /// Exit code, rows and all words of `db inspect`.
    fn inspect(&self) -> (Option<i32>, Vec<String>, String) {
        let output = told(&["db", "inspect"], &self.datadir, &["--json"]);
        let lines = String::from_utf8(output.stdout.clone()).unwrap();
        let lines = lines.lines().map(str::to_owned).collect();
        (output.status.code(), lines, said(&output))
    }

    /// Starts the daemon; once it has begun its work it is asked to end.
    fn daemon(&self) -> (Daemonic, String) {
        let output = self.datadir.with_extension("started");
        let _ = fs::remove_file(&output);
        let mut command = shaftlog();
        command
            .args([self.name, "--stdout", "--config"])
            .arg(&self.config);
        let mut daemon = Daemon::spawn(command, &output);
        let became = wait_for("the daemon ends or works", || {
            if let Some(status) = daemon.ended() {
                return Some(Daemonic::Ended(status.code()));
            }
            let output = daemon.output();
            let works = output.contains("listening on") || output.contains("status: ");
            works.then_some(Daemonic::Runs)
        });
        if became == Daemonic::Runs {
            // Its last commit may be the first to come upon the damage.
            let status = daemon.terminate();
            let names = daemon
                .output()
                .contains(&self.database.display().to_string());
            let told = status.code() == Some(1) && names;
            assert!(status.success() || told, "{status}: {}", daemon.output());
        }
        (became, daemon.output())
    }

    /// What lies there is no database: both say so, and it stays as it is.
    fn refuses(&self, what: &str, words: &str) {
        // Whoever opens a FIFO as if it were a file waits for ever.
        let content = || match fs::metadata(&self.database) {
            Ok(it) if it.is_file() => fs::read(&self.database).ok(),
            _ => None,
        };
        let before = content();
        let (code, rows, said) = self.inspect();
        self.check_refusal(what, code, &said, words);
        assert!(rows.is_empty(), "{what}: {rows:?}");
        let (became, said) = self.daemon();
        let Daemonic::Ended(code) = became else {
            panic!("{what}: the {} works: {said}", self.name);
        };
        self.check_refusal(what, code, &said, words);
        assert!(content() == before, "{what}: changed");
    }

    fn check_refusal(&self, what: &str, code: Option<i32>, said: &str, words: &str) {
        assert_eq!(code, Some(1), "{what} ({}): {said}", self.name);
        let place = format!("{}: ", self.database.display());
        assert!(said.contains(&place), "{what} ({}): {said}", self.name);
        assert!(
            said.contains(words),
            "{what} ({}): {words}: {said}",
            self.name
        );
        assert!(!said.contains("panicked at"), "{what}: {said}");
    }

    /// A damage: every row that is shown is right, or there is an error that names the file. Whether
    /// it was noticed.
    fn shows_nothing_wrong(&self, what: &str, bytes: &[u8]) -> bool {
        self.put(bytes);
        let (code, rows, said) = self.inspect();
        assert!(
            fs::read(&self.database).unwrap() == bytes,
            "{what}: changed by looking"
        );
        for row in &rows {
            assert!(self.rows.contains(row), "{what} ({}): {row}", self.name);
        }
        if code == Some(0) {
            assert_eq!(
                rows.len(),
                self.rows.len(),
                "{what} ({}): {said}",
                self.name
            );
            return false;
        }
        self.check_refusal(what, code, &said, "");
        true
    }

    /// A daemon works with a damage, or ends with an error that names the file.
    fn survives(&self, what: &str, bytes: &[u8]) -> bool {
        self.put(bytes);
        let (became, said) = self.daemon();
        assert!(
            !said.contains("panicked at"),
            "{what} ({}): {said}",
            self.name
        );
        if let Daemonic::Ended(code) = became {
            self.check_refusal(what, code, &said, "");
        }
        became == Daemonic::Runs
    }

    /// The next good one is taken by both.
    fn is_well_again(&self) {
        self.put(&self.bytes);
        let (code, rows, said) = self.inspect();
        assert_eq!((code, &rows), (Some(0), &self.rows), "{said}");
        let (became, said) = self.daemon();
        assert_eq!(became, Daemonic::Runs, "{said}");
        self.put(&self.bytes);
    }
}

/// Both sides after a delivery of forty files, at rest.
fn both_sides() -> (Pair, [Side; 2]) {
    let names: Vec<String> = (0..40).map(|n| format!("file{n:03}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), n.as_bytes())).collect();
    let mut pair = Pair::new(&files);
    assert!(pair.client.terminate().success());
    assert!(pair.server.terminate().success());
    let config = fs::read_to_string(pair.client.config()).unwrap();
    fs::write(
        pair.client.config(),
        format!("status_interval: 50\n{config}"),
    )
    .unwrap();
    let sides = [
        Side::new("server", &pair.server.datadir, pair.server.config()),
        Side::new("client", &pair.client.datadir, pair.client.config()),
    ];
    (pair, sides)
}

#[test]
fn what_is_no_database_is_refused_and_left_as_it_is() {
    let (_pair, sides) = both_sides();
    let text = "text ".repeat(20_000).into_bytes();
    let mut count = 0;
    for (side, other) in sides.iter().zip(sides.iter().rev()) {
        for (what, bytes, words) in [
            ("empty", &b""[..], "is no database of this program"),
            ("1 byte", b"x", "is no database of this program"),
            ("text", &text, "is no database of this program"),
        ] {
            side.put(bytes);
            side.refuses(what, words);
            count += 1;
        }
        for (what, words) in [
            ("newer version", "use the newer program"),
            ("a directory", "is not a regular file"),
            ("a symlink", "is not a regular file"),
            ("a FIFO", "is not a regular file"),
        ] {
            side.put(&side.bytes);
            match what {
                "newer version" => {
                    forge(&side.database, "meta", b"schema", b"schema", |mut row| {
                        row[1] = 99;
                        row
                    });
                }
                "a directory" => {
                    side.clear();
                    fs::create_dir(&side.database).unwrap();
                }
                "a FIFO" => {
                    side.clear();
                    let made = Command::new("mkfifo").arg(&side.database).status();
                    assert!(made.unwrap().success());
                }
                _ => {
                    let real = side.database.with_extension("real");
                    fs::rename(&side.database, &real).unwrap();
                    symlink(&real, &side.database).unwrap();
                }
            }
            side.refuses(what, words);
            count += 1;
        }
        // What it holds is so; but it is no database for this daemon.
        side.put(&other.bytes);
        let (became, said) = side.daemon();
        assert_eq!(became, Daemonic::Ended(Some(1)), "{said}");
        side.check_refusal("the other side's", Some(1), &said, "database, expected a");
        count += 1;
        side.is_well_again();
    }
    assert_eq!(count, 16);
    println!("{count} files that are no databases");
}

/// How often a database is damaged.
fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("SHAFTLOG_LONG").is_some() {
        long
    } else {
        short
    }
}

#[test]
fn no_cut_zeroed_page_or_flipped_bit_shows_what_is_not_so() {
    const PAGE: usize = 4096;
    let (_pair, sides) = both_sides();
    for side in &sides {
        let pages = side.bytes.len().div_ceil(PAGE);
        let mut damages: Vec<(String, Vec<u8>)> = Vec::new();
        for at in (0..side.bytes.len()).step_by(PAGE) {
            damages.push((format!("cut to {at}"), side.bytes[..at].to_vec()));
            let mut zeroed = side.bytes.clone();
            let end = zeroed.len().min(at + PAGE);
            if zeroed[at..end].iter().any(|&byte| byte != 0) {
                zeroed[at..end].fill(0);
                damages.push((format!("zeroed at {at}"), zeroed));
            }
        }
        let used = (0..side.bytes.len()).filter(|&at| side.bytes[at] != 0);
        let used: Vec<usize> = used.collect();
        let flips = rounds(100, 2000);
        for flip in 0..flips {
            let at = used[flip * used.len() / flips];
            let mut flipped = side.bytes.clone();
            flipped[at] ^= 1 << (flip % 8);
            damages.push((format!("bit {} of {at} flipped", flip % 8), flipped));
        }
        let noticed = damages
            .iter()
            .filter(|(what, bytes)| side.shows_nothing_wrong(what, bytes));
        let noticed = noticed.count();
        // A daemon takes its time to start and to end.
        let every = damages.len().div_ceil(rounds(40, damages.len()));
        let started = damages.iter().step_by(every);
        let works = started
            .clone()
            .filter(|(what, bytes)| side.survives(what, bytes))
            .count();
        println!(
            "{}: {} damages of {pages} pages, {noticed} noticed by inspect; {works} of {} daemons work",
            side.name,
            damages.len(),
            started.count()
        );
        assert!(damages.len() >= flips + pages, "{}", damages.len());
        assert!(noticed >= 10, "{noticed} of {} noticed", damages.len());
        side.is_well_again();
    }
}

#[test]
fn an_older_version_is_shown_and_brought_up_to_date_by_its_daemon() {
    let (_pair, sides) = both_sides();
    for side in &sides {
        let golden = format!("src/index/tests/golden/{}-1.redb", side.name);
        let golden = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(golden)).unwrap();
        side.put(&golden);
        let (code, rows, said) = side.inspect();
        assert_eq!(code, Some(0), "{said}");
        assert!(rows.iter().any(|row| row.contains("host/a")), "{said}");
        assert!(
            fs::read(&side.database).unwrap() == golden,
            "changed by looking"
        );
        let (became, said) = side.daemon();
        assert_eq!(became, Daemonic::Runs, "{said}");
        let (_, rows, said) = side.inspect();
        assert!(
            rows.iter().any(|row| row.contains("\"migrated\"")),
            "{said}"
        );
        side.is_well_again();
    }
}

#[test]
fn what_another_process_holds_is_shown_and_not_taken() {
    let (mut pair, sides) = both_sides();
    for side in &sides {
        // A second daemon, beside a running one.
        let holder = if side.name == "server" {
            pair.server.restart();
            pair.server.process().pid()
        } else {
            pair.client.restart();
            pair.client.process().pid()
        };
        let lock = side.datadir.join(".shaftlog/lock");
        wait_for("the daemon has its datadir", || {
            let text = fs::read_to_string(&lock).unwrap();
            (text.trim() == holder.to_string()).then_some(())
        });
        let (became, said) = side.daemon();
        assert_eq!(became, Daemonic::Ended(Some(5)), "{said}");
        assert!(said.contains(&format!("(pid {holder})")), "{said}");
        let (code, _, said) = side.inspect();
        assert_eq!(code, Some(0), "{said}");
    }
    pair.client.kill();
    pair.server.kill();
    for side in &sides {
        // Somebody else's program that has it open for writing.
        side.put(&side.bytes);
        let held = Database::open(&side.database).unwrap();
        let (became, said) = side.daemon();
        assert_eq!(became, Daemonic::Ended(Some(5)), "{said}");
        assert!(said.contains("in use by another process"), "{said}");
        drop(held);
        side.is_well_again();
    }
}

#[test]
fn on_a_read_only_disk_it_is_shown_and_no_daemon_starts() {
    let (_pair, sides) = both_sides();
    for side in &sides {
        let before = fs::read(&side.database).unwrap();
        let read_only = |words: &[&str]| {
            let mut command = Command::new("unshare");
            let script = "mount --bind \"$0\" \"$0\"; mount -o remount,bind,ro \"$0\"; exec \"$@\"";
            command.args(["--map-root-user", "--mount", "sh", "-ec", script]);
            command.arg(&side.datadir).arg(program()).args(words);
            command.output().expect("unshare (util-linux) starts")
        };
        let datadir = side.datadir.to_str().unwrap();
        let shown = read_only(&["db", "inspect", "--json", "--datadir", datadir]);
        assert!(shown.status.success(), "{}", said(&shown));
        let lines = String::from_utf8(shown.stdout).unwrap();
        assert!(lines.lines().eq(side.rows.iter()), "{lines}");
        let daemon = read_only(&[side.name, "--stdout", "-f", side.config.to_str().unwrap()]);
        assert_eq!(daemon.status.code(), Some(1), "{}", said(&daemon));
        let words = said(&daemon);
        assert!(
            words.contains(datadir) && words.contains("Read-only file system"),
            "{words}"
        );
        assert!(fs::read(&side.database).unwrap() == before);
        side.is_well_again();
    }
}

type Raw = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The check before a row's payload, as anybody can make it: BLAKE3 of table, key and payload.
fn sealed(table: &str, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for part in [table.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.update(payload).finalize();
    [&hash.as_bytes()[..8], payload].concat()
}

/// Puts what `change` makes of the payload of row `key` under `forged`, with a check that holds.
fn forge(
    file: &Path,
    table: &'static str,
    key: &[u8],
    forged: &[u8],
    change: impl Fn(Vec<u8>) -> Vec<u8>,
) {
    let database = Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(Raw::new(table)).unwrap();
        let stored = rows.get(key).unwrap().unwrap().value().to_vec();
        let value = sealed(table, forged, &change(stored[8..].to_vec()));
        rows.insert(forged, &value[..]).unwrap();
    }
    transaction.commit().unwrap();
}

/// What it is, whose, the key of a row, the key it gets, and what becomes of its payload.
type Forged<'a> = (
    &'a str,
    &'a Side,
    &'a [u8],
    &'a [u8],
    &'a dyn Fn(Vec<u8>) -> Vec<u8>,
);

#[test]
fn rows_with_a_right_check_that_lead_out_of_the_datadir_or_beyond_a_file_are_named() {
    let (mut pair, [server, client]) = both_sides();
    let outside = server.datadir.with_file_name("evil");
    let renamed = |mut row: Vec<u8>| {
        let at = row.windows(6).position(|part| part == b"x/file").unwrap();
        row[at..at + 9].copy_from_slice(b"../../evi");
        row
    };
    let longer = |row: Vec<u8>| {
        // The file's number, then its length: 7.
        let at = row.iter().position(|&byte| byte == 7).unwrap();
        [&row[..at], &[0xff; 9], &[1], &row[at + 1..]].concat()
    };
    let same = |row: Vec<u8>| row;
    let (path, id) = (&b"x/file000"[..], &[0, 0, 0, 0, 0, 0, 0, 1][..]);
    let rows: [Forged<'_>; 5] = [
        ("../ in a path", &server, path, b"../evil", &same),
        ("../ within a path", &server, path, b"x/../../evil", &same),
        ("an absolute path", &server, path, b"/etc/evil", &same),
        ("../ in a stable name", &client, id, id, &renamed),
        ("a length that no file has", &server, path, path, &longer),
    ];
    let count = rows.len();
    for (what, side, key, forged, change) in rows {
        side.put(&side.bytes);
        forge(&side.database, "files", key, forged, change);
        let bytes = fs::read(&side.database).unwrap();
        let check = told(&["db", "check"], &side.datadir, &[]);
        let all = said(&check);
        assert_eq!(check.status.code(), Some(3), "{what}: {all}");
        assert!(all.contains("\nfiles "), "{what}: {all}");
        let (code, _, said) = side.inspect();
        side.check_refusal(what, code, &said, "of table `files` is damaged");
        assert!(
            fs::read(&side.database).unwrap() == bytes,
            "{what}: changed by looking"
        );
        // The daemon works or says why not; nothing outside its datadir is touched.
        side.survives(what, &bytes);
        assert!(!outside.exists(), "{what}");
        side.is_well_again();
    }
    assert_eq!(count, 5);

    // A recorded length beyond the file's size: both sides find it, and say so.
    fs::write(pair.copy("file000"), "file").unwrap();
    let (became, _) = server.daemon();
    assert_eq!(became, Daemonic::Runs);
    pair.server.restart();
    wait_for("the server tells what is gone", || {
        let events = crate::common::rows(&server.datadir, "events");
        let found = |event: &serde_json::Value| event["kind"] == "regressed";
        events.iter().any(found).then_some(())
    });
    pair.client.restart();
    wait_for("the client brings it back", || {
        (fs::read(pair.copy("file000")).unwrap() == b"file000").then_some(())
    });
}
