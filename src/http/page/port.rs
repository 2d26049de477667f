//! The connections of the page, for the server of HTTP.

use crate::rpc::{ConnectInfo, Connection, Inside, Port};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::SocketAddr;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// The connections of a port.
pub(crate) struct Connections(ReceiverStream<io::Result<Connection>>);

impl Connections {
    pub(crate) fn new(inside: &Inside, port: Port) -> Self {
        Self(inside.connections(port))
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = ConnectInfo;

    async fn accept(&mut self) -> (Connection, ConnectInfo) {
        loop {
            match self.0.next().await {
                Some(Ok(connection)) => {
                    let info = connection.info().clone();
                    return (connection, info);
                }
                Some(Err(error)) => tracing::debug!(%error, "a connection of the page failed"),
                // The task that accepts has ended: the server stops.
                None => std::future::pending().await,
            }
        }
    }

    /// None asks for it.
    fn local_addr(&self) -> io::Result<ConnectInfo> {
        Ok(ConnectInfo::plain(SocketAddr::from(([0, 0, 0, 0], 0))))
    }
}

impl Connected<IncomingStream<'_, Connections>> for ConnectInfo {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.remote_addr().clone()
    }
}
