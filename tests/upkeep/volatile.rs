//! Bytes that a program changes after it has written them.

use std::fs;

use super::stage::{Home, content, events, put_byte};
use crate::common::{Client, Server, append, rows, wait_until};

fn config(home: &Home, urls: &[&str]) -> String {
    let plain = home.config(urls, "");
    plain.replace(
        "{name: logs,",
        "{name: logs, volatile: [{offset: 21, length: 1}],",
    )
}

#[test]
fn volatile_bytes_are_delivered_as_first_read_everywhere_and_for_ever() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    let other = Server::start(&home.path("other"), "");
    let log = home.log("bin.1");
    let mut first = content(10_000);
    first[21] = 1;
    // The header is there before the byte is.
    fs::write(&log, &first[..10]).unwrap();
    let mut client = Client::start(&home.path("client"), &config(&home, &[&server.url()]));
    wait_until("its beginning arrives", || {
        server.holds("logs/bin.1", &first[..10])
    });
    append(&log, &first[10..]);
    wait_until("all arrives", || server.holds("logs/bin.1", &first));
    put_byte(&log, 21, 0);
    append(&log, b"closed");
    first.extend(b"closed");
    wait_until("what follows arrives", || {
        server.holds("logs/bin.1", &first)
    });

    // After a crash, towards a second destination and one that has lost everything.
    client.kill();
    client.reconfigure(&config(&home, &[&server.url(), &other.url()]));
    client.restart();
    wait_until("the second has what the first has", || {
        other.holds("logs/bin.1", &first)
    });
    append(&log, b"?");
    first.extend(b"?");
    for server in [&server, &other] {
        wait_until("both go on", || server.holds("logs/bin.1", &first));
    }
    assert!(client.terminate().success());
    append(&log, b"!");
    first.extend(b"!");
    let output = client.sync(&[]);
    assert!(output.status.success(), "{}", crate::common::said(&output));
    assert!(server.holds("logs/bin.1", &first));
    let verified = verify(&client, "--remote");
    assert!(
        verified.status.success(),
        "{}",
        crate::common::said(&verified)
    );
    for kind in ["superseded", "conflict", "lost"] {
        assert_eq!(events(&client.datadir, kind, "logs/bin.1"), [""; 0]);
    }
    assert_eq!(rows(&client.datadir, "files").len(), 1);
}

/// Compares the client's files with what was confirmed, and with what the destinations hold.
fn verify(client: &Client, how: &str) -> std::process::Output {
    let config = client.config();
    let args: [&std::ffi::OsStr; 4] = [
        "verify".as_ref(),
        "-f".as_ref(),
        config.as_ref(),
        how.as_ref(),
    ];
    crate::common::run(args)
}

#[test]
fn a_sync_without_links_keeps_them_too() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    let log = home.log("bin.1");
    let mut first = content(100);
    first[21] = 1;
    fs::write(&log, &first).unwrap();
    let client = Client::configure(&home.path("client"), &config(&home, &[&server.url()]));
    assert!(client.sync(&[]).status.success());
    put_byte(&log, 21, 0);
    append(&log, b"more");
    first.extend(b"more");
    assert!(client.sync(&[]).status.success());
    assert!(server.holds("logs/bin.1", &first));
}
