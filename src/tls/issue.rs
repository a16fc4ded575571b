//! A private CA and certificates for a first set-up: files in one directory, the keys readable by
//! nobody but their owner. Nothing that is there is ever overwritten.
//!
//! A key is written before its certificate, each whole or not at all. A crash between leaves a key
//! without a certificate, which the next attempt goes on with; so does whoever removes a
//! certificate to have a new one for the same key.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};

use super::error::TlsError;
use super::files::{KEY, Named, Purpose, Reading};
use crate::sys::dir::Dir;
use crate::sys::{clock, file, host};
use crate::types::Identity;

/// What the CA's files are called before `.pem` and `.key`.
const CA: &str = "ca";
/// How long a CA is good for, in days: it is made once.
const CA_DAYS: u32 = 3652;
/// Longest that a certificate can be good for, in days.
pub const MOST_DAYS: u32 = CA_DAYS;

/// Files that were made, or gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate of the CA.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Until when the certificate is good.
    pub until: Timestamp,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// It is there already, and nothing is overwritten.
    #[error("{} is there already; move it away to have a new one", .0.display())]
    Exists(PathBuf),
    /// There is no CA.
    #[error("{} is missing: run `shaftlog tls init` first", .0.display())]
    NoCa(PathBuf),
    /// It is neither a name nor an address.
    #[error("\"{}\" is neither a DNS name nor an IP address", .0.escape_debug())]
    Name(String),
    /// A file that is there cannot be used.
    #[error("{0} ({hint})", hint = .0.hint())]
    File(#[from] TlsError),
    /// The disk.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The cryptography.
    #[error("no certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The kernel gave no random bytes, or the clock shows no date.
    #[error("no certificate could be made: {0}")]
    Machine(io::Error),
}

/// Makes a CA in `directory`, which is made if it is missing. Blocks.
pub fn init(directory: &Path) -> Result<Issued, IssueError> {
    let place = Place::make(directory, CA)?;
    let key = place.key(Purpose::Use)?;
    let serial = host::random_bytes().map_err(IssueError::Machine)?;
    let mut params = params(CA_DAYS, serial)?;
    // Several CAs are told apart by their names while one takes over from another.
    let number = u32::from_be_bytes([serial[0], serial[1], serial[2], serial[3]]);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("shaftlog CA {number:08x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    place.write(".pem", certificate.pem().as_bytes(), 0o644)?;
    Ok(place.issued(&params))
}

/// Makes a certificate for the host or service `name` by the CA in `directory`, good for `days`
/// days, for a server as well as for a client. Blocks.
pub fn issue(directory: &Path, name: &str, days: u32) -> Result<Issued, IssueError> {
    let (name, san) = subject(name)?;
    let ca = Place::open(directory, CA)?;
    let mut reading = Reading::of(&[
        Named::new("cert", &ca.path(".pem")),
        Named::secret(&ca.path(".key"), Purpose::Use),
    ]);
    let (cert, key) = (reading.need("cert")?, reading.need(KEY)?);
    let certificate = cert.certificates()?.swap_remove(0);
    let signer = KeyPair::try_from(&key.private_key()?).map_err(|error| key.unusable(error))?;
    let issuer = Issuer::from_ca_cert_der(&certificate, signer).map_err(|e| cert.unusable(e))?;
    let place = Place::make(directory, &name)?;
    let key = place.key(Purpose::Look)?;
    let serial = host::random_bytes().map_err(IssueError::Machine)?;
    let mut params = params(days, serial)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![san];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    place.write(".pem", certificate.pem().as_bytes(), 0o644)?;
    Ok(place.issued(&params))
}

/// What the certificate is for: a file's name, and the name that goes into it.
fn subject(name: &str) -> Result<(String, SanType), IssueError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok((address.to_string(), SanType::IpAddress(address)));
    }
    let bad = || IssueError::Name(name.to_owned());
    let identity = Identity::dns(name).map_err(|_| bad())?;
    let text = identity.as_str().to_owned();
    let san = SanType::DnsName(text.clone().try_into().map_err(|_| bad())?);
    Ok((text, san))
}

