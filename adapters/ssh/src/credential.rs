//! The key pair of a holder, and the certificate that lets it in. The certificate is replaced while the key is in use.

use crate::error::{Kind, SshError};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Maximum life of a certificate that a holder takes, in seconds: a day and some minutes.
const LIFE_MAX: u64 = 24 * 3600 + 600;

/// A key pair that is made in memory, with its present certificate.
pub struct HolderCredential {
    key: Arc<PrivateKey>,
    certificate: RwLock<Option<Arc<Certificate>>>,
}

impl HolderCredential {
    /// Makes a key pair (ed25519), without a certificate.
    ///
    /// # Errors
    /// In words, if the system has no randomness.
    pub fn make() -> Result<Self, String> {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519);
        Ok(Self { key: Arc::new(key.map_err(|error| error.to_string())?), certificate: RwLock::default() })
    }

    /// Reads a key pair that [`Self::private_key`] printed.
    ///
    /// # Errors
    /// In words, if it is no private key.
    pub fn read(text: &str) -> Result<Self, String> {
        let key = crate::key::parse_private(text).map_err(|fault| fault.to_string())?;
        Ok(Self { key: Arc::new(key), certificate: RwLock::default() })
    }

    /// The public half, as one line.
    ///
    /// # Errors
    /// In words.
    pub fn public_key(&self) -> Result<String, String> {
        PublicKey::from(self.key.public_key().key_data().clone()).to_openssh().map_err(|error| error.to_string())
    }

    /// The private half in OpenSSH format. Secret.
    ///
    /// # Errors
    /// In words.
    pub fn private_key(&self) -> Result<String, String> {
        self.key.to_openssh(LineEnding::LF).map(|text| text.to_string()).map_err(|error| error.to_string())
    }

    /// Takes a certificate for this key: it must name this lease alone, with this token, for at most a day.
    ///
    /// # Errors
    /// In words, if it is another certificate than was asked for.
    pub fn take(&self, text: &str, lease: &str, token: u64) -> Result<(), String> {
        let certificate = Certificate::from_openssh(text).map_err(|error| format!("it cannot be read: {error}"))?;
        let life = certificate.valid_before().saturating_sub(certificate.valid_after());
        let wrong = if certificate.public_key() != self.key.public_key().key_data() {
            "it is for another key"
        } else if certificate.cert_type() != CertType::User {
            "it is not for a user"
        } else if certificate.valid_principals() != [lease] {
            "it is not for this lease alone"
        } else if certificate.serial() != token {
            "it has another token"
        } else if life > LIFE_MAX {
            "it is valid for more than a day"
        } else if certificate.verify_signature().is_err() {
            "its signature is wrong"
        } else {
            *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certificate));
            return Ok(());
        };
        Err(wrong.into())
    }

    /// Whether the present certificate allows this extension, as in `permit-pty`.
    pub fn permits(&self, extension: &str) -> bool {
        self.certificate().is_some_and(|certificate| certificate.extensions().contains_key(extension))
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key and its present certificate, for a login.
    pub(crate) fn present(&self) -> Result<(Arc<PrivateKey>, Certificate), SshError> {
        let none = || SshError::new(Kind::Auth, "the holder has no certificate yet");
        Ok((Arc::clone(&self.key), (*self.certificate().ok_or_else(none)?).clone()))
    }

    pub(crate) fn key(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.key)
    }
}

impl PartialEq for HolderCredential {
    fn eq(&self, other: &Self) -> bool {
        self.key.public_key() == other.key.public_key()
    }
}

impl Eq for HolderCredential {}

impl fmt::Debug for HolderCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HolderCredential").field(&crate::key::fingerprint(self.key.public_key())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Permit, Wanted};

    /// A certificate for a key, after a change, signed by a new authority.
    fn signed(key: &PublicKey, change: impl FnOnce(&mut Wanted<'_>)) -> String {
        let authority = HolderCredential::make().unwrap();
        let mut wanted = Wanted {
            key,
            serial: 7,
            key_id: "wharfinger/farm/lse_1/web".into(),
            principals: &["lse_1"],
            valid_after: 1000,
            valid_before: 4600,
            permit: &[Permit::Pty],
        };
        change(&mut wanted);
        wanted.signed_by(&*authority.key).unwrap().to_openssh().unwrap()
    }

    #[test]
    fn a_holder_takes_the_certificate_that_it_asked_for_and_no_other() {
        let own = HolderCredential::make().unwrap();
        let other = HolderCredential::make().unwrap();
        let key = own.key.public_key();
        own.take(&signed(key, |_| ()), "lse_1", 7).unwrap();
        assert!(own.permits("permit-pty") && !own.permits("permit-port-forwarding"));
        assert!(own.present().is_ok() && other.present().is_err());
        let refused = |text: &str| own.take(text, "lse_1", 7).unwrap_err();
        assert_eq!(refused(&signed(other.key.public_key(), |_| ())), "it is for another key");
        for (text, why) in [
            (signed(key, |wanted| wanted.principals = &["lse_2"]), "it is not for this lease alone"),
            (signed(key, |wanted| wanted.principals = &["lse_1", "root"]), "it is not for this lease alone"),
            (signed(key, |wanted| wanted.principals = &[]), "it is not for this lease alone"),
            (signed(key, |wanted| wanted.serial = 8), "it has another token"),
            (signed(key, |wanted| wanted.valid_before = 400_000_000), "it is valid for more than a day"),
        ] {
            assert_eq!(refused(&text), why);
        }
        assert!(refused("ssh-ed25519 AAAA").contains("cannot be read"));
        let text = signed(key, |_| ());
        let (kind, rest) = text.split_once(' ').unwrap();
        let at = rest.len() - 12;
        let flipped = if rest.as_bytes()[at] == b'A' { "B" } else { "A" };
        let broken = format!("{kind} {}{flipped}{}", &rest[..at], &rest[at + 1..]);
        assert!(own.take(&broken, "lse_1", 7).is_err(), "a signature that was changed");
    }

    #[test]
    fn a_key_pair_can_be_written_and_read_and_is_not_printed() {
        let own = HolderCredential::make().unwrap();
        let text = own.private_key().unwrap();
        assert_eq!(HolderCredential::read(&text).unwrap(), own);
        assert_ne!(HolderCredential::make().unwrap(), own);
        assert!(format!("{own:?}").contains("SHA256:") && !format!("{own:?}").contains("PRIVATE"), "{own:?}");
        assert!(own.public_key().unwrap().starts_with("ssh-ed25519 AAAA"));
    }
}
