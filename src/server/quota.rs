//! What one client may fill: files and bytes.
//!
//! What is committed, the index adds up ([`Usage`]); what is being
//! received is held here until then, so that appends at the same time cannot exceed together what
//! each alone would not. Between a commit and the end of its [`Hold`] bytes count twice: nobody ever
//! gets more than his quota, and who is told too early that it is full comes again.
//!
//! What a crash leaves behind vouched lengths is charged when somebody goes on with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use super::commit::Epoch;
use super::core::Core;
use super::files::FileState;
use super::recover::Trouble;
use crate::config::access::{Network, Rule};
use crate::config::{Quota, ServerSettings};
use crate::index::server::{Charge, ServerChange, Usage, account};
use crate::index::{EventKind, NewEvent};
use crate::limits::TOLD_PATHS;
use crate::types::{Identity, Offset, WirePath};

/// The quotas that the operator gives.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    general: Quota,
    /// Those of `authorize`.
    rules: Vec<Rule>,
}

impl From<&ServerSettings> for Quotas {
    fn from(settings: &ServerSettings) -> Self {
        let mut rules = settings.authorize.clone();
        rules.retain(|rule| rule.quota().is_bound());
        Self {
            general: settings.quota,
            rules,
        }
    }
}

impl Quotas {
    /// Whether anybody has one.
    pub(super) fn any(&self) -> bool {
        self.general.is_bound() || !self.rules.is_empty()
    }

    /// That of an account: of the first entry of `authorize` that is about it and has one, and for
    /// what that leaves open the general one.
    fn of(&self, account: &str) -> Quota {
        let identity = match account.parse::<Network>() {
            Ok(_) => None,
            Err(()) => Identity::dns(account)
                .or_else(|_| Identity::uri(account))
                .ok(),
        };
        let own = identity.and_then(|identity| {
            let mut rules = self.rules.iter();
            rules.find(|rule| rule.is_about(&identity)).map(Rule::quota)
        });
        own.unwrap_or_default().or(self.general)
    }
}

/// What is held beside what is committed.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<HashMap<String, Account>>);

#[derive(Debug, Default)]
struct Account {
    held: Usage,
    /// What it had when it was said to be full.
    full_at: Option<Usage>,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for what is being received, until this is dropped: when it is committed, or will never be.
#[derive(Default)]
pub(crate) struct Hold(Option<Room>);

struct Room {
    core: Arc<Core>,
    account: String,
    size: Usage,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let room = self.0.as_ref().map(|room| (&room.account, room.size));
        f.debug_tuple("Hold").field(&room).finish()
    }
}

