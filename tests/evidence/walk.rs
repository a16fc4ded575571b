//! `docs/auditor.md` as it stands: every command in it is run, and prints what the document says.

use std::fs;
use std::path::Path;
use std::process::Command;

use shaftlog::index::server::{Footprint, ServerChange, ServerFile, ServerIndex, ServerState};
use shaftlog::prefix::PrefixHasher;
use shaftlog::types::{FileId, Inode, WirePath};

use crate::common::program;

/// The example's data directory: one file that grew three times in two days.
fn deliver(datadir: &Path) {
    let lines: Vec<_> = (0..80)
        .map(|n| format!("10.0.0.{n} GET /item/{n}\n"))
        .collect();
    let times = [
        (42, "2026-11-24T09:15:07.214Z"),
        (62, "2026-11-24T17:40:31.006Z"),
        (80, "2026-11-25T08:00:02.871Z"),
    ];
    fs::create_dir_all(datadir.join(".shaftlog")).unwrap();
    fs::create_dir_all(datadir.join("web")).unwrap();
    fs::write(datadir.join("web/access.log"), lines.concat()).unwrap();
    let database = datadir.join(".shaftlog/server.redb");
    ServerIndex::create(&database).unwrap();
    let index = ServerIndex::open(&database, times[0].1.parse().unwrap()).unwrap();
    for (count, at) in times {
        let mut hasher = PrefixHasher::new();
        hasher.update(lines[..count].concat().as_bytes());
        let file = ServerFile {
            id: FileId(1),
            vouched: hasher.prefix(),
            hasher: hasher.state(),
            high_water: None,
            footprint: Footprint {
                inode: Inode {
                    number: 1,
                    born: None,
                },
                mtime_ns: 0,
                ctime_ns: 0,
            },
            writer: "web1.example.net".to_owned(),
            state: ServerState::Vouched,
            conditional: true,
            updated: at.parse().unwrap(),
        };
        let path = WirePath::decode("/web/access.log").unwrap();
        index.commit(&[ServerChange::put(path, file)]).unwrap();
    }
}

/// Runs a command as the document's reader does; what it prints on either stream.
fn printed(command: &str, at: &Path) -> String {
    let bin = program().parent().unwrap().to_str().unwrap();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", command])
        .current_dir(at)
        .env("PATH", path)
        .output()
        .unwrap();
    let mut text = output.stdout;
    text.extend(output.stderr);
    with_store_of_the_document(&String::from_utf8(text).unwrap())
}

/// Every index has an identity of its own; here it gets that of the document's.
fn with_store_of_the_document(text: &str) -> String {
    const STORE: &str = "34649777140ea27312263adfd8fb6da0";
    match text.split_once(", store ") {
        Some((before, after)) => format!("{before}, store {STORE}{}", &after[STORE.len()..]),
        None => text.to_owned(),
    }
}

/// The document with what its commands print now.
fn run_again(document: &str, at: &Path) -> String {
    let mut again = String::new();
    let mut in_block = false;
    for line in document.lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if in_block && !line.starts_with("$ ") {
            // What it printed when it was written.
            continue;
        }
        again.push_str(line);
        again.push('\n');
        if let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) {
            again.push_str(&printed(command, at));
        }
    }
    again
}

#[test]
#[ignore = "needs b3sum"]
fn the_auditor_s_walk_prints_what_it_says() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/auditor.md");
    let document = fs::read_to_string(document).unwrap();
    let home = tempfile::tempdir().unwrap();
    deliver(&home.path().join("delivered"));
    let again = run_again(&document, home.path());
    assert!(again.matches("\n$ ").count() >= 9, "commands are missing");
    assert!(again == document, "run again, it reads\n{again}");
}
