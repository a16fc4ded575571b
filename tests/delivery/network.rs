//! Bad networks: all arrives once, and progress never stops.

use std::fs;

use tempfile::TempDir;

use super::faults::{Fault, Proxy};
use crate::common::{Client, Server, append, assert_same_tree, deliver, tree, wait_until};

/// Delivers two files through a proxy with `fault`, appends while that goes on, and compares.
fn arrives_through(fault: Fault) -> (TempDir, Proxy) {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let mut big: Vec<u8> = (0..700_000u32)
        .flat_map(|n| (n % 251).to_le_bytes())
        .collect();
    big.truncate(1_000_003);
    fs::write(logs.join("big"), &big).unwrap();
    fs::write(logs.join("small"), "one line\n").unwrap();

    let server = Server::start(&home.path().join("server"), "");
    let proxy = Proxy::start(server.port, fault);
    let config = deliver(&[("logs", &logs.join("*"))], &[&proxy.url()]);
    let _client = Client::start(&home.path().join("client"), &config);
    wait_until("the small file arrives", || {
        server.holds("logs/small", b"one line\n")
    });
    append(&logs.join("small"), b"another\n");
    let delivered = server.datadir.join("logs");
    wait_until("everything arrives", || {
        delivered.is_dir() && tree(&delivered) == tree(&logs)
    });
    assert_same_tree(&logs, &delivered);
    (home, proxy)
}

#[test]
fn connections_cut_at_every_37th_kib() {
    let (_home, proxy) = arrives_through(Fault::CutEvery(37 * 1024));
    assert!(
        proxy.accepted() > 20,
        "the proxy has cut {} times",
        proxy.accepted()
    );
    // What was cut off is proven, not sent again: far less than twice the file.
    assert!(
        proxy.sent() < 2_000_000,
        "{} bytes for 1,000,012",
        proxy.sent()
    );
}

#[test]
fn a_line_that_dribbles() {
    arrives_through(Fault::Dribble(97));
}

#[test]
fn requests_that_arrive_twice() {
    let (_home, proxy) = arrives_through(Fault::Duplicate);
    assert!(proxy.accepted() > 0);
}

#[test]
fn connections_that_stall() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), vec![b'x'; 300_000]).unwrap();
    let server = Server::start(&home.path().join("server"), "");
    let proxy = Proxy::start(server.port, Fault::StallAfter(100_000));
    let config = deliver(&[("logs", &logs.join("*"))], &[&proxy.url()]);
    let _client = Client::start(&home.path().join("client"), &config);
    wait_until("the first connection stalls", || proxy.sent() >= 100_000);
    proxy.set(Fault::None);
    wait_until("the file arrives", || {
        server.holds("logs/log", &vec![b'x'; 300_000])
    });
}
