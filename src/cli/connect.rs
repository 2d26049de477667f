//! The way to the server.

use super::error::Failure;
use super::ui::Ui;
use crate::client::{Client, ClientError, ClientOptions, Follow};
use std::future::Future;
use std::time::Duration;
use tonic::{Response, Status};

/// What every command has at hand.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) server: String,
    /// The servers to which a refusal may lead.
    pub(crate) follow: Follow,
    pub(crate) ui: Ui,
}

impl Context {
    /// A client for a person who waits for an answer: what does not work is said soon.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.connect_for(Duration::from_secs(2)).await
    }

    /// A client for work that goes on: it sits out a restart of the server.
    pub(crate) async fn connect_patient(&self) -> Result<Client, Failure> {
        self.connect_for(Duration::from_secs(60)).await
    }

    async fn connect_for(&self, retry_for: Duration) -> Result<Client, Failure> {
        let options = ClientOptions { retry_for, follow: self.follow, ..ClientOptions::default() };
        Client::connect_with(&self.server, options).await.map_err(|error| self.failure(error))
    }

    /// Whether each server of the list is on this machine: another one could be anyone, since nothing proves who it is.
    pub(crate) fn is_here(&self) -> bool {
        all_here(&self.server)
    }

    /// What a call's error means here.
    pub(crate) fn failure(&self, error: ClientError) -> Failure {
        Failure::of(error, &self.server)
    }

    /// Awaits a call of the operator's service.
    pub(crate) async fn ask<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        call.await.map(Response::into_inner).map_err(|status| self.failure(status.into()))
    }
}

fn all_here(servers: &str) -> bool {
    servers.split(',').all(|address| {
        let address = address.trim();
        let authority = address.rsplit_once("://").map_or(address, |(_, authority)| authority);
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_here() {
        for server in ["127.0.0.1:7411", "http://127.9.9.9:1", "[::1]:1", "http://localhost:1", "[::ffff:127.0.0.1]:1"]
        {
            assert!(all_here(server), "{server}");
        }
        for server in
            ["broker:1", "http://10.0.0.1:1", "127.0.0.1.evil.example:1", "127.0.0.1:1,broker:1", "[::2]:1", ""]
        {
            assert!(!all_here(server), "{server}");
        }
    }
}
