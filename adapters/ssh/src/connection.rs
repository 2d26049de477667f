//! Connections to one host: one that is kept, and one for each reader that may be slow.
//!
//! Why not all over one: the library's event loop hands each channel's data to a bounded queue and waits when that is
//! full, and it grants the remote side new window when data arrives, not when it is read (russh 0.65,
//! `client/encrypted.rs`). So one slow reader stops the whole connection, keep-alive and probes with it, and a host
//! would look dead because somebody paused `less`. Hence: over the kept connection goes only what we always read at
//! full speed; output for a caller's own reader comes over a connection of its own, where waiting is just what we want.

use crate::config::Limits;
use crate::error::{Kind, SshError};
use crate::key::fingerprint;
use crate::notices::Reporter;
use crate::proxy::ProxyStream;
use russh::client::{self, AuthResult, DisconnectReason, Msg};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, ChannelOpenFailure, Disconnect, Preferred};
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Logins under way at once to one host: sshd begins to drop them at ten by default (MaxStartups 10:30:100).
const HANDSHAKES_MAX: usize = 4;

/// Where and how to log in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) key: Arc<PrivateKey>,
    /// Where the key came from, for messages and handles.
    pub(crate) key_path: Option<PathBuf>,
    pub(crate) host_key: PublicKey,
    pub(crate) proxy_command: Option<String>,
    pub(crate) limits: Limits,
}

impl Endpoint {
    fn place(&self) -> String {
        format!("host {} ({}:{})", self.name, self.address, self.port)
    }
}

/// All connections to one host.
pub(crate) struct Connection {
    pub(crate) endpoint: Endpoint,
    reporter: Option<Arc<Reporter>>,
    /// The kept one. The lock is held while it is being made, so that there is one attempt at a time.
    kept: tokio::sync::Mutex<Option<Arc<Live>>>,
    last_failure: Mutex<Option<(Instant, SshError)>>,
    handshakes: Semaphore,
    /// For commands; for probes; for kills. Apart, so that eight long commands do not make the host look dead.
    pub(crate) sessions: Semaphore,
    pub(crate) probes: Semaphore,
    pub(crate) kills: Semaphore,
    /// For commands with a connection of their own.
    pub(crate) streams: Semaphore,
}

/// A connection that is logged in. Dropped, it is closed as soon as its channels are.
pub(crate) struct Live {
    handle: client::Handle<Client>,
    state: Arc<State>,
}

struct State {
    ended: CancellationToken,
    reason: Mutex<Option<String>>,
    deliberate: AtomicBool,
}

impl Live {
    pub(crate) fn is_open(&self) -> bool {
        !self.state.ended.is_cancelled() && !self.handle.is_closed()
    }

    /// Why it ended, in words.
    pub(crate) fn reason(&self) -> String {
        let reason = self.state.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reason.unwrap_or_else(|| "the connection was reset".to_string())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.state.end_deliberately();
    }
}

impl State {
    /// What ends from here on, ends by our doing; what has ended before, did not.
    fn end_deliberately(&self) {
        if !self.ended.is_cancelled() {
            self.deliberate.store(true, Ordering::Relaxed);
        }
    }
}

/// Receives what the library says; dropped when the connection has ended, for whatever reason.
struct Client {
    pinned: PublicKey,
    state: Arc<State>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // The library calls `disconnected` only where the socket could still be shut down; this comes always.
        self.state.ended.cancel();
    }
}

#[derive(Debug)]
enum ClientError {
    Library(russh::Error),
    WrongHost(PublicKey),
}

impl From<russh::Error> for ClientError {
    fn from(error: russh::Error) -> Self {
        Self::Library(error)
    }
}

