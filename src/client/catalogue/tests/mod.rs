mod held;
mod upkeep;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::client::dirty::Queue;
use crate::config::Destination;
use crate::index::client::{ClientState, NewFile, ProgressState, Times};
use crate::prefix::HasherState;
use crate::sys::file;
use crate::types::Prefix;

const URLS: [&str; 2] = ["http://one/", "http://two/"];

/// A datadir and a directory of sources on one filesystem.
pub(in crate::client) struct Bench {
    scratch: tempfile::TempDir,
}

/// A running catalogue.
pub(in crate::client) struct Run {
    pub(in crate::client) catalogue: Catalogue,
    queue: Arc<Queue>,
}

impl Bench {
    pub(in crate::client) fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir_all(scratch.path().join("data/.shaftlog")).unwrap();
        fs::create_dir(scratch.path().join("log")).unwrap();
        Self { scratch }
    }

    fn datadir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn source(&self, name: &str) -> PathBuf {
        self.scratch.path().join("log").join(name)
    }

    pub(in crate::client) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.source(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(in crate::client) fn start(&self) -> Run {
        let datadir = Dir::open(&self.datadir()).unwrap();
        let (index, dirty) = (self.index(), Arc::new(Dirty::default()));
        let queue = dirty.queue();
        let watches = Arc::new(Watches::new(Arc::clone(&dirty)));
        let destinations = URLS.map(|url| Destination::parse(url).unwrap());
        let catalogue =
            Catalogue::with_links(datadir, index, &destinations, dirty, watches).unwrap();
        Run { catalogue, queue }
    }

    fn index(&self) -> ClientIndex {
        let path = self.datadir().join(".shaftlog/client.redb");
        if !path.exists() {
            ClientIndex::create(&path).unwrap();
        }
        ClientIndex::open(&path).unwrap()
    }

    /// Content of a name in the datadir.
    fn held(&self, name: &str) -> String {
        fs::read_to_string(self.datadir().join(name)).unwrap()
    }
}

impl Run {
    fn candidate(path: &Path, wanted: &str) -> Candidate {
        let file = file::open_nofollow(path).unwrap();
        Candidate {
            path: path.as_os_str().as_bytes().to_vec(),
            pattern: "p".to_owned(),
            wanted: name(wanted),
            stat: file::stat(&file).unwrap(),
            file: Arc::new(file),
        }
    }

    pub(in crate::client) fn adopt(&self, path: &Path, wanted: &str) -> Arc<Tracked> {
        let [outcome] = &self.catalogue.adopt(vec![Self::candidate(path, wanted)])[..] else {
            panic!("one candidate, one outcome");
        };
        self.tracked(*outcome.result.as_ref().unwrap())
    }

    fn tracked(&self, id: FileId) -> Arc<Tracked> {
        self.catalogue.tracked(id).expect("an active file")
    }

    fn sight(&self, path: &Path) -> Sighting {
        let stat = file::stat_path(path).unwrap();
        let path = path.as_os_str().as_bytes();
        self.catalogue.sight(path, "p", &stat).unwrap()
    }

    pub(in crate::client) fn confirm(&self, destination: usize, id: FileId, length: u64) {
        let source = self.catalogue.open(id).unwrap();
        let length = Offset::new(length).unwrap();
        let hasher = source.hash_prefix(None, length).unwrap();
        let progress = Progress {
            confirmed: hasher.prefix(),
            hasher: hasher.state(),
            seam: source.seam(length).unwrap(),
            confirmed_at: clock::now(),
            state: ProgressState::Current,
            verified: true,
        };
        let destination = self.catalogue.destinations()[destination].0;
        self.catalogue.record(destination, id, progress);
    }

    fn events(&self, kind: EventKind) -> Vec<String> {
        self.catalogue.flush().unwrap();
        let events = self.catalogue.index().events(0, 1000).unwrap();
        let matching = events.into_iter().filter(|(_, event)| event.kind == kind);
        matching.map(|(_, event)| event.detail).collect()
    }

    fn marked(&self) -> Vec<FileId> {
        std::iter::from_fn(|| self.queue.take()).collect()
    }

    fn state_of(&self, id: FileId) -> ClientState {
        self.catalogue.index().file(id).unwrap().unwrap().state
    }
}

fn name(text: &str) -> StableName {
    StableName::parse(text).unwrap()
}

