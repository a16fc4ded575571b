//! Runs that hold descriptors: a second run knows a file again, or sees that it is another.

use super::*;

impl Bench {
    fn start_held(&self, most: usize) -> Run {
        let (index, dirty) = (self.index(), Arc::new(Dirty::default()));
        let queue = dirty.queue();
        let destinations = URLS.map(|url| Destination::parse(url).unwrap());
        let catalogue = Catalogue::with_descriptors(index, &destinations, dirty, most).unwrap();
        Run { catalogue, queue }
    }

    /// A run that finds `source` under its path and has `confirmed` bytes of it confirmed.
    fn first_run(&self, source: &str, confirmed: u64) -> Arc<Tracked> {
        let run = self.start_held(9);
        let file = run.find(&self.source(source));
        run.confirm(0, file.id, confirmed);
        run.catalogue.flush().unwrap();
        file
    }
}

impl Run {
    fn find(&self, path: &Path) -> Arc<Tracked> {
        let wanted = path.to_str().unwrap().strip_prefix('/').unwrap();
        self.adopt(path, wanted)
    }
}

/// The name of a file that has its path for itself.
fn own_name(path: &Path) -> StableName {
    name(&path.to_str().unwrap()[1..])
}

#[test]
fn nothing_is_linked_and_an_appended_file_goes_on() {
    let bench = Bench::new();
    let path = bench.write("log", "12345");
    let first = bench.first_run("log", 5);
    assert_eq!(first.name, own_name(&path));
    fs::write(&path, "1234567").unwrap();

    let run = bench.start_held(9);
    assert_eq!(run.catalogue.active(), []);
    assert_eq!(run.sight(&path), Sighting::New);
    assert_eq!(run.find(&path).id, first.id);
    assert_eq!(run.marked(), [first.id]);
    assert_eq!(run.sight(&path), Sighting::Known(first.id));
    assert_eq!(
        run.catalogue
            .largest_confirmed(first.id)
            .unwrap()
            .1
            .confirmed
            .length
            .bytes(),
        5
    );
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
}

#[test]
fn a_copy_of_a_filesystem_is_told_and_not_passed_over() {
    let bench = Bench::new();
    let path = bench.write("log", "12345");
    let run = bench.start_held(9);
    let wanted = own_name(&path).to_string();
    let mut elsewhere = Run::candidate(&path, &wanted);
    elsewhere.stat.device += 1;
    let batch = vec![Run::candidate(&path, &wanted), elsewhere];
    let mut refused = run.catalogue.adopt(batch);
    refused.retain(|outcome| outcome.result.is_err());
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].result, Err(AdoptError::SameInode));

    let mut stat = file::stat_path(&path).unwrap();
    stat.device += 1;
    let sighting = run.catalogue.sight(path.as_os_str().as_bytes(), "p", &stat);
    assert_eq!(sighting.unwrap(), Sighting::New);
}

#[test]
fn a_rotated_file_goes_on_and_the_new_one_gets_its_time() {
    let bench = Bench::new();
    let path = bench.write("log", "12345");
    let first = bench.first_run("log", 5);
    fs::rename(&path, bench.source("log.1")).unwrap();
    bench.write("log", "new");

    let run = bench.start_held(9);
    let rotated = run.find(&bench.source("log.1"));
    assert_eq!((rotated.id, &rotated.name), (first.id, &first.name));
    assert_eq!(run.events(EventKind::RenamedSource).len(), 1);
    let milliseconds = file::stat_path(&path).unwrap().mtime / 1_000_000;
    let dated = format!("{}.{milliseconds}", &path.to_str().unwrap()[1..]);
    assert_eq!(run.find(&path).name, name(&dated));
}

#[test]
fn a_file_that_is_not_what_was_delivered_begins_anew() {
    let long = "x".repeat(20_000);
    let mut middle = long.clone().into_bytes();
    middle[10_000] = b'y';
    for (after, why) in [
        ("123".as_bytes(), "it is shorter than what was delivered"),
        (
            "y".repeat(30_000).as_bytes(),
            "its bytes differ from what was delivered",
        ),
        // Size, head and seam say nothing; the times do.
        (&middle, "its bytes differ from what was delivered"),
    ] {
        let bench = Bench::new();
        let path = bench.write("log", &long);
        let first = bench.first_run("log", 20_000);
        let before = file::stat_path(&path).unwrap();
        // Until the clock of the filesystem has moved on.
        while file::stat_path(&path).unwrap().mtime == before.mtime {
            fs::write(&path, after).unwrap();
        }

        let run = bench.start_held(9);
        run.catalogue.adopt(vec![Run::candidate(&path, "x")]);
        let [second] = run.catalogue.active()[..] else {
            panic!("one active file");
        };
        assert_ne!(second, first.id);
        assert_eq!(run.tracked(second).generation, 2);
        assert!(run.catalogue.largest_confirmed(second).is_none());
        assert_eq!(run.marked(), [second]);
        let superseded = run.events(EventKind::Superseded);
        assert!(superseded[0].starts_with(why), "{superseded:?}");
        assert!(run.catalogue.open(second).is_ok());
    }
}

#[test]
fn a_touched_file_is_hashed_and_goes_on() {
    let bench = Bench::new();
    let path = bench.write("log", "12345");
    let first = bench.first_run("log", 5);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    let file = File::open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(later))
        .unwrap();
    assert_eq!(bench.start_held(9).find(&path).id, first.id);
}

#[test]
fn another_inode_at_the_path_is_another_file() {
    let bench = Bench::new();
    let path = bench.write("log", "12345");
    let first = bench.first_run("log", 5);
    let kept = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    bench.write("log", "12345");
    drop(kept);
    let run = bench.start_held(9);
    assert_ne!(run.find(&path).id, first.id);
}

#[test]
fn beyond_its_share_of_descriptors_files_are_opened_in_turn_and_checked() {
    let bench = Bench::new();
    let run = bench.start_held(1);
    let held = run.find(&bench.write("a", "a"));
    let in_turn = run.find(&bench.write("b", "b"));
    // Keeps its inode number from being used again.
    let kept = File::open(bench.source("b")).unwrap();
    for file in [&held, &in_turn] {
        assert!(run.catalogue.open(file.id).is_ok());
        let path = bench.source(if file.id == held.id { "a" } else { "b" });
        fs::remove_file(&path).unwrap();
    }
    assert!(run.catalogue.open(held.id).is_ok());
    let gone = run.catalogue.open(in_turn.id);
    assert!(matches!(gone, Err(SourceError::Gone)));
    bench.write("b", "another");
    let replaced = run.catalogue.open(in_turn.id);
    assert!(matches!(replaced, Err(SourceError::Replaced { .. })));
    drop(kept);
}
