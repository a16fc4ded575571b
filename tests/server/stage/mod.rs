//! Where a script plays: one server with its datadir, the connections to it, and what was checked
//! so far.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use tempfile::TempDir;

use crate::common::{self, Server};
use crate::contract::Stamp;
use crate::data::Names;
use crate::http::Connection;
use crate::script::Step;

mod disk;
mod exchange;

/// The server and everything around it.
pub struct Stage {
    // Declared before the directory: the server is gone before its files are.
    server: Option<Server>,
    home: TempDir,
    config: Vec<String>,
    /// Whether the next `config` line begins a new configuration.
    configured: bool,
    connections: BTreeMap<String, Connection>,
    names: Names,
    stamp: Option<Stamp>,
    /// Boot ids that ended.
    ended_boots: Vec<String>,
    /// Every `=` by path, for `= same`.
    checked: BTreeMap<String, Vec<String>>,
    exchange: String,
    /// What `>>` repeats.
    repeat: Option<Vec<u8>>,
}

impl Stage {
    pub fn new() -> Self {
        Self {
            server: None,
            home: TempDir::new().expect("a temporary directory"),
            config: Vec::new(),
            configured: false,
            connections: BTreeMap::new(),
            names: Names::default(),
            stamp: None,
            ended_boots: Vec::new(),
            checked: BTreeMap::new(),
            exchange: String::new(),
            repeat: None,
        }
    }

    /// The last request and its answer, for people.
    pub fn last_exchange(&self) -> &str {
        &self.exchange
    }

    /// Does one step; the error says what was expected and what came.
    pub fn perform(&mut self, step: &Step) -> Result<(), String> {
        let first = step.items[0].as_str();
        match step.verb.as_str() {
            ">" | ">>" => self.request(step),
            "send" => self.send(&step.on, first),
            "finish" => {
                self.connection(&step.on).finish();
                Ok(())
            }
            "reset" => {
                self.connection(&step.on);
                let connection = self.connections.remove(&step.on);
                connection.into_iter().for_each(Connection::reset);
                Ok(())
            }
            "<" => self.answer(step),
            "=" => self.check(step),
            "row" => {
                let (path, row) = first.split_once(' ').ok_or("path and row")?;
                let file = fs::read(self.path(path)).unwrap_or_default();
                self.check_row(path, row, &file)
            }
            "operator" => self.operator(first),
            "high_water" => self.high_water(first),
            "listed" => self.listed(first),
            "usage" => self.wait_for_usage(first),
            "differ" => self.differ(first),
            "grown" => self.wait_for_growth(first),
            "disk" => self.disk(first),
            "event" => self.wait_for_event(first),
            "log" => self.wait_for_log(first),
            "quarantined" => self.quarantined(first),
            "config" => {
                self.configure(first);
                Ok(())
            }
            "kill" | "stop" | "start" | "restart" | "rebuild" => self.process(&step.verb),
            "let" => self.name(first),
            other => Err(format!("no such step: {other}")),
        }
    }

    fn configure(&mut self, line: &str) {
        if std::mem::take(&mut self.configured) {
            self.config.clear();
        }
        self.config.push(line.to_owned());
    }

    fn server(&mut self) -> &mut Server {
        let datadir = self.home.path().join("data");
        let config = self.config.join("\n");
        self.configured = true;
        self.server
            .get_or_insert_with(|| Server::start(&datadir, &config))
    }

    fn process(&mut self, what: &str) -> Result<(), String> {
        let config = (!self.configured).then(|| self.config.join("\n"));
        self.connections.clear();
        self.ended_boots
            .extend(self.stamp.iter().map(|s| s.boot.clone()));
        let server = self.server();
        if let Some(config) = config {
            server.reconfigure(&config);
        }
        match what {
            "kill" => server.kill(),
            "stop" => {
                let status = server.terminate();
                if !status.success() {
                    return Err(format!("SIGTERM ended it with {status}"));
                }
            }
            "rebuild" => {
                let output = common::run([
                    "db".as_ref(),
                    "rebuild".as_ref(),
                    "--config".as_ref(),
                    server.config().as_os_str(),
                ]);
                if !output.status.success() {
                    return Err(common::said(&output));
                }
                // A new index is a new store.
                self.stamp = None;
            }
            _ => server.restart(),
        }
        Ok(())
    }

    /// `1 quarantine /a --from 3`: its exit code, and the command but for the configuration.
    fn operator(&mut self, rest: &str) -> Result<(), String> {
        let (code, command) = rest.split_once(' ').ok_or("exit code and command")?;
        let config = self.server().config();
        let mut arguments: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        arguments.extend(["--config".into(), config.into_os_string()]);
        let output = common::run(arguments);
        self.exchange = common::said(&output);
        match output.status.code() {
            Some(status) if status == parse::<i32>(code)? => Ok(()),
            status => Err(format!("ended with {status:?}")),
        }
    }

    fn name(&mut self, rest: &str) -> Result<(), String> {
        let (name, value) = rest.split_once(" = ").ok_or("name = value")?;
        let value = match value.strip_prefix('$') {
            Some(_) => self.names.fill(value)?.into_bytes(),
            None => self.names.bytes(value)?,
        };
        self.names.set(name, value);
        Ok(())
    }
}

fn words<const N: usize>(text: &str) -> Result<[&str; N], String> {
    let words: Vec<&str> = text.split(' ').collect();
    words
        .try_into()
        .map_err(|_| format!("{N} words, not `{text}`"))
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("no number: `{text}`"))
}
