//! A byte that is another now: found, its side and its chunk named, nothing overwritten.

use std::fs;

use super::stage::{Home, content, events, is_confirmed, put_byte};
use crate::common::{Client, Server, append, wait_for, wait_until};

#[test]
fn the_scrub_finds_a_changed_byte_and_the_file_is_delivered_anew() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    let was = content(100_000);
    fs::write(home.log("a"), &was).unwrap();
    fs::write(home.log("b"), "untouched").unwrap();
    let extra = "scrub: {period: 500ms, rate: 64MiB}";
    let mut client = Client::start(&home.path("client"), &home.config(&[&server.url()], extra));
    wait_until("it is confirmed", || {
        is_confirmed(&client.datadir, "logs/a", was.len())
    });
    // In the middle: neither size nor the bytes around C tell.
    put_byte(&home.log("a"), 50_000, !was[50_000]);
    let mut now = was.clone();
    now[50_000] = !was[50_000];
    wait_until("what it is now arrives under the next name", || {
        server.holds("logs/a.1", &now)
    });
    assert!(server.holds("logs/a", &was));
    let told = events(&client.datadir, "superseded", "logs/a");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("the local file's delivered bytes have changed, the first of them among bytes 49152 to 50176"),
        "{told:?}"
    );
    append(&home.log("a"), b"goes on");
    now.extend(b"goes on");
    wait_until("it goes on", || server.holds("logs/a.1", &now));
    assert!(client.terminate().success());
    assert_eq!(events(&client.datadir, "superseded", "logs/b"), [""; 0]);
}

#[test]
fn other_bytes_at_the_server_are_a_conflict_with_its_chunk() {
    let home = Home::new();
    let mut server = Server::start(&home.path("server"), "");
    let ours = content(100_000);
    fs::write(home.log("a"), &ours).unwrap();
    fs::write(home.log("b"), "b").unwrap();
    let mut client = Client::start(&home.path("client"), &home.config(&[&server.url()], ""));
    wait_until("all is confirmed", || {
        is_confirmed(&client.datadir, "logs/a", ours.len())
            && is_confirmed(&client.datadir, "logs/b", 1)
    });
    assert!(client.terminate().success());
    // Another server under this URL, to which somebody has delivered something else.
    server.kill();
    fs::remove_dir_all(&server.datadir).unwrap();
    server.restart();
    let mut theirs = ours.clone();
    theirs[30_000] = !ours[30_000];
    let somebody = Home::new();
    fs::write(somebody.log("a"), &theirs).unwrap();
    let another = Client::configure(
        &home.path("another"),
        &somebody.config(&[&server.url()], ""),
    );
    assert!(another.sync(&[]).status.success());

    client.restart();
    let told = wait_for("the conflict is told", || {
        let told = events(&client.datadir, "conflict", "logs/a");
        (!told.is_empty()).then_some(told)
    });
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(
            "first 100000 bytes differ from ours, the first of them among bytes 29696 to 30720"
        ),
        "{told:?}"
    );
    let line = client.process().output();
    assert!(line.contains("among bytes 29696 to 30720"));
    append(&home.log("b"), b"goes on");
    wait_until("the other file goes on", || {
        server.holds("logs/b", b"bgoes on")
    });
    assert!(server.holds("logs/a", &theirs), "nothing is overwritten");
    assert_eq!(events(&client.datadir, "superseded", "logs/a"), [""; 0]);
}

#[test]
fn the_next_append_finds_a_change_at_the_head_and_at_the_seam_and_a_shrink() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    let was = content(100_000);
    let changes = [("head", 10), ("seam", 99_990)];
    for name in ["head", "seam", "shrunk"] {
        fs::write(home.log(name), &was).unwrap();
    }
    let config = home.config(&[&server.url()], "scrub: {period: never}");
    let client = Client::start(&home.path("client"), &config);
    for name in ["logs/head", "logs/seam", "logs/shrunk"] {
        wait_until(name, || is_confirmed(&client.datadir, name, was.len()));
    }
    let mut now = Vec::new();
    for (name, at) in changes {
        put_byte(&home.log(name), at, !was[at]);
        let mut bytes = was.clone();
        bytes[at] = !was[at];
        now.push((name, bytes));
    }
    let cut = fs::OpenOptions::new().write(true).open(home.log("shrunk"));
    cut.unwrap().set_len(500).unwrap();
    now.push(("shrunk", was[..500].to_vec()));
    for (name, bytes) in &mut now {
        append(&home.log(name), b"!");
        bytes.push(b'!');
    }
    for (name, bytes) in &now {
        wait_until(name, || server.holds(&format!("logs/{name}.1"), bytes));
        assert!(server.holds(&format!("logs/{name}"), &was), "no splice");
        let told = events(&client.datadir, "superseded", &format!("logs/{name}"));
        assert_eq!(told.len(), 1, "{told:?}");
    }
}
