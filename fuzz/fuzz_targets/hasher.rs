//! Stored hasher states: any bytes taken for one are an error, or a state that goes on by itself
//! wherever it is stored and resumed. A prefix that grows by any appends, stored and resumed
//! between them, hashes like `blake3::hash` of the whole; and no state or block with a flipped bit
//! gives the prefix that was recorded.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use shaftlog::prefix::{BLOCK, BadState, HasherState, PrefixHasher};
use shaftlog::types::{Offset, Prefix};

/// What is appended: bytes that never repeat, enough for eight subtrees.
static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![0; 16 * 65_536 + 2];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    if choice & 1 == 0 {
        any_state(rest);
    } else {
        appends(rest);
    }
});

fn any_state(data: &[u8]) {
    let Ok((state, seed)) = postcard::take_from_bytes::<HasherState>(data) else {
        return;
    };
    let (length, open) = (state.length().bytes(), state.open_block().bytes());
    let span = length - open;
    assert_eq!(open % BLOCK, 0);
    assert!(span <= BLOCK && (span > 0 || length == 0), "{state:?}");

    // A length takes at most 9 bytes, the number of subtrees less than 32 - 9.
    let subtrees = stored(&state).len() / 32;
    let block = &FILE[..span as usize];
    let Ok(mut hasher) = PrefixHasher::resume(&state, block) else {
        assert_ne!(subtrees, (open / BLOCK).count_ones() as usize, "{state:?}");
        return;
    };
    assert_eq!(subtrees, (open / BLOCK).count_ones() as usize, "{state:?}");
    assert_eq!(hasher.state(), state);
    assert_eq!(hasher.length(), state.length());
    for wrong in [span.checked_sub(1), Some(span + 1)].into_iter().flatten() {
        let resumed = PrefixHasher::resume(&state, &FILE[..wrong as usize]);
        assert!(matches!(resumed, Err(BadState::OpenBlock { .. })));
    }

    // Appended in one go, or stored and resumed in the middle.
    let more = &FILE[..BLOCK as usize + seed.len()];
    if state.length().plus(more.len() as u64).is_none() {
        return;
    }
    let mut tail = block.to_vec();
    let mut again = hasher.clone();
    hasher.update(more);
    let at = seed.first().map_or(0, |at| usize::from(*at) * 256);
    let (first, second) = more.split_at(at.min(more.len()));
    again.update(first);
    tail.extend_from_slice(first);
    let state = decoded(&stored(&again.state())).expect("what is stored can be read");
    let open = state.length().since(state.open_block()) as usize;
    let mut again = PrefixHasher::resume(&state, &tail[tail.len() - open..]).expect("resumed");
    again.update(second);
    assert_eq!(again.prefix(), hasher.prefix());
    assert_eq!(again.state(), hasher.state());
}

/// Two bytes are one append: its size, and whether the hasher is stored behind it.
fn appends(data: &[u8]) {
    let mut hasher = PrefixHasher::new();
    let mut plain = blake3::Hasher::new();
    let mut at = 0;
    for step in data.chunks_exact(2).take(64) {
        let small = usize::from(step[1]);
        let size = match step[0] >> 2 & 3 {
            0 => small,
            1 => 1024 * usize::from(step[0] >> 4) + small,
            2 => 65_536 - 128 + small,
            _ => 65_536 * usize::from(step[0] >> 6) + small,
        };
        let end = (at + size).min(FILE.len());
        hasher.update(&FILE[at..end]);
        plain.update(&FILE[at..end]);
        at = end;
        let prefix = hasher.prefix();
        assert_eq!(prefix.length.bytes(), at as u64);
        assert_eq!(prefix.hash.0, *plain.finalize().as_bytes(), "{at}");
        if step[0] & 1 == 1 {
            let bytes = stored(&hasher.state());
            hasher = resumed(&bytes).expect("what is stored can be resumed");
            assert_eq!(hasher.prefix(), prefix);
        }
        if step[0] & 2 == 2 {
            flipped(&hasher.state(), prefix, small);
        }
    }
}

/// A bit of the state, or of the block read back, is not what it was.
fn flipped(state: &HasherState, prefix: Prefix, which: usize) {
    let mut bytes = stored(state);
    let bit = which % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    if let Some(hasher) = resumed(&bytes) {
        assert_ne!(hasher.prefix(), prefix, "bit {bit} of {state:?}");
    }
    let mut block = FILE[range(state)].to_vec();
    if let Some(byte) = block.len().checked_sub(1).map(|last| which.min(last)) {
        block[byte] ^= 1;
        let hasher = PrefixHasher::resume(state, &block).expect("nobody can tell yet");
        assert_ne!(
            hasher.prefix(),
            prefix,
            "byte {byte} of the block of {state:?}"
        );
    }
}

fn stored(state: &HasherState) -> Vec<u8> {
    postcard::to_stdvec(state).expect("states can be stored")
}

fn decoded(bytes: &[u8]) -> Option<HasherState> {
    match postcard::take_from_bytes(bytes) {
        Ok((state, [])) => Some(state),
        _ => None,
    }
}

/// The hasher of a stored state of [`FILE`], if it is one.
fn resumed(bytes: &[u8]) -> Option<PrefixHasher> {
    let state = decoded(bytes)?;
    let whole = Offset::new(FILE.len() as u64)?;
    if state.length() > whole {
        return None;
    }
    PrefixHasher::resume(&state, &FILE[range(&state)]).ok()
}

fn range(state: &HasherState) -> std::ops::Range<usize> {
    state.open_block().bytes() as usize..state.length().bytes() as usize
}
