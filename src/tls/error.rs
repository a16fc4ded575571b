//! Why the files of a `tls` cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// One file of a `tls` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {flaw}", file.display())]
pub struct TlsError {
    /// The key of `tls` that names the file.
    pub key: &'static str,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    #[source]
    pub flaw: Flaw,
}

impl TlsError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        self.flaw.hint(&self.file)
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// It is missing, closed to us, no regular file, or too long.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Others than its owner can read or change the key.
    #[error("others than its owner can read or change the key (mode {0:04o})")]
    Open(u32),
    /// The key belongs to another user, who knows it whoever else may read it.
    #[error(
        "belongs to user {owner}, who knows the key; expected root or the daemon's user ({ours})"
    )]
    Owner {
        /// Whose it is.
        owner: u32,
        /// As whom this process runs.
        ours: u32,
    },
    /// It holds none.
    #[error("holds no {0} in PEM format")]
    Missing(&'static str),
    /// It holds a broken one.
    #[error("holds a broken {what}: {words}")]
    Broken {
        /// What it should be.
        what: &'static str,
        /// What the parser said.
        words: String,
    },
    /// It is the key of another certificate.
    #[error("is not the key of the certificate")]
    OtherKey,
    /// The platform has no CAs that could be believed.
    #[error("cannot be used: {0}")]
    Platform(String),
    /// Whatever else rustls finds wrong with it.
    #[error("cannot be used: {0}")]
    Unusable(String),
}

impl Flaw {
    fn hint(&self, file: &Path) -> String {
        match self {
            Self::Read(error) if error.kind() == io::ErrorKind::NotFound => {
                "`shaftlog tls init` and `shaftlog tls issue` make a CA and certificates".to_owned()
            }
            Self::Read(_) => "the user that the daemon runs as must be able to read it".to_owned(),
            Self::Open(_) => format!("chmod 600 {}", file.display()),
            Self::Owner { ours, .. } => {
                let file = file.display();
                format!("have a new key made, or, if that user may know it, chown {ours} {file}")
            }
            Self::Platform(_) => {
                "install the package ca-certificates, or name the CA's file as `ca`".to_owned()
            }
            Self::OtherKey => "name the key that the certificate was issued for".to_owned(),
            Self::Missing(_) | Self::Broken { .. } | Self::Unusable(_) => {
                "expected PEM, as it begins with -----BEGIN".to_owned()
            }
        }
    }
}
