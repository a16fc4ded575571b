//! A server whose files were damaged under it, with a client that goes on: what is found and by whom,
//! what heals by itself and what waits for the operator, who gets both copies.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Output};

use super::stage::{Home, content, events, is_confirmed, put_byte};
use crate::common::{Client, Server, append, rows, run, said, wait_until};

const LENGTH: usize = 100_000;
/// Where a byte is changed; it lies in the chunk from 49,152 to 50,176.
const CHANGED: usize = 50_000;
const NEVER_SENT: &[u8] = b"nobody delivered this";
const NAMES: [&str; 6] = [
    "extended",
    "flipped",
    "gone",
    "replaced",
    "sound",
    "truncated",
];

/// Changes a byte as somebody would who hides it; gives what the file is then.
fn flip(file: &Path) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    bytes[CHANGED] = !bytes[CHANGED];
    put_byte(file, CHANGED, bytes[CHANGED]);
    bytes
}

/// The same by `rsync --inplace -t`.
fn flip_by_rsync(file: &Path) -> Vec<u8> {
    let mut bytes = fs::read(file).unwrap();
    bytes[CHANGED] = !bytes[CHANGED];
    let source = file.with_extension("source");
    fs::write(&source, &bytes).unwrap();
    let modified = fs::metadata(file).unwrap().modified().unwrap();
    let opened = OpenOptions::new().write(true).open(&source).unwrap();
    opened.set_modified(modified).unwrap();
    let rsync = Command::new("rsync")
        .args(["--inplace", "-t", "--checksum"])
        .args([&source, file])
        .output()
        .unwrap();
    assert!(rsync.status.success(), "{}", said(&rsync));
    assert_eq!(fs::metadata(file).unwrap().modified().unwrap(), modified);
    fs::remove_file(source).unwrap();
    bytes
}

/// Both sides, with every log delivered.
struct Pair {
    home: Home,
    server: Server,
    client: Client,
}

impl Pair {
    fn start(server_extra: &str, client_extra: &str) -> Self {
        let home = Home::new();
        let server = Server::start(&home.path("server"), server_extra);
        for name in NAMES {
            fs::write(home.log(name), content(LENGTH)).unwrap();
        }
        let config = home.config(&[&server.url()], client_extra);
        let pair = Self {
            client: Client::start(&home.path("client"), &config),
            server,
            home,
        };
        for name in NAMES {
            pair.wait_confirmed(name, LENGTH);
        }
        pair
    }

    fn wait_confirmed(&self, name: &str, length: usize) {
        let name = format!("logs/{name}");
        wait_until(&name, || is_confirmed(&self.client.datadir, &name, length));
    }

    /// The server's copy.
    fn copy(&self, name: &str) -> std::path::PathBuf {
        self.server.datadir.join("logs").join(name)
    }

    fn server_events(&self, kind: &str, name: &str) -> usize {
        events(&self.server.datadir, kind, &format!("logs/{name}")).len()
    }

    fn client_events(&self, kind: &str, name: &str) -> usize {
        events(&self.client.datadir, kind, &format!("logs/{name}")).len()
    }

    /// The chunk with the first byte that differs is named, in the event and in the log.
    fn client_names_chunk(&self, name: &str, changed: usize) {
        let start = changed / 1024 * 1024;
        let chunk = format!("among bytes {start} to {}", start + 1024);
        let name = format!("logs/{name}");
        let told = events(&self.client.datadir, "diverged", &name);
        assert!(told[0].contains(&chunk), "{chunk}: {told:?}");
        let log = self.client.daemon.as_ref().unwrap().output();
        let line = |line: &&str| line.contains(&format!("{name}: diverged"));
        let lines: Vec<_> = log.lines().filter(line).collect();
        assert!(lines.len() == 1 && lines[0].contains(&chunk), "{log}");
    }

    /// Runs a command on the server.
    fn operate(&self, words: &[&str]) -> Output {
        let config = self.server.config();
        let config = ["-f", config.to_str().unwrap()];
        run(words.iter().chain(&config))
    }
}

