//! The server's side: its certificate, whose clients it takes, and both anew while it runs.

use crate::files::Files;
use crate::leaf::{self, Leaf};
use crate::problem::{Setting, TlsProblem};
use crate::spiffe::Pattern;
use crate::verify::{Authorities, PeerVerifier, Refused};
use crate::{ALPN, provider};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode};

/// The least validity that a new certificate of the server must have left.
const LEFT: Duration = Duration::from_secs(60);

/// Whether clients have certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for one.
    None,
    /// A client without one is let in, and is anonymous. One with a bad one is not.
    #[default]
    Optional,
    /// A client without one is not let in.
    Required,
}

/// The names that the authorities of one file may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustSettings {
    /// The file of the authorities.
    pub ca: PathBuf,
    /// Names, or beginnings of names that end in `/`: [`Pattern::parse`].
    pub uris: Vec<String>,
}

/// Certificates that are refused without a revocation list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Serial numbers: hexadecimal digits, colons between them or not.
    pub serials: Vec<String>,
    /// Names, or beginnings of names that end in `/`.
    pub uris: Vec<String>,
    /// SHA-256 over the certificate: 64 hexadecimal digits, colons between them or not.
    pub fingerprints: Vec<String>,
}

/// The settings of a server. Paths are absolute, or relative to the working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// The chain: the server's own certificate first, intermediates after it.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
    /// Whether clients have certificates.
    pub client_auth: ClientAuth,
    /// Files of authorities that may sign any client's name.
    pub client_ca: Vec<PathBuf>,
    /// Files of authorities that may sign certain names.
    pub trust: Vec<TrustSettings>,
    /// Files of revocation lists. An authority with a list has all its certificates refused once the list is out of date.
    pub crl: Vec<PathBuf>,
    /// Certificates that are refused at once.
    pub revoked: Revoked,
    /// The protocol behind the handshake.
    pub protocol: Protocol,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, as gRPC wants it. A client that does not offer it is refused.
    #[default]
    Http2,
    /// HTTP/1.1, for browsers. A client need not name it.
    Http1,
}

impl ServerSettings {
    fn files(&self) -> impl Iterator<Item = (Setting, &Path)> {
        let own = [(Setting::Certificate, self.certificate.as_path()), (Setting::Key, self.key.as_path())];
        let authorities = self.client_ca.iter().map(|path| (Setting::ClientCa, path.as_path()));
        let trust = self.trust.iter().map(|trust| (Setting::Trust, trust.ca.as_path()));
        let lists = self.crl.iter().map(|path| (Setting::Crl, path.as_path()));
        own.into_iter().chain(authorities).chain(trust).chain(lists)
    }
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    verifier: Option<Arc<PeerVerifier>>,
    digest: [u8; 32],
    not_after: SystemTime,
    protocol: Protocol,
}

/// The certificates of a server that runs.
#[derive(Debug)]
pub struct ServerTls {
    settings: RwLock<ServerSettings>,
    state: RwLock<Arc<State>>,
    generation: watch::Sender<u64>,
}

/// The verified certificate of a client, for as long as its connection lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The stream.
    pub stream: TlsStream<S>,
    /// The client's certificate. `None`: it has none.
    pub peer: Option<Peer>,
}

/// The reason why a connection is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client does not speak TLS.
    #[error("the client does not speak TLS")]
    Plaintext,
    /// The client does not offer HTTP/2.
    #[error("the client does not offer HTTP/2 (ALPN h2)")]
    Protocol,
    /// The client's certificate is missing or refused.
    #[error("the client's certificate is refused: {0}")]
    Certificate(String),
    /// The handshake failed otherwise.
    #[error("the handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

impl AcceptError {
    /// A stable code, in SCREAMING_SNAKE_CASE.
    pub fn reason(&self) -> &'static str {
        match self {
            AcceptError::Plaintext => "PLAINTEXT",
            AcceptError::Protocol => "NO_HTTP2",
            AcceptError::Certificate(_) => "CERTIFICATE_REFUSED",
            AcceptError::Handshake(_) => "HANDSHAKE_FAILED",
            AcceptError::Io(_) => "CONNECTION_LOST",
        }
    }
}

