//! Connections: who does not speak HTTP/2 is turned away before it costs anything, and all can be cut.

use crate::auth::{AddressPlace, Addresses, Origin, UnixPeer};
use crate::rpc::audit::{Refusal, Refusals};
use crate::rpc::limits::{Gate, Place, RpcLimits};
use crate::rpc::peers::Peers;
use crate::telemetry::metrics::Calls;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpIncoming};
use wharfinger_tls::{AcceptError, Leaf, Peer, ServerStream, ServerTls};

/// The preface of an HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Silence of a peer after which the kernel sends a question.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// From one look at an incomplete preface to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// After an accept that failed (no file descriptor is left): nothing gets better by trying at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Maximum number of connections by the Unix socket. They have places of their own, so that a full port does not lock operators out.
const UNIX_CONNECTIONS: usize = 1_024;
/// Maximum number of handshakes at once. One costs about a millisecond of a core.
const HANDSHAKES: usize = 256;
/// After the end of a client's certificate: the time until its connections are cut.
const AFTER_END: Duration = Duration::from_secs(30);
/// Maximum time between two looks at the wall clock.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(3600);
/// The first byte of a TLS handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;
/// For browsers and curl.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nUpgrade: h2c\r\n\
    Content-Type: text/plain\r\n\r\nthis port speaks gRPC over HTTP/2; try grpcurl -plaintext\n";

/// The port: where clients connect, and its TLS.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    unix: Option<UnixListener>,
    pub(crate) peers: Option<Peers>,
    /// Whether its clients speak HTTP/1, as browsers do.
    web: bool,
}

impl Port {
    /// A port whose clients speak TLS.
    pub fn with_tls(listener: TcpListener, tls: Arc<ServerTls>) -> Self {
        Port { listener, tls: Some(tls), unix: None, peers: None, web: false }
    }

    /// The port with a Unix socket beside it, whose clients speak no TLS: the kernel says who they are.
    #[must_use]
    pub fn with_unix(self, listener: Option<UnixListener>) -> Self {
        Port { unix: listener, ..self }
    }

    /// A port for browsers.
    pub(crate) fn web(listener: TcpListener, tls: Option<Arc<ServerTls>>, unix: Option<UnixListener>) -> Self {
        Port { listener, tls, unix, peers: None, web: true }
    }

    /// The port of a server whose peers are known by their certificates: calls are forwarded to them and taken from them
    /// alone.
    #[must_use]
    pub fn with_peers(self, peers: Option<Peers>) -> Self {
        Port { peers, ..self }
    }
}

impl From<TcpListener> for Port {
    /// A port without TLS.
    fn from(listener: TcpListener) -> Self {
        Port { listener, tls: None, unix: None, peers: None, web: false }
    }
}

/// The proof of a client by its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectInfo {
    /// The address that it comes from. `None`: it comes by the Unix socket.
    address: Option<SocketAddr>,
    /// The process that it comes from. `None`: it comes by the port.
    unix: Option<UnixPeer>,
    /// Whether it has TLS.
    tls: bool,
    /// The identity in its certificate. `None`: it has none.
    leaf: Option<Arc<Leaf>>,
    /// The person whom the proxy at the other end names.
    proxied: Option<Arc<str>>,
}

impl ConnectInfo {
    /// A connection from this address without TLS.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address: Some(address), unix: None, tls: false, leaf: None, proxied: None }
    }

    /// The same connection, for a person whom the proxy at its other end names.
    #[must_use]
    pub(crate) fn naming(self, proxied: Option<Arc<str>>) -> Self {
        Self { proxied, ..self }
    }

    /// Whether it comes by a Unix socket.
    pub(crate) fn by_socket(&self) -> bool {
        self.unix.is_some()
    }

    /// The same as a connection of this machine without a user: the process at the other end speaks for others.
    #[must_use]
    pub(crate) fn for_others(self) -> Self {
        let own = self.unix.map(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        Self { address: self.address.or(own), unix: None, ..self }
    }

    /// The name in its certificate.
    pub(crate) fn certificate(&self) -> Option<&str> {
        self.leaf.as_ref().map(|leaf| leaf.uri.as_str())
    }

    /// The person whom the proxy at the other end names.
    pub(crate) fn proxied(&self) -> Option<&str> {
        self.proxied.as_deref()
    }

    /// The address that it comes from. `None`: it comes by a Unix socket.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The connection of a call, for its identity.
    pub(crate) fn origin(&self) -> Origin {
        let Self { address, unix, tls, leaf, proxied } = self.clone();
        Origin { address, tls, leaf, unix, proxied }
    }
}

