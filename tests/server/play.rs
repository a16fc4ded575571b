//! What plays of many steps against a server share: how many random ones there are, and how
//! a server is asked.

use proptest::prelude::ProptestConfig;

use crate::common::wait_for;
use crate::http::Answer;

/// A dozen plays; `PROPTEST_CASES=1000` for a long run.
pub fn plays(max_shrink_iters: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: cases.and_then(|number| number.parse().ok()).unwrap_or(12),
        max_shrink_iters,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A request as it is sent; the lines of `head` have their ends.
pub fn request(method: &str, path: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let line = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n");
    [line.as_bytes(), body].concat()
}

/// The first answer that is not 503.
pub fn answered(mut ask: impl FnMut() -> Answer) -> Answer {
    wait_for("an answer that is not 503", || {
        let answer = ask();
        (answer.status != 503).then_some(answer)
    })
}