impl ServerTls {
    /// Reads all files.
    ///
    /// # Errors
    /// [`TlsProblem`]: a file or a value cannot be used.
    pub fn load(settings: ServerSettings, now: SystemTime) -> Result<Self, TlsProblem> {
        let state = make(&settings, &read(&settings)?, now)?;
        Ok(ServerTls {
            settings: RwLock::new(settings),
            state: RwLock::new(Arc::new(state)),
            generation: watch::Sender::new(0),
        })
    }

    /// Reads all files again. Returns whether anything has changed.
    ///
    /// # Errors
    /// [`TlsProblem`]: a file or a value cannot be used; the state before stays.
    pub fn reload(&self, now: SystemTime) -> Result<bool, TlsProblem> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner).clone();
        let files = read(&settings)?;
        if files.digest() == self.state().digest {
            return Ok(false);
        }
        self.set(make(&settings, &files, now)?);
        Ok(true)
    }

    /// Applies other settings.
    ///
    /// # Errors
    /// [`TlsProblem`]: a file or a value cannot be used; the settings before stay.
    pub fn change(&self, settings: ServerSettings, now: SystemTime) -> Result<(), TlsProblem> {
        let state = make(&settings, &read(&settings)?, now)?;
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.set(state);
        Ok(())
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        self.generation.send_modify(|generation| *generation += 1);
    }

    fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The end of the validity of the server's own certificate.
    pub fn not_after(&self) -> SystemTime {
        self.state().not_after
    }

    /// Changes with each new state, after which a connection asks whether its client is still welcome.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Whether this client would be let in now.
    pub fn welcomes(&self, peer: &Peer, now: SystemTime) -> bool {
        let Some(verifier) = &self.state().verifier else { return false };
        let [leaf, intermediates @ ..] = &peer.chain[..] else { return false };
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        verifier.check(leaf, intermediates, now).is_ok()
    }

    /// The identity of the first certificate in a file, if a client with this chain would be let in now.
    ///
    /// # Errors
    /// [`TlsProblem`]: the file cannot be used, or such a client would be refused.
    pub fn would_admit(&self, chain: &Path, now: SystemTime) -> Result<Leaf, TlsProblem> {
        let files = Files::read([(Setting::Certificate, chain)])?;
        let certificates = files.certificates(Setting::Certificate, chain)?;
        let state = self.state();
        let Some(verifier) = &state.verifier else {
            let message = "no client is asked for a certificate";
            return Err(TlsProblem::value(Setting::ClientCa, message, "name the authority of clients in client_ca"));
        };
        let (first, rest) = certificates.split_first().map_or((&[][..], &[][..]), |(first, rest)| (&first[..], rest));
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        verifier.check(&CertificateDer::from(first), rest, now).map_err(|fault| {
            let remedy = "let an authority of client_ca sign it, for clients too (extended key usage clientAuth)";
            TlsProblem::file(Setting::Certificate, chain, format!("would be refused by a server: {fault}"), remedy)
        })
    }

    /// The server's handshake. The caller limits its time.
    ///
    /// # Errors
    /// [`AcceptError`]: the connection is closed.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<Accepted<S>, AcceptError> {
        let state = self.state();
        let acceptor = TlsAcceptor::from(state.config.clone());
        let mut stream = acceptor.accept(stream).await.map_err(classified)?;
        let (_, session) = stream.get_ref();
        if state.protocol == Protocol::Http2 && session.alpn_protocol() != Some(ALPN) {
            let _ = stream.shutdown().await;
            return Err(AcceptError::Protocol);
        }
        let chain: Vec<_> =
            session.peer_certificates().unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect();
        let peer = match chain.first() {
            None => None,
            // The verifier has read the same bytes.
            Some(first) => match Leaf::parse(first) {
                Ok(leaf) => Some(Peer { leaf, chain }),
                Err(error) => return Err(AcceptError::Certificate(error.to_string())),
            },
        };
        Ok(Accepted { stream, peer })
    }
}

