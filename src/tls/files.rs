//! One reading of all files of a `tls`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::{InconsistentKeys, RootCertStore};

use super::certificate::{self, Validity};
use super::error::{Flaw, TlsError};
use crate::limits::{EXPIRY_WARNING, TLS_FILE_BYTES};
use crate::sys;

/// What certificates are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be used by this process.
    Use,
    /// To be looked at, by root perhaps, for a daemon that runs as another user.
    Look,
}

impl Purpose {
    /// Whether a private key may be this user's, who knows it.
    fn takes_key_of(self, user: u32) -> bool {
        sys::host::is_trusted(user) || self == Self::Look && sys::host::own_user() == 0
    }
}

/// A file that a key of `tls` names.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
    /// That of a private key: what for.
    secret: Option<Purpose>,
}

impl Named {
    pub(super) fn new(key: &'static str, path: &Path) -> Self {
        Self {
            key,
            path: path.to_owned(),
            secret: None,
        }
    }

    /// The file of a private key.
    pub(super) fn secret(path: &Path, purpose: Purpose) -> Self {
        Self {
            secret: Some(purpose),
            ..Self::new(KEY, path)
        }
    }

    pub(super) fn error(&self, flaw: Flaw) -> TlsError {
        TlsError {
            key: self.key,
            file: self.path.clone(),
            flaw,
        }
    }

    /// Its bytes. Those of a private key only if nobody else can have read or changed them.
    fn read(&self) -> Result<Vec<u8>, Flaw> {
        let (bytes, stat) =
            sys::file::read_small_and_stat(&self.path, TLS_FILE_BYTES).map_err(Flaw::Read)?;
        if let Some(purpose) = self.secret {
            if stat.mode & 0o077 != 0 {
                return Err(Flaw::Open(stat.mode));
            }
            if !purpose.takes_key_of(stat.uid) {
                return Err(Flaw::Owner {
                    owner: stat.uid,
                    ours: sys::host::own_user(),
                });
            }
        }
        Ok(bytes)
    }
}

/// The key of `tls` whose file is a secret.
pub(super) const KEY: &str = "key";

/// What the files held when they were read.
pub(super) struct Reading(Vec<(Named, Result<Vec<u8>, Flaw>)>);

impl Reading {
    /// Reads the files. Blocks.
    pub(super) fn of(files: &[Named]) -> Self {
        let read = |file: &Named| (file.clone(), file.read());
        Self(files.iter().map(read).collect())
    }

    /// What tells it from another reading, bytes and errors alike.
    pub(super) fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (_, read) in &self.0 {
            let (sort, hash) = match read {
                Ok(bytes) => (b'=', blake3::hash(bytes)),
                Err(flaw) => (b'!', blake3::hash(flaw.to_string().as_bytes())),
            };
            hasher.update(&[sort]).update(hash.as_bytes());
        }
        hasher.finalize()
    }

    /// Takes out the file that `key` names, if it names one.
    pub(super) fn take(&mut self, key: &str) -> Result<Option<Content>, TlsError> {
        let Some(at) = self.0.iter().position(|(file, _)| file.key == key) else {
            return Ok(None);
        };
        match self.0.swap_remove(at) {
            (file, Ok(bytes)) => Ok(Some(Content { file, bytes })),
            (file, Err(flaw)) => Err(file.error(flaw)),
        }
    }

    /// As [`take`](Self::take), for a file that `key` has to name.
    pub(super) fn need(&mut self, key: &'static str) -> Result<Content, TlsError> {
        let missing = || Named::new(key, Path::new("")).error(Flaw::Missing("file"));
        self.take(key)?.ok_or_else(missing)
    }
}

/// One file that could be read.
pub(super) struct Content {
    pub(super) file: Named,
    bytes: Vec<u8>,
}

impl Content {
    /// Its certificates, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        self.sections("certificate")
    }

    /// Its revocation lists, at least one, and of each CA the newest.
    pub(super) fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        self.sections("revocation list (X509 CRL)")
            .map(certificate::newest)
    }

    /// What is to be said of its revocation lists when there are some of other CAs than those of `cas`.
    pub(super) fn strange_lists(&self, cas: &Self) -> Result<Option<String>, TlsError> {
        let strangers = certificate::strangers(&self.lists()?, &cas.certificates()?);
        Ok(strangers.first().map(|first| {
            let (key, file) = (self.file.key, self.file.path.display());
            let (count, cas) = (strangers.len(), cas.file.path.display());
            format!(
                "tls.{key}: {file}: the list of {first} revokes nothing of the CAs in {cas}: none of \
                 them has this name (such lists: {count})"
            )
        }))
    }

    /// Its private key, the first of them.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        self.sections("private key")
            .map(|mut keys| keys.swap_remove(0))
    }

    /// Its certificates as those of CAs that are believed.
    pub(super) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|error| self.unusable(error))?;
        }
        Ok(roots)
    }

    /// The file's error for what rustls says of it.
    pub(super) fn unusable(&self, error: impl fmt::Display) -> TlsError {
        self.file.error(Flaw::Unusable(error.to_string()))
    }

    fn sections<T: PemObject>(&self, what: &'static str) -> Result<Vec<T>, TlsError> {
        let sections = T::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        let sections = sections.map_err(|error| {
            let words = error.to_string();
            self.file.error(Flaw::Broken { what, words })
        })?;
        if sections.is_empty() {
            return Err(self.file.error(Flaw::Missing(what)));
        }
        Ok(sections)
    }
}

