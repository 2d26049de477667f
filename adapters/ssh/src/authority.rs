//! The authority of a pool: its settings, and its signature.

use crate::key;
use russh::keys::agent::client::AgentClient;
use russh::keys::signature::{self, Signer};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Signature, SigningKey};
use russh::keys::{Algorithm, Certificate, EcdsaCurve, PrivateKey, PublicKey};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Handle;

/// The part of a user's name that stands for the number of the slot.
pub(crate) const SLOT: &str = "{slot}";

/// Maximum time that an agent may take for a signature. A person may have to touch a token.
const AGENT_LIMIT: Duration = Duration::from_secs(4);

/// `[pool.ssh.ca]`: holders log in with certificates of their leases.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// File of the private key that signs (OpenSSH format, no passphrase). Read for each certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Socket of an ssh-agent that signs, in place of `key`.
    #[serde(default)]
    pub agent: Option<PathBuf>,
    /// The public key that the agent signs with.
    #[serde(default)]
    pub public_key: Option<String>,
    /// Public keys of further authorities that the hosts trust, while one takes the place of another.
    #[serde(default)]
    pub trusted: Vec<String>,
    /// User on the hosts that holders log in as. With `{slot}` at its end each slot has a user of its own.
    #[serde(default = "default_user")]
    pub user: String,
    /// Directory on the hosts with the home of each slot's user. A home is made anew for each lease.
    #[serde(default = "default_homes")]
    pub homes: String,
    /// Maximum life of a certificate, in milliseconds.
    #[serde(default = "default_cert_max_ms")]
    pub cert_max_ms: u64,
    /// Time after the grant of a lease at which its host lets it in no longer, in milliseconds: for hosts that the broker loses.
    #[serde(default = "default_lease_max_ms")]
    pub lease_max_ms: u64,
    /// Abilities of sessions beside running commands.
    #[serde(default)]
    pub permit: Vec<Permit>,
    /// Types of the keys that get certificates.
    #[serde(default = "default_key_types")]
    pub key_types: Vec<KeyType>,
}

/// An ability of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permit {
    /// A terminal.
    Pty,
    /// Forwarded ports.
    PortForwarding,
    /// A forwarded agent. Root of the host can use it.
    AgentForwarding,
}

impl Permit {
    /// The word of authorized_keys and of principals files.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Permit::Pty => "pty",
            Permit::PortForwarding => "port-forwarding",
            Permit::AgentForwarding => "agent-forwarding",
        }
    }

    /// The name of the extension of certificates.
    fn extension(self) -> String {
        format!("permit-{}", self.option())
    }
}

/// Type of a holder's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum KeyType {
    /// EdDSA on Ed25519.
    #[serde(rename = "ssh-ed25519")]
    Ed25519,
    /// ECDSA on NIST P-256.
    #[serde(rename = "ecdsa-sha2-nistp256")]
    EcdsaP256,
    /// ed25519 in a hardware token.
    #[serde(rename = "sk-ssh-ed25519@openssh.com")]
    SkEd25519,
}

impl KeyType {
    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            KeyType::Ed25519 => Algorithm::Ed25519,
            KeyType::EcdsaP256 => Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            KeyType::SkEd25519 => Algorithm::SkEd25519,
        }
    }
}

fn default_user() -> String {
    format!("wfslot{SLOT}")
}

fn default_homes() -> String {
    "/var/lib/wharfinger/slots".into()
}

fn default_cert_max_ms() -> u64 {
    3_600_000
}

fn default_lease_max_ms() -> u64 {
    7 * 24 * 3_600_000
}

fn default_key_types() -> Vec<KeyType> {
    vec![KeyType::Ed25519]
}

impl Authority {
    /// An authority of which no more is known than the user. It signs nothing.
    pub(crate) fn known_by(user: String) -> Self {
        Self {
            key: None,
            agent: None,
            public_key: None,
            trusted: Vec::new(),
            user,
            homes: default_homes(),
            cert_max_ms: default_cert_max_ms(),
            lease_max_ms: default_lease_max_ms(),
            permit: Vec::new(),
            key_types: default_key_types(),
        }
    }

    /// Whether each slot has a user of its own.
    pub(crate) fn has_slot_users(&self) -> bool {
        self.user.ends_with(SLOT)
    }

    /// The user of a slot.
    pub(crate) fn user_of(&self, slot: u32) -> String {
        self.user.replace(SLOT, &slot.to_string())
    }

    /// The user that trials of the set-up log in as. It never serves a lease where slots have users of their own.
    pub(crate) fn canary(&self) -> String {
        self.user.replace(SLOT, "x")
    }

