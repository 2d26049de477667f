//! A certificate authority for a few machines, and for tests. A farm with many uses step-ca, cert-manager, SPIRE or Vault.
//!
//! All keys are ECDSA P-256. The authority lives in a directory: `ca.pem`, `ca.key`, and `revoked.pem` once something is revoked.

use crate::hex;
use crate::leaf::about;
use crate::spiffe::Uri;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

/// The validity of the authority itself, and of its lists.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// A certificate is valid a little before it is made, for machines whose clocks are behind.
const BEFORE: Duration = Duration::from_secs(300);
/// The beginning of the authority's name. The trust domain follows, and a part of the key's digest: two authorities of one
/// domain have two names.
const NAME: &str = "Wharfinger CA ";

/// The validity of a server's certificate that says nothing else.
pub const SERVER: Duration = Duration::from_secs(90 * 86_400);
/// The validity of a client's certificate that says nothing else.
pub const CLIENT: Duration = Duration::from_secs(86_400);

/// The reason why the authority cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file is there already. Nothing was written.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The directory has no authority that `init` made.
    #[error("{} is not an authority that `wharfinger pki init` made: {message}", path.display())]
    Authority {
        /// The file at fault.
        path: PathBuf,
        /// The fault.
        message: String,
    },
    /// A name or a number in the request is wrong.
    #[error("{0}")]
    Request(String),
    /// A certificate cannot be made.
    #[error("the certificate cannot be made: {0}")]
    Made(#[from] rcgen::Error),
}

/// The files that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key, which only its owner may read.
    pub key: PathBuf,
    /// The end of its validity.
    pub not_after: SystemTime,
}

/// A certificate authority in a directory.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    domain: String,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority for the names of a trust domain.
    ///
    /// # Errors
    /// [`PkiError::Exists`]: the directory has one. [`PkiError::Request`]: the domain is none.
    pub fn init(directory: &Path, domain: &str, now: SystemTime) -> Result<Self, PkiError> {
        Uri::parse(&format!("spiffe://{domain}/x"))
            .map_err(|error| PkiError::Request(format!("the trust domain {domain:?} {error}")))?;
        std::fs::create_dir_all(directory).map_err(|error| at(directory, error))?;
        let key = KeyPair::generate()?;
        let params = authority(&name_of(domain, &key), now)?;
        let certificate = params.self_signed(&key)?;
        fresh(&[directory.join("ca.pem"), directory.join("ca.key")])?;
        write_new(&directory.join("ca.key"), &key.serialize_pem(), 0o600)?;
        write_new(&directory.join("ca.pem"), &certificate.pem(), 0o644)?;
        let issuer = Issuer::new(params, key);
        let name = name_of(domain, issuer.key());
        Ok(Authority { directory: directory.into(), domain: domain.into(), name, issuer })
    }

    /// Opens an authority that [`Authority::init`] made.
    ///
    /// # Errors
    /// [`PkiError::Authority`], [`PkiError::File`].
    pub fn open(directory: &Path, now: SystemTime) -> Result<Self, PkiError> {
        let path = directory.join("ca.pem");
        let bad = |path: &Path, message: String| PkiError::Authority { path: path.into(), message };
        let pem = std::fs::read(&path).map_err(|error| at(&path, error))?;
        let der = CertificateDer::from_pem_slice(&pem).map_err(|error| bad(&path, format!("{error:?}")))?;
        let certificate = Certificate::from_der(&der).map_err(|error| bad(&path, error.to_string()))?;
        let path = directory.join("ca.key");
        let key = std::fs::read_to_string(&path).map_err(|error| at(&path, error))?;
        let key = KeyPair::from_pem(&key).map_err(|error| bad(&path, error.to_string()))?;
        if certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
            != key.public_key_raw()
        {
            return Err(bad(&path, "it is not the key of ca.pem".into()));
        }
        let found = certificate.tbs_certificate().subject().to_string();
        let domain = found.strip_prefix("CN=").and_then(|name| name.strip_prefix(NAME)?.split(' ').next());
        let name = domain.map(|domain| name_of(domain, &key)).filter(|name| found == format!("CN={name}"));
        let (Some(domain), Some(name)) = (domain, name) else {
            return Err(bad(&directory.join("ca.pem"), format!("its name is {found:?}")));
        };
        let issuer = Issuer::new(authority(&name, now)?, key);
        Ok(Authority { directory: directory.into(), domain: domain.to_string(), name, issuer })
    }

    /// The trust domain of its names.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Makes a server's certificate: `NAME.pem` and `NAME.key` in `into`. Names are host names and IP addresses.
    ///
    /// # Errors
    /// [`PkiError::Request`]: no name, or one that is none. [`PkiError::Exists`], [`PkiError::File`].
    pub fn server(
        &self,
        into: &Path,
        names: &[String],
        uri: Option<&Uri>,
        valid: Duration,
        now: SystemTime,
    ) -> Result<Written, PkiError> {
        let Some(first) = names.first() else {
            return Err(PkiError::Request("a server has at least one name by which clients reach it".into()));
        };
        let mut sans = names.iter().map(|name| san(name)).collect::<Result<Vec<_>, _>>()?;
        sans.extend(uri.map(|uri| self.named(uri)).transpose()?);
        // A server is a client of the server that leads.
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let params = leaf(first, sans, &usages, valid, now)?;
        self.issue(into, &first.replace(['/', ':'], "_"), &params)
    }

    /// Makes a client's certificate: `NAME.pem` and `NAME.key` in `into`, named by the last part of its URI.
    ///
    /// # Errors
    /// [`PkiError::Request`]: the URI is of another trust domain. [`PkiError::Exists`], [`PkiError::File`].
    pub fn client(&self, into: &Path, uri: &Uri, valid: Duration, now: SystemTime) -> Result<Written, PkiError> {
        let name = uri.path().rsplit('/').next().unwrap_or("client");
        let params = leaf(name, vec![self.named(uri)?], &[ExtendedKeyUsagePurpose::ClientAuth], valid, now)?;
        self.issue(into, name, &params)
    }

    fn named(&self, uri: &Uri) -> Result<SanType, PkiError> {
        if uri.domain() != self.domain {
            let (found, own) = (uri.domain(), &self.domain);
            return Err(PkiError::Request(format!(
                "{uri} is of the trust domain {found}; this authority is for {own}"
            )));
        }
        Ok(SanType::URI(ia5(uri.as_str())?))
    }

    fn issue(&self, into: &Path, name: &str, params: &CertificateParams) -> Result<Written, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::create_dir_all(into).map_err(|error| at(into, error))?;
        let written = Written {
            certificate: into.join(format!("{name}.pem")),
            key: into.join(format!("{name}.key")),
            not_after: params.not_after.into(),
        };
        fresh(&[written.certificate.clone(), written.key.clone()])?;
        write_new(&written.key, &key.serialize_pem(), 0o600)?;
        write_new(&written.certificate, &certificate.pem(), 0o644)?;
        Ok(written)
    }

    /// Revokes a certificate: signs the list `revoked.pem` anew with it. Returns the list's path.
    ///
    /// # Errors
    /// [`PkiError::Authority`]: the list or the certificate cannot be read. [`PkiError::File`].
    pub fn revoke(&self, certificate: &Path, now: SystemTime) -> Result<PathBuf, PkiError> {
        let bad = |path: &Path, message: String| PkiError::Authority { path: path.into(), message };
        let pem = std::fs::read(certificate).map_err(|error| at(certificate, error))?;
        let der = CertificateDer::from_pem_slice(&pem).map_err(|error| bad(certificate, format!("{error:?}")))?;
        about(&der).map_err(|error| bad(certificate, error.to_string()))?;
        let parsed = Certificate::from_der(&der).map_err(|error| bad(certificate, error.to_string()))?;
        let issuer = parsed.tbs_certificate().issuer().to_string();
        if issuer != format!("CN={}", self.name) {
            return Err(PkiError::Request(format!("{} was issued by {issuer:?}", certificate.display())));
        }
        let path = self.directory.join("revoked.pem");
        let mut revoked = self.revoked(&path)?;
        let serial = parsed.tbs_certificate().serial_number().as_bytes().to_vec();
        if !revoked.iter().any(|one| one.serial_number.as_ref() == serial.as_slice()) {
            revoked.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial),
                revocation_time: time(now)?,
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: time(now)?,
            next_update: time(now + AUTHORITY)?,
            crl_number: SerialNumber::from(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.issuer)?.pem()?;
        // Readers see the former list or this one, whole.
        let new = self.directory.join("revoked.pem.new");
        let _ = std::fs::remove_file(&new);
        write_new(&new, &pem, 0o644)?;
        std::fs::rename(&new, &path).map_err(|error| at(&path, error))?;
        Ok(path)
    }

    fn revoked(&self, path: &Path) -> Result<Vec<RevokedCertParams>, PkiError> {
        let bad = |message: String| PkiError::Authority { path: path.into(), message };
        let pem = match std::fs::read(path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(path, error)),
        };
        let der = CertificateRevocationListDer::from_pem_slice(&pem).map_err(|error| bad(format!("{error:?}")))?;
        let list: CertificateList = CertificateList::from_der(&der).map_err(|error| bad(error.to_string()))?;
        let entries = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
        entries
            .into_iter()
            .map(|entry| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(entry.serial_number.as_bytes()),
                    revocation_time: time(entry.revocation_date.to_system_time())?,
                    reason_code: Some(RevocationReason::Unspecified),
                    invalidity_date: None,
                })
            })
            .collect()
    }
}

