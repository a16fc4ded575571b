//! Every certificate that is not to be believed, on either side.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use rcgen::{ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use tempfile::TempDir;

use super::authority::{Authority, Certified, dns, put, uri};
use super::speaker::Speaker;
use crate::common::{self, Client, Server, deliver, run, said, yaml};

/// A server that is `localhost`, and lets each client of its CA write below its name.
pub struct Guarded {
    pub home: TempDir,
    pub authority: Authority,
    pub server: Server,
}

impl Guarded {
    pub fn start(extra: &str) -> Self {
        let home = TempDir::new().unwrap();
        let authority = Authority::new("CA");
        let config = configure(home.path(), &authority, &authority.certify("localhost"));
        let config = format!(
            "{config}  client_ca: {}\nauthorize:\n- {{identity: '*', paths: '/{{identity}}/'}}\n",
            yaml(&home.path().join("client_ca.pem"))
        );
        // Lines that begin with a space belong to `tls`, which stands first.
        let (tls, others): (Vec<_>, Vec<_>) = extra.lines().partition(|line| line.starts_with(' '));
        let mut parts: Vec<_> = config.split("authorize:").map(str::to_owned).collect();
        for line in tls {
            writeln!(parts[0], "{line}").unwrap();
        }
        put(&home.path().join("client_ca.pem"), authority.pem(), 0o644);
        let config = parts.join("authorize:") + &others.join("\n");
        let server = Server::start(&home.path().join("server"), &config);
        Self {
            home,
            authority,
            server,
        }
    }

    pub fn meet(&self, own: &Certified) -> Speaker {
        Speaker::meet(self.server.port, &self.authority, Some(own)).unwrap()
    }

    /// The status of a PUT to `/x/log`, or nothing when there is no answer.
    fn answers(&self, own: Option<&Certified>) -> Option<u16> {
        let mut speaker = Speaker::meet(self.server.port, &self.authority, own).ok()?;
        Some(speaker.put("/x/log", b"hello").ok()?.status)
    }
}

/// Puts `certified` and the CA into files, and writes the `tls` of a server for it.
fn configure(home: &Path, authority: &Authority, certified: &Certified) -> String {
    let (cert, key) = certified.put(home, "own");
    put(&home.join("ca.pem"), authority.pem(), 0o644);
    format!("tls:\n  cert: {}\n  key: {}\n", yaml(&cert), yaml(&key))
}

#[test]
fn clients_that_are_not_believed_get_no_answer_or_403() {
    let guarded = Guarded::start("");
    let authority = &guarded.authority;
    let with = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        authority.certify_with(|params| {
            params.subject_alt_names = vec![dns("x")];
            change(params);
        })
    };
    let foreign = Authority::new("CA").certify("x");
    let expired = with(&|params| params.not_after = date_time_ymd(2020, 1, 1));
    let early = with(&|params| params.not_before = date_time_ymd(2100, 1, 1));
    let server_only =
        with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    for (what, own) in [
        ("no certificate", None),
        ("another CA's", Some(&foreign)),
        ("expired", Some(&expired)),
        ("not yet valid", Some(&early)),
        ("for servers only", Some(&server_only)),
    ] {
        assert_eq!(guarded.answers(own), None, "{what}");
    }
    let names = |names: Vec<SanType>| with(&|params| params.subject_alt_names.clone_from(&names));
    for (what, own, status) in [
        ("common name only", names(vec![]), 403),
        ("two names", names(vec![dns("x"), dns("y")]), 403),
        ("the same name twice", names(vec![dns("x"), dns("x")]), 403),
        ("a name and a URI", names(vec![dns("x"), uri("urn:x")]), 403),
        ("a wildcard", names(vec![dns("*.x")]), 403),
        (
            "an address",
            names(vec![SanType::IpAddress([127, 0, 0, 1].into())]),
            403,
        ),
        ("an address as a name", names(vec![dns("127.0.0.1")]), 403),
        ("a path as a name", names(vec![dns("x/../y")]), 403),
        ("another name", names(vec![dns("y")]), 403),
        ("a URI with a slash", names(vec![uri("spiffe://a/x")]), 403),
        ("its name", names(vec![dns("x")]), 201),
        (
            "its name and an address",
            names(vec![dns("X"), SanType::IpAddress([10, 0, 0, 1].into())]),
            204,
        ),
    ] {
        assert_eq!(guarded.answers(Some(&own)), Some(status), "{what}");
    }
    assert_eq!(common::tree(&guarded.server.datadir).len(), 1);
    // A bad certificate gets no heartbeat either, a good one does whatever its paths are.
    let heartbeat = |own: &Certified| {
        let said = guarded
            .meet(own)
            .ask("HEAD", "/any/path/", "", b"")
            .unwrap();
        said.status
    };
    assert_eq!(heartbeat(&names(vec![])), 403);
    assert_eq!(heartbeat(&names(vec![dns("y")])), 200);
}

