//! How much looking slows a delivery down: `shaftlog sync` of many small files, alone and with
//! `db inspect`, `db history` and `db events` run on its database once a second each.
//!
//! ```text
//! cargo bench --bench inspect
//! BENCH_RUNS=5 BENCH_FILES=20000 BENCH_DIR=/mnt/disk cargo bench --bench inspect
//! ```
//!
//! The two take turns, and the medians of their times are compared. What was delivered stays until the
//! end: some filesystems search long for a free inode after many were given back.
#![allow(clippy::print_stdout, reason = "a benchmark talks to its terminal")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// How often everything is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let runs = number("BENCH_RUNS", 5)?;
    let files = number("BENCH_FILES", 20_000)?;
    let home = env::var_os("BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    let home = home.join(format!("shaftlog-inspect-{}", std::process::id()));
    let logs = home.join("logs");
    fs::create_dir_all(&logs)?;
    for file in 0..files {
        fs::write(logs.join(format!("{file}.log")), format!("{file}\n"))?;
    }
    let (mut alone, mut looked_at) = (Vec::new(), Vec::new());
    let mut looks = 0;
    for run in 0..runs {
        let to = home.join(format!("{run}-alone"));
        alone.push(deliver(&to, &logs, &mut || Ok(()))?);
        let to = home.join(format!("{run}-looked-at"));
        let took = deliver(&to, &logs, &mut || {
            looks += 1;
            look(&to, &logs)
        })?;
        looked_at.push(took);
    }
    fs::remove_dir_all(&home)?;
    let (alone, looked_at) = (median(alone), median(looked_at));
    println!(
        "{files} files, {runs} runs each, medians: {alone:.2} s alone, {looked_at:.2} s looked at \
         ({looks} looks in all), ratio {:.3}",
        looked_at / alone
    );
    Ok(())
}

/// In seconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
}

fn number(name: &str, default: usize) -> Result<usize> {
    match env::var(name) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(default),
    }
}

fn shaftlog() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shaftlog"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Delivers everything into a fresh directory, with `look` at it now and then; the time it took.
fn deliver(to: &Path, logs: &Path, look: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    let mut sync = shaftlog()
        .args(["sync", "--pattern"])
        .arg(logs.join("*"))
        .arg("--to")
        .arg(to)
        .spawn()?;
    let mut next = begun + LOOK_EVERY;
    while !ended(&mut sync)? {
        if Instant::now() >= next && to.join(".shaftlog/server.redb").exists() {
            look()?;
            next += LOOK_EVERY;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(begun.elapsed())
}

fn ended(sync: &mut Child) -> Result<bool> {
    match sync.try_wait()? {
        None => Ok(false),
        Some(status) if status.success() => Ok(true),
        Some(status) => Err(format!("sync ended with {status}").into()),
    }
}

fn look(to: &Path, logs: &Path) -> Result<()> {
    let file = logs.join("0.log");
    let file = file.to_str().ok_or("the directory's name is not UTF-8")?;
    for words in [&["inspect"][..], &["history", file], &["events"]] {
        let mut command = shaftlog();
        command.arg("db").args(words).arg("--json");
        command.arg("--datadir").arg(to);
        command.spawn()?.wait()?;
    }
    Ok(())
}
