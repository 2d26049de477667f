//! Keys: parsed once, refused early, with the remedy.

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use sha2::Sha256;
use std::fmt;
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
    let failed = |error: &dyn fmt::Display| Failure::bug("HOST_KEY", format!("no host key: {error}"));
    let secret = read_private(path).map_err(|fault| Failure::configuration("BAD_CONFIG", fault.to_string()))?;
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
    let key = read_private(path).map_err(|fault| bad(fault.to_string()))?;
    key.public_key().to_openssh().map_err(|error| bad(error.to_string()))
}

/// A key that cannot be used, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyFault {
    pub(crate) message: String,
    pub(crate) remedy: &'static str,
}

impl KeyFault {
    fn new(message: impl Into<String>, remedy: &'static str) -> Self {
        Self { message: message.into(), remedy }
    }
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

const OPENSSH: &str = "use a key in OpenSSH format without a passphrase (ssh-keygen -t ed25519 -N '')";

/// Reads a private key file in OpenSSH format.
pub(crate) fn read_private(path: &Path) -> Result<PrivateKey, KeyFault> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        KeyFault::new(format!("private key {path:?} cannot be read: {error}"), "name a file that the broker may read")
    })?;
    parse_private(&text)
        .map_err(|fault| KeyFault { message: format!("private key {path:?}: {}", fault.message), ..fault })
}

/// Parses a private key in OpenSSH format.
pub(crate) fn parse_private(text: &str) -> Result<PrivateKey, KeyFault> {
    let key = russh::keys::decode_secret_key(text, None)
        .map_err(|error| KeyFault::new(format!("not a usable private key: {error}"), OPENSSH))?;
    if key.is_encrypted() {
        return Err(KeyFault::new("it has a passphrase", "take the passphrase off with ssh-keygen -p -N ''"));
    }
    supported(&key.algorithm())?;
    Ok(key)
}

/// Parses a pinned host key: `ssh-ed25519 AAAA…`, or a line of ssh-keyscan with the address in front.
pub(crate) fn parse_host_key(text: &str) -> Result<PublicKey, KeyFault> {
    let line = match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        [_address, kind, key] if Algorithm::new(kind).is_ok() => format!("{kind} {key}"),
        _ => text.trim().to_string(),
    };
    let key = PublicKey::from_openssh(&line).map_err(|error| {
        KeyFault::new(
            format!("host_key {text:?} is not a public key: {error}"),
            "write it as `ssh-ed25519 AAAA…`: ssh-keyscan -t ed25519 ADDRESS prints it; compare it on the machine's console",
        )
    })?;
    supported(&key.algorithm())?;
    Ok(key)
}

/// Refuses RSA: its crate has an open timing advisory, and every sshd of the last ten years has an ed25519 key.
fn supported(algorithm: &Algorithm) -> Result<(), KeyFault> {
    match algorithm {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(()),
        other => {
            let message = format!("keys of type {other} are not supported");
            Err(KeyFault::new(message, "use ssh-ed25519 or ecdsa-sha2-nistp256"))
        }
    }
}

/// `SHA256:…`, as ssh-keygen -l prints it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
