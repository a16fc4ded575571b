//! The two example files of the original shaftlog, byte for byte, on two machines made of
//! namespaces: all that the client file matches arrives at both servers that it names.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::common::{self, tree, wait_within};
use crate::machine::Machine;
use crate::{need, scratch};

/// Where the original's example files lie: they are not ours to publish.
fn original(name: &str) -> PathBuf {
    let dir = std::env::var_os("SHAFTLOG_ORIGINAL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/original"),
        PathBuf::from,
    );
    let file = dir.join(name);
    assert!(
        file.is_file(),
        "{} is missing: set SHAFTLOG_ORIGINAL to the directory that holds the original's \
         client.yaml and server.yaml",
        file.display()
    );
    file.canonicalize().expect("it is there")
}

/// A file for each of the 11 patterns and more: path below /var/log, and the name under which it
/// is to arrive; none for what is excluded or matches nothing.
const FILES: &[(&str, Option<&str>)] = &[
    ("messages", Some("messages.{mtime}")),
    ("messages-20260101", Some("messages.{mtime}")),
    ("messages.1.gz", None),
    ("cron", Some("cron.{mtime}")),
    ("cron.1", Some("cron.{mtime}")),
    ("cron.2.bz2", None),
    ("maillog", Some("maillog.{mtime}")),
    ("secure", Some("secure.{mtime}")),
    ("secure-20260101.xz", None),
    ("yum.log", Some("yum.{mtime}")),
    ("yum.log-20260101", Some("yum.{mtime}")),
    ("audit/audit.log", Some("audit.{mtime}")),
    ("audit/audit.log.1", Some("audit.{mtime}")),
    ("audit/other.log", None),
    ("dmesg", Some("dmesg.{mtime}")),
    ("dmesg.old", Some("dmesg.{mtime}")),
    ("cloud-init.log", Some("cloudinit.{mtime}")),
    ("cloud-init-output.log", None),
    ("shaftlog-client.log.1", Some("shaftlog-client.{mtime}")),
    ("shaftlog-server.log.1", Some("shaftlog-server.{mtime}")),
    ("sudo-io/00/00/01/log", Some("sudo-io/00/00/01/log")),
    ("sudo-io/00/00/01/stdin", Some("sudo-io/00/00/01/stdin")),
    ("sudo-io/00/00/01/stdout", Some("sudo-io/00/00/01/stdout")),
    ("sudo-io/00/00/01/stderr", Some("sudo-io/00/00/01/stderr")),
    ("sudo-io/00/00/01/timing", Some("sudo-io/00/00/01/timing")),
    ("sudo-io/00/00/01/ttyin", Some("sudo-io/00/00/01/ttyin")),
    ("sudo-io/00/00/01/ttyout", Some("sudo-io/00/00/01/ttyout")),
    ("sudo-io/0A/2B/Z9/log", Some("sudo-io/0A/2B/Z9/log")),
    ("sudo-io/00/00/01/log.gz", None),
    ("sudo-io/seq", None),
    ("wtmp", None),
];

/// Creates all of [`FILES`]; the names expected at the servers with the files that they copy.
fn create_files(var_log: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut expected = Vec::new();
    for (number, (name, arrives)) in (0_u64..).zip(FILES) {
        let path = var_log.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, format!("{name}, a line\n").repeat(10)).expect("a file");
        let mtime = 1_700_000_000_123 + number * 1_001;
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(mtime);
        let file = File::options().write(true).open(&path);
        file.and_then(|file| file.set_modified(time))
            .expect("our file");
        if let Some(arrives) = arrives {
            let arrives = arrives.replace("{mtime}", &mtime.to_string());
            expected.push((PathBuf::from(arrives), path));
        }
    }
    expected
}

/// The copies below a server's /var/log/shaftlog-server/HOST that have no static source: the
/// live logs of both daemons, without the time in their names.
fn live_copies(copies: &Path, expected: &[(PathBuf, PathBuf)]) -> BTreeSet<String> {
    let names = tree(copies).into_keys();
    let unexpected = names.filter(|name| expected.iter().all(|(arrives, _)| arrives != name));
    unexpected
        .map(
            |name| match name.to_str().and_then(|n| n.rsplit_once('.')) {
                Some((stem, time)) if time.parse::<u64>().is_ok() => stem.to_owned(),
                _ => name.display().to_string(),
            },
        )
        .collect()
}

