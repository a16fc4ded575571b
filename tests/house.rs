//! The house rules that a compiler does not check: which layer may know which. The order is read
//! from `src/lib.rs` itself; the rules are tried on bad source texts before they are trusted.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

#[test]
fn every_source_file_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let house = House::read(&root.join("src/lib.rs"));
    let mut files = rust_files(&root.join("src"));
    if root.join("migrations").exists() {
        files.extend(rust_files(&root.join("migrations")));
    }
    assert!(files.len() > house.layers.len(), "found only {files:?}");

    let mut breaches = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable source");
        let name = file.strip_prefix(root).expect("below the root");
        breaches.extend(house.breaches(name, &text));
    }
    let list: Vec<String> = breaches.iter().map(Breach::to_string).collect();
    assert!(list.is_empty(), "\n{}\n", list.join("\n"));
}

/// Whoever tries the project, `.ci/run` among them, takes README's first two `sh` blocks for the
/// command that does the main job and the one that runs the tests.
#[test]
fn readme_begins_with_its_two_commands() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).expect("readable README");
    let mut blocks = text
        .split("\n```sh\n")
        .skip(1)
        .map(|block| block.split("\n```").next().expect("text before a split"));

    let delivers = blocks.next().expect("a first command");
    assert!(
        delivers.starts_with("cargo run --release -- sync "),
        "{delivers}"
    );
    assert_eq!(blocks.next(), Some("cargo test"));
}

#[test]
fn an_upward_import_is_caught() {
    let house = House::sample();
    for (file, text) in [
        ("src/types.rs", "use crate::wire::Etag;"),
        ("src/types.rs", "use crate::{limits, wire::{self, Etag}};"),
        ("src/types.rs", "use crate::{limits::A, types::{B}, wire};"),
        ("src/types.rs", "fn f() { crate::wire::parse() }"),
        ("src/types.rs", "use super::wire;"),
        ("src/wire/range.rs", "use super::super::index::Store;"),
        ("src/wire/range.rs", "use super::super::{types, index};"),
        ("src/wire/mod.rs", "mod inner { use super::super::cli; }"),
        ("src/wire.rs", "pub use shaftlog::cli;"),
    ] {
        assert_eq!(house.rules_broken(file, text), ["layer"], "{file}: {text}");
    }
}

#[test]
fn a_name_that_is_no_layer_is_caught() {
    let house = House::sample();
    assert_eq!(
        house.rules_broken("src/cli.rs", "use crate::Etag;"),
        ["layer"]
    );
}

#[test]
fn client_and_server_knowing_each_other_is_caught() {
    let house = House::sample();
    assert_eq!(
        house.rules_broken("src/server/accept.rs", "use crate::client::plan;"),
        ["sides"]
    );
    assert_eq!(
        house.rules_broken("src/client/ship.rs", "use crate::server;"),
        ["sides"]
    );
}

#[test]
fn redb_outside_the_index_is_caught() {
    let house = House::sample();
    for text in [
        "use redb;",
        "fn f(_: redb::Database) {}",
        "use {redb::Key};",
    ] {
        assert_eq!(
            house.rules_broken("src/server/mod.rs", text),
            ["redb"],
            "{text}"
        );
    }
    let none: [&str; 0] = [];
    for file in ["src/index/store.rs", "migrations/step_1.rs"] {
        assert_eq!(house.rules_broken(file, "use redb::Database;"), none);
    }
}

#[test]
fn printing_outside_cli_is_caught() {
    let house = House::sample();
    for file in ["src/server/mod.rs", "src/main.rs"] {
        for text in ["fn f() { println!(\"x\") }", "fn f() { std::eprintln!() }"] {
            assert_eq!(house.rules_broken(file, text), ["print"], "{file}: {text}");
        }
    }
    let none: [&str; 0] = [];
    assert_eq!(
        house.rules_broken("src/cli/sync.rs", "fn f() { println!() }"),
        none
    );
}

