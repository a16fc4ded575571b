//! Real logrotate over files written by real rsyslogd and by writers that number their lines,
//! while client and server are killed at random moments.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::acks::head_length;
use crate::common::{self, Client, Daemon, Server, wait_for, wait_until, wait_within};
use crate::load::{
    LINE, Logger, Pace, Random, Writer, delivered, delivered_bytes, exactly_once, line, stretches,
};
use crate::{amount, done, need, scratch};

/// How long everything may take to arrive once it is quiet.
const SETTLE: Duration = Duration::from_secs(180);

/// Logs, logrotate, client and server in one directory.
struct Site {
    home: tempfile::TempDir,
    server: Server,
    client: Client,
}

impl Site {
    /// `logs` are the names of the logs in `logs/`; each is delivered below its name.
    fn start(logs: &[&str]) -> Self {
        let home = scratch();
        fs::create_dir(home.path().join("logs")).expect("a directory");
        let server = Server::start(&home.path().join("server"), "");
        let scan_path = |log: &&str| {
            let pattern = common::yaml(&home.path().join(format!("logs/{log}.log*")));
            format!(
                "- {{name: {log}, pattern: {pattern}, exclude: '*.gz', rename: '{{name}}/{{mtime}}'}}\n"
            )
        };
        let config = format!(
            "scan_paths:\n{}destinations:\n- url: {}\n",
            logs.iter().map(scan_path).collect::<String>(),
            server.url()
        );
        let client = Client::start(&home.path().join("client"), &config);
        Self {
            home,
            server,
            client,
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("logs/{name}.log"))
    }

    /// Where the copies of the log `name` lie.
    fn copies(&self, name: &str) -> PathBuf {
        self.server.datadir.join(name)
    }

    /// Writes a logrotate configuration behind our own snippet, as Debian's includes do.
    fn logrotate(&self, name: &str, directives: &str) -> Logrotate {
        let snippet = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/logrotate/00-shaftlog");
        let snippet = fs::read_to_string(&snippet).expect("packaging/logrotate/00-shaftlog");
        let log = self.log(name);
        let config = self.home.path().join(format!("{name}.logrotate"));
        let text = format!(
            "{snippet}\n{} {{\nrotate 2\n{directives}\n}}\n",
            log.display()
        );
        fs::write(&config, text).expect("a file");
        // logrotate refuses a configuration that others may write.
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&config, mode).expect("our file");
        Logrotate {
            state: config.with_extension("state"),
            config,
            log,
            renames: !directives.contains("copytruncate"),
        }
    }
}

struct Logrotate {
    config: PathBuf,
    state: PathBuf,
    log: PathBuf,
    renames: bool,
}

impl Logrotate {
    /// Rotates now, and sees that it happened: logrotate can decline without a word. (That
    /// copytruncate happened shows in the next life that the writer sees.)
    fn rotate(&self) {
        let inode = || fs::metadata(&self.log).expect("the log").ino();
        let before = inode();
        let mut command = Command::new("logrotate");
        command.arg("--force").arg("--state").arg(&self.state);
        done(command.arg(&self.config));
        assert_eq!(inode() != before, self.renames, "{}", self.log.display());
    }

    /// Waits until the client holds the file that the next rotation takes away for good: until
    /// then nobody but logrotate can promise anything about it.
    fn wait_for_link(&self, suffix: &str) {
        let path = PathBuf::from(format!("{}{suffix}", self.log.display()));
        wait_until("the client links the log", || {
            fs::metadata(&path).map_or(true, |stat| stat.nlink() > 1)
        });
    }
}

/// Kills client and server `times` each at random moments, and starts them again.
fn kill_at_random(
    client: &mut Client,
    server: &mut Server,
    times: usize,
    random: &mut Random,
    done: &AtomicBool,
) {
    let (mut clients, mut servers) = (times, times);
    while clients + servers > 0 {
        random.pause(Duration::from_millis(900));
        if random.below((clients + servers) as u64) < clients as u64 {
            client.kill();
            random.pause(Duration::from_millis(300));
            client.restart();
            clients -= 1;
        } else {
            server.kill();
            random.pause(Duration::from_millis(300));
            server.restart();
            servers -= 1;
        }
    }
    done.store(true, Ordering::Relaxed);
}