/// The bytes of a connection.
enum Wire {
    Plain(TcpStream),
    Tls(Box<ServerStream<TcpStream>>),
    Unix(UnixStream),
}

/// A client's connection. It counts against the limit until it is dropped, and fails once it is cut.
pub(crate) struct Connection {
    wire: Wire,
    /// The part of the preface that was read and is not passed on yet.
    ahead: &'static [u8],
    info: ConnectInfo,
    cut: CancellationToken,
    cutting: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ends the task that watches the client's certificate.
    _watched: Option<DropGuard>,
    _place: Places,
}

/// The places that a connection takes: of all, and of its address.
pub(crate) struct Places {
    _of_all: Place,
    of_address: Option<AddressPlace>,
}

/// Connections that speak HTTP/2. Dropping the stream closes the listener.
pub(crate) fn accept(
    port: Port,
    limits: &RpcLimits,
    cut: CancellationToken,
    (refusals, calls, addresses): (Refusals, Option<Calls>, Addresses),
) -> ReceiverStream<io::Result<Connection>> {
    let incoming = TcpIncoming::from(port.listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE));
    let unix = port.unix;
    let (out, accepted) = mpsc::channel(64);
    let door = Door {
        connections: Gate::new(limits.max_connections),
        unix_connections: Gate::new(UNIX_CONNECTIONS),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        timeout: limits.preface_timeout,
        tls: port.tls,
        web: port.web,
        cut,
        refusals,
        calls,
        addresses,
    };
    // Ends when the server drops the stream of connections.
    tokio::spawn(async move {
        tokio::select! {
            () = out.closed() => {}
            ((), ()) = async { tokio::join!(door.accept_all(incoming, &out), door.accept_users(unix, &out)) } => {}
        }
    });
    ReceiverStream::new(accepted)
}

/// The checks that each new connection passes.
struct Door {
    connections: Gate,
    unix_connections: Gate,
    handshakes: Arc<Semaphore>,
    timeout: Duration,
    tls: Option<Arc<ServerTls>>,
    web: bool,
    cut: CancellationToken,
    refusals: Refusals,
    calls: Option<Calls>,
    addresses: Addresses,
}

impl Door {
    /// A new connection of the port with its places. `None`: it is closed, or there is none.
    async fn admit(&self, stream: io::Result<TcpStream>) -> Option<(TcpStream, Places)> {
        let stream = accepted(stream).await?;
        // A connection that has ended already has no address.
        let address = stream.peer_addr().ok()?;
        let of_address = match self.addresses.enter(address.ip()) {
            Ok(place) => place,
            Err(limit) => {
                let origin = Origin::from(Some(address));
                let (reason, detail) = (limit.reason(), limit.detail());
                self.turned_away(reason);
                self.refusals.note(&Refusal { reason, detail, origin: Some(&origin), ..Refusal::default() });
                return None;
            }
        };
        let of_all = self.entered(&self.connections)?;
        Some((stream, Places { _of_all: of_all, of_address }))
    }

    /// A place among all connections. `None`: there is none.
    fn entered(&self, gate: &Gate) -> Option<Place> {
        let place = gate.enter();
        if place.is_none() {
            self.turned_away("CONNECTIONS");
            tracing::warn!("a connection was closed at once: the limit of connections is reached");
        }
        place
    }

    fn turned_away(&self, reason: &'static str) {
        if let Some(calls) = &self.calls {
            calls.turned_away(reason);
        }
    }

    async fn accept_all(&self, mut incoming: TcpIncoming, out: &mpsc::Sender<io::Result<Connection>>) {
        while let Some(stream) = incoming.next().await {
            let Some((stream, place)) = self.admit(stream).await else { continue };
            let (out, cut) = (out.clone(), self.cut.clone());
            // Ends after `timeout`, or when the connection is handed on.
            match self.tls.clone() {
                None => drop(tokio::spawn(plain(stream, place, (self.timeout, self.web), cut, out))),
                Some(tls) => {
                    let (handshakes, refusals) = (self.handshakes.clone(), self.refusals.clone());
                    let when = (self.timeout, self.web);
                    // Ends after `timeout`, or when the connection is handed on.
                    drop(tokio::spawn(secure(stream, place, when, cut, out, tls, (handshakes, refusals))));
                }
            }
        }
    }

