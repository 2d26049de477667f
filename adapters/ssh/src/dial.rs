//! Making a connection: TCP or a proxy command, the host key, the login.

use crate::connection::{Client, ClientError, Connection, Live, Shown, State};
use crate::endpoint::{Attempts, Endpoint};
use crate::error::{Kind, SshError};
use crate::key::fingerprint;
use crate::proxy::ProxyStream;
use crate::timeout::patiently;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use russh::client::{self, AuthResult};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKeyWithHashAlg};
use russh::{AlgorithmKind, Preferred};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Maximum time of a login on a host that has shown its key, after the connect time-out. UseDNS with a mute name server takes
/// half a minute, and sshd's own limit (LoginGraceTime) is two.
const LOGIN_MAX: Duration = Duration::from_secs(60);

/// Time before a connection to the next address starts beside those under way (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

impl Connection {
    /// As [`Self::dial`], with further attempts beside the first one while there is no answer.
    ///
    /// A login takes about ten flights of packets, each of which may be lost, and TCP doubles its patience at each loss.
    /// Measured over loopback with one packet in five lost both ways (96 logins): half were done after 2.3 s, 58 % after
    /// 3 s, 80 % after 6 s, 88 % after 9 s. Starting anew every 3 s gives 93 % within 9 s, one long attempt 88 %; keeping
    /// what stands and adding to it gives 99 %.
    pub(crate) async fn dial_for_keeps(&self, shown: &Shown, attempts: Attempts) -> Result<Live, SshError> {
        let Attempts { most, next } = attempts;
        let attempts = async {
            let mut under_way = FuturesUnordered::new();
            under_way.push(self.dial_without_limit(2 << 20, 128, shown));
            loop {
                tokio::select! {
                    biased;
                    // An error is the host's own answer: the other attempts would get the same.
                    Some(result) = under_way.next() => return result,
                    // A host that has shown its key is reached: another login would only add to its work.
                    () = sleep(next), if under_way.len() < most && !shown.get() => {
                        under_way.push(self.dial_without_limit(2 << 20, 128, shown));
                    }
                }
            }
        };
        self.within_limits(attempts, shown).await
    }

    /// Connects, checks the host key, logs in: all within the connect time-out, or within [`LOGIN_MAX`] on a host that has
    /// shown its key.
    pub(crate) async fn dial(&self, window: u32, queue: usize) -> Result<Live, SshError> {
        let shown = Shown::default();
        self.within_limits(self.dial_without_limit(window, queue, &shown), &shown).await
    }

    async fn within_limits(
        &self,
        attempts: impl Future<Output = Result<Live, SshError>>,
        shown: &Shown,
    ) -> Result<Live, SshError> {
        tokio::pin!(attempts);
        let limit = self.endpoint.limits.connect;
        if let Some(result) = patiently(limit, &mut attempts).await {
            return result;
        }
        if !shown.get() {
            let text = format!("{} does not answer within {} ms", self.endpoint.place(), limit.as_millis());
            return Err(SshError::new(Kind::Timeout, text));
        }
        tracing::debug!(host = self.endpoint.name, "the host has shown its key; its login takes more than {limit:?}");
        patiently(LOGIN_MAX, attempts).await.unwrap_or_else(|| Err(self.slow(limit + LOGIN_MAX)))
    }

    /// The host is there, and slow.
    pub(crate) fn slow(&self, limit: Duration) -> SshError {
        let text = format!(
            "{} answers, and a login or command takes more than {} ms there; look at the start-up files of user {:?}, at PAM, \
             at UseDNS and at home directories on a network",
            self.endpoint.place(),
            limit.as_millis(),
            self.endpoint.user
        );
        SshError::new(Kind::Slow, text)
    }

    async fn dial_without_limit(&self, window: u32, queue: usize, shown: &Shown) -> Result<Live, SshError> {
        self.log_in(self.shake_hands(window, queue, shown).await?).await
    }

