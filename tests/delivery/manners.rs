//! How the daemons behave towards whoever operates them.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::common::{Client, Daemon, Server, deliver, free_port, said, shaftlog, wait_until};

#[test]
fn both_end_soon_after_sigterm_and_lose_nothing() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "one\n").unwrap();
    let mut server = Server::start(&home.path().join("server"), "");
    let dead = format!("http://127.0.0.1:{}/", free_port());
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url(), &dead]);
    let mut client = Client::start(&home.path().join("client"), &config);
    wait_until("the line arrives", || server.holds("logs/log", b"one\n"));

    let start = Instant::now();
    assert!(client.terminate().success());
    assert!(server.terminate().success());
    // The documented bound, ten seconds each.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );

    fs::write(logs.join("log"), "one\ntwo\n").unwrap();
    server.restart();
    client.restart();
    wait_until("the next line arrives", || {
        server.holds("logs/log", b"one\ntwo\n")
    });
}

#[test]
fn sighup_reopens_the_log_files() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let server = home.path().join("server.yaml");
    let text = format!(
        "datadir: {0}/server\nlogfile: {0}/server.log\nstatus_interval: 100\n\
         bind_address: 127.0.0.1\nlisten_port: {1}\n",
        home.path().display(),
        free_port()
    );
    fs::write(&server, text).unwrap();
    let url = format!("http://127.0.0.1:{}/", free_port());
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]);
    let config = format!("status_interval: 100\n{config}");
    let client = Client::configure(&home.path().join("client"), &config);
    for (name, config) in [("server", server), ("client", client.config())] {
        let mut command = shaftlog();
        command.args([name, "--config"]).arg(config);
        let mut daemon = Daemon::spawn(command, &home.path().join(name).with_extension("out"));
        let log = home.path().join(name).with_extension("log");
        let has_lines = || fs::metadata(&log).is_ok_and(|file| file.len() > 0);
        wait_until("the log has lines", has_lines);
        fs::rename(&log, log.with_extension("log.1")).unwrap();
        daemon.signal(Signal::HUP);
        wait_until("it goes on in a new file", has_lines);
        assert_eq!(daemon.output(), "", "nothing is printed besides");
    }
}

#[test]
fn a_dead_destination_is_one_line_not_one_a_retry() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "one\n").unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/");
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]);
    let config = format!("status_interval: 500\n{config}");
    let mut client = Client::start(&home.path().join("client"), &config);
    // Five status lines: several retries have passed by then.
    wait_until("five status lines", || {
        client
            .process()
            .output()
            .lines()
            .filter(|line| line.contains("status"))
            .count()
            >= 5
    });
    let output = client.process().output();
    let complaints = output
        .lines()
        .filter(|line| line.contains(&port.to_string()) && !line.contains("status"))
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .count();
    assert_eq!(complaints, 1, "{output}");
}

#[test]
fn a_refused_file_is_asked_about_again_as_the_log_says() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "one\n").unwrap();
    let strict = "validate_regex: '^/other/'";
    let mut server = Server::start(&home.path().join("server"), strict);
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    let once = Client::configure(&home.path().join("once"), &config);
    let output = once.sync(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    // A signal would only end it.
    assert!(!said(&output).contains("SIGHUP"), "{}", said(&output));

    let mut client = Client::start(&home.path().join("client"), &config);
    wait_until("the log tells how long it takes", || {
        let log = client.process().output();
        log.contains("logs/log: refused with status 400")
            && log.contains("asked again in 10m, or at once on SIGHUP")
    });
    server.terminate();
    server.reconfigure("");
    server.restart();
    client.process().signal(Signal::HUP);
    wait_until("it is delivered", || server.holds("logs/log", b"one\n"));
}
