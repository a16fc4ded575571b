//! What is read out of certificates beyond what rustls checks: whose they are, and how long they
//! are good for. Pure.

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::extensions::GeneralName;
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use crate::types::{Identity, NoIdentity};

/// Whose certificate it is: its one DNS or URI name. Other kinds of names, such as addresses, say
/// nothing.
pub(super) fn identity(certificate: &CertificateDer<'_>) -> Result<Identity, NoIdentity> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
        return Err(NoIdentity::Certificate);
    };
    let Ok(names) = certificate.subject_alternative_name() else {
        return Err(NoIdentity::Certificate);
    };
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let identities: Vec<_> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(Identity::dns(name)),
            GeneralName::URI(uri) => Some(Identity::uri(uri)),
            _ => None,
        })
        .collect();
    match <[_; 1]>::try_from(identities) {
        Ok([identity]) => identity,
        Err(none) if none.is_empty() => Err(NoIdentity::None),
        Err(several) => Err(NoIdentity::Several(several.len())),
    }
}

/// Whose something is, and from when until when it is good.
pub(super) struct Validity {
    /// Distinguished name.
    pub(super) subject: String,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// That of a certificate; `None` for what cannot be read.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let validity = certificate.validity();
    Some(Validity {
        subject: certificate.subject().to_string(),
        from: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        until: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    })
}

/// That of a revocation list: its issuer, and when the next one is due.
pub(super) fn list_validity(list: &CertificateRevocationListDer<'_>) -> Option<Validity> {
    let (_, list) = parse_x509_crl(list).ok()?;
    Some(Validity {
        subject: list.issuer().to_string(),
        from: Timestamp::from_second(list.last_update().timestamp()).ok()?,
        until: Timestamp::from_second(list.next_update()?.timestamp()).ok()?,
    })
}
