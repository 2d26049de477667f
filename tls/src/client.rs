//! The client's side: which servers it trusts, and the certificate that it shows, anew for each connection.

use crate::fault::CertificateFault;
use crate::files::Files;
use crate::leaf::{Leaf, LeafError};
use crate::problem::{Setting, TlsProblem};
use crate::spiffe::Uri;
use crate::{ALPN, provider, signature};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use rustls::pki_types::ServerName;

/// The settings of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSettings {
    /// The file of the authorities that sign servers' certificates. `None`: those that the machine trusts.
    pub ca: Option<PathBuf>,
    /// The client's own chain, and the file of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that each server has in its certificate. `None`: its host name is checked.
    pub server_uri: Option<Uri>,
}

impl ClientSettings {
    fn files(&self) -> impl Iterator<Item = (Setting, &Path)> {
        let ca = self.ca.iter().map(|path| (Setting::Ca, path.as_path()));
        let own = self.identity.iter().flat_map(|(certificate, key)| {
            [(Setting::Certificate, certificate.as_path()), (Setting::Key, key.as_path())]
        });
        ca.chain(own)
    }
}

/// Makes TLS connections. A certificate that was renewed on disk is used from the next connection on.
#[derive(Clone, Debug)]
pub struct ClientTls {
    settings: Arc<ClientSettings>,
    /// The names of which a server must have one. Empty: its host name is checked.
    names: Arc<[Uri]>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    config: Arc<ClientConfig>,
    /// The authorities.
    roots: Arc<RootCertStore>,
    digest: [u8; 32],
}

/// The reason why a connection does not come about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host's name is no name of the DNS and no IP address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    /// The server's certificate is not trusted.
    #[error(transparent)]
    Certificate(CertificateFault),
    /// The server does not speak TLS.
    #[error("the server does not speak TLS")]
    Plaintext,
    /// The server does not speak HTTP/2.
    #[error("the server does not speak HTTP/2 (ALPN h2)")]
    Protocol,
    /// The handshake failed otherwise.
    #[error("the handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl ClientTls {
    /// Reads all files.
    ///
    /// # Errors
    /// [`TlsProblem`]: a file cannot be used.
    pub fn load(settings: ClientSettings) -> Result<Self, TlsProblem> {
        let names = settings.server_uri.iter().cloned().collect();
        Self::load_for(settings, names)
    }

    /// Reads all files, for connections to servers that have one of these names. `server_uri` of the settings is not used.
    ///
    /// # Errors
    /// [`TlsProblem`]: a file cannot be used.
    pub fn load_for(settings: ClientSettings, names: Vec<Uri>) -> Result<Self, TlsProblem> {
        let state = make(&settings, &names, &Files::read(settings.files())?)?;
        Ok(ClientTls { settings: Arc::new(settings), names: names.into(), state: Arc::new(Mutex::new(state)) })
    }

    /// Checks that a server with this chain would be trusted.
    ///
    /// # Errors
    /// [`TlsProblem`]: the file cannot be used, or its first certificate would be refused.
    pub fn trusts(&self, chain: &Path, now: SystemTime) -> Result<(), TlsProblem> {
        let files = Files::read([(Setting::Certificate, chain)])?;
        let certificates = files.certificates(Setting::Certificate, chain)?;
        let roots = self.state.lock().unwrap_or_else(PoisonError::into_inner).roots.clone();
        let verifier = ByUri { roots, names: self.names.clone() };
        let (first, rest) = certificates.split_first().map_or((&[][..], &[][..]), |(first, rest)| (&first[..], rest));
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        verifier.check(&CertificateDer::from(first), rest, now).map_err(|error| {
            let why = match &error {
                rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string(),
                _ => error.to_string(),
            };
            let remedy = "name the authority that signed it, and give it one of the names";
            TlsProblem::file(Setting::Certificate, chain, format!("would be refused by a client: {why}"), remedy)
        })
    }

    /// The file of the client's own certificate.
    pub fn certificate(&self) -> Option<&Path> {
        self.settings.identity.as_ref().map(|(certificate, _)| certificate.as_path())
    }

    /// The present configuration. Files that cannot be used leave the one before.
    fn config(&self) -> Arc<ClientConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = Files::read(self.settings.files()).and_then(|files| {
            let digest = files.digest();
            if digest == state.digest {
                return Ok(None);
            }
            make(&self.settings, &self.names, &files).map(Some)
        });
        match renewed {
            Ok(Some(new)) => *state = new,
            Ok(None) => {}
            Err(problem) => tracing::warn!(%problem, "certificates are not read again; the ones before stay"),
        }
        state.config.clone()
    }

    /// The client's handshake with the server of this name, or of this IP address. The caller limits its time.
    ///
    /// # Errors
    /// [`ConnectError`]: the connection is closed, and nothing was sent on it.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, ConnectError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_string()).map_err(|_| ConnectError::Name(host.to_string()))?;
        let stream = TlsConnector::from(self.config()).connect(name, stream).await.map_err(classified)?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(ConnectError::Protocol);
        }
        Ok(stream)
    }
}