fn classified(error: io::Error) -> AcceptError {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return AcceptError::Io(error);
    };
    match tls {
        rustls::Error::InvalidMessage(_) => AcceptError::Plaintext,
        rustls::Error::NoCertificatesPresented => AcceptError::Certificate("it has none, and one is required".into()),
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            AcceptError::Certificate(other.to_string())
        }
        rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidCertRevocationList(_) => {
            AcceptError::Certificate(tls.to_string())
        }
        _ => AcceptError::Handshake(tls.clone()),
    }
}

/// Reads all files twice: a file that is being written is not taken.
fn read(settings: &ServerSettings) -> Result<Files, TlsProblem> {
    let (first, second) = (Files::read(settings.files())?, Files::read(settings.files())?);
    if first != second {
        let message = "a file of the port's certificates changes while it is read";
        return Err(TlsProblem::value(
            Setting::Certificate,
            message,
            "write it elsewhere, and rename it into its place",
        ));
    }
    Ok(second)
}

fn make(settings: &ServerSettings, files: &Files, now: SystemTime) -> Result<State, TlsProblem> {
    let chain = files.certificates(Setting::Certificate, &settings.certificate)?;
    let key = files.key(&settings.key)?;
    let not_after = own(&settings.certificate, &chain, now)?;
    let verifier = verifier(settings, files)?.map(Arc::new);
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsProblem::value(Setting::Certificate, error.to_string(), "report this as a bug"))?;
    let builder = match &verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        TlsProblem::file(
            Setting::Key,
            &settings.key,
            format!("does not fit {}: {error}", settings.certificate.display()),
            "name the key of the first certificate in that file",
        )
    })?;
    config.alpn_protocols = match settings.protocol {
        Protocol::Http2 => vec![ALPN.to_vec()],
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
    };
    // A resumed session skips the check of the client's certificate.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    let (digest, protocol) = (files.digest(), settings.protocol);
    Ok(State { config: Arc::new(config), verifier, digest, not_after, protocol })
}

