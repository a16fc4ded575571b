//! Letting go of links.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::stage::{Home, content, events, state};
use crate::common::{Client, Server, wait_until};

const SOON: &str = "release_after: 200ms\nscan_interval: 300ms";

/// Whether a process has this inode open.
fn has_open(pid: u32, inode: u64) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut open = descriptors.filter_map(|fd| fs::metadata(fd.unwrap().path()).ok());
    open.any(|stat| stat.ino() == inode)
}

fn links(file: &File) -> u64 {
    file.metadata().unwrap().nlink()
}

#[test]
fn a_delivered_file_that_is_gone_gives_its_space_back() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    let log = home.log("a");
    fs::write(&log, content(300_000)).unwrap();
    fs::write(home.log("kept"), "its source is there").unwrap();
    let mut client = Client::start(&home.path("client"), &home.config(&[&server.url()], SOON));
    wait_until("it arrives", || server.holds("logs/a", &content(300_000)));
    // Opened for reading only: nobody's writer.
    let seen = File::open(&log).unwrap();
    fs::remove_file(&log).unwrap();
    wait_until("its link is gone", || links(&seen) == 0);
    wait_until("its row says so", || {
        state(&client.datadir, "logs/a") == "released"
    });
    let inode = seen.metadata().unwrap().ino();
    let pid = client.process().pid();
    wait_until("nobody has it open", || !has_open(pid, inode));
    let told = events(&client.datadir, "released", "logs/a");
    assert_eq!(told.len(), 1, "{told:?}");
    let hash = blake3::hash(&content(300_000)).to_hex();
    assert!(
        told[0].contains(&format!("300000 bytes, blake3 {hash}")),
        "{told:?}"
    );
    assert!(client.datadir.join("logs/kept").exists());
    // Its name stays taken.
    fs::write(&log, "another file").unwrap();
    wait_until("the next one gets the next name", || {
        server.holds("logs/a.1", b"another file")
    });
    assert!(server.holds("logs/a", &content(300_000)));
}

#[test]
fn a_link_stays_while_somebody_writes_or_a_destination_lacks_it() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    let mut other = Server::start(&home.path("other"), "");
    let urls = [server.url(), other.url()];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    for name in ["open", "first", "second", "third"] {
        fs::write(home.log(name), name).unwrap();
    }
    let client = Client::start(&home.path("client"), &home.config(&urls, SOON));
    let arrived =
        |server: &Server, name: &str| server.holds(&format!("logs/{name}"), name.as_bytes());
    for name in ["open", "first", "second", "third"] {
        wait_until(name, || arrived(&server, name) && arrived(&other, name));
    }
    let link = |name: &str| client.datadir.join("logs").join(name);
    let writer = OpenOptions::new()
        .append(true)
        .open(home.log("open"))
        .unwrap();
    fs::remove_file(home.log("open")).unwrap();
    // What is due after it goes before it; and once more, so that it was looked at in between.
    for name in ["first", "second"] {
        fs::remove_file(home.log(name)).unwrap();
        wait_until(name, || !link(name).exists());
    }
    assert!(link("open").exists());
    drop(writer);
    wait_until("the writer is gone", || !link("open").exists());

    other.kill();
    fs::write(home.log("fourth"), "fourth").unwrap();
    wait_until("one has it", || arrived(&server, "fourth"));
    fs::remove_file(home.log("fourth")).unwrap();
    fs::remove_file(home.log("third")).unwrap();
    fs::write(home.log("fifth"), "fifth").unwrap();
    wait_until("time passes", || arrived(&server, "fifth"));
    // All had the third, but the fourth is missing in one place, and nothing is confirmed anew.
    assert!(link("third").exists() && link("fourth").exists());
    other.restart();
    wait_until("the other has it", || arrived(&other, "fourth"));
    for name in ["third", "fourth"] {
        wait_until(name, || !link(name).exists());
    }
}

#[test]
fn a_restart_goes_on_with_the_quiet_time_and_a_write_ends_it() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    let log = home.log("a");
    fs::write(&log, "line\n").unwrap();
    let config = home.config(&[&server.url()], "release_after: 366days");
    let mut client = Client::start(&home.path("client"), &config);
    wait_until("it arrives", || server.holds("logs/a", b"line\n"));
    let mut writer = OpenOptions::new().append(true).open(&log).unwrap();
    fs::remove_file(&log).unwrap();
    assert!(client.terminate().success());
    std::io::Write::write_all(&mut writer, b"one more\n").unwrap();
    drop(writer);
    client.reconfigure(&home.config(&[&server.url()], SOON));
    client.restart();
    wait_until("what only our link held arrives", || {
        server.holds("logs/a", b"line\none more\n")
    });
    wait_until("then it goes", || !client.datadir.join("logs/a").exists());
    assert!(events(&client.datadir, "lost", "logs/a").is_empty());
}

#[test]
fn the_client_warns_long_before_the_disk_is_full() {
    let home = Home::new();
    let server = Server::start(&home.path("server"), "");
    fs::write(home.log("a"), "12345").unwrap();
    let extra =
        "warn_free: 900TiB\nstatus_interval: 200ms\nrelease_after: never\nscan_interval: 300ms";
    let mut client = Client::start(&home.path("client"), &home.config(&[&server.url()], extra));
    wait_until("it arrives", || server.holds("logs/a", b"12345"));
    fs::remove_file(home.log("a")).unwrap();
    let said = |client: &mut Client, what: &str| client.process().output().contains(what);
    wait_until("it warns", || {
        said(&mut client, "are free where the links lie")
    });
    client.kill();
    client.restart();
    wait_until("the status tells what only the links hold", || {
        said(&mut client, "5 bytes in 1 of them held by our links alone")
    });
    assert!(Path::new(&client.datadir.join("logs/a")).exists());
}
