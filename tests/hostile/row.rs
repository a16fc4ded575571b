//! What a row says.

use std::borrow::Cow;

/// One bad input, and what comes of it.
pub struct Row {
    pub name: &'static str,
    /// What the client does, in this order, before it reads.
    pub sent: Vec<Sent>,
    /// All answers, in their order. None: the server ends the connection without a word.
    pub answers: Vec<Expected>,
    pub leaves: Leaves,
}

/// What a client does.
#[derive(Clone)]
pub enum Sent {
    Bytes(Cow<'static, [u8]>),
    /// These bytes one by one, a few a second, for as long as the server reads on.
    Drip(&'static [u8]),
    /// Waits until the server has this many bytes of the file.
    Arrived(&'static str, u64),
    /// Ends its side: FIN.
    Finish,
    /// Ends all of it: RST. There is nothing to be read any more.
    Reset,
}

/// One answer.
#[derive(Clone, Copy)]
pub struct Expected {
    pub status: u16,
    /// The token of a refusal, "" otherwise.
    pub problem: &'static str,
    /// What is answered, as far as it tells how the answer is read.
    pub to: &'static str,
    /// Whether the connection ends with it.
    pub ends: bool,
    /// Whether it does so without `Connection: close`, as is right in HTTP/1.0.
    pub is_unsaid: bool,
    /// `Allow`, where it is due.
    pub allow: Option<&'static str>,
    /// Comes from in front of the server: none of our headers.
    pub is_bare: bool,
}

/// What a row changes.
#[derive(Clone)]
pub enum Leaves {
    /// Nothing.
    Same,
    /// This new file, all of it vouched for.
    File(Cow<'static, [u8]>, Cow<'static, [u8]>),
    /// This new file, nothing of it vouched for.
    Tail(&'static str, &'static [u8]),
    /// This new file, of some of these bytes, none vouched for.
    Dripped(&'static str, u8),
}

/// These bytes, as they are.
pub fn say(bytes: &'static str) -> Sent {
    Sent::Bytes(bytes.as_bytes().into())
}

/// The same bytes again and again.
pub fn times(count: usize, bytes: &str) -> Sent {
    Sent::Bytes(bytes.repeat(count).into_bytes().into())
}

/// This answer to a PUT, or to anything whose answer may have a body.
pub fn answer(status: u16, problem: &'static str) -> Expected {
    Expected {
        status,
        problem,
        to: "PUT",
        ends: false,
        is_unsaid: false,
        allow: None,
        is_bare: false,
    }
}

impl Expected {
    /// To a HEAD.
    pub fn to_head(self) -> Self {
        Self { to: "HEAD", ..self }
    }

    /// The last one on this connection.
    pub fn ends(self) -> Self {
        Self { ends: true, ..self }
    }

    /// The last one, to a client that expects no other.
    pub fn ends_unsaid(self) -> Self {
        Self {
            is_unsaid: true,
            ..self.ends()
        }
    }

    /// With the methods that there are.
    pub fn allowing(self) -> Self {
        let allow = Some("HEAD, PUT");
        Self { allow, ..self }
    }

    /// From in front of the server.
    pub fn bare(self) -> Self {
        Self {
            is_bare: true,
            ..self
        }
    }
}