#[test]
fn disk_or_clock_outside_sys_is_caught() {
    let house = House::sample();
    for text in [
        "use std::fs::OpenOptions;",
        "use std::{fmt, fs};",
        "fn f() { File::open(p) }",
        "use rustix::fs::Mode;",
        "fn f() { tokio::fs::read(p) }",
        "fn f() { SystemTime::now() }",
        "fn f() { jiff::Timestamp::now() }",
    ] {
        assert_eq!(
            house.rules_broken("src/server/mod.rs", text),
            ["sys"],
            "{text}"
        );
    }
    let none: [&str; 0] = [];
    assert_eq!(house.rules_broken("src/sys/disk.rs", "use std::fs;"), none);
    let handle = "use std::fs::File; fn f(file: &File) {}";
    assert_eq!(house.rules_broken("src/server/mod.rs", handle), none);
    let in_tests = "#[cfg(test)] mod tests { use std::fs; }";
    assert_eq!(house.rules_broken("src/server/mod.rs", in_tests), none);
}

#[test]
fn comments_strings_and_downward_imports_are_no_breach() {
    let house = House::sample();
    let text = r##"
        //! use crate::cli; println!
        /* use redb::X; /* nested */ use crate::cli; */
        use crate::{limits::{A, B}, types::C};
        use super::limits;
        mod inner { use super::super::types; use super::helper; }
        const A: &str = "crate::cli redb:: \" println!";
        const B: &str = r#"use crate::cli; " "#;
        const C: char = '"'; const D: &'static str = "use redb::X";
    "##;
    let none: [&str; 0] = [];
    assert_eq!(house.rules_broken("src/wire.rs", text), none);
}

/// One breach of one rule.
struct Breach {
    rule: &'static str,
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(f, "{file}:{}: [{}] {}", self.line, self.rule, self.what)
    }
}

/// The layers from lowest to highest.
struct House {
    layers: Vec<String>,
}

impl House {
    fn read(lib: &Path) -> Self {
        let text = std::fs::read_to_string(lib).expect("src/lib.rs");
        let tokens = tokens(&text);
        let layers: Vec<String> = tokens
            .windows(3)
            .filter(|w| w[0].text == "mod" && w[2].text == ";")
            .map(|w| w[1].text.clone())
            .collect();
        assert!(layers.len() > 5, "lib.rs declares only {layers:?}");
        Self { layers }
    }

    fn sample() -> Self {
        let names = [
            "limits", "types", "wire", "sys", "index", "client", "server", "cli",
        ];
        Self {
            layers: names.map(String::from).to_vec(),
        }
    }

    fn rank(&self, layer: &str) -> Option<usize> {
        self.layers.iter().position(|l| l == layer)
    }

    fn rules_broken(&self, file: &str, text: &str) -> Vec<&'static str> {
        let found = self.breaches(Path::new(file), text);
        let rules: BTreeSet<_> = found.iter().map(|b| b.rule).collect();
        rules.into_iter().collect()
    }

    fn breaches(&self, file: &Path, text: &str) -> Vec<Breach> {
        let home = module_path(file);
        let own = home.first().cloned().unwrap_or_default();
        let is_migration = file.starts_with("migrations");
        let is_test = file.components().any(|c| {
            let name = c.as_os_str().to_string_lossy();
            name == "tests" || name.ends_with("tests.rs")
        });
        let mut found = Vec::new();
        let mut add = |rule, line, what: String| {
            found.push(Breach {
                rule,
                file: file.to_owned(),
                line,
                what,
            });
        };
        for path in paths(&tokens(text), &home) {
            let first = path.segments.first().map_or("", String::as_str);
            if let Some(layer) = path.layer()
                && let Some((rule, why)) = self.forbidden(&own, layer)
            {
                add(rule, path.line, format!("`{own}` names `{layer}`: {why}"));
            }
            if first == "redb" && own != "index" && !is_migration {
                add("redb", path.line, "only `index` knows redb".into());
            }
            if path.is_print() && own != "cli" {
                add("print", path.line, format!("`{}` outside cli", path.last()));
            }
            if path.is_system() && own != "sys" && !is_migration && !is_test && !path.in_test {
                let what = format!("`{}`: only `sys` does this", path.segments.join("::"));
                add("sys", path.line, what);
            }
        }
        found
    }

    /// Why `own` must not name `layer`, if it must not. lib.rs and main.rs have no layer.
    fn forbidden(&self, own: &str, layer: &str) -> Option<(&'static str, &'static str)> {
        let Some(theirs) = self.rank(layer) else {
            return Some(("layer", "lib.rs declares no such layer"));
        };
        let mine = self.rank(own)?;
        if [(own, layer), (layer, own)].contains(&("client", "server")) {
            Some(("sides", "client and server never know each other"))
        } else if theirs > mine {
            Some(("layer", "it is declared later in lib.rs"))
        } else {
            None
        }
    }
}