#[test]
fn files_are_linked_recorded_and_marked() {
    let bench = Bench::new();
    let run = bench.start();
    let path = bench.write("a", "line\n");
    let file = run.adopt(&path, "sub/dir/a");
    assert_eq!(file.name, name("sub/dir/a"));
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    assert_eq!(bench.held("sub/dir/a"), "line\n");
    assert_eq!(run.marked(), [file.id]);
    assert_eq!(run.sight(&path), Sighting::Known(file.id));
    let one = run.catalogue.destinations()[0].0;
    assert!(run.catalogue.fresh(one, file.id));
    assert_eq!(
        run.events(EventKind::Discovered),
        [path.display().to_string()]
    );

    let source = run.catalogue.open(file.id).unwrap();
    assert_eq!(source.size().unwrap().bytes(), 5);
    drop(run);
    let again = bench.start();
    assert_eq!(again.marked(), [file.id]);
    assert_eq!(*again.tracked(file.id), *file);
}

#[test]
fn no_two_files_share_a_name() {
    let bench = Bench::new();
    let run = bench.start();
    let paths = ["a", "b", "c"].map(|source| bench.write(source, source));
    // In one batch, a second name of one inode among them.
    fs::hard_link(&paths[0], bench.source("a again")).unwrap();
    let candidates = [&paths[0], &bench.source("a again"), &paths[1]];
    let batch = candidates.map(|path| Run::candidate(path, "same"));
    let outcomes = run.catalogue.adopt(batch.into());
    assert_eq!(outcomes.len(), 2);
    // A name that only the disk knows.
    fs::write(bench.datadir().join("same.2"), "foreign").unwrap();
    assert_eq!(run.adopt(&paths[2], "same").name, name("same.3"));
    assert_eq!(
        (bench.held("same"), bench.held("same.1")),
        ("a".into(), "b".into())
    );
    assert_eq!(bench.held("same.2"), "foreign");
}

#[test]
fn a_link_without_a_row_keeps_its_name() {
    let bench = Bench::new();
    drop(bench.start());
    let path = bench.write("a", "line\n");
    fs::create_dir(bench.datadir().join("sub")).unwrap();
    fs::hard_link(&path, bench.datadir().join("sub/linked")).unwrap();
    let gone = bench.write("gone", "only here\n");
    fs::rename(&gone, bench.datadir().join("held")).unwrap();

    let run = bench.start();
    assert_eq!(run.catalogue.active(), []);
    assert_eq!(run.sight(&path), Sighting::New);
    assert_eq!(run.adopt(&path, "another name").name, name("sub/linked"));
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);

    run.catalogue.adopt_orphans();
    let mut names: Vec<_> = run.catalogue.active().into_iter().collect();
    names.sort();
    let names: Vec<_> = names
        .into_iter()
        .map(|id| run.tracked(id).name.clone())
        .collect();
    assert_eq!(names, [name("sub/linked"), name("held")]);
    assert_eq!(run.catalogue.orphans(), []);
}

#[test]
fn a_row_without_a_link_is_lost_only_with_bytes_that_somebody_lacks() {
    let bench = Bench::new();
    let run = bench.start();
    let lost = run.adopt(&bench.write("a", "12345"), "a");
    let delivered = run.adopt(&bench.write("b", "12345"), "b");
    run.confirm(0, lost.id, 5);
    run.confirm(1, lost.id, 2);
    run.confirm(0, delivered.id, 5);
    run.confirm(1, delivered.id, 5);
    run.catalogue.flush().unwrap();
    drop(run);
    for link in ["a", "b"] {
        fs::remove_file(bench.datadir().join(link)).unwrap();
    }

    let run = bench.start();
    assert_eq!(run.catalogue.active(), []);
    assert_eq!(run.state_of(lost.id), ClientState::Lost);
    assert_eq!(run.state_of(delivered.id), ClientState::Released);
    let events = run.events(EventKind::Lost);
    assert_eq!(events.len(), 1);
    assert!(
        events[0].ends_with("bytes 2 to 5 were never confirmed by http://two/"),
        "{events:?}"
    );
    // The source is still there: a new file, under a name of its own.
    assert_eq!(run.sight(&bench.source("a")), Sighting::New);
    assert_eq!(run.adopt(&bench.source("a"), "a").name, name("a.1"));
}

#[test]
fn a_link_removed_under_a_running_client_ends_the_file() {
    let bench = Bench::new();
    let run = bench.start();
    let path = bench.write("a", "12345");
    let file = run.adopt(&path, "a");
    fs::remove_file(bench.datadir().join("a")).unwrap();
    assert!(matches!(
        run.catalogue.open(file.id),
        Err(SourceError::Gone)
    ));
    assert!(run.catalogue.tracked(file.id).is_none());
    assert_eq!(run.sight(&path), Sighting::New);
    assert_eq!(run.state_of(file.id), ClientState::Lost);
    assert_eq!(run.events(EventKind::Lost).len(), 2);
}

