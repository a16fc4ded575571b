//! Whole runs of the program: what it refuses to start on, and how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::common::{self, Server, free_port, shaftlog, yaml};

/// A second server on another port, with the datadir of the first.
fn server_on(datadir: &Path, config: &Path) -> Command {
    let text = format!(
        "datadir: {}\nlisten_port: {}\nbind_address: 127.0.0.1\n",
        yaml(datadir),
        free_port()
    );
    fs::write(config, text).unwrap();
    let mut command = shaftlog();
    command.args(["server", "--stdout", "--config"]).arg(config);
    command.stdin(Stdio::null());
    command
}

#[test]
fn two_servers_cannot_run_on_one_datadir() {
    let home = TempDir::new().unwrap();
    let datadir = home.path().join("data");
    let mut first = Server::start(&datadir, "");
    let pid = first.process().pid().to_string();

    let second = server_on(&datadir, &home.path().join("second.yaml"));
    let output = { second }.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", common::said(&output));
    assert!(
        common::said(&output).contains(&pid),
        "{}",
        common::said(&output)
    );

    // Neither can a rebuild; and the lock goes with its holder, however it ends.
    let rebuild = common::run([
        "db".as_ref(),
        "rebuild".as_ref(),
        "--config".as_ref(),
        first.config().as_os_str(),
    ]);
    assert_eq!(rebuild.status.code(), Some(5), "{}", common::said(&rebuild));
    first.kill();
    first.restart();
    assert!(first.terminate().success());
}

#[test]
fn data_without_a_database_is_refused() {
    let home = TempDir::new().unwrap();
    let datadir = home.path().join("data");
    fs::create_dir_all(datadir.join("host")).unwrap();
    fs::write(datadir.join("host/app.log"), "delivered by the original\n").unwrap();

    let output = server_on(&datadir, &home.path().join("server.yaml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", common::said(&output));
    let said = common::said(&output);
    assert!(said.contains("shaftlog db rebuild"), "{said}");
    assert!(!datadir.join(".shaftlog/server.redb").exists());
    assert_eq!(
        fs::read(datadir.join("host/app.log")).unwrap(),
        b"delivered by the original\n"
    );
}

#[test]
fn what_is_no_data_does_not_stop_it() {
    let home = TempDir::new().unwrap();
    let datadir = home.path().join("data");
    fs::create_dir_all(datadir.join("lost+found")).unwrap();
    fs::create_dir_all(datadir.join("empty/directory")).unwrap();
    fs::write(datadir.join(".machine-id"), "0123456789abcdef\n").unwrap();
    fs::write(datadir.join(".tmp.upload"), "half").unwrap();

    let server = Server::start(&datadir, "");
    assert!(datadir.join(".shaftlog/server.redb").exists());
    drop(server);
}

#[test]
fn a_new_datadir_is_made_with_the_right_modes() {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::http::{Asked, Connection};

    let home = TempDir::new().unwrap();
    let datadir = home.path().join("not/yet/there");
    fs::create_dir_all(home.path().join("not/yet")).unwrap();
    let server = Server::start(&datadir, "");
    let mut connection = Connection::open(server.port);
    connection.expect(Asked::default());
    connection.send(b"PUT /dir/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/1\r\n\r\nx");
    let (_, answer) = connection.answer().unwrap().unwrap();
    assert_eq!(answer.status, 201, "{}", answer.shown());

    let mode = |path: &str| {
        let stat = fs::metadata(datadir.join(path)).unwrap();
        stat.permissions().mode() & 0o7777
    };
    assert_eq!(format!("{:o}", mode("")), "750");
    assert_eq!(format!("{:o}", mode(".shaftlog")), "700");
    assert_eq!(format!("{:o}", mode(".shaftlog/server.redb")), "600");
    assert_eq!(format!("{:o}", mode("dir")), "750");
    assert_eq!(format!("{:o}", mode("dir/a")), "640");
}

#[test]
fn a_broken_database_is_refused_and_not_touched() {
    for broken in [
        &b""[..],
        b"x",
        b"not a database at all, but rather long",
        &[0; 8192],
    ] {
        let home = TempDir::new().unwrap();
        let datadir = home.path().join("data");
        fs::create_dir_all(datadir.join(".shaftlog")).unwrap();
        let database = datadir.join(".shaftlog/server.redb");
        fs::write(&database, broken).unwrap();

        let output = server_on(&datadir, &home.path().join("server.yaml"))
            .output()
            .unwrap();
        assert!(!output.status.success(), "{}", common::said(&output));
        assert!(
            common::said(&output).contains("server.redb"),
            "{}",
            common::said(&output)
        );
        assert_eq!(fs::read(&database).unwrap(), broken);
    }
}