    /// Accepts the connections of the Unix socket. Its processes are known when they connect.
    async fn accept_users(&self, listener: Option<UnixListener>, out: &mpsc::Sender<io::Result<Connection>>) {
        let Some(listener) = listener else { return };
        loop {
            let stream = listener.accept().await.map(|(stream, _)| stream);
            let Some(stream) = accepted(stream).await else { continue };
            let Some(of_all) = self.entered(&self.unix_connections) else { continue };
            let place = Places { _of_all: of_all, of_address: None };
            // Ends after `timeout`, or when the connection is handed on.
            drop(tokio::spawn(user(stream, place, (self.timeout, self.web), self.cut.clone(), out.clone())));
        }
    }
}

/// A new connection, if there is one.
async fn accepted<S>(stream: io::Result<S>) -> Option<S> {
    match stream {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted; is the limit of open files reached?");
            tokio::time::sleep(ACCEPT_AGAIN).await;
            None
        }
    }
}

async fn user(
    mut stream: UnixStream,
    place: Places,
    (timeout, web): (Duration, bool),
    cut: CancellationToken,
    out: mpsc::Sender<io::Result<Connection>>,
) {
    let unix = match stream.peer_cred() {
        Ok(peer) => UnixPeer { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() },
        Err(error) => return tracing::warn!(%error, "the user of a connection by the Unix socket is not known"),
    };
    if web || speaks_preface(&mut stream, timeout).await {
        let info = ConnectInfo { address: None, unix: Some(unix), tls: false, leaf: None, proxied: None };
        let _ = out.send(Ok(Connection::new(Wire::Unix(stream), read(web), info, cut, None, place))).await;
    } else {
        tracing::debug!(uid = unix.uid, "a connection by the Unix socket does not speak HTTP/2");
    }
}

/// Reads the preface, within this time.
pub(crate) async fn speaks_preface(stream: &mut (impl AsyncRead + Unpin), timeout: Duration) -> bool {
    let mut first = [0; PREFACE.len()];
    let read = tokio::time::timeout(timeout, stream.read_exact(&mut first)).await;
    matches!(read, Ok(Ok(_))) && first == *PREFACE
}

async fn plain(
    mut stream: TcpStream,
    place: Places,
    (timeout, web): (Duration, bool),
    cut: CancellationToken,
    out: mpsc::Sender<io::Result<Connection>>,
) {
    if web || matches!(tokio::time::timeout(timeout, speaks_http2(&mut stream)).await, Ok(true)) {
        // One that is gone already has no address.
        let Ok(address) = stream.peer_addr() else { return };
        let info = ConnectInfo::plain(address);
        let _ = out.send(Ok(Connection::new(Wire::Plain(stream), &[], info, cut, None, place))).await;
    }
}

async fn secure(
    stream: TcpStream,
    place: Places,
    (timeout, web): (Duration, bool),
    cut: CancellationToken,
    out: mpsc::Sender<io::Result<Connection>>,
    tls: Arc<ServerTls>,
    (handshakes, refusals): (Arc<Semaphore>, Refusals),
) {
    let from = stream.peer_addr().ok();
    let shaken = tokio::time::timeout(timeout, async {
        // First a share of its address: one address cannot have all.
        let _share = match &place.of_address {
            Some(own) => own.handshake().await,
            None => None,
        };
        let _permit = handshakes.acquire_owned().await;
        tls.accept(stream).await
    });
    let accepted = match shaken.await {
        Ok(Ok(accepted)) => accepted,
        // A probe of the port, or a client that went away.
        Ok(Err(AcceptError::Io(error))) => return tracing::debug!(?from, %error, "a handshake was cut off"),
        Ok(Err(error)) => {
            let (detail, origin) = (error.to_string(), Origin::from(from));
            let reason = error.reason();
            return refusals.note(&Refusal { reason, detail: &detail, origin: Some(&origin), ..Refusal::default() });
        }
        Err(_) => return tracing::debug!(?from, "a handshake took too long"),
    };
    let mut stream = Box::new(accepted.stream);
    if !web && !speaks_preface(&mut stream, timeout).await {
        return tracing::debug!(?from, "a connection does not speak HTTP/2");
    }
    let leaf = accepted.peer.as_ref().map(|peer| Arc::new(peer.leaf.clone()));
    let own = cut.child_token();
    let watched = accepted.peer.map(|peer| {
        let over = CancellationToken::new();
        // Ends with `over`.
        tokio::spawn(watch(peer, tls, own.clone(), over.clone()));
        over.drop_guard()
    });
    let info = ConnectInfo { address: from, unix: None, tls: true, leaf, proxied: None };
    let _ = out.send(Ok(Connection::new(Wire::Tls(stream), read(web), info, own, watched, place))).await;
}

