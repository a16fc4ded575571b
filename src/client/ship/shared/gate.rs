//! The gate of a destination: shut while it cannot be reached or was stopped, open once a connection
//! has met it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, Shared, State};
use crate::client::plan::{StopReason, Trust};
use crate::client::ship::pace::backoff_since;
use crate::limits::STOPPED_RETRY;
use crate::sys::clock;
use crate::types::FileId;

/// A failure that took so long, or has nothing tried for so long, is told of at once.
const NEWS: Duration = Duration::from_secs(10);

/// Whether requests about files may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gate {
    Open,
    /// Not before a connection has met the destination again, which is tried then.
    Shut(Instant),
    /// A connection is trying that.
    Meeting,
}

impl Shared {
    /// The destination can be reached: turns may begin.
    pub(in crate::client::ship) fn open_gate(&self) {
        let mut state = self.state();
        // Another connection may have found out meanwhile.
        if state.session.stopped().is_some() {
            return;
        }
        state.gate = Gate::Open;
        // One that fails whatever it is given is well only when it takes something.
        if !state.announced || state.schedule.is_settled() {
            self.well(&mut state);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The destination does what it should.
    pub(super) fn well(&self, state: &mut State) {
        state.failures = 0;
        state.last_failure = None;
        if state.announced && state.fault.is_none() {
            return;
        }
        state.announced = true;
        state.fault = None;
        match state.session.trust() {
            Trust::Verified => tracing::info!("{}: connected, verified", self.called),
            Trust::Unverified => tracing::warn!(
                "{}: connected, UNVERIFIED: it is no shaftlog server, and proves nothing",
                self.called
            ),
        }
    }

    /// The destination does not serve: nobody tries before a pause, which grows from failure to
    /// failure until there is progress. Failures of several connections at once count as one;
    /// `meeting` is the attempt to come back.
    pub(in crate::client::ship) fn shut_gate(&self, meeting: bool, failure: &Failure) {
        let Failure {
            why,
            took,
            retry_after,
        } = failure;
        let mut state = self.state();
        if meeting || state.gate == Gate::Open {
            let now = clock::monotonic();
            if state.failures == 0 {
                state.failing_since = now;
            }
            let lasted = now.duration_since(state.failing_since);
            let pause = backoff_since(state.failures, lasted);
            state.failures = state.failures.saturating_add(1);
            let pause = retry_after.unwrap_or_default() + pause;
            state.gate = Gate::Shut(now + pause);
            tracing::debug!("{}: {why}; tried again in {pause:?}", self.called);
        }
        state.last_failure = Some(why.clone());
        // The first failure after progress is no news yet: a bad line has one every second. But
        // nobody is left without word for long.
        let is_long = (*took).max(retry_after.unwrap_or_default()) >= NEWS;
        if state.fault.is_none() && (state.failures > 1 || is_long) {
            tracing::warn!("{}: {why}; trying again until it works", self.called);
            state.fault = Some(why.clone());
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// No PUT from now on.
    pub(in crate::client::ship) async fn stop(
        self: &Arc<Self>,
        reason: StopReason,
        culprit: Option<FileId>,
    ) {
        {
            let mut state = self.state();
            state.gate = Gate::Shut(clock::monotonic() + STOPPED_RETRY);
            state.culprit = culprit.or(state.culprit);
            if state.session.stopped().is_some() {
                return;
            }
            let reason = reason.to_string();
            tracing::error!("{}: stopped, gets no more: {reason}", self.called);
            state.fault = Some(format!("stopped: {reason}"));
            state.session.stop(&reason);
        }
        if let Err(error) = self.store().await {
            tracing::error!("{}: {error}", self.called);
        }
    }

    /// A stopped destination is well again.
    pub(in crate::client::ship) async fn resume(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.session.resume();
            state.culprit = None;
            state.failures = 0;
            tracing::info!("{}: no longer stopped", self.called);
        }
        if let Err(error) = self.store().await {
            tracing::error!("{}: {error}", self.called);
        }
    }

    /// A stopped destination is still not well.
    pub(in crate::client::ship) fn stay_stopped(&self) {
        let mut state = self.state();
        state.gate = Gate::Shut(clock::monotonic() + STOPPED_RETRY);
        if state.fault.is_none() {
            let reason = state.session.stopped().unwrap_or_default().to_owned();
            tracing::error!("{}: stopped, gets no more: {reason}", self.called);
            state.fault = Some(format!("stopped: {reason}"));
        }
    }

    /// Whatever is put off, stopped or in error is asked about now.
    pub(in crate::client::ship) fn ask_again(&self) {
        let mut state = self.state();
        state.schedule.ask_deferred();
        if let Gate::Shut(until) = &mut state.gate {
            *until = clock::monotonic();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(in crate::client::ship) fn is_open(&self) -> bool {
        self.state().gate == Gate::Open
    }
}