#[test]
fn a_link_that_shows_another_inode_is_not_the_file() {
    let bench = Bench::new();
    let run = bench.start();
    let file = run.adopt(&bench.write("a", "12345"), "a");
    fs::remove_file(bench.datadir().join("a")).unwrap();
    fs::write(bench.datadir().join("a"), "54321").unwrap();
    let opened = run.catalogue.open(file.id);
    assert!(matches!(opened, Err(SourceError::Replaced { .. })));
    assert_eq!(run.catalogue.active(), []);
    drop(run);
    let run = bench.start();
    assert_eq!(run.catalogue.active(), []);
    // It may be the only copy of something: delivered, but not under the other's name.
    run.catalogue.adopt_orphans();
    let active = run.catalogue.active();
    let names: Vec<_> = active
        .iter()
        .map(|id| run.tracked(*id).name.to_string())
        .collect();
    assert_eq!(names, ["a.1"]);
    assert_eq!(fs::read(bench.datadir().join("a.1")).unwrap(), b"54321");
    assert!(!bench.datadir().join("a").exists());
}

#[test]
fn a_rotated_source_is_the_same_file() {
    let bench = Bench::new();
    let run = bench.start();
    let path = bench.write("log", "1");
    let file = run.adopt(&path, "log");
    // A second name is no rename.
    fs::hard_link(&path, bench.source("copy")).unwrap();
    run.sight(&bench.source("copy"));
    assert_eq!(run.tracked(file.id).source, file.source);

    fs::remove_file(bench.source("copy")).unwrap();
    fs::rename(&path, bench.source("log.1")).unwrap();
    bench.write("log", "2");
    assert_eq!(run.sight(&bench.source("log.1")), Sighting::Known(file.id));
    assert_eq!(run.sight(&path), Sighting::New);
    let source = bench.source("log.1");
    assert_eq!(run.tracked(file.id).source, source.as_os_str().as_bytes());
    let events = run.events(EventKind::RenamedSource);
    assert_eq!(
        events,
        [format!("{} is now {}", path.display(), source.display())]
    );
    drop(run);
    let source = bench.start().tracked(file.id).source.clone();
    assert!(source.ends_with(b"log.1"));
}

#[test]
fn a_closed_generation_goes_on_under_the_next_name() {
    let bench = Bench::new();
    let run = bench.start();
    let path = bench.write("log", "12345");
    let first = run.adopt(&path, "log.1700");
    run.confirm(0, first.id, 5);
    run.confirm(1, first.id, 3);
    fs::write(&path, "new").unwrap();
    run.marked();

    let supersede = |id| {
        run.catalogue
            .supersede(id, Closing::Changed, "it shrank", None)
            .unwrap()
    };
    let second = supersede(first.id);
    assert_eq!(run.marked(), [second]);
    assert_eq!(run.tracked(second).name, name("log.1700.1"));
    assert_eq!(run.tracked(second).generation, 2);
    assert_eq!(bench.held("log.1700.1"), "new");
    assert!(!bench.datadir().join("log.1700").exists());
    assert!(run.catalogue.tracked(first.id).is_none());
    assert_eq!(
        run.state_of(first.id),
        ClientState::Superseded { by: second }
    );
    assert_eq!(run.state_of(second), ClientState::Active);
    assert_eq!(run.sight(&path), Sighting::Known(second));
    // A destination that comes later with the same news hears of the same successor.
    assert_eq!(supersede(first.id), second);
    let lost = run.events(EventKind::Lost);
    assert_eq!(lost, ["bytes 3 to 5 were never confirmed by http://two/"]);
    assert_eq!(
        run.events(EventKind::Superseded),
        ["it shrank; goes on as log.1700.1"]
    );

    let third = supersede(second);
    assert_eq!(run.tracked(third).name, name("log.1700.2"));
    drop(run);
    let run = bench.start();
    assert_eq!(run.catalogue.active(), [third]);
    assert_eq!(bench.held("log.1700.2"), "new");
}

