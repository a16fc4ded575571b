//! The line that says every `status_interval` how the client stands.

use std::fmt::Write as _;
use std::sync::Arc;

use super::catalogue::Catalogue;
use super::discover::Report;
use super::release::Held;
use super::ship::{Ship, Status};

/// How everything stands. Opens the files that wait: it blocks.
pub(super) fn line(
    catalogue: &Catalogue,
    ships: &[Arc<Ship>],
    report: &Report,
    held: Held,
) -> String {
    let mut line = format!("status: {} files", catalogue.active().len());
    line.push_str(&holding(held));
    for ship in ships {
        let status = ship.status();
        let bytes = match status.files_behind {
            0 => 0,
            _ => ship.bytes_behind(),
        };
        let _ = write!(line, "; {}", destination(&status, bytes));
    }
    line.push_str(&passed_over(report));
    line
}

fn destination(status: &Status, bytes: u64) -> String {
    let standing = if let Some(reason) = &status.stopped {
        format!("stopped: {reason}")
    } else if let Some(fault) = &status.fault {
        fault.clone()
    } else if !status.connected {
        "not connected".to_owned()
    } else if status.sweeping {
        "looking at all files again".to_owned()
    } else {
        "connected".to_owned()
    };
    let mut text = format!("{} {standing}", status.called);
    if status.verified == Some(false) {
        text.push_str(", unverified");
    }
    match status.files_behind {
        0 => text.push_str(", nothing behind"),
        files => {
            let _ = write!(text, ", {bytes} bytes in {files} files behind");
        }
    }
    if !status.errors.is_empty() {
        let _ = write!(text, ", {} files in error", status.errors.len());
    }
    text
}

/// What would be free without our links, or is held by others too.
fn holding(held: Held) -> String {
    let mut text = String::new();
    if held.alone.0 > 0 {
        let (files, bytes) = held.alone;
        let _ = write!(
            text,
            ", {bytes} bytes in {files} of them held by our links alone"
        );
    }
    if held.elsewhere > 0 {
        let files = held.elsewhere;
        let _ = write!(
            text,
            ", {files} of them held elsewhere, where no pattern finds them"
        );
    }
    text
}

fn passed_over(report: &Report) -> String {
    let mut text = String::new();
    for it in &report.unlinkable {
        let _ = write!(text, "; {it}");
    }
    if report.failed > 0 {
        let _ = write!(text, "; {} cannot be taken in", report.failed);
    }
    let skipped = report.skipped.to_string();
    if !skipped.is_empty() {
        let _ = write!(text, "; passed over: {skipped}");
    }
    text
}
