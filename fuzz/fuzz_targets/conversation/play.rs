//! Steps with the real server beside the model.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::answer::{Answer, Asked};
use crate::contract;
use crate::line::{Line, PATIENCE};
use crate::model::{At, File, Outcome, Put, Says};
use crate::said::{self, Append};
use crate::site::Site;
use crate::steps::Step;

/// The paths of a conversation, below a directory of its own.
pub const PATHS: [&str; 2] = ["one", "directory/two"];

/// Bytes that a connection holds on their way: more than any request has.
const CAPACITY: usize = 128 * 1024;

pub fn play(site: &mut Site, steps: &[Step]) {
    let directory = site.begin();
    let play = Play {
        site,
        paths: PATHS.map(|path| format!("/{directory}/{path}")),
        files: std::array::from_fn(|_| File::new()),
        line: None,
    };
    // The conversation borrows what runs it only to open connections.
    let told = play.site.run(play.converse(steps));
    for (path, length, tag) in told {
        site.tell(&path, length, &tag);
    }
}

struct Play<'s> {
    site: &'s Site,
    paths: [String; PATHS.len()],
    files: [File; PATHS.len()],
    line: Option<Line>,
}

impl Play<'_> {
    async fn converse(mut self, steps: &[Step]) -> Vec<(String, u64, String)> {
        for step in steps {
            match step {
                Step::Put(put, pieces) => self.put(put, *pieces).await,
                Step::Both(first, second, look) => self.both(first, second, *look).await,
                Step::Confirm { path, at, says } => self.confirm(*path, *at, *says).await,
                Step::Head { path } => drop(self.head(*path).await),
                Step::HeadLength { path, at } => self.head_length(*path, *at).await,
                Step::Foreign { path, length } => self.foreign(*path, *length),
                Step::Reconnect => self.finish().await,
            }
        }
        let mut told = Vec::new();
        for path in 0..PATHS.len() {
            let answer = self.head(path).await;
            if let (true, Some(length), Some(tag)) = (
                self.files[path].row,
                answer.number("shaftlog-length"),
                answer.header("etag"),
            ) {
                told.push((self.paths[path].clone(), length, tag.to_owned()));
            }
        }
        self.finish().await;
        told
    }

    async fn finish(&mut self) {
        if let Some(line) = self.line.take() {
            let rest = line.finish().await;
            assert!(rest.is_empty(), "said without being asked: {rest:?}");
        }
    }

    async fn put(&mut self, put: &Put, pieces: usize) {
        let path = put.path;
        let file = self.files[path].clone();
        let append = Append::new(&file, put, PATHS[path]);
        match append.came() {
            None => {
                let end = Some(append.end());
                let request = self.request("PUT", path, "", &append.head(), &append.body);
                let answer = self.ask("PUT", path, "", &request, pieces, end).await;
                self.settle(path, append.outcomes(&file), &answer);
            }
            Some(came) => {
                let mut line = self.take_line();
                let request = self.request("PUT", path, "", &append.head(), &append.body[..came]);
                line.send(&request, pieces).await;
                line.finish().await;
                self.settle_states(path, append.cut(&file, came)).await;
            }
        }
    }

    async fn both(&mut self, first: &Put, second: &Put, look: bool) {
        let path = first.path;
        let file = self.files[path].clone();
        let first = Append::new(&file, first, PATHS[path]);
        let done = first
            .outcomes(&file)
            .into_iter()
            .find(|it| it.problem.is_none());
        let ahead = done.map_or_else(|| file.clone(), |outcome| outcome.after);
        let second = Append::new(&ahead, second, PATHS[path]);

        let mut lines = [self.take_line(), self.site.connect(CAPACITY)];
        let middle = first.came().unwrap_or(first.body.len()) / 2;
        let head = self.request("PUT", path, "", &first.head(), &first.body[..middle]);
        lines[0].send(&head, 1).await;
        if look && middle < first.body.len() {
            let most = file.vouched.max(first.a);
            self.look_meanwhile(path, most).await;
        }
        let body = &second.body[..second.came().unwrap_or(second.body.len())];
        let request = self.request("PUT", path, "", &second.head(), body);
        lines[1].send(&request, 1).await;
        let rest = first.came().unwrap_or(first.body.len());
        lines[0].send(&first.body[middle..rest], 1).await;

        let [first_line, second_line] = lines;
        let (one, two) = tokio::join!(
            answered(first_line, first.came().is_some()),
            answered(second_line, second.came().is_some()),
        );
        for (append, answer) in [(&first, &one), (&second, &two)] {
            if let Some(answer) = answer {
                self.holds("PUT", path, "", answer, Some(append.end()), false);
            }
        }
        let mut states = Vec::new();
        for [(a, answer_a), (b, answer_b)] in [
            [(&first, &one), (&second, &two)],
            [(&second, &two), (&first, &one)],
        ] {
            for between in after(a, answer_a.as_ref(), &file) {
                states.extend(after(b, answer_b.as_ref(), &between));
            }
        }
        assert!(
            !states.is_empty(),
            "no order of the two explains their answers\n{}\n{}",
            one.map_or_else(String::new, |answer| answer.shown()),
            two.map_or_else(String::new, |answer| answer.shown()),
        );
        self.settle_states(path, states).await;
    }

    /// A HEAD while a body is on its way tells at most what was vouched for or is proven before it.
    async fn look_meanwhile(&mut self, path: usize, most: usize) {
        let mut line = self.site.connect(CAPACITY);
        line.send(&self.request("HEAD", path, "", "", b""), 1).await;
        let answer = line.answer(true).await.expect("an answer to HEAD");
        self.holds("HEAD", path, "", &answer, None, false);
        assert!(
            matches!(answer.status, 200 | 404 | 503),
            "{}",
            answer.shown()
        );
        if let Some(length) = answer.number("shaftlog-length") {
            let least = self.files[path].vouched as u64;
            assert!(
                (least..=most as u64).contains(&length),
                "{}",
                answer.shown()
            );
        }
        line.finish().await;
    }

    async fn confirm(&mut self, path: usize, at: At, says: Says) {
        let file = &self.files[path];
        let n = file.position(at);
        let outcomes = file.confirm(n, says);
        let request = self.request("PUT", path, "", &said::confirm(file, says, n), b"");
        let answer = self.ask("PUT", path, "", &request, 1, Some(n)).await;
        self.settle(path, outcomes, &answer);
    }

    async fn head(&mut self, path: usize) -> Answer {
        let request = self.request("HEAD", path, "", "", b"");
        let answer = self.ask("HEAD", path, "", &request, 1, None).await;
        let file = &self.files[path];
        assert_eq!(said::shows(file, &answer), Some(true), "{}", answer.shown());
        assert_eq!(self.on_disk(path), file.bytes);
        answer
    }

    async fn head_length(&mut self, path: usize, at: At) {
        let n = self.files[path].position(at);
        let query = format!("?length={n}");
        let request = self.request("HEAD", path, &query, "", b"");
        let answer = self.ask("HEAD", path, &query, &request, 1, None).await;
        let file = &self.files[path];
        let expected = match (file.row || !file.bytes.is_empty(), n <= file.vouched) {
            (false, _) => 404,
            (true, true) => 200,
            (true, false) => 416,
        };
        assert_eq!(answer.status, expected, "{}", answer.shown());
        if expected == 200 {
            assert_eq!(answer.number("content-length"), Some(n as u64));
        }
    }

    fn foreign(&mut self, path: usize, length: usize) {
        let file = &mut self.files[path];
        if !file.row {
            return;
        }
        let more = said::stream(PATHS[path], file.bytes.len(), length);
        let disk = fs::File::options()
            .append(true)
            .open(self.site.file(&self.paths[path]));
        disk.expect("the file").write_all(&more).expect("written");
        file.bytes.extend(more);
    }

    /// The outcome that the answer names must be an allowed one, and the file must show it.
    fn settle(&mut self, path: usize, outcomes: Vec<Outcome>, answer: &Answer) {
        let expected: Vec<_> = outcomes.iter().map(|it| (it.status, it.problem)).collect();
        let on_disk = self.on_disk(path);
        let found = outcomes
            .into_iter()
            .find(|it| said::fits(it, answer, &on_disk));
        let Some(found) = found else {
            let model = &self.files[path];
            panic!(
                "expected one of {expected:?}, got\n{}\nwith {} bytes on disk; the model had {} of {}, row {}",
                answer.shown(),
                on_disk.len(),
                model.vouched,
                model.bytes.len(),
                model.row,
            );
        };
        self.becomes(path, found.after);
    }

    /// Once nobody works on the path any more, it must show one of these states.
    async fn settle_states(&mut self, path: usize, states: Vec<File>) {
        // Refused as a gap when it is looked at, and as busy before.
        let far = i64::MAX - 9;
        let head = format!(
            "Content-Range: bytes {far}-{far}/{}\r\nContent-Length: 1\r\n",
            far + 1
        );
        let request = self.request("PUT", path, "", &head, b"x");
        let answer = self.ask("PUT", path, "", &request, 1, None).await;
        assert_eq!(answer.status, 416, "{}", answer.shown());

        let request = self.request("HEAD", path, "", "", b"");
        let answer = self.ask("HEAD", path, "", &request, 1, None).await;
        let on_disk = self.on_disk(path);
        let sizes: Vec<_> = states
            .iter()
            .map(|it| (it.vouched, it.bytes.len()))
            .collect();
        let found = states
            .into_iter()
            .find(|it| it.bytes == on_disk && said::shows(it, &answer) == Some(true));
        let Some(found) = found else {
            panic!(
                "expected one of (L, S) {sizes:?}, got\n{}\nwith {} bytes on disk",
                answer.shown(),
                on_disk.len(),
            );
        };
        self.becomes(path, found);
    }

    /// What no request whatever may do.
    fn becomes(&mut self, path: usize, file: File) {
        let before = &self.files[path];
        let kept = file.vouched >= before.vouched
            && file.bytes.get(..before.vouched) == before.bytes.get(..before.vouched);
        assert!(kept, "what was vouched for has changed");
        self.files[path] = file;
    }

    fn on_disk(&self, path: usize) -> Vec<u8> {
        fs::read(self.site.file(&self.paths[path])).unwrap_or_default()
    }

    fn request(&self, method: &str, path: usize, query: &str, head: &str, body: &[u8]) -> Vec<u8> {
        let target = &self.paths[path];
        let head = format!("{method} {target}{query} HTTP/1.1\r\nHost: x\r\n{head}\r\n");
        [head.as_bytes(), body].concat()
    }

    fn take_line(&mut self) -> Line {
        self.line
            .take()
            .unwrap_or_else(|| self.site.connect(CAPACITY))
    }

    /// Asks until the answer is not 503, checks what holds for every answer.
    async fn ask(
        &mut self,
        method: &str,
        path: usize,
        query: &str,
        request: &[u8],
        pieces: usize,
        end: Option<usize>,
    ) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut line = self.take_line();
            line.send(request, pieces).await;
            let answer = line.answer(method == "HEAD").await.expect("an answer");
            self.holds(method, path, query, &answer, end, true);
            if answer.closes() {
                line.finish().await;
            } else {
                self.line = Some(line);
            }
            if answer.status != 503 {
                return answer;
            }
            assert!(Instant::now() < until, "503 for ever: {}", answer.shown());
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// What holds for every answer; with the file looked at when nobody changes it meanwhile.
    fn holds(
        &self,
        method: &str,
        path: usize,
        query: &str,
        answer: &Answer,
        end: Option<usize>,
        alone: bool,
    ) {
        let asked = Asked {
            method: method.to_owned(),
            target: [&self.paths[path], query].concat(),
            end: end.map(|end| end as u64),
            known: 0,
        };
        let file = self.site.file(&self.paths[path]);
        if let Err(problem) = contract::check(&asked, answer, alone.then_some(&file)) {
            panic!("{problem}\n{}", answer.shown());
        }
    }
}

/// The answer on a line, and its end; none has to come when the request was cut short.
async fn answered(mut line: Line, is_cut: bool) -> Option<Answer> {
    if is_cut {
        line.finish().await;
        return None;
    }
    let answer = line.answer(false).await;
    line.finish().await;
    Some(answer.expect("an answer"))
}

/// What an append that got this answer can have left of `file`.
fn after(append: &Append, answer: Option<&Answer>, file: &File) -> Vec<File> {
    match (append.came(), answer) {
        (Some(came), _) => {
            // Or it was told that somebody else is at work.
            let mut states = append.cut(file, came);
            states.push(file.clone());
            states
        }
        (None, Some(answer)) if answer.status == 503 => vec![file.clone()],
        (None, Some(answer)) => {
            let outcomes = append.outcomes(file).into_iter();
            let said = outcomes.filter(|outcome| said::is_said(outcome, answer));
            said.map(|outcome| outcome.after).collect()
        }
        (None, None) => Vec::new(),
    }
}