/// What `verify` says of every file, the exit code first.
fn verify(datadir: &Path, how: &[&str]) -> (Option<i32>, Vec<serde_json::Value>) {
    let datadir = ["--datadir", datadir.to_str().unwrap()];
    let words = ["verify", "--json"];
    let output = run(words.iter().chain(&datadir).chain(how));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    (output.status.code(), text.lines().map(parse).collect())
}

fn of<'f>(findings: &'f [serde_json::Value], name: &str) -> &'f serde_json::Value {
    let is_it = |finding: &&serde_json::Value| {
        let file = finding["file"].as_str().unwrap();
        file.trim_start_matches('/') == format!("logs/{name}")
    };
    let found = findings.iter().find(is_it);
    found.unwrap_or_else(|| panic!("no {name} in {findings:?}"))
}

/// What a server's file that was replaced, or in which a byte was changed, goes through.
fn damages_are_found_and_healed(flip: fn(&Path) -> Vec<u8>) {
    let pair = Pair::start("scrub: {rate: 100MiB, period: 1s}", "");
    let whole = content(LENGTH);
    let flipped = flip(&pair.copy("flipped"));
    let mut replaced = whole.clone();
    replaced[CHANGED..].reverse();
    let other = pair.home.path("other");
    fs::write(&other, &replaced).unwrap();
    fs::rename(&other, pair.copy("replaced")).unwrap();
    let cut = OpenOptions::new().write(true).open(pair.copy("truncated"));
    cut.unwrap().set_len(40_000).unwrap();
    append(&pair.copy("extended"), NEVER_SENT);
    fs::remove_file(pair.copy("gone")).unwrap();

    // Nobody appends: the server's scrub finds it, and the client is told to look.
    for name in ["truncated", "gone"] {
        wait_until(name, || {
            pair.server_events("refilled", name) == 1 && pair.server.holds(&at(name), &whole)
        });
        assert_eq!(pair.server_events("regressed", name), 1);
        wait_until(name, || pair.client_events("server_restored", name) == 1);
    }
    for name in ["flipped", "replaced"] {
        wait_until(name, || pair.client_events("diverged", name) == 1);
        assert_eq!(pair.server_events("diverged", name), 1);
        pair.client_names_chunk(name, CHANGED);
    }
    wait_until("the tail is told of", || {
        pair.server_events("extended", "extended") == 1
    });
    let output = pair.server.output();
    assert!(output.contains("/logs/flipped"), "{output}");

    // Nothing is overwritten, though the client has more; the others go on.
    let mut more = whole.clone();
    more.extend(b"and more");
    for name in NAMES {
        append(&pair.home.log(name), b"and more");
    }
    for name in ["extended", "gone", "sound", "truncated"] {
        wait_until(name, || pair.server.holds(&at(name), &more));
    }
    assert_eq!(pair.server_events("tail_quarantined", "extended"), 1);
    assert_eq!(pair.server_events("extended", "extended"), 1);
    assert!(pair.server.holds(&at("flipped"), &flipped));
    assert!(pair.server.holds(&at("replaced"), &replaced));

    let (exit, findings) = verify(&pair.server.datadir, &[]);
    assert_eq!(exit, Some(4), "{findings:?}");
    for name in ["flipped", "replaced"] {
        let finding = of(&findings, name);
        assert_eq!(finding["side"], "server");
        assert_eq!(finding["verdict"], "differs", "{finding}");
    }
    assert_eq!(of(&findings, "sound")["verdict"], "right");
    // Only the client has the right bytes to compare with.
    let (exit, findings) = verify(&pair.client.datadir, &["--remote"]);
    assert_eq!(exit, Some(4), "{findings:?}");
    for name in ["flipped", "replaced"] {
        let finding = of(&findings, name);
        assert_eq!(finding["side"], "server", "{finding}");
        assert_eq!(finding["verdict"], "diverged", "{finding}");
        assert_eq!(finding["first_difference"]["start"], 49_152, "{finding}");
        assert_eq!(finding["first_difference"]["end"], 50_176, "{finding}");
    }

    for name in ["flipped", "replaced"] {
        let output = pair.operate(&["quarantine", &at(name)]);
        assert!(output.status.success(), "{}", said(&output));
    }
    for name in NAMES {
        wait_until(name, || pair.server.holds(&at(name), &more));
        pair.wait_confirmed(name, more.len());
    }
    let aside = fs::read_dir(pair.server.datadir.join(".shaftlog/quarantine")).unwrap();
    let aside: Vec<Vec<u8>> = aside
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    for kept in [&flipped[..], &replaced, NEVER_SENT] {
        assert!(aside.iter().any(|bytes| bytes == kept));
    }
    for (datadir, how) in [
        (&pair.server.datadir, &[][..]),
        (&pair.client.datadir, &["--remote"]),
    ] {
        let (exit, findings) = verify(datadir, how);
        assert_eq!(exit, Some(0), "{findings:?}");
    }
    for kind in ["superseded", "conflict", "lost"] {
        assert!(NAMES.iter().all(|name| pair.client_events(kind, name) == 0));
    }
}

