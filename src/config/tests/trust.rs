//! What a configuration may say of certificates and of who may do what.

use std::path::PathBuf;

use super::{CLIENT, SERVER, check, client, client_with, server};
use crate::config::tls;

#[test]
fn what_a_client_says_of_tls() {
    let tls = |line: &str| format!("{}  tls: {line}\n", client_with("http://h", "https://h"));
    let settings = client(&tls(
        "{ca: /ca, cert: /c, key: /k, server_name: Log1.example.net}",
    ));
    let said = settings.destinations[0].tls().unwrap();
    assert_eq!(said.ca, Some(PathBuf::from("/ca")));
    assert_eq!(said.own.as_ref().unwrap().key, PathBuf::from("/k"));
    assert_eq!(said.server_name.to_str(), "Log1.example.net");
    let settings = client(&tls("{}"));
    assert_eq!(
        settings.destinations[0].tls().unwrap().server_name.to_str(),
        "h"
    );

    let at = "destinations[0].tls";
    for (line, key, problem, hint) in [
        ("{cert: /c}", "cert", "needs `key`", "private key"),
        ("{key: /k}", "key", "needs `cert`", "certificate"),
        ("{ca: x.pem}", "ca", "absolute path", "/"),
        ("{cacert: /x}", "cacert", "unknown key", "`cert`"),
        (
            "{insecure: true}",
            "insecure",
            "unknown key",
            "there are ca, ",
        ),
        (
            "{server_name: 'a b'}",
            "server_name",
            "host name",
            "certificate",
        ),
    ] {
        check(&tls(line), (8, &format!("{at}.{key}"), problem, hint));
    }
    check(&tls("yes"), (8, at, "expected the keys", ""));
    let plain = format!("{CLIENT}  tls: {{cert: /c, key: /k}}\n");
    check(&plain, (8, at, "http://h:1/x/ is plain HTTP", "https://"));
}

#[test]
fn what_a_server_says_of_trust() {
    let text = "tls: {cert: /c, key: /k, client_ca: /ca}\nauthorize: [{identity: a, paths: /}]\n";
    let settings = server(&format!("{SERVER}{text}"));
    assert!(matches!(
        settings.tls.unwrap().clients,
        tls::ClientAuth::Required(_)
    ));
    assert_eq!(settings.authorize.len(), 1);

    let ca = "cert: /c, key: /k, client_ca: /ca";
    for (line, key, problem, hint) in [
        (
            "tls: {cert: /c}".to_owned(),
            "tls",
            "lacks the key `key`",
            "private key",
        ),
        (
            "tls: {cert: /c, key: /k, crl: /l}".to_owned(),
            "tls.crl",
            "needs `client_ca`",
            "revokes",
        ),
        (
            "tls: {cert: /c, key: /k, client_auth: required}".to_owned(),
            "tls.client_auth",
            "needs `client_ca`",
            "CA",
        ),
        (
            "tls: {cert: /c, key: /k, client_auth: no}".to_owned(),
            "tls.client_auth",
            "expected none or optional or required",
            "",
        ),
        (
            format!("tls: {{{ca}, client_auth: none}}"),
            "tls.client_ca",
            "asks nobody",
            "required",
        ),
        (
            format!("tls: {{{ca}}}"),
            "tls",
            "no `authorize`",
            "{identity}",
        ),
        (
            format!("tls: {{{ca}}}\nauthorize: [{{identity: a, paths: /}}]\nallow: ::1"),
            "allow",
            "every client needs one",
            "leave it out",
        ),
        (
            "authorize: [{identity: a, paths: /}]".to_owned(),
            "authorize",
            "no client has",
            "`allow`",
        ),
        ("authorize: []".to_owned(), "authorize", "empty", ""),
        (
            "authorize: [{identity: a}]".to_owned(),
            "authorize[0]",
            "lacks the key `paths`",
            "paths",
        ),
        (
            "authorize: [{identity: '[', paths: /}]".to_owned(),
            "authorize[0].identity",
            "not a pattern",
            "",
        ),
        (
            "authorize: [{identity: a, paths: [/x, x]}]".to_owned(),
            "authorize[0].paths",
            "slash",
            "/{identity}/",
        ),
        (
            "authorize: [{identity: a, paths: '/{host}'}]".to_owned(),
            "authorize[0].paths",
            "unknown substitution",
            "/{identity}/",
        ),
        ("allow: []".to_owned(), "allow", "empty", ""),
        (
            "allow: [10.0.0.1/8]".to_owned(),
            "allow",
            "10.0.0.1/8",
            "192.0.2.0/24",
        ),
    ] {
        let lines = line.lines().count();
        check(
            &format!("{SERVER}{line}\n"),
            (1 + lines, key, problem, hint),
        );
    }
}