/// Runs `rotation` (told its number) at least `rotations` times and until the killing is over.
fn rotate_under_kills(
    site: &mut Site,
    rotations: usize,
    kills: usize,
    mut rotation: impl FnMut(usize),
) {
    let mut random = Random::new();
    let killed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (client, server, killed) = (&mut site.client, &mut site.server, &killed);
        scope.spawn(move || kill_at_random(client, server, kills, &mut random, killed));
        let mut turn = 0;
        while turn < rotations || !killed.load(Ordering::Relaxed) {
            rotation(turn);
            turn += 1;
        }
        eprintln!("{turn} rotations of each log, {kills} kills of each daemon");
    });
}

fn start_rsyslogd(home: &Path, log: &Path) -> (Daemon, PathBuf) {
    let socket = home.join("syslog");
    let config = home.join("rsyslog.conf");
    let text = format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{}\" RateLimit.Interval=\"0\")\n\
         template(name=\"line\" type=\"string\" string=\"%msg:2:$%\\n\")\n\
         action(type=\"omfile\" file=\"{}\" template=\"line\")\n",
        socket.display(),
        log.display()
    );
    fs::write(&config, text).expect("a file");
    let mut command = Command::new("rsyslogd");
    command.arg("-n").arg("-f").arg(config);
    command.arg("-i").arg(home.join("rsyslogd.pid"));
    let daemon = Daemon::spawn(command, &home.join("rsyslogd.out"));
    wait_until("rsyslogd listens", || socket.exists());
    (daemon, socket)
}

#[test]
#[ignore = "needs root, logrotate and rsyslogd"]
fn rotation_by_renaming_loses_and_repeats_no_line() {
    need(&["logrotate", "rsyslogd", "gzip"]);
    let mut site = Site::start(&["late", "now", "syslog"]);
    let late = site.logrotate("late", "create 0640\ncompress\ndelaycompress");
    let now = site.logrotate("now", "create 0640\ncompress");
    let syslog = site.logrotate("syslog", "create 0640\ncompress\ndelaycompress");

    let mut writers = [&late, &now].map(|l| {
        let stream = l.log.file_stem().expect("a name").to_string_lossy();
        Writer::start(&l.log, &stream, 0, Pace::STEADY)
    });
    let (mut rsyslogd, socket) = start_rsyslogd(site.home.path(), &syslog.log);
    let mut logger = Logger::start(&socket, "syslog", Pace::STEADY);
    wait_until("rsyslogd writes", || syslog.log.exists());

    rotate_under_kills(&mut site, amount(20, 200), amount(4, 20), |_| {
        // delaycompress leaves a log in place for one rotation more.
        late.wait_for_link(".1");
        late.rotate();
        writers[0].reopen();
        now.wait_for_link("");
        now.rotate();
        writers[1].reopen();
        syslog.wait_for_link(".1");
        syslog.rotate();
        rsyslogd.signal(Signal::HUP);
    });

    let sent = [writers[0].stop(), writers[1].stop(), logger.stop()];
    for (name, count) in ["late", "now", "syslog"].into_iter().zip(sent) {
        assert!(count > 0, "{name} was never written");
        let copies = site.copies(name);
        wait_within(
            SETTLE,
            &format!("all {count} lines of {name} arrive"),
            || (delivered_bytes(&copies) >= count * LINE as u64).then_some(()),
        );
        exactly_once(&copies, name, count).expect("every line exactly once, in order");
    }
    assert_eq!(rsyslogd.terminate().code(), Some(0));
}

