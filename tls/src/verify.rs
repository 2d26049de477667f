//! Verification of client certificates: the chain, the name, and who may sign it.

use crate::leaf::{Leaf, LeafError};
use crate::signature;
use crate::spiffe::{Pattern, Uri};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The authorities of one file, and the names that they may sign.
#[derive(Debug)]
pub(crate) struct Authorities {
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// `None`: they may sign any name.
    pub(crate) names: Option<Vec<Pattern>>,
}

impl Authorities {
    fn may_sign(&self, uri: &Uri) -> bool {
        self.names.as_ref().is_none_or(|names| names.iter().any(|name| name.has(uri)))
    }
}

/// Certificates that are refused at once, without a revocation list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) serials: BTreeSet<String>,
    pub(crate) uris: Vec<Pattern>,
    pub(crate) fingerprints: BTreeSet<String>,
}

impl Refused {
    fn has(&self, leaf: &Leaf) -> bool {
        self.serials.contains(&leaf.serial)
            || self.fingerprints.contains(&leaf.fingerprint)
            || self.uris.iter().any(|uri| uri.has(&leaf.uri))
    }
}

/// The reason why a client certificate is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerFault {
    #[error(transparent)]
    Leaf(LeafError),
    #[error("no authority of this server may sign the name {0}")]
    Domain(Uri),
    #[error("the certificate of {0} is in the list of revoked certificates")]
    Revoked(Uri),
    #[error("the certificate of {uri}: {error}")]
    Chain { uri: Uri, error: rustls::Error },
}

/// Verifies the certificates of clients.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    pub(crate) authorities: Vec<Authorities>,
    pub(crate) refused: Refused,
    pub(crate) required: bool,
}

impl PeerVerifier {
    /// Returns the identity, if one of the authorities signed the certificate and may sign its name.
    pub(crate) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Leaf, PeerFault> {
        let identity = Leaf::parse(leaf).map_err(PeerFault::Leaf)?;
        if self.refused.has(&identity) {
            return Err(PeerFault::Revoked(identity.uri));
        }
        let mut fault = None;
        for set in self.authorities.iter().filter(|set| set.may_sign(&identity.uri)) {
            match set.verifier.verify_client_cert(leaf, intermediates, now) {
                Ok(_) => return Ok(identity),
                // Another file may have the authority that signed it. What says more than "unknown" is reported.
                Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) if fault.is_some() => {}
                Err(error) => fault = Some(error),
            }
        }
        Err(match fault {
            Some(error) => PeerFault::Chain { uri: identity.uri, error },
            None => PeerFault::Domain(identity.uri),
        })
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None: the names of the authorities are nothing to strangers, and clients have one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.check(end_entity, intermediates, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(PeerFault::Chain { error, .. }) => Err(error),
            Err(fault) => Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signature::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signature::verify_tls13(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature::schemes()
    }
}
