//! The server against a model of it: random requests on a few paths, repeats, gaps, overlaps,
//! wrong conditions, cut bodies and SIGKILLs among them, and after each the answer and the file
//! must be among those that the table allows. `PROPTEST_CASES=1000` for a long run.

use std::fs;
use std::io::Write as _;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::common::{self, Server, wait_for};
use crate::contract;
use crate::http::{Answer, Asked, Connection};
use crate::model::{At, File, Outcome, Put, Says};
use crate::play::{answered, plays, request};
use crate::said::{self, Append};

const PATHS: [&str; 3] = ["/one", "/dir/two", "/dir/three"];

proptest! {
    #![proptest_config(plays(300))]

    #[test]
    fn the_server_does_what_its_table_says(steps in prop::collection::vec(step(), 1..60)) {
        let mut play = Play::new();
        for step in &steps {
            play.perform(step);
        }
        play.finish();
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Put(Put),
    Confirm {
        path: usize,
        at: At,
        says: Says,
    },
    Head {
        path: usize,
    },
    Foreign {
        path: usize,
        length: usize,
    },
    Kill,
    /// The index is lost and made again.
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    prop_oneof![
        12 => put().prop_map(Step::Put),
        3 => (path.clone(), at(), says()).prop_map(|(path, at, says)| Step::Confirm { path, at, says }),
        2 => path.clone().prop_map(|path| Step::Head { path }),
        1 => (path, length()).prop_map(|(path, length)| Step::Foreign { path, length }),
        1 => Just(Step::Kill),
        1 => Just(Step::Rebuild),
    ]
}

fn put() -> impl Strategy<Value = Put> {
    let wrong = prop_oneof![3 => Just(None), 1 => any::<usize>().prop_map(Some)];
    let cut = prop_oneof![6 => Just(None), 1 => any::<usize>().prop_map(Some)];
    let digest =
        prop_oneof![3 => Just(Says::Nothing), 3 => Just(Says::Right), 1 => Just(Says::Wrong)];
    (
        0..PATHS.len(),
        at(),
        length(),
        wrong,
        0..3_u64,
        says(),
        digest,
        cut,
    )
        .prop_map(|(path, at, length, wrong, total, says, digest, cut)| Put {
            path,
            at,
            length,
            wrong,
            total,
            says,
            digest,
            cut,
        })
}

fn at() -> impl Strategy<Value = At> {
    prop_oneof![
        1 => Just(At::Start),
        5 => Just(At::Vouched(0)),
        2 => (-12..12_isize).prop_map(At::Vouched),
        2 => Just(At::Size(0)),
        1 => (-12..12_isize).prop_map(At::Size),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        12 => 1..30_usize,
        2 => 1000..1100_usize,
        1 => 60_000..300_000_usize,
    ]
}

fn says() -> impl Strategy<Value = Says> {
    prop_oneof![
        2 => Just(Says::Nothing),
        5 => Just(Says::Right),
        1 => Just(Says::Wrong),
        1 => Just(Says::Absent),
    ]
}

/// The real server beside the model.
struct Play {
    server: Server,
    _home: TempDir,
    connection: Option<Connection>,
    files: [File; PATHS.len()],
}

impl Play {
    fn new() -> Self {
        let home = TempDir::new().expect("a temporary directory");
        Self {
            server: Server::start(&home.path().join("data"), ""),
            _home: home,
            connection: None,
            files: std::array::from_fn(|_| File::new()),
        }
    }

    fn perform(&mut self, step: &Step) {
        match step {
            Step::Put(put) => self.put(put),
            Step::Confirm { path, at, says } => self.confirm(*path, *at, *says),
            Step::Head { path } => self.head(*path),
            Step::Foreign { path, length } => self.foreign(*path, *length),
            Step::Kill => {
                self.connection = None;
                self.server.restart();
            }
            Step::Rebuild => self.rebuild(),
        }
    }

    fn put(&mut self, put: &Put) {
        let file = self.files[put.path].clone();
        let append = Append::new(&file, put, PATHS[put.path]);
        match append.came() {
            None => {
                let end = Some(append.end());
                let answer = self.ask("PUT", put.path, &append.head(), &append.body, end);
                self.settle(put.path, append.outcomes(&file), &answer);
            }
            Some(came) => {
                let states = append.cut(&file, came);
                self.send("PUT", put.path, &append.head(), &append.body[..came], None);
                let mut connection = self.connection.take().expect("just used");
                connection.finish();
                // A refusal may come before the end is noticed.
                let _ = connection.answer();
                self.settle_cut(put.path, &states);
            }
        }
    }

    fn confirm(&mut self, path: usize, at: At, says: Says) {
        let file = &self.files[path];
        let n = file.position(at);
        let head = said::confirm(file, says, n);
        let outcomes = file.confirm(n, says);
        let answer = self.ask("PUT", path, &head, b"", Some(n));
        self.settle(path, outcomes, &answer);
    }

    fn head(&mut self, path: usize) {
        let answer = self.ask("HEAD", path, "", b"", None);
        let file = &self.files[path];
        if answer.status == 404 {
            assert!(!file.row && file.bytes.is_empty(), "{}", answer.shown());
        } else {
            assert_eq!(answer.number("content-length"), Some(file.vouched as u64));
        }
    }

    /// Somebody else appends.
    fn foreign(&mut self, path: usize, length: usize) {
        let file = &mut self.files[path];
        if !file.row {
            return;
        }
        let more = said::stream(PATHS[path], file.bytes.len(), length);
        let mut disk = fs::File::options()
            .append(true)
            .open(self.server.datadir.join(&PATHS[path][1..]))
            .expect("the file");
        disk.write_all(&more).expect("written");
        file.bytes.extend(more);
    }

    fn rebuild(&mut self) {
        self.connection = None;
        self.server.kill();
        let index = self.server.datadir.join(".shaftlog/server.redb");
        fs::remove_file(index).expect("an index");
        let config = self.server.config();
        let config = config.to_str().expect("UTF-8");
        let files = || PATHS.map(|path| self.server.file(path).is_some());
        if files().contains(&true) {
            let output = common::run(["db", "rebuild", "--config", config]);
            assert!(output.status.success(), "{}", common::said(&output));
        }
        for (file, is_there) in self.files.iter_mut().zip(files()) {
            *file = file.rebuilt(is_there);
        }
        self.server.restart();
    }

    /// Everything is as the model has it, on disk, in the index, and after one more start.
    fn finish(&mut self) {
        self.server.restart();
        self.connection = None;
        for path in 0..PATHS.len() {
            self.head(path);
        }
        let rows = common::rows(&self.server.datadir, "files");
        for (path, file) in PATHS.iter().zip(&self.files) {
            let Some(row) = rows.iter().find(|row| row["path"] == *path) else {
                assert!(!file.row, "no row of {path}");
                continue;
            };
            assert_eq!(row["length"], file.vouched as u64, "{row}");
            let hash = file.hash(file.vouched).expect("within").to_hex();
            assert_eq!(row["blake3"], hash.as_str(), "{row}");
            let state = if file.unproven { "unproven" } else { "vouched" };
            assert_eq!(row["state"], state, "{row}");
        }
    }

    /// The outcome that the answer names must be an allowed one, and the file must show it.
    fn settle(&mut self, path: usize, outcomes: Vec<Outcome>, answer: &Answer) {
        let expected: Vec<_> = outcomes.iter().map(|o| (o.status, o.problem)).collect();
        let on_disk = self.on_disk(path);
        let found = outcomes
            .into_iter()
            .find(|outcome| said::fits(outcome, answer, &on_disk));
        let model = &self.files[path];
        let found = found.unwrap_or_else(|| {
            panic!(
                "{}: expected one of {expected:?}, got\n{}\nwith {} bytes on disk; the model had {} of {}, row {}",
                PATHS[path],
                answer.shown(),
                on_disk.len(),
                model.vouched,
                model.bytes.len(),
                model.row,
            )
        });
        self.files[path] = found.after;
    }

    /// Waits until the server shows one of the states that a cut body may leave.
    fn settle_cut(&mut self, path: usize, states: &[File]) {
        let sizes: Vec<_> = states.iter().map(|s| (s.vouched, s.bytes.len())).collect();
        let what = format!("{} with one of (L, S) {sizes:?} after a cut", PATHS[path]);
        let found = wait_for(&what, || {
            let answer = self.try_ask("HEAD", path, "", b"", None);
            let on_disk = self.on_disk(path);
            states
                .iter()
                .find(|state| state.bytes == on_disk && said::shows(state, &answer) == Some(true))
        })
        .clone();
        self.files[path] = found;
    }

    fn on_disk(&self, path: usize) -> Vec<u8> {
        self.server.file(PATHS[path]).unwrap_or_default()
    }

    /// Asks until the answer is not 503, checks what holds for every answer.
    fn ask(
        &mut self,
        method: &str,
        path: usize,
        head: &str,
        body: &[u8],
        end: Option<usize>,
    ) -> Answer {
        answered(|| self.try_ask(method, path, head, body, end))
    }

    fn try_ask(
        &mut self,
        method: &str,
        path: usize,
        head: &str,
        body: &[u8],
        end: Option<usize>,
    ) -> Answer {
        self.send(method, path, head, body, end);
        let connection = self.connection.as_mut().expect("just used");
        let answered = connection.answer().expect("an answer");
        let (asked, answer) = answered.expect("an answer, not the end");
        let file = self.server.datadir.join(&PATHS[path][1..]);
        if let Err(problem) = contract::check(&asked, &answer, Some(&file)) {
            panic!("{problem}\n{head}\n{}", answer.shown());
        }
        if answer.closes() {
            self.connection = None;
        }
        answer
    }

    fn send(&mut self, method: &str, path: usize, head: &str, body: &[u8], end: Option<usize>) {
        let port = self.server.port;
        let connection = self
            .connection
            .get_or_insert_with(|| Connection::open(port));
        connection.expect(Asked {
            method: method.to_owned(),
            target: PATHS[path].to_owned(),
            end: end.map(|end| end as u64),
            known: 0,
        });
        connection.send(&request(method, PATHS[path], head, body));
    }
}
