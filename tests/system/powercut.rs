//! Power cuts of the server's disk and of the client's, under load. After each the daemon comes
//! up on what the disk held at that moment, and everything goes on by itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::acks::{Acks, Promise, head_length};
use crate::common::{self, Client, Server, tree, wait_until, wait_within};
use crate::disk::{Disk, Shelf};
use crate::load::{Pace, Random, Writer};
use crate::{amount, done, need, scratch};

const SETTLE: Duration = Duration::from_secs(180);
const PROGRAMS: &[&str] = &["mkfs.xfs", "mkfs.ext4", "mount"];
const LOGS: [&str; 4] = ["a", "b", "c", "d"];
/// The images are smaller than what a server wants to keep free by default.
const SERVER_SETTINGS: &str = "min_free: 1048576";

/// Everything below `logs` is delivered under its path from there on.
fn client_settings(logs: &Path, url: &str) -> String {
    format!(
        "scan_paths:\n- name: logs\n  pattern: {}\n  regex_from: '^.*/logs/'\n  \
         regex_to: 'logs/'\ndestinations:\n- url: {url}",
        common::yaml(&logs.join("**/*.log"))
    )
}

fn start_writers(
    logs: &Path,
    from: &BTreeMap<&'static str, u64>,
) -> BTreeMap<&'static str, Writer> {
    let start = |name: &'static str| {
        let first = from.get(name).copied().unwrap_or(0);
        let path = logs.join(format!("{name}.log"));
        (name, Writer::start(&path, name, first, Pace::STEADY))
    };
    LOGS.into_iter().map(start).collect()
}

/// A handful of new files in a new directory: names are as durable as bytes, or neither is.
fn add_files(logs: &Path, cut: usize) {
    let dir = logs.join(format!("cut-{cut}"));
    fs::create_dir_all(&dir).expect("a directory");
    for number in 0..5 {
        let text = format!("file {number} before cut {cut}\n").repeat(number + 1);
        fs::write(dir.join(format!("{number}.log")), text).expect("a file");
    }
}

/// Waits until delivery is in full flow again, then a random moment longer.
fn load_up(acks: &Acks, random: &mut Random) {
    let before = acks.bytes();
    wait_until("delivery is under way", || {
        acks.bytes() > before + 32 * 1024
    });
    random.pause(Duration::from_millis(300));
}

/// Bytes that were promised and that the file below `stored` does not have as in `sources`.
fn lost(promises: &BTreeMap<String, Promise>, stored: &Path, sources: &Path) -> u64 {
    let read = |path: PathBuf, length: u64| {
        let mut bytes = Vec::new();
        if let Ok(file) = fs::File::open(path) {
            file.take(length).read_to_end(&mut bytes).expect("readable");
        }
        bytes
    };
    let mut lost = 0;
    for (path, promise) in promises {
        let name = path.strip_prefix("/logs/").expect("what we deliver");
        let source = read(sources.join(name), promise.length);
        assert_eq!(source.len() as u64, promise.length, "more than {name} has");
        let kept = read(stored.join("logs").join(name), promise.length);
        // Byte by byte only where it matters: an unoptimised loop over all that was ever written
        // makes each cut take longer than the one before.
        if kept != source {
            let equal = kept.iter().zip(&source).take_while(|(a, b)| a == b).count();
            lost += promise.length - equal as u64;
        }
    }
    lost
}

/// A server on a disk of its own, a client outside it, and the promises between them.
struct ServerSite<'a> {
    disk: Disk<'a>,
    server: Server,
    acks: Acks,
    logs: PathBuf,
    writers: BTreeMap<&'static str, Writer>,
    _client: Client,
}

