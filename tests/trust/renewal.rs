//! Certificates that are renewed, replaced and revoked while bytes flow: no connection is dropped
//! for it and no byte is lost; who is revoked does not come in again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rcgen::date_time_ymd;
use rustix::process::Signal;
use tempfile::TempDir;

use super::authority::{Authority, Certified, put};
use super::certificates::Guarded;
use super::speaker::Speaker;
use crate::common::{self, Client, Server, append, deliver, wait_until, yaml};
use crate::faults::{Fault, Proxy};

/// How often a daemon that has said this has read its certificates again.
fn reloads_in(output: &str) -> usize {
    output.matches("certificates read again").count()
}

/// How often the server has.
fn reloads(server: &Server) -> usize {
    reloads_in(&server.output())
}

/// Whether who comes to the server on `port` by this certificate gets no answer.
fn is_refused(port: u16, authority: &Authority, own: &Certified) -> bool {
    let met = Speaker::meet(port, authority, Some(own));
    met.and_then(|mut met| met.ask("HEAD", "/", "", b""))
        .is_err()
}

#[test]
fn a_revoked_client_is_refused_at_its_next_connection() {
    let mut guarded = Guarded::start("");
    let (bad, good) = (
        guarded.authority.certify("bad"),
        guarded.authority.certify("good"),
    );
    let crl = guarded.revoke(&[]);

    let mut open = guarded.meet(&bad);
    assert_eq!(open.put("/bad/log", b"x").unwrap().status, 201);
    put(&crl, &guarded.authority.revoke(&[&bad]), 0o644);
    let (port, authority) = (guarded.server.port, &guarded.authority);
    let refused = || is_refused(port, authority, &bad);
    // No signal: it is enough that the file has changed.
    wait_until("the revoked one is refused", refused);
    assert_eq!(
        open.ask("HEAD", "/bad/log", "", b"").unwrap().status,
        200,
        "not dropped"
    );
    assert_eq!(
        guarded.meet(&good).put("/good/log", b"x").unwrap().status,
        201
    );
    assert!(refused());

    // A list that is broken changes nothing, and is told of.
    put(&crl, "no list\n", 0o644);
    guarded.server.process().signal(Signal::HUP);
    wait_until("the bad list is told of", || {
        guarded
            .server
            .output()
            .contains("going on with the certificates that were read before")
    });
    assert!(refused());
    assert_eq!(
        guarded
            .meet(&good)
            .ask("HEAD", "/good/log", "", b"")
            .unwrap()
            .status,
        200
    );
    assert!(
        guarded.server.output().contains("tls.crl: "),
        "{}",
        guarded.server.output()
    );
}

#[test]
fn of_several_lists_of_a_ca_the_newest_counts() {
    let mut guarded = Guarded::start("");
    let bad = guarded.authority.certify("bad");
    let good = guarded.authority.certify("good");
    let crl = guarded.revoke(&[]);
    let list = |number, year, revoked: &[_]| guarded.authority.revoke_by(number, year, revoked);
    // By number, whatever their times; with equal numbers by time; a longer number is a larger one.
    for (old, new) in [
        (list(1, 2020, &[&good]), list(2, 2021, &[&bad])),
        (list(2, 2021, &[&good]), list(3, 2020, &[&bad])),
        (list(255, 2020, &[&good]), list(256, 2020, &[&bad])),
        (list(7, 2020, &[&good]), list(7, 2021, &[&bad])),
    ] {
        for lists in [format!("{old}{new}"), format!("{new}{old}")] {
            let before = reloads(&guarded.server);
            put(&crl, &lists, 0o644);
            guarded.server.process().signal(Signal::HUP);
            wait_until("they are read", || reloads(&guarded.server) > before);
            let asks = |own| {
                let met = Speaker::meet(guarded.server.port, &guarded.authority, Some(own));
                met.and_then(|mut met| met.ask("HEAD", "/", "", b""))
            };
            assert!(asks(&bad).is_err(), "it is on the newer list");
            assert_eq!(asks(&good).unwrap().status, 200, "it no longer is");
        }
    }
}