impl Room {
    /// So many bytes are what it came to.
    fn give_back_all_but(&mut self, bytes: u64) {
        let unused = self.size.bytes.saturating_sub(bytes);
        if let Some(account) = self.core.held.lock().get_mut(&self.account) {
            account.held.bytes -= unused;
            self.size.bytes -= unused;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut accounts = self.core.held.lock();
        if let Some(account) = accounts.get_mut(&self.account) {
            account.held.files -= self.size.files;
            account.held.bytes -= self.size.bytes;
            if account.held == Usage::default() && account.full_at.is_none() {
                accounts.remove(&self.account);
            }
        }
    }
}

/// Holds room for `path` to have a file of `end` bytes, written by `writer`; `None`: there is none.
pub(super) fn reserve(
    core: &Arc<Core>,
    path: &WirePath,
    state: &FileState,
    end: Offset,
    writer: &str,
) -> Result<Option<Hold>, Trouble> {
    if !core.rules.quotas.any() {
        return Ok(Some(Hold::default()));
    }
    let charge = state.charge.as_ref();
    let payer = charge.map(|charge| charge.account.clone());
    let Some(payer) = payer.or_else(|| account(writer)) else {
        return Ok(Some(Hold::default()));
    };
    let room = Usage {
        files: u64::from(charge.is_none()),
        bytes: end
            .bytes()
            .saturating_sub(charge.map_or(0, |charge| charge.bytes)),
    };
    let quota = core.rules.quotas.of(&payer);
    if !quota.is_bound() || room == Usage::default() {
        return Ok(Some(Hold::default()));
    }
    let mut accounts = core.held.lock();
    // Read while nobody can give anything back: what is committed meanwhile is still held.
    let used = core.index.usage(&payer)?;
    let account = accounts.entry(payer.clone()).or_default();
    let held = account.held;
    let exceeds = |most: Option<u64>, used: u64, held: u64, more: u64| {
        let sum = used.saturating_add(held).saturating_add(more);
        more > 0 && most.is_some_and(|most| sum > most)
    };
    let too_many = exceeds(quota.files, used.files, held.files, room.files);
    let too_much = exceeds(quota.bytes, used.bytes, held.bytes, room.bytes);
    let has_shrunk = |before: Usage| used.files < before.files || used.bytes < before.bytes;
    if account.full_at.is_some_and(has_shrunk) {
        account.full_at = None;
        info!("{payer} has room in its quota again");
    }
    if !too_many && !too_much {
        account.held.files += room.files;
        account.held.bytes += room.bytes;
        return Ok(Some(Hold(Some(Room {
            core: Arc::clone(core),
            account: payer,
            size: room,
        }))));
    }
    let is_news = account.full_at.replace(used).is_none();
    forget_some(&mut accounts);
    drop(accounts);
    if is_news {
        tell(core, path, state.epoch, &payer, [used, held], quota);
    }
    Ok(None)
}

/// Whoever can come from many addresses can fill many quotas.
fn forget_some(accounts: &mut HashMap<String, Account>) {
    if accounts.len() > TOLD_PATHS {
        accounts.retain(|_, account| account.held != Usage::default());
    }
}

/// Says it once, until there is room again.
fn tell(
    core: &Core,
    path: &WirePath,
    epoch: Epoch,
    payer: &str,
    [used, held]: [Usage; 2],
    quota: Quota,
) {
    let of = |most: Option<u64>| most.map_or_else(String::new, |most| format!(" of {most}"));
    let mut detail = format!(
        "{payer} has used up its quota: {} files{} with {} bytes{}",
        used.files,
        of(quota.files),
        used.bytes,
        of(quota.bytes),
    );
    if held != Usage::default() {
        let Usage { files, bytes } = held;
        detail = format!("{detail}, and {files} new files with {bytes} bytes on their way");
    }
    warn!("{path} is not taken: {detail}; what is there is served, and it comes again");
    let event = NewEvent::now(EventKind::QuotaReached, path.as_bytes(), detail);
    let changes = vec![ServerChange::Event(event)];
    core.commits.submit(epoch, changes, Box::new(|_| ()));
}

/// Charges for the bytes that a request has left behind the vouched length; `hold` is given up when
/// that is committed.
pub(super) fn charge_tail(
    core: &Core,
    path: &WirePath,
    state: &mut FileState,
    writer: &str,
    mut hold: Hold,
) {
    let size = state.size();
    let charged = state.charge.as_ref().map(|charge| charge.bytes);
    let more = size.bytes().saturating_sub(charged.unwrap_or(0));
    if state.seen.is_none() || (charged.is_some() && more == 0) {
        return;
    }
    let Some(room) = &mut hold.0 else { return };
    room.give_back_all_but(more);
    advance(state, size, writer);
    let changes = vec![ServerChange::Occupied {
        path: path.clone(),
        size,
        writer: writer.to_owned(),
    }];
    let done = Box::new(move |_| drop(hold));
    core.commits.submit(state.epoch, changes, done);
}

/// What the path is charged for when a file of `size` bytes is committed.
pub(super) fn advance(state: &mut FileState, size: Offset, writer: &str) {
    let payer = state.charge.take().map(|charge| charge.account);
    state.charge = payer.or_else(|| account(writer)).map(|account| Charge {
        account,
        bytes: size.bytes(),
    });
}
