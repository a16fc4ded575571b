//! Certificates that are renewed, replaced and revoked while bytes flow: no connection is dropped
//! for it and no byte is lost; who is revoked does not come in again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rcgen::date_time_ymd;
use rustix::process::Signal;
use tempfile::TempDir;

use super::authority::{Authority, put};
use super::certificates::Guarded;
use super::speaker::Speaker;
use crate::common::{self, Client, Server, deliver, wait_until, yaml};

/// How often the server has read its certificates again.
fn reloads(server: &Server) -> usize {
    server.output().matches("certificates read again").count()
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
    let refused = || {
        let met = Speaker::meet(port, authority, Some(&bad));
        met.and_then(|mut met| met.ask("HEAD", "/", "", b""))
            .is_err()
    };
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

/// What a rollover goes through: files of both sides, changed while lines are written.
struct Rollover<'a> {
    home: &'a Path,
    server: &'a mut Server,
    client: &'a mut Client,
}

impl Rollover<'_> {
    /// Lets both sides read what was changed, and waits until they have.
    fn reload(&mut self) {
        let count = |output: &str| output.matches("certificates read again").count();
        let server = reloads(self.server);
        let client = count(&self.client.process().output());
        self.server.process().signal(Signal::HUP);
        self.client.process().signal(Signal::HUP);
        wait_until("both have read their certificates again", || {
            reloads(self.server) > server && count(&self.client.process().output()) > client
        });
    }

    /// From the old CA to the new one, as one does it: believe both, show the new certificates,
    /// believe the new one only.
    fn roll(&mut self, old: &Authority, new: &Authority) {
        let both = format!("{}{}", old.pem(), new.pem());
        put(&self.home.join("ca.pem"), &both, 0o644);
        self.reload();
        new.certify("localhost").put(self.home, "server");
        new.certify("web1").put(self.home, "client");
        self.reload();
        put(&self.home.join("ca.pem"), new.pem(), 0o644);
        self.reload();
    }
}

#[test]
fn renewal_and_rollover_under_load_drop_no_connection_and_lose_no_byte() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let mut authority = Authority::new("CA 0");
    put(&home.path().join("ca.pem"), authority.pem(), 0o644);
    let (cert, key) = authority.certify("localhost").put(home.path(), "server");
    let ca = yaml(&home.path().join("ca.pem"));
    let config = format!(
        "tls: {{cert: {}, key: {}, client_ca: {ca}}}\n\
         authorize: [{{identity: '*', paths: '/{{identity}}'}}]\n",
        yaml(&cert),
        yaml(&key)
    );
    let mut server = Server::start(&home.path().join("server"), &config);
    let (cert, key) = authority.certify("web1").put(home.path(), "client");
    let url = format!("https://localhost:{}/web1/", server.port);
    let config = deliver(&[("logs", &logs.join("*"))], &[&url])
        + &format!(
            "  tls: {{ca: {ca}, cert: {}, key: {}}}\n",
            yaml(&cert),
            yaml(&key)
        );
    let mut client = Client::start(&home.path().join("client"), &config);
    let ended = AtomicBool::new(false);
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
        let rounds = if std::env::var_os("SHAFTLOG_LONG").is_some() {
            20
        } else {
            2
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("delivery has begun", || {
                server.file("web1/logs/3").is_some()
            });
            for round in 1..=rounds {
                let new = Authority::new(&format!("CA {round}"));
                let (home, server, client) = (home.path(), &mut server, &mut client);
                Rollover {
                    home,
                    server,
                    client,
                }
                .roll(&authority, &new);
                authority = new;
            }
        }));
        ended.store(true, Ordering::Relaxed);
        if let Err(panicked) = done {
            std::panic::resume_unwind(panicked);
        }
    });
    wait_until("all lines are there", || {
        common::tree(&logs).iter().all(|(name, held)| {
            common::tree(&server.datadir.join("web1/logs")).get(name) == Some(held)
        })
    });
    // A connection that was dropped, or refused for a certificate, would have been told of.
    for output in [client.process().output(), server.output()] {
        let complaint = output.lines().find(|line| {
            line.contains("WARN") && !line.contains("logrotate") || line.contains("ERROR")
        });
        assert_eq!(complaint, None, "{output}");
    }
    // And by the new certificates both find together again.
    assert!(client.terminate().success());
    fs::write(logs.join("last"), "line\n").unwrap();
    client.restart();
    wait_until("the last line arrives", || {
        server.holds("web1/logs/last", b"line\n")
    });
}