/// A log's path at the server.
fn at(name: &str) -> String {
    format!("/logs/{name}")
}

#[test]
fn a_damaged_server_s_files_are_found_by_its_scrub_and_none_is_overwritten() {
    damages_are_found_and_healed(flip);
}

#[test]
#[ignore = "needs rsync"]
fn so_are_those_that_rsync_has_changed_in_place() {
    damages_are_found_and_healed(flip_by_rsync);
}

/// At rest: what `verify` says before any daemon could have looked.
#[test]
fn verify_finds_each_damage_at_rest() {
    let mut pair = Pair::start("", "");
    assert!(pair.client.terminate().success());
    assert!(pair.server.terminate().success());
    flip(&pair.copy("flipped"));
    fs::write(pair.copy("replaced"), vec![b'x'; LENGTH]).unwrap();
    let cut = OpenOptions::new().write(true).open(pair.copy("truncated"));
    cut.unwrap().set_len(40_000).unwrap();
    append(&pair.copy("extended"), NEVER_SENT);
    fs::remove_file(pair.copy("gone")).unwrap();
    let (exit, findings) = verify(&pair.server.datadir, &[]);
    assert_eq!(exit, Some(4), "{findings:?}");
    for (name, verdict) in [
        ("extended", "right"),
        ("flipped", "differs"),
        ("gone", "missing"),
        ("replaced", "differs"),
        ("sound", "right"),
        ("truncated", "short"),
    ] {
        let finding = of(&findings, name);
        assert_eq!(finding["verdict"], verdict, "{finding}");
        assert_eq!(finding["side"], "server");
        let beyond = if name == "extended" {
            NEVER_SENT.len()
        } else {
            0
        };
        assert_eq!(finding["beyond"], beyond, "{finding}");
    }
}

/// Without any scrub.
#[test]
fn the_next_append_finds_what_has_changed_at_the_server() {
    let pair = Pair::start("scrub: {period: 365days}", "");
    let flipped = flip(&pair.copy("flipped"));
    let mut first = content(LENGTH);
    first[0] = !first[0];
    put_byte(&pair.copy("replaced"), 0, first[0]);
    let cut = OpenOptions::new().write(true).open(pair.copy("truncated"));
    cut.unwrap().set_len(40_000).unwrap();
    for name in NAMES {
        append(&pair.home.log(name), b"!");
    }
    let mut whole = content(LENGTH);
    whole.extend(b"!");
    for name in ["extended", "gone", "sound", "truncated"] {
        wait_until(name, || pair.server.holds(&at(name), &whole));
    }
    for (name, damaged) in [("flipped", &flipped), ("replaced", &first)] {
        wait_until(name, || pair.client_events("diverged", name) == 1);
        assert_eq!(pair.server_events("diverged", name), 1);
        assert!(pair.server.holds(&at(name), damaged));
    }
    pair.client_names_chunk("flipped", CHANGED);
    pair.client_names_chunk("replaced", 0);
}

