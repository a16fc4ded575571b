//! What is in force, and how something newer comes into force.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::{error, info, warn};

use super::error::TlsError;
use super::files::{Named, Reading, Term};
use crate::limits::{EXPIRY_REPEAT, TLS_LOOK_AGAIN};
use crate::sys::clock;

/// What one reading of the files was made into.
pub(super) struct Made<C> {
    pub(super) config: C,
    pub(super) terms: Vec<Term>,
    /// What is odd about the files, although they can be used.
    pub(super) oddity: Option<String>,
}

/// Makes something of a reading.
pub(super) type Make<C> = dyn Fn(Reading) -> Result<Made<C>, TlsError> + Send + Sync;

/// A configuration of rustls that follows its files.
pub(super) struct Reloaded<C> {
    /// Whose it is, for messages.
    whose: String,
    files: Vec<Named>,
    make: Box<Make<C>>,
    state: Mutex<State<C>>,
    /// Held by the one who reads the files: no older reading comes into force after a newer one.
    looking: Mutex<()>,
}

struct State<C> {
    config: Arc<C>,
    terms: Vec<Term>,
    oddity: Option<String>,
    /// The last reading of which something came, or people were told why nothing did.
    settled: blake3::Hash,
    /// A bad reading since then. It may be that of files which are just being replaced, one after
    /// the other: only when the next look finds the same is it told of.
    suspect: Option<blake3::Hash>,
    looked: Instant,
    /// When people were last told of certificates that expire, and of oddities.
    warned: Option<Instant>,
}

impl<C> Reloaded<C> {
    /// Reads the files for the first time; they have to be good. Blocks.
    pub(super) fn load(
        whose: String,
        files: Vec<Named>,
        make: Box<Make<C>>,
    ) -> Result<Self, TlsError> {
        let reading = Reading::of(&files);
        let settled = reading.fingerprint();
        let Made {
            config,
            terms,
            oddity,
        } = make(reading)?;
        let state = State {
            config: Arc::new(config),
            terms,
            oddity,
            settled,
            suspect: None,
            looked: clock::monotonic(),
            warned: None,
        };
        Ok(Self {
            whose,
            files,
            make,
            state: Mutex::new(state),
            looking: Mutex::default(),
        })
    }

    /// What is in force.
    pub(super) fn current(&self) -> Arc<C> {
        Arc::clone(&self.state().config)
    }

    /// How long the certificates in force are good.
    pub(super) fn terms(&self) -> Vec<Term> {
        self.state().terms.clone()
    }

    /// What is odd about the files in force.
    pub(super) fn oddity(&self) -> Option<String> {
        self.state().oddity.clone()
    }

    /// Reads the files again and, if they have changed, puts what they hold into force or says why
    /// that cannot be. Blocks.
    pub(super) fn look(&self) {
        let looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_alone(&looking);
    }

    fn look_alone(&self, _looking: &MutexGuard<'_, ()>) {
        let reading = Reading::of(&self.files);
        let fingerprint = reading.fingerprint();
        let (is_news, was_there) = {
            let mut state = self.state();
            state.looked = clock::monotonic();
            let was_there = state.suspect == Some(fingerprint);
            (state.settled != fingerprint, was_there)
        };
        if is_news {
            self.replace(reading, was_there);
        }
        self.warn();
    }

    /// As [`look`](Self::look), and in any case puts into force what is there, or says why not: the
    /// platform's CAs are in no file of ours. Blocks.
    pub(super) fn reload(&self) {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(Reading::of(&self.files), true);
        self.warn();
    }

    /// As [`look`](Self::look), unless somebody has just looked: after a failed handshake, of which
    /// strangers can make any number. Blocks.
    pub(super) fn look_after_failure(&self) {
        let Ok(looking) = self.looking.try_lock() else {
            return;
        };
        let looked = self.state().looked;
        if clock::monotonic().duration_since(looked) >= TLS_LOOK_AGAIN {
            self.look_alone(&looking);
        }
    }

    /// Puts a reading into force. What cannot be is told of if people are to be told.
    fn replace(&self, reading: Reading, tells: bool) {
        let fingerprint = reading.fingerprint();
        let made = (self.make)(reading);
        let mut state = self.state();
        let error = match made {
            Ok(made) => {
                state.config = Arc::new(made.config);
                state.terms = made.terms;
                state.oddity = made.oddity;
                state.warned = None;
                None
            }
            Err(_) if !tells => {
                state.suspect = Some(fingerprint);
                return;
            }
            Err(error) => Some(error),
        };
        state.settled = fingerprint;
        drop(state);
        let whose = &self.whose;
        match error {
            None => info!("{whose}: certificates read again; new connections use them"),
            Some(error) => error!(
                "{whose}: going on with the certificates that were read before: tls.{}: {error} ({})",
                error.key,
                error.hint()
            ),
        }
    }

    /// Says once a day what expires soon or is odd.
    fn warn(&self) {
        let (now, today) = (clock::monotonic(), clock::now());
        let mut state = self.state();
        let is_told = |told: Instant| now.duration_since(told) < EXPIRY_REPEAT;
        if state.warned.is_some_and(is_told) {
            return;
        }
        let worries = state.terms.iter().filter_map(|term| {
            let worry = term.worry(today)?;
            Some(format!(
                "tls.{}: {}: {worry}",
                term.key,
                term.file.display()
            ))
        });
        let worries: Vec<_> = worries.chain(state.oddity.clone()).collect();
        if worries.is_empty() {
            return;
        }
        state.warned = Some(now);
        for worry in worries {
            warn!("{}: {worry}", self.whose);
        }
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
