//! Delivery end to end: real files and a real catalogue, against the model of the server's table
//! behind real HTTP.

mod cut;
mod gate;
mod server;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::client::plan::model;
use crate::client::watch::Watches;
use crate::index::client::{ClientIndex, DestinationId, NewFile, Times};
use crate::limits::ERROR_RETRY;
use crate::sys::dir::Dir;
use crate::sys::{clock, file};
use crate::wire::Problem;
use server::TestServer;

/// Longest that anything may take; never waited out when all is well.
const LONG: Duration = Duration::from_secs(20);

/// Where the catalogue's rows lie in a datadir.
const DATABASE: &str = ".shaftlog/client.redb";

struct World {
    datadir: TempDir,
    dirty: Arc<Dirty>,
    catalogue: Arc<Catalogue>,
    servers: Vec<TestServer>,
    ships: Vec<Ship>,
}

fn url(index: usize) -> config::Destination {
    config::Destination::parse(&format!("http://server{index}/in/")).unwrap()
}

fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

impl World {
    /// Files that both sides see for the first time.
    fn new(servers: &[TestServer], files: &[(&str, &[u8])]) -> Self {
        let datadir = tempfile::tempdir().unwrap();
        fs::create_dir(datadir.path().join(".shaftlog")).unwrap();
        let path = datadir.path().join(DATABASE);
        ClientIndex::create(&path).unwrap();
        let index = ClientIndex::open(&path).unwrap();
        for at in 0..servers.len() {
            index.destination(&url(at).to_string()).unwrap();
        }
        let rows: Vec<NewFile> = files
            .iter()
            .map(|(name, content)| {
                let path = datadir.path().join(name);
                fs::write(&path, content).unwrap();
                let stat = file::stat_path(&path).unwrap();
                NewFile {
                    inode: stat.inode,
                    generation: 1,
                    name: StableName::parse(*name).unwrap(),
                    source: format!("/var/log/{name}").into_bytes(),
                    pattern: "all".to_owned(),
                    discovered: clock::now(),
                    length: stat.size,
                    times: Times {
                        mtime: stat.mtime,
                        ctime: stat.ctime,
                    },
                }
            })
            .collect();
        index.adopt(&rows).unwrap();
        drop(index);
        let mut world = Self::reopen(datadir, servers);
        world.start(4);
        world
    }

    fn reopen(datadir: TempDir, servers: &[TestServer]) -> Self {
        let index = ClientIndex::open(&datadir.path().join(DATABASE)).unwrap();
        let destinations: Vec<_> = (0..servers.len()).map(url).collect();
        let dirty = Arc::new(Dirty::default());
        let dir = Dir::open(datadir.path()).unwrap();
        let watches = Arc::new(Watches::none(Arc::clone(&dirty)));
        let marks = Arc::clone(&dirty);
        let catalogue = Catalogue::with_links(dir, index, &destinations, marks, watches).unwrap();
        Self {
            datadir,
            dirty,
            catalogue: Arc::new(catalogue),
            servers: servers.to_vec(),
            ships: Vec::new(),
        }
    }

    fn start(&mut self, connections: usize) {
        for (at, server) in self.servers.iter().enumerate() {
            let ship = Ship::start(
                &self.catalogue,
                &self.dirty,
                url(at),
                server.connector(),
                (Mode::Daemon, connections),
            );
            self.ships.push(ship.unwrap());
        }
    }

    /// Ends the ships in order and starts again from what is stored.
    async fn restart(self) -> Self {
        let servers = self.servers.clone();
        for ship in self.ships {
            ship.stop().await;
        }
        self.catalogue.flush().unwrap();
        drop(self.catalogue);
        let mut world = Self::reopen(self.datadir, &servers);
        world.start(4);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.datadir.path().join(name)
    }

    fn append(&self, name: &str, bytes: &[u8]) {
        let mut log = fs::OpenOptions::new()
            .append(true)
            .open(self.path(name))
            .unwrap();
        log.write_all(bytes).unwrap();
        self.mark(name);
    }