#[test]
fn a_whole_file_at_a_taken_name_loses_nothing() {
    let bench = Bench::new();
    let run = bench.start();
    let file = run.adopt(&bench.write("a", "12345"), "a");
    let closing = Closing::NameTaken;
    let next = run
        .catalogue
        .supersede(file.id, closing, "somebody else's", None)
        .unwrap();
    assert_eq!(run.tracked(next).name, name("a.1"));
    assert!(run.events(EventKind::Lost).is_empty());
}

#[test]
fn an_unfinished_rename_is_finished_at_the_start() {
    for moved in [false, true] {
        let bench = Bench::new();
        let run = bench.start();
        let old = run.adopt(&bench.write("a", "12345"), "a");
        let row = NewFile {
            inode: old.inode,
            generation: 2,
            name: name("deep/a.1"),
            source: old.source.clone(),
            pattern: old.pattern.clone(),
            discovered: clock::now(),
            length: Offset::ZERO,
            times: Times::default(),
        };
        let new = run.catalogue.index().supersede(old.id, row).unwrap();
        drop(run);
        if moved {
            fs::create_dir(bench.datadir().join("deep")).unwrap();
            fs::rename(bench.datadir().join("a"), bench.datadir().join("deep/a.1")).unwrap();
        }

        let run = bench.start();
        assert_eq!(run.catalogue.active(), [new]);
        assert_eq!(bench.held("deep/a.1"), "12345");
        assert!(!bench.datadir().join("a").exists());
        assert_eq!(run.state_of(new), ClientState::Active);
    }
}

#[test]
fn a_commit_that_succeeded_unnoticed_is_gone_on_from() {
    let bench = Bench::new();
    let run = bench.start();
    let old = run.adopt(&bench.write("a", "12345"), "a");
    let row = NewFile {
        inode: old.inode,
        generation: 2,
        name: name("a.1"),
        source: old.source.clone(),
        pattern: old.pattern.clone(),
        discovered: clock::now(),
        length: Offset::ZERO,
        times: Times::default(),
    };
    let new = run.catalogue.index().supersede(old.id, row).unwrap();
    let again = run
        .catalogue
        .supersede(old.id, Closing::Changed, "again", None)
        .unwrap();
    assert_eq!(again, new);
    assert_eq!(bench.held("a.1"), "12345");

    let path = bench.write("b", "x");
    let stat = file::stat_path(&path).unwrap();
    fs::hard_link(&path, bench.datadir().join("b")).unwrap();
    let row = NewFile {
        inode: stat.inode,
        generation: 1,
        name: name("b"),
        source: Vec::new(),
        pattern: String::new(),
        discovered: clock::now(),
        length: stat.size,
        times: Times::default(),
    };
    let ids = run.catalogue.index().adopt(&[row]).unwrap();
    run.catalogue.state().orphans.insert(stat.inode, name("b"));
    assert_eq!(run.adopt(&path, "b").id, ids[0]);
}

#[test]
fn a_rename_done_before_an_error_is_gone_on_from() {
    let bench = Bench::new();
    let run = bench.start();
    let path = bench.write("a", "12345");
    let old = run.adopt(&path, "a");
    let row = NewFile {
        inode: old.inode,
        generation: 2,
        name: name("a.1"),
        source: old.source.clone(),
        pattern: old.pattern.clone(),
        discovered: clock::now(),
        length: Offset::ZERO,
        times: Times::default(),
    };
    let new = run.catalogue.index().supersede(old.id, row).unwrap();
    fs::rename(bench.datadir().join("a"), bench.datadir().join("a.1")).unwrap();

    assert!(run.catalogue.open(old.id).is_err());
    assert_eq!(run.catalogue.active(), [new]);
    assert_eq!(run.state_of(new), ClientState::Active);
    assert_eq!(run.state_of(old.id), ClientState::Superseded { by: new });
    assert_eq!(run.events(EventKind::Lost), [""; 0]);
    assert_eq!(run.sight(&path), Sighting::Known(new));
}

#[test]
fn one_inode_has_one_active_file() {
    let bench = Bench::new();
    let run = bench.start();
    let path = bench.write("a", "12345");
    let file = run.adopt(&path, "a");
    // Met before its generation was closed, adopted behind it.
    assert_eq!(run.adopt(&path, "a").id, file.id);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    drop(run);

    // Somebody's second link, and one that was lost and comes back.
    fs::hard_link(&path, bench.datadir().join("z")).unwrap();
    let run = bench.start();
    run.catalogue.adopt_orphans();
    assert_eq!(run.catalogue.active(), [file.id]);
    fs::remove_file(bench.datadir().join("a")).unwrap();
    assert_eq!(run.sight(&path), Sighting::New);
    let again = run.adopt(&path, "a");
    assert_eq!(again.name, name("a.1"));
    drop(run);
    fs::hard_link(&path, bench.datadir().join("a")).unwrap();
    let run = bench.start();
    run.catalogue.adopt_orphans();
    assert_eq!(run.catalogue.active(), [again.id]);
}