#[test]
fn a_list_of_no_ca_of_ours_is_warned_of() {
    let mut guarded = Guarded::start("");
    let bad = guarded.authority.certify("bad");
    let crl = guarded.revoke(&[&bad]);
    let words = format!("{}: the list of CN=Other revokes nothing", crl.display());
    let other = Authority::new("Other").revoke(&[]);
    put(&crl, &(other + &guarded.authority.revoke(&[&bad])), 0o644);
    guarded.server.process().signal(Signal::HUP);
    wait_until("it is warned of", || {
        let output = guarded.server.output();
        output.contains("WARN") && output.contains(&words)
    });
    let met = Speaker::meet(guarded.server.port, &guarded.authority, Some(&bad));
    let asked = met.and_then(|mut met| met.ask("HEAD", "/", "", b""));
    assert!(asked.is_err(), "our own CA's list counts");
    // At the next start too.
    guarded.server.terminate();
    let told = |server: &Server| server.output().matches(&words).count();
    let before = told(&guarded.server);
    guarded.server.restart();
    wait_until("it is warned of again", || told(&guarded.server) > before);
    let config = guarded.server.config();
    let checked = common::run(["check", "-f", config.to_str().unwrap()]);
    assert!(checked.status.success() && common::said(&checked).contains(&words));
}

#[test]
fn a_key_that_others_can_read_is_not_taken_up() {
    let mut guarded = Guarded::start("");
    let before = reloads(&guarded.server);
    let renewed = guarded.authority.certify("localhost");
    let (_, key) = renewed.put(guarded.home.path(), "own");
    put(&key, &renewed.key, 0o644);
    guarded.server.process().signal(Signal::HUP);
    wait_until("it is told of", || {
        guarded.server.output().contains("chmod 600")
    });
    assert_eq!(reloads(&guarded.server), before);
    let own = guarded.authority.certify("x");
    assert_eq!(
        guarded.meet(&own).ask("HEAD", "/", "", b"").unwrap().status,
        200
    );
    put(&key, &renewed.key, 0o600);
    guarded.server.process().signal(Signal::HUP);
    wait_until("it is taken up", || reloads(&guarded.server) > before);
}

#[test]
fn expiry_is_warned_of() {
    let home = TempDir::new().unwrap();
    let authority = Authority::new("CA");
    let ends = |year| authority.certify_with(|params| params.not_after = date_time_ymd(year, 1, 1));
    let (cert, key) = ends(2020).put(home.path(), "own");
    let config = format!("tls: {{cert: {}, key: {}}}\n", yaml(&cert), yaml(&key));
    let server = Server::start(&home.path().join("server"), &config);
    wait_until("it is warned of", || {
        let output = server.output();
        output.contains("WARN") && output.contains("own.pem: expired at 2020-01-01")
    });
}

/// A client and a server that know each other by certificates of one CA, and a proxy between them
/// that knows their connections.
struct Stage {
    client: Client,
    proxy: Proxy,
    server: Server,
    authority: Authority,
    /// Who the client is.
    own: Certified,
    logs: PathBuf,
    /// Goes last, with what the daemons have said.
    home: TempDir,
}

impl Stage {
    /// Starts them, the client with the lines `settings` in front of its own.
    fn start(fault: Fault, settings: &str) -> Self {
        let home = TempDir::new().unwrap();
        let logs = home.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let authority = Authority::new("CA 0");
        let (ca, crl) = (home.path().join("ca.pem"), home.path().join("crl.pem"));
        put(&ca, authority.pem(), 0o644);
        put(&crl, &authority.revoke(&[]), 0o644);
        let (cert, key) = authority.certify("localhost").put(home.path(), "server");
        let config = format!(
            "tls: {{cert: {}, key: {}, client_ca: {}, crl: {}}}\n\
             authorize: [{{identity: '*', paths: '/{{identity}}'}}]\n",
            yaml(&cert),
            yaml(&key),
            yaml(&ca),
            yaml(&crl)
        );
        let server = Server::start(&home.path().join("server"), &config);
        let proxy = Proxy::start(server.port, fault);
        let own = authority.certify("web1");
        let (cert, key) = own.put(home.path(), "client");
        let url = format!("https://localhost:{}/web1/", proxy.port);
        let config = format!(
            "{settings}{}  tls: {{ca: {}, cert: {}, key: {}}}\n",
            deliver(&[("logs", &logs.join("*"))], &[&url]),
            yaml(&ca),
            yaml(&cert),
            yaml(&key)
        );
        let client = Client::start(&home.path().join("client"), &config);
        Self {
            client,
            proxy,
            server,
            authority,
            own,
            logs,
            home,
        }
    }

