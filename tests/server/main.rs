//! The server's contract, played against the real program: each script in `scripts/` is the text
//! of the contract as requests and answers, with file and index checked after each.
//!
//! Read `script` for the language, `contract` for what is checked on every answer. `random` asks
//! the same questions at random and holds the answers against `model`, `start` is about whole
//! runs of the program, `faults` kills it at every system call, `flight` does to it what can
//! be done while bytes are written and not durable yet.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "a test program has no public")]

mod answer;
#[path = "../common/mod.rs"]
mod common;
mod contract;
mod crowd;
mod data;
mod faults;
mod flight;
mod http;
mod kept;
mod model;
mod play;
mod random;
mod recovery;
mod restores;
mod rot;
mod said;
mod script;
mod siege;
mod stage;
mod start;

macro_rules! scripts {
    ($($(#[$attribute:meta])* $name:ident)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                let text = include_str!(concat!("scripts/", stringify!($name), ".script"));
                script::play(stringify!($name), text);
            }
        )*

        #[test]
        fn every_script_is_played() {
            let played = [$(stringify!($name)),*];
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/scripts");
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                assert!(played.contains(&name), "{} is not in main.rs", path.display());
            }
        }
    };
}

scripts! {
    connections
    cut_bodies
    head
    heartbeat
    killed
    original_client
    others_at_work
    others_in_mid_append
    quarantine
    pipelining
    rebuilt
    refilled
    regressed
    row_01_path
    row_02_busy
    row_03_diverged
    row_03_retired
    row_04_confirm
    row_04_confirm_tail
    row_04a_full
    row_05_shrunk
    row_06_gap
    row_07_repeat
    row_08_overlap
    row_09_condition
    row_09a_unconditional
    row_10_append
    row_10_quota
    scrub
    stalled
    stat_pass
    tails
    validate_regex
    wrong_digest
}
