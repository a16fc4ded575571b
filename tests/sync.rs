//! `shaftlog sync`: README's main job and what can come between, through the real program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{
    Client, Daemon, Server, assert_same_tree, deliver, free_port, program, rows, said, shaftlog,
    tree, wait_until, yaml,
};
use tempfile::TempDir;

/// A directory of logs and, beside it, where they are delivered.
struct Place {
    _home: TempDir,
    logs: PathBuf,
    copies: PathBuf,
}

impl Place {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let logs = home.path().canonicalize().unwrap().join("logs");
        fs::create_dir(&logs).unwrap();
        Self {
            copies: logs.with_file_name("copies"),
            logs,
            _home: home,
        }
    }

    fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) {
        let path = self.logs.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn append(&self, name: &str, bytes: &[u8]) {
        common::append(&self.logs.join(name), bytes);
    }

    /// `sync --pattern 'LOGS/pattern' --to COPIES`.
    fn sync(&self, pattern: &str) -> Output {
        self.command(pattern).output().unwrap()
    }

    fn command(&self, pattern: &str) -> Command {
        let mut command = shaftlog();
        self.arguments(&mut command, pattern);
        command
    }

    fn arguments(&self, command: &mut Command, pattern: &str) {
        let mut glob = self.logs.clone().into_os_string();
        glob.push("/");
        glob.push(pattern);
        command
            .args([OsStr::new("sync"), OsStr::new("--pattern"), &glob])
            .arg("--to")
            .arg(&self.copies)
            .stdin(Stdio::null());
    }

    /// Where a file of the logs lies among the copies.
    fn copy(&self, name: impl AsRef<Path>) -> PathBuf {
        let source = self.logs.join(name);
        self.copies.join(source.strip_prefix("/").unwrap())
    }

    fn copied(&self) -> PathBuf {
        self.copy("")
    }
}

/// The numbers of the summary's first row: files, delivered, bytes sent, already there.
fn figures(output: &Output) -> [u64; 4] {
    let text = String::from_utf8_lossy(&output.stdout);
    let row = text.lines().nth(1).unwrap_or_default();
    let numbers = row.split_whitespace().skip(1).take(4);
    let numbers: Vec<u64> = numbers
        .map(|number| number.replace(',', "").parse().unwrap())
        .collect();
    numbers
        .try_into()
        .unwrap_or_else(|_| panic!("no figures in:\n{}", said(output)))
}

fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
}

#[test]
fn logs_are_delivered_once_and_then_only_what_is_new() {
    let place = Place::new();
    place.write("a.log", b"one\n");
    place.write("deep/er/b.log", &vec![7; 3_000_000]);
    place.write("empty.log", b"");
    place.write("other.txt", b"not asked for\n");

    let output = place.sync("**/*.log*");
    assert_exit(&output, 0);
    assert_eq!(figures(&output), [3, 3, 3_000_004, 0]);
    fs::remove_file(place.logs.join("other.txt")).unwrap();
    assert_same_tree(&place.logs, &place.copied());
    for path in ["a.log", "deep/er/b.log", "empty.log"] {
        assert_eq!(fs::metadata(place.logs.join(path)).unwrap().nlink(), 1);
    }

    let output = place.sync("**/*.log*");
    assert_exit(&output, 0);
    assert_eq!(figures(&output), [3, 3, 0, 3_000_004]);

    place.append("a.log", b"two\n");
    place.append("deep/er/b.log", b"and more\n");
    let b = place.logs.join("deep/er/b.log");
    fs::rename(&b, place.logs.join("deep/er/b.log.1")).unwrap();
    place.write("deep/er/b.log", b"new\n");
    let output = place.sync("**/*.log*");
    assert_exit(&output, 0);
    assert_eq!(figures(&output), [4, 4, 4 + 9 + 4, 3_000_004]);
    assert_eq!(fs::read(place.copy("a.log")).unwrap(), b"one\ntwo\n");

    let mtime = fs::metadata(&b).unwrap();
    let milliseconds = mtime.mtime() * 1000 + mtime.mtime_nsec() / 1_000_000;
    let second = place.copy(format!("deep/er/b.log.{milliseconds}"));
    assert_eq!(fs::read(second).unwrap(), b"new\n");
}

