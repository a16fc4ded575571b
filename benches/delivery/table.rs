//! Medians, ratios, and whether they are good enough.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::{Case, Contender, Run};

/// Of the floor's rate, at least this much.
const ENOUGH_OF_FLOOR: f64 = 0.5;
/// Of rsync's time, at most this much.
const ENOUGH_OF_RSYNC: f64 = 1.5;

/// The table of one case, one row a contender, in the order of [`Contender::ALL`].
pub fn of(case: Case, bytes: Option<u64>, results: &[Result<Vec<Run>, String>; 3]) -> String {
    let times = results.each_ref().map(|runs| match runs {
        Ok(runs) => median(runs.iter().map(|run| run.time)),
        Err(_) => None,
    });
    let [floor, rsync, ours] = times;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        case.name(),
        "median",
        "p99",
        "MB/s",
        "rate / floor",
        "time / rsync",
        "spread",
        "peak memory, sender + receiver",
    ]);
    for ((contender, runs), time) in Contender::ALL.iter().zip(results).zip(times) {
        let mut row = vec![contender.name().to_owned()];
        match (runs, time) {
            (Ok(runs), Some(time)) => row.extend([
                shown(time),
                median(runs.iter().filter_map(|run| run.slow)).map_or_else(String::new, shown),
                bytes.map_or_else(String::new, |b| format!("{:.0}", rate(b, time))),
                ratio(floor, Some(time)),
                ratio(Some(time), rsync),
                spread(runs),
                memory(runs),
            ]),
            (Err(why), _) => row.push(format!("failed: {}", why.lines().next().unwrap_or(""))),
            (_, None) => row.push("no run".to_owned()),
        }
        table.add_row(row.into_iter().enumerate().map(|(column, text)| {
            let side = [CellAlignment::Right, CellAlignment::Left][usize::from(column == 0)];
            Cell::new(text).set_alignment(side)
        }));
    }
    format!("{table}\n{}\n", verdict(case, floor, rsync, ours))
}

/// Bulk is judged; latency has no bound of its own, it is to be looked at.
fn verdict(
    case: Case,
    floor: Option<Duration>,
    rsync: Option<Duration>,
    ours: Option<Duration>,
) -> String {
    let (Some(floor), Some(rsync), Some(ours)) = (floor, rsync, ours) else {
        return "not judged: a contender failed".to_owned();
    };
    let of_floor = floor.as_secs_f64() / ours.as_secs_f64();
    let of_rsync = ours.as_secs_f64() / rsync.as_secs_f64();
    let good = of_floor >= ENOUGH_OF_FLOOR && of_rsync <= ENOUGH_OF_RSYNC;
    match (case, good) {
        (Case::Latency, _) => String::new(),
        (_, true) => format!("good: {of_floor:.2} of the floor, {of_rsync:.2} of rsync's time"),
        (_, false) => format!(
            "NOT GOOD ENOUGH: {of_floor:.2} of the floor (at least {ENOUGH_OF_FLOOR}), \
             {of_rsync:.2} of rsync's time (at most {ENOUGH_OF_RSYNC})"
        ),
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Megabytes, not mebibytes, a second.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is shown with three digits"
)]
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.2} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

fn ratio(above: Option<Duration>, below: Option<Duration>) -> String {
    match (above, below) {
        (Some(above), Some(below)) => {
            let ratio = above.as_secs_f64() / below.as_secs_f64();
            format!("{ratio:.*}", if ratio < 0.1 { 4 } else { 2 })
        }
        _ => String::new(),
    }
}

fn spread(runs: &[Run]) -> String {
    let times = || runs.iter().map(|run| run.time);
    match (times().min(), times().max()) {
        (Some(least), Some(most)) => format!("{} .. {}", shown(least), shown(most)),
        _ => String::new(),
    }
}

fn memory(runs: &[Run]) -> String {
    let peaks = || runs.iter().filter_map(|run| run.memory);
    let sender = peaks().map(|(sender, _)| sender).max();
    let receiver = peaks().map(|(_, receiver)| receiver).max();
    match (sender, receiver) {
        (Some(sender), Some(receiver)) => {
            format!(
                "{} + {} MiB",
                sender.div_ceil(1024),
                receiver.div_ceil(1024)
            )
        }
        _ => String::new(),
    }
}
