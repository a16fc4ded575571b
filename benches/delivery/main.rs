//! How fast shaftlog delivers, against `rsync --append-verify` and against a floor: the least
//! program that sends the same bytes over loopback, writes and fdatasyncs them.
//!
//! ```text
//! cargo bench --bench delivery                     everything, as the README quotes it
//! cargo bench --bench delivery -- big latency      only these
//! BENCH_RUNS=3 BENCH_BIG=256MiB BENCH_FILES=1000 BENCH_FILE=64KiB BENCH_LINES=200 cargo bench ...
//! BENCH_DIR=/mnt/disk cargo bench ...              where sources and targets lie
//! ```
//!
//! The contenders take turns, each run on a fresh target, what was delivered is compared with
//! its source, and medians are compared, so that a busy or a throttled machine meets all alike.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark talks to its terminal"
)]
#![allow(unreachable_pub, reason = "a program's modules have no outside")]

mod floor;
mod latency;
mod ours;
mod rsync;
mod source;
mod table;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("delivery: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // Cargo adds `--bench`; what does not look like a flag names a case.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let plan = Plan::from_environment()?;
    fs::create_dir_all(&plan.dir)?;
    println!(
        "in {}: {} runs; big: one file of {} MiB; small: {} files of {} KiB; latency: {} lines, one every 10 ms\n",
        plan.dir.display(),
        plan.runs,
        plan.big >> 20,
        plan.files,
        plan.file >> 10,
        plan.lines
    );
    for case in [Case::Big, Case::Small, Case::Latency] {
        if wanted.is_empty() || wanted.iter().any(|name| name == case.name()) {
            measure(case, &plan)?;
        }
    }
    Ok(())
}

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
pub enum Case {
    /// One large file.
    Big,
    /// Many small files.
    Small,
    /// A line every 10 ms, from its append to its visibility at the target.
    Latency,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Big => "big",
            Self::Small => "small",
            Self::Latency => "latency",
        }
    }
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq)]
pub enum Contender {
    /// The least program: see `floor`.
    Floor,
    /// `rsync --append-verify` to its daemon; it syncs nothing to disk.
    Rsync,
    /// The real program.
    Shaftlog,
}

impl Contender {
    const ALL: [Self; 3] = [Self::Floor, Self::Rsync, Self::Shaftlog];

    fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Rsync => "rsync",
            Self::Shaftlog => "shaftlog",
        }
    }
}

/// One run of one contender.
pub struct Run {
    /// Bulk: from start to durable end. Latency: the median over the lines.
    pub time: Duration,
    /// Latency only: the 99th percentile.
    pub slow: Option<Duration>,
    /// Peak resident memory of sender and receiver in KiB, where they are programs of ours.
    pub memory: Option<(u64, u64)>,
}

impl Run {
    /// A run of which only the time is known.
    pub fn timed(time: Duration) -> Self {
        Self {
            time,
            slow: None,
            memory: None,
        }
    }
}

/// Sizes and places.
pub struct Plan {
    runs: usize,
    big: u64,
    files: u64,
    file: u64,
    lines: usize,
    dir: PathBuf,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let dir = std::env::var_os("BENCH_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-delivery"),
            PathBuf::from,
        );
        Ok(Self {
            runs: number("BENCH_RUNS", 5)?.max(1).try_into()?,
            big: number("BENCH_BIG", 2 << 30)?,
            files: number("BENCH_FILES", 10_000)?,
            file: number("BENCH_FILE", 64 << 10)?,
            lines: number("BENCH_LINES", 500)?.max(1).try_into()?,
            dir,
        })
    }

    /// Bytes that one bulk run delivers.
    fn bytes(&self, case: Case) -> Option<u64> {
        match case {
            Case::Big => Some(self.big),
            Case::Small => Some(self.files * self.file),
            Case::Latency => None,
        }
    }
}

/// A number from the environment; `KiB`, `MiB` and `GiB` are understood.
fn number(key: &str, default: u64) -> Result<u64> {
    let Ok(text) = std::env::var(key) else {
        return Ok(default);
    };
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
    let parsed = units.iter().find_map(|(unit, shift)| {
        let digits = text.strip_suffix(unit)?.trim();
        digits.parse::<u64>().ok()?.checked_mul(1 << shift)
    });
    parsed.ok_or_else(|| format!("{key}={text}: expected a size such as 300 or 64KiB").into())
}

/// All runs of one case, contenders in turn, and its table. Targets of small files stay until the
/// end: some filesystems search long for a free inode after many were given back.
fn measure(case: Case, plan: &Plan) -> Result<()> {
    let source = plan.dir.join(format!("source-{}", case.name()));
    match case {
        Case::Big => source::files(&source, 1, plan.big)?,
        Case::Small => source::files(&source, plan.files, plan.file)?,
        Case::Latency => source::empty(&source)?,
    }
    let targets = plan.dir.join("runs");
    source::empty(&targets)?;
    let mut results = Contender::ALL.map(|_| Ok(Vec::new()));
    for turn in 0..plan.runs {
        for step in 0..Contender::ALL.len() {
            let index = (turn + step) % Contender::ALL.len();
            let contender = Contender::ALL[index];
            let Ok(runs) = &mut results[index] else {
                continue;
            };
            let work = targets.join(format!("{turn}-{}", contender.name()));
            match one_run(case, contender, &source, &work, plan.lines) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    eprintln!("{} {}: {error}", case.name(), contender.name());
                    results[index] = Err(error.to_string());
                }
            }
        }
    }
    println!("{}", table::of(case, plan.bytes(case), &results));
    fs::remove_dir_all(&targets)?;
    fs::remove_dir_all(&source)?;
    Ok(())
}

/// One run into an empty target, checked afterwards.
fn one_run(
    case: Case,
    contender: Contender,
    source: &Path,
    work: &Path,
    lines: usize,
) -> Result<Run> {
    source::empty(work)?;
    let target = work.join("target");
    // What the last run left to be written back would slow this one.
    if !Command::new("sync").status()?.success() {
        return Err("`sync` failed".into());
    }
    let run = match (case, contender) {
        (Case::Latency, _) => latency::measure(contender, source, &target, lines)?,
        (_, Contender::Floor) => floor::bulk(source, &target)?,
        (_, Contender::Rsync) => rsync::bulk(source, &target)?,
        (_, Contender::Shaftlog) => ours::bulk(source, &target)?,
    };
    source::compare(source, &target)?;
    match case {
        Case::Latency => source::empty(source)?,
        Case::Big => fs::remove_dir_all(work)?,
        Case::Small => {}
    }
    Ok(run)
}
