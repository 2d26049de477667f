//! The way to the server.

use super::error::Failure;
use super::exit::Exit;
use super::ui::Ui;
use crate::client::{AuthToken, Client, ClientError, ClientOptions, ClientSettings, Follow, ServerUri};
use clap::Args;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Response, Status};

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

/// What every command has at hand.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) server: String,
    /// The servers to which a refusal may lead.
    pub(crate) follow: Follow,
    /// The token of the caller.
    pub(crate) token: Option<AuthToken>,
    /// The certificates of connections with TLS.
    pub(crate) tls: ClientSettings,
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
        Client::connect_with(&self.server, self.options(retry_for)).await.map_err(|error| self.failure(error))
    }

    /// The options of a client.
    pub(crate) fn options(&self, retry_for: Duration) -> ClientOptions {
        let (token, tls) = (self.token.clone(), self.tls.clone());
        ClientOptions { retry_for, follow: self.follow, token, tls, ..ClientOptions::default() }
    }

    /// Whether each server of the list is on this machine or proves itself by TLS: another one could be anyone.
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

/// Variables with the token of the caller: the file that holds it, or the token itself.
pub(crate) const TOKEN_VARIABLES: [&str; 2] = ["WHARFINGER_AUTH_TOKEN_FILE", "WHARFINGER_AUTH_TOKEN"];
/// Maximum length of a token's file in bytes.
const TOKEN_BYTES: u64 = 4096;

/// The token of the caller, by the environment.
pub(crate) fn token(ui: &Ui) -> Result<Option<AuthToken>, Failure> {
    let [file, text] = TOKEN_VARIABLES;
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let (text, from) = match (set(file), set(text)) {
        (Some(path), _) => (read_token(ui, std::path::Path::new(&path))?, file),
        (None, Some(value)) => (value.into_string().unwrap_or_default(), text),
        (None, None) => return Ok(None),
    };
    let wrong = || Failure::new(Exit::BadData, format!("{from} holds no token")).remedy("set it to one, or unset it");
    AuthToken::new(&text).map(Some).ok_or_else(wrong)
}

fn read_token(ui: &Ui, path: &std::path::Path) -> Result<String, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let wrong = |why: String| Failure::new(Exit::BadData, format!("the token file {shown} {why}"));
    let about = std::fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if !about.is_file() || about.len() > TOKEN_BYTES {
        return Err(wrong(format!("is no regular file of at most {TOKEN_BYTES} bytes")));
    }
    if about.permissions().mode() & 0o007 != 0 {
        ui.warn(&format!("others on this machine may read or write the token file {shown}: chmod o= it"));
    }
    std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))
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