#[test]
fn a_chain_of_a_hundred_is_no_trouble() {
    let guarded = Guarded::start("");
    let mut authority = guarded.authority.below("1");
    for number in 2..=100 {
        authority = authority.below(&number.to_string());
    }
    let mut own = authority.certify("x");
    own.cert += authority.pem();
    assert_eq!(guarded.answers(Some(&own)), None);
    let short = guarded.authority.below("short");
    let mut own = short.certify("x");
    own.cert += short.pem();
    assert_eq!(guarded.answers(Some(&own)), Some(201));
}

/// A client of a server with this certificate and this `tls`, after a `sync`.
fn sync_to(certified: &Certified, authority: &Authority, tls: &str) -> (Output, Server, TempDir) {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(logs.join("log"), "secret\n").unwrap();
    let config = configure(home.path(), authority, certified);
    let server = Server::start(&home.path().join("server"), &config);
    let url = format!("https://localhost:{}/", server.port);
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]);
    let ca = yaml(&home.path().join("ca.pem"));
    let config = config + &tls.replace("CA", &ca);
    let client = Client::configure(&home.path().join("client"), &config);
    let output = client.sync(&["--patience", "1s"]);
    (output, server, home)
}

#[test]
fn servers_that_are_not_believed_get_nothing() {
    let authority = Authority::new("CA");
    let with = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        authority.certify_with(|params| {
            params.subject_alt_names = vec![dns("localhost")];
            change(params);
        })
    };
    let foreign = Authority::new("CA").certify("localhost");
    let known = "  tls: {ca: CA}\n";
    for (what, certified, tls, words) in [
        ("another CA's", foreign, known, "certificate"),
        (
            "another host's",
            authority.certify("other"),
            known,
            "not valid for name",
        ),
        (
            "common name only",
            with(&|params| params.subject_alt_names.clear()),
            known,
            "certificate",
        ),
        (
            "expired",
            with(&|params| params.not_after = date_time_ymd(2020, 1, 1)),
            known,
            "expired",
        ),
        (
            "not yet valid",
            with(&|params| params.not_before = date_time_ymd(2100, 1, 1)),
            known,
            "not valid yet",
        ),
        (
            "for clients only",
            with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            known,
            "certificate",
        ),
        (
            "the platform's CAs",
            authority.certify("localhost"),
            "",
            "certificate",
        ),
        (
            "another name is asked for",
            authority.certify("localhost"),
            "  tls: {ca: CA, server_name: log1.example.net}\n",
            "not valid for name",
        ),
    ] {
        let (output, server, _home) = sync_to(&certified, &authority, tls);
        assert_eq!(output.status.code(), Some(3), "{what}: {}", said(&output));
        assert!(said(&output).contains(words), "{what}: {}", said(&output));
        assert!(common::tree(&server.datadir).is_empty(), "{what}");
    }
    let other = authority.certify("log1.example.net");
    let (output, server, _home) = sync_to(
        &other,
        &authority,
        "  tls: {ca: CA, server_name: log1.example.net}\n",
    );
    assert!(output.status.success(), "{}", said(&output));
    assert!(server.holds("logs/log", b"secret\n"));
}