pub(crate) fn classified(error: io::Error) -> ConnectError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return ConnectError::Io(error);
    };
    match tls {
        rustls::Error::InvalidMessage(_) => ConnectError::Plaintext,
        rustls::Error::InvalidCertificate(error) => {
            let detail = match error {
                CertificateError::Other(other) => other.to_string(),
                _ => tls.to_string(),
            };
            ConnectError::Certificate(CertificateFault::of_server(error, detail))
        }
        rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => ConnectError::Protocol,
        _ => ConnectError::Handshake(tls.clone()),
    }
}

/// The authorities of a file, or those that the machine trusts.
pub(crate) fn roots(ca: Option<&Path>, files: &Files) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in files.certificates(Setting::Ca, path)? {
                roots.add(certificate).map_err(|error| {
                    let remedy = "write authorities in PEM";
                    TlsProblem::file(Setting::Ca, path, format!("a certificate is refused: {error}"), remedy)
                })?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn make(settings: &ClientSettings, names: &[Uri], files: &Files) -> Result<State, TlsProblem> {
    let roots = Arc::new(roots(settings.ca.as_deref(), files)?);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsProblem::value(Setting::Certificate, error.to_string(), "report this as a bug"))?;
    let builder = if names.is_empty() {
        builder.with_root_certificates(roots.clone())
    } else {
        let verifier = ByUri { roots: roots.clone(), names: names.into() };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = files.certificates(Setting::Certificate, certificate)?;
            builder.with_client_auth_cert(chain, files.key(key)?).map_err(|error| {
                TlsProblem::file(
                    Setting::Key,
                    key,
                    format!("does not fit {}: {error}", certificate.display()),
                    "name the key of the first certificate in that file",
                )
            })?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(State { config: Arc::new(config), roots, digest: files.digest() })
}

/// Takes a server by its SPIFFE name, whatever address led to it.
#[derive(Debug)]
struct ByUri {
    roots: Arc<RootCertStore>,
    names: Arc<[Uri]>,
}

#[derive(Debug, thiserror::Error)]
enum ServerFault {
    #[error("{0}")]
    Leaf(LeafError),
    #[error("its name is {found}, and that of a server is {wanted}")]
    Name { found: Uri, wanted: String },
}

impl ByUri {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let other = |fault| rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))));
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider().signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        let leaf = Leaf::parse(end_entity).map_err(|error| other(ServerFault::Leaf(error)))?;
        if self.names.contains(&leaf.uri) {
            return Ok(());
        }
        let wanted = self.names.iter().map(Uri::as_str).collect::<Vec<_>>().join(" or ");
        Err(other(ServerFault::Name { found: leaf.uri, wanted }))
    }
}

impl ServerCertVerifier for ByUri {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
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