    /// Does `work` while lines are written to four logs.
    fn under_load(&mut self, work: impl FnOnce(&mut Self)) {
        let ended = AtomicBool::new(false);
        let logs = self.logs.clone();
        thread::scope(|scope| {
            for number in 0..4 {
                let (logs, ended) = (&logs, &ended);
                scope.spawn(move || {
                    let mut file = File::create(logs.join(number.to_string())).unwrap();
                    for line in 0.. {
                        writeln!(file, "{line} of {number}").unwrap();
                        if ended.load(Ordering::Relaxed) {
                            return;
                        }
                        common::pause(Duration::from_millis(1));
                    }
                });
            }
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                wait_until("delivery has begun", || {
                    self.server.file("web1/logs/3").is_some()
                });
                work(self);
            }));
            ended.store(true, Ordering::Relaxed);
            if let Err(panicked) = done {
                std::panic::resume_unwind(panicked);
            }
        });
    }

    /// Lets both sides read what was changed, and waits until they have, and lines have come since.
    fn reload(&mut self) {
        let server = reloads(&self.server);
        let client = reloads_in(&self.client.process().output());
        self.server.process().signal(Signal::HUP);
        self.client.process().signal(Signal::HUP);
        wait_until("both have read their certificates again", || {
            reloads(&self.server) > server && reloads_in(&self.client.process().output()) > client
        });
        let length = |server: &Server| server.file("web1/logs/3").map(|file| file.len());
        let before = length(&self.server);
        wait_until("lines still come", || length(&self.server) > before);
    }

    /// From the CA to a new one, as one does it: believe both, show the new certificates, revoke the
    /// former one, believe the new CA only.
    fn roll(&mut self, new: Authority) {
        let home = self.home.path().to_owned();
        let both = format!("{}{}", self.authority.pem(), new.pem());
        put(&home.join("ca.pem"), &both, 0o644);
        self.reload();
        new.certify("localhost").put(&home, "server");
        let former = std::mem::replace(&mut self.own, new.certify("web1"));
        self.own.put(&home, "client");
        self.reload();
        // By the former certificate nobody comes in any more; its connections stay.
        let list = self.authority.revoke(&[&former]);
        put(&home.join("crl.pem"), &list, 0o644);
        self.reload();
        put(&home.join("ca.pem"), new.pem(), 0o644);
        put(&home.join("crl.pem"), &new.revoke(&[]), 0o644);
        self.reload();
        self.authority = new;
    }

    fn arrives(&self, path: &str, bytes: &[u8]) {
        wait_until("the line arrives", || self.server.holds(path, bytes));
    }

    fn everything_arrives(&self) {
        wait_until("all lines are there", || {
            common::tree(&self.logs).iter().all(|(name, held)| {
                common::tree(&self.server.datadir.join("web1/logs")).get(name) == Some(held)
            })
        });
    }
}

#[test]
fn renewal_and_rollover_under_load_drop_no_connection_and_lose_no_byte() {
    let mut stage = Stage::start(Fault::None, "");
    stage.under_load(|stage| {
        let rounds = if std::env::var_os("SHAFTLOG_LONG").is_some() {
            20
        } else {
            2
        };
        for round in 1..=rounds {
            stage.roll(Authority::new(&format!("CA {round}")));
        }
    });
    stage.everything_arrives();
    assert!(stage.proxy.accepted() > 0);
    assert_eq!(stage.proxy.ended(), 0, "of {}", stage.proxy.accepted());
    for output in [stage.client.process().output(), stage.server.output()] {
        let complaint = output.lines().find(|line| {
            line.contains("WARN") && !line.contains("logrotate") || line.contains("ERROR")
        });
        assert_eq!(complaint, None, "{output}");
    }
    // And by the new certificates both find together again.
    assert!(stage.client.terminate().success());
    fs::write(stage.logs.join("last"), "line\n").unwrap();
    stage.client.restart();
    stage.arrives("web1/logs/last", b"line\n");
}