#[test]
fn a_client_without_a_certificate_is_told_that_it_needs_one() {
    let guarded = Guarded::start("");
    let home = guarded.home.path();
    let logs = home.join("logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(logs.join("log"), "line\n").unwrap();
    let url = format!("https://localhost:{}/x/", guarded.server.port);
    let tls = format!("  tls: {{ca: {}}}\n", yaml(&home.join("client_ca.pem")));
    let config = deliver(&[("logs", &logs.join("*"))], &[&url]) + &tls;
    let client = Client::configure(&home.join("client"), &config);
    let output = client.sync(&["--patience", "1s"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let words = "received fatal alert: CertificateRequired";
    assert!(said(&output).contains(words), "{}", said(&output));
    assert!(common::tree(&guarded.server.datadir).is_empty());
}

#[test]
fn files_that_cannot_be_used_stop_a_start_with_line_and_hint() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    let authority = Authority::new("CA");
    let (cert, key) = authority.certify("a").put(home.path(), "a");
    let (_, other_key) = authority.certify("b").put(home.path(), "b");
    put(&path("ca.pem"), authority.pem(), 0o644);
    put(
        &path("open.key"),
        &std::fs::read_to_string(&key).unwrap(),
        0o644,
    );
    put(
        &path("grouped.key"),
        &std::fs::read_to_string(&key).unwrap(),
        0o640,
    );
    put(&path("empty.pem"), "", 0o600);
    put(
        &path("broken.pem"),
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        0o600,
    );
    let expired = authority.certify_with(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let (expired, expired_key) = expired.put(home.path(), "expired");
    let none = path("none");
    let cases: &[(&str, &Path, &Path, &[&str])] = &[
        (
            "key",
            &cert,
            &path("open.key"),
            &["readable", "0644", "chmod 600"],
        ),
        ("key", &cert, &path("grouped.key"), &["0640", "chmod 600"]),
        (
            "key",
            &cert,
            &other_key,
            &["not the key of the certificate"],
        ),
        ("key", &cert, &none, &["cannot be read", "shaftlog tls"]),
        ("key", &cert, &path("empty.pem"), &["no private key"]),
        ("cert", &none, &key, &["cannot be read"]),
        ("cert", &path("empty.pem"), &key, &["no certificate"]),
        ("cert", &path("broken.pem"), &key, &["broken"]),
        ("cert", home.path(), &key, &["not a regular file"]),
    ];
    let files = |cert: &Path, key: &Path| format!("cert: {}, key: {}", yaml(cert), yaml(key));
    let try_both = |key_at_fault: &str, files: &str, words: &[&str]| {
        let server = path("server.yaml");
        let datadir = yaml(&path("data"));
        let text = format!("datadir: {datadir}\nlisten_port: 0\ntls: {{{files}}}\n");
        std::fs::write(&server, text).unwrap();
        let client = path("client.yaml");
        let text = format!(
            "datadir: {datadir}\nscan_paths: [{{name: a, pattern: /none/*}}]\ndestinations:\n\
             - url: https://localhost/\n  tls: {{{files}}}\n"
        );
        std::fs::write(&client, text).unwrap();
        for (command, config, place) in [
            ("server", &server, format!(":3: tls.{key_at_fault}: ")),
            ("check", &server, format!(":3: tls.{key_at_fault}: ")),
            (
                "client",
                &client,
                format!(":5: destinations[0].tls.{key_at_fault}: "),
            ),
            (
                "sync",
                &client,
                format!(":5: destinations[0].tls.{key_at_fault}: "),
            ),
            (
                "check",
                &client,
                format!(":5: destinations[0].tls.{key_at_fault}: "),
            ),
        ] {
            let output = run([command, "-f", config.to_str().unwrap()]);
            let all = said(&output);
            assert_eq!(output.status.code(), Some(78), "{command} {files}: {all}");
            assert!(all.contains(&place), "{command}: {place} in {all}");
            for words in words {
                assert!(all.contains(words), "{command}: {words} in {all}");
            }
        }
    };
    for (at_fault, cert, key, words) in cases {
        let words: Vec<&str> = words
            .iter()
            .map(|word| {
                if *word == "readable" {
                    "can read"
                } else {
                    word
                }
            })
            .collect();
        try_both(at_fault, &files(cert, key), &words);
    }
    assert!(!path("data").exists(), "nothing was made");
    // What is over is no reason not to start, but one to say so.
    let config = path("expired.yaml");
    let text = format!(
        "datadir: {}\ntls: {{{}}}\n",
        yaml(&path("data")),
        files(&expired, &expired_key)
    );
    std::fs::write(&config, text).unwrap();
    let output = run(["check", "-f", config.to_str().unwrap()]);
    assert!(
        said(&output).contains("expired at 2020-01-01"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_list_or_a_ca_that_cannot_be_used_is_named() {
    let home = TempDir::new().unwrap();
    let authority = Authority::new("CA");
    let (cert, key) = authority.certify("a").put(home.path(), "a");
    let ca = home.path().join("ca.pem");
    put(&ca, authority.pem(), 0o644);
    let bad: PathBuf = home.path().join("bad.pem");
    put(&bad, "nothing\n", 0o644);
    let config = home.path().join("server.yaml");
    for (at_fault, ca, crl) in [
        ("client_ca", &bad, &ca),
        ("crl", &ca, &bad),
        ("crl", &ca, &ca),
    ] {
        let text = format!(
            "datadir: {}\ntls:\n  cert: {}\n  key: {}\n  client_ca: {}\n  crl: {}\n\
             authorize: [{{identity: a, paths: /}}]\n",
            yaml(&home.path().join("data")),
            yaml(&cert),
            yaml(&key),
            yaml(ca),
            yaml(crl)
        );
        std::fs::write(&config, text).unwrap();
        let output = run(["check", "-f", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        assert!(
            said(&output).contains(&format!("tls.{at_fault}: ")),
            "{}",
            said(&output)
        );
    }
}