/// The bytes that were read of a connection before it is handed on.
fn read(web: bool) -> &'static [u8] {
    if web { &[] } else { PREFACE }
}

/// Cuts a connection once its client's certificate ends or is not welcome any more. Clients go on by a new connection.
async fn watch(peer: Peer, tls: Arc<ServerTls>, cut: CancellationToken, over: CancellationToken) {
    let mut changes = tls.changes();
    loop {
        let left = peer.leaf.not_after.duration_since(crate::clock::wall()).unwrap_or_default();
        tokio::select! {
            () = over.cancelled() => return,
            // At most an hour: the wall clock may be set meanwhile.
            () = tokio::time::sleep((left + AFTER_END).min(LOOK_AT_CLOCK)) => {
                let late = crate::clock::wall().duration_since(peer.leaf.not_after).unwrap_or_default();
                if late < AFTER_END {
                    continue;
                }
            }
            changed = changes.changed() => if changed.is_ok() && tls.welcomes(&peer, crate::clock::wall()) {
                continue;
            },
        }
        tracing::info!(uri = %peer.leaf.uri, "a connection is cut: its certificate has ended, or is refused now");
        return cut.cancel();
    }
}

/// Looks at what comes first and takes nothing away from it.
async fn speaks_http2(stream: &mut TcpStream) -> bool {
    let mut first = [0; PREFACE.len()];
    loop {
        let Ok(length) = stream.peek(&mut first).await else { return false };
        if length == 0 {
            return false;
        }
        let peer = || stream.peer_addr().ok();
        match judge(&first[..length]) {
            First::Http2 => return true,
            First::More => tokio::time::sleep(LOOK_AGAIN).await,
            First::Tls => {
                tracing::warn!(peer = ?peer(), "a client spoke TLS to a port without TLS");
                return false;
            }
            First::Other => {
                tracing::debug!(peer = ?peer(), "a connection does not speak HTTP/2");
                return false;
            }
            First::Http1 => {
                tracing::debug!(peer = ?peer(), "a connection speaks HTTP/1");
                let _ = stream.write_all(HTTP1_ANSWER).await;
                return false;
            }
        }
    }
}

/// The verdict on the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// There are too few of them.
    More,
    Http2,
    Http1,
    Tls,
    Other,
}

/// Beginnings of HTTP/1 requests.
const HTTP1: [&[u8]; 5] = [b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI"];

/// Judges the first bytes of a connection, at most those of a preface.
pub(crate) fn judge(seen: &[u8]) -> First {
    if seen == PREFACE {
        First::Http2
    } else if HTTP1.iter().any(|verb| seen.starts_with(verb)) {
        First::Http1
    } else if PREFACE.starts_with(seen) || HTTP1.iter().any(|verb| verb.starts_with(seen)) {
        First::More
    } else if seen.first() == Some(&HANDSHAKE) {
        First::Tls
    } else {
        First::Other
    }
}

impl Connection {
    fn new(
        wire: Wire,
        ahead: &'static [u8],
        info: ConnectInfo,
        cut: CancellationToken,
        watched: Option<DropGuard>,
        place: Places,
    ) -> Self {
        let cutting = Box::pin(cut.clone().cancelled_owned());
        Connection { wire, ahead, info, cut, cutting, _watched: watched, _place: place }
    }

    /// The other end.
    pub(crate) fn info(&self) -> &ConnectInfo {
        &self.info
    }

    /// Also wakes the connection's task when it is cut, whatever it waits for.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cut.is_cancelled() || self.cutting.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended the connection"));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        if !self.ahead.is_empty() {
            let (now, later) = self.ahead.split_at(self.ahead.len().min(buf.remaining()));
            buf.put_slice(now);
            self.ahead = later;
            return Poll::Ready(Ok(()));
        }
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    /// `false`, so that h2 copies messages of less than 1,024 bytes into its buffer and many answers share one write. With vectored
    /// writes it copies those of less than 256 bytes alone, and an answer to `Lease` has about 300. A frame of a long message
    /// takes two writes instead of one (`CHAIN_THRESHOLD` in h2's `codec/framed_write.rs`).
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}