#[test]
fn what_was_cut_off_unconfirmed_is_lost_once() {
    let bench = Bench::new();
    let run = bench.start();
    let file = run.adopt(&bench.write("a", "12345"), "a");
    run.confirm(0, file.id, 2);
    let had = run.catalogue.length(file.id);
    assert_eq!(had.bytes(), 5);
    let size = Offset::new(3).unwrap();
    let told = Some(Told {
        destination: run.catalogue.destinations()[0].0,
        holds: Offset::new(4).unwrap(),
    });
    run.catalogue.shortened(file.id, had, size, told);
    run.catalogue.shortened(file.id, had, size, told);
    assert_eq!(run.catalogue.length(file.id), size);
    run.catalogue.flush().unwrap();
    assert_eq!(
        run.events(EventKind::Lost),
        [
            "bytes 4 to 5 never reached http://one/: the file was cut from 5 to 3 bytes",
            "bytes 0 to 5 were never confirmed by http://two/: the file was cut from 5 to 3 bytes"
        ]
    );
}

#[test]
fn what_an_earlier_run_has_recorded_is_told_from_what_is_known_now() {
    let bench = Bench::new();
    let run = bench.start();
    let file = run.adopt(&bench.write("a", "12345"), "a");
    let [one, two] = [0, 1].map(|at| run.catalogue.destinations()[at].0);
    assert!(!run.catalogue.is_recalled(one, file.id));
    run.confirm(0, file.id, 3);
    run.catalogue.flush().unwrap();
    drop(run);
    let run = bench.start();
    assert!(run.catalogue.is_recalled(one, file.id));
    assert!(run.catalogue.is_recalled(two, file.id));
    run.confirm(0, file.id, 5);
    assert!(!run.catalogue.is_recalled(one, file.id));
    assert!(run.catalogue.is_recalled(two, file.id));
}

#[test]
fn progress_is_visible_at_once_and_durable_after_a_flush() {
    let bench = Bench::new();
    let run = bench.start();
    let file = run.adopt(&bench.write("a", "12345"), "a");
    let [one, two] = [0, 1].map(|at| run.catalogue.destinations()[at].0);
    assert!(run.catalogue.largest_confirmed(file.id).is_none());
    run.confirm(0, file.id, 3);
    run.confirm(1, file.id, 5);
    let confirmed = |run: &Run, at| run.catalogue.progress(at, file.id).unwrap().confirmed;
    assert_eq!(confirmed(&run, one).length.bytes(), 3);
    assert_eq!(run.catalogue.largest_confirmed(file.id).unwrap().0, two);
    let stored = run.catalogue.index().progress(one, file.id).unwrap();
    assert!(stored.is_none());
    run.catalogue.flush().unwrap();
    let before: Prefix = confirmed(&run, two);
    drop(run);
    let run = bench.start();
    assert_eq!(confirmed(&run, two), before);
    assert_eq!(confirmed(&run, one).length.bytes(), 3);
    fs::write(bench.source("a"), "1234567").unwrap();
    run.confirm(0, file.id, 7);
    run.catalogue.flush().unwrap();
    let row = run.catalogue.index().file(file.id).unwrap().unwrap();
    assert_eq!(row.length.bytes(), 7);
    let progress = run.catalogue.progress(two, file.id).unwrap();
    assert_ne!(progress.hasher, HasherState::empty());
}

#[test]
fn a_destination_that_comes_later_finds_no_fresh_files() {
    let bench = Bench::new();
    let run = bench.start();
    let file = run.adopt(&bench.write("a", "1"), "a");
    let (new, row) = run.catalogue.index().destination("http://three/").unwrap();
    assert!(row.since > file.id);
    assert!(!run.catalogue.fresh(new, file.id));
}

#[test]
fn what_changed_since_the_last_look_is_marked() {
    let bench = Bench::new();
    let run = bench.start();
    let path = bench.write("a", "1");
    let file = run.adopt(&path, "a");
    run.sight(&path);
    run.marked();
    run.catalogue.look_again(file.id);
    assert_eq!(run.marked(), []);
    fs::write(&path, "12").unwrap();
    run.catalogue.look_again(file.id);
    assert_eq!(run.marked(), [file.id]);
}