#[test]
#[ignore = "needs root and logrotate"]
fn copytruncate_never_splices_two_lives() {
    need(&["logrotate"]);
    let mut site = Site::start(&["cut"]);
    // The copies that logrotate makes are other inodes; the log itself is the subject.
    let config = fs::read_to_string(site.client.config()).expect("our file");
    fs::write(site.client.config(), config.replace("cut.log*", "cut.log")).expect("our file");
    site.client.restart();
    let cut = site.logrotate("cut", "copytruncate");
    let copies = site.copies("cut");
    let port = site.server.port;
    let mut writer = Writer::start(&cut.log, "cut", 0, Pace::STEADY);

    let mut seen = Vec::new();
    let mut random = Random::new();
    rotate_under_kills(&mut site, amount(20, 200), amount(4, 20), |turn| {
        let life = wait_for("the writer begins a life", || {
            writer.lives().last().copied()
        });
        // Every other life is cut wherever delivery stands: it may end before it was seen.
        if turn % 2 == 0 {
            wait_until("something of this life arrives", || {
                has_life(&copies, port, life)
            });
            seen.push(life);
        } else {
            random.pause(Duration::from_millis(50));
        }
        cut.rotate();
        wait_until("the next life begins", || {
            writer.lives().last() > Some(&life)
        });
    });

    let count = writer.stop();
    let lives = writer.lives();
    let last = lives.last().copied().expect("a life");
    wait_within(SETTLE, "the last life arrives whole", || {
        let found = stretches(&copies, "cut").ok()?;
        found.contains(&(last, count)).then_some(())
    });

    let found = stretches(&copies, "cut").expect("no splice");
    for pair in found.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "lives overlap: {pair:?}");
    }
    for (first, after) in &found {
        assert!(lives.contains(first), "line {first} began no life");
        let end = lives.range(first + 1..).next().copied().unwrap_or(count);
        assert!(
            *after <= end,
            "{first}..{after} runs beyond its life's end {end}"
        );
    }
    let missing: Vec<_> = seen
        .iter()
        .filter(|life| !found.iter().any(|(first, _)| first == *life))
        .collect();
    assert!(missing.is_empty(), "delivered lives are gone: {missing:?}");
    assert_evidence(&site, found.len());
}

/// Whether the server vouches for a file that begins with line `life`; what it has not vouched
/// for may yet make way for another life.
fn has_life(copies: &Path, port: u16, life: u64) -> bool {
    let begin = line("cut", life);
    delivered(copies).iter().any(|path| {
        let mut first = [0; LINE];
        let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut first));
        let name = path.file_name().expect("a name").to_string_lossy();
        read.is_ok()
            && first == begin
            && head_length(port, &format!("/cut/{name}")) >= Some(LINE as u64)
    })
}

/// Each life is a generation of the one inode, each end of a life an event.
fn assert_evidence(site: &Site, lives: usize) {
    let inode = fs::metadata(site.log("cut")).expect("the log").ino();
    let files = common::rows(&site.client.datadir, "files");
    let generations = files.iter().filter(|row| row["inode"] == inode).count();
    assert!(
        generations >= lives,
        "{generations} generations for {lives} delivered lives: {files:#?}"
    );
    let events = common::rows(&site.client.datadir, "events");
    let ends = events
        .iter()
        .filter(|row| row["kind"] == "superseded")
        .count();
    assert_eq!(ends + 1, generations, "superseded events: {events:#?}");
}

#[test]
#[ignore = "needs root and logrotate"]
fn rotation_while_the_client_is_away_loses_and_repeats_nothing() {
    need(&["logrotate"]);
    let mut site = Site::start(&["away"]);
    let rotate = site.logrotate("away", "create 0640");
    let copies = site.copies("away");
    let mut writer = Writer::start(&rotate.log, "away", 0, Pace::STEADY);
    wait_until("delivery is under way", || delivered_bytes(&copies) > 0);
    for _ in 0..amount(3, 10) {
        site.client.kill();
        // `rotate 2` keeps two more names beside the live log: three generations to be found.
        for _ in 0..2 {
            rotate.rotate();
            writer.reopen();
            let before = writer.written();
            wait_until("lines are written meanwhile", || {
                writer.written() > before + 100
            });
        }
        site.client.restart();
        rotate.wait_for_link("");
        rotate.wait_for_link(".1");
        rotate.wait_for_link(".2");
    }
    let count = writer.stop();
    wait_within(SETTLE, "everything arrives", || {
        (delivered_bytes(&copies) >= count * LINE as u64).then_some(())
    });
    exactly_once(&copies, "away", count).expect("every line exactly once, in order");
}
