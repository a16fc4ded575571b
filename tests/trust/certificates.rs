//! Every certificate that is not to be believed, on either side.

use std::fmt::Write as _;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use rustls::version::TLS13;
use tempfile::TempDir;

use super::authority::{Authority, Certified, dns, put, uri};
use super::handshakes::{answer, config, connect, hello_of_tls_1_1};
use super::privileges::{CAPABILITIES, NOBODY, as_user};
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

    /// Starts it again with a list of revoked certificates; where that lies.
    pub fn revoke(&mut self, revoked: &[&Certified]) -> PathBuf {
        let crl = self.home.path().join("crl.pem");
        put(&crl, &self.authority.revoke(revoked), 0o644);
        let config = std::fs::read_to_string(self.server.config()).unwrap();
        let config = config.split_once("tls:").unwrap().1;
        let config = config.replace("authorize:", &format!("  crl: {}\nauthorize:", yaml(&crl)));
        self.server.reconfigure(&format!("tls:{config}"));
        self.server.terminate();
        self.server.restart();
        crl
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

/// A client that should not come in: what it is, what it does, and the status of its PUT to a file
/// that is there; none when it gets no answer.
struct BadClient {
    name: &'static str,
    tries: Box<Attempt>,
    status: Option<u16>,
}

/// What a client does.
type Attempt = dyn Fn(&Guarded) -> Option<u16>;

/// A client with a certificate of the server's CA for `x`, changed.
fn with(guarded: &Guarded, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Certified {
    guarded.authority.certify_with(|params| {
        params.subject_alt_names = vec![dns("x")];
        change(params);
    })
}

/// A client whose certificate is like that.
fn shows(
    name: &'static str,
    certificate: impl Fn(&Guarded) -> Certified + 'static,
    status: Option<u16>,
) -> BadClient {
    let tries = Box::new(move |guarded: &Guarded| guarded.answers(Some(&certificate(guarded))));
    BadClient {
        name,
        tries,
        status,
    }
}

/// A client whose certificate has these names: it is nobody.
fn named(name: &'static str, names: impl Fn() -> Vec<SanType> + 'static) -> BadClient {
    let certificate = move |guarded: &Guarded| {
        let names = names();
        with(guarded, |params| params.subject_alt_names = names)
    };
    shows(name, certificate, Some(403))
}

/// A client that never comes as far as a request.
fn fails(name: &'static str, tries: impl Fn(&Guarded) -> Option<u16> + 'static) -> BadClient {
    BadClient {
        name,
        tries: Box::new(tries),
        status: None,
    }
}

fn bad_clients(revoked: Certified) -> Vec<BadClient> {
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    vec![
        fails("no certificate", |guarded| guarded.answers(None)),
        shows(
            "expired",
            |guarded| {
                with(guarded, |params| {
                    params.not_after = date_time_ymd(2020, 1, 1);
                })
            },
            None,
        ),
        shows(
            "not yet valid",
            |guarded| {
                with(guarded, |params| {
                    params.not_before = date_time_ymd(2100, 1, 1);
                })
            },
            None,
        ),
        shows("foreign CA", |_| Authority::new("CA").certify("x"), None),
        shows(
            "server-only key usage",
            move |guarded| {
                with(guarded, |params| {
                    params.extended_key_usages = vec![usage.clone()];
                })
            },
            None,
        ),
        shows("revoked", move |_| revoked.clone(), None),
        named("CN only", Vec::new),
        named("two identities", || vec![dns("x"), dns("y")]),
        named("the same identity twice", || vec![dns("x"), dns("x")]),
        named("a name and a URI", || vec![dns("x"), uri("urn:x")]),
        named("wildcard", || vec![dns("*.x")]),
        named("an address", || {
            vec![SanType::IpAddress([127, 0, 0, 1].into())]
        }),
        named("an address as a name", || vec![dns("127.0.0.1")]),
        named("a path as a name", || vec![dns("x/../y")]),
        named("another identity", || vec![dns("y")]),
        named("a URI with a slash", || vec![uri("spiffe://a/x")]),
        fails("TLS 1.1", |guarded| {
            let alert = answer(guarded.server.port, &hello_of_tls_1_1());
            assert_eq!(alert[0], 21, "an alert: {alert:?}");
            None
        }),
        BadClient {
            name: "0-RTT",
            tries: Box::new(|guarded| Some(early_data(guarded))),
            // Nothing is taken early, and nothing resumed: it is a client like any other.
            status: Some(204),
        },
        shows("a chain of 100", |guarded| chain(guarded, 100), None),
        fails("stalled handshake", |guarded| {
            // It stays open and half-way until the test ends.
            let mut stalled = connect(guarded.server.port);
            std::io::Write::write_all(&mut stalled, &[22, 3, 1, 2, 0, 1, 0, 1]).unwrap();
            std::mem::forget(stalled);
            None
        }),
    ]
}

/// A client that would send its request with the first flight (RFC 8446 section 2.3).
fn early_data(guarded: &Guarded) -> u16 {
    let own = guarded.authority.certify("x");
    let mut config = config(guarded, &own, &TLS13);
    config.enable_early_data = true;
    // The store of sessions goes with the configuration.
    let config = Arc::new(config);
    let mut first = Speaker::meet_by(guarded.server.port, Arc::clone(&config)).unwrap();
    assert_eq!(first.ask("HEAD", "/", "", b"").unwrap().status, 200);
    let mut second = Speaker::meet_by(guarded.server.port, config).unwrap();
    assert!(!second.is_resumed());
    second.put("/x/log", b"hello").unwrap().status
}

/// A certificate for `x` behind so many CAs, each below the next.
fn chain(guarded: &Guarded, length: usize) -> Certified {
    let mut authority = guarded.authority.below("1");
    for number in 2..=length {
        authority = authority.below(&number.to_string());
    }
    let mut own = authority.certify("x");
    own.cert += authority.pem();
    own
}

#[test]
fn no_bad_client_gets_in_and_the_next_good_one_is_served() {
    let mut guarded = Guarded::start("");
    let revoked = guarded.authority.certify("x");
    guarded.revoke(&[&revoked]);
    let good = guarded.authority.certify("x");
    assert_eq!(guarded.answers(Some(&good)), Some(201));
    let state = |guarded: &Guarded| {
        let datadir = &guarded.server.datadir;
        (common::tree(datadir), common::rows(datadir, "files"))
    };
    let before = state(&guarded);
    let clients = bad_clients(revoked);
    for client in &clients {
        assert_eq!((client.tries)(&guarded), client.status, "{}", client.name);
        assert!(
            state(&guarded) == before,
            "{}: something changed",
            client.name
        );
        let next = guarded.meet(&good).ask("HEAD", "/x/log", "", b"").unwrap();
        assert_eq!(next.status, 200, "after {}", client.name);
        assert!(next.text.contains("shaftlog-length: 5"), "{}", next.text);
    }
    assert_eq!(clients.len(), 20);
    println!("{} bad clients", clients.len());

    // A bad certificate gets no heartbeat either, a good one does whatever its paths are.
    let heartbeat = |own: &Certified| {
        let said = guarded.meet(own).ask("HEAD", "/any/path/", "", b"");
        said.unwrap().status
    };
    assert_eq!(
        heartbeat(&with(&guarded, |params| params.subject_alt_names.clear())),
        403
    );
    assert_eq!(heartbeat(&guarded.authority.certify("y")), 200);
    // An address beside the name does no harm, nor does its case, nor one CA between.
    let beside = vec![dns("X"), SanType::IpAddress([10, 0, 0, 1].into())];
    let beside = with(&guarded, |params| params.subject_alt_names = beside);
    assert_eq!(guarded.answers(Some(&beside)), Some(204));
    assert_eq!(guarded.answers(Some(&chain(&guarded, 1))), Some(204));
}

/// A client of a server with this certificate and this `tls`, after a `sync`, on a platform that
/// believes that CA.
fn sync_to(
    certified: &Certified,
    authority: &Authority,
    tls: &str,
    platform: &Authority,
) -> (Output, Server, TempDir) {
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
    let roots = home.path().join("platform.pem");
    put(&roots, platform.pem(), 0o644);
    let roots = format!("SSL_CERT_FILE={}", roots.display());
    let output = client.sync_wrapped(&["env".to_owned(), roots], &["--patience", "1s"]);
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
    let (other, platform) = (Authority::new("CA"), Authority::new("Platform"));
    let foreign = other.certify("localhost");
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
            "none of the platform's CAs",
            authority.certify("localhost"),
            "",
            "certificate",
        ),
        (
            "one of the platform's CAs, where others are given",
            platform.certify("localhost"),
            known,
            "certificate",
        ),
        (
            "another name is asked for",
            authority.certify("localhost"),
            "  tls: {ca: CA, server_name: log1.example.net}\n",
            "not valid for name",
        ),
    ] {
        let (output, server, _home) = sync_to(&certified, &authority, tls, &platform);
        assert_eq!(output.status.code(), Some(3), "{what}: {}", said(&output));
        assert!(said(&output).contains(words), "{what}: {}", said(&output));
        assert!(common::tree(&server.datadir).is_empty(), "{what}");
    }
    for (certified, tls) in [
        (
            authority.certify("log1.example.net"),
            "  tls: {ca: CA, server_name: log1.example.net}\n",
        ),
        (platform.certify("localhost"), ""),
    ] {
        let (output, server, _home) = sync_to(&certified, &authority, tls, &platform);
        assert!(output.status.success(), "{}", said(&output));
        assert!(server.holds("logs/log", b"secret\n"));
    }
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

/// Who can read everything, as the client can, would else show a certificate whose key another user
/// knows.
#[test]
#[ignore = "needs root"]
fn a_key_of_another_user_is_refused_whoever_can_read_it() {
    const OTHER: u32 = 65533;
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let (cert, key) = Authority::new("CA").certify("a").put(home.path(), "a");
    let files = format!("{{cert: {}, key: {}}}", yaml(&cert), yaml(&key));
    let (server, client) = (path("server.yaml"), path("client.yaml"));
    let datadir = yaml(&path("data"));
    let text = format!("datadir: {datadir}\nlisten_port: 0\ntls: {files}\n");
    std::fs::write(&server, text).unwrap();
    let text = format!(
        "datadir: {datadir}\nscan_paths: [{{name: a, pattern: /none/*}}]\ndestinations:\n\
         - url: https://localhost/\n  tls: {files}\n"
    );
    std::fs::write(&client, text).unwrap();
    let as_other = as_user(OTHER, &CAPABILITIES);
    let said_by = |user: &[String], command: &str, config: &Path| {
        let mut words = user.to_vec();
        words.extend([common::program().to_str().unwrap(), command].map(str::to_owned));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-f").arg(config);
        command.output().unwrap()
    };
    for (owner, user, command, config) in [
        (NOBODY, &as_other[..], "check", &client),
        (NOBODY, &[], "sync", &client),
        (NOBODY, &as_other, "client", &client),
        (NOBODY, &[], "client", &client),
        (NOBODY, &[], "server", &server),
    ] {
        chown(&key, Some(owner), None).unwrap();
        let output = said_by(user, command, config);
        let all = said(&output);
        assert_eq!(output.status.code(), Some(78), "{command}: {all}");
        let ours = if user.is_empty() { 0 } else { OTHER };
        for words in [
            format!("tls.key: {}: belongs to user {owner}", key.display()),
            format!("expected root or the daemon's user ({ours})"),
            format!("chown {ours} {}", key.display()),
        ] {
            assert!(all.contains(&words), "{command}: {words} in {all}");
        }
    }
    assert!(!path("data").exists(), "nothing was made");
    // Its own is taken, and root's; and root may look for a daemon that runs as somebody else.
    for (owner, user) in [(OTHER, &as_other[..]), (0, &as_other), (OTHER, &[])] {
        chown(&key, Some(owner), None).unwrap();
        let output = said_by(user, "check", &client);
        assert!(output.status.success(), "{owner}: {}", said(&output));
    }
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
