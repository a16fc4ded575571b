//! Every bad input of framing, methods, ranges and paths, at the real server on a real socket: the
//! bytes that are sent, the exact answer, and what is left afterwards. The tables in `hostile/` are
//! the inputs, one a row; `stage` is what is checked for each: every file and every row of the
//! index is as before, and the next request is served, on a new connection and on the same one
//! unless the answer ended it.
//!
//! Each table says how many rows it has, so that none is lost unseen. What one row cannot say is
//! elsewhere: 10,000 idle connections in `trust/limits`, bodies that dribble by the hundred in
//! `server/siege`, 40 spellings of another identity's path in `trust/identities`, bodies that are
//! cut and gone on with in `server/scripts/cut_bodies`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking, and prints its figures"
)]

mod common;

#[path = "trust/authority.rs"]
#[allow(dead_code, reason = "bad certificates are tried elsewhere")]
mod authority;
#[path = "server/answer.rs"]
mod answer;
#[path = "server/contract.rs"]
mod contract;
#[path = "server/data.rs"]
#[allow(dead_code, reason = "the scripts' values are not needed here")]
mod data;
#[path = "server/http.rs"]
mod http;
#[path = "trust/speaker.rs"]
#[allow(dead_code, reason = "bad certificates are tried elsewhere")]
mod speaker;

mod hostile {
    mod framing;
    mod methods;
    mod paths;
    mod ranges;
    mod row;
    mod stage;
}
