//! The datadir and the index: what is checked, and what others do there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use super::{Stage, parse, words};
use crate::common::{self, wait_until};
use crate::http::Asked;
use crate::script::Step;

impl Stage {
    /// Where the file lies that a request is about; `None` for a heartbeat or an odd target.
    pub(super) fn file_asked(&mut self, asked: &Asked) -> Option<PathBuf> {
        let path = asked.target.split('?').next()?.strip_prefix('/')?;
        let plain = !path.is_empty() && !path.ends_with('/') && !path.contains('%');
        plain.then(|| self.server().datadir.join(path))
    }

    pub(super) fn path(&mut self, path: &str) -> PathBuf {
        let relative = Path::new(path.trim_start_matches('/'));
        self.server().datadir.join(relative)
    }

    pub(super) fn check(&mut self, step: &Step) -> Result<(), String> {
        if step.items[0] == "same" {
            let checked = self.checked.clone();
            return checked
                .values()
                .try_for_each(|items| self.check_file(items));
        }
        self.check_file(&step.items)?;
        let path = step.items[0].split(' ').next().unwrap_or_default();
        self.checked.insert(path.to_owned(), step.items.clone());
        Ok(())
    }

    fn check_file(&mut self, items: &[String]) -> Result<(), String> {
        let (path, content) = match items[0].strip_prefix('"') {
            // A path with odd bytes is written as a string.
            Some(quoted) => quoted.split_once("\" "),
            None => items[0].split_once(' '),
        }
        .ok_or("path and bytes")?;
        let expected = match content {
            "none" => None,
            bytes => Some(self.names.bytes(bytes)?),
        };
        let relative = self.names.bytes(&format!("\"{path}\""))?;
        let relative = OsStr::from_bytes(relative.strip_prefix(b"/").ok_or("a path with /")?);
        let got = fs::read(self.server().datadir.join(relative)).ok();
        if got != expected {
            let (got, expected) = (shown(got.as_deref()), shown(expected.as_deref()));
            return Err(format!("file {path}: expected {expected}, got {got}"));
        }
        for item in &items[1..] {
            let row = item
                .strip_prefix("row ")
                .ok_or(format!("what is `{item}`?"))?;
            self.check_row(path, row, got.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    pub(super) fn check_row(
        &mut self,
        path: &str,
        expected: &str,
        file: &[u8],
    ) -> Result<(), String> {
        let rows = common::rows(&self.server().datadir, "files");
        let Some(row) = rows.iter().find(|row| row["path"] == path) else {
            return match expected {
                "none" => Ok(()),
                _ => Err(format!("row {path}: expected {expected}, there is none")),
            };
        };
        // A length speaks of the file; bytes speak of what the file no longer is.
        let (prefix, state) = if expected.starts_with('"') {
            let (bytes, state) = expected.rsplit_once("\" ").unwrap_or((expected, "vouched"));
            let quoted = format!("\"{}\"", bytes.trim_matches('"'));
            (self.names.bytes(&quoted)?, state)
        } else {
            let (length, state) = expected.split_once(' ').unwrap_or((expected, "vouched"));
            let prefix = file.get(..parse(length)?);
            (prefix.ok_or("the file is shorter")?.to_vec(), state)
        };
        let holds = row["length"] == prefix.len()
            && row["state"] == state
            && row["blake3"] == blake3::hash(&prefix).to_hex().as_str();
        if holds {
            Ok(())
        } else {
            Err(format!("row {path}: expected {expected}, got {row}"))
        }
    }

    /// `/path "bytes"`, `/path none`
    pub(super) fn high_water(&mut self, rest: &str) -> Result<(), String> {
        let (path, expected) = rest.split_once(' ').ok_or("path and bytes")?;
        let rows = common::rows(&self.server().datadir, "files");
        let row = rows.iter().find(|row| row["path"] == path);
        let mark = &row.ok_or(format!("no row of {path}"))?["high_water"];
        let holds = if expected == "none" {
            mark.is_null()
        } else {
            let bytes = self.names.bytes(expected)?;
            mark["length"] == bytes.len()
                && mark["blake3"] == blake3::hash(&bytes).to_hex().as_str()
        };
        if holds {
            Ok(())
        } else {
            Err(format!(
                "high water of {path}: expected {expected}, got {mark}"
            ))
        }
    }

    pub(super) fn listed(&mut self, shown: &str) -> Result<(), String> {
        let rows = common::rows(&self.server().datadir, "files");
        if rows.iter().any(|row| row["path"] == shown) {
            Ok(())
        } else {
            Err(format!("not among {rows:?}"))
        }
    }

    /// `client 2 15`, `client none`
    pub(super) fn wait_for_usage(&mut self, rest: &str) -> Result<(), String> {
        let (client, expected) = rest.split_once(' ').ok_or("client and usage")?;
        let datadir = self.server().datadir.clone();
        wait_until(&format!("the usage of {client} is {expected}"), || {
            let rows = common::rows(&datadir, "usage");
            let row = rows.iter().find(|row| row["client"] == client);
            let found = row.map(|row| format!("{} {}", row["files"], row["bytes"]));
            found.as_deref().unwrap_or("none") == expected
        });
        Ok(())
    }

    pub(super) fn differ(&mut self, rest: &str) -> Result<(), String> {
        let filled = self.names.fill(rest)?;
        match words(&filled)? {
            [one, other] if one == other => Err(format!("both are {one}")),
            _ => Ok(()),
        }
    }

    pub(super) fn wait_for_growth(&mut self, rest: &str) -> Result<(), String> {
        let (path, size) = rest.split_once(' ').ok_or("path and size")?;
        let (file, size): (_, u64) = (self.path(path), parse(size)?);
        wait_until(&format!("{path} has more than {size} bytes"), || {
            fs::metadata(&file).is_ok_and(|stat| stat.len() > size)
        });
        Ok(())
    }

    /// `kind /path x1`
    pub(super) fn wait_for_event(&mut self, rest: &str) -> Result<(), String> {
        let [kind, path, times] = words(rest)?;
        let datadir = self.server().datadir.clone();
        let times: u64 = parse(times.trim_start_matches('x'))?;
        wait_until(&format!("{times} events {kind} of {path}"), || {
            let events = common::rows(&datadir, "events");
            // A repeat within the hour is counted on the row of the first.
            let of_this = events
                .iter()
                .filter(|event| event["kind"] == kind && event["path"] == path);
            of_this
                .map(|event| event["times"].as_u64().unwrap_or(1))
                .sum::<u64>()
                == times
        });
        Ok(())
    }

    /// `LEVEL text x1`
    pub(super) fn wait_for_log(&mut self, rest: &str) -> Result<(), String> {
        let [level, text, times] = words(rest)?;
        let times: usize = parse(times.trim_start_matches('x'))?;
        let server = self.server();
        wait_until(&format!("{times} lines {level} with {text}"), || {
            let output = server.output();
            let lines = output
                .lines()
                .filter(|l| l.contains(level) && l.contains(text));
            lines.count() == times
        });
        Ok(())
    }

    pub(super) fn quarantined(&mut self, expression: &str) -> Result<(), String> {
        let expected = self.names.bytes(expression)?;
        let quarantine = self.server().datadir.join(".shaftlog/quarantine");
        let saved = common::tree(&quarantine);
        if saved
            .values()
            .any(|(_, hash)| *hash == blake3::hash(&expected))
        {
            Ok(())
        } else {
            Err(format!("not among what was saved: {saved:?}"))
        }
    }

    /// What others do below the datadir.
    pub(super) fn disk(&mut self, rest: &str) -> Result<(), String> {
        let mut parts = rest.splitn(3, ' ');
        let what = parts.next().unwrap_or_default();
        let path = parts.next().ok_or("which path?")?;
        let (at, rest) = (self.path(path), parts.next().unwrap_or_default());
        if let (Some(stamp), "/.shaftlog/server.redb") = (&mut self.stamp, rest) {
            // An older index: its numbers begin again where it was saved.
            stamp.number = 0;
        }
        let done = match what {
            "append" => {
                let bytes = self.names.bytes(rest)?;
                let file = File::options().append(true).create(true).open(&at);
                file.and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
            }
            "write" => {
                let (offset, bytes) = rest.split_once(' ').ok_or("offset and bytes")?;
                let (offset, bytes) = (parse(offset)?, self.names.bytes(bytes)?);
                let file = File::options().write(true).open(&at);
                file.and_then(|file| file.write_all_at(&bytes, offset))
            }
            "truncate" => {
                let size = parse(rest)?;
                let file = File::options().write(true).open(&at);
                file.and_then(|file| file.set_len(size))
            }
            "touch" => {
                let file = File::options().write(true).open(&at);
                file.and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH))
            }
            "rename" => fs::rename(&at, self.path(rest)),
            "copy" => fs::copy(&at, self.path(rest)).map(|_| ()),
            "link" => fs::hard_link(&at, self.path(rest)),
            "symlink" => symlink(rest, &at),
            "unlink" => fs::remove_file(&at),
            "mkdir" => fs::create_dir_all(&at),
            "rmdir" => fs::remove_dir_all(&at),
            "fifo" => rustix::fs::mknodat(
                rustix::fs::CWD,
                &at,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
                0,
            )
            .map_err(Into::into),
            other => return Err(format!("nobody does `{other}`")),
        };
        done.map_err(|e| format!("{what} {path}: {e}"))
    }
}

fn shown(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "no file".to_owned(),
        Some(bytes) if bytes.len() > 200 => format!(
            "{} bytes with BLAKE3 {}",
            bytes.len(),
            blake3::hash(bytes).to_hex()
        ),
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}
