//! What a client says for an append of the [model](crate::model), and what the answer says of the
//! model. Pure.

use crate::answer::Answer;
use crate::data::{digest, etag};
use crate::model::{File, Outcome, Put, Says};

/// An append as it is sent.
pub struct Append {
    put: Put,
    pub a: usize,
    pub body: Vec<u8>,
    total: usize,
    condition: Option<blake3::Hash>,
    digest: Option<blake3::Hash>,
}

impl Append {
    /// What a client would send that takes the server to have `file`; `name` is that of the
    /// path's own stream.
    pub fn new(file: &File, put: &Put, name: &str) -> Self {
        let a = file.position(put.at);
        let body = body(file, put, a, name);
        let whole = file.bytes.get(..a).map(|before| [before, &body].concat());
        Self {
            put: put.clone(),
            a,
            total: a + body.len() + usize::try_from(put.total).expect("a small number"),
            condition: condition(file, put.says, a),
            digest: match put.digest {
                Says::Nothing | Says::Absent => None,
                Says::Right => Some(blake3::hash(&whole.unwrap_or_default())),
                Says::Wrong => Some(blake3::hash(b"something else")),
            },
            body,
        }
    }

    pub fn end(&self) -> usize {
        self.a + self.body.len()
    }

    /// After how many bytes of the body the client goes away.
    pub fn came(&self) -> Option<usize> {
        self.put.cut.map(|cut| cut % self.body.len())
    }

    /// Its header lines.
    pub fn head(&self) -> String {
        let (a, last, total) = (self.a, self.end() - 1, self.total);
        let condition = condition_line(self.put.says, self.condition);
        let digest = match &self.digest {
            Some(hash) => format!("Repr-Digest: {}\r\n", digest(hash)),
            None => String::new(),
        };
        let length = self.body.len();
        format!(
            "Content-Range: bytes {a}-{last}/{total}\r\n\
             {condition}{digest}Content-Length: {length}\r\n"
        )
    }

    /// What may come of it when the server has `file`.
    pub fn outcomes(&self, file: &File) -> Vec<Outcome> {
        file.append(&self.seen_from(file), self.a, &self.body, self.total)
    }

    /// What may be left of it when only so many bytes of the body came.
    pub fn cut(&self, file: &File, came: usize) -> Vec<File> {
        file.cut(&self.seen_from(file), self.a, &self.body, came, self.total)
    }

    /// The same with what it says judged by `file`, which need not be what the client took it for.
    fn seen_from(&self, file: &File) -> Put {
        let judge = |says, sent: Option<blake3::Hash>, is| match says {
            Says::Right | Says::Wrong if sent == is => Says::Right,
            Says::Right | Says::Wrong => Says::Wrong,
            other => other,
        };
        let whole = file.bytes.get(..self.a).map(|before| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(before).update(&self.body).finalize()
        });
        Put {
            says: judge(self.put.says, self.condition, file.hash(self.a)),
            digest: judge(self.put.digest, self.digest, whole),
            ..self.put.clone()
        }
    }
}

/// The header lines of a confirm.
pub fn confirm(file: &File, says: Says, n: usize) -> String {
    let condition = condition_line(says, condition(file, says, n));
    format!("Content-Range: bytes */{n}\r\nContent-Length: 0\r\n{condition}")
}

/// Whether the answer, and what is on disk behind it, is this outcome.
pub fn fits(outcome: &Outcome, answer: &Answer, on_disk: &[u8]) -> bool {
    let vouched = answer.number("shaftlog-length");
    is_said(outcome, answer)
        && outcome.after.bytes == on_disk
        && vouched.is_none_or(|length| length == outcome.after.vouched as u64)
}

/// Whether the answer is that of this outcome.
pub fn is_said(outcome: &Outcome, answer: &Answer) -> bool {
    outcome.status.contains(&answer.status) && outcome.problem == answer.header("shaftlog-problem")
}

/// Whether a HEAD's answer shows this state; `None` when it says nothing of the file.
pub fn shows(file: &File, answer: &Answer) -> Option<bool> {
    let tail = answer
        .header("shaftlog-tail")
        .and_then(|tail| tail.split(';').next());
    let (vouched, size) = match answer.status {
        404 => (0, 0),
        200 => {
            let vouched = answer.number("shaftlog-length").expect("L");
            let size = tail.map_or(vouched, |size| size.parse().expect("a size"));
            (vouched, size)
        }
        _ => return None,
    };
    Some((file.vouched as u64, file.bytes.len() as u64) == (vouched, size))
}

/// What a client would send for this range: what the server has, then the path's own stream.
fn body(file: &File, put: &Put, a: usize, name: &str) -> Vec<u8> {
    let mut body = stream(name, a, put.length);
    let known = file.bytes.get(a..).unwrap_or_default();
    let known = &known[..known.len().min(body.len())];
    body[..known.len()].copy_from_slice(known);
    if let Some(wrong) = put.wrong {
        let at = wrong % body.len();
        body[at] ^= 1;
    }
    body
}

/// Bytes `a..a + length` of the stream `name`.
pub fn stream(name: &str, a: usize, length: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
    reader.set_position(a as u64);
    let mut bytes = vec![0; length];
    reader.fill(&mut bytes);
    bytes
}

fn condition(file: &File, says: Says, a: usize) -> Option<blake3::Hash> {
    match says {
        Says::Nothing | Says::Absent => None,
        Says::Right => Some(file.hash(a).unwrap_or_else(|| blake3::hash(b"beyond"))),
        Says::Wrong => Some(blake3::hash(b"wrong")),
    }
}

fn condition_line(says: Says, hash: Option<blake3::Hash>) -> String {
    match hash {
        Some(hash) => format!("If-Match: {}\r\n", etag(&hash)),
        None if says == Says::Absent => "If-None-Match: *\r\n".to_owned(),
        None => String::new(),
    }
}
