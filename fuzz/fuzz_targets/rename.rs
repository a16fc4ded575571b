//! Stable names from templates (`rename`) and regular expressions (`regex_from`, `regex_to`): they
//! are what a model says that goes through the template character by character, in the words of
//! ECMA-262 (`GetSubstitution`); what comes out is a path below the datadir, or an error fit for a
//! terminal.
//!
//! The input: the pattern's name, `regex_from` (empty: a template), the template and the file's
//! path, one a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regex::bytes::{Captures, RegexBuilder};
use shaftlog::config::rename::{FileFacts, Naming};

/// The longest and oddest numbers that a file can have.
const FACTS: FileFacts = FileFacts {
    time: i64::MAX,
    atime: i64::MIN,
    mtime: -1,
    ctime: 0,
    ino: u64::MAX,
    dev: 7,
};

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let [name, from, template] = [line(), line(), line()].map(String::from_utf8_lossy);
    let path = [b"/", line()].concat();
    if from.is_empty() {
        by_template(&name, &template, &path);
    } else {
        by_regex(&name, &from, &template, &path);
    }
});

fn by_template(name: &str, template: &str, path: &[u8]) {
    let expected = |facts: &FileFacts| expand(name, template, facts, None);
    let naming = match Naming::template(name, Some(template)) {
        Ok(naming) => naming,
        Err(error) => {
            let example = expected(&FileFacts::default());
            let bad = example.is_none_or(|example| !is_name(&relative(&example)));
            assert!(bad, "{template:?}: {error}");
            return;
        }
    };
    let example = expected(&FileFacts::default()).expect("a template that was taken");
    assert!(is_name(&relative(&example)), "{template:?}");
    check(&naming, path, expected(&FACTS));
}

fn by_regex(name: &str, from: &str, to: &str, path: &[u8]) {
    let regex = RegexBuilder::new(from)
        .unicode(false)
        .size_limit(1 << 16)
        .build();
    let Ok(regex) = regex else { return };
    let Ok(naming) = Naming::regex(name, regex.clone(), to) else {
        // Whatever the groups are.
        assert_eq!(expand(name, to, &FACTS, None), None, "{to:?}");
        return;
    };
    let expected = match regex.captures(path) {
        None => Some(path.to_vec()),
        Some(found) => {
            let whole = found.get_match();
            let middle = expand(name, to, &FACTS, Some((&found, path)));
            middle.map(|middle| [&path[..whole.start()], &middle, &path[whole.end()..]].concat())
        }
    };
    check(&naming, path, expected);
}

/// The name is the expected one if that is one at all.
fn check(naming: &Naming, path: &[u8], expected: Option<Vec<u8>>) {
    let expected = relative(&expected.expect("a template that was taken"));
    match naming.name(path, &FACTS) {
        Ok(name) => {
            assert_eq!(name.as_bytes(), expected);
            assert!(is_name(&expected), "{name}");
        }
        Err(error) => {
            assert!(!is_name(&expected), "{error}");
            let said = error.to_string();
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }
    }
}

/// What a template becomes; `None` when it is none.
fn expand(
    name: &str,
    template: &str,
    facts: &FileFacts,
    found: Option<(&Captures<'_>, &[u8])>,
) -> Option<Vec<u8>> {
    let mut result = Vec::new();
    let mut rest = template.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, found) {
            (b'{', _) if after.first() == Some(&b'{') => {
                result.push(b'{');
                rest = &after[1..];
            }
            (b'{', _) => {
                let end = after.iter().position(|byte| *byte == b'}')?;
                result.extend(fact(name, &after[..end], facts)?.as_bytes());
                rest = &after[end + 1..];
            }
            (b'$', Some((found, path))) => {
                let used = reference(after, found, path, &mut result);
                rest = &after[used..];
            }
            _ => result.push(byte),
        }
    }
    Some(result)
}

fn fact(name: &str, wanted: &[u8], facts: &FileFacts) -> Option<String> {
    Some(match wanted {
        b"name" => name.to_owned(),
        b"time" => facts.time.to_string(),
        b"atime" => facts.atime.to_string(),
        b"mtime" => facts.mtime.to_string(),
        b"ctime" => facts.ctime.to_string(),
        b"ino" => facts.ino.to_string(),
        b"dev" => facts.dev.to_string(),
        _ => return None,
    })
}

/// Appends what a `$` and what is behind it stand for; how many bytes behind it that were.
fn reference(after: &[u8], found: &Captures<'_>, path: &[u8], result: &mut Vec<u8>) -> usize {
    let whole = found.get_match();
    match after.first() {
        Some(b'$') => result.push(b'$'),
        Some(b'&') => result.extend_from_slice(whole.as_bytes()),
        Some(b'`') => result.extend_from_slice(&path[..whole.start()]),
        Some(b'\'') => result.extend_from_slice(&path[whole.end()..]),
        _ => {
            let digit = |at: usize| after.get(at).filter(|byte| byte.is_ascii_digit());
            let value = |byte: &u8| usize::from(byte - b'0');
            let one = digit(0).map(value);
            let two = one
                .zip(digit(1))
                .map(|(tens, ones)| 10 * tens + value(ones));
            for (group, used) in [(two, 2), (one, 1)] {
                if let Some(group) = group.filter(|group| (1..found.len()).contains(group)) {
                    let text = found.get(group).map_or(&b""[..], |text| text.as_bytes());
                    result.extend_from_slice(text);
                    return used;
                }
            }
            result.push(b'$');
            return 0;
        }
    }
    1
}

/// Without slashes in front, doubled or at the end.
fn relative(name: &[u8]) -> Vec<u8> {
    let segments: Vec<_> = name.split(|byte| *byte == b'/').collect();
    let filled: Vec<_> = segments.into_iter().filter(|it| !it.is_empty()).collect();
    filled.join(&b'/')
}

fn is_name(bytes: &[u8]) -> bool {
    let segments: Vec<_> = bytes.split(|byte| *byte == b'/').collect();
    let good = |segment: &&[u8]| {
        !matches!(*segment, b"" | b"." | b".." | b".shaftlog")
            && segment.len() <= 255
            && !segment.contains(&0)
    };
    bytes.len() <= 4095 && segments.len() <= 128 && segments.iter().all(good)
}
