use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::Duration;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;

use notify::event::EventKind;

use super::*;
use crate::client::dirty::Dirty;
use crate::client::watch::Watches;
use crate::config::glob::{Exclude, Glob};
use crate::config::owner::Owners;
use crate::config::rename::Naming;
use crate::index::client::ClientIndex;
use crate::limits::MAIL_PATHS;
use crate::sys::dir::Dir;

/// How long a test waits for what must happen before it calls it missing.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    scratch: tempfile::TempDir,
    catalogue: Arc<Catalogue>,
    discovery: Option<Discovery>,
}

impl Bench {
    /// Patterns are relative to a scratch directory, in which the datadir is `data`.
    fn new(patterns: &[(&str, &str)], watching: bool) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let datadir = scratch.path().join("data");
        fs::create_dir_all(datadir.join(".shaftlog")).unwrap();
        let database = datadir.join(".shaftlog/client.redb");
        ClientIndex::create(&database).unwrap();
        let catalogue = open(&scratch);
        let patterns = patterns.iter().map(|(name, pattern)| {
            let pattern = format!("{}/{pattern}", scratch.path().display());
            pattern_of(name, &pattern)
        });
        let make = if watching {
            Discovery::watching
        } else {
            Discovery::once
        };
        let discovery = Some(make(patterns.collect(), Arc::clone(&catalogue)));
        Self {
            scratch,
            catalogue,
            discovery,
        }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.scratch.path().join(relative)
    }

    fn write(&self, relative: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, relative).unwrap();
        path
    }

    fn scan(&mut self) -> &mut Discovery {
        let discovery = self.discovery.as_mut().unwrap();
        discovery.scan();
        discovery
    }

    fn sources(&self) -> BTreeSet<PathBuf> {
        let ids = self.catalogue.active();
        let tracked = ids.into_iter().filter_map(|id| self.catalogue.tracked(id));
        tracked
            .map(|tracked| PathBuf::from(std::ffi::OsStr::from_bytes(&tracked.source)))
            .collect()
    }

    /// Works notifications off until the file is linked. Nothing else looks: no scan, no timer.
    async fn linked(&mut self, path: &Path) {
        let mail = self.discovery.as_ref().unwrap().mail();
        let done = async {
            while fs::metadata(path).unwrap().nlink() < 2 {
                mail.arrived().await;
                self.discovery.as_mut().unwrap().catch_up();
            }
        };
        let done = tokio::time::timeout(PATIENCE, done).await;
        assert!(done.is_ok(), "{} was not linked", path.display());
    }
}

fn open(scratch: &tempfile::TempDir) -> Arc<Catalogue> {
    let datadir = scratch.path().join("data");
    let index = ClientIndex::open(&datadir.join(".shaftlog/client.redb")).unwrap();
    let dirty = Arc::new(Dirty::default());
    let watches = Arc::new(Watches::none(Arc::clone(&dirty)));
    let datadir = Dir::open(&datadir).unwrap();
    Arc::new(Catalogue::with_links(datadir, index, &[], dirty, watches).unwrap())
}

fn pattern_of(name: &str, pattern: &str) -> PatternSettings {
    PatternSettings {
        name: name.to_owned(),
        glob: Glob::parse(pattern).unwrap(),
        exclude: Exclude::default(),
        owners: Owners::Any,
        naming: Naming::template(name, Some("{name}.{ino}")).unwrap(),
        volatile: Vec::new(),
    }
}

#[test]
fn a_scan_adopts_what_is_new_and_only_that() {
    let mut bench = Bench::new(&[("a", "log/*.log"), ("b", "log/**")], false);
    let paths = ["log/x.log", "log/y", "log/sub/z"].map(|path| bench.write(path));
    let report = bench.scan().report();
    assert_eq!((report.files, report.unlinkable.len()), (3, 0));
    assert_eq!(bench.sources(), BTreeSet::from(paths.clone()));
    for path in &paths {
        let ino = fs::metadata(path).unwrap().ino();
        let pattern = if path.ends_with("x.log") { "a" } else { "b" };
        assert!(bench.path(&format!("data/{pattern}.{ino}")).exists());
    }
    let before = bench.catalogue.active().len();
    bench.scan();
    assert_eq!(bench.catalogue.active().len(), before);
}