/// What all certificates have: a serial number, and a time that begins a day ago, so that clocks
/// which are behind take them too.
fn params(days: u32, mut serial: [u8; 16]) -> Result<CertificateParams, IssueError> {
    let today = clock::now().to_zoned(TimeZone::UTC).date();
    let midnight = |day: Date| {
        let number = |number: i8| number.unsigned_abs();
        date_time_ymd(day.year().into(), number(day.month()), number(day.day()))
    };
    let odd = |error: jiff::Error| IssueError::Machine(io::Error::other(error));
    let end = today.checked_add(Span::new().days(i64::from(days)));
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // RFC 5280 section 4.1.2.2: a positive number.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = midnight(today.yesterday().map_err(odd)?);
    params.not_after = midnight(end.map_err(odd)?);
    Ok(params)
}

/// Where the files of one name lie.
struct Place {
    directory: Dir,
    name: String,
}

impl Place {
    /// The files of `name` in `directory`, which must be there.
    fn open(directory: &Path, name: &str) -> Result<Self, IssueError> {
        match Dir::open(directory) {
            Ok(opened) => {
                let place = Self::new(opened, name);
                if place.is_there(".pem")? {
                    Ok(place)
                } else {
                    Err(IssueError::NoCa(place.path(".pem")))
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(IssueError::NoCa(directory.join(format!("{name}.pem"))))
            }
            Err(source) => Err(IssueError::Write {
                path: directory.to_owned(),
                source,
            }),
        }
    }

    /// The files of `name` in `directory`, which is made if it is missing; there is no certificate.
    fn make(directory: &Path, name: &str) -> Result<Self, IssueError> {
        let made = Dir::create(directory, 0o755).map_err(|source| IssueError::Write {
            path: directory.to_owned(),
            source,
        })?;
        let place = Self::new(made, name);
        if place.is_there(".pem")? {
            return Err(IssueError::Exists(place.path(".pem")));
        }
        Ok(place)
    }

    fn new(directory: Dir, name: &str) -> Self {
        Self {
            directory,
            name: name.to_owned(),
        }
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("{}{suffix}", self.name))
    }

    fn is_there(&self, suffix: &str) -> Result<bool, IssueError> {
        let relative = format!("{}{suffix}", self.name);
        let stat = self.directory.stat(relative.as_bytes());
        Ok(stat
            .map_err(|source| self.failed(suffix, source))?
            .is_some())
    }

    /// The private key: the one that is there, or a new one.
    fn key(&self, purpose: Purpose) -> Result<KeyPair, IssueError> {
        if self.is_there(".key")? {
            let named = Named::secret(&self.path(".key"), purpose);
            let content = Reading::of(&[named]).need(KEY)?;
            let key = KeyPair::try_from(&content.private_key()?);
            return Ok(key.map_err(|error| content.unusable(error))?);
        }
        let key = KeyPair::generate()?;
        self.write(".key", key.serialize_pem().as_bytes(), 0o600)?;
        Ok(key)
    }

    /// Puts a file there, whole or not at all, unless there is one.
    fn write(&self, suffix: &str, bytes: &[u8], mode: u32) -> Result<(), IssueError> {
        let number = u64::from_be_bytes(host::random_bytes().map_err(IssueError::Machine)?);
        let temporary = format!(".{}{suffix}.{number:016x}", self.name);
        let name = format!("{}{suffix}", self.name);
        let write = || {
            let new = self.directory.create_file(temporary.as_bytes(), mode)?;
            file::append_all(&new, bytes)?;
            file::sync_all(&new)?;
            let renamed = self
                .directory
                .rename_noreplace(temporary.as_bytes(), name.as_bytes());
            if renamed.is_err() {
                // The error at hand is the one to tell.
                let _ = self.directory.unlink(temporary.as_bytes());
            }
            renamed?;
            self.directory.sync_root()
        };
        write().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => IssueError::Exists(self.path(suffix)),
            _ => self.failed(suffix, source),
        })
    }

    fn failed(&self, suffix: &str, source: io::Error) -> IssueError {
        IssueError::Write {
            path: self.path(suffix),
            source,
        }
    }

    fn issued(&self, params: &CertificateParams) -> Issued {
        let until = params.not_after.unix_timestamp();
        Issued {
            ca: self.directory.path().join(format!("{CA}.pem")),
            cert: self.path(".pem"),
            key: self.path(".key"),
            until: Timestamp::from_second(until).unwrap_or(Timestamp::MAX),
        }
    }
}
