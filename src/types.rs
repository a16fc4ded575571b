//! Plain values, parsed once and valid ever after: offsets, ranges, hashes, paths and names.
//!
//! Nothing here does I/O. A function that takes one of these types need not check it again.

mod hash;
mod identity;
mod ids;
mod offset;
mod path;
mod plain;
mod shown;
pub mod words;

pub use hash::{BadHash, Prefix, PrefixHash};
pub use identity::{Identity, NoIdentity};
pub use ids::{BadIdentity, BootId, CommitNumber, FileId, Inode, StoreId};
pub use offset::{ByteRange, Offset, OutOfRange};
pub(crate) use path::percent_encode;
pub use path::{BadPath, StableName, WirePath};
pub use plain::plain;
pub use shown::Shown;