#[test]
fn a_retired_file_counts_as_delivered_and_its_row_stays() {
    let pair = Pair::start("", "release_after: 200ms\nscan_interval: 300ms");
    for name in ["gone", "extended"] {
        let output = pair.operate(&["retire", &at(name), "--older-than", "1ms"]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(!pair.copy(name).exists());
    }
    let row = |name: &str| {
        let rows = rows(&pair.server.datadir, "files");
        rows.into_iter()
            .find(|row| row["path"] == at(name))
            .unwrap()
    };
    let evidence = |row: &serde_json::Value| (row["length"].clone(), row["blake3"].clone());
    let kept = row("gone");
    assert_eq!(kept["state"], "retired");
    assert_eq!(evidence(&kept), evidence(&row("sound")));

    // Bytes that came later are nowhere there, and our link may be all that holds them.
    append(&pair.home.log("extended"), b"more");
    wait_until("it is told", || {
        pair.client_events("retired", "extended") == 1
    });
    fs::remove_file(pair.home.log("extended")).unwrap();
    // What was there when it was retired is delivered: the client lets go of that.
    append(&pair.home.log("sound"), b"more");
    for name in ["gone", "sound"] {
        fs::remove_file(pair.home.log(name)).unwrap();
        let link = pair.client.datadir.join("logs").join(name);
        wait_until(name, || !link.exists());
        wait_until(name, || pair.client_events("released", name) == 1);
    }
    assert!(!pair.copy("gone").exists());
    assert_eq!(evidence(&row("gone")), evidence(&kept));
    assert_eq!(pair.server_events("retired", "gone"), 1);
    for kind in ["lost", "server_restored", "conflict", "superseded"] {
        assert_eq!(pair.client_events(kind, "gone"), 0, "{kind}");
    }
    let mut whole = content(LENGTH);
    whole.extend(b"more");
    let link = pair.client.datadir.join("logs/extended");
    assert_eq!(fs::read(link).unwrap(), whole);
    assert_eq!(pair.client_events("released", "extended"), 0);
    assert_eq!(pair.client_events("retired", "extended"), 1);
    let (exit, findings) = verify(&pair.server.datadir, &[]);
    assert_eq!(exit, Some(0), "{findings:?}");
    let (exit, findings) = verify(&pair.client.datadir, &["--remote"]);
    assert_eq!(exit, Some(3), "{findings:?}");
    let wrong: Vec<_> = findings
        .iter()
        .filter(|finding| finding["verdict"] == "refused")
        .map(|finding| (&finding["file"], &finding["beyond"]))
        .collect();
    assert_eq!(wrong, [(&"logs/extended".into(), &4.into())]);
}

#[test]
fn what_is_deleted_at_the_server_and_nowhere_else_is_one_lost_event() {
    let client_extra = "release_after: 200ms\nscan_interval: 300ms";
    let mut pair = Pair::start("scrub: {rate: 100MiB, period: 1s}", client_extra);
    for name in ["gone", "sound"] {
        fs::remove_file(pair.home.log(name)).unwrap();
        wait_until(name, || pair.client_events("released", name) == 1);
    }
    fs::remove_file(pair.copy("gone")).unwrap();
    wait_until("it is lost", || pair.client_events("lost", "gone") == 1);
    assert_eq!(pair.server_events("regressed", "gone"), 1);
    // Another look at all files, for the sake of one that can be filled again, says nothing more.
    fs::remove_file(pair.copy("truncated")).unwrap();
    wait_until("another is refilled", || {
        pair.server_events("refilled", "truncated") == 1
    });
    wait_until("all was looked at", || {
        let destinations = rows(&pair.client.datadir, "destinations");
        destinations.iter().all(|row| row["sweep_pending"] == false)
    });
    assert!(pair.client.terminate().success());
    for (name, lost) in [("gone", 1), ("sound", 0), ("truncated", 0)] {
        assert_eq!(pair.client_events("lost", name), lost, "{name}");
    }
    let (exit, findings) = verify(&pair.client.datadir, &[]);
    assert_eq!(exit, Some(3), "{findings:?}");
    for (name, verdict) in [
        ("gone", "lost"),
        ("sound", "released"),
        ("truncated", "right"),
    ] {
        let is_it = |finding: &&serde_json::Value| finding["file"] == format!("logs/{name}");
        let finding = findings.iter().find(is_it).unwrap();
        assert_eq!(finding["verdict"], verdict, "{findings:?}");
    }
    assert!(pair.server.holds(&at("sound"), &content(LENGTH)));
}
