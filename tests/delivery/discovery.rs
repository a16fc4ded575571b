//! Files are found at once, by notification; the scan and the round robin are the safety net.

use std::fs;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::common::{Client, Daemon, Server, append, deliver, program, wait_until};

/// A scan that will not come: what is found was found by notification.
const NO_SCAN: &str = "scan_interval: 1h\nperiodic_trigger_interval: 1h\n";

#[test]
fn a_new_file_and_a_new_subdirectory_are_found_without_a_scan() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("first.log"), "first\n").unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let config = deliver(&[("logs", &logs.join("**/*.log"))], &[&server.url()]);
    let client = Client::start(&home.path().join("client"), &(NO_SCAN.to_owned() + &config));
    wait_until("the start's scan delivers", || {
        server.holds("logs/first.log", b"first\n")
    });

    let start = Instant::now();
    fs::write(logs.join("second.log"), "second\n").unwrap();
    wait_until("the new file is linked", || {
        client.datadir.join("logs/second.log").exists()
    });
    println!("a new file was linked after {:?}", start.elapsed());

    let start = Instant::now();
    fs::create_dir_all(logs.join("a/b/c")).unwrap();
    fs::write(logs.join("a/b/c/deep.log"), "deep\n").unwrap();
    wait_until("the deep file is linked", || {
        client.datadir.join("logs/deep.log").exists()
    });
    println!(
        "a file three directories deep was linked after {:?}",
        start.elapsed()
    );
    wait_until("both arrive", || {
        server.holds("logs/second.log", b"second\n") && server.holds("logs/deep.log", b"deep\n")
    });

    append(&logs.join("a/b/c/deep.log"), "more\n");
    wait_until("an append arrives", || {
        server.holds("logs/deep.log", b"deep\nmore\n")
    });
}

#[test]
fn a_file_that_lives_for_a_moment_is_kept() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let config = deliver(&[("logs", &logs.join("*.log"))], &[&server.url()]);
    let client = Client::start(&home.path().join("client"), &(NO_SCAN.to_owned() + &config));
    fs::write(logs.join("ready.log"), "").unwrap();
    wait_until("the client watches", || server.holds("logs/ready.log", b""));
    fs::write(logs.join("brief.log"), "last words\n").unwrap();
    wait_until("it is linked", || {
        client.datadir.join("logs/brief.log").exists()
    });
    fs::remove_file(logs.join("brief.log")).unwrap();
    wait_until("it arrives all the same", || {
        server.holds("logs/brief.log", b"last words\n")
    });
}

#[test]
#[ignore = "needs unshare"]
fn without_watches_the_scan_finds_everything_and_one_warning_says_so() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("first.log"), "first\n").unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let quick = "scan_interval: 200\nperiodic_trigger_interval: 20\n";
    let config = deliver(&[("logs", &logs.join("**/*.log"))], &[&server.url()]);
    let client = Client::configure(&home.path().join("client"), &(quick.to_owned() + &config));
    let mut command = Command::new("unshare");
    let script = "echo 0 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    command
        .args(["-Ur", "sh", "-c", script, "sh"])
        .arg(program());
    command
        .args(["client", "--stdout", "--config"])
        .arg(client.config());
    let daemon = Daemon::spawn(command, &home.path().join("out"));
    wait_until("the first arrives", || {
        server.holds("logs/first.log", b"first\n")
    });
    fs::create_dir(logs.join("new")).unwrap();
    fs::write(logs.join("new/second.log"), "second\n").unwrap();
    wait_until("the scan finds the second", || {
        server.holds("logs/second.log", b"second\n")
    });
    append(&logs.join("first.log"), "more\n");
    wait_until("the round robin finds the append", || {
        server.holds("logs/first.log", b"first\nmore\n")
    });
    let warnings: Vec<String> = daemon
        .output()
        .lines()
        .filter(|line| line.contains("watch"))
        .map(str::to_owned)
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
#[ignore = "needs python3"]
fn bytes_written_through_mmap_arrive_by_the_round_robin() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let quick = "scan_interval: 1h\nperiodic_trigger_interval: 20\n";
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    let _client = Client::start(&home.path().join("client"), &(quick.to_owned() + &config));
    fs::write(logs.join("map"), "").unwrap();
    wait_until("the empty file arrives", || server.holds("logs/map", b""));
    // The file grows while an unwritten mapping of it is open and is filled through the mapping.
    let script = "import mmap,os,sys\n\
        f=os.open(sys.argv[1],os.O_RDWR)\n\
        os.ftruncate(f,4096)\n\
        m=mmap.mmap(f,4096)\n\
        m[:]=b'm'*4096\n\
        m.flush()\n";
    let status = Command::new("python3")
        .args(["-c", script])
        .arg(logs.join("map"))
        .status();
    assert!(status.unwrap().success());
    // The zeros before them may have been delivered first: then they are another generation.
    let mapped = [b'm'; 4096];
    wait_until("the mapped bytes arrive", || {
        server.holds("logs/map", &mapped) || server.holds("logs/map.1", &mapped)
    });
}