#[test]
fn a_lost_client_database_costs_no_byte_twice() {
    let place = Place::new();
    place.write("a.log", b"one\n");
    place.write("b.log", &vec![7; 3_000_000]);
    place.write("empty.log", b"");
    assert_exit(&place.sync("*.log"), 0);
    for entry in fs::read_dir(place.copies.join(".shaftlog")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().contains("client.redb") {
            fs::remove_file(path).unwrap();
        }
    }
    place.append("b.log", b"and more\n");
    place.write("new.log", b"new\n");
    let output = place.sync("*.log");
    assert_exit(&output, 0);
    assert_eq!(figures(&output), [4, 4, 9 + 4, 3_000_004]);
    assert_same_tree(&place.logs, &place.copied());
    let output = place.sync("*.log");
    assert_eq!(figures(&output), [4, 4, 0, 3_000_017]);
}

#[test]
fn the_database_says_what_b3sum_says() {
    let place = Place::new();
    place.write("a.log", b"hello\n");
    place.write("b.log", &vec![1; 200_000]);
    assert_exit(&place.sync("*.log"), 0);
    let files = tree(&place.copies);
    assert_eq!(files.len(), 2);
    let all = rows(&place.copies, "files");
    for (path, (length, hash)) in files {
        let shown = format!("/{}", path.display());
        let row = all.iter().find(|row| row["path"] == *shown);
        let row = row.unwrap_or_else(|| panic!("no row for {shown} in {all:?}"));
        assert_eq!(row["length"], length);
        assert_eq!(row["blake3"], hash.to_hex().as_str());
    }
    let progress = rows(&place.copies, "progress");
    assert_eq!(progress.len(), 2);
    for row in progress {
        assert_eq!(row["verified"], true, "{row}");
    }
}

#[test]
fn odd_names_arrive_as_they_are() {
    let place = Place::new();
    let long = "x".repeat(200);
    let names: [&[u8]; 8] = [
        b"with space.log",
        b"query?.log",
        b"hash#.log",
        b"percent%41.log",
        b"new\nline.log",
        b"latin\xe9.log",
        b"\xff\xfe/deep\x1b[0m.log",
        long.as_bytes(),
    ];
    for name in names {
        place.write(OsStr::from_bytes(name), name);
    }
    let output = place.sync("**");
    assert_exit(&output, 0);
    assert_same_tree(&place.logs, &place.copied());
}

#[test]
fn more_files_than_descriptors_arrive() {
    let place = Place::new();
    for number in 0..1_000_u32 {
        place.write(
            format!("{}/{number}.log", number % 10),
            &number.to_le_bytes(),
        );
    }
    let limited = |pattern: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n 128; exec \"$0\" \"$@\""])
            .arg(program());
        place.arguments(&mut command, pattern);
        command.output().unwrap()
    };
    let output = limited("**/*.log");
    assert_exit(&output, 0);
    assert_eq!(figures(&output), [1_000, 1_000, 4_000, 0]);
    assert_same_tree(&place.logs, &place.copied());
    let output = limited("**/*.log");
    assert_exit(&output, 0);
    assert_eq!(figures(&output), [1_000, 1_000, 0, 4_000]);
}

