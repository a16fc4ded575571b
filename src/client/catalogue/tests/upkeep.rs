//! Files that were restored from copies, and links that are let go of.

use super::*;
use crate::index::client::ClientChange;

#[test]
fn a_file_restored_from_a_copy_goes_on_under_its_name() {
    let bench = Bench::new();
    let run = bench.start();
    let paths = ["a", "b", "c", "d"].map(|name| bench.write(name, "12345"));
    let files = ["a", "b", "c", "d"].map(|name| run.adopt(&bench.source(name), name));
    for file in &files {
        run.confirm(0, file.id, 3);
    }
    run.catalogue.flush().unwrap();
    drop(run);
    // Restored file by file: each name an inode of its own. One has another content, one is short.
    for name in ["a", "b", "c", "d"] {
        for path in [bench.source(name), bench.datadir().join(name)] {
            let content = match name {
                "c" => "x2345",
                "d" => "12",
                _ => "12345",
            };
            fs::remove_file(&path).unwrap();
            fs::write(&path, content).unwrap();
        }
    }
    fs::remove_file(&paths[1]).unwrap();
    let run = bench.start();
    let inode = |path: &Path| file::stat_path(path).unwrap().inode;
    // The program goes on with the copy at its path.
    assert_eq!(run.tracked(files[0].id).inode, inode(&paths[0]));
    assert_eq!(inode(&bench.datadir().join("a")), inode(&paths[0]));
    assert_eq!(run.sight(&paths[0]), Sighting::Known(files[0].id));
    // Of one whose source is gone, the copy in the datadir is all there is.
    assert_eq!(
        run.tracked(files[1].id).inode,
        inode(&bench.datadir().join("b"))
    );
    // The others are no longer what was delivered: new files.
    for file in &files[2..] {
        assert!(run.catalogue.tracked(file.id).is_none());
    }
    run.catalogue.adopt_orphans();
    let mut names: Vec<_> = run
        .catalogue
        .active()
        .iter()
        .map(|id| run.tracked(*id).name.to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c.1", "d.1"]);
    assert_eq!(run.events(EventKind::Rebuilt).len(), 2);
    assert_eq!(
        run.events(EventKind::Lost).len(),
        4,
        "two destinations, two files"
    );
}

#[test]
fn a_release_that_a_crash_broke_off_is_finished_or_undone() {
    let bench = Bench::new();
    let run = bench.start();
    let files = ["kept", "gone"].map(|name| {
        let file = run.adopt(&bench.write(name, "12345"), name);
        fs::remove_file(bench.source(name)).unwrap();
        file
    });
    for file in &files {
        let change = ClientChange::State(file.id, ClientState::Releasing);
        run.catalogue.index().commit(&[change]).unwrap();
    }
    drop(run);
    fs::remove_file(bench.datadir().join("gone")).unwrap();
    let run = bench.start();
    assert_eq!(run.catalogue.active(), [files[0].id]);
    assert_eq!(run.state_of(files[0].id), ClientState::Active);
    assert_eq!(run.state_of(files[1].id), ClientState::Released);
    assert_eq!(run.catalogue.ended().unwrap(), [files[1].id]);
    assert_eq!(run.events(EventKind::Released).len(), 1);
}

#[test]
fn a_link_is_released_only_as_it_was_seen_and_its_name_stays_taken() {
    let bench = Bench::new();
    let run = bench.start();
    let path = bench.write("a", "12345");
    let file = run.adopt(&path, "a");
    let link = bench.datadir().join("a");
    let seen = || run.catalogue.see_link(file.id).unwrap().stat;
    // Its source is there.
    assert!(!run.catalogue.release(file.id, &seen(), "").unwrap());
    fs::remove_file(&path).unwrap();
    let before = seen();
    fs::write(&link, "123456").unwrap();
    assert!(!run.catalogue.release(file.id, &before, "").unwrap());
    assert!(link.exists());
    assert!(
        run.catalogue
            .release(file.id, &seen(), "all is well")
            .unwrap()
    );
    assert!(!link.exists());
    assert!(run.catalogue.tracked(file.id).is_none());
    assert!(!run.catalogue.release(file.id, &before, "").unwrap());
    assert_eq!(run.events(EventKind::Released), ["all is well"]);
    let next = run.adopt(&bench.write("again", "1"), "a");
    assert_eq!(next.name.to_string(), "a.1");
}

#[test]
fn how_far_the_scrub_has_come_is_known_after_a_restart() {
    let bench = Bench::new();
    let run = bench.start();
    assert_eq!(run.catalogue.index().scrubbed().unwrap(), None);
    let at = Scrubbed {
        file: FileId(7),
        began: clock::now(),
    };
    run.catalogue.scrubbed(at);
    run.catalogue.flush().unwrap();
    drop(run);
    let stored = bench.start().catalogue.index().scrubbed().unwrap();
    assert_eq!(stored.map(|stored| stored.file), Some(at.file));
}
