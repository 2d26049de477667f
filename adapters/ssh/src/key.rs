//! Keys: parsed once, refused early, with the remedy.

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use sha2::Sha256;
use std::path::Path;
use wharfinger_adapter::Failure;

/// A host's key pair, made for a machine that does not exist yet.
pub struct HostKey {
    /// In OpenSSH format. Secret.
    pub private: String,
    /// `ssh-ed25519 AAAA…`.
    pub public: String,
}

/// Makes a new key pair (ed25519).
///
/// # Errors
/// `HOST_KEY` (bug).
pub fn host_key() -> Result<HostKey, Failure> {
    let failed = |error: russh::keys::ssh_key::Error| Failure::bug("HOST_KEY", format!("no host key: {error}"));
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(failed)?;
    pair(&key)
}

/// Derives a host key pair (ed25519) from a private key file and a name: the same file and the same name give the same pair.
/// A pair that can be derived again need not be stored. Whoever has the file could log in to the host anyway.
///
/// # Errors
/// `BAD_CONFIG` (configuration) if the file cannot be used.
pub fn host_key_from(path: &Path, name: &str) -> Result<HostKey, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::bug("HOST_KEY", format!("no host key: {error}"));
    let secret = read_private(path).map_err(|why| Failure::configuration("BAD_CONFIG", why))?;
    let secret = secret.to_bytes().map_err(|error| failed(&error))?;
    let mut code = Hmac::<Sha256>::new_from_slice(&secret).map_err(|error| failed(&error))?;
    code.update(b"wharfinger host key 1\0");
    code.update(name.as_bytes());
    pair(&PrivateKey::from(Ed25519Keypair::from_seed(&code.finalize().into_bytes().into())))
}

fn pair(key: &PrivateKey) -> Result<HostKey, Failure> {
    let failed = |error: russh::keys::ssh_key::Error| Failure::bug("HOST_KEY", format!("no host key: {error}"));
    let private = key.to_openssh(LineEnding::LF).map_err(failed)?.to_string();
    let public = key.public_key().to_openssh().map_err(failed)?;
    Ok(HostKey { private, public })
}

/// The public half of a private key file, as one line of authorized_keys.
///
/// # Errors
/// `BAD_CONFIG` (configuration).
pub fn public_of(path: &Path) -> Result<String, Failure> {
    let bad = |why: String| Failure::configuration("BAD_CONFIG", why);
    let key = read_private(path).map_err(bad)?;
    key.public_key().to_openssh().map_err(|error| bad(error.to_string()))
}

/// Reads a private key file in OpenSSH format.
///
/// # Errors
/// In words, without "host X:" in front.
pub(crate) fn read_private(path: &Path) -> Result<PrivateKey, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("private key {path:?} cannot be read: {error}; give a file that the broker may read")
    })?;
    parse_private(&text).map_err(|why| format!("private key {path:?}: {why}"))
}

/// Parses a private key in OpenSSH format.
///
/// # Errors
/// In words.
pub(crate) fn parse_private(text: &str) -> Result<PrivateKey, String> {
    let key = russh::keys::decode_secret_key(text, None).map_err(|error| {
        format!("not a usable private key: {error}; it must be in OpenSSH format without a passphrase (ssh-keygen -t ed25519 -N '')")
    })?;
    if key.is_encrypted() {
        return Err(
            "it has a passphrase, which nobody is here to type; take it off with ssh-keygen -p -N ''".to_string()
        );
    }
    supported(&key.algorithm())?;
    Ok(key)
}

/// Parses a pinned host key: `ssh-ed25519 AAAA…`, as in known_hosts without the host names.
///
/// # Errors
/// In words.
pub(crate) fn parse_host_key(text: &str) -> Result<PublicKey, String> {
    let key = PublicKey::from_openssh(text.trim()).map_err(|error| {
        format!(
            "host_key {text:?} is not a public key: {error}; write it as `ssh-ed25519 AAAA…` \
             (ssh-keyscan -t ed25519 ADDRESS prints it after the address; compare it on the machine's console)"
        )
    })?;
    supported(&key.algorithm())?;
    Ok(key)
}

/// RSA is left out: its crate was a release candidate with an open timing advisory when this was written, and every
/// sshd of the last ten years has an ed25519 key.
fn supported(algorithm: &Algorithm) -> Result<(), String> {
    match algorithm {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(()),
        other => Err(format!("keys of type {other} are not supported; use ssh-ed25519 or ecdsa-sha2-nistp256")),
    }
}

/// `SHA256:…`, as ssh-keygen -l prints it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