/// The program as an ordinary user, also when the tests run as root.
fn as_ordinary_user(home: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return shaftlog();
    }
    let nobody = 65534;
    let binary = home.join("shaftlog");
    fs::copy(program(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(binary);
    command.uid(nobody).gid(nobody);
    command
}

#[test]
fn a_file_that_cannot_be_read_is_a_row_of_the_summary() {
    let place = Place::new();
    let home = place.logs.parent().unwrap();
    for directory in [home, &place.logs] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    place.write("open.log", b"open\n");
    place.write("secret.log", b"secret\n");
    let secret = place.logs.join("secret.log");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(&place.copies).unwrap();
    fs::set_permissions(&place.copies, fs::Permissions::from_mode(0o777)).unwrap();

    let mut command = as_ordinary_user(home);
    place.arguments(&mut command, "*.log");
    let output = command.output().unwrap();
    assert_exit(&output, 3);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = text.lines().find(|line| line.contains("secret.log"));
    let row = row.unwrap_or_else(|| panic!("no row in:\n{text}"));
    assert!(row.contains("Permission denied"), "{row}");
    assert!(output.stderr.is_empty(), "said twice: {}", said(&output));
    assert_eq!(fs::read(place.copy("open.log")).unwrap(), b"open\n");
    assert!(!place.copy("secret.log").exists());
}

#[test]
fn a_directory_of_others_is_left_alone() {
    let place = Place::new();
    place.write("a.log", b"a");
    fs::create_dir(&place.copies).unwrap();
    fs::write(place.copies.join("mine"), "mine").unwrap();
    let output = place.sync("*.log");
    assert_exit(&output, 2);
    assert_eq!(tree(&place.copies).len(), 1);
    assert!(!place.copies.join(".shaftlog").exists());

    let inside = place.logs.join("copies");
    let output = shaftlog()
        .args(["sync", "--pattern"])
        .arg(place.logs.join("**"))
        .arg("--to")
        .arg(&inside)
        .output()
        .unwrap();
    assert_exit(&output, 2);
    assert!(!inside.exists());
}

#[test]
fn files_of_one_name_and_time_both_arrive() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let now = std::time::SystemTime::now();
    for (name, text) in [("a", "first"), ("b", "second"), ("c", "")] {
        fs::write(logs.join(name), text).unwrap();
        let file = fs::File::options().write(true).open(logs.join(name));
        file.unwrap().set_modified(now).unwrap();
    }
    let server = Server::start(&home.path().join("server"), "");
    let settings = format!(
        "scan_paths:\n- {{name: x, pattern: {}}}\ndestinations:\n- url: {}\n",
        yaml(&logs.join("*")),
        server.url()
    );
    let client = Client::configure(&home.path().join("client"), &settings);
    let output = client.sync(&[]);
    assert_exit(&output, 0);
    let delivered = tree(&server.datadir);
    let hashes = |dir: &Path| {
        let mut hashes: Vec<_> = tree(dir)
            .into_values()
            .map(|(_, hash)| *hash.as_bytes())
            .collect();
        hashes.sort_unstable();
        hashes
    };
    assert_eq!(delivered.len(), 3, "{delivered:?}");
    assert_eq!(hashes(&server.datadir), hashes(&logs));
}

#[test]
fn a_dead_destination_does_not_keep_the_living_from_having_all() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    for number in 0..50 {
        fs::write(logs.join(format!("{number}.log")), vec![3; 10_000]).unwrap();
    }
    let server = Server::start(&home.path().join("server"), "");
    let dead = format!("http://127.0.0.1:{}/", free_port());
    let settings = deliver(&[("x", &logs.join("*.log"))], &[&dead, &server.url()]);
    let client = Client::configure(&home.path().join("client"), &settings);
    let output = client.sync(&["--patience", "1s"]);
    assert_exit(&output, 3);
    assert_same_tree(&logs, &server.datadir.join("x"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = text.lines().find(|line| line.starts_with("50 files"));
    let row = row.unwrap_or_else(|| panic!("no row for what is missing:\n{text}"));
    assert!(row.contains(&dead) && row.contains("refused"), "{row}");

    // Nothing is wrong with the other one.
    let living = rows(&client.datadir, "progress");
    assert_eq!(living.len(), 50);
}

#[test]
fn an_interrupted_sync_says_what_it_did() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("a.log"), "a").unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let dead = format!("http://127.0.0.1:{}/", free_port());
    let settings = deliver(&[("x", &logs.join("*.log"))], &[&server.url(), &dead]);
    let client = Client::configure(&home.path().join("client"), &settings);
    let mut command = shaftlog();
    command.args(["sync", "-f"]).arg(client.config());
    let mut sync = Daemon::spawn(command, &home.path().join("out"));
    wait_until("the living server has it", || {
        server.holds("/x/a.log", b"a")
    });
    let status = sync.terminate();
    assert_eq!(status.code(), Some(3), "{}", sync.output());
    let text = sync.output();
    assert!(
        text.contains("Interrupted") && text.contains(&dead),
        "{text}"
    );
}

#[test]
fn a_url_is_delivered_to_by_links_in_the_datadir() {
    let place = Place::new();
    place.write("a.log", b"hello\n");
    let home = place.logs.parent().unwrap();
    let server = Server::start(&home.join("server"), "");
    let sync = |more: &[OsString]| {
        let output = shaftlog()
            .args(["sync", "--pattern"])
            .arg(place.logs.join("*.log"))
            .args(["--to", &server.url()])
            .args(more)
            .output();
        output.unwrap()
    };
    assert_exit(&sync(&[]), 2);
    let datadir = home.join("client");
    let more = ["--datadir".into(), datadir.clone().into_os_string()];
    let output = sync(&more);
    assert_exit(&output, 0);
    let path = place.logs.join("a.log");
    assert!(server.holds(path.to_str().unwrap(), b"hello\n"));
    assert_eq!(fs::metadata(path).unwrap().nlink(), 2);
    let again = sync(&more);
    assert_exit(&again, 0);
    assert_eq!(figures(&again), [1, 1, 0, 6]);
}

