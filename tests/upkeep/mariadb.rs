//! Binary logs of a real database: their in-use flag changes when they are closed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::stage::{Home, events};
use crate::common::{Client, Daemon, Server, said, tree, wait_until, yaml};

/// A database with its data below a directory, and binary logs in `logs`.
struct Mariadb {
    socket: PathBuf,
    daemon: Daemon,
}

impl Mariadb {
    fn start(home: &Home) -> Self {
        let (data, socket) = (home.path("mysql"), home.path("mysql.sock"));
        let installed = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .arg("--skip-test-db")
            .args([option("datadir", &data), "--user=root".into()])
            .output()
            .unwrap();
        assert!(installed.status.success(), "{}", said(&installed));
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--skip-networking", "--user=root"])
            .args([option("datadir", &data), option("socket", &socket)])
            .args([option("log-bin", &home.log("bin")), "--server-id=1".into()])
            .arg(option("pid-file", &home.path("mysql.pid")));
        let daemon = Daemon::spawn(command, &home.path("mysql.out"));
        let database = Self { socket, daemon };
        wait_until("the database answers", || database.try_query("SELECT 1"));
        database
    }

    fn try_query(&self, statements: &str) -> bool {
        let output = Command::new("mariadb")
            .args([
                "--no-defaults",
                "--user=root",
                "--batch",
                "--execute",
                statements,
            ])
            .arg(option("socket", &self.socket))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        output.status.success()
    }

    fn query(&self, statements: &str) {
        assert!(
            self.try_query(statements),
            "{statements}\n{}",
            self.daemon.output()
        );
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).output();
    let copied = copied.unwrap();
    assert!(copied.status.success(), "{}", said(&copied));
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[test]
#[ignore = "needs mariadbd and mariadb-binlog"]
fn binary_logs_are_delivered_as_they_were_first_read() {
    let home = Home::new();
    let mut server = Server::start(&home.path("server"), "");
    let config = format!(
        "scan_interval: 500ms\nrelease_after: never\nscan_paths:\n\
         - {{name: bin, pattern: {}, rename: 'bin.{{ino}}', volatile: [{{offset: 21, length: 1}}]}}\n\
         destinations:\n- url: {}\n",
        yaml(&home.log("bin.[0-9]*")),
        server.url()
    );
    let client = Client::start(&home.path("client"), &config);
    let database = Mariadb::start(&home);
    database.query("CREATE DATABASE d; CREATE TABLE d.t (i INT, v TEXT)");
    let backup = home.path("backup");
    let mut first = BTreeMap::new();
    for round in 0..6 {
        for row in 0..20 {
            database.query(&format!("INSERT INTO d.t VALUES ({row}, 'round {round}')"));
        }
        database.query("FLUSH BINARY LOGS");
        if round == 1 {
            server.terminate();
            copy(&server.datadir, &backup);
            server.restart();
        }
        if round == 3 {
            // What it has now was read before the flags of these logs changed, or after.
            server.kill();
            first = tree(&server.datadir);
            fs::remove_dir_all(&server.datadir).unwrap();
            copy(&backup, &server.datadir);
            server.restart();
        }
    }
    database.query("PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY");
    drop(database);

    // Our links still hold what was purged.
    let held: Vec<PathBuf> = tree(&client.datadir).into_keys().collect();
    assert!(held.len() >= 6, "{held:?}");
    for name in &held {
        let mut was = fs::read(client.datadir.join(name)).unwrap();
        wait_until(&format!("{} arrives", name.display()), || {
            let Ok(copy) = fs::read(server.datadir.join(name)) else {
                return false;
            };
            // Nobody but the flag says when it was read.
            was[21] = copy.get(21).copied().unwrap_or_default();
            copy == was && copy[21] <= 1
        });
        let read = Command::new("mariadb-binlog")
            .arg("--no-defaults")
            .arg(server.datadir.join(name))
            .output()
            .unwrap();
        assert!(read.status.success(), "{}", said(&read));
    }
    let texts: Vec<_> = held
        .iter()
        .map(|name| {
            let mut command = Command::new("mariadb-binlog");
            let read = command.arg("--no-defaults").arg(server.datadir.join(name));
            String::from_utf8_lossy(&read.output().unwrap().stdout).into_owned()
        })
        .collect();
    for round in 0..6 {
        assert!(
            texts
                .iter()
                .any(|text| text.contains(&format!("round {round}")))
        );
    }
    // What was sent once more is what was read first.
    let mut changed = 0;
    for (name, (length, hash)) in &first {
        let copy = fs::read(server.datadir.join(name)).unwrap();
        let was = &copy[..usize::try_from(*length).unwrap()];
        assert_eq!(blake3::hash(was), *hash, "{}", name.display());
        let now = fs::read(client.datadir.join(name)).unwrap();
        changed += usize::from(now[21] != copy[21]);
    }
    assert!(
        changed >= 1,
        "one at the least was read while it was in use: {:?}",
        first.keys()
    );
    for name in &held {
        let name = name.to_str().unwrap();
        for kind in ["superseded", "conflict", "lost", "diverged"] {
            assert_eq!(
                events(&client.datadir, kind, name),
                [""; 0],
                "{name}: {kind}"
            );
        }
    }
}
