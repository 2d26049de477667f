//! Certificates for the holders of a pool's leases.

use crate::authority::{Authority, Wanted};
use crate::config::Config;
use crate::key;
use async_trait::async_trait;
use russh::keys::PublicKey;
use russh::keys::ssh_key::public::KeyData;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Handle;
use wharfinger_adapter::login::{self, CertificateSource, LoginJob};
use wharfinger_adapter::{Failure, access};

/// Time by which a certificate begins before it is signed, and outlives its lease, in seconds: for the clocks of hosts.
const SLACK: u64 = 60;

/// Maximum length of a holder's public key, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// Signs the certificates of a pool's leases.
pub struct Certifier {
    authority: Arc<Authority>,
    /// Keys that get no certificate: those of hosts and of authorities.
    refused: Vec<KeyData>,
    /// Files of the broker's own keys, which get none either.
    own: Vec<PathBuf>,
}

impl Certifier {
    /// The certifier of a pool. `None`: the pool has no authority.
    pub fn of(config: &Config) -> Option<Self> {
        let authority = Arc::new(config.ca.clone()?);
        let pinned = config.hosts.iter().map(|host| host.host_key.as_str());
        let lines = pinned.chain(authority.trusted.iter().map(String::as_str)).chain(authority.public_key.as_deref());
        let refused = lines.filter_map(|line| Some(key::parse_host_key(line).ok()?.key_data().clone())).collect();
        let mut own: Vec<PathBuf> =
            config.hosts.iter().filter_map(|host| host.key.clone()).chain(config.key.clone()).collect();
        own.sort_unstable();
        own.dedup();
        Some(Self { authority, refused, own })
    }

    /// Reads the holder's key, if it may have a certificate. It reads the broker's own key files.
    fn acceptable(&self, job: &LoginJob) -> Result<PublicKey, Failure> {
        let refused = |why: &str| Failure::request("KEY_REFUSED", why.to_string());
        let types: Vec<String> =
            self.authority.key_types.iter().map(|kind| kind.algorithm().as_str().to_string()).collect();
        let key = holder_key(&job.public_key).map_err(|why| refused(&why))?;
        if !types.iter().any(|kind| kind == key.algorithm().as_str()) {
            let text = format!("keys of type {} get no certificate here; use {}", key.algorithm(), types.join(" or "));
            return Err(refused(&text));
        }
        let host = job.access.get(access::HOST_KEY).and_then(|line| key::parse_host_key(line).ok());
        let known = |data: &KeyData| self.refused.contains(data) || host.is_some_and(|host| host.key_data() == data);
        let same = |other: &PublicKey| other.key_data() == key.key_data();
        let own = self.own.iter().filter_map(|path| key::read_private(path).ok());
        if known(key.key_data())
            || own.into_iter().any(|own| same(own.public_key()))
            || self.authority.public().is_ok_and(|own| same(&own))
        {
            return Err(refused(
                "this is a key of the broker or of a host; make one of your own: ssh-keygen -t ed25519",
            ));
        }
        Ok(key)
    }

    fn certify_now(&self, job: &LoginJob, runtime: &Handle) -> Result<login::Certificate, Failure> {
        let key = self.acceptable(job)?;
        let longest = job.now.saturating_add(self.authority.cert_max_ms / 1000);
        let valid_before = job.expires_at.saturating_add(SLACK).min(longest).max(job.now.saturating_add(1));
        let wanted = Wanted {
            key: &key,
            serial: job.token,
            key_id: key_id(job),
            principals: &[&job.lease],
            valid_after: job.now.saturating_sub(SLACK),
            valid_before,
            permit: &self.authority.permit,
        };
        let unusable = |why: String| Failure::configuration("CA_UNUSABLE", format!("the authority of the pool: {why}"));
        let mut certificate = self.authority.sign(&wanted, runtime).map_err(unusable)?;
        certificate.set_comment(job.lease.as_str());
        let text = certificate.to_openssh().map_err(|error| unusable(error.to_string()))?;
        Ok(login::Certificate { text, valid_before })
    }
}

#[async_trait]
impl CertificateSource for Certifier {
    async fn certify(&self, job: &LoginJob) -> Result<login::Certificate, Failure> {
        let certifier =
            Self { authority: Arc::clone(&self.authority), refused: self.refused.clone(), own: self.own.clone() };
        let (job, runtime) = (job.clone(), Handle::current());
        let signed = tokio::task::spawn_blocking(move || certifier.certify_now(&job, &runtime));
        signed.await.unwrap_or_else(|error| Err(Failure::bug("CERTIFY", format!("no certificate: {error}"))))
    }
}

/// The name of a certificate in the logs of hosts.
fn key_id(job: &LoginJob) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let parts = [&job.pool, &job.lease, &job.tenant].map(|part| part.chars().map(plain).collect::<String>());
    format!("wharfinger/{}", parts.join("/"))
}

/// Reads one public key: a type, the key in base64, and a comment that is dropped.
fn holder_key(text: &str) -> Result<PublicKey, String> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.len() > KEY_BYTES_MAX || line.contains(|c: char| c.is_control() && c != '\t') {
        return Err(format!("the public key must be one line of at most {KEY_BYTES_MAX} bytes, as in a .pub file"));
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(kind), Some(base64)) = (words.next(), words.next()) else {
        return Err("the public key must have a type and base64, as in a .pub file".into());
    };
    if kind.contains("-cert-") {
        return Err("this is a certificate; show the public key alone".into());
    }
    PublicKey::from_openssh(&format!("{kind} {base64}"))
        .map_err(|error| format!("this is no public key: {error}; show the line of a .pub file, without options"))
}

#[cfg(test)]
mod tests;
