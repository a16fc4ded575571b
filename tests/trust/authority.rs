//! CAs of the tests' own, which certify whatever they are asked to.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// A CA.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Certified {
    pub cert: String,
    pub key: String,
    pub serial: SerialNumber,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    /// A CA below this one; its certificate stands in front of this one's.
    pub fn below(&self, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer()).unwrap().pem() + &self.pem;
        Self { params, key, pem }
    }

    /// Its certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A certificate for the DNS name `name`.
    pub fn certify(&self, name: &str) -> Certified {
        self.certify_with(|params| params.subject_alt_names = vec![dns(name)])
    }

    /// A certificate of which `change` makes something else than a good one.
    pub fn certify_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("common");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let serial = SerialNumber::from(rand() | 1);
        params.serial_number = Some(serial.clone());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer()).unwrap();
        Certified {
            cert: cert.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// Its list of revoked certificates.
    pub fn revoke(&self, revoked: &[&Certified]) -> String {
        self.revoke_by(1, 2020, revoked)
    }

    /// Its list with this number, of this year.
    pub fn revoke_by(&self, number: u64, year: i32, revoked: &[&Certified]) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(year, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|certified| RevokedCertParams {
                    serial_number: certified.serial.clone(),
                    revocation_time: date_time_ymd(2021, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).unwrap().pem().unwrap()
    }
}

impl Certified {
    /// Puts it into `NAME.pem` and `NAME.key` in `directory`, over what is there, each at once.
    pub fn put(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let cert = directory.join(name).with_extension("pem");
        let key = directory.join(name).with_extension("key");
        put(&key, &self.key, 0o600);
        put(&cert, &self.cert, 0o644);
        (cert, key)
    }
}

/// Puts a file there, over what is there, at once.
pub fn put(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(&new);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    fs::rename(&new, path).unwrap();
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn rand() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) >> 1
}
