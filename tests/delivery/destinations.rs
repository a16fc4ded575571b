//! Several destinations are independent of each other, whatever one of them does.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::faults::{Answering, Fault, Proxy};
use crate::common::{
    Client, Server, append, assert_same_tree, deliver, free_port, rows, run, said, tree,
    wait_until, wait_within,
};

/// 200 files of 50 KB.
fn some_logs(home: &Path) -> PathBuf {
    let logs = home.join("logs");
    fs::create_dir(&logs).unwrap();
    for n in 0..200 {
        fs::write(
            logs.join(format!("log{n}")),
            format!("line {n}\n").repeat(5_000),
        )
        .unwrap();
    }
    logs
}

/// Delivers `logs` to a good server, beside `other` if there is one; how long that took.
fn deliver_beside(home: &Path, logs: &Path, other: Option<&str>) -> Duration {
    let name = if other.is_some() { "beside" } else { "alone" };
    let server = Server::start(&home.join(format!("server-{name}")), "");
    let urls: Vec<String> = other
        .map(str::to_owned)
        .into_iter()
        .chain([server.url()])
        .collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let start = Instant::now();
    let config = deliver(&[("logs", &logs.join("*"))], &urls);
    let _client = Client::start(&home.join(format!("client-{name}")), &config);
    let delivered = server.datadir.join("logs");
    wait_until("everything is at the living server", || {
        delivered.is_dir() && tree(&delivered) == tree(logs)
    });
    start.elapsed()
}