#[test]
fn what_cannot_be_delivered_is_kept_with_its_reason_until_it_can() {
    let mut bench = Bench::new(&[("p", "log/*")], false);
    let good = bench.write("log/good");
    // Its name would lead out of the datadir.
    let name = Naming::regex("p", regex::bytes::Regex::new(".*").unwrap(), "..").unwrap();
    let mut pattern = pattern_of("p", &bench.path("log/*").display().to_string());
    pattern.naming = name;
    let mut discovery = Discovery::once([pattern].into(), Arc::clone(&bench.catalogue));
    discovery.scan();
    let failure = discovery.failures().get(good.as_os_str().as_bytes());
    assert!(matches!(failure, Some(AdoptError::Name(_))), "{failure:?}");
    assert_eq!(bench.catalogue.active(), []);

    bench.scan();
    assert_eq!(bench.sources().len(), 1);
    discovery.scan();
    assert!(discovery.failures().is_empty());
}

#[test]
fn links_that_no_scan_finds_are_adopted_after_the_first() {
    let bench = Bench::new(&[], false);
    let found = bench.write("log/found");
    fs::hard_link(&found, bench.path("data/left")).unwrap();
    bench.write("data/alone");
    let Bench {
        scratch,
        catalogue,
        discovery,
    } = bench;
    drop((catalogue, discovery));
    let catalogue = open(&scratch);
    let pattern = pattern_of("p", &scratch.path().join("log/*").display().to_string());
    let mut discovery = Discovery::once([pattern].into(), Arc::clone(&catalogue));
    discovery.scan();
    let tracked = catalogue
        .active()
        .into_iter()
        .filter_map(|id| catalogue.tracked(id));
    let mut rows: Vec<_> = tracked
        .map(|it| {
            (
                it.name.to_string(),
                it.pattern.clone(),
                it.source.is_empty(),
            )
        })
        .collect();
    rows.sort();
    let row = |name: &str, pattern: &str, unknown| (name.to_owned(), pattern.to_owned(), unknown);
    assert_eq!(rows, [row("alone", "", true), row("left", "p", false)]);
}

#[tokio::test]
async fn a_file_in_a_watched_directory_is_linked_at_once() {
    let mut bench = Bench::new(&[("p", "log/**/*.log")], true);
    bench.write("log/old.log");
    bench.scan();
    let path = bench.write("log/new.log");
    bench.linked(&path).await;
    // Renamed to a name that is selected.
    let other = bench.write("log/other.tmp");
    fs::rename(&other, bench.path("log/other.log")).unwrap();
    bench.linked(&bench.path("log/other.log")).await;
}

#[tokio::test]
async fn a_file_in_a_new_subdirectory_is_linked_at_once() {
    let mut bench = Bench::new(&[("p", "log/**/*.log")], true);
    bench.write("log/old.log");
    bench.scan();
    let path = bench.write("log/a/b/c/new.log");
    bench.linked(&path).await;
    let path = bench.write("log/a/b/c/d/newer.log");
    bench.linked(&path).await;
    // A whole tree moved in, and one that came and went.
    fs::create_dir(bench.path("elsewhere")).unwrap();
    let path = bench.write("elsewhere/tree/x/in.log");
    fs::create_dir_all(bench.path("log/gone")).unwrap();
    fs::remove_dir(bench.path("log/gone")).unwrap();
    fs::rename(bench.path("elsewhere/tree"), bench.path("log/tree")).unwrap();
    assert!(!path.exists());
    bench.linked(&bench.path("log/tree/x/in.log")).await;
    let path = bench.write("log/tree/x/later.log");
    bench.linked(&path).await;
}

#[tokio::test]
async fn directories_that_do_not_exist_yet_are_waited_for() {
    let mut bench = Bench::new(&[("p", "not/yet/there/*.log")], true);
    bench.scan();
    let path = bench.write("not/yet/there/a.log");
    bench.linked(&path).await;
    let path = bench.write("not/yet/there/b.log");
    bench.linked(&path).await;
}