/// Checks the server's own certificate; returns the end of its validity.
fn own(path: &Path, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<SystemTime, TlsProblem> {
    let fault = |message: String, remedy: &str| TlsProblem::file(Setting::Certificate, path, message, remedy);
    let first = chain.first().map(|first| &first[..]).unwrap_or_default();
    let (from, until, authority) = leaf::about(first)
        .map_err(|error| fault(format!("its first certificate is refused: {error}"), "write the chain in PEM"))?;
    if authority {
        return Err(fault(
            "its first certificate belongs to an authority".into(),
            "write the server's own certificate first, the authorities after it",
        ));
    }
    if from > now {
        return Err(fault("its certificate is not valid yet".into(), "check the clock of this machine, or wait"));
    }
    if until < now + LEFT {
        return Err(fault("its certificate is out of date, or will be within a minute".into(), "renew it"));
    }
    Ok(until)
}

fn verifier(settings: &ServerSettings, files: &Files) -> Result<Option<PeerVerifier>, TlsProblem> {
    let sets: Vec<(Setting, &Path, Option<&[String]>)> = settings
        .client_ca
        .iter()
        .map(|path| (Setting::ClientCa, path.as_path(), None))
        .chain(settings.trust.iter().map(|trust| (Setting::Trust, trust.ca.as_path(), Some(&trust.uris[..]))))
        .collect();
    if settings.client_auth == ClientAuth::None {
        if sets.is_empty() && settings.crl.is_empty() {
            return Ok(None);
        }
        let message = "client_auth is \"none\", and there are authorities or lists for clients";
        return Err(TlsProblem::value(Setting::ClientCa, message, "set client_auth to \"optional\" or \"required\""));
    }
    if sets.is_empty() {
        return match settings.client_auth {
            ClientAuth::Required => Err(TlsProblem::value(
                Setting::ClientCa,
                "client_auth is \"required\", and no authority may sign a client's certificate",
                "name a file in client_ca",
            )),
            ClientAuth::None | ClientAuth::Optional => Ok(None),
        };
    }
    let mut lists = Vec::new();
    for path in &settings.crl {
        for list in files.lists(path)? {
            lists.push((path.as_path(), issuer_of(path, &list)?, list, false));
        }
    }
    let mut authorities = Vec::new();
    for (setting, path, names) in sets {
        let mut roots = RootCertStore::empty();
        let mut subjects = Vec::new();
        for certificate in files.certificates(setting, path)? {
            let subject = leaf::subject_of(&certificate).map_err(|error| {
                TlsProblem::file(
                    setting,
                    path,
                    format!("a certificate is refused: {error}"),
                    "write authorities in PEM",
                )
            })?;
            subjects.push(subject);
            roots.add(certificate).map_err(|error| {
                TlsProblem::file(
                    setting,
                    path,
                    format!("a certificate is refused: {error}"),
                    "write authorities in PEM",
                )
            })?;
        }
        let own: Vec<_> = lists
            .iter_mut()
            .filter(|(_, issuer, ..)| subjects.contains(issuer))
            .map(|(_, _, list, taken)| {
                *taken = true;
                list.clone()
            })
            .collect();
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = if own.is_empty() {
            builder
        } else {
            builder.with_crls(own).only_check_end_entity_revocation().enforce_revocation_expiration()
        };
        let verifier = builder.build().map_err(|error| {
            TlsProblem::file(setting, path, format!("cannot verify clients: {error}"), "write authorities in PEM")
        })?;
        let names = names.map(|names| names.iter().map(|text| pattern(Setting::Trust, text)).collect()).transpose()?;
        authorities.push(Authorities { verifier, names });
    }
    if let Some((path, ..)) = lists.iter().find(|(.., taken)| !taken) {
        return Err(TlsProblem::file(
            Setting::Crl,
            path,
            "has a list that no authority of client_ca or trust has issued",
            "name its authority there, or take the list out",
        ));
    }
    let refused = refused(&settings.revoked)?;
    Ok(Some(PeerVerifier { authorities, refused, required: settings.client_auth == ClientAuth::Required }))
}

fn pattern(setting: Setting, text: &str) -> Result<Pattern, TlsProblem> {
    Pattern::parse(text).map_err(|error| {
        let remedy = "write spiffe://DOMAIN/PATH, with a '/' at its end for all names below it";
        TlsProblem::value(setting, format!("{text:?} {error}"), remedy)
    })
}

/// The issuer of a list as DER.
fn issuer_of(path: &Path, list: &CertificateRevocationListDer<'_>) -> Result<Vec<u8>, TlsProblem> {
    let parsed: Result<CertificateList, _> = CertificateList::from_der(list);
    parsed
        .and_then(|list| list.tbs_cert_list.issuer.to_der())
        .map_err(|_| TlsProblem::file(Setting::Crl, path, "has a list that cannot be decoded", "write it in PEM"))
}

fn refused(revoked: &Revoked) -> Result<Refused, TlsProblem> {
    let digits = |text: &String| text.replace(':', "").to_ascii_lowercase();
    let hexadecimal = |text: &String| {
        let plain = digits(text);
        if plain.is_empty() || !plain.chars().all(|c| c.is_ascii_hexdigit()) {
            let remedy = "write hexadecimal digits, as openssl x509 -serial -fingerprint -sha256 prints them";
            return Err(TlsProblem::value(Setting::Revoked, format!("{text:?} is no number"), remedy));
        }
        Ok(plain)
    };
    let short = |plain: String| {
        let short = plain.trim_start_matches('0');
        if short.is_empty() { "0".to_string() } else { short.to_string() }
    };
    let fingerprint = |text: &String| {
        let plain = hexadecimal(text)?;
        if plain.len() != 64 {
            let message = format!("{text:?} has {} digits; SHA-256 has 64", plain.len());
            return Err(TlsProblem::value(Setting::Revoked, message, "take it from openssl x509 -fingerprint -sha256"));
        }
        Ok(plain)
    };
    Ok(Refused {
        serials: revoked.serials.iter().map(|text| hexadecimal(text).map(short)).collect::<Result<_, _>>()?,
        uris: revoked.uris.iter().map(|text| pattern(Setting::Revoked, text)).collect::<Result<_, _>>()?,
        fingerprints: revoked.fingerprints.iter().map(fingerprint).collect::<Result<_, _>>()?,
    })
}