fn living_beside(other: &str) {
    let home = TempDir::new().unwrap();
    let logs = some_logs(home.path());
    let alone = deliver_beside(home.path(), &logs, None);
    let beside = deliver_beside(home.path(), &logs, Some(other));
    println!(
        "alone {alone:?}, beside the other {beside:?}: ratio {:.2}",
        ratio(beside, alone)
    );
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

#[test]
fn a_dead_destination_delays_nobody() {
    living_beside(&format!("http://127.0.0.1:{}/", free_port()));
}

#[test]
fn a_stalling_destination_delays_nobody() {
    let home = TempDir::new().unwrap();
    let behind = Server::start(&home.path().join("behind"), "");
    let stalling = Proxy::start(behind.port, Fault::StallAfter(30_000));
    living_beside(&stalling.url());
    assert!(stalling.sent() >= 30_000);
}

/// Each body that stalls holds a thread: nine destinations, each with as many connections as a client
/// may have, hold more than a runtime has if nobody counts them.
#[test]
fn many_stalling_destinations_delay_nobody() {
    const CONNECTIONS: u64 = 64;
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    for n in 0..CONNECTIONS {
        let log = File::create(logs.join(format!("log{n}"))).unwrap();
        log.set_len(8 << 20).unwrap();
    }
    let behind: Vec<Server> = (0..9)
        .map(|n| Server::start(&home.path().join(format!("behind{n}")), ""))
        .collect();
    let stalling: Vec<Proxy> = behind
        .iter()
        .map(|server| Proxy::start(server.port, Fault::StallAfter(200_000)))
        .collect();
    let living = Server::start(&home.path().join("living"), "");
    let mut urls: Vec<String> = stalling.iter().map(Proxy::url).collect();
    urls.push(living.url());
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let config = format!(
        "connections: {CONNECTIONS}\n{}",
        deliver(&[("logs", &logs.join("*"))], &urls)
    );
    let mut client = Client::start(&home.path().join("client"), &config);

    // One connection of each stays free for short files.
    wait_until("all bodies stall", || {
        let all = (CONNECTIONS - 1) * 200_000;
        stalling.iter().all(|proxy| proxy.sent() >= all)
    });
    fs::write(logs.join("short"), "a line\n").unwrap();
    let short = living.datadir.join("logs/short");
    wait_until("the line is at the living server", || {
        fs::read(&short).is_ok_and(|bytes| bytes == b"a line\n")
    });
    let said = client.process().output();
    assert!(
        !said.contains("nothing moved"),
        "not before a body was given up:\n{said}"
    );
}

#[test]
fn a_full_destination_delays_nobody() {
    let full = Answering::start(|request| {
        if request.contains("log7 ") {
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0".to_owned()
        } else {
            "HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0".to_owned()
        }
    });
    living_beside(&full.url());
}

/// A file that is other bytes at one destination is in error there, and nowhere else: neither is
/// it at the other, nor are the other files there.
#[test]
fn a_file_in_conflict_at_one_destination_goes_on_at_the_other() {
    for (kind, has_record) in [("diverged", true), ("conflict", false)] {
        let home = TempDir::new().unwrap();
        let logs = home.path().join("logs");
        fs::create_dir(&logs).unwrap();
        for name in ["changed", "sound"] {
            fs::write(logs.join(name), format!("{name}\n")).unwrap();
        }
        let good = Server::start(&home.path().join("good"), "");
        let mut other = Server::start(&home.path().join("other"), "");
        let urls = [other.url(), good.url()];
        let config = deliver(&[("logs", &logs.join("*"))], &[&urls[0], &urls[1]]);
        let client = Client::start(&home.path().join("client"), &config);
        // The states of a file at the bad one and at the good one, once all of it is confirmed there.
        let states = |name: &str, confirmed: [usize; 2]| {
            let progress = rows(&client.datadir, "progress");
            [0, 1].map(|at| {
                let row = progress.iter().find(|row| {
                    row["destination"] == urls[at] && row["name"] == format!("logs/{name}")
                });
                let row = row.filter(|row| row["confirmed"] == confirmed[at]);
                row.map_or(String::new(), |row| {
                    row["state"].as_str().unwrap().to_owned()
                })
            })
        };
        let catalogue = client.datadir.join(".shaftlog/client.redb");
        wait_until("both have both", || {
            catalogue.exists()
                && states("changed", [8, 8]) == ["current", "current"]
                && states("sound", [6, 6]) == ["current", "current"]
        });
        other.kill();
        fs::write(other.datadir.join("logs/changed"), "CHANGED\n").unwrap();
        if !has_record {
            // It takes what it has for what was delivered.
            fs::remove_file(other.datadir.join(".shaftlog/server.redb")).unwrap();
            let words = ["db", "rebuild", "--datadir"].map(OsStr::new);
            let output = run(words.into_iter().chain([other.datadir.as_os_str()]));
            assert!(output.status.success(), "{}", said(&output));
        }
        other.restart();

        // Before it is known, and after.
        append(&logs.join("changed"), "more\n");
        wait_until("it is in error there", || {
            states("changed", [8, 13]) == ["conflict", "current"]
        });
        for name in ["changed", "sound", "new"] {
            append(&logs.join(name), "again\n");
        }
        wait_until("all else goes on", || {
            states("changed", [8, 19]) == ["conflict", "current"]
                && states("sound", [12, 12]) == ["current", "current"]
                && states("new", [6, 6]) == ["current", "current"]
        });
        assert_same_tree(&logs, &good.datadir.join("logs"));
        assert!(other.holds("logs/changed", b"CHANGED\n"), "{kind}");
        for name in ["sound", "new"] {
            let whole = fs::read(logs.join(name)).unwrap();
            assert!(
                other.holds(&format!("logs/{name}"), &whole),
                "{kind}: {name}"
            );
        }
        let events = rows(&client.datadir, "events");
        let told = events.iter().filter(|event| event["kind"] == kind);
        assert_eq!(told.count(), 1, "{events:?}");
        // Nothing was begun anew over it.
        assert_eq!(rows(&client.datadir, "files").len(), 3, "{kind}");
    }
}

/// A backlog of a minute (ten under `SHAFTLOG_LONG`) at a destination that is dead, then stalls in
/// mid-body, then has no room, costs neither memory nor descriptors nor database, and is caught up
/// with by itself.
#[test]
fn a_backlog_costs_nothing_and_is_caught_up_with() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let alive = Server::start(&home.path().join("alive"), "");
    let mut other = Server::start(&home.path().join("other"), "");
    let proxy = Proxy::start(other.port, Fault::Refuse);
    let config = deliver(&[("logs", &logs.join("*"))], &[&proxy.url(), &alive.url()]);
    let mut client = Client::start(&home.path().join("client"), &config);

    let length = if std::env::var_os("SHAFTLOG_LONG").is_some() {
        600
    } else {
        60
    };
    let mut early = None;
    let start = Instant::now();
    for second in 0.. {
        for file in 0..10 {
            append(
                &logs.join(format!("log{file}")),
                format!("second {second}\n").repeat(2_000),
            );
        }
        let due = Duration::from_secs(second + 1);
        wait_within(due + Duration::from_secs(60), "the next second", || {
            (start.elapsed() >= due).then_some(())
        });
        if second == length / 6 {
            early = Some(footprint(&mut client));
        }
        if second == length / 3 {
            proxy.set(Fault::StallAfter(30_000));
        }
        if second == length * 2 / 3 {
            assert!(proxy.sent() >= 30_000, "nothing has stalled");
            other.kill();
            other.reconfigure("min_free: 1000000000000000");
            other.restart();
            proxy.set(Fault::None);
        }
        if second == length {
            break;
        }
    }
    let (early, late) = (early.unwrap(), footprint(&mut client));
    println!("memory KiB, descriptors, database bytes: {early:?} then {late:?}");
    // Early nothing was under way there. What bodies to one destination may hold is 7 MiB, and the
    // allocator keeps some of it in each thread's arena; the backlog is 130 MB in the long form.
    assert!(
        late.0 < early.0 + 16 * 1024,
        "memory grew: {early:?} {late:?}"
    );
    // The dead one had no connection, the full one has all of its thirty-two, each with a file.
    assert!(
        late.1 <= early.1 + 2 * 32,
        "descriptors grew: {early:?} {late:?}"
    );
    assert!(
        late.2 < early.2 + 4 * 1024 * 1024,
        "database grew: {early:?} {late:?}"
    );
    wait_until("the living one has everything", || {
        tree(&alive.datadir.join("logs")) == tree(&logs)
    });

    let bytes = |dir: &Path| tree(dir).values().map(|(length, _)| length).sum::<u64>();
    assert!(
        bytes(&other.datadir) < bytes(&logs) / 2,
        "there was no backlog"
    );
    other.kill();
    other.reconfigure("");
    other.restart();
    let delivered = other.datadir.join("logs");
    wait_within(
        Duration::from_secs(180),
        "the recovered one catches up",
        || (delivered.is_dir() && tree(&delivered) == tree(&logs)).then_some(()),
    );
    assert_same_tree(&logs, &delivered);
    let progress = rows(&client.datadir, "progress");
    assert!(
        progress.iter().all(|row| row["verified"] == true),
        "{progress:?}"
    );
}

/// Resident KiB, open descriptors and bytes of the catalogue.
fn footprint(client: &mut Client) -> (u64, usize, u64) {
    let database = client.datadir.join(".shaftlog/client.redb");
    let process = client.process();
    (
        process.memory_kib("VmRSS"),
        process.descriptors(),
        fs::metadata(database).unwrap().len(),
    )
}