/// A path as the source writes it; `crate`, `shaftlog` and `super` that reach the crate's root
/// are resolved to a leading `crate`.
struct SourcePath {
    segments: Vec<String>,
    line: usize,
    in_test: bool,
    is_macro: bool,
}

impl SourcePath {
    fn layer(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [root, layer, ..] if root == "crate" => Some(layer),
            _ => None,
        }
    }

    fn last(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }

    fn is_print(&self) -> bool {
        let prints = ["println", "eprintln", "print", "eprint", "dbg"];
        self.is_macro && prints.contains(&self.last())
    }

    fn is_system(&self) -> bool {
        let starts = |head: &[&str]| {
            self.segments.len() >= head.len() && self.segments.iter().zip(head).all(|(a, b)| a == b)
        };
        let ends = |tail: [&str; 2]| self.segments.windows(2).any(|w| w == tail);
        // An open file may be passed around; opening one, and all that it can do, is for `sys`.
        let handle = self.segments == ["std", "fs", "File"];
        let opens = ["open", "create", "create_new", "options"];
        starts(&["std", "fs"]) && !handle
            || opens.iter().any(|call| ends(["File", call]))
            || starts(&["tokio", "fs"])
            || starts(&["rustix"])
            || ends(["SystemTime", "now"])
            || ends(["Timestamp", "now"])
            || ends(["Zoned", "now"])
    }
}

/// Every path in `tokens` with at least two segments or in a `use`, groups spelled out.
fn paths(tokens: &[Token], home: &[String]) -> Vec<SourcePath> {
    let mut scan = Scan {
        tokens,
        at: 0,
        depth: 0,
        modules: Vec::new(),
        home,
        found: Vec::new(),
    };
    while scan.at < tokens.len() {
        scan.step();
    }
    scan.found
}

struct Scan<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    /// Inline modules that the scan is in: name, depth of their braces, whether only for tests.
    modules: Vec<(String, usize, bool)>,
    home: &'a [String],
    found: Vec<SourcePath>,
}