#[test]
#[ignore = "needs root, namespaces and the original's example files"]
fn the_original_example_files_work_unchanged() {
    need(&["unshare", "nsenter", "ip", "hostname"]);
    let (client_yaml, server_yaml) = (original("client.yaml"), original("server.yaml"));
    let home = scratch();
    let near = Machine::start(home.path(), "near");
    let far = Machine::start(home.path(), "far");
    near.connect(&far);
    near.etc(
        "hosts",
        "127.0.0.1 localhost\n10.77.0.1 log1.my.domain.invalid\n10.77.0.2 log2.my.domain.invalid\n",
    );
    let expected = create_files(&near.var_log);

    let _servers = [&near, &far].map(|m| m.shaftlog("server", "-f", &server_yaml));
    let _client = near.shaftlog("client", "-df", &client_yaml);
    for machine in [&near, &far] {
        let copies = machine.var_log.join("shaftlog-server").join(near.name());
        for (arrives, source) in &expected {
            wait_within(
                Duration::from_secs(60),
                &format!("{} at {}", arrives.display(), machine.name()),
                || (fs::read(copies.join(arrives)).ok() == fs::read(source).ok()).then_some(()),
            );
        }
        let live = live_copies(&copies, &expected);
        let both = ["shaftlog-client", "shaftlog-server"].map(str::to_owned);
        assert_eq!(live, BTreeSet::from(both), "at {}", machine.name());
    }
    own_log_stops_growing(&near.var_log.join("shaftlog-client.log"));
}

/// The client delivers its own log; doing so must not write to it. Quiet is: not a byte over
/// more than one scan interval, reached within a minute.
fn own_log_stops_growing(log: &Path) {
    let size = || fs::metadata(log).expect("the client's log").len();
    let (mut last, mut since) = (size(), Instant::now());
    let quiet = Duration::from_secs(35);
    wait_within(
        Duration::from_secs(60) + quiet,
        "the client's own log is quiet",
        || {
            if size() != last {
                (last, since) = (size(), Instant::now());
            }
            (since.elapsed() > quiet).then_some(())
        },
    );
}

#[test]
#[ignore = "needs root and namespaces"]
fn every_substitution_has_its_value() {
    use std::os::unix::fs::MetadataExt as _;
    need(&["unshare", "nsenter", "ip", "hostname"]);
    let home = scratch();
    let machine = Machine::start(home.path(), "box");
    let id = "0123456789abcdef0123456789abcdef";
    machine.etc("machine-id", &format!("{id}\n"));
    let server = home.path().join("server.yaml");
    let text = "datadir: /var/log/server\nlogfile: /var/log/server.log\nlisten_port: 10655\n";
    fs::write(&server, text).expect("a file");
    let client = home.path().join("client.yaml");
    let text = "datadir: /var/log/client\nlogfile: /var/log/client.log\nscan_paths:\n\
                - {name: app, pattern: /var/log/app.log, \
                rename: '{name}.{time}.{atime}.{mtime}.{ctime}.{ino}.{dev}'}\n\
                destinations:\n- url: http://127.0.0.1:10655/{hostname}/{machine}\n";
    fs::write(&client, text).expect("a file");
    let log = machine.var_log.join("app.log");
    fs::write(&log, "a line\n").expect("a file");
    let file = File::options().write(true).open(&log).expect("our file");
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    let times = fs::FileTimes::new()
        .set_accessed(at(1_600_000_000_001))
        .set_modified(at(1_700_000_000_002));
    file.set_times(times).expect("our file");
    // Linking changes ctime: what counts is the time before.
    let before = fs::metadata(&log).expect("stat");
    let ctime = before.ctime() * 1000 + before.ctime_nsec() / 1_000_000;
    let started = SystemTime::now();

    let _server = machine.shaftlog("server", "-f", &server);
    let _client = machine.shaftlog("client", "-f", &client);
    let copies = machine.var_log.join("server/box").join(id);
    let name = common::wait_for("the file arrives", || {
        let files = fs::read_dir(&copies).ok()?.next()?.ok()?;
        Some(files.file_name().to_str()?.to_owned())
    });
    let parts: Vec<&str> = name.split('.').collect();
    let [app, time, rest @ ..] = &parts[..] else {
        panic!("{name}");
    };
    assert_eq!(*app, "app");
    let millis = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("now");
    let time = Duration::from_millis(time.parse().expect("milliseconds"));
    assert!(time + Duration::from_secs(1) > millis(started), "{name}");
    assert!(time < millis(SystemTime::now()), "{name}");
    let expected = [
        "1600000000001".to_owned(),
        "1700000000002".to_owned(),
        ctime.to_string(),
        before.ino().to_string(),
        before.dev().to_string(),
    ];
    assert_eq!(rest, expected);
}
