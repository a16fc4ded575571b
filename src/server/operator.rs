//! What the operator asks for: moving a delivered file aside, and giving files up. Each file is
//! claimed like for a request, so no request sees it half done.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{debug, info};

use super::core::Core;
use super::files::{Claim, Work};
use super::recover::{self, Trouble};
use super::vouch::{self, Vouching};
use super::{append_only, quarantine, retire};
use crate::config::glob::Glob;
use crate::control::{Answer, Request};
use crate::index::server::{ServerChange, ServerFile, ServerState};
use crate::index::{EventKind, NewEvent};
use crate::limits::{CONTROL_LINE, PASS_ROWS, SHOWN_PATHS};
use crate::prefix::PrefixHasher;
use crate::sys::clock;
use crate::types::words::{counted, span};
use crate::types::{ByteRange, Offset, WirePath};

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Because(String),
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

fn because(words: impl Into<String>) -> Refused {
    Refused::Because(words.into())
}

/// Does what is asked for, one request after the other.
pub(super) async fn run(core: Arc<Core>, request: Request) -> Answer {
    let _turn = core.operator.lock().await;
    let done = match request {
        Request::Quarantine { path, from } => set_aside(&core, &path, from).await,
        Request::Retire {
            pattern,
            older_than,
        } => retire_all(&core, &pattern, Duration::from_secs(older_than)).await,
    };
    done.map_or_else(|refused| Answer::Refused(refused.to_string()), Answer::Done)
}

async fn set_aside(
    core: &Arc<Core>,
    path: &str,
    from: Option<u64>,
) -> Result<Vec<String>, Refused> {
    let path = WirePath::from_shown(path.trim_start_matches('/'))
        .map_err(|error| because(format!("{path}: {error}")))?;
    let claimed = claim(core, &path).await?;
    let Some(from) = from else {
        let due = claim_due(core, &path).await?;
        return blocking(core, move |core| {
            let _due = due;
            whole(core, claimed)
        })
        .await;
    };
    blocking(core, move |core| end(core, claimed, from)).await
}

/// The claim on the path of a move that failed before, which is made up for first.
async fn claim_due(core: &Arc<Core>, besides: &WirePath) -> Result<Option<Claim>, Refused> {
    let moving = blocking(core, |core| {
        Ok(core.index.moving().map_err(Trouble::from)?)
    });
    let path = moving
        .await?
        .and_then(|(_, kept)| WirePath::from_disk(&kept.path[..]).ok())
        .filter(|path| path != besides);
    let Some(path) = path else { return Ok(None) };
    let mut due = claim(core, &path).await?;
    due.state = None;
    Ok(Some(due))
}

async fn claim(core: &Core, path: &WirePath) -> Result<Claim, Refused> {
    let claimed = core.files.claim(path, Work::Looking).await;
    claimed.map_err(|_| {
        because(format!(
            "{path} is being written or read just now: try again"
        ))
    })
}

fn whole(core: &Core, mut claim: Claim) -> Result<Vec<String>, Refused> {
    let path = claim.path().clone();
    let epoch = core.commits.epoch();
    let row = core.index.file(&path).map_err(Trouble::from)?;
    let stat = recover::regular(core, &path)?;
    match &row {
        Some(row) if row.state == ServerState::Retired => {
            return Err(because(format!("{path} is retired: its file is gone")));
        }
        None if stat.is_none() => return Err(because(format!("there is no file {path}"))),
        _ => {}
    }
    // Whatever comes of it, what was known is known no longer.
    claim.state = None;
    let kept = quarantine::close(core, &path, epoch, row.as_ref(), stat.as_ref())?;
    let line = match kept {
        Some(name) => format!(
            "{path} is kept as {}; its next delivery begins anew",
            quarantine::path_of(core, &name)
        ),
        None => format!("{path} had no file; its next delivery begins anew"),
    };
    Ok(vec![line])
}

/// Cuts the bytes from `from` on, which go to quarantine.
fn end(core: &Core, mut claim: Claim, from: u64) -> Result<Vec<String>, Refused> {
    let path = claim.path().clone();
    recover::look(core, &mut claim)?;
    let rest = cut(core, &mut claim, from);
    // Whatever comes of it, what was known is known no longer.
    claim.state = None;
    let (rest, name) = rest?;
    if let Err(trouble) = recover::note_cut(core, &path, rest.start()) {
        debug!("{path}: it will be read once more: {trouble}");
    }
    if core.rules.quotas.any()
        && let Some(row) = core.index.file(&path).map_err(Trouble::from)?
    {
        let changes = vec![ServerChange::Occupied {
            path: path.clone(),
            size: rest.start(),
            writer: row.writer,
        }];
        let epoch = core.commits.epoch();
        core.commits
            .submit_and_wait(epoch, changes)
            .map_err(Trouble::from)?;
    }
    Ok(vec![format!(
        "{path}: bytes {} to {} are kept as {}",
        rest.start(),
        rest.end(),
        quarantine::path_of(core, &name)
    )])
}

/// The bytes that were cut, and the name of their copy.
fn cut(core: &Core, claim: &mut Claim, from: u64) -> Result<(ByteRange, String), Refused> {
    const WHY: &str = "moved aside by the operator";
    let path = claim.path().clone();
    let state = claim.known()?;
    let row = state.row.clone();
    let row = row.ok_or_else(|| because(format!("there is no delivered file {path}")))?;
    if state.is_frozen() {
        let words = "only as a whole: leave --from out";
        return Err(because(format!(
            "{path} is {}: {words}",
            row.state.as_str()
        )));
    }
    let (length, size) = (state.length(), state.size());
    let rest = Offset::new(from).and_then(|from| ByteRange::new(from, size));
    let rest = rest.ok_or_else(|| because(format!("{path} has {size} bytes")))?;
    let file = state.file.clone();
    let file = file.ok_or(Trouble::Busy("the file is gone"))?;
    let name = if rest.start() < length {
        let hasher = recover::hash_on(core, &file, PrefixHasher::new(), rest.start())?;
        let vouching = Vouching {
            hasher,
            size,
            state: row.state,
            conditional: row.conditional,
            creates: false,
            adopts: false,
            writer: row.writer.clone(),
        };
        vouch::vouch_and_cut(core, claim, vouching, rest, WHY)?
    } else {
        let epoch = state.epoch;
        quarantine::set_aside(core, &path, epoch, &file, rest, WHY)?
    };
    Ok((rest, name))
}