impl<'a> ServerSite<'a> {
    fn start(home: &Path, shelf: &'a Shelf, program: &Path) -> Self {
        let disk = Disk::new(shelf, &home.join("disk"));
        let logs = home.join("logs");
        fs::create_dir(&logs).expect("a directory");
        let datadir = disk.path().join("server");
        let server = Server::start_program(program, &datadir, SERVER_SETTINGS);
        let acks = Acks::start(server.port);
        let settings = client_settings(&logs, &acks.url());
        let client = Client::start(&home.join("client"), &settings);
        let writers = start_writers(&logs, &BTreeMap::new());
        Self {
            disk,
            server,
            acks,
            logs,
            writers,
            _client: client,
        }
    }

    /// Cuts the power under load; how many promised bytes the disk does not hold.
    fn cut(&mut self, random: &mut Random, number: usize) -> u64 {
        add_files(&self.logs, number);
        load_up(&self.acks, random);
        self.acks.withhold();
        let promises = self.acks.promises();
        let snapshot = self.disk.snapshot();
        self.server.kill();
        self.disk.power_on(snapshot);
        lost(&promises, &self.server.datadir, &self.logs)
    }
}

#[test]
#[ignore = "needs root, loop mounts, xfsprogs"]
fn power_cuts_of_the_server_lose_no_acknowledged_byte() {
    need(PROGRAMS);
    let home = scratch();
    let shelf = Shelf::new(home.path());
    let mut site = ServerSite::start(home.path(), &shelf, common::program());
    let mut random = Random::new();
    let cuts = amount(10, 50);
    for number in 0..cuts {
        let lost = site.cut(&mut random, number);
        assert_eq!(lost, 0, "acknowledged bytes lost in cut {number}");
        site.server.restart();
        for (path, promise) in site.acks.promises() {
            let told = head_length(site.server.port, &path);
            assert!(
                told >= Some(promise.length),
                "after cut {number} HEAD {path} says {told:?}, promised were {promise:?}"
            );
        }
        site.acks.resume();
    }
    eprintln!(
        "{cuts} cuts, {} bytes acknowledged, 0 lost",
        site.acks.bytes()
    );

    site.writers.clear();
    let sources = tree(&site.logs);
    let copies = site.server.datadir.join("logs");
    wait_within(SETTLE, "both sides are equal", || {
        (tree(&copies) == sources).then_some(())
    });
}

