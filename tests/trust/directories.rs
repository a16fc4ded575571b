//! Hostile log directories: what does not belong there is passed over, counted and told of, and
//! nobody who may write there leads the client to anything elsewhere that they may not read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::privileges::{CAPABILITIES, NOBODY, as_user};
use crate::common::{Client, Server, deliver, run, said, tree, wait_until};

/// The user that the client runs as, when it is not root: neither root nor the attacker.
const CLIENT: u32 = 65533;

/// A server, and a directory of logs.
struct Place {
    home: TempDir,
    logs: PathBuf,
    server: Server,
}

impl Place {
    fn new() -> Self {
        let home = TempDir::new().unwrap();
        let logs = home.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let server = Server::start(&home.path().join("server"), "");
        Self { home, logs, server }
    }

    /// The settings of a client that delivers everything here, with these lines added.
    fn config(&self, extra: &str) -> String {
        extra.to_owned() + &deliver(&[("logs", &self.logs.join("**"))], &[&self.server.url()])
    }

    fn client(&self) -> PathBuf {
        self.home.path().join("client")
    }
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[test]
fn what_is_no_log_is_counted_and_told_of_once() {
    let place = Place::new();
    let logs = &place.logs;
    fs::write(logs.join("a.log"), "a\n").unwrap();
    for n in 0..20 {
        symlink("a.log", logs.join(format!("link{n}"))).unwrap();
    }
    for n in 0..5 {
        fifo(&logs.join(format!("fifo{n}")));
    }
    let extra = "scan_interval: 100\nstatus_interval: 100\n";
    let mut client = Client::start(&place.client(), &place.config(extra));
    let mut told = |what: &str| {
        wait_until(what, || client.process().output().contains(what));
        client.process().output()
    };
    told("passed over: 20 symbolic links, 5 special files\n");
    symlink("a.log", logs.join("one-more")).unwrap();
    let output = told("passed over: 21 symbolic links, 5 special files\n");
    let warnings: Vec<_> = output
        .lines()
        .filter(|line| line.contains(" is passed over, a "))
        .collect();
    let [first, second] = warnings.as_slice() else {
        panic!("{warnings:?}");
    };
    assert!(
        first.contains("pattern logs: ") && first.contains("symbolic link"),
        "{first}"
    );
    assert!(
        second.contains("/logs/fifo") && second.contains("special file"),
        "{second}"
    );
    wait_until("the log arrives", || {
        place.server.holds("logs/a.log", b"a\n")
    });
    assert_eq!(
        fs::read_dir(place.server.datadir.join("logs"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn files_of_other_owners_are_rows_of_the_summary_and_no_failure() {
    let place = Place::new();
    fs::write(place.logs.join("a.log"), "a\n").unwrap();
    fs::write(place.logs.join("b.log"), "b\n").unwrap();
    symlink("a.log", place.logs.join("link")).unwrap();
    let ours = fs::metadata(&place.logs).unwrap().uid();
    let client = Client::configure(
        &place.client(),
        &place.config(&format!("owner: {}\n", ours + 1)),
    );
    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for row in [
        "          1  symbolic link                               logs     ",
        "          2  files of owners that `owner` does not name  logs     ",
    ] {
        assert!(text.contains(row), "{text}");
    }
    assert!(place.server.file("logs/a.log").is_none());

    let checked = run([Path::new("check"), Path::new("-f"), &client.config()]);
    assert!(checked.status.success(), "{}", said(&checked));
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    for line in [
        &format!("  owner:\n  - '{}'\n", ours + 1),
        "#   logs: 0\n",
        "# Passed over: logs: 1 symbolic link (",
        "# Passed over: logs: 2 files of owners that `owner` does not name (one is ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    client.reconfigure(&place.config(&format!("owner: {ours}\n")));
    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(place.server.holds("logs/a.log", b"a\n"));
    assert!(place.server.holds("logs/b.log", b"b\n"));
}

/// What nobody but root may read.
const SECRET: &[u8] = b"only for root's eyes 7f1c";

/// What an attacker does in directories of their own: `home`/logs, and `home`/own, where the last
/// directory of another pattern's fixed part lies. Each round makes files that the client does not
/// know, and exchanges them, and the directories that they lie in, with symbolic links to what they
/// may not read, and back. In between it tries to link that. Says how often that was refused.
const ATTACK: &str = r"
import ctypes, os, random, sys, time
home, rounds, links = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
libc, EXCHANGE = ctypes.CDLL(None, use_errno=True), 2

def exchange(one, other):
    if libc.renameat2(-100, one.encode(), -100, other.encode(), EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), one)

def fresh(path, text):
    with open(path + '.new', 'w') as file:
        file.write(text)
    os.rename(path + '.new', path)

def wait():
    time.sleep(random.random() * 0.0004)

os.chdir(home)
os.mkdir('logs/d')
os.mkdir('own/fixed')
os.symlink(home + '/secret/f.log', 'logs/link')
os.symlink(home + '/secret', 'logs/e')
os.symlink(home + '/secret', 'own/other')
refused = 0
for n in range(rounds):
    fresh('logs/x.log', f'x {n}\n')
    fresh('logs/d/f.log', f'd {n}\n')
    fresh('own/fixed/f.log', f'fixed {n}\n')
    swaps = [('logs/x.log', 'logs/link'), ('logs/d', 'logs/e'), ('own/fixed', 'own/other')]
    for _ in range(2):
        random.shuffle(swaps)
        for one, other in swaps:
            wait()
            exchange(one, other)
    if n < links:
        try:
            os.link('closed.log', 'logs/hard.log')
        except PermissionError:
            refused += 1
print(refused)
";

/// Debian's, which any user may run: another one may lie in root's home.
const PYTHON: &str = "/usr/bin/python3";

/// Rounds of the attack.
fn rounds() -> u64 {
    if std::env::var_os("SHAFTLOG_LONG").is_some() {
        10_000
    } else {
        1_000
    }
}

/// The files below `dir` that hold the secret somewhere.
fn telling(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = tree(dir).into_keys().collect();
    files.retain(|file| {
        let bytes = fs::read(dir.join(file)).unwrap();
        bytes.windows(SECRET.len()).any(|part| part == SECRET)
    });
    files
}

/// A place whose logs, and the directory `own` beside them, are an attacker's, with secrets.
fn place_of_an_attacker() -> Place {
    let place = Place::new();
    let home = place.home.path();
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(home.join("own")).unwrap();
    for theirs in ["logs", "own"] {
        chown(home.join(theirs), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::create_dir(home.join("secret")).unwrap();
    fs::set_permissions(home.join("secret"), fs::Permissions::from_mode(0o700)).unwrap();
    for secret in SECRETS {
        fs::write(home.join(secret), SECRET).unwrap();
        fs::set_permissions(home.join(secret), fs::Permissions::from_mode(0o600)).unwrap();
    }
    place
}

/// Where it lies: in a directory that is closed to others, and in one that is not.
const SECRETS: [&str; 3] = ["secret/f.log", "secret/x.log", "closed.log"];

/// A client that scans all the time behind `wrapper`, and an attacker.
fn attack(wrapper: Vec<String>) {
    let place = place_of_an_attacker();
    let home = place.home.path();
    let patterns = [
        ("logs", &*home.join("logs/**/*.log")),
        ("link", &home.join("logs/li*")),
        ("fixed", &home.join("own/fixed/*.log")),
    ];
    let often = "scan_interval: 1\nperiodic_trigger_interval: 1h\n";
    let config = often.to_owned() + &deliver(&patterns, &[&place.server.url()]);
    let mut client = Client::configure(&place.client(), &config);
    if !wrapper.is_empty() {
        fs::create_dir(&client.datadir).unwrap();
        chown(&client.datadir, Some(CLIENT), Some(CLIENT)).unwrap();
    }
    client.wrapper = wrapper;
    client.restart();

    let attacker = as_user(NOBODY, &[]);
    // Where it is 0, nothing but `owner` could help.
    let protected = fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap();
    let links = if protected.trim() == "0" { 0 } else { rounds() };
    let attack = Command::new(&attacker[0])
        .args(&attacker[1..])
        .args([PYTHON, "-c", ATTACK])
        .arg(home)
        .args([rounds(), links].map(|number| number.to_string()))
        .output()
        .unwrap();
    assert!(attack.status.success(), "{}", said(&attack));
    let refused = String::from_utf8_lossy(&attack.stdout).trim().to_owned();
    assert_eq!(refused, links.to_string(), "a hard link was made");

    // The last files, in every one of the places, come through.
    for path in ["logs/x.log", "logs/d/f.log", "own/fixed/f.log"] {
        let new = home.join(path).with_extension("new");
        fs::write(&new, LAST).unwrap();
        chown(&new, Some(NOBODY), None).unwrap();
        fs::rename(new, home.join(path)).unwrap();
    }
    let copies = |name: &str| {
        let dir = place.server.datadir.join(name);
        if dir.exists() {
            tree(&dir)
        } else {
            BTreeMap::new()
        }
    };
    let last = (LAST.len() as u64, blake3::hash(LAST));
    let arrived = |name: &str| {
        copies(name)
            .into_values()
            .filter(|copy| *copy == last)
            .count()
    };
    wait_until("the last files arrive", || {
        arrived("logs") == 2 && arrived("fixed") == 1
    });
    client.terminate();
    let count = |name| copies(name).len();
    println!(
        "{} rounds of 6 exchanges: {} files taken by the attacked names, {} by the fixed part; \
         {refused} hard links refused",
        rounds(),
        count("logs") + count("link"),
        count("fixed")
    );
    for dir in [&place.server.datadir, &client.datadir] {
        assert_eq!(telling(dir), [] as [PathBuf; 0]);
    }
    for secret in SECRETS {
        assert_eq!(
            fs::metadata(home.join(secret)).unwrap().nlink(),
            1,
            "{secret}"
        );
    }
}

/// What the attacked files hold at the end.
const LAST: &[u8] = b"the last\n";

#[test]
#[ignore = "needs root and python3"]
fn no_exchange_has_roots_client_deliver_a_secret() {
    attack(Vec::new());
}

#[test]
#[ignore = "needs root and python3"]
fn no_exchange_has_a_client_with_capabilities_deliver_a_secret() {
    attack(as_user(CLIENT, &CAPABILITIES));
}

/// Who could make such a link at all is root, or anybody where `fs.protected_hardlinks` is 0.
#[test]
#[ignore = "needs root"]
fn the_owner_tells_a_hard_link_to_a_secret_from_a_log() {
    let place = place_of_an_attacker();
    fs::write(place.logs.join("theirs.log"), "theirs\n").unwrap();
    chown(place.logs.join("theirs.log"), Some(NOBODY), None).unwrap();
    fs::hard_link(
        place.home.path().join("closed.log"),
        place.logs.join("hard.log"),
    )
    .unwrap();
    let owner = format!("owner: [{NOBODY}]\n");
    let client = Client::configure(&place.client(), &place.config(&owner));
    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(place.server.holds("logs/theirs.log", b"theirs\n"));
    assert_eq!(telling(&place.server.datadir), [] as [PathBuf; 0]);
    assert_eq!(
        fs::metadata(place.home.path().join("closed.log"))
            .unwrap()
            .nlink(),
        2
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = "          1  file of an owner that `owner` does not name  logs     ";
    assert!(text.contains(row), "{text}");
}

/// Whoever may write in a directory may rename what lies in it, whosever that is.
#[test]
#[ignore = "needs root"]
fn the_owner_bounds_what_is_renamed_to_the_name_of_a_log() {
    let place = place_of_an_attacker();
    let (kept, log) = (
        place.home.path().join("own/kept"),
        place.logs.join("kept.log"),
    );
    fs::write(&kept, SECRET).unwrap();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o600)).unwrap();
    let theirs = as_user(NOBODY, &[]);
    let moved = Command::new(&theirs[0])
        .args(&theirs[1..])
        .arg("mv")
        .args([&kept, &log])
        .output()
        .unwrap();
    assert!(moved.status.success(), "{}", said(&moved));
    let stat = fs::metadata(&log).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (0, 0o600));
    let owner = format!("owner: [{NOBODY}]\n");
    let client = Client::configure(&place.client(), "");
    for (owner, delivered) in [(owner, 0), (String::new(), 1)] {
        client.reconfigure(&place.config(&owner));
        let output = client.sync(&[]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let told = telling(&place.server.datadir);
        assert_eq!(told.len(), delivered, "{owner}: {told:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_users_link_in_the_fixed_part_leads_to_that_users_files() {
    let place = place_of_an_attacker();
    let home = place.home.path();
    fs::create_dir(home.join("release")).unwrap();
    for (name, owner) in [("theirs.log", NOBODY), ("roots.log", 0)] {
        fs::write(home.join("release").join(name), name).unwrap();
        chown(home.join("release").join(name), Some(owner), None).unwrap();
    }
    symlink("../release", home.join("own/current")).unwrap();
    lchown(home.join("own/current"), Some(NOBODY), None).unwrap();
    let pattern = home.join("own/current/*.log");
    let config = deliver(&[("logs", &pattern)], &[&place.server.url()]);
    let client = Client::configure(&place.client(), &config);
    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("          1  file behind a symbolic link of"),
        "{text}"
    );
    assert!(place.server.holds("logs/theirs.log", b"theirs.log"));
    assert!(place.server.file("logs/roots.log").is_none());

    // The administrator's own link leads to all of it.
    lchown(home.join("own/current"), Some(0), None).unwrap();
    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(place.server.holds("logs/roots.log", b"roots.log"));
}
