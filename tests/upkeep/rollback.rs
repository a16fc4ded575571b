//! The client rolled back: its files, or all of it, restored from an older copy.

use std::fs;
use std::path::{Path, PathBuf};

use super::stage::{Home, content, events, is_confirmed};
use crate::common::{Client, Server, append, rows, wait_until};

/// Puts `bytes` into the file that is there, as `cp` does.
fn overwrite(path: &Path, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).truncate(true).open(path);
    std::io::Write::write_all(&mut file.unwrap(), bytes).unwrap();
}

#[test]
fn a_file_restored_shorter_or_with_other_content_is_a_new_generation() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    let was = content(50_000);
    let mut other = was.clone();
    other[40_000..].fill(b'x');
    other.extend([b'x'; 500]);
    let cases = [
        ("shorter", was[..20_000].to_vec()),
        ("empty", Vec::new()),
        ("other", other),
    ];
    for (name, _) in &cases {
        fs::write(home.log(name), &was).unwrap();
    }
    let config = home.config(&[&server.url()], "");
    let mut client = Client::start(&home.path("client"), &config);
    for (name, _) in &cases {
        let name = format!("logs/{name}");
        wait_until(&name, || is_confirmed(&client.datadir, &name, was.len()));
    }
    client.kill();
    for (name, restored) in &cases {
        overwrite(&home.log(name), restored);
    }
    client.restart();
    for (name, restored) in &cases {
        append(&home.log(name), b" and on");
        let next = [restored, &b" and on"[..]].concat();
        wait_until(name, || server.holds(&format!("logs/{name}.1"), &next));
        assert!(server.holds(&format!("logs/{name}"), &was), "no splice");
        let told = events(&client.datadir, "superseded", &format!("logs/{name}"));
        assert_eq!(told.len(), 1, "{told:?}");
    }
}

/// Of a generation that was closed nothing is here that could be sent again: that the server no longer
/// has it is told of, once, however often the server comes back.
#[test]
fn a_closed_generation_that_a_restored_server_lacks_is_told_of() {
    let home = Home::new();
    let (mut server, backup) = with_a_backup(&home);
    append(&home.log("a"), b"the first life\n");
    let client = Client::start(
        &home.path("client"),
        &home.config(&[&server.url()], "scan_interval: 1s"),
    );
    wait_until("the first life", || {
        is_confirmed(&client.datadir, "logs/a", 15)
    });
    overwrite(&home.log("a"), b"another\n");
    wait_until("the second life", || {
        is_confirmed(&client.datadir, "logs/a.1", 8)
    });

    for _ in 0..2 {
        server.terminate();
        fs::remove_dir_all(&server.datadir).unwrap();
        copy_without_links(&backup, &server.datadir);
        server.restart();
        wait_until("what is here is sent again", || {
            server.holds("logs/a.1", b"another\n")
        });
        let told = || events(&client.datadir, "lost", "logs/a");
        wait_until("the first life is missed", || !told().is_empty());
        assert_eq!(told().len(), 1, "{:?}", told());
    }
}

/// Nobody appends to an empty file, and a length says nothing of whether it is there.
#[test]
fn an_empty_file_that_a_restored_server_lacks_is_there_again() {
    type Restore = fn(&Server, &Path);
    let lost: [(&str, Restore); 4] = [
        ("all of it", |server, backup| {
            fs::remove_dir_all(&server.datadir).unwrap();
            copy_without_links(backup, &server.datadir);
        }),
        ("its row", |server, backup| {
            let index = ".shaftlog/server.redb";
            fs::copy(backup.join(index), server.datadir.join(index)).unwrap();
        }),
        ("the file", |server, _| {
            fs::remove_file(server.datadir.join("logs/empty")).unwrap();
        }),
        ("everything", |server, _| {
            fs::remove_dir_all(&server.datadir).unwrap();
            fs::create_dir(&server.datadir).unwrap();
        }),
    ];
    for (what, restore) in lost {
        let home = Home::new();
        let (mut server, backup) = with_a_backup(&home);
        append(&home.log("empty"), b"");
        let client = Client::start(
            &home.path("client"),
            &home.config(&[&server.url()], "scan_interval: 1s"),
        );
        let is_sound = |server: &Server| {
            let rows = rows(&server.datadir, "files");
            let has_row = rows.iter().any(|row| row["path"] == "/logs/empty");
            has_row && server.holds("logs/empty", b"")
        };
        wait_until("it arrives", || is_sound(&server));
        server.terminate();
        restore(&server, &backup);
        server.restart();
        wait_until(what, || is_sound(&server));
        drop(client);
        let refilled = events(&server.datadir, "refilled", "logs/empty");
        assert_eq!(refilled.len(), usize::from(what == "the file"), "{what}");
    }
}

/// A server that runs, and a copy of what it was before it had anything.
fn with_a_backup(home: &Home) -> (Server, PathBuf) {
    let mut server = Server::start(&home.path("server"), "");
    server.terminate();
    let backup = home.path("backup");
    copy_without_links(&server.datadir, &backup);
    server.restart();
    (server, backup)
}

/// Copies a tree file by file: no two names of the copy are one file.
fn copy_without_links(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_without_links(&entry.path(), &to);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_client_restored_file_by_file_goes_on_under_the_same_names() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    for name in ["a", "b", "c"] {
        fs::write(home.log(name), name).unwrap();
    }
    let config = home.config(&[&server.url()], "release_after: never");
    let mut client = Client::start(&home.path("client"), &config);
    for name in ["logs/a", "logs/b", "logs/c"] {
        wait_until(name, || is_confirmed(&client.datadir, name, 1));
    }
    fs::remove_file(home.log("b")).unwrap();
    assert!(client.terminate().success());
    copy_without_links(&home.path("logs"), &home.path("copy/logs"));
    copy_without_links(&client.datadir, &home.path("copy/client"));
    // What came after the backup is at the server, and gone here.
    client.restart();
    append(&home.log("c"), b", after the backup");
    wait_until("it arrives", || {
        server.holds("logs/c", b"c, after the backup")
    });
    client.kill();
    for directory in ["logs", "client"] {
        fs::remove_dir_all(home.path(directory)).unwrap();
        fs::rename(home.path("copy").join(directory), home.path(directory)).unwrap();
    }
    client.restart();
    append(&home.log("a"), b" goes on");
    wait_until("the log goes on under its name", || {
        server.holds("logs/a", b"a goes on")
    });
    assert!(server.holds("logs/b", b"b"));
    assert_eq!(events(&client.datadir, "rebuilt", "logs/a").len(), 1);
    // Nothing is spliced behind what the client does not know any more.
    append(&home.log("c"), b" and another end");
    wait_until("the rolled back log is delivered anew", || {
        server.holds("logs/c.1", b"c and another end")
    });
    assert!(server.holds("logs/c", b"c, after the backup"));
    let files = fs::read_dir(server.datadir.join("logs")).unwrap().count();
    assert_eq!(files, 4);
    assert_eq!(rows(&client.datadir, "files").len(), 4);
}