    /// A connection to a host that has shown its key, without a login.
    pub(crate) async fn greeted(&self) -> Result<Live, SshError> {
        let shown = Shown::default();
        self.within_limits(self.shake_hands(64 << 10, 8, &shown), &shown).await
    }

    async fn shake_hands(&self, window: u32, queue: usize, shown: &Shown) -> Result<Live, SshError> {
        let endpoint = &self.endpoint;
        let state = Arc::new(State::default());
        let shown = vec![shown.clone(), self.shown.clone()];
        let client = Client { pinned: endpoint.host_key.clone(), state: Arc::clone(&state), shown };
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
                            format!(
                                "{}: proxy command `{command}` ended: {}; the host itself was not asked",
                                endpoint.place(),
                                complaint.text().await
                            ),
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
        Ok(Live::new(handle, state))
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
        let stream = connect_first(&addresses).await.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => Kind::ConnectionRefused,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Kind::NoRoute,
                io::ErrorKind::TimedOut => Kind::Timeout,
                _ => Kind::Lost,
            };
            SshError::new(kind, format!("{}: cannot connect: {error}", endpoint.place()))
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
        let lost = |live: &Live| {
            SshError::new(
                Kind::Lost,
                format!("{}: the connection broke during login: {}", endpoint.place(), live.reason()),
            )
        };
        let user = endpoint.user.clone();
        let answer = match &endpoint.certified {
            Some(certified) => {
                let (key, certificate) = certified.present()?;
                live.handle().authenticate_openssh_cert(user, key, certificate).await
            }
            None => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(&endpoint.key), None);
                live.handle().authenticate_publickey(user, key).await
            }
        };
        match answer {
            Ok(AuthResult::Success) => Ok(live),
            // The library answers so, too, when the connection ended before the server's word.
            Ok(AuthResult::Failure { remaining_methods, .. }) if remaining_methods.is_empty() && !live.is_open() => {
                Err(lost(&live))
            }
            Ok(AuthResult::Failure { partial_success, .. }) => {
                let path = endpoint.key_path.as_ref().map(|path| format!(" of {path:?}")).unwrap_or_default();
                let fingerprint = fingerprint(endpoint.key.public_key());
                let hint = if partial_success {
                    "the key is good, but the server wants a second factor, which a broker cannot give"
                } else if endpoint.certified.is_some() {
                    "the certificate of the lease is over, or the host does not trust its authority: wharfinger check-config \
                     --connect shows the latter"
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
}

/// Connects to the first address that answers: one after the other, a moment apart, the families in turn (RFC 8305).
async fn connect_first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut same, mut other): (VecDeque<_>, VecDeque<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv6() == first_is_v6);
    let mut waiting = VecDeque::new();
    while let Some(address) = same.pop_front() {
        waiting.push_back(address);
        waiting.extend(other.pop_front());
    }
    waiting.extend(other);
    let mut under_way = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        under_way.extend(waiting.pop_front().map(TcpStream::connect));
        tokio::select! {
            biased;
            result = under_way.next() => match result {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => failed = error,
                None if waiting.is_empty() => return Err(failed),
                None => {}
            },
            () = sleep(NEXT_ADDRESS), if !waiting.is_empty() => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    /// An address that answers nothing: its queue is full, so that the kernel drops what comes.
    async fn black_hole() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        (listener, queued, address)
    }

    #[tokio::test]
    async fn an_address_that_answers_nothing_does_not_hold_the_next_one_up() {
        let (_full, _queued, hole) = black_hole().await;
        let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = alive.local_addr().unwrap();
        // The kernel alone gives up after two minutes.
        let limit = Duration::from_secs(30);
        for addresses in [vec![hole, there], vec![hole, hole, there], vec![there, hole]] {
            let stream = tokio::time::timeout(limit, connect_first(&addresses)).await.expect("in time").unwrap();
            assert_eq!(stream.peer_addr().unwrap(), there);
        }
        let refused = alive.local_addr().unwrap();
        drop(alive);
        let error = connect_first(&[refused]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect_first(&[]).await.is_err());
    }
}
