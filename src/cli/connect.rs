//! The way to the server.

use super::error::Failure;
use super::token_source::Token;
use super::ui::Ui;
use crate::client::{Client, ClientError, ClientOptions, ClientSettings, Follow, OnRetry, ServerUri};
use crate::links::Links;
use clap::Args;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Response, Status};

/// Maximum time for which a message waits for the address of the page.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// The program that calls, for the audit trail.
const USER_AGENT: &str = concat!("wharfinger-cli/", env!("CARGO_PKG_VERSION"));

/// Certificates of connections to `https://` addresses.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TlsArgs {
    /// File of the authorities that sign servers' certificates, in PEM; those that this machine trusts if absent
    #[arg(long, global = true, value_name = "FILE", env = "WHARFINGER_CA_FILE", help_heading = "Everywhere")]
    ca_file: Option<PathBuf>,
    /// File of the caller's certificate, in PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "WHARFINGER_CERTIFICATE",
        requires = "key",
        help_heading = "Everywhere"
    )]
    certificate: Option<PathBuf>,
    /// File of the certificate's private key, in PEM
    #[arg(
        long = "certificate-key",
        id = "key",
        global = true,
        value_name = "FILE",
        env = "WHARFINGER_CERTIFICATE_KEY",
        requires = "certificate",
        help_heading = "Everywhere"
    )]
    key: Option<PathBuf>,
    /// Name in each server's certificate (spiffe://DOMAIN/PATH); its host name is checked if absent
    #[arg(
        long,
        global = true,
        value_name = "URI",
        env = "WHARFINGER_SERVER_URI",
        value_parser = server_uri,
        help_heading = "Everywhere"
    )]
    server_uri: Option<ServerUri>,
}

fn server_uri(text: &str) -> Result<ServerUri, String> {
    ServerUri::parse(text).map_err(|error| format!("it {error}"))
}

impl TlsArgs {
    pub(crate) fn settings(self) -> ClientSettings {
        ClientSettings { ca: self.ca_file, identity: self.certificate.zip(self.key), server_uri: self.server_uri }
    }
}

/// Context of every command.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) server: String,
    /// The servers to which a refusal may lead.
    pub(crate) follow: Follow,
    /// The token of the caller.
    pub(crate) token: Token,
    /// The certificates of connections with TLS.
    pub(crate) tls: ClientSettings,
    pub(crate) ui: Ui,
}

impl Context {
    /// A client for a person who waits for an answer: it reports a failure soon.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.connect_by(self.options(Duration::from_secs(2))).await
    }

    /// A client for work that goes on: it sits out a restart of the server.
    pub(crate) async fn connect_patient(&self) -> Result<Client, Failure> {
        let ui = self.ui;
        let told = move |error: &ClientError, left: Duration| {
            ui.warn(&format!("{error}; trying again for at most {} s", left.as_secs()));
        };
        let options = self.options(Duration::from_secs(60));
        self.connect_by(ClientOptions { on_retry: Some(OnRetry::new(told)), ..options }).await
    }

    async fn connect_by(&self, options: ClientOptions) -> Result<Client, Failure> {
        Client::connect_with(&self.server, options).await.map_err(|error| self.failure(error))
    }

    /// The options of a client.
    pub(crate) fn options(&self, retry_for: Duration) -> ClientOptions {
        let (Token { text: token, credentials }, tls) = (self.token.clone(), self.tls.clone());
        let traceparent = super::run::trace::caller().map(|trace| trace.to_string());
        ClientOptions {
            retry_for,
            follow: self.follow,
            token,
            credentials,
            tls,
            traceparent,
            user_agent: Some(USER_AGENT.to_owned()),
            ..ClientOptions::default()
        }
    }

    /// Whether each server of the list is on this machine or proves itself by TLS: another one could be anyone.
    pub(crate) fn is_here(&self) -> bool {
        all_here(&self.server)
    }

    /// A screen of the operator's page. `None`: the server does not know its page, or does not answer soon.
    pub(crate) async fn link(&self, client: &Client, screen: impl FnOnce(&Links) -> Option<String>) -> Option<String> {
        let server = tokio::time::timeout(LINK_PATIENCE, client.server()).await.ok()?.ok()?;
        screen(&Links::new(&server.page_url))
    }

    /// The failure of the command for the error of a call.
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
        if address.starts_with("https://") || address.starts_with("unix:///") {
            return true;
        }
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
        for server in [
            "127.0.0.1:7411",
            "http://127.9.9.9:1",
            "[::1]:1",
            "http://localhost:1",
            "[::ffff:127.0.0.1]:1",
            "https://broker:1",
            "unix:///run/w.sock",
        ] {
            assert!(all_here(server), "{server}");
        }
        for server in
            ["broker:1", "http://10.0.0.1:1", "127.0.0.1.evil.example:1", "127.0.0.1:1,broker:1", "[::2]:1", ""]
        {
            assert!(!all_here(server), "{server}");
        }
    }
}