impl Scan<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |t| t.text.as_str())
    }

    fn step(&mut self) {
        match self.text(self.at) {
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                self.modules.retain(|(_, depth, _)| *depth <= self.depth);
            }
            "mod" if self.text(self.at + 2) == "{" => self.enter_module(),
            "use" => {
                self.at += 1;
                self.path(&[]);
                return;
            }
            _ if self.tokens[self.at].is_name() => {
                self.path(&[]);
                return;
            }
            _ => {}
        }
        self.at += 1;
    }

    fn enter_module(&mut self) {
        let name = self.text(self.at + 1).to_owned();
        let before = &self.tokens[self.at.saturating_sub(9)..self.at];
        let before: String = before.iter().map(|t| t.text.as_str()).collect();
        let for_tests = before.contains("cfg(test)");
        self.modules.push((name, self.depth + 1, for_tests));
        self.at += 1;
    }

    /// Reads one path, or the tree of a `use` group, that continues `prefix`.
    fn path(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let line = self.tokens[self.at].line;
        loop {
            if self.text(self.at) == "::" {
                self.at += 1;
            }
            if self.text(self.at) == "{" && (self.at == 0 || self.is_group()) {
                self.group(&segments);
                return;
            }
            if !self.tokens.get(self.at).is_some_and(Token::is_name) {
                break;
            }
            segments.push(self.text(self.at).to_owned());
            self.at += 1;
            if self.text(self.at) != "::" {
                break;
            }
        }
        if segments.is_empty() {
            self.at += 1;
            return;
        }
        let is_macro = self.text(self.at) == "!";
        let in_test = self.modules.iter().any(|(_, _, test)| *test);
        self.found.push(SourcePath {
            segments: self.resolve(segments),
            line,
            in_test,
            is_macro,
        });
    }

    fn is_group(&self) -> bool {
        matches!(self.text(self.at - 1), "::" | "use")
    }

    fn group(&mut self, prefix: &[String]) {
        self.at += 1;
        while self.at < self.tokens.len() {
            match self.text(self.at) {
                "}" => break,
                "," | "*" => self.at += 1,
                "as" => self.at += 2,
                "{" => self.group(prefix),
                _ => self.path(prefix),
            }
        }
        self.at += 1;
    }

    /// Makes `super::super::x` absolute where it reaches the crate's root.
    fn resolve(&self, segments: Vec<String>) -> Vec<String> {
        let rooted = |rest: &[String]| {
            let mut all = vec!["crate".to_owned()];
            all.extend_from_slice(rest);
            all
        };
        let steps = segments.iter().skip_while(|s| *s == "self");
        let supers = steps.take_while(|s| *s == "super").count();
        let here = self.home.len() + self.modules.len();
        if segments[0] == "shaftlog" && segments.len() > 1 && !self.home.is_empty() {
            rooted(&segments[1..])
        } else if supers > 0 && supers == here {
            let rest = segments.iter().position(|s| s == "super").unwrap_or(0) + supers;
            rooted(&segments[rest..])
        } else {
            segments
        }
    }
}

/// The module that a file is: `src/wire/range.rs` is `wire::range`.
fn module_path(file: &Path) -> Vec<String> {
    let Ok(below) = file.strip_prefix("src") else {
        return Vec::new();
    };
    let mut path: Vec<String> = below
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if matches!(
        path.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        path.pop();
    }
    path
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable directory") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// A name, `::` or a single other character; comments, strings and characters are gone.
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_name(&self) -> bool {
        let first = self.text.chars().next();
        first.is_some_and(|c| c.is_alphabetic() || c == '_')
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let length = skipped(&chars[at..]);
        let (length, text) = if length > 0 {
            (length, None)
        } else if chars[at].is_alphanumeric() || chars[at] == '_' {
            let is_word = |c: &&char| c.is_alphanumeric() || **c == '_';
            let word: String = chars[at..].iter().take_while(is_word).collect();
            (word.chars().count(), Some(word))
        } else if chars[at..].starts_with(&[':', ':']) {
            (2, Some("::".to_owned()))
        } else {
            (1, Some(chars[at].to_string()))
        };
        if let Some(text) = text.filter(|t| !t.trim().is_empty()) {
            tokens.push(Token { text, line });
        }
        line += chars[at..at + length]
            .iter()
            .filter(|c| **c == '\n')
            .count();
        at += length;
    }
    tokens
}

/// Length of the comment, string, character or lifetime that `rest` begins with; 0 for none.
fn skipped(rest: &[char]) -> usize {
    let find = |from: usize, what: &[char]| {
        let hit = rest[from..].windows(what.len()).position(|w| w == what);
        hit.map_or(rest.len(), |i| from + i + what.len())
    };
    match rest {
        ['/', '/', ..] => find(2, &['\n']),
        ['/', '*', ..] => block_comment(rest),
        ['r', '"' | '#', ..] => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                return 0;
            }
            let mut end = vec!['"'];
            end.resize(1 + hashes, '#');
            find(2 + hashes, &end)
        }
        ['"', ..] => quoted(rest, '"'),
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted(rest, '\''),
        ['\'', ..] => 1,
        _ => 0,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}