    /// Whether this is the user of a slot.
    pub(crate) fn is_slot_user(&self, name: &str) -> bool {
        let number = self.user.strip_suffix(SLOT).and_then(|prefix| name.strip_prefix(prefix));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// The options of a lease's principal beside `restrict`: `,pty`.
    pub(crate) fn options(&self) -> String {
        let mut permits = self.permit.clone();
        permits.sort_unstable();
        permits.dedup();
        permits.iter().map(|permit| format!(",{}", permit.option())).collect()
    }

    /// The public keys that the hosts have to trust, that of this authority first, each as one line without a comment.
    ///
    /// # Errors
    /// In words, if the authority's own key cannot be read.
    pub(crate) fn trusted_keys(&self) -> Result<Vec<String>, String> {
        let line = |key: &PublicKey| PublicKey::from(key.key_data().clone()).to_openssh().map_err(|e| e.to_string());
        let mut lines = vec![line(&self.public()?)?];
        for text in &self.trusted {
            lines.push(line(&key::parse_host_key(text).map_err(|fault| fault.to_string())?)?);
        }
        lines.dedup();
        Ok(lines)
    }

    /// The authority's own public key. It may read a file.
    pub(crate) fn public(&self) -> Result<PublicKey, String> {
        match (&self.key, &self.public_key) {
            (Some(path), _) => Ok(read_signing(path)?.public_key().clone()),
            (None, Some(text)) => key::parse_host_key(text).map_err(|fault| fault.to_string()),
            (None, None) => Err("the authority has no key".into()),
        }
    }

    /// Signs a certificate. It blocks: on a file, or on the agent.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn sign(&self, wanted: &Wanted<'_>, runtime: &Handle) -> Result<Certificate, String> {
        match (&self.key, &self.agent) {
            (Some(path), _) => wanted.signed_by(&read_signing(path)?),
            (None, Some(socket)) => {
                let key = AgentKey { socket, public: self.public()?, runtime };
                wanted.signed_by(&key)
            }
            (None, None) => Err("the authority has no key".into()),
        }
    }
}

fn read_signing(path: &Path) -> Result<PrivateKey, String> {
    if let Some(problem) = crate::key_file::key_file_problem(path) {
        return Err(format!("{}; {}", problem.message, problem.remedy));
    }
    key::read_private(path).map_err(|fault| fault.to_string())
}

/// The content of a certificate.
pub(crate) struct Wanted<'a> {
    pub(crate) key: &'a PublicKey,
    pub(crate) serial: u64,
    pub(crate) key_id: String,
    /// Empty: none, which OpenSSH takes for any user where no file of principals is asked.
    pub(crate) principals: &'a [&'a str],
    pub(crate) valid_after: u64,
    pub(crate) valid_before: u64,
    pub(crate) permit: &'a [Permit],
}

impl Wanted<'_> {
    pub(crate) fn signed_by(&self, key: &impl SigningKey) -> Result<Certificate, String> {
        self.build().and_then(|builder| builder.sign(key)).map_err(|error| format!("it was not signed: {error}"))
    }

    fn build(&self) -> Result<Builder, russh::keys::ssh_key::Error> {
        let mut rng = russh::keys::key::safe_rng();
        let data = self.key.key_data().clone();
        let mut builder = Builder::new_with_random_nonce(&mut rng, data, self.valid_after, self.valid_before)?;
        builder.serial(self.serial)?.key_id(self.key_id.as_str())?.cert_type(CertType::User)?;
        if self.principals.is_empty() {
            builder.all_principals_valid()?;
        }
        for principal in self.principals {
            builder.valid_principal(*principal)?;
        }
        let mut permit = self.permit.to_vec();
        permit.sort_unstable();
        permit.dedup();
        // Certificates list their extensions in the order of the names.
        permit.sort_unstable_by_key(|permit| permit.extension());
        for permit in permit {
            builder.extension(permit.extension(), "")?;
        }
        Ok(builder)
    }
}

/// A key that an ssh-agent holds.
struct AgentKey<'a> {
    socket: &'a Path,
    public: PublicKey,
    runtime: &'a Handle,
}

impl From<&AgentKey<'_>> for KeyData {
    fn from(key: &AgentKey<'_>) -> Self {
        key.public.key_data().clone()
    }
}

impl Signer<Signature> for AgentKey<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        let asked = async {
            let mut agent = AgentClient::connect_uds(self.socket).await?;
            agent.sign_request_signature(&self.public, None, message).await
        };
        let answer = self.runtime.block_on(async { tokio::time::timeout(AGENT_LIMIT, asked).await });
        match answer {
            Ok(Ok(signature)) => Ok(signature),
            Ok(Err(error)) => {
                tracing::warn!(socket = %self.socket.display(), %error, "the agent does not sign");
                Err(signature::Error::new())
            }
            Err(_) => {
                tracing::warn!(socket = %self.socket.display(), "the agent does not answer within {AGENT_LIMIT:?}");
                Err(signature::Error::new())
            }
        }
    }
}