#[tokio::test]
async fn lost_notifications_are_a_scan_of_everything() {
    let mut bench = Bench::new(&[("p", "log/*.log")], true);
    let path = bench.write("log/a.log");
    let mail = bench.discovery.as_ref().unwrap().mail();
    let lost = notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
    mail.heard(Ok(lost));
    bench.linked(&path).await;

    let path = bench.write("log/b.log");
    let many = (0..=MAIL_PATHS).map(|number| bench.path(&number.to_string()));
    mail.put(many.collect(), false);
    assert!(mail.post.lock().unwrap().paths.is_empty());
    bench.linked(&path).await;
}

#[test]
fn symbolic_links_and_sockets_are_counted() {
    let mut bench = Bench::new(&[("p", "log/*")], false);
    let path = bench.write("log/a");
    symlink(&path, bench.path("log/link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("log/socket")).unwrap();
    let report = bench.scan().report();
    let skipped = report.skipped.to_string();
    assert_eq!(report.files, 1);
    assert_eq!(skipped, "1 symbolic link, 1 special file");
}

#[tokio::test]
async fn only_files_of_the_named_owners_are_taken() {
    let mut bench = Bench::new(&[("p", "log/*")], true);
    let path = bench.write("log/a");
    let ours = fs::metadata(&path).unwrap().uid();
    let owned_by = |uid: u32| {
        let owner = format!("owner: {uid}");
        let glob = format!("{}/log/*", bench.scratch.path().display());
        let text = format!(
            "datadir: /d\nscan_paths:\n- {{name: p, pattern: '{glob}', {owner}}}\n\
             destinations:\n- url: http://h/\n"
        );
        let here = crate::config::Environment::here();
        let read = crate::config::parse_client(Path::new("x"), text.as_bytes(), &here);
        Arc::from(read.unwrap().patterns)
    };
    let mut theirs = Discovery::watching(owned_by(ours + 1), Arc::clone(&bench.catalogue));
    theirs.scan();
    let report = theirs.report();
    assert_eq!((report.files, report.failed), (0, 0));
    assert_eq!(report.skipped.count(Skip::Owner), 1);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
    theirs.mail().put(vec![path.clone()], false);
    theirs.catch_up();
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);

    bench.discovery = Some(Discovery::watching(
        owned_by(ours),
        Arc::clone(&bench.catalogue),
    ));
    bench.scan();
    assert_eq!(bench.sources(), BTreeSet::from([path]));
    // What is in the catalogue stays in it.
    theirs.scan();
    assert_eq!(theirs.report().files, 1);
    assert_eq!(bench.sources().len(), 1);
}

/// `/dev/shm` is another filesystem than a scratch directory on any machine that has both.
#[test]
fn files_on_another_filesystem_are_reported_by_pattern() {
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let bench = Bench::new(&[("here", "log/*")], false);
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(elsewhere.path()) == device(bench.scratch.path()) {
        return;
    }
    bench.write("log/a");
    let away = |pattern: &str| {
        let pattern = elsewhere.path().join(pattern);
        pattern_of("away", &pattern.display().to_string())
    };
    let here = pattern_of("here", &bench.path("log/*").display().to_string());
    let mut discovery = Discovery::once([here, away("*")].into(), Arc::clone(&bench.catalogue));
    let unlinkable = |files| Unlinkable {
        pattern: "away".to_owned(),
        files,
        wholly: true,
    };
    discovery.scan();
    assert_eq!(discovery.report().unlinkable, [unlinkable(0)]);
    fs::write(elsewhere.path().join("b"), "b").unwrap();
    discovery.scan();
    assert_eq!(discovery.report().unlinkable, [unlinkable(1)]);
    assert!(!discovery.nothing_can_be_linked());
    assert_eq!(bench.sources(), BTreeSet::from([bench.path("log/a")]));

    let mut discovery = Discovery::once([away("*")].into(), Arc::clone(&bench.catalogue));
    discovery.scan();
    assert!(discovery.nothing_can_be_linked());
}
