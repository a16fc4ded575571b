//! Patterns whose files lie on another filesystem than the datadir: hard links end there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{self, Client, Server, append, said, wait_until};
use crate::disk::{Mount, make_image};
use crate::{done, need, scratch};

pub fn other_filesystem(home: &Path) -> Mount {
    let image = home.join("other.img");
    make_image(&image, "64M");
    done(Command::new("mkfs.ext4").arg("-q").arg(&image));
    Mount::new(&image, &home.join("other"))
}

pub fn settings(patterns: &[(&str, &Path)], server: &Server) -> String {
    common::deliver(patterns, &[&server.url()])
}

/// Runs a subcommand with the client's configuration; it must end by itself.
fn run(subcommand: &str, client: &Client) -> Output {
    let mut command = common::shaftlog();
    command.arg(subcommand).arg("--config").arg(client.config());
    command.stdin(Stdio::null()).output().expect("it starts")
}

#[test]
#[ignore = "needs root, loop mounts"]
fn nothing_that_can_be_linked_is_a_bad_configuration() {
    need(&["mkfs.ext4", "mount"]);
    let home = scratch();
    let _other = other_filesystem(home.path());
    fs::write(home.path().join("other/far.log"), "far\n").expect("a file");
    let server = Server::start(&home.path().join("server"), "");
    let pattern = home.path().join("other/*.log");
    let datadir = home.path().join("client");
    let client = Client::configure(&datadir, &settings(&[("far", &pattern)], &server));
    for subcommand in ["check", "client"] {
        let output = run(subcommand, &client);
        assert_eq!(
            output.status.code(),
            Some(78),
            "{subcommand}: {}",
            said(&output)
        );
        assert!(said(&output).contains("filesystem"), "{}", said(&output));
    }
}

#[test]
#[ignore = "needs root, loop mounts"]
fn the_rest_is_delivered_and_a_second_client_serves_the_other_filesystem() {
    need(&["mkfs.ext4", "mount"]);
    let home = scratch();
    let _other = other_filesystem(home.path());
    let (near, far) = (home.path().join("near"), home.path().join("other/logs"));
    for (dir, text) in [(&near, "near\n"), (&far, "far\n")] {
        fs::create_dir(dir).expect("a directory");
        fs::write(dir.join("a.log"), text).expect("a file");
    }
    let server = Server::start(&home.path().join("server"), "");
    let both = [("near", near.join("*.log")), ("far", far.join("*.log"))];
    let both = both
        .each_ref()
        .map(|(name, pattern)| (*name, pattern.as_path()));
    let mut client = Client::configure(&home.path().join("client"), &settings(&both, &server));

    let output = client.sync(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(server.holds("near/a.log", b"near\n"), "{}", said(&output));
    assert_eq!(server.file("far/a.log"), None);

    client.restart();
    append(&near.join("a.log"), "more\n");
    wait_until("the near log goes on", || {
        server.holds("near/a.log", b"near\nmore\n")
    });
    let output = client.process().output();
    let about_far = |line: &&str| line.contains("ERROR") && line.contains("far");
    let errors: Vec<_> = output.lines().filter(about_far).collect();
    assert_eq!(errors.len(), 1, "{output}");

    // A client with its datadir on the other filesystem, beside the first one.
    let far_only = settings(&both[1..], &server);
    let _second = Client::start(&home.path().join("other/client"), &far_only);
    wait_until("the far log arrives", || {
        server.holds("far/a.log", b"far\n")
    });
    append(&far.join("a.log"), "more\n");
    append(&near.join("a.log"), "more\n");
    wait_until("both go on", || {
        server.holds("far/a.log", b"far\nmore\n")
            && server.holds("near/a.log", b"near\nmore\nmore\n")
    });
}
