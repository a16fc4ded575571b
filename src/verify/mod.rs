//! Checking files against the evidence, read-only.
//!
//! What is recorded of a file are prefixes: lengths with their hashes. A file is read once, from
//! its beginning, and hashed at each recorded length in order ([`hashes`]); the first one that does
//! not hold tells between which two lengths a byte has changed. Nothing here writes, locks or
//! repairs anything, so it runs beside a daemon as well as at rest: the record is read before the
//! file, which can only have grown since, and whatever looks wrong is looked at again when the
//! record has changed meanwhile.
//!
//! Missing evidence is a failure, never a pass.

pub mod bisect;
pub mod crew;
pub mod figures;
pub mod finding;
pub mod hashes;
pub mod server;
pub mod single;
pub mod stat;
