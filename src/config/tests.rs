//! What a configuration may say. What each bad one is told is in `faults`.

mod faults;
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
