//! Steps from bytes: whatever the bytes, they are steps that a client could take.

use crate::model::{At, Put, Says};

/// One thing that happens. A `path` is one of [`PATHS`](crate::play::PATHS).
#[derive(Debug)]
pub enum Step {
    /// An append, sent in so many pieces.
    Put(Put, usize),
    /// The first is sent up to the middle of its body, then the second on another connection, then
    /// the rest of the first. The second is for the same path, and made for what the first leaves.
    /// Perhaps a HEAD comes in between.
    Both(Put, Put, bool),
    Confirm {
        path: usize,
        at: At,
        says: Says,
    },
    Head {
        path: usize,
    },
    /// `HEAD ?length=N`.
    HeadLength {
        path: usize,
        at: At,
    },
    /// Somebody else appends to the file.
    Foreign {
        path: usize,
        length: usize,
    },
    /// The connection is ended and another opened.
    Reconnect,
}

/// At most so many steps are read: a conversation is to be quick.
const MOST: usize = 16;

pub fn read(bytes: &[u8]) -> Vec<Step> {
    let mut bytes = Bytes(bytes);
    let mut steps = Vec::new();
    while !bytes.0.is_empty() && steps.len() < MOST {
        steps.push(bytes.step());
    }
    steps
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    /// The next byte; 0 behind the last.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn step(&mut self) -> Step {
        let choice = self.byte();
        let path = usize::from(choice >> 4 & 1);
        match choice & 15 {
            0..=5 => Step::Put(self.put(path), usize::from(choice >> 5)),
            6..=8 => Step::Both(self.put(path), self.put(path), choice >> 5 & 1 == 1),
            9..=10 => Step::Confirm {
                path,
                at: self.at(),
                says: says(self.byte()),
            },
            11 => Step::Head { path },
            12 => Step::HeadLength {
                path,
                at: self.at(),
            },
            13 => Step::Foreign {
                path,
                length: 1 + usize::from(self.byte()),
            },
            _ => Step::Reconnect,
        }
    }

    fn put(&mut self, path: usize) -> Put {
        let at = self.at();
        let length = match self.byte() {
            // Behind the end of a block of the prefix hasher.
            byte @ 254.. => 65_400 + usize::from(byte),
            byte => 1 + usize::from(byte),
        };
        let choice = self.byte();
        Put {
            path,
            at,
            length,
            says: says(choice),
            digest: match choice >> 3 & 3 {
                0 | 1 => Says::Right,
                2 => Says::Nothing,
                _ => Says::Wrong,
            },
            total: u64::from(choice >> 5 & 1),
            wrong: (choice & 0x40 != 0).then(|| self.place()),
            cut: (choice & 0x80 != 0).then(|| self.place()),
        }
    }

    fn place(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    fn at(&mut self) -> At {
        let byte = self.byte();
        let by = isize::from(byte >> 3) - 16;
        match byte & 7 {
            0..=2 => At::Vouched(0),
            3 => At::Vouched(by),
            4 | 5 => At::Size(0),
            6 => At::Size(by),
            _ => At::Start,
        }
    }
}

fn says(byte: u8) -> Says {
    match byte & 7 {
        0..=3 => Says::Right,
        4 | 5 => Says::Nothing,
        6 => Says::Wrong,
        _ => Says::Absent,
    }
}