/// A chain with its private key.
pub(super) struct Own {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) private: PrivateKeyDer<'static>,
    cert: Named,
    key: Named,
}

impl Own {
    /// The certificate and key that `cert` and `key` name.
    pub(super) fn of(reading: &mut Reading) -> Result<Self, TlsError> {
        let (cert, key) = (reading.need("cert")?, reading.need(KEY)?);
        Ok(Self {
            chain: cert.certificates()?,
            private: key.private_key()?,
            cert: cert.file,
            key: key.file,
        })
    }

    /// How long the certificate is good for.
    pub(super) fn term(&self) -> Option<Term> {
        // The chain holds as long as each of its links.
        Term::of(&self.cert, &self.chain, |one, other| {
            one.until <= other.until
        })
    }

    /// Says at which of the two files an error of rustls lies.
    pub(super) fn refused(cert: &Named, key: &Named, error: &rustls::Error) -> TlsError {
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                key.error(Flaw::OtherKey)
            }
            rustls::Error::General(_) => key.error(Flaw::Unusable(error.to_string())),
            _ => cert.error(Flaw::Unusable(error.to_string())),
        }
    }

    /// The files, for [`refused`](Self::refused).
    pub(super) fn files(&self) -> (Named, Named) {
        (self.cert.clone(), self.key.clone())
    }
}

/// From when and until when the certificates of a file are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The key of `tls` that names the file.
    pub key: &'static str,
    /// The file.
    pub file: PathBuf,
    /// Whose certificate it is, or who issued the list.
    pub subject: String,
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

impl Term {
    /// That of the certificate which `prefers` prefers to all others.
    fn of(
        file: &Named,
        certificates: &[CertificateDer<'_>],
        prefers: impl Fn(&Self, &Self) -> bool,
    ) -> Option<Self> {
        let terms = certificates.iter().filter_map(certificate::validity);
        Self::preferred(file, terms, prefers)
    }

    fn preferred(
        file: &Named,
        terms: impl Iterator<Item = Validity>,
        prefers: impl Fn(&Self, &Self) -> bool,
    ) -> Option<Self> {
        let terms = terms.map(|validity| Self {
            key: file.key,
            file: file.path.clone(),
            subject: validity.subject,
            from: validity.from,
            until: validity.until,
        });
        terms.reduce(|one, other| if prefers(&one, &other) { one } else { other })
    }

    /// That of a file of CAs: as long as one of them is good, it is of use.
    pub(super) fn of_roots(content: &Content) -> Result<Option<Self>, TlsError> {
        let certificates = content.certificates()?;
        Ok(Self::of(&content.file, &certificates, |one, other| {
            one.until >= other.until
        }))
    }

    /// That of a file of revocation lists: it is out of date when one of them is.
    pub(super) fn of_lists(content: &Content) -> Result<Option<Self>, TlsError> {
        let lists = content.lists()?;
        let terms = lists.iter().filter_map(certificate::list_validity);
        Ok(Self::preferred(&content.file, terms, |one, other| {
            one.until <= other.until
        }))
    }

    /// How it stands now.
    pub fn standing(&self, now: Timestamp) -> Standing {
        let left = Duration::try_from(now.duration_until(self.until)).unwrap_or_default();
        if now > self.until {
            Standing::Expired
        } else if now < self.from {
            Standing::NotYetValid
        } else if left < EXPIRY_WARNING {
            Standing::ExpiresSoon {
                days: left.as_secs() / (24 * 3600),
            }
        } else {
            Standing::Good
        }
    }

    /// What is to be said of it now: that it has ended, has not begun or ends soon.
    pub fn worry(&self, now: Timestamp) -> Option<String> {
        match self.standing(now) {
            Standing::Good => None,
            Standing::ExpiresSoon { days } => {
                Some(format!("expires in {days} days, at {}", self.until))
            }
            Standing::Expired => Some(format!("expired at {}", self.until)),
            Standing::NotYetValid => Some(format!("is not valid before {}", self.from)),
        }
    }
}

/// How a [`Term`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// For longer than people are warned ahead.
    Good,
    /// It ends in so many days.
    ExpiresSoon {
        /// Whole days.
        days: u64,
    },
    /// It has ended.
    Expired,
    /// It has not begun.
    NotYetValid,
}

impl Standing {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::ExpiresSoon { .. } => "expires_soon",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_a_worry_thirty_days_ahead() {
        let day = jiff::SignedDuration::from_hours(24);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let said = |from: i32, until: i32| {
            let term = Term {
                key: "cert",
                file: "/c".into(),
                subject: String::new(),
                from: now + day * from,
                until: now + day * until,
            };
            term.worry(now)
        };
        assert_eq!(said(-1, 31), None);
        let soon = said(-1, 29).unwrap();
        assert_eq!(soon, "expires in 29 days, at 2026-01-30T00:00:00Z");
        assert!(said(-2, -1).unwrap().contains("expired"));
        assert!(said(1, 300).unwrap().contains("not valid before"));
    }
}
