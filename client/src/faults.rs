//! Connections that note the certificate which one side of them refuses.
//!
//! In TLS 1.3 a client's handshake is over before the server has looked at its certificate. The refusal is an alert in place of the
//! first bytes, of which HTTP/2 keeps a text. So it is read here, by its type.

use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use wharfinger_tls::{CertificateFault, ClientStream, ClientTls, ConnectError};

/// The fault of the latest connection of a channel, if it has one. Cheap to clone; the clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<Option<CertificateFault>>>);

impl Faults {
    fn set(&self, fault: Option<CertificateFault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// The fault.
    pub(crate) fn noted(&self) -> Option<CertificateFault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Connects by TCP, shakes hands, and notes refused certificates.
#[derive(Clone)]
pub(crate) struct Noting {
    pub(crate) tls: ClientTls,
    pub(crate) faults: Faults,
}

impl Service<Uri> for Noting {
    type Response = TokioIo<Noted<ClientStream<TcpStream>>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Noting { tls, faults } = self.clone();
        faults.set(None);
        Box::pin(async move {
            let certificate = tls.certificate().map(PathBuf::from);
            match crate::address::shake_hands(&tls, &uri).await {
                Ok(stream) => Ok(TokioIo::new(Noted { stream, certificate, faults, heard: false, failed: None })),
                Err(error) => {
                    if let ConnectError::Certificate(fault) = &error {
                        faults.set(Some(fault.clone()));
                    }
                    Err(error)
                }
            }
        })
    }
}

/// A connection that notes the alert with which a server refuses the client's certificate.
pub(crate) struct Noted<S> {
    stream: S,
    /// The file of the client's certificate.
    certificate: Option<PathBuf>,
    faults: Faults,
    /// The server has accepted the client: it sent something.
    heard: bool,
    /// The error of a write, until the rest is read.
    failed: Option<io::Error>,
}

impl<S: AsyncRead + Unpin> Noted<S> {
    fn note(&self, error: &io::Error) {
        if let Some(fault) = CertificateFault::told(error, self.certificate.as_deref()).filter(|_| !self.heard) {
            self.faults.set(Some(fault));
        }
    }

    /// A write to a server that has closed the connection fails, and the alert is still to be read. So it fails once that is done.
    fn written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if !self.heard => {
                self.failed = Some(error);
                self.read_out(cx)
            }
            other => other,
        }
    }

    /// Reads to the end of a connection that cannot be written any more.
    fn read_out<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut rest = [0; 256];
        loop {
            let mut buf = ReadBuf::new(&mut rest);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.note(&error);
                    break;
                }
            }
        }
        Poll::Ready(Err(self.failed.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) => self.heard |= buf.filled().len() > before,
            Poll::Ready(Err(error)) => self.note(error),
            Poll::Pending => {}
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return self.read_out(cx);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return self.read_out(cx);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_some() {
            return self.read_out(cx);
        }
        let written = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
