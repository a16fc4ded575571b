//! Apache's `mod_dav` as a destination: it knows none of our headers, overwrites on overlap and
//! fills gaps with zeros. Nothing may go wrong all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::common::{self, Client, Daemon, append, free_port, said, wait_for, wait_until};
use crate::{done, need, scratch};

/// Apache with one writable directory.
struct Apache {
    root: PathBuf,
    port: u16,
    _daemon: Daemon,
}

impl Apache {
    fn start(home: &Path) -> Self {
        let root = home.join("dav");
        let state = home.join("apache");
        fs::create_dir_all(&root).expect("a directory");
        fs::create_dir_all(&state).expect("a directory");
        // Apache gives up root before it serves.
        done(Command::new("chmod").arg("a+x").arg(home));
        done(Command::new("chown").arg("www-data").args([&root, &state]));
        wait_for("Apache accepts connections", || {
            let port = free_port();
            let config = state.join("httpd.conf");
            fs::write(&config, config_text(&root, &state, port)).expect("a file");
            let mut command = Command::new("apache2");
            // One process, so that killing it leaves no workers behind.
            command.arg("-X").arg("-f").arg(&config);
            let mut daemon = Daemon::spawn(command, &state.join("out"));
            wait_for("Apache accepts or ends", || {
                let up = TcpStream::connect(("127.0.0.1", port)).is_ok();
                (up || daemon.ended().is_some()).then_some(())
            });
            // Ended when somebody else took the port: try another.
            daemon.ended().is_none().then(|| Self {
                root: root.clone(),
                port,
                _daemon: daemon,
            })
        })
    }

    /// What it stores: name, inode, time of the last change, content.
    fn files(&self) -> BTreeMap<String, (u64, SystemTime, Vec<u8>)> {
        let entries = fs::read_dir(&self.root).expect("readable");
        let file = |entry: fs::DirEntry| {
            let stat = entry.metadata().expect("stat");
            let time = stat.modified().expect("a time");
            let bytes = fs::read(entry.path()).expect("readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, (stat.ino(), time, bytes))
        };
        let files = entries.map(|entry| file(entry.expect("readable")));
        // mod_dav keeps its properties and half-written bodies under dot names.
        files.filter(|(name, _)| !name.starts_with('.')).collect()
    }
}

fn config_text(root: &Path, state: &Path, port: u16) -> String {
    let (root, state) = (root.display(), state.display());
    let modules = ["mpm_event", "authz_core", "dav", "dav_fs"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    format!(
        "ServerRoot {state}\nServerName localhost\nListen 127.0.0.1:{port}\n\
         PidFile {state}/httpd.pid\nErrorLog {state}/error.log\n{}\
         User www-data\nGroup www-data\nDocumentRoot {root}\nDavLockDB {state}/locks\n\
         <Directory {root}>\nDav On\nRequire all granted\n</Directory>\n",
        modules.concat()
    )
}

/// Logs `from` to `to`, the first one empty, each with its own length, content and time of
/// change, so that its name at the destination is known.
fn create_logs(logs: &Path, from: u64, to: u64) {
    for number in from..to {
        let path = logs.join(format!("{number:02}.log"));
        let lines = usize::try_from(number * 700).expect("small");
        fs::write(&path, format!("line of log {number}\n").repeat(lines)).expect("a file");
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + number);
        let file = File::options().write(true).open(&path);
        file.and_then(|file| file.set_modified(time))
            .expect("our file");
    }
}

fn name_of(number: u64) -> String {
    format!("app.{}", 1_700_000_000_000 + number)
}

/// Whether everything in `logs` stands at the destination, byte for byte.
fn all_arrived(apache: &Apache, logs: &Path, count: u64) -> bool {
    let files = apache.files();
    (0..count).all(|number| {
        let source = fs::read(logs.join(format!("{number:02}.log"))).expect("our file");
        // An empty file has nothing that could be sent there.
        let copy = files.get(&name_of(number));
        copy.map_or(source.is_empty(), |(_, _, bytes)| *bytes == source)
    })
}

#[test]
#[ignore = "needs root and apache2"]
fn a_webdav_server_gets_everything_and_loses_nothing() {
    need(&["apache2"]);
    let home = scratch();
    let apache = Apache::start(home.path());
    let logs = home.path().join("logs");
    fs::create_dir(&logs).expect("a directory");
    create_logs(&logs, 0, 20);
    let settings = format!(
        "scan_paths:\n- name: app\n  pattern: {}\ndestinations:\n- url: http://127.0.0.1:{}/",
        common::yaml(&logs.join("*.log")),
        apache.port
    );
    let datadir = home.path().join("client");
    let mut client = Client::start(&datadir, &settings);
    wait_until("the first half arrives", || all_arrived(&apache, &logs, 20));
    client.terminate();
    let before = apache.files();

    // The evidence is lost and rebuilt from the links: what is confirmed is unknown again.
    fs::remove_file(datadir.join(".shaftlog/client.redb")).expect("the client's database");
    let args = ["db", "rebuild", "--config"].map(std::ffi::OsStr::new);
    let output = common::run(args.into_iter().chain([client.config().as_os_str()]));
    assert!(output.status.success(), "{}", said(&output));

    // The second half, of which one file is half there already.
    create_logs(&logs, 20, 40);
    let source = fs::read(logs.join("30.log")).expect("our file");
    let half = apache.root.join(name_of(30));
    fs::write(&half, &source[..source.len() / 2]).expect("a file");
    done(Command::new("chown").arg("www-data").arg(&half));
    client.restart();
    wait_until("everything arrives", || all_arrived(&apache, &logs, 40));

    let after = apache.files();
    let names: BTreeSet<_> = (0..40).map(name_of).collect();
    let foreign: Vec<_> = after.keys().filter(|name| !names.contains(*name)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    for (name, file) in &before {
        assert_eq!(after.get(name), Some(file), "{name} was written again");
    }
    // Appends still arrive, at files of both halves.
    for number in [3, 30] {
        append(&logs.join(format!("{number:02}.log")), "one more line\n");
    }
    wait_until("the new lines arrive", || all_arrived(&apache, &logs, 40));

    // The last of the progress is written at the end, if not before.
    client.terminate();
    let progress = common::rows(&datadir, "progress");
    assert_eq!(progress.len(), 40, "{progress:#?}");
    for row in progress {
        assert_eq!(row["verified"], false, "{row:#}");
    }
}