#[test]
#[ignore = "needs root, loop mounts, xfsprogs"]
fn without_fdatasync_the_same_cuts_do_lose() {
    need(PROGRAMS);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-sync");
    done(
        Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--bin", "shaftlog"])
            .args(["--features", "no-sync-for-tests", "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    let home = scratch();
    let shelf = Shelf::new(home.path());
    let program = target.join("debug/shaftlog");
    let mut site = ServerSite::start(home.path(), &shelf, &program);
    let mut random = Random::new();
    let lost = site.cut(&mut random, 0);
    assert!(
        lost > 0,
        "the harness would not notice a server that syncs nothing"
    );
}

#[test]
#[ignore = "needs root, loop mounts, xfsprogs"]
fn power_cuts_of_the_client_need_no_operator() {
    need(PROGRAMS);
    let home = scratch();
    let shelf = Shelf::new(home.path());
    let mut disk = Disk::new(&shelf, &home.path().join("disk"));
    let logs = disk.path().join("logs");
    fs::create_dir(&logs).expect("a directory");
    let server = Server::start(&home.path().join("server"), "");
    let acks = Acks::start(server.port);
    let settings = client_settings(&logs, &acks.url());
    let mut client = Client::start(&disk.path().join("client"), &settings);
    let mut writers = start_writers(&logs, &BTreeMap::new());
    let mut random = Random::new();
    let lives = home.path().join("lives");
    let mut shrunk = 0;

    let cuts = amount(10, 50);
    for number in 0..cuts {
        add_files(&logs, number);
        load_up(&acks, &mut random);
        let snapshot = disk.snapshot();
        client.kill();
        let next = writers
            .iter_mut()
            .map(|(name, w)| (*name, w.stop()))
            .collect();
        keep_lives(&logs, &lives.join(number.to_string()));
        disk.power_on(snapshot);
        // A cut may come before the directory itself was on disk.
        fs::create_dir_all(&logs).expect("a directory");
        let promises = acks.promises();
        shrunk += usize::from(promises.iter().any(|promise| is_shorter(&logs, promise)));
        client.reconfigure(&settings);
        client.restart();
        writers = start_writers(&logs, &next);
    }
    writers.clear();
    keep_lives(&logs, &lives.join("end"));
    assert!(
        shrunk > 0,
        "no cut took a delivered byte from a log: the load is too light"
    );
    eprintln!("{cuts} cuts, after {shrunk} of them a log was shorter than its copy");

    let copies = server.datadir.join("logs");
    // A log that came back empty is no different from the beginning of any copy.
    wait_within(SETTLE, "every log has its copy", || {
        let copies: Vec<_> = tree(&copies).into_values().collect();
        let has_copy = |log: &(u64, blake3::Hash)| log.0 == 0 || copies.contains(log);
        tree(&logs).values().all(has_copy).then_some(())
    });
    assert_no_splice(&copies, &lives);
    // What it knows is on disk when it has ended in order.
    client.terminate();
    assert_only_what_is_lost_is_called_so(&client.datadir, &server.datadir);
    for (path, promise) in acks.promises() {
        let copy = server.datadir.join(path.trim_start_matches('/'));
        let hash = common::prefix_hash(&copy, promise.length);
        assert_eq!(promise.etag, format!("\"blake3:{hash}\""), "{path}");
    }
}

/// No event says of bytes that they never arrived which stand in the copy.
fn assert_only_what_is_lost_is_called_so(client: &Path, server: &Path) {
    let mut events = common::rows(client, "events");
    events.retain(|event| event["kind"] == "lost");
    for event in &events {
        let field = |key: &str| event[key].as_str().expect("a text").to_owned();
        let (name, detail) = (field("name"), field("detail"));
        let words: Vec<&str> = detail.split(' ').collect();
        let at = words.iter().position(|word| *word == "bytes");
        let number = |index: usize| words[at.expect("a range") + index].parse::<u64>();
        let first = number(1).expect("a first byte");
        let held = fs::metadata(server.join(&name)).map_or(0, |stat| stat.len());
        assert!(held <= first, "{name} has {held} bytes there: {detail}");
    }
    eprintln!("{} events speak of lost bytes, and rightly", events.len());
}

/// Whether a log has less than was delivered of it: nobody syncs what loggers write.
fn is_shorter(logs: &Path, (path, promise): (&String, &Promise)) -> bool {
    let log = logs.join(path.trim_start_matches("/logs/"));
    fs::metadata(log).map_or(0, |stat| stat.len()) < promise.length
}

/// Keeps what every log held at the moment of a cut: from then on it may go another way.
fn keep_lives(logs: &Path, to: &Path) {
    done(Command::new("mkdir").arg("-p").arg(to));
    done(Command::new("cp").arg("-r").arg(logs.join(".")).arg(to));
}

/// Every copy is a prefix of what some log once held.
fn assert_no_splice(copies: &Path, lives: &Path) {
    let lives: Vec<(PathBuf, u64)> = tree(lives)
        .into_iter()
        .map(|(name, (length, _))| (lives.join(name), length))
        .collect();
    for (name, (length, hash)) in tree(copies) {
        let hash = hash.to_hex().to_string();
        let is_prefix = |(life, size): &(PathBuf, u64)| {
            *size >= length && common::prefix_hash(life, length) == hash
        };
        // The log's own name first, then any: a later generation has a name of its own.
        let own: Vec<_> = lives
            .iter()
            .filter(|(life, _)| life.ends_with(&name))
            .collect();
        let found = own.into_iter().any(is_prefix) || lives.iter().any(is_prefix);
        assert!(
            found,
            "{} ({length} bytes) is no log's beginning",
            name.display()
        );
    }
}
