//! Connections: who does not speak HTTP/2 is turned away before it costs anything, and all can be cut.

use crate::rpc::limits::{Gate, Place, RpcLimits};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the kernel asks a silent peer after.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// From one look at an incomplete preface to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// After an accept that failed (no file descriptor is left): nothing gets better by trying at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// For browsers and curl.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nUpgrade: h2c\r\n\
    Content-Type: text/plain\r\n\r\nthis port speaks gRPC over HTTP/2; try grpcurl -plaintext\n";

/// A client's connection. It counts against the limit until it is dropped, and fails once it is cut.
pub(crate) struct Connection {
    stream: TcpStream,
    cut: CancellationToken,
    cutting: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Place,
}

/// Connections that speak HTTP/2. Dropping the stream closes the listener.
pub(crate) fn accept(
    listener: TcpListener,
    limits: &RpcLimits,
    cut: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE));
    let (out, accepted) = mpsc::channel(64);
    let (gate, timeout) = (Gate::new(limits.max_connections), limits.preface_timeout);
    tokio::spawn(async move {
        tokio::select! {
            () = out.closed() => {}
            () = accept_all(incoming, &gate, timeout, &out, &cut) => {}
        }
    });
    ReceiverStream::new(accepted)
}

async fn accept_all(
    mut incoming: TcpIncoming,
    gate: &Gate,
    timeout: Duration,
    out: &mpsc::Sender<io::Result<Connection>>,
    cut: &CancellationToken,
) {
    while let Some(stream) = incoming.next().await {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; is the limit of open files reached?");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Some(place) = gate.enter() else {
            tracing::warn!("a connection was closed at once: the limit of connections is reached");
            continue;
        };
        let (out, cut) = (out.clone(), cut.clone());
        tokio::spawn(async move {
            let mut stream = stream;
            if let Ok(true) = tokio::time::timeout(timeout, speaks_http2(&mut stream)).await {
                let cutting = Box::pin(cut.clone().cancelled_owned());
                let _ = out.send(Ok(Connection { stream, cut, cutting, _place: place })).await;
            }
        });
    }
}

/// Looks at what comes first and takes nothing away from it.
async fn speaks_http2(stream: &mut TcpStream) -> bool {
    let mut first = [0; PREFACE.len()];
    loop {
        let Ok(length) = stream.peek(&mut first).await else { return false };
        let seen = &first[..length];
        if seen == PREFACE {
            return true;
        }
        if length == 0 {
            return false;
        }
        if !PREFACE.starts_with(seen) {
            tracing::debug!(peer = ?stream.peer_addr().ok(), "a connection does not speak HTTP/2");
            if [&b"GET "[..], b"HEAD", b"POST", b"PUT ", b"OPTI"].iter().any(|verb| seen.starts_with(verb)) {
                let _ = stream.write_all(HTTP1_ANSWER).await;
            }
            return false;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Connection {
    /// Also wakes the connection's task when it is cut, whatever it waits for.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cut.is_cancelled() || self.cutting.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped"));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
