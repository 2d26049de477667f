//! The identity in a certificate: exactly one SPIFFE name (X509-SVID, sections 2 to 4).

use crate::hex;
use crate::spiffe::{Uri, UriError};
use sha2::{Digest, Sha256};
use std::time::SystemTime;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

/// A certificate's identity. A verifier has checked its chain, or this says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its name.
    pub uri: Uri,
    /// Its serial number: lowercase hexadecimal digits, without zeros in front.
    pub serial: String,
    /// SHA-256 over the certificate: 64 lowercase hexadecimal digits.
    pub fingerprint: String,
    /// The end of its validity.
    pub not_after: SystemTime,
}

/// The reason why a certificate names no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// It is not DER, or an extension of it is not.
    #[error("the certificate cannot be decoded")]
    Malformed,
    /// It belongs to an authority.
    #[error("the certificate belongs to an authority (CA:TRUE, keyCertSign or cRLSign), which is no caller")]
    Authority,
    /// It has no URI, or several.
    #[error("the certificate has {0} URIs among its names; exactly one names a caller")]
    Uris(usize),
    /// Its URI is not a SPIFFE name.
    #[error("the URI of the certificate {0}")]
    Uri(UriError),
}

impl Leaf {
    /// Reads the identity out of DER.
    ///
    /// # Errors
    /// [`LeafError`]: the certificate names no caller.
    pub fn parse(der: &[u8]) -> Result<Self, LeafError> {
        let certificate = Certificate::from_der(der).map_err(|_| LeafError::Malformed)?;
        let about = certificate.tbs_certificate();
        let basic = about.get_extension::<BasicConstraints>().map_err(|_| LeafError::Malformed)?;
        let usage = about.get_extension::<KeyUsage>().map_err(|_| LeafError::Malformed)?;
        let signs = usage.is_some_and(|(_, usage)| usage.key_cert_sign() || usage.crl_sign());
        if signs || basic.is_some_and(|(_, basic)| basic.ca) {
            return Err(LeafError::Authority);
        }
        let names = about.get_extension::<SubjectAltName>().map_err(|_| LeafError::Malformed)?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
                _ => None,
            })
            .collect();
        let [uri] = uris[..] else { return Err(LeafError::Uris(uris.len())) };
        Ok(Leaf {
            uri: Uri::parse(uri).map_err(LeafError::Uri)?,
            serial: serial(about.serial_number().as_bytes()),
            fingerprint: hex(&Sha256::digest(der)),
            not_after: not_after(&certificate),
        })
    }
}

/// The span of a certificate's validity, and whether it belongs to an authority.
pub(crate) fn about(der: &[u8]) -> Result<(SystemTime, SystemTime, bool), LeafError> {
    let certificate = Certificate::from_der(der).map_err(|_| LeafError::Malformed)?;
    let about = certificate.tbs_certificate();
    let basic = about.get_extension::<BasicConstraints>().map_err(|_| LeafError::Malformed)?;
    let validity = about.validity();
    let authority = basic.is_some_and(|(_, basic)| basic.ca);
    Ok((validity.not_before.to_system_time(), validity.not_after.to_system_time(), authority))
}

/// The subject of a certificate as DER.
pub(crate) fn subject_of(der: &[u8]) -> Result<Vec<u8>, LeafError> {
    let certificate = Certificate::from_der(der).map_err(|_| LeafError::Malformed)?;
    certificate.tbs_certificate().subject().to_der().map_err(|_| LeafError::Malformed)
}

fn not_after(certificate: &Certificate) -> SystemTime {
    certificate.tbs_certificate().validity().not_after.to_system_time()
}

fn serial(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    let short = digits.trim_start_matches('0');
    if short.is_empty() { "0".into() } else { short.to_string() }
}
