//! Keys: parsed once, refused early, with the remedy.

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{EcdsaKeypair, Ed25519Keypair};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use serde::Deserialize;
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

/// Type of a host key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKeyType {
    /// EdDSA on Ed25519.
    #[default]
    Ed25519,
    /// ECDSA on NIST P-256, for hosts in FIPS mode, whose sshd refuses ed25519 keys.
    Ecdsa,
}

impl HostKeyType {
    /// The type as the configuration and cloud-init write it.
    pub fn as_str(self) -> &'static str {
        match self {
            HostKeyType::Ed25519 => "ed25519",
            HostKeyType::Ecdsa => "ecdsa",
        }
    }

    /// The type of a public key in OpenSSH format. `None`: another type.
    pub fn of(public: &str) -> Option<Self> {
        match public.split_ascii_whitespace().next()? {
            "ssh-ed25519" => Some(HostKeyType::Ed25519),
            "ecdsa-sha2-nistp256" => Some(HostKeyType::Ecdsa),
            _ => None,
        }
    }
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

/// Derives a host key pair from a private key file, a name and a type: the same three give the same pair. A pair that can be
/// derived again need not be stored. A reader of the file can log in to the host anyway.
///
/// # Errors
/// `BAD_CONFIG` (configuration) if the file cannot be used.
pub fn host_key_from(path: &Path, name: &str, kind: HostKeyType) -> Result<HostKey, Failure> {
    let failed = |error: &dyn fmt::Display| Failure::bug("HOST_KEY", format!("no host key: {error}"));
    let secret = read_private(path).map_err(|fault| Failure::configuration("BAD_CONFIG", fault.to_string()))?;
    let secret = secret.to_bytes().map_err(|error| failed(&error))?;
    let seed = |label: &[u8]| -> Result<[u8; 32], Failure> {
        let mut code = Hmac::<Sha256>::new_from_slice(&secret).map_err(|error| failed(&error))?;
        code.update(label);
        code.update(name.as_bytes());
        Ok(code.finalize().into_bytes().into())
    };
    let key = match kind {
        HostKeyType::Ed25519 => PrivateKey::from(Ed25519Keypair::from_seed(&seed(b"wharfinger host key 1\0")?)),
        HostKeyType::Ecdsa => {
            // About one seed in 2^32 is not a scalar of the curve; the second label has another seed.
            let (first, second) = (seed(b"wharfinger ecdsa host key 1\0")?, seed(b"wharfinger ecdsa host key 2\0")?);
            let scalar = p256::SecretKey::from_slice(&first).or_else(|_| p256::SecretKey::from_slice(&second));
            let private = scalar.map_err(|error| failed(&error))?;
            let public = private.public_key().into();
            PrivateKey::from(EcdsaKeypair::NistP256 { public, private: private.into() })
        }
    };
    pair(&key)
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

/// Returns a public key of a supported type in OpenSSH format, without a comment.
///
/// # Errors
/// `BAD_HOST_KEY` (resource) if the text is no such key.
pub fn public_key(text: &str) -> Result<String, Failure> {
    let bad = |why: &dyn fmt::Display| Failure::resource("BAD_HOST_KEY", why.to_string());
    let mut key = PublicKey::from_openssh(text.trim()).map_err(|error| bad(&error))?;
    supported(&key.algorithm()).map_err(|fault| bad(&fault.message))?;
    key.set_comment("");
    key.to_openssh().map_err(|error| bad(&error))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_key_is_derived_from_the_file_the_name_and_the_type() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        for path in [&one, &two] {
            std::fs::write(path, host_key().unwrap().private).unwrap();
        }
        for kind in [HostKeyType::Ed25519, HostKeyType::Ecdsa] {
            let key = host_key_from(&one, "res_1-1", kind).unwrap();
            let again = host_key_from(&one, "res_1-1", kind).unwrap();
            assert_eq!((&key.private, &key.public), (&again.private, &again.public), "it can be derived again");
            assert_ne!(key.public, host_key_from(&one, "res_1-2", kind).unwrap().public);
            assert_ne!(key.public, host_key_from(&two, "res_1-1", kind).unwrap().public);
            assert_eq!(HostKeyType::of(&key.public), Some(kind));
            let parsed = parse_private(&key.private).unwrap();
            assert_eq!(parsed.public_key().key_data(), parse_host_key(&key.public).unwrap().key_data());
        }
        assert_eq!(HostKeyType::of("ssh-rsa AAAA"), None);
        assert_eq!(HostKeyType::of(""), None);
    }
}