fn name_of(domain: &str, key: &KeyPair) -> String {
    format!("{NAME}{domain} {}", &hex(&Sha256::digest(key.public_key_raw()))[..8])
}

fn authority(name: &str, now: SystemTime) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = time(now - BEFORE)?;
    params.not_after = time(now + AUTHORITY)?;
    Ok(params)
}

fn leaf(
    name: &str,
    names: Vec<SanType>,
    usages: &[ExtendedKeyUsagePurpose],
    valid: Duration,
    now: SystemTime,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    params.not_before = time(now - BEFORE)?;
    params.not_after = time(now + valid)?;
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn ia5(text: &str) -> Result<Ia5String, PkiError> {
    Ia5String::try_from(text.to_string()).map_err(|_| PkiError::Request(format!("{text:?} is not ASCII")))
}

fn san(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let label = |part: &str| {
        !part.is_empty() && part.len() <= 63 && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(PkiError::Request(format!("{name:?} is neither a host name nor an IP address")));
    }
    Ok(SanType::DnsName(ia5(name)?))
}

fn time(at: SystemTime) -> Result<OffsetDateTime, PkiError> {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        // The last moment that a certificate can name (RFC 5280, section 4.1.2.5).
        .filter(|at| at.year() <= 9999)
        .ok_or_else(|| PkiError::Request("the end of the validity is past the year 9999".into()))
}

fn at(path: &Path, error: std::io::Error) -> PkiError {
    PkiError::File { path: path.into(), error }
}

fn fresh(paths: &[PathBuf]) -> Result<(), PkiError> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(PkiError::Exists(path.clone())),
        None => Ok(()),
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => PkiError::Exists(path.into()),
        _ => at(path, error),
    })
}
