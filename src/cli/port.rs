//! The port: bound once for the life of the process, and served.

use super::error::Failure;
use super::exit::Exit;
use crate::engine::Handle;
use crate::rpc::{AnswerSources, RpcLimits, ServeError};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// After the lead is lost: for those who wait to be told.
const AFTER_LEAD: Duration = Duration::from_millis(500);
/// After a server was killed, a program that it was just starting may have its port for a moment.
const PORT_PATIENCE: Duration = Duration::from_millis(500);

/// Binds it.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let mut waited = Duration::ZERO;
    let bound = loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && waited < PORT_PATIENCE => {}
            bound => break bound,
        }
        let pause = Duration::from_millis(20);
        tokio::time::sleep(pause).await;
        waited += pause;
    };
    bound.map_err(|error| {
        let failure = Failure::new(Exit::Unavailable, format!("{address} can not be listened on: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.remedy("another server may be there already (see wharfinger pools); or set another `listen`")
            }
            _ => failure,
        }
    })
}

/// The services on it.
pub(super) struct Serving {
    task: JoinHandle<Result<(), ServeError>>,
    stop: CancellationToken,
}

impl Serving {
    pub(super) fn start(listener: TcpListener, handle: Handle, limits: RpcLimits, sources: AnswerSources) -> Self {
        if let Ok(address) = listener.local_addr()
            && !address.ip().is_loopback()
        {
            let callers = if sources.trust.asks() {
                "tokens are taken from this machine alone"
            } else {
                "everyone who reaches it is an administrator"
            };
            tracing::warn!(%address, "other machines can reach this address, and there is no TLS: {callers}");
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(crate::rpc::serve(listener, handle, limits, sources, stop.clone()));
        Serving { task, stop }
    }

    /// Waits until it ends, which it should not, and says why it did.
    pub(super) async fn failed(&mut self) -> Failure {
        let why = match (&mut self.task).await {
            Ok(Ok(())) => "it ended by itself".to_string(),
            Ok(Err(error)) => {
                std::error::Error::source(&error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
            }
            Err(error) => error.to_string(),
        };
        Failure::new(Exit::Internal, format!("the port is not served any more: {why}"))
    }

    /// Calls under way are answered, watches are ended.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the port's task ended badly");
        }
    }

    /// Soon: there is nothing left that could be answered.
    pub(super) async fn stop_soon(&mut self) {
        self.stop.cancel();
        if tokio::time::timeout(AFTER_LEAD, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
