//! What a configuration may say, and what each bad one is told.

mod trust;

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits;

const CLIENT: &str = r#"datadir: /srv/client
scan_paths:
- name: a
  pattern: /var/log/a*
  exclude: "*.gz"
destinations:
- url: http://h:1/x/
"#;
const SERVER: &str = "datadir: /srv/server\n";

fn environment() -> Environment {
    Environment {
        hostname: "Host name".to_owned(),
        machine_id: |datadir| Ok(format!("id of {}", datadir.ends_with("client"))),
        user_id: |name| {
            Ok([("root", 0), ("app", 7)]
                .iter()
                .find(|(user, _)| *user == name)
                .map(|(_, uid)| *uid))
        },
    }
}

fn read(bytes: impl AsRef<[u8]>) -> Result<Settings, ConfigError> {
    parse(Path::new("x.yaml"), bytes.as_ref(), &environment())
}

fn client(text: &str) -> ClientSettings {
    parse_client(Path::new("x.yaml"), text.as_bytes(), &environment()).unwrap()
}

fn server(text: &str) -> ServerSettings {
    parse_server(Path::new("x.yaml"), text.as_bytes()).unwrap()
}

fn fault(bytes: impl AsRef<[u8]>) -> Fault {
    match read(bytes) {
        Err(ConfigError::Content { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

/// The client's example with one line of it replaced.
fn client_with(line: &str, other: &str) -> String {
    assert!(CLIENT.contains(line));
    CLIENT.replace(line, other)
}

#[test]
fn our_examples_hold_what_they_say() {
    let file = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("packaging")
            .join(name)
    };
    let client = load_client(&file("shaftlog-client-config.yaml"), &environment()).unwrap();
    assert_eq!(client.patterns.len(), 5);
    assert_eq!(client.destinations.len(), 2);
    assert_eq!(client.connections, limits::CONNECTIONS);
    assert_eq!(client.scan_interval, limits::SCAN_INTERVAL);
    assert_eq!(client.status_interval, limits::STATUS_INTERVAL);
    let interval = client.periodic_trigger_interval;
    assert_eq!(interval, limits::PERIODIC_TRIGGER_INTERVAL);

    let server = load_server(&file("shaftlog-server-config.yaml")).unwrap();
    assert_eq!(server.listen_port, limits::LISTEN_PORT);
    assert_eq!(server.min_free, limits::MIN_FREE);
    assert_eq!(server.idle_timeout, limits::IDLE_TIMEOUT);
    assert_eq!(server.status_interval, limits::STATUS_INTERVAL);
    assert_eq!(server.unconditional, Unconditional::Refuse);
    let valid = server.validate_regex.unwrap();
    assert!(valid.is_match(b"/host/sudo-io/00/00/01/log"));
    assert!(!valid.is_match(b"/host/.hidden"));
}

#[test]
fn defaults_are_the_originals() {
    let settings = client(CLIENT);
    assert_eq!(settings.scan_interval, Duration::from_secs(30));
    assert_eq!(settings.status_interval, Duration::from_secs(300));
    assert_eq!(settings.periodic_trigger_interval, Duration::from_secs(1));
    assert_eq!(settings.connections, 32);
    assert_eq!(settings.logfile, None);

    let settings = server(SERVER);
    assert_eq!(settings.listen_port, 10655);
    assert_eq!(settings.bind_address.to_string(), "0.0.0.0");
    assert_eq!(settings.min_free, 256 << 20);
    assert_eq!(settings.unconditional, Unconditional::Refuse);
    assert!(settings.validate_regex.is_none());
}

#[test]
fn every_key_is_heard() {
    let text = client_with("datadir: /srv/client\n", "datadir: /srv//client/\n")
        + "logfile: /x.log\nscan_interval: 1500\nstatus_interval: \"5m\"\n\
           periodic_trigger_interval: 2s 500ms\nconnections: 9\n";
    let settings = client(&text);
    assert_eq!(settings.datadir, PathBuf::from("/srv/client"));
    assert_eq!(settings.logfile, Some(PathBuf::from("/x.log")));
    assert_eq!(settings.scan_interval, Duration::from_millis(1500));
    assert_eq!(settings.status_interval, Duration::from_secs(300));
    assert_eq!(
        settings.periodic_trigger_interval,
        Duration::from_millis(2500)
    );
    assert_eq!(settings.connections, 9);
    assert!(settings.patterns[0].selects(b"/var/log/a1"));
    assert!(!settings.patterns[0].selects(b"/var/log/a1.gz"));

    let text = SERVER.to_owned()
        + "validate_regex: ^/x\nlogfile: /x.log\nlisten_port: 0\nbind_address: '::1'\n\
           idle_timeout: 7\nstatus_interval: 1h\nmin_free: 1GiB\nunconditional: allow\n";
    let settings = server(&text);
    assert!(settings.validate_regex.unwrap().is_match(b"/xy"));
    assert_eq!(settings.logfile, Some(PathBuf::from("/x.log")));
    assert_eq!(settings.listen_port, 0);
    assert_eq!(settings.bind_address.to_string(), "::1");
    assert_eq!(settings.idle_timeout, Duration::from_millis(7));
    assert_eq!(settings.status_interval, Duration::from_secs(3600));
    assert_eq!(settings.min_free, 1 << 30);
    assert_eq!(settings.unconditional, Unconditional::Allow);
}

#[test]
fn owners_are_users_or_numbers_and_have_a_default() {
    let admits = |more: &str, owner: &str| {
        let text = client_with(
            "  pattern: /var/log/a*\n",
            &format!("  pattern: /x\n{owner}"),
        );
        let owners = client(&(text + more)).patterns[0].owners.clone();
        [0, 7, 1000].map(|uid| owners.admit(uid))
    };
    assert_eq!(admits("", ""), [true, true, true]);
    assert_eq!(admits("", "  owner: app\n"), [false, true, false]);
    assert_eq!(admits("", "  owner: [app, 1000]\n"), [false, true, true]);
    assert_eq!(admits("", "  owner: ['0']\n"), [true, false, false]);
    assert_eq!(admits("owner: 1000\n", ""), [false, false, true]);
    let own = "  owner: app\n";
    assert_eq!(admits("owner: 1000\n", own), [false, true, false]);
    let own = "  owner: any\n";
    assert_eq!(admits("owner: 1000\n", own), [true, true, true]);

    for (owner, expected) in [
        (
            "nobody-here",
            "is neither a user id nor a user of /etc/passwd",
        ),
        ("007", "is neither a user id"),
        ("-1", "is neither a user id"),
        ("4294967296", "is neither a user id"),
        ("[any, app]", "\"any\" is neither"),
        ("[]", "the list is empty"),
        ("1.5", "expected a word or a whole number"),
        ("{app: 1}", "expected a word or a whole number"),
    ] {
        let text = client_with(
            "  pattern: /var/log/a*\n",
            &format!("  pattern: /x\n  owner: {owner}\n"),
        );
        let fault = fault(text);
        assert_eq!(
            (fault.line, &*fault.key),
            (5, "scan_paths[0].owner"),
            "{owner}"
        );
        assert!(fault.problem.contains(expected), "{owner}: {fault}");
    }
}

#[test]
fn destinations_are_filled_in() {
    let url = |url: &str| {
        let text = client_with("http://h:1/x/", url);
        client(&text).destinations[0].to_string()
    };
    assert_eq!(url("http://h:1/{hostname}/x"), "http://h:1/Host%20name/x/");
    assert_eq!(url("http://h/{machine}"), "http://h/id%20of%20true/");
    assert_eq!(url("http://log.example/"), "http://log.example/");
}

#[test]
fn the_machines_id_is_asked_only_when_named() {
    let nobody = Environment {
        hostname: "h".to_owned(),
        machine_id: |_| Err(std::io::Error::other("no id")),
        user_id: |_| Err(std::io::Error::other("no users")),
    };
    let file = Path::new("x.yaml");
    assert!(parse(file, CLIENT.as_bytes(), &nobody).is_ok());
    let text = client_with("/x/", "/{machine}/");
    let error = parse(file, text.as_bytes(), &nobody).unwrap_err();
    assert!(matches!(error, ConfigError::MachineId { .. }), "{error}");
}

#[test]
fn what_a_file_is() {
    for (text, expected) in [
        ("datadir: /x\nscan_paths: []\n", Kind::Client),
        ("destinations: []\n", Kind::Client),
        ("datadir: /x\nscanpaths: []\n", Kind::Client),
        ("datadir: /x\nlogfile: /y\n", Kind::Server),
        ("datadir: /x\nlisten-port: 1\n", Kind::Server),
    ] {
        let (_, node) = document(Path::new("x.yaml"), text.as_bytes()).unwrap();
        assert_eq!(kind_of(&node), expected, "{text}");
    }
    let file = Path::new("x.yaml");
    let error = parse_server(file, CLIENT.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.yaml:2: scan_paths: this is a client's configuration, not a server's"
    );
    let text = SERVER.to_owned() + "listen_port: 1\n";
    let error = parse_client(file, text.as_bytes(), &environment()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "x.yaml:2: listen_port: this is a server's configuration, not a client's"
    );
}

#[test]
fn a_byte_order_mark_says_nothing() {
    assert_eq!(client(&format!("\u{feff}{CLIENT}")).connections, 32);
    let fault = fault(format!("\u{feff}{CLIENT}connections: 0\n"));
    assert_eq!(fault.line, 8, "{fault}");
}

#[test]
fn text_that_is_no_configuration() {
    let bomb: Vec<String> = ('b'..'j')
        .zip('a'..)
        .map(|(name, of)| format!("{name}: &{name} [{}]", vec![format!("*{of}"); 9].join(",")))
        .collect();
    let bomb = bomb.join("\n");
    let utf16: Vec<u8> = CLIENT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, line, words) in [
        (Vec::new(), 1, "is empty"),
        (b"# a\n\n---\n".to_vec(), 1, "is empty"),
        (b"hello\n".to_vec(), 1, "found the text \"hello\""),
        (b"- a\n".to_vec(), 1, "found a list"),
        (
            format!("a: &a [x,x,x,x,x,x,x,x,x]\n{bomb}").into_bytes(),
            1,
            "multiply",
        ),
        (
            format!(
                "#{}\na: &a [x,x,x,x,x,x,x,x,x]\n{bomb}",
                "x".repeat(300_000)
            )
            .into_bytes(),
            3,
            "multiply",
        ),
        (format!("a:\n  {}", "[".repeat(5000)).into_bytes(), 2, ""),
        (
            format!("a:\n  {}{}", "[".repeat(500), "]".repeat(500)).into_bytes(),
            2,
            "recursion",
        ),
        (
            format!("{CLIENT}\tconnections: 1\n").into_bytes(),
            8,
            "spaces, not with tabs",
        ),
        (
            format!("{CLIENT}x:\n\t- a\n").into_bytes(),
            9,
            "spaces, not with tabs",
        ),
        (
            format!("{CLIENT}x: \t@a\n").into_bytes(),
            8,
            "spaces, not with tabs",
        ),
        (utf16, 1, "NUL"),
        ([CLIENT.as_bytes(), b"# \xe4\n"].concat(), 8, "UTF-8"),
        ([CLIENT.as_bytes(), b"a: \0\n"].concat(), 8, "NUL"),
        (
            format!("{CLIENT}---\n{CLIENT}").into_bytes(),
            8,
            "second document",
        ),
        (
            format!("{CLIENT}a: \"b\n\n\n").into_bytes(),
            8,
            "never closed",
        ),
        (format!("{CLIENT}a: b: c\n").into_bytes(), 8, "colon"),
        (format!("{CLIENT}1: c\n").into_bytes(), 8, "name of a key"),
    ] {
        let fault = fault(&bytes);
        assert_eq!(fault.line, line, "{fault}");
        assert!(fault.to_string().contains(words), "{words}: {fault}");
    }
}

/// The line's number, its key, what is said of it, and the hint.
type Told<'a> = (usize, &'a str, &'a str, &'a str);

fn check(text: &str, told: Told<'_>) {
    let fault = fault(text);
    let (line, key, problem, hint) = told;
    assert_eq!(
        (fault.line, fault.key.as_str()),
        (line, key),
        "{text}\n{fault}"
    );
    assert!(fault.problem.contains(problem), "{text}\n{fault}");
    assert!(fault.hint.unwrap_or_default().contains(hint), "{text}");
}

#[test]
fn bad_keys_and_values_of_a_client() {
    let name = "scan_paths[0].name";
    let pattern = "scan_paths[0].pattern";
    let exclude = "scan_paths[0].exclude";
    let url = "destinations[0].url";
    for (line, other, told) in [
        (
            "name: a",
            "name: a\n  name: b",
            (4, "", "`name` stands here a second time", ""),
        ),
        (
            "name: a",
            "name: true",
            (3, name, "truth value true", "quotes"),
        ),
        ("name: a", "name: 7", (3, name, "number 7", "quotes")),
        (
            "name: a",
            "name:",
            (3, name, "no value", "leave the key out"),
        ),
        (
            "  pattern: /var/log/a*\n",
            "",
            (3, "scan_paths[0]", "lacks the key `pattern`", "glob"),
        ),
        (
            "  exclude",
            "  exclud",
            (5, "scan_paths[0].exclud", "unknown key", "`exclude`"),
        ),
        ("/var/log/a*", "log/*", (4, pattern, "absolute", "")),
        (
            "/var/log/a*",
            "'/var/log/[a*'",
            (4, pattern, r"or write \[", ""),
        ),
        (
            "/var/log/a*",
            "'/var/{log,spool/*'",
            (4, pattern, r"or write \{", ""),
        ),
        ("\"*.gz\"", "'*.{gz,xz'", (5, exclude, r"or write \{", "")),
        (
            "/var/log/a*",
            "/**/*.log",
            (4, pattern, "the whole machine", "directory"),
        ),
        (
            "/var/log/a*",
            "/srv/**",
            (4, pattern, "into the datadir /srv/client", "/srv/client/**"),
        ),
        (
            "/var/log/a*",
            "/var/@(a|b)",
            (4, pattern, "not supported", ""),
        ),
        ("\"*.gz\"", "*.gz", (5, "", "alias", "begins with *")),
        ("\"*.gz\"", "*gz", (5, "", "anchor", "begins with *")),
        ("\"*.gz\"", "!x", (5, "", "", "begins with !")),
        ("\"*.gz\"", "'!x'", (5, exclude, "leading !", "")),
        ("\"*.gz\"", "{a}", (5, exclude, "a mapping", "quotes")),
        ("\"*.gz\"", "[a, 1]", (5, exclude, "the number 1", "")),
        ("\"*.gz\"", "a/b", (5, exclude, "without slash", "")),
        (
            "exclude: \"*.gz\"",
            "rename: '{x}'",
            (5, "scan_paths[0].rename", "{x}", "{mtime}"),
        ),
        (
            "exclude: \"*.gz\"",
            "rename: ../x",
            (5, "scan_paths[0].rename", "`..`", ""),
        ),
        (
            "exclude: \"*.gz\"",
            "rename: {name}.{ino}",
            (5, "", "", "quotes"),
        ),
        (
            "exclude: \"*.gz\"",
            "regex_from: a",
            (5, "scan_paths[0].regex_from", "needs", ""),
        ),
        (
            "exclude: \"*.gz\"",
            "regex_to: a",
            (5, "scan_paths[0].regex_to", "needs", ""),
        ),
        (
            "exclude: \"*.gz\"",
            "regex_from: (?=a)\n  regex_to: b",
            (
                5,
                "scan_paths[0].regex_from",
                "look-around",
                "without lookahead",
            ),
        ),
        (
            "exclude: \"*.gz\"",
            "regex_from: (a\n  regex_to: b",
            (5, "scan_paths[0].regex_from", "unclosed group", ""),
        ),
        (
            "exclude: \"*.gz\"",
            "regex_from: a\n  regex_to: b\n  rename: c",
            (7, "scan_paths[0].rename", "both", "keep one"),
        ),
        (
            "exclude: \"*.gz\"",
            "volatile: []",
            (5, "scan_paths[0].volatile", "the list is empty", ""),
        ),
        (
            "exclude: \"*.gz\"",
            "volatile: {offset: 21, length: 1}",
            (5, "scan_paths[0].volatile", "a list", "- "),
        ),
        (
            "exclude: \"*.gz\"",
            "volatile: [{offset: 21}]",
            (
                5,
                "scan_paths[0].volatile[0]",
                "lacks the key `length`",
                "bytes",
            ),
        ),
        (
            "exclude: \"*.gz\"",
            "volatile: [{offset: 21, length: 1025}]",
            (
                5,
                "scan_paths[0].volatile[0].length",
                "a whole number from 1 to 1024",
                "",
            ),
        ),
        (
            "exclude: \"*.gz\"",
            "volatile: [{offset: 21, length: 3}, {offset: 23, length: 1}]",
            (
                5,
                "scan_paths[0].volatile[1].offset",
                "bytes 23 to 24 overlap the entry of bytes 21 to 24",
                "once",
            ),
        ),
        (
            "destinations:\n- url: http://h:1/x/",
            "destinations: []",
            (6, "destinations", "empty", ""),
        ),
        (
            "- url: http://h:1/x/",
            "- http://h:1/x/",
            (7, "destinations[0]", "(url)", ""),
        ),
        (
            "- url: http",
            "  url: http",
            (7, "destinations", "expected a list", "- "),
        ),
        (
            "http://h",
            "http://u:p@h",
            (7, url, "user name or password", ""),
        ),
        (
            "http://h",
            "h",
            (7, url, "begins with https:// or http://", "as in"),
        ),
        ("h:1/", "h:70000/", (7, url, "port", "as in")),
        (
            "/x/",
            "/{host}/",
            (7, url, "{host}", "{hostname} and {machine}"),
        ),
        ("/x/", "/../", (7, url, "`..`", "")),
        (
            "/x/",
            "/x\n- url: HTTP://H:1/x/",
            (8, "destinations[1].url", "in line 7 already", "once"),
        ),
    ] {
        check(&client_with(line, other), told);
    }
}

#[test]
fn bad_keys_and_values_of_a_clients_top_level() {
    for (line, told) in [
        (
            "datadir: /y",
            (8, "", "`datadir` stands here a second time", ""),
        ),
        (
            "conections: 1",
            (8, "conections", "unknown key", "`connections`"),
        ),
        (
            "<<: {a: b}",
            (8, "<<", "unknown key", "there are datadir, "),
        ),
        ("connections: 0", (8, "connections", "from 1 to 64", "")),
        (
            "logfile: no",
            (8, "logfile", "absolute path", "beginning with /"),
        ),
        ("logfile: /a/../b", (8, "logfile", "`..`", "detours")),
        (
            "scan_interval: 0",
            (8, "scan_interval", "at least 1 millisecond", ""),
        ),
        (
            "scan_interval: -1",
            (8, "scan_interval", "found the number -1", ""),
        ),
        (
            "scan_interval: 1.5",
            (8, "scan_interval", "found the number 1.5", ""),
        ),
        ("scan_interval: 9999d", (8, "scan_interval", "366 days", "")),
        (
            "scan_interval: 3 parsecs",
            (8, "scan_interval", "\"30s\"", ""),
        ),
        (
            "scan_interval: '30000'",
            (8, "scan_interval", "\"30s\"", ""),
        ),
        (
            "release_after: soon",
            (8, "release_after", "milliseconds as a whole number", ""),
        ),
        (
            "release_unverified: 1",
            (8, "release_unverified", "expected true or false", ""),
        ),
        (
            "scrub: {rate: 1000}",
            (
                8,
                "scrub.rate",
                "at least 1024 bytes a second",
                "period: never",
            ),
        ),
        ("scrub_rate: 1MiB", (8, "scrub_rate", "unknown key", "")),
        ("warn_free: lots", (8, "warn_free", "\"256MiB\"", "")),
        ("tls: {}", (8, "tls", "unknown key", "there are ")),
    ] {
        check(&format!("{CLIENT}{line}\n"), told);
    }
}

#[test]
fn bad_keys_and_values_of_a_server() {
    for (line, told) in [
        (
            "listen_port: 70000",
            (2, "listen_port", "found the number 70000", ""),
        ),
        (
            "listen_port: -1",
            (2, "listen_port", "found the number -1", ""),
        ),
        ("listen_port: 1e3", (2, "listen_port", "whole number", "")),
        (
            "listen_port: 010655",
            (2, "listen_port", "\"010655\"", "leading zero"),
        ),
        (
            "listen_port: 0o24637",
            (2, "listen_port", "not written in decimal", ""),
        ),
        (
            "listen_port: 0x299d",
            (2, "listen_port", "not written in decimal", ""),
        ),
        (
            "listen_port: '10655'",
            (2, "listen_port", "\"10655\"", "without quotes"),
        ),
        (
            "bind_address: example.net",
            (2, "bind_address", "IP address", "0.0.0.0"),
        ),
        ("bind_address: *", (2, "", "alias", "quotes")),
        (
            "validate_regex: '[a'",
            (2, "validate_regex", "unclosed", ""),
        ),
        (
            "validate_regex: '(?!a)'",
            (2, "validate_regex", "look-around", "lookahead"),
        ),
        (
            "validate_regex: (a{1000}){1000}",
            (2, "validate_regex", "size limit", ""),
        ),
        ("min_free: 1 barrel", (2, "min_free", "\"256MiB\"", "")),
        ("min_free: -1", (2, "min_free", "found the number -1", "")),
        (
            "unconditional: no",
            (2, "unconditional", "expected allow or refuse", ""),
        ),
        (
            "history: true",
            (2, "history", "not built yet", "leave it out"),
        ),
        ("append_only: on", (2, "append_only", "{after: 10m}", "")),
        (
            "append_only: {afer: 10m}",
            (2, "append_only.afer", "unknown key", "`after`"),
        ),
        (
            "append_only: {after: 0}",
            (2, "append_only.after", "at least 1 millisecond", ""),
        ),
        (
            "listenport: 1",
            (2, "listenport", "unknown key", "`listen_port`"),
        ),
    ] {
        check(&format!("{SERVER}{line}\n"), told);
    }
    check(
        "logfile: /x\n",
        (1, "", "a server lacks the key `datadir`", "directory"),
    );
}

#[test]
fn files_become_append_only_when_asked() {
    let after = |line: &str| server(&format!("{SERVER}{line}\n")).append_only;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (line, expected) in [
        ("", None),
        ("append_only: false", None),
        ("append_only: true", seconds(600)),
        ("append_only: {}", seconds(600)),
        ("append_only: {after: 1h}", seconds(3600)),
    ] {
        assert_eq!(after(line), expected, "{line}");
    }
}

#[test]
fn patterns_are_bounded_in_all() {
    let entry = "- {name: a, pattern: '/v/{1..900}', exclude: '{1..900}'}\n";
    let text = client_with("- name: a", &(entry.repeat(6) + "- name: a"));
    check(&text, (8, "scan_paths[5]", "10000 alternatives", "*"));
}

#[test]
fn faults_in_flow_style_have_their_line_too() {
    let text = "{datadir: /srv/c, scan_paths: [{name: a,\n pattern: /v/*}, {name: b,\n  \
                pattern: v}],\n destinations: [{url: http://h/}]}\n";
    check(text, (3, "scan_paths[1].pattern", "absolute", ""));
}

#[test]
fn nothing_of_a_file_talks_to_the_terminal() {
    for text in [
        "\"data\\e[31mdir\\t\": /a\n",
        "datadir: /a\nscan_paths: [{\"\\x07\": 1}]\n",
        "a\tb: [[[[[[)]\n",
    ] {
        let told = read(text).unwrap_err().to_string();
        assert!(!told.chars().any(char::is_control), "{told:?}");
    }
}

#[test]
fn an_excluded_datadir_is_no_fault() {
    let text = client_with("/var/log/a*", "/srv/**/*.log")
        .replace("\"*.gz\"", "[\"*.gz\", /srv/client/**]");
    let pattern = &client(&text).patterns[0];
    assert!(pattern.selects(b"/srv/a.log"));
    assert!(pattern.may_descend(b"/srv/other"));
    assert!(!pattern.may_descend(b"/srv/client"));
    assert!(!pattern.selects(b"/srv/client/a.log"));
}

#[test]
fn only_a_regular_file_of_sane_size_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let fifo = scratch.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let huge = scratch.path().join("huge");
    std::fs::write(&huge, vec![b'#'; CONFIG_BYTES + 1]).unwrap();
    for file in [&fifo, &huge, scratch.path(), &scratch.path().join("none")] {
        let error = load(file, &environment()).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }), "{error}");
        assert!(error.to_string().starts_with(&file.display().to_string()));
    }
}

proptest! {
    /// A configuration that was damaged anywhere is read or refused, and the line told is one
    /// that it has.
    #[test]
    fn damage_is_told_with_a_line_of_the_file(
        is_client: bool,
        at in 0..200_usize,
        cut in 0..20_usize,
        damage in r#"[\t\n :{}\[\]*&!%@"'|>#,?a0-]{0,6}"#,
    ) {
        let mut bytes = if is_client { CLIENT } else { SERVER }.as_bytes().to_vec();
        let at = at.min(bytes.len());
        bytes.splice(at..(at + cut).min(bytes.len()), damage.bytes());
        if let Err(error) = read(&bytes) {
            let lines = bytes.split(|&byte| byte == b'\n').count();
            prop_assert!((1..=lines).contains(&error.line().unwrap()), "{}", error);
        }
    }
}
