//! Paths between the wire and the disk: a request target is decoded once and as a naive decoder
//! does it, or refused by both; what is accepted lies beneath the datadir; encoded and decoded it
//! is the same again, from either end. And `authorize`: a prefix covers the paths whose first
//! segments are its own, whole, by a model that compares lists.
//!
//! The input: a prefix, an identity and a request target or a name on disk, one a line.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use shaftlog::config::parse_server;
use shaftlog::types::{Identity, StableName, WirePath};

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let [prefix, identity] = [line(), line()].map(String::from_utf8_lossy);
    let last = line();
    on_disk(last);
    let target = String::from_utf8_lossy(last);
    on_the_wire(&target);
    if let Ok(identity) = Identity::dns(&identity).or_else(|_| Identity::uri(&identity)) {
        authorized(&prefix, &identity, &target);
    }
});

fn on_the_wire(target: &str) {
    let decoded = WirePath::decode(target);
    let naive = segments(target);
    match (&decoded, &naive) {
        (Ok(path), Some(segments)) => assert_eq!(path.as_bytes(), segments.join(&b'/')),
        (Err(_), None) => {}
        _ => panic!("{target:?}: {decoded:?}, but {naive:?}"),
    }
    let Ok(path) = decoded else { return };
    stays_beneath(path.as_bytes());
    let encoded = path.encode();
    assert_eq!(WirePath::decode(&encoded).as_ref(), Ok(&path));
    assert_eq!(
        WirePath::decode(&encoded).map(|path| path.encode()),
        Ok(encoded)
    );
    assert_eq!(WirePath::from_disk(path.as_bytes()).as_ref(), Ok(&path));
    let shown = path.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert_eq!(WirePath::from_shown(&shown[1..]), Ok(path), "{shown:?}");
}

fn on_disk(bytes: &[u8]) {
    let name = StableName::parse(bytes);
    let path = WirePath::from_disk(bytes);
    assert_eq!(name.is_ok(), path.is_ok());
    assert_eq!(
        name.is_ok(),
        are_good(&bytes.split(|byte| *byte == b'/').collect::<Vec<_>>())
    );
    let Ok(name) = name else { return };
    stays_beneath(name.as_bytes());
    let target = format!("/{}", name.encode());
    assert!(
        target.bytes().all(|byte| byte.is_ascii_graphic()),
        "{target}"
    );
    let path = WirePath::decode(&target).expect("what we encode we accept");
    assert_eq!(path.as_bytes(), bytes);
    assert_eq!(path.encode(), target);
}

/// What the kernel makes of it below a directory.
fn stays_beneath(relative: &[u8]) {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Path::new(std::ffi::OsStr::from_bytes(relative));
    let mut number = 0;
    for component in path.components() {
        assert!(matches!(component, Component::Normal(_)), "{path:?}");
        number += 1;
    }
    assert_eq!(
        number,
        relative.split(|byte| *byte == b'/').count(),
        "{path:?}"
    );
    assert!(Path::new("/srv/data").join(path).starts_with("/srv/data"));
    assert!(!relative.contains(&0));
}

/// The decoded segments of a request target; `None` when it is no path.
fn segments(target: &str) -> Option<Vec<Vec<u8>>> {
    let mut segments = Vec::new();
    for segment in target.strip_prefix('/')?.split('/') {
        let mut bytes = Vec::new();
        let mut rest = segment;
        while let Some(first) = rest.bytes().next() {
            if first == b'%' {
                let digits = rest.get(1..3)?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[3..];
            } else {
                let character = rest.chars().next()?;
                if matches!(character, '\0'..=' ' | '?' | '#' | '\x7f') {
                    return None;
                }
                let (now, later) = rest.split_at(character.len_utf8());
                bytes.extend(now.bytes());
                rest = later;
            }
        }
        segments.push(bytes);
    }
    are_good(&segments).then_some(segments)
}

fn are_good<S: AsRef<[u8]>>(segments: &[S]) -> bool {
    let bytes: usize = segments
        .iter()
        .map(|segment| segment.as_ref().len() + 1)
        .sum();
    let good = |segment: &S| {
        let segment = segment.as_ref();
        !matches!(segment, b"" | b"." | b".." | b".shaftlog")
            && segment.len() <= 255
            && !segment.contains(&b'/')
            && !segment.contains(&0)
    };
    bytes <= 4096 && segments.len() <= 128 && segments.iter().all(good)
}

fn authorized(prefix: &str, identity: &Identity, target: &str) {
    // JSON is YAML, but for control characters that YAML has no other way to write.
    if prefix.chars().any(char::is_control) {
        return;
    }
    let text = serde_json::json!({
        "datadir": "/d",
        "tls": {"cert": "/c", "key": "/k", "client_ca": "/a"},
        "authorize": [{"identity": "*", "paths": [prefix]}],
    });
    let Ok(settings) = parse_server(Path::new("x.yaml"), text.to_string().as_bytes()) else {
        return;
    };
    let (rule, Ok(path)) = (&settings.authorize[0], WirePath::decode(target)) else {
        return;
    };
    let theirs: Vec<_> = path.as_bytes().split(|byte| *byte == b'/').collect();
    let ours = match prefix.strip_suffix('/').unwrap_or(prefix) {
        "" => Vec::new(),
        prefix => segments(prefix).expect("a prefix that was taken is a path"),
    };
    let filled_in =
        |segment: &Vec<u8>| replace(segment, b"{identity}", identity.as_str().as_bytes());
    let ours: Vec<_> = ours.iter().map(filled_in).collect();
    let expected = ours.len() <= theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| a == b);
    let covers = rule.covers(identity, &path);
    assert_eq!(covers, expected, "{prefix:?} of {identity} and {path}");
}

fn replace(mut bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    while let Some(&first) = bytes.first() {
        if let Some(rest) = bytes.strip_prefix(what) {
            result.extend_from_slice(by);
            bytes = rest;
        } else {
            result.push(first);
            bytes = &bytes[1..];
        }
    }
    result
}
