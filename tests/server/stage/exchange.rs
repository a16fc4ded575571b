//! Requests and answers.

use std::time::Instant;

use super::Stage;
use crate::common::DEADLINE;
use crate::contract::{self, Stamp};
use crate::http::{Answer, Asked, Connection};
use crate::script::Step;

impl Stage {
    pub(super) fn request(&mut self, step: &Step) -> Result<(), String> {
        let (mut asked, bytes) = self.compose(&step.items)?;
        asked.known = self.stamp.as_ref().map_or(0, |stamp| stamp.number);
        self.exchange = format!(
            "> {}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(2000)])
        );
        self.repeat = (step.verb == ">>").then(|| bytes.clone());
        let connection = self.connection(&step.on);
        connection.expect(asked);
        connection.send(&bytes);
        Ok(())
    }

    /// The bytes of a request, with what its answer will answer.
    fn compose(&self, items: &[String]) -> Result<(Asked, Vec<u8>), String> {
        let line = self.names.fill(&items[0])?;
        let mut words = line.splitn(3, ' ');
        let method = words.next().unwrap_or_default();
        let target = words.next().ok_or("a request wants method and target")?;
        let range = words.next();
        let (mut headers, mut body) = (Vec::new(), None);
        let (mut left_out, mut given) = (Vec::new(), Vec::new());
        for item in &items[1..] {
            if let Some(name) = item.strip_prefix('-') {
                left_out.push(name.to_ascii_lowercase());
            } else if let Some((name, _)) = header(item) {
                given.push(name.to_ascii_lowercase());
                headers.push(self.names.fill(item)?);
            } else {
                body = Some(self.names.bytes(item)?);
            }
        }
        let body_length = body.as_ref().map_or(0, Vec::len);
        let mut add = |name: &str, value: String| {
            let name_lower = name.to_ascii_lowercase();
            if !left_out.contains(&name_lower) && !given.contains(&name_lower) {
                headers.insert(0, format!("{name}: {value}"));
            }
        };
        if method == "PUT" {
            add("Content-Length", body_length.to_string());
        }
        if let Some(range) = range {
            add("Content-Range", format!("bytes {range}"));
        }
        add("Host", "logs.example.net".to_owned());
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        for header in headers {
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend(body.unwrap_or_default());
        let asked = Asked {
            method: method.to_owned(),
            target: target.to_owned(),
            end: range.and_then(end_of),
            known: 0,
        };
        Ok((asked, bytes))
    }

    pub(super) fn send(&mut self, on: &str, expression: &str) -> Result<(), String> {
        let bytes = self.names.bytes(expression)?;
        self.exchange = format!(
            "> {}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(2000)])
        );
        let connection = self.connection(on);
        if bytes.starts_with(b"HEAD ") {
            connection.expect(Asked {
                method: "HEAD".to_owned(),
                ..Asked::default()
            });
        }
        connection.send(&bytes);
        Ok(())
    }

    pub(super) fn answer(&mut self, step: &Step) -> Result<(), String> {
        if step.items[0] == "nothing" {
            return self.no_answer(step);
        }
        let Some(bytes) = self.repeat.take() else {
            return self.next_answer(step)?.2;
        };
        // Asked again until the answer is not 503; HEAD, which changes nothing, until it is right.
        let start = Instant::now();
        loop {
            let (asked, answer, held) = self.next_answer(step)?;
            let settled = answer.status != 503 && asked.method != "HEAD";
            if held.is_ok() || settled || start.elapsed() > DEADLINE {
                return held;
            }
            let connection = self.connection(&step.on);
            connection.expect(asked);
            connection.send(&bytes);
        }
    }

    /// Reads an answer; the inner result says whether it is what the step expects.
    fn next_answer(&mut self, step: &Step) -> Result<(Asked, Answer, Result<(), String>), String> {
        let flag = |name| step.items[0].split(' ').any(|word| word == name);
        let connection = self.connections.get_mut(&step.on).ok_or("no connection")?;
        let Some((asked, answer)) = connection.answer()? else {
            self.connections.remove(&step.on);
            if step.items[0].starts_with("nothing,") {
                return Ok((Asked::default(), Answer::default(), Ok(())));
            }
            return Err("the server closed the connection without an answer".into());
        };
        self.exchange.push_str("\n< ");
        self.exchange.push_str(&answer.shown());
        if answer.closes() || flag("closed") {
            connection.ended()?;
            self.connections.remove(&step.on);
        }
        let held = self.judge(step, &asked, &answer, flag("bare"));
        Ok((asked, answer, held))
    }

    fn judge(
        &mut self,
        step: &Step,
        asked: &Asked,
        answer: &Answer,
        bare: bool,
    ) -> Result<(), String> {
        if !bare && answer.status >= 200 {
            let file = self.file_asked(asked);
            let stamp = contract::check(asked, answer, file.as_deref())?;
            self.remember(stamp)?;
        }
        self.compare(&step.items, answer)
    }

    fn no_answer(&mut self, step: &Step) -> Result<(), String> {
        let mut connection = self.connections.remove(&step.on).ok_or("no connection")?;
        match connection.answer()? {
            None => Ok(()),
            Some((_, answer)) => Err(format!("expected no answer, got:\n{}", answer.shown())),
        }
    }

    /// Compares with what the script expects: `409,410 token L=5 tail=8 closed`, then headers.
    fn compare(&self, items: &[String], answer: &Answer) -> Result<(), String> {
        let line = self.names.fill(&items[0])?;
        let mut words = line.split(' ');
        let statuses = words.next().unwrap_or_default();
        let status = answer.status.to_string();
        if !statuses.split(',').any(|expected| expected == status) {
            return Err(format!("expected {statuses}, got {status}"));
        }
        let tail = answer.header("shaftlog-tail");
        for word in words {
            let (name, got) = match word.split_once('=') {
                Some(("L", _)) => ("shaftlog-length", answer.header("shaftlog-length")),
                Some(("tail", _)) => ("shaftlog-tail", tail.and_then(|t| t.split(';').next())),
                Some(_) => return Err(format!("what is `{word}`?")),
                None if matches!(word, "closed" | "bare") => continue,
                None => ("shaftlog-problem", answer.header("shaftlog-problem")),
            };
            let expected = word.split_once('=').map_or(word, |(_, value)| value);
            if !expected.split(',').any(|token| got == Some(token)) {
                return Err(format!("{name}: expected {expected}, got {got:?}"));
            }
        }
        if let (true, false, Some(tail)) = (line.contains("L="), line.contains("tail="), tail) {
            return Err(format!("expected no tail, got {tail}"));
        }
        items[1..]
            .iter()
            .try_for_each(|item| self.compare_header(item, answer))
    }

    fn compare_header(&self, item: &str, answer: &Answer) -> Result<(), String> {
        if let Some(name) = item.strip_prefix('-') {
            return match answer.header(&name.to_ascii_lowercase()) {
                None => Ok(()),
                Some(value) => Err(format!("expected no {name}, got {value}")),
            };
        }
        let (name, value) = header(item).ok_or(format!("no header: `{item}`"))?;
        let expected = self.names.fill(value)?;
        match answer.header(&name.to_ascii_lowercase()) {
            Some(got) if got == expected => Ok(()),
            got => Err(format!("{name}: expected {expected}, got {got:?}")),
        }
    }

    /// Takes in a stamp: one store for ever, one boot for each life of the process.
    fn remember(&mut self, stamp: Stamp) -> Result<(), String> {
        if let Some(last) = &self.stamp {
            if last.store != stamp.store {
                return Err(format!("store {} became {}", last.store, stamp.store));
            }
            if self.ended_boots.contains(&stamp.boot) {
                return Err(format!("boot {} came back", stamp.boot));
            }
            if last.boot != stamp.boot && !self.ended_boots.contains(&last.boot) {
                return Err(format!("boot {} became {}", last.boot, stamp.boot));
            }
        }
        let number = stamp
            .number
            .max(self.stamp.as_ref().map_or(0, |last| last.number));
        self.names.set("STORE", stamp.store.clone());
        self.names.set("BOOT", stamp.boot.clone());
        self.names.set("NUMBER", number.to_string());
        self.stamp = Some(Stamp { number, ..stamp });
        Ok(())
    }

    pub(super) fn connection(&mut self, on: &str) -> &mut Connection {
        let port = self.server().port;
        self.connections
            .entry(on.to_owned())
            .or_insert_with(|| Connection::open(port))
    }
}

/// Name and value of `Name: value`.
fn header(item: &str) -> Option<(&str, &str)> {
    let (name, value) = item.split_once(':')?;
    let is_token = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_ ".contains(&b));
    is_token.then(|| (name, value.trim_start()))
}

/// What a range's acknowledgement covers: b+1 of `a-b/t`, N of `*/N`.
fn end_of(range: &str) -> Option<u64> {
    let (range, total) = range.split_once('/')?;
    match range.split_once('-') {
        Some((_, last)) => last
            .parse::<u64>()
            .ok()
            .and_then(|last| last.checked_add(1)),
        None => total.parse().ok(),
    }
}