#[test]
fn what_was_acknowledged_to_a_client_that_is_revoked_under_load_is_there() {
    // Each connection ends after some lines, and the next one is refused.
    let mut stage = Stage::start(Fault::CutEvery(20_000), "connections: 1\n");
    stage.under_load(|stage| {
        wait_until("connections come and go", || stage.proxy.ended() > 2);
        let list = stage.authority.revoke(&[&stage.own]);
        put(&stage.home.path().join("crl.pem"), &list, 0o644);
        stage.server.process().signal(Signal::HUP);
        let (port, authority) = (stage.server.port, &stage.authority);
        wait_until("it is refused", || is_refused(port, authority, &stage.own));
        // From the moment when none is open, nothing more can be sent.
        wait_until("its connections have ended", || stage.proxy.open() == 0);
        let written = common::tree(&stage.logs);
        wait_until("each log goes on", || {
            let now = common::tree(&stage.logs);
            now.iter().all(|(log, held)| held.0 > written[log].0)
        });
    });
    assert!(stage.client.terminate().success());
    let rows = common::rows(&stage.client.datadir, "progress");
    assert_eq!(rows.len(), 4, "{rows:?}");
    for row in &rows {
        let name = row["name"].as_str().unwrap();
        let confirmed = row["confirmed"].as_u64().unwrap();
        let delivered = stage.server.datadir.join("web1").join(name);
        let log = stage.home.path().join(name);
        let length = |file: &Path| fs::metadata(file).unwrap().len();
        assert!(confirmed > 0 && length(&delivered) < length(&log), "{row}");
        for file in [&delivered, &log] {
            let hash = common::prefix_hash(file, confirmed);
            assert_eq!(row["blake3"], hash.as_str(), "{}: {row}", file.display());
        }
    }
    // With another certificate it goes on where it was.
    stage.own = stage.authority.certify("web1");
    stage.own.put(stage.home.path(), "client");
    stage.client.restart();
    stage.everything_arrives();
}

#[test]
fn a_client_takes_up_a_changed_certificate_without_a_signal() {
    let mut stage = Stage::start(Fault::None, "connections: 1\n");
    append(&stage.logs.join("log"), "one\n");
    stage.arrives("web1/logs/log", b"one\n");
    let connections = stage.proxy.accepted();
    let renewed = stage.authority.certify("web1");
    let former = std::mem::replace(&mut stage.own, renewed);
    stage.own.put(stage.home.path(), "client");
    wait_until("it is taken up", || {
        reloads_in(&stage.client.process().output()) > 0
    });
    // It has not even connected.
    assert_eq!(stage.proxy.accepted(), connections);
    // And it is what the next connection shows.
    let list = stage.authority.revoke(&[&former]);
    put(&stage.home.path().join("crl.pem"), &list, 0o644);
    stage.server.terminate();
    stage.server.restart();
    append(&stage.logs.join("log"), "two\n");
    stage.arrives("web1/logs/log", b"one\ntwo\n");
    assert!(stage.proxy.accepted() > connections);
}

#[test]
fn a_client_keeps_its_certificate_when_the_changed_one_is_bad() {
    let mut stage = Stage::start(Fault::None, "");
    append(&stage.logs.join("log"), "one\n");
    stage.arrives("web1/logs/log", b"one\n");
    let cert = stage.home.path().join("client.pem");
    put(&cert, "no certificate\n", 0o644);
    let words = format!(
        "going on with the certificates that were read before: tls.cert: {}: ",
        cert.display()
    );
    let told = |stage: &mut Stage| stage.client.process().output().matches(&words).count();
    wait_until("it is told of", || told(&mut stage) > 0);
    // What was read before is what the next connection shows.
    let connections = stage.proxy.accepted();
    stage.server.terminate();
    stage.server.restart();
    append(&stage.logs.join("log"), "two\n");
    stage.arrives("web1/logs/log", b"one\ntwo\n");
    assert!(stage.proxy.accepted() > connections);
    assert_eq!(told(&mut stage), 1, "once");
    assert_eq!(reloads_in(&stage.client.process().output()), 0);
    stage
        .authority
        .certify("web1")
        .put(stage.home.path(), "client");
    wait_until("a good one is taken up", || {
        reloads_in(&stage.client.process().output()) > 0
    });
}
