//! The tokens of `Shaftlog-Problem` and of the `application/problem+json` beside it (RFC 9457).

use std::fmt;
use std::str::FromStr;

use super::BadHeader;

macro_rules! problems {
    ($($(#[doc = $doc:literal])* $name:ident = $token:literal, $status:literal;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Problem {
            $($(#[doc = $doc])* $name,)*
        }

        impl Problem {
            /// Every problem there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The token on the wire.
            pub const fn token(self) -> &'static str {
                match self { $(Self::$name => $token,)* }
            }

            /// The HTTP status that usually goes with it; a malformed header is always 400.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

problems! {
    /// The prefix before the range is not what the client says.
    Condition = "condition", 412;
    /// Bytes that are already there differ from these.
    Differs = "differs", 409;
    /// The range begins beyond what is there.
    Gap = "gap", 416;
    /// The client's file is shorter than what is vouched for.
    Shrunk = "shrunk", 416;
    /// The prefix after the append is not what the client says; its bytes were cut off again.
    Digest = "digest", 400;
    /// Another request is at work on this path, or the index is being reopened.
    Busy = "busy", 503;
    /// The file is being hashed.
    Hashing = "hashing", 503;
    /// The server's bytes differ from the server's own index.
    Diverged = "diverged", 409;
    /// The operator has retired the file; it counts as delivered.
    Retired = "retired", 410;
    /// No room on the disk.
    Full = "full", 507;
    /// The index or the disk failed.
    Store = "store", 507;
    /// No path of a delivered file.
    Path = "path", 400;
    /// Neither HEAD nor PUT.
    Method = "method", 405;
    /// No Content-Range, an odd one, or one that overlaps without a digest.
    Range = "range", 416;
    /// No Content-Length, an odd one, or any Transfer-Encoding.
    Length = "length", 411;
    /// A Content-Encoding.
    Coding = "coding", 415;
    /// Head or body did not arrive in time.
    Timeout = "timeout", 408;
    /// The body or the file would be larger than allowed.
    TooLarge = "too-large", 413;
    /// Not this client's path.
    Forbidden = "forbidden", 403;
    /// An unconditional request where a conditional one is required.
    Unconditional = "unconditional", 428;
}

impl FromStr for Problem {
    type Err = BadHeader;

    fn from_str(text: &str) -> Result<Self, BadHeader> {
        let known = Self::ALL.iter().find(|problem| problem.token() == text);
        known.copied().ok_or(BadHeader {
            header: "Shaftlog-Problem",
            expected: "a known token",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive() {
        for problem in Problem::ALL {
            assert_eq!(problem.token().parse(), Ok(*problem));
        }
        assert!("Gap".parse::<Problem>().is_err());
    }
}
