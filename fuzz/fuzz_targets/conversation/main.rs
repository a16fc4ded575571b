//! Whole conversations with the real server, over streams in memory as `sync --to DIR` has them.
//!
//! An even first byte makes *steps* of the rest ([`steps`]): appends with ranges, conditions and
//! digests that are right or wrong, confirms, HEADs, bodies cut short, two appends at once. Answer,
//! file and HEAD must be what the model of the server's own tests allows ([`play`]): every byte
//! covered by a 2xx is there, nothing below L ever changes, L never shrinks, a HEAD in the middle of
//! a body tells nothing that is not durable; and the index, once closed, holds what the last HEADs
//! said.
//!
//! An odd first byte sends the rest as it is ([`raw`]), in pieces: nothing panics, the server says
//! HTTP and ends the connection, nothing appears beside the datadir, and the next good request is
//! served.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;

use crate::site::Site;

#[path = "../../../tests/server/answer.rs"]
#[allow(dead_code, reason = "a part of it is for the tests alone")]
mod answer;
#[path = "../../../tests/server/contract.rs"]
mod contract;
#[path = "../../../tests/server/data.rs"]
#[allow(dead_code, reason = "a part of it is for the tests alone")]
mod data;
mod line;
#[path = "../../../tests/server/model.rs"]
#[allow(dead_code, reason = "a part of it is for the tests alone")]
mod model;
mod play;
mod raw;
#[path = "../../../tests/server/said.rs"]
mod said;
mod site;
mod steps;

thread_local! {
    /// Two servers, since raw bytes may go to any path, those of the model included.
    static SITES: RefCell<[Option<Site>; 2]> = const { RefCell::new([None, None]) };
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let is_raw = choice & 1 == 1;
    SITES.with_borrow_mut(|sites| {
        let place = &mut sites[usize::from(is_raw)];
        let mut site = match place.take() {
            Some(site) if site.is_worn() => {
                site.close();
                Site::new()
            }
            Some(site) => site,
            None => Site::new(),
        };
        if is_raw {
            raw::converse(&mut site, choice >> 1, rest);
        } else {
            play::play(&mut site, &steps::read(rest));
        }
        *place = Some(site);
    });
});
