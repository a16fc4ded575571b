//! Checking files against the evidence, read-only.
//!
//! What is recorded of a file are prefixes: lengths with their hashes. A file is read once, from
//! its beginning, and hashed at each recorded length in order; the first one that does not hold
//! tells between which two lengths a byte has changed. Nothing here writes, locks or repairs
//! anything, so it runs beside a daemon as well as at rest.

pub mod bisect;