    fn mark(&self, name: &str) {
        self.dirty.mark(self.id(name));
    }

    fn id(&self, name: &str) -> FileId {
        let name = StableName::parse(name).unwrap();
        let find = |id: &FileId| self.catalogue.tracked(*id).unwrap().name == name;
        self.catalogue.active().into_iter().find(find).unwrap()
    }

    fn progress(&self, at: usize, name: &str) -> u64 {
        let destination = self.catalogue.destinations()[at].0;
        self.confirmed(destination, name)
    }

    fn confirmed(&self, destination: DestinationId, name: &str) -> u64 {
        let progress = self.catalogue.progress(destination, self.id(name));
        progress.map_or(0, |progress| progress.confirmed.length.bytes())
    }

    /// Expects everything that there is now at one destination.
    async fn delivered(&self, at: usize) {
        let files: Vec<_> = self
            .catalogue
            .active()
            .into_iter()
            .map(|id| (id, self.catalogue.open(id).unwrap().size().unwrap()))
            .collect();
        self.ships[at].expect(&files);
        let delivered = timeout(LONG, self.ships[at].delivered()).await;
        assert!(delivered.is_ok(), "{:?}", self.ships[at].status());
    }

    /// Whether a file at a destination is what it is here.
    fn assert_equal(&self, at: usize, name: &str) {
        let ours = fs::read(self.path(name)).unwrap();
        let theirs = self.servers[at].content(&format!("/in/{name}"));
        assert!(theirs.as_deref() == Some(&ours[..]), "{name} differs");
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "{what}: never");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_go_out_without_a_head_over_few_connections() {
    let server = TestServer::new(true);
    let big = bytes(9_000_000);
    let names: Vec<String> = (0..300).map(|n| format!("small{n}")).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), n.as_bytes())).collect();
    files.push(("empty", b""));
    files.push(("big", &big));
    let world = World::new(std::slice::from_ref(&server), &files);
    world.delivered(0).await;
    for (name, _) in &files {
        world.assert_equal(0, name);
    }
    let inner = server.lock();
    assert!(inner.requests.iter().all(|seen| seen.method == Method::PUT));
    assert!(inner.most_open <= 4, "{} connections", inner.most_open);
    assert!(inner.files["/in/empty"].known);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_follows_and_survives_a_restart() {
    let server = TestServer::new(true);
    let world = World::new(std::slice::from_ref(&server), &[("log", b"one\n")]);
    world.delivered(0).await;
    world.append("log", b"two\n");
    until("arrival", || world.progress(0, "log") == 8).await;
    let world = world.restart().await;
    world.append("log", b"three\n");
    world.delivered(0).await;
    world.assert_equal(0, "log");
    // What was recorded is relied on: the append's condition proves it.
    assert_eq!(server.count(&Method::HEAD, "/in/log"), 0);
    assert_eq!(server.count(&Method::PUT, "/in/log"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_breaks_all_the_time_delivers_all_the_same() {
    let server = TestServer::new(true);
    server.lock().cut_after = Some(37 * 1024);
    let content = bytes(600_000);
    let world = World::new(std::slice::from_ref(&server), &[("log", &content)]);
    world.delivered(0).await;
    world.assert_equal(0, "log");
    let received = server.lock().files["/in/log"].received;
    assert_eq!(received, content.len(), "bytes were sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_destination_delays_no_other_and_catches_up() {
    let (alive, dead) = (TestServer::new(true), TestServer::new(true));
    dead.lock().dead = true;
    let world = World::new(
        &[alive, dead.clone()],
        &[("a", b"1"), ("b", &bytes(400_000))],
    );
    world.delivered(0).await;
    let ship = &world.ships[1];
    until("the fault", || ship.status().fault.is_some()).await;
    assert_eq!(ship.status().verified, None);
    assert_eq!(ship.bytes_behind(), 400_001);
    dead.lock().dead = false;
    ship.ask_again();
    world.delivered(1).await;
    world.assert_equal(1, "a");
    world.assert_equal(1, "b");
    until("recovery", || ship.status().fault.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_is_alone_in_error() {
    let server = TestServer::new(true);
    let refusal = (400, Some(Problem::Path));
    server.lock().refuse.insert("/in/bad".to_owned(), refusal);
    let world = World::new(
        std::slice::from_ref(&server),
        &[("bad", b"1"), ("good", b"2")],
    );
    world.delivered(0).await;
    world.assert_equal(0, "good");
    let status = world.ships[0].status();
    assert_eq!(status.errors.len(), 1);
    assert_eq!(status.expected.files, 1);
    assert_eq!(status.fault, None);
    let missing = world.ships[0].missing();
    assert!(matches!(
        missing[0].error,
        Some(FileError::Refused { status: 400, .. })
    ));
    assert_eq!(server.count(&Method::PUT, "/in/bad"), 1);
    // A first look that comes late has nothing to ask about it: nothing was taken on trust.
    let known = sweep::known(&world.ships[0].shared, false).await;
    assert_eq!(known, Some(Vec::new()));
    // Writing to it does not make it due; asking does.
    world.append("bad", b"more");
    world.append("good", b"more");
    world.delivered(0).await;
    assert_eq!(server.count(&Method::PUT, "/in/bad"), 1);
    server.lock().refuse.clear();
    world.ships[0].ask_again();
    until("arrival", || world.progress(0, "bad") == 5).await;
    world.assert_equal(0, "bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_error_is_due_again_after_its_time_and_not_before() {
    let server = TestServer::new(true);
    let refusal = (400, Some(Problem::Path));
    server.lock().refuse.insert("/in/bad".to_owned(), refusal);
    let before = Instant::now();
    let world = World::new(
        std::slice::from_ref(&server),
        &[("bad", b"1"), ("good", b"2")],
    );
    world.delivered(0).await;
    let (shared, bad) = (&world.ships[0].shared, world.id("bad"));
    {
        let mut state = shared.state();
        let due = state.schedule.next_due().unwrap();
        assert!(due >= before + ERROR_RETRY && due <= Instant::now() + ERROR_RETRY);
        let just_before = due.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(state.schedule.take(just_before, 0), None);
        let job = state.schedule.take(due, 0).unwrap();
        assert!(job.id == bad && job.unsure, "{job:?}");
        // Whoever comes next gets the turn.
        state
            .schedule
            .end(job, schedule::Ended::Untried { long: false });
    }
    server.lock().refuse.clear();
    shared.changed.notify_waiters();
    until("arrival", || world.progress(0, "bad") == 1).await;
    world.assert_equal(0, "bad");
    until("recovery", || world.ships[0].status().errors.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_destination_is_tried_until_there_is_room() {
    let server = TestServer::new(true);
    let full = (507, Some(Problem::Full));
    server.lock().refuse.insert("*".to_owned(), full);
    let world = World::new(std::slice::from_ref(&server), &[("a", b"1"), ("b", b"2")]);
    until("the fault", || world.ships[0].status().fault.is_some()).await;
    assert!(world.ships[0].status().errors.is_empty());
    server.lock().refuse.clear();
    world.delivered(0).await;
    world.assert_equal(0, "a");
    world.assert_equal(0, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_bytes_is_filled_again() {
    let server = TestServer::new(true);
    let world = World::new(
        std::slice::from_ref(&server),
        &[("a", b"aaaaaaaa"), ("b", b"bbbb"), ("c", b"cccc")],
    );
    world.delivered(0).await;
    {
        let mut inner = server.lock();
        inner.files.get_mut("/in/a").unwrap().disk.truncate(3);
        inner.files.get_mut("/in/a").unwrap().vouched = 3;
        inner.files.remove("/in/b");
        (inner.boot, inner.kept) = (2, false);
        inner.requests.clear();
    }
    let world = world.restart().await;
    world.delivered(0).await;
    for name in ["a", "b", "c"] {
        world.assert_equal(0, name);
    }
    assert!(!world.ships[0].status().sweeping);
    assert_eq!(server.count(&Method::PUT, "/in/c"), 0);
    server.lock().kept = true;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_ends_though_files_are_asked_about_before_it_comes_to_them() {
    let server = TestServer::new(true);
    let names: Vec<String> = (0..50).map(|number| format!("f{number}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b"x"[..])).collect();
    let world = World::new(std::slice::from_ref(&server), &files);
    world.delivered(0).await;
    {
        let mut inner = server.lock();
        (inner.boot, inner.kept) = (2, false);
    }
    let world = world.restart().await;
    let ids = world.catalogue.active();
    until("the sweep to begin", || {
        !world.ships[0].shared.state().unswept.is_empty()
    })
    .await;
    for id in ids {
        world.ships[0].shared.state().schedule.ask(id);
    }
    world.delivered(0).await;
    assert!(!world.ships[0].status().sweeping);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_outlives_the_process_that_found_it() {
    let server = TestServer::new(true);
    let world = World::new(std::slice::from_ref(&server), &[("a", b"aaaa")]);
    world.delivered(0).await;
    {
        let mut inner = server.lock();
        inner.files.get_mut("/in/a").unwrap().disk[1] = b'!';
        (inner.boot, inner.kept) = (2, false);
    }
    let world = world.restart().await;
    until("the conflict", || {
        !world.ships[0].status().errors.is_empty()
    })
    .await;
    until("the sweep's end", || !world.ships[0].status().sweeping).await;
    server.lock().kept = true;
    let world = world.restart().await;
    world.delivered(0).await;
    assert_eq!(world.ships[0].missing().len(), 1);
    assert_eq!(world.ships[0].status().errors.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsent_bytes_that_were_cut_off_are_missed() {
    let server = TestServer::new(true);
    server.lock().dead = true;
    let world = World::new(std::slice::from_ref(&server), &[("log", b"12345")]);
    let id = world.id("log");
    world.ships[0].expect(&[(id, Offset::new(5).unwrap())]);
    fs::write(world.path("log"), b"new").unwrap();
    server.lock().dead = false;
    let delivered = timeout(LONG, world.ships[0].delivered()).await;
    assert!(delivered.is_ok(), "{:?}", world.ships[0].status());
    world.assert_equal(0, "log");
    assert_eq!(world.ships[0].missing().len(), 1);
    world.catalogue.flush().unwrap();
    let events = world.catalogue.index().events(0, 10).unwrap();
    let lost = |kind| matches!(kind, crate::index::EventKind::Lost);
    assert!(events.iter().any(|(_, event)| lost(event.kind)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_becomes_a_new_generation() {
    let server = TestServer::new(true);
    let world = World::new(
        std::slice::from_ref(&server),
        &[("log", b"the first life\n")],
    );
    world.delivered(0).await;
    let old = world.id("log");
    fs::write(world.path("log"), b"second\n").unwrap();
    world.mark("log");
    until("the new generation", || {
        world.catalogue.active() != vec![old]
    })
    .await;
    world.delivered(0).await;
    let name = world.catalogue.tracked(world.catalogue.active()[0]);
    let name = name.unwrap().name.to_string();
    world.assert_equal(0, &name);
    assert_eq!(server.content("/in/log").unwrap(), b"the first life\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_the_name_is_left_alone() {
    let server = TestServer::new(true);
    let theirs = model::Server {
        disk: b"theirs".to_vec(),
        vouched: 6,
        known: true,
        ..model::Server::default()
    };
    server.lock().files.insert("/in/log".to_owned(), theirs);
    let world = World::new(
        std::slice::from_ref(&server),
        &[("log", b"ours, and longer\n")],
    );
    let old = world.id("log");
    until("the next name", || world.catalogue.active() != vec![old]).await;
    world.delivered(0).await;
    assert_eq!(server.content("/in/log").unwrap(), b"theirs");
    let name = world.catalogue.tracked(world.catalogue.active()[0]);
    world.assert_equal(0, &name.unwrap().name.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_destination_gets_ranges_and_is_counted() {
    let server = TestServer::new(false);
    let content = bytes(700_000);
    let half = model::Server {
        disk: content[..300_000].to_vec(),
        vouched: 300_000,
        known: true,
        ..model::Server::default()
    };
    server.lock().files.insert("/in/log".to_owned(), half);
    let world = World::new(
        std::slice::from_ref(&server),
        &[("log", &content), ("empty", b"")],
    );
    world.delivered(0).await;
    world.assert_equal(0, "log");
    world.append("log", b"a line\n");
    world.delivered(0).await;
    world.assert_equal(0, "log");
    assert_eq!(world.ships[0].status().verified, Some(false));
    let inner = server.lock();
    let methods: Vec<_> = inner.requests.iter().map(|seen| &seen.method).collect();
    // Asked before the first append, and after each; an empty file is not spoken of.
    let (head, put) = (&Method::HEAD, &Method::PUT);
    assert_eq!(methods, [head, put, head, put, head]);
    for seen in &inner.requests {
        let ours = |name: &String| {
            name.starts_with("if-") || name.contains("digest") || name.starts_with("shaftlog")
        };
        assert!(!seen.headers.iter().any(ours), "{seen:?}");
        assert_eq!(seen.path, "/in/log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unverified_destination_that_loses_is_stopped_until_it_has_it_again() {
    let server = TestServer::new(false);
    let world = World::new(std::slice::from_ref(&server), &[("log", b"12345678")]);
    world.delivered(0).await;
    let held = server.lock().files.remove("/in/log").unwrap();
    let world = world.restart().await;
    world.append("log", b"9");
    until("the stop", || world.ships[0].status().stopped.is_some()).await;
    assert_eq!(server.content("/in/log"), None);
    let puts = server.count(&Method::PUT, "/in/log");
    // Stopped it stays, over restarts too, until it has what it had.
    let heads = server.count(&Method::HEAD, "/in/log");
    let world = world.restart().await;
    until("the question at the start", || {
        server.count(&Method::HEAD, "/in/log") > heads
    })
    .await;
    assert!(world.ships[0].status().stopped.is_some());
    assert_eq!(server.count(&Method::PUT, "/in/log"), puts);
    server.lock().files.insert("/in/log".to_owned(), held);
    world.ships[0].ask_again();
    world.delivered(0).await;
    world.assert_equal(0, "log");
    assert_eq!(world.ships[0].status().stopped, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_behind_one_url_stop_it() {
    let server = TestServer::new(true);
    let world = World::new(std::slice::from_ref(&server), &[("log", b"1")]);
    world.delivered(0).await;
    server.lock().boot = 2;
    world.append("log", b"2");
    world.delivered(0).await;
    server.lock().boot = 1;
    world.append("log", b"3");
    until("the stop", || world.ships[0].status().stopped.is_some()).await;
    assert_eq!(server.content("/in/log").unwrap(), b"12");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_destination_never_becomes_an_unverified_one() {
    let server = TestServer::new(true);
    let world = World::new(std::slice::from_ref(&server), &[("log", b"1")]);
    world.delivered(0).await;
    server.lock().verified = false;
    let world = world.restart().await;
    world.append("log", b"2");
    until("the fault", || world.ships[0].status().fault.is_some()).await;
    assert_eq!(world.ships[0].status().verified, Some(true));
    assert_eq!(server.content("/in/log").unwrap(), b"1");
    server.lock().verified = true;
    world.ships[0].ask_again();
    world.delivered(0).await;
    world.assert_equal(0, "log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_passes_a_backlog() {
    let server = TestServer::new(true);
    server.lock().held = Some("/in/big");
    let big = bytes(9_000_000);
    // All connections but one are held by backlogs.
    let files: Vec<(String, &[u8])> = (0..5).map(|n| (format!("big{n}"), &big[..])).collect();
    let mut files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), *b)).collect();
    files.push(("line", b"1"));
    let world = World::new(std::slice::from_ref(&server), &files);
    until("the line", || world.progress(0, "line") == 1).await;
    server.lock().held = None;
    world.delivered(0).await;
    for (name, _) in &files {
        world.assert_equal(0, name);
    }
}
