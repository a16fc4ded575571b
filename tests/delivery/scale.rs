//! Many files, large files, and how long an append takes to be seen.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::faults::{Fault, Proxy};
use crate::common::{Client, Server, deliver, prefix_hash, tree, wait_within};

const MIB: u64 = 1024 * 1024;
/// What either daemon may use at most, in KiB.
const MEMORY: u64 = 64 * 1024;

#[test]
fn ten_thousand_files_over_a_few_connections() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let count = if std::env::var_os("SHAFTLOG_LONG").is_some() {
        10_000
    } else {
        2_000
    };
    for n in 0..count {
        fs::write(
            logs.join(format!("log{n}")),
            format!("{n:015}\n").repeat(4096),
        )
        .unwrap();
    }
    let mut server = Server::start(&home.path().join("server"), "");
    let proxy = Proxy::start(server.port, Fault::None);
    let config = deliver(&[("logs", &logs.join("*"))], &[&proxy.url()]);
    let start = Instant::now();
    let mut client = Client::start(
        &home.path().join("client"),
        &("connections: 4\n".to_owned() + &config),
    );
    let delivered = server.datadir.join("logs");
    wait_within(Duration::from_secs(300), "all files are there", || {
        let found = fs::read_dir(&delivered).map_or(0, Iterator::count);
        (found == count && tree(&delivered) == tree(&logs)).then_some(())
    });
    println!("{count} files of 64 KiB in {:?}", start.elapsed());
    assert!(
        proxy.most_open() <= 4,
        "{} connections at once",
        proxy.most_open()
    );
    assert!(
        proxy.accepted() <= 4,
        "{} connections in all",
        proxy.accepted()
    );
    peak_memory(&mut client, &mut server);
}

#[test]
fn a_large_file_arrives_intact_in_little_memory() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let size = if std::env::var_os("SHAFTLOG_LONG").is_some() {
        2048 * MIB
    } else {
        256 * MIB
    };
    write_random(&logs.join("log"), size);
    let mut server = Server::start(&home.path().join("server"), "");
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    let start = Instant::now();
    let mut client = Client::start(&home.path().join("client"), &config);
    let delivered = server.datadir.join("logs/log");
    wait_within(Duration::from_secs(300), "the file is whole", || {
        fs::metadata(&delivered)
            .is_ok_and(|file| file.len() == size)
            .then_some(())
    });
    println!("{} MiB in {:?}", size / MIB, start.elapsed());
    assert_eq!(
        prefix_hash(&delivered, size),
        prefix_hash(&logs.join("log"), size)
    );
    peak_memory(&mut client, &mut server);
}

/// Bytes that repeat nowhere: the extended output of BLAKE3.
fn write_random(path: &Path, size: u64) {
    let mut bytes = vec![0; usize::try_from(MIB).unwrap()];
    let mut output = blake3::Hasher::new().finalize_xof();
    let mut file = File::create(path).unwrap();
    for _ in 0..size / MIB {
        output.fill(&mut bytes);
        file.write_all(&bytes).unwrap();
    }
}

fn peak_memory(client: &mut Client, server: &mut Server) {
    let client = client.process().memory_kib("VmHWM");
    let server = server.process().memory_kib("VmHWM");
    println!("peak memory: client {client} KiB, server {server} KiB");
    assert!(
        client <= MEMORY && server <= MEMORY,
        "client {client} KiB, server {server} KiB"
    );
}

#[test]
fn after_a_restart_known_files_are_as_quick_as_before() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let count = 1_000;
    for n in 0..count {
        fs::write(logs.join(format!("log{n}")), "start\n").unwrap();
    }
    let server = Server::start(&home.path().join("server"), "");
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    // Neither a scan nor the round robin can be what notices the appends.
    let config = format!("scan_interval: 1h\nperiodic_trigger_interval: 1h\n{config}");
    let mut client = Client::start(&home.path().join("client"), &config);
    let delivered = server.datadir.join("logs");
    let visible = |n: usize, length: u64| {
        let path = delivered.join(format!("log{n}"));
        wait_within(Duration::from_secs(30), "the append is visible", || {
            fs::metadata(&path)
                .is_ok_and(|file| file.len() == length)
                .then_some(())
        });
    };
    (0..count).for_each(|n| visible(n, 6));
    let append = |n: usize, length: u64| {
        let mut file = File::options()
            .append(true)
            .open(logs.join(format!("log{n}")))
            .unwrap();
        let start = Instant::now();
        file.write_all(b"line\n").unwrap();
        visible(n, length);
        start.elapsed()
    };
    let p99 = |length: u64| {
        let mut times: Vec<Duration> = (0..count).map(|n| append(n, length)).collect();
        times.sort();
        times[count * 99 / 100]
    };
    let before = p99(11);
    assert!(client.terminate().success());
    client.restart();
    let after = p99(16);
    println!("p99 of append to visible: {before:?} before the restart, {after:?} after");
}

/// Bytes of memory that a client needs for each file that it holds, at most.
const BYTES_A_FILE: u64 = 2 * 1024;

#[test]
fn a_directory_full_of_files_costs_little_for_each_and_ends_in_time() {
    let home = TempDir::new().unwrap();
    let logs = home.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let long = std::env::var_os("SHAFTLOG_LONG").is_some();
    let count: usize = if long { 1_000_000 } else { 50_000 };
    for n in 0..count {
        File::create(logs.join(n.to_string())).unwrap();
    }
    let server = Server::start(&home.path().join("server"), "");
    let config = deliver(&[("logs", &logs.join("*"))], &[&server.url()]);
    let mut client = Client::start(&home.path().join("client"), &config);
    let (links, copies) = (client.datadir.join("logs"), server.datadir.join("logs"));
    let names = |directory: &Path| fs::read_dir(directory).map_or(0, Iterator::count);
    let patience = Duration::from_secs(3600);
    let start = Instant::now();
    wait_within(patience, "some arrive while the rest is looked for", || {
        let (linked, arrived) = (names(&links), names(&copies));
        assert!(linked < count || arrived > 0, "nothing arrived");
        (arrived > 0).then(|| println!("{arrived} arrived when {linked} were linked"))
    });
    // In the middle of the first scan.
    println!("ended {:?} after SIGTERM", end(&mut client));
    assert!(names(&links) < count, "the scan was not in the middle");

    client.restart();
    let mut descriptors = 0;
    wait_within(patience, "all are linked", || {
        descriptors = descriptors.max(client.process().descriptors());
        (names(&links) == count).then_some(())
    });
    println!("{count} files were linked after {:?}", start.elapsed());
    let peak = client.process().memory_kib("VmHWM");
    println!("peak memory {peak} KiB, at most {descriptors} descriptors");
    let bound = MEMORY + count as u64 * BYTES_A_FILE / 1024;
    assert!(peak <= bound, "{peak} KiB, and not {bound}");
    assert!(descriptors < 1_000, "{descriptors} descriptors");
    let output = client.process().output();
    let warnings = output
        .lines()
        .filter(|line| line.contains("no more inotify watches"));
    assert!(warnings.count() <= 1, "{output}");
    println!("ended {:?} after SIGTERM", end(&mut client));
}

/// Ends the client, which hangs in nothing and takes 10 s at most, whatever it is at.
fn end(client: &mut Client) -> Duration {
    let daemon = client.process();
    let asked = Instant::now();
    daemon.signal(Signal::TERM);
    let ended = wait_within(Duration::from_secs(10), "the end", || daemon.ended());
    let took = asked.elapsed();
    let output = daemon.output();
    assert!(
        ended.success() && !output.contains("something hangs"),
        "{output}"
    );
    took
}
