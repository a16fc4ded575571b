//! Whatever a peer writes into a header or a path: nothing panics, what is accepted survives
//! printing and parsing, and no path leaves the directory it is put under.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::{Corpus, fuzz_target};
use shaftlog::types::{
    BootId, ByteRange, CommitNumber, Offset, PrefixHash, Shown, StableName, StoreId, WirePath,
};
use shaftlog::wire::{
    Condition, ContentRange, ETag, Problem, ReprDigest, Seen, Stamp, Tail, decimal_offset,
};

fuzz_target!(|data: &[u8]| -> Corpus {
    disk_path(data);
    values(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return Corpus::Keep;
    };
    survives::<ContentRange>(text);
    survives::<ETag>(text);
    survives::<ReprDigest>(text);
    survives::<Tail>(text);
    survives::<Stamp>(text);
    survives::<Seen>(text);
    survives::<Problem>(text);
    condition(text);
    request_path(text);
    if let Some(offset) = decimal_offset(text) {
        assert!(offset <= Offset::MAX);
        assert_eq!(decimal_offset(&offset.to_string()), Some(offset));
    }
    Corpus::Keep
});

/// What `text` means, printed and parsed again, means the same.
fn survives<T: FromStr + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert_eq!(printed.parse().ok(), Some(value), "{text:?} -> {printed:?}");
    }
}

fn condition(text: &str) {
    let both = Condition::parse(Some(text), Some(text));
    assert!(both.is_err(), "two conditions were taken");
    for parsed in [
        Condition::parse(Some(text), None),
        Condition::parse(None, Some(text)),
    ] {
        let Ok(Some(condition)) = parsed else {
            continue;
        };
        let (name, value) = condition.header();
        let again = match name {
            "if-match" => Condition::parse(Some(&value), None),
            _ => Condition::parse(None, Some(&value)),
        };
        assert_eq!(again, Ok(Some(condition)));
    }
}

fn request_path(text: &str) {
    if let Ok(path) = WirePath::decode(text) {
        stays_below(path.as_bytes());
        assert_eq!(WirePath::decode(&path.encode()), Ok(path.clone()));
        assert_eq!(WirePath::from_disk(path.as_bytes()), Ok(path));
    }
}

/// Any bytes that name a file are delivered under a URL that decodes to the same bytes.
fn disk_path(data: &[u8]) {
    let shown = Shown(data).to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    let Ok(name) = StableName::parse(data) else {
        assert!(WirePath::from_disk(data).is_err());
        return;
    };
    stays_below(name.as_bytes());
    let url = format!("/{}", name.encode());
    assert!(url.bytes().all(|b| b.is_ascii_graphic()), "{url:?}");
    let path = WirePath::decode(&url).expect("what we encode we accept");
    assert_eq!(path.as_bytes(), data);
}

fn stays_below(path: &[u8]) {
    assert!(path.len() < 4096 && !path.contains(&0));
    for segment in path.split(|b| *b == b'/') {
        assert!(!matches!(segment, b"" | b"." | b".." | b".shaftlog"));
        assert!(segment.len() <= 255);
    }
}

/// The other direction: every value can be printed and read.
fn values(data: &[u8]) {
    let (numbers, rest) = data.split_at(data.len().min(16));
    let number = |from: usize| {
        let mut bytes = [0; 8];
        let have = numbers.get(from..).unwrap_or_default();
        let take = have.len().min(8);
        bytes[..take].copy_from_slice(&have[..take]);
        u64::from_le_bytes(bytes)
    };
    let (Some(start), Some(end)) = (Offset::new(number(0)), Offset::new(number(8))) else {
        return;
    };
    same(&ContentRange::Length(end));
    let hash = PrefixHash(bytes_of(rest));
    same(&ETag(hash));
    same(&ReprDigest(hash));
    for hash in [None, Some(hash)] {
        same(&Tail { size: end, hash });
    }
    let [low, high] = [number(0), number(8)].map(CommitNumber);
    same(&Stamp {
        store: StoreId(bytes_of(rest)),
        boot: BootId(bytes_of(numbers)),
        number: low,
    });
    same(&Seen {
        boot: BootId(bytes_of(rest)),
        highest: high,
        swept: low,
    });
    if let Some(range) = ByteRange::new(start, end) {
        same(&ContentRange::Bytes { range, total: end });
        same(&ContentRange::Bytes {
            range,
            total: Offset::MAX,
        });
    }
}

fn same<T: FromStr + Display + Debug + PartialEq>(value: &T) {
    let printed = value.to_string();
    assert_eq!(printed.parse().ok().as_ref(), Some(value), "{printed:?}");
}

fn bytes_of<const N: usize>(data: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let take = data.len().min(N);
    bytes[..take].copy_from_slice(&data[..take]);
    bytes
}