impl client::Handler for Client {
    type Error = ClientError;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        match presented {
            // Exactly the pinned key: no other key of the same host, and no certificate over it.
            PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.pinned.key_data() => Ok(true),
            other => Err(ClientError::WrongHost(other.public_key())),
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        let (text, result) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => (format!("the host said goodbye: {}", info.message), Ok(())),
            DisconnectReason::Error(ClientError::Library(russh::Error::KeepaliveTimeout)) => {
                ("no answer to keep-alives".to_string(), Ok(()))
            }
            DisconnectReason::Error(ClientError::Library(russh::Error::Disconnect)) => {
                ("the host closed the connection".to_string(), Ok(()))
            }
            DisconnectReason::Error(error) => (
                match &error {
                    ClientError::Library(error) => error.to_string(),
                    ClientError::WrongHost(_) => "another host key at re-keying".to_string(),
                },
                Err(error),
            ),
        };
        *self.state.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        result
    }
}

impl Connection {
    pub(crate) fn new(endpoint: Endpoint, reporter: Option<Arc<Reporter>>) -> Self {
        let sessions = endpoint.limits.sessions;
        Self {
            endpoint,
            reporter,
            kept: tokio::sync::Mutex::new(None),
            last_failure: Mutex::new(None),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            sessions: Semaphore::new(sessions),
            probes: Semaphore::new(1),
            kills: Semaphore::new(1),
            streams: Semaphore::new(sessions),
        }
    }

    /// The kept connection, made if there is none. Whoever comes while it is being made gets the same result.
    pub(crate) async fn kept(&self) -> Result<Arc<Live>, SshError> {
        let asked = Instant::now();
        let mut kept = self.kept.lock().await;
        if let Some(live) = kept.as_ref().filter(|live| live.is_open()) {
            return Ok(Arc::clone(live));
        }
        if let Some((when, error)) = &*self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
            && *when >= asked
        {
            return Err(error.clone());
        }
        *kept = None;
        match self.dial(2 << 20, 128).await {
            Ok(live) => {
                let live = Arc::new(live);
                self.watch(&live);
                *kept = Some(Arc::clone(&live));
                Ok(live)
            }
            Err(error) => {
                *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// A connection for one slow reader. Small buffers: what it does not read should wait on the host.
    pub(crate) async fn own(&self) -> Result<Live, SshError> {
        self.dial(256 << 10, 8).await
    }

    /// Whether there is a kept connection right now that has not ended.
    pub(crate) async fn has_kept(&self) -> bool {
        self.kept.lock().await.as_ref().is_some_and(|live| live.is_open())
    }

    /// Closes the kept connection, without a notice.
    pub(crate) async fn close(&self) {
        if let Some(live) = self.kept.lock().await.take() {
            live.state.end_deliberately();
            // A host that hangs does not take the message; its connection ends when the keep-alive says so.
            let goodbye = live.handle.disconnect(Disconnect::ByApplication, "closed by the broker", "");
            let _ = timeout(Duration::from_millis(100), goodbye).await;
        }
    }

    /// Tells the broker when the kept connection ends by itself.
    fn watch(&self, live: &Arc<Live>) {
        let Some(reporter) = self.reporter.clone() else { return };
        let (name, place) = (self.endpoint.name.clone(), self.endpoint.place());
        let state = Arc::clone(&live.state);
        tokio::spawn(async move {
            state.ended.cancelled().await;
            if !state.deliberate.load(Ordering::Relaxed) {
                let reason = state.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let reason = reason.unwrap_or_else(|| "it was reset".to_string());
                let detail = format!("the kept connection to {place} ended: {reason}");
                tracing::info!(host = name, "{detail}");
                reporter.connection_lost(&name, detail).await;
            }
        });
    }

    /// Connects, checks the host key, logs in: all within the connect time-out.
    async fn dial(&self, window: u32, queue: usize) -> Result<Live, SshError> {
        let limit = self.endpoint.limits.connect;
        match timeout(limit, self.dial_without_limit(window, queue)).await {
            Ok(result) => result,
            Err(_) => Err(SshError::new(
                Kind::Timeout,
                format!("{} does not answer within {} ms", self.endpoint.place(), limit.as_millis()),
            )),
        }
    }

    async fn dial_without_limit(&self, window: u32, queue: usize) -> Result<Live, SshError> {
        let _turn = self.handshakes.acquire().await.map_err(|_| self.closed())?;
        let endpoint = &self.endpoint;
        let state = Arc::new(State {
            ended: CancellationToken::new(),
            reason: Mutex::new(None),
            deliberate: AtomicBool::new(false),
        });
        let client = Client { pinned: endpoint.host_key.clone(), state: Arc::clone(&state) };
        let config = Arc::new(client_config(endpoint, window, queue));
        let handle = match &endpoint.proxy_command {
            Some(command) => {
                let stream = ProxyStream::start(command, &endpoint.address, endpoint.port)?;
                let complaint = stream.complaint();
                match client::connect_stream(config, stream, client).await {
                    Ok(handle) => handle,
                    Err(error) => {
                        let error = self.handshake_error(error, true);
                        if error.kind != Kind::Lost && error.kind != Kind::Busy {
                            return Err(error);
                        }
                        return Err(SshError::new(
                            Kind::Proxy,
                            format!("{}: proxy command `{command}` ended: {}", endpoint.place(), complaint.text()),
                        ));
                    }
                }
            }
            None => {
                let stream = self.connect_tcp().await?;
                let banner = self.banner_begins(&stream).await?;
                client::connect_stream(config, stream, client)
                    .await
                    .map_err(|error| self.handshake_error(error, banner))?
            }
        };
        self.log_in(Live { handle, state }).await
    }

    async fn connect_tcp(&self) -> Result<TcpStream, SshError> {
        let endpoint = &self.endpoint;
        let addresses: Vec<_> = tokio::net::lookup_host((endpoint.address.as_str(), endpoint.port))
            .await
            .map_err(|error| {
                let text = format!(
                    "{}: the address has no number: {error}; mend the address or the name server",
                    endpoint.place()
                );
                SshError::new(Kind::NotResolved, text)
            })?
            .collect();
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => Kind::ConnectionRefused,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Kind::NoRoute,
                io::ErrorKind::TimedOut => Kind::Timeout,
                _ => Kind::Lost,
            };
            SshError::new(kind, format!("{}: can not connect: {error}", endpoint.place()))
        })?;
        // Without it each small command waits for the delayed acknowledgement of the one before.
        stream
            .set_nodelay(true)
            .map_err(|error| SshError::new(Kind::Lost, format!("{}: {error}", endpoint.place())))?;
        Ok(stream)
    }

