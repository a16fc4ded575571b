//! What each bad configuration is told.

use super::*;

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