#[test]
fn a_pattern_that_matches_nothing_makes_nothing_and_exits_3() {
    let place = Place::new();
    let words = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = place.sync("*.lg");
    assert_exit(&output, 3);
    assert!(words(&output).contains("/*.lg"), "{}", said(&output));
    let output = place.sync("missing/*.lg");
    assert_exit(&output, 3);
    let missing = format!("there is no {}", place.logs.join("missing").display());
    assert!(words(&output).contains(&missing), "{}", said(&output));
    let to_url = |pattern: &str| {
        let output = shaftlog()
            .args(["sync", "--pattern"])
            .arg(place.logs.join(pattern))
            .args(["--to", "http://127.0.0.1:1/", "--datadir"])
            .arg(&place.copies)
            .output();
        output.unwrap()
    };
    assert_exit(&to_url("*.lg"), 3);
    assert!(!place.copies.exists());

    // Beside one that does match, it is one of the things that were not delivered.
    place.write("a.log", b"hello\n");
    let both = |misspelt: &str| {
        let mut command = place.command("*.log");
        command.arg("--pattern").arg(place.logs.join(misspelt));
        command.output().unwrap()
    };
    for _ in 0..2 {
        let output = both("*.lg");
        assert_exit(&output, 3);
        assert!(
            said(&output).contains("no file matches it"),
            "{}",
            said(&output)
        );
        assert!(output.stderr.is_empty(), "{}", said(&output));
        assert_eq!(fs::read(place.copy("a.log")).unwrap(), b"hello\n");
    }
    // What was there once is no misspelling, and its copy is no loss.
    fs::remove_file(place.logs.join("a.log")).unwrap();
    for _ in 0..2 {
        let output = place.sync("*.log");
        assert_exit(&output, 0);
        assert!(
            said(&output).contains("No file matched"),
            "{}",
            said(&output)
        );
        assert!(output.stderr.is_empty(), "{}", said(&output));
    }
}

#[test]
fn a_directory_is_called_what_it_is() {
    let place = Place::new();
    place.write("a.log", b"hello\n");
    assert_exit(&place.sync("*.log"), 0);
    for table in ["destinations", "progress"] {
        let rows = rows(&place.copies, table);
        let copies = place.copies.to_str().unwrap();
        assert!(
            rows.iter().all(|row| row["destination"] == copies),
            "{rows:?}"
        );
        assert_eq!(rows.len(), 1);
    }
    // Another hand at the copy: what is said of it names the directory too.
    fs::write(place.copy("a.log"), "jello\n").unwrap();
    place.append("a.log", b"world\n");
    let mut command = place.command("*.log");
    let output = command.arg("--debug").output().unwrap();
    assert_exit(&output, 4);
    assert!(!said(&output).contains("invalid"), "{}", said(&output));
}

#[test]
fn logrotate_is_spoken_of_when_the_links_begin_and_not_each_time() {
    let place = Place::new();
    place.write("a.log", b"hello\n");
    let home = place.logs.parent().unwrap();
    for directory in ["etc/logrotate.d", "sbin"] {
        fs::create_dir_all(home.join(directory)).unwrap();
    }
    fs::write(home.join("sbin/logrotate"), "").unwrap();
    let server = Server::start(&home.join("server"), "");
    let settings = deliver(&[("x", &place.logs.join("*.log"))], &[&server.url()]);
    let client = Client::configure(&home.join("client"), &settings);
    let script = format!(
        "mount --bind '{0}/etc' /etc; mount --bind '{0}/sbin' /usr/sbin; exec \"$@\"",
        home.display()
    );
    let wrapper = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        &script,
        "sh",
    ];
    let wrapper = wrapper.map(str::to_owned);
    for warned in [true, false] {
        let output = client.sync_wrapped(&wrapper, &[]);
        assert_exit(&output, 0);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.contains("allowhardlink"), warned, "{stderr}");
    }
}
