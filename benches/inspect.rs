//! How much looking slows a delivery down: `shaftlog sync` of many small files, alone and with
//! `db inspect`, `db history` and `db events` run on its database once a second each.
//!
//! ```text
//! cargo bench --bench inspect
//! BENCH_RUNS=5 BENCH_FILES=20000 BENCH_DIR=/mnt/disk cargo bench --bench inspect
//! ```
//!
//! The two take turns, and the sums of their times are compared.
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
    let (mut alone, mut looked_at) = (Duration::ZERO, Duration::ZERO);
    let mut looks = 0;
    for _ in 0..runs {
        alone += deliver(&home, &logs, &mut |_| Ok(()))?;
        looked_at += deliver(&home, &logs, &mut |to| {
            looks += 1;
            look(to, &logs)
        })?;
    }
    fs::remove_dir_all(&home)?;
    let ratio = looked_at.as_secs_f64() / alone.as_secs_f64();
    println!(
        "{files} files, {runs} runs each: {:.2} s alone, {:.2} s with {looks} looks, ratio {ratio:.3}",
        alone.as_secs_f64(),
        looked_at.as_secs_f64()
    );
    Ok(())
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
fn deliver(
    home: &Path,
    logs: &Path,
    look: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<Duration> {
    let to = home.join("to");
    let begun = Instant::now();
    let mut sync = shaftlog()
        .args(["sync", "--pattern"])
        .arg(logs.join("*"))
        .arg("--to")
        .arg(&to)
        .spawn()?;
    let mut next = begun + LOOK_EVERY;
    while !ended(&mut sync)? {
        if Instant::now() >= next && to.join(".shaftlog/server.redb").exists() {
            look(&to)?;
            next += LOOK_EVERY;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let took = begun.elapsed();
    fs::remove_dir_all(&to)?;
    Ok(took)
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
