//! Bytes as they are: what holds whatever they say.

use std::fs;

use crate::answer::{Answer, Asked, parse_head};
use crate::contract;
use crate::site::Site;

/// `/@` in the bytes is a directory that no other conversation has.
const OWN: &[u8] = b"/@";

/// Sends `bytes` in pieces that `chop` chooses.
pub fn converse(site: &mut Site, chop: u8, bytes: &[u8]) {
    let directory = site.begin();
    let bytes = with_own_directory(bytes, &directory);
    let capacity = [64, 4096, 128 * 1024][usize::from(chop % 3)];
    let said = site.run(async {
        let line = site.connect(capacity);
        line.pour(&bytes, pieces(chop / 3)).await
    });
    are_answers(&said);
    site.stays_inside();
    next_is_served(site, &directory);
}

fn with_own_directory(bytes: &[u8], directory: &str) -> Vec<u8> {
    let mut result = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(OWN.len()).position(|here| here == OWN) {
        result.extend_from_slice(&rest[..at]);
        result.push(b'/');
        result.extend_from_slice(directory.as_bytes());
        rest = &rest[at + OWN.len()..];
    }
    result.extend_from_slice(rest);
    result
}

/// Sizes of pieces, small ones among them; none for 0, which leaves the bytes in one piece.
fn pieces(seed: u8) -> impl Iterator<Item = usize> {
    let mut state = u32::from(seed);
    std::iter::from_fn(move || {
        state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        (seed > 0).then(|| 1 << (state >> 16 & 7))
    })
}

/// Everything that was said is whole answers, each as the contract wants it.
fn are_answers(said: &[u8]) {
    let cut = || -> ! { panic!("cut short: {:?}", String::from_utf8_lossy(said)) };
    let mut rest = said;
    while !rest.is_empty() {
        let end = rest.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, behind) = rest.split_at(end.unwrap_or_else(|| cut()) + 4);
        let mut answer = parse_head(head).expect("an answer");
        rest = behind;
        if answer.status == 100 {
            continue;
        }
        // hyper's own, to a head that it gave up before its line had ended; nothing is behind it.
        if answer.status == 400 && answer.number("content-length") == Some(0) && rest.is_empty() {
            continue;
        }
        // The body is a problem in JSON; that of an answer to HEAD does not come.
        let has_body = rest.starts_with(b"{");
        if has_body {
            let length = answer.number("content-length").expect("a length") as usize;
            let (body, behind) = rest.split_at_checked(length).unwrap_or_else(|| cut());
            answer.body = body.to_vec();
            rest = behind;
        }
        let asked = Asked {
            method: if has_body { "PUT" } else { "HEAD" }.to_owned(),
            ..Asked::default()
        };
        if let Err(problem) = contract::check(&asked, &answer, None) {
            panic!("{problem}\n{}", answer.shown());
        }
    }
}

/// A good request, on a connection of its own, to a path that nobody can have guessed.
fn next_is_served(site: &Site, directory: &str) {
    let name = blake3::hash(directory.as_bytes()).to_hex();
    let path = format!("/ours/{name}");
    let request = format!(
        "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n\
         PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-2/3\r\nIf-None-Match: *\r\n\
         Content-Length: 3\r\nConnection: close\r\n\r\nabc"
    );
    let answers: [Answer; 2] = site.run(async {
        let mut line = site.connect(4096);
        line.send(request.as_bytes(), 1).await;
        let answers = [line.answer(true).await, line.answer(false).await];
        line.finish().await;
        answers.map(|answer| answer.expect("an answer"))
    });
    assert_eq!(answers[0].status, 200, "{}", answers[0].shown());
    assert_eq!(answers[1].status, 201, "{}", answers[1].shown());
    assert_eq!(fs::read(site.file(&path)).expect("the file"), b"abc");
}