async fn retire_all(
    core: &Arc<Core>,
    pattern: &str,
    older_than: Duration,
) -> Result<Vec<String>, Refused> {
    if !pattern.starts_with('/') {
        return Err(because(format!("{pattern}: a path begins with a slash")));
    }
    let glob = Glob::parse(pattern).map_err(|error| because(format!("{pattern}: {error}")))?;
    let until = clock::now()
        .checked_sub(older_than)
        .map_err(|_| because("nothing is as old as that"))?;
    let (mut lines, mut tally) = (Vec::new(), Tally::default());
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = blocking(core, move |core| {
            let page = core.index.survey_files(after.as_deref(), PASS_ROWS);
            Ok(page.map_err(Trouble::from)?)
        })
        .await?;
        tally.kept += page.damaged.len() as u64;
        for damage in page.damaged {
            show(&mut lines, damage);
        }
        let Some(last) = page.last else { break };
        after = Some(last);
        let matching =
            |(path, _): &(WirePath, ServerFile)| glob.matches(path.to_string().as_bytes());
        for (path, row) in page.rows.into_iter().filter(matching) {
            if row.state == ServerState::Retired {
                tally.before += 1;
                continue;
            }
            if row.updated > until {
                tally.younger += 1;
                continue;
            }
            let claim = claim(core, &path).await;
            let retired = match claim {
                Ok(claim) => blocking(core, move |core| one(core, claim, until)).await,
                Err(refused) => Err(refused),
            };
            let line = match retired {
                Ok(bytes) => {
                    tally.gone += 1;
                    format!("{path}: retired, {bytes} bytes")
                }
                Err(refused) => {
                    tally.kept += 1;
                    format!("{path}: kept: {refused}")
                }
            };
            show(&mut lines, line);
        }
    }
    lines.push(tally.in_words(pattern, older_than));
    Ok(lines)
}

/// What became of the files that a pattern matches.
#[derive(Default)]
struct Tally {
    gone: u64,
    /// Old enough, and not retired for another reason.
    kept: u64,
    younger: u64,
    /// Retired before.
    before: u64,
}

impl Tally {
    fn in_words(&self, pattern: &str, older_than: Duration) -> String {
        let Self {
            gone,
            kept,
            younger,
            before,
        } = *self;
        if gone + kept + younger + before == 0 {
            return format!("nothing retired: no delivered file matches {pattern}");
        }
        let mut words = vec![match gone {
            0 => "nothing retired".to_owned(),
            _ => format!("{} retired", counted(gone, "file")),
        }];
        let span = span(older_than);
        for (number, what) in [
            (kept, "kept".to_owned()),
            (younger, format!("got something within {span}")),
            (before, "retired before".to_owned()),
        ] {
            if number > 0 {
                words.push(format!("{} {what}", counted(number, "file")));
            }
        }
        words.join("; ")
    }
}

/// Keeps a line for the answer, as long as that is short enough to be sent.
fn show(lines: &mut Vec<String>, line: String) {
    let room = CONTROL_LINE / 4;
    let bytes: usize = lines.iter().map(String::len).sum();
    if lines.len() < SHOWN_PATHS && (bytes + line.len()) as u64 <= room {
        lines.push(line);
    }
}

/// Retires one file, if it is all that was vouched for and nothing else.
fn one(core: &Core, mut claim: Claim, until: Timestamp) -> Result<Offset, Refused> {
    let path = claim.path().clone();
    recover::look(core, &mut claim)?;
    let state = claim.known()?;
    let (epoch, size, length) = (state.epoch, state.size(), state.length());
    let row = state.row.clone();
    let row = row.ok_or(Trouble::Busy("its row is gone"))?;
    if row.state != ServerState::Vouched {
        return Err(because(format!("it is {}", row.state.as_str())));
    }
    if row.updated > until {
        return Err(because("something was delivered to it just now"));
    }
    if size != length || state.file.is_none() {
        return Err(because("it has bytes that nobody has vouched for"));
    }
    claim.state = None;
    // What hinders the removal had better show before the commit.
    append_only::lift_of(core, &path).map_err(Trouble::from)?;
    let detail = format!("{length} bytes with hash {}", row.vouched.hash);
    let row = ServerFile {
        state: ServerState::Retired,
        updated: clock::now(),
        ..row
    };
    let changes = vec![
        ServerChange::put(path.clone(), row),
        ServerChange::Event(NewEvent::now(EventKind::Retired, path.as_bytes(), detail)),
    ];
    core.commits
        .submit_and_wait(epoch, changes)
        .map_err(Trouble::from)?;
    retire::remove(core, &path)?;
    info!("{path}: retired by the operator");
    Ok(length)
}

/// Does `work` where it may block.
async fn blocking<T: Send + 'static>(
    core: &Arc<Core>,
    work: impl FnOnce(&Core) -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let core = Arc::clone(core);
    let done = tokio::task::spawn_blocking(move || work(&core)).await;
    done.unwrap_or_else(|_| Err(because("it failed; the log says why")))
}
