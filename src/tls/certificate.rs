//! What is read out of certificates beyond what rustls checks: whose they are, and how long they
//! are good for. Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
};
use x509_parser::revocation_list::CertificateRevocationList;
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

/// The lists without those that a newer one replaces, and the newest first: rustls goes by the first of
/// a CA that fits. What cannot be read stays, for rustls to say so.
pub(super) fn newest(
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Vec<CertificateRevocationListDer<'static>> {
    let parsed = lists.iter().map(|list| parse_x509_crl(list).ok());
    let parsed: Vec<_> = parsed.map(|parsed| Some(parsed?.1)).collect();
    let mut newest = HashMap::new();
    for list in parsed.iter().flatten() {
        let kept = newest.entry(scope(list)).or_insert(list);
        if is_newer(list, kept) {
            *kept = list;
        }
    }
    let times = parsed.iter().map(|list| match list {
        Some(list) if std::ptr::eq(newest[&scope(list)], list) => Some(Some(list.last_update())),
        Some(_) => None,
        None => Some(None),
    });
    let times: Vec<_> = times.collect();
    let kept = lists.into_iter().zip(times);
    let mut kept: Vec<_> = kept
        .filter_map(|(list, time)| Some((time?, list)))
        .collect();
    kept.sort_by_key(|(time, _)| Reverse(*time));
    kept.into_iter().map(|(_, list)| list).collect()
}

/// Whose certificates, and which of them, a list is about: its issuer, that one's key, and its
/// distribution point, if it says them (RFC 5280 sections 5.2.1 and 5.2.5).
fn scope<'a>(list: &'a CertificateRevocationList<'_>) -> (&'a [u8], [Option<&'a [u8]>; 2]) {
    let parts = [
        OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
        OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
    ];
    let said = parts.map(|part| {
        let mut extensions = list.extensions().iter();
        let said = extensions.find(|it| it.oid == part);
        said.map(|said| said.value)
    });
    (list.issuer().as_raw(), said)
}

/// By the numbers that their CA gives to them (RFC 5280 section 5.2.3), else by their time.
fn is_newer(one: &CertificateRevocationList<'_>, other: &CertificateRevocationList<'_>) -> bool {
    match (one.crl_number(), other.crl_number()) {
        (Some(one), Some(other)) if one != other => one > other,
        _ => one.last_update() > other.last_update(),
    }
}

/// The issuers of those lists that none of these CAs has issued.
pub(super) fn strangers(
    lists: &[CertificateRevocationListDer<'_>],
    cas: &[CertificateDer<'_>],
) -> Vec<String> {
    let cas = cas.iter().filter_map(|ca| parse_x509_certificate(ca).ok());
    let cas: Vec<_> = cas.map(|(_, ca)| ca).collect();
    let names: HashSet<_> = cas.iter().map(|ca| ca.subject().as_raw()).collect();
    let lists = lists.iter().filter_map(|list| parse_x509_crl(list).ok());
    let strange = lists.filter(|(_, list)| !names.contains(list.issuer().as_raw()));
    strange.map(|(_, list)| list.issuer().to_string()).collect()
}