    /// Whether the server begins with `SSH-`. One that is too busy closes the connection without it, perhaps after a
    /// line of text (OpenSSH: "Exceeded MaxStartups"); that must not look like a dead host.
    async fn banner_begins(&self, stream: &TcpStream) -> Result<bool, SshError> {
        let mut first = [0; 4];
        match stream.peek(&mut first).await {
            Ok(0) => Err(self.busy()),
            Ok(n) => Ok(first[..n] == b"SSH-"[..n]),
            Err(_) => Err(self.busy()),
        }
    }

    fn busy(&self) -> SshError {
        let text = format!(
            "{} takes the connection and closes it before it speaks SSH: sshd is at MaxStartups, or penalises us",
            self.endpoint.place()
        );
        SshError::new(Kind::Busy, text)
    }

    fn closed(&self) -> SshError {
        SshError::new(Kind::Lost, format!("{}: closed", self.endpoint.place()))
    }

    fn handshake_error(&self, error: ClientError, banner: bool) -> SshError {
        let place = self.endpoint.place();
        let pinned = fingerprint(&self.endpoint.host_key);
        match error {
            ClientError::WrongHost(key) => {
                let got = fingerprint(&key);
                let text = format!(
                    "{place} answers with key {got} but {pinned} is pinned; if the machine was set up anew, prove its key \
                     on its console and write it into host_key"
                );
                SshError::new(Kind::WrongHost { got: Some(got) }, text)
            }
            ClientError::Library(russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. }) => SshError::new(
                Kind::WrongHost { got: None },
                format!(
                    "{place} has only host keys of the types {theirs:?}, but {pinned} ({}) is pinned",
                    self.endpoint.host_key.algorithm()
                ),
            ),
            ClientError::Library(russh::Error::NoCommonAlgo { kind, theirs, .. }) => SshError::new(
                Kind::Protocol,
                format!("{place} shares no {kind:?} algorithm with us; it has {theirs:?}"),
            ),
            ClientError::Library(russh::Error::Disconnect | russh::Error::HUP | russh::Error::IO(_)) if !banner => {
                self.busy()
            }
            ClientError::Library(error @ (russh::Error::Disconnect | russh::Error::HUP | russh::Error::IO(_))) => {
                SshError::new(Kind::Lost, format!("{place}: the connection broke during the key exchange: {error}"))
            }
            ClientError::Library(error) => SshError::new(Kind::Protocol, format!("{place}: {error}")),
        }
    }

    async fn log_in(&self, mut live: Live) -> Result<Live, SshError> {
        let endpoint = &self.endpoint;
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&endpoint.key), None);
        let lost = |live: &Live| {
            SshError::new(
                Kind::Lost,
                format!("{}: the connection broke during login: {}", endpoint.place(), live.reason()),
            )
        };
        match live.handle.authenticate_publickey(endpoint.user.clone(), key).await {
            Ok(AuthResult::Success) => Ok(live),
            // The library answers so, too, when the connection ended before the server's word.
            Ok(AuthResult::Failure { remaining_methods, .. }) if remaining_methods.is_empty() && !live.is_open() => {
                Err(lost(&live))
            }
            Ok(AuthResult::Failure { partial_success, .. }) => {
                let path = endpoint.key_path.as_ref().map(|path| format!(" of {path:?}")).unwrap_or_default();
                let fingerprint = fingerprint(endpoint.key.public_key());
                let hint = if partial_success {
                    "the key is good, but the server wants a second factor, which a broker can not give"
                } else {
                    "put the public key into that user's authorized_keys, or mend user and key in the configuration"
                };
                Err(SshError::new(
                    Kind::Auth,
                    format!(
                        "{} refuses user {:?} with key {fingerprint}{path}; {hint}",
                        endpoint.place(),
                        endpoint.user
                    ),
                ))
            }
            Err(_) => Err(lost(&live)),
        }
    }

    /// Opens a channel for one command.
    pub(crate) async fn open(&self, live: &Live) -> Result<Channel<Msg>, SshError> {
        let place = self.endpoint.place();
        // sshd gives a session's place free a moment after it said that the command before has ended.
        let mut attempt = 0;
        loop {
            attempt += 1;
            let opened = timeout(self.endpoint.limits.connect, live.handle.channel_open_session()).await;
            match opened {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(russh::Error::ChannelOpenFailure(
                    ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage,
                ))) if attempt < 10 => sleep(Duration::from_millis(50)).await,
                Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                    let text = format!(
                        "{place} takes no further session on this connection ({reason:?}); lower max_sessions or raise \
                         MaxSessions in its sshd_config"
                    );
                    return Err(SshError::new(Kind::NoSession, text));
                }
                Ok(Err(_)) => {
                    return Err(SshError::new(
                        Kind::Lost,
                        format!("the connection to {place} was lost: {}", live.reason()),
                    ));
                }
                Err(_) => {
                    let limit = self.endpoint.limits.connect.as_millis();
                    return Err(SshError::new(Kind::Timeout, format!("{place} does not answer within {limit} ms")));
                }
            }
        }
    }
}

fn client_config(endpoint: &Endpoint, window: u32, queue: usize) -> client::Config {
    // The pinned key's type first, so that a host with several keys shows that one; then the others, so that a host
    // that was replaced shows what it has. No RSA: see `key::supported`.
    let pinned = endpoint.host_key.algorithm();
    let mut algorithms = vec![pinned.clone()];
    let known = [
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    ];
    algorithms.extend(known.into_iter().filter(|algorithm| *algorithm != pinned));
    client::Config {
        window_size: window,
        channel_buffer_size: queue,
        // It would end a connection on which nothing happens, which is what a kept connection is for.
        inactivity_timeout: None,
        keepalive_interval: Some(endpoint.limits.keepalive_interval),
        keepalive_max: endpoint.limits.keepalive_max,
        nodelay: true,
        preferred: Preferred { key: Cow::Owned(algorithms), ..Preferred::DEFAULT },
        ..client::Config::default()
    }
}
