//! Scripts: the contract as requests and answers, one step a line.
//!
//! ```text
//! # A repeat is harmless, whatever its condition.            a comment
//! > PUT /a 0-4/5 | If-None-Match: * | "hello"                a request: Content-Range, headers, body
//! < 201 L=5                                                  its answer
//! = /a "hello" | row 5                                       the file, and its row in the index
//! ```
//!
//! An indented line continues the one above. A request gets Host and Content-Length unless it
//! names them (`-Host` leaves one out), so a Content-Length beyond the body says that more will
//! follow. These steps there are; `@name ` in front takes another connection than the first.
//!
//! | step | does |
//! |---|---|
//! | `> METHOD target [range] \| Header: value \| "body"` | sends a request |
//! | `>> ...` | the same, again while the answer is 503; HEAD until the answer is as expected |
//! | `send "bytes"` | sends these bytes and nothing else |
//! | `finish`, `reset` | ends the connection by FIN or by RST |
//! | `< 409[,410] [token] [L=5] [tail=8] [closed] \| Header: value \| -Header` | reads an answer and checks it, and all that [`crate::contract`] says of every answer |
//! | `< nothing` | the server ends the connection without a word |
//! | `= /path "bytes" \| row 5 [state]`, `= /path none \| row none` | checks file and row |
//! | `= same` | everything that was checked so far is still so |
//! | `event kind /path x1`, `log LEVEL text x1`, `quarantined "bytes"` | waits for these |
//! | `grown /path 5` | waits until the file has more bytes than that |
//! | `row /path 5 [state]`, `row /path "bytes" [state]`, `listed /path` | there is such a row; there is one shown like this |
//! | `high_water /path "bytes"`, `high_water /path none` | the row's high-water mark is that of these bytes |
//! | `usage client 2 15`, `usage client none` | waits until so many files with so many bytes are charged to it |
//! | `differ $one $other` | they do |
//! | `disk append /path "bytes"`, `write /path at "bytes"`, `truncate /path 3`, `rename /from /to`, `unlink /path`, `mkdir`, `copy`, `touch`, `symlink`, `fifo`, `link` | what others do to the datadir |
//! | `config key: value` | for the next start; several lines make one configuration |
//! | `operator 0 quarantine /path` | runs this command, which ends with this code |
//! | `kill`, `stop`, `start`, `restart`, `rebuild` | SIGKILL, SIGTERM, a start, SIGKILL and start, `db rebuild` |
//! | `let name = "bytes"`, `let name = $OTHER` | names a value; `$STORE`, `$BOOT`, `$NUMBER` are the newest stamp |

use std::path::Path;

use crate::stage::Stage;

/// One line, with those that continue it.
pub struct Step {
    pub line: usize,
    /// Name of the connection.
    pub on: String,
    pub verb: String,
    /// What follows the verb, parted at each ` | `.
    pub items: Vec<String>,
}

/// Plays a script from its first line to its last; panics at the first line that does not hold.
pub fn play(name: &str, text: &str) {
    let mut stage = Stage::new();
    for step in parse(text) {
        if let Err(problem) = stage.perform(&step) {
            let file = Path::new("tests/server/scripts").join(name);
            panic!(
                "{}.script:{}: {} {}\n{problem}\n--- last exchange\n{}",
                file.display(),
                step.line,
                step.verb,
                step.items.join(" | "),
                stage.last_exchange(),
            );
        }
    }
}

fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            let step = steps.last_mut().expect("a line to continue");
            step.items.extend(items(content));
            continue;
        }
        let (on, content) = match content.strip_prefix('@') {
            Some(rest) => rest.split_once(' ').expect("a step behind the name"),
            None => ("", content),
        };
        let (verb, rest) = content.split_once(' ').unwrap_or((content, ""));
        steps.push(Step {
            line: number + 1,
            on: on.to_owned(),
            verb: verb.to_owned(),
            items: items(rest.trim()),
        });
    }
    steps
}

/// Parts at each ` | ` that is not inside a string.
fn items(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '|' if !quoted => {
                items.push(String::new());
                continue;
            }
            '"' => quoted = !quoted,
            '\\' if quoted => {
                let last = items.last_mut().expect("never empty");
                last.push('\\');
                last.extend(characters.next());
                continue;
            }
            _ => {}
        }
        items.last_mut().expect("never empty").push(character);
    }
    items.iter().map(|item| item.trim().to_owned()).collect()
}

#[test]
fn lines_become_steps() {
    let steps = parse("# no\n\n> PUT /a | \"x | \\\" y\"\n    A: b | C: d\n@2 < 503 busy\nkill\n");
    let read: Vec<_> = steps
        .iter()
        .map(|s| (s.line, s.on.as_str(), s.verb.as_str(), s.items.join("+")))
        .collect();
    assert_eq!(
        read,
        [
            (3, "", ">", "PUT /a+\"x | \\\" y\"+A: b+C: d".to_owned()),
            (5, "2", "<", "503 busy".to_owned()),
            (6, "", "kill", String::new()),
        ]
    );
}