#[test]
fn what_a_server_says_of_limits() {
    let limits = server(&format!(
        "{SERVER}limits: {{file_size: 1GiB, requests: 7}}\n"
    ))
    .limits;
    assert_eq!((limits.file_size.bytes(), limits.requests), (1 << 30, 7));
    assert_eq!(limits.connections, crate::limits::SERVER_CONNECTIONS);
    for (line, key, problem, hint) in [
        ("{requests: 0}", "limits.requests", "from 1 to", ""),
        (
            "{connections: 1e3}",
            "limits.connections",
            "whole number",
            "",
        ),
        ("{file_size: 0}", "limits.file_size", "a file can have", ""),
        (
            "{file_size: 8388608TiB}",
            "limits.file_size",
            "a file can have",
            "",
        ),
        (
            "{conections: 1}",
            "limits.conections",
            "unknown key",
            "`connections`",
        ),
    ] {
        check(
            &format!("{SERVER}limits: {line}\n"),
            (2, key, problem, hint),
        );
    }
}

#[test]
fn what_a_server_says_of_quotas() {
    let read = |line: &str| server(&format!("{SERVER}quota: {line}\n")).quota;
    assert_eq!(read("{files: 7}").files, Some(7));
    let quota = read("{bytes: 100GiB}");
    assert_eq!((quota.files, quota.bytes), (None, Some(100 << 30)));
    assert!(!server(SERVER).quota.is_bound());
    for (line, key, problem, hint) in [
        ("{}", "quota", "bounds nothing", "{files: "),
        ("10GiB", "quota", "expected the keys of a `quota`", ""),
        ("{files: 0}", "quota.files", "from 1 to", ""),
        ("{files: 10k}", "quota.files", "whole number", ""),
        ("{bytes: 0}", "quota.bytes", "at least 1 byte", ""),
        ("{bytes: lots}", "quota.bytes", "unit such as", ""),
        ("{byte: 1}", "quota.byte", "unknown key", "`bytes`"),
    ] {
        check(&format!("{SERVER}quota: {line}\n"), (2, key, problem, hint));
    }
    let tls = "tls: {cert: /c, key: /k, client_ca: /ca}\n";
    let rule = |quota: &str| {
        format!("{SERVER}{tls}authorize: [{{identity: a, paths: /, quota: {quota}}}]\n")
    };
    let settings = server(&rule("{bytes: 5}"));
    assert_eq!(settings.authorize[0].quota().bytes, Some(5));
    let key = "authorize[0].quota";
    check(&rule("{}"), (3, key, "bounds nothing", "{files: "));
}

#[test]
fn what_a_server_says_of_files() {
    let read = |line: &str| server(&format!("{SERVER}files: {line}\n")).delivered;
    for mode in ["0644", "'0644'", "\"0644\"", "0o644", "'0o644'"] {
        assert_eq!(read(&format!("{{mode: {mode}}}")).mode, 0o644, "{mode}");
    }
    let files = read("{directory_mode: 0755, owner: 12, group: adm}");
    assert_eq!((files.mode, files.directory_mode), (0o640, 0o755));
    assert_eq!(files.owner.as_deref(), Some("12"));
    assert_eq!(files.group.as_deref(), Some("adm"));
    for (line, key, problem, hint) in [
        ("{mode: 416}", "files.mode", "leading 0", "that is 0640"),
        ("{mode: 640}", "files.mode", "leading 0", "write 0640"),
        ("{mode: 0648}", "files.mode", "octal number", ""),
        ("{mode: 0640x}", "files.mode", "octal number", ""),
        ("{mode: rw-r-----}", "files.mode", "octal number", ""),
        ("{mode: 04640}", "files.mode", "from 0000 to 0777", ""),
        (
            "{mode: 0666}",
            "files.mode",
            "everybody could write",
            "0664",
        ),
        ("{mode: 0440}", "files.mode", "could not go on", "0640"),
        (
            "{directory_mode: 0o777}",
            "files.directory_mode",
            "everybody",
            "0775",
        ),
        (
            "{directory_mode: 0640}",
            "files.directory_mode",
            "go on",
            "0740",
        ),
        ("{owner: [a, b]}", "files.owner", "one name", ""),
        ("{user: a}", "files.user", "unknown key", "there are mode"),
    ] {
        check(&format!("{SERVER}files: {line}\n"), (2, key, problem, hint));
    }
}

/// An example with its lines about certificates and identities no comments any more.
fn uncommented(text: &str) -> String {
    let line = "(?m)^#(tls:|authorize:|limits:|quota:|files:|- identity: .*|- url: .*|(?:  |    )[a-z_]+:.*)$";
    let line = regex::Regex::new(line).unwrap();
    line.replace_all(text, "$1").into_owned()
}

#[test]
fn what_our_examples_comment_out_is_right_too() {
    let text = include_str!("../../../packaging/shaftlog-server-config.yaml");
    let settings = server(&uncommented(text));
    assert!(settings.tls.unwrap().clients.ca().is_some());
    assert_eq!(settings.authorize.len(), 1);
    assert_eq!(settings.limits.connections_per_peer, Some(64));
    assert_eq!(settings.quota.files, Some(10_000));
    assert_eq!(settings.delivered.group.as_deref(), Some("adm"));

    let text = include_str!("../../../packaging/shaftlog-client-config.yaml");
    // The commented destination stands before the key that it belongs to.
    let text = uncommented(text).replace("\ndestinations:\n", "\n");
    let settings = client(&text.replace("\n- url: https", "\ndestinations:\n- url: https"));
    assert_eq!(settings.destinations.len(), 3);
    assert!(settings.destinations[0].tls().unwrap().own.is_some());
}
