//! Logins of holders by certificates that the broker signs for one lease.
//!
//! A holder keeps its private key, and shows the public half. The pool of the lease's host signs a certificate over it. Nothing is
//! stored: the host's list of principals says which leases may log in, and it loses a lease before the lease's slot is cleaned.

use crate::{Access, Failure};
use async_trait::async_trait;

/// Value of [`crate::access::LOGIN`]: the holder logs in with a certificate.
pub const BY_CERTIFICATE: &str = "certificate";

/// A holder that wants to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginJob {
    /// The lease's id (`lse_…`), which becomes the principal.
    pub lease: String,
    /// The fencing token, which becomes the serial number.
    pub token: u64,
    /// Name of the pool of the host.
    pub pool: String,
    /// The tenant of the lease.
    pub tenant: String,
    /// The holder's public key: one line in OpenSSH format.
    pub public_key: String,
    /// The present time, in seconds since the Unix epoch.
    pub now: u64,
    /// The time at which the lease ends unless it is renewed, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// The access of the lease.
    pub access: Access,
}

/// A certificate for one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// One line in OpenSSH format.
    pub text: String,
    /// Its end, in seconds since the Unix epoch.
    pub valid_before: u64,
}

/// Signs the certificates of one pool's leases.
#[async_trait]
pub trait CertificateSource: Send + Sync + 'static {
    /// Signs a certificate for this holder.
    ///
    /// # Errors
    /// `KEY_REFUSED` (request) for a key that gets no certificate; `CA_UNUSABLE` (configuration) if the authority's key cannot be
    /// used. The message of the latter is for the log: it may name files.
    async fn certify(&self, job: &LoginJob) -> Result<Certificate, Failure>;
}

/// The logins of one lease on a child, as its host needs to know them.
#[derive(Clone, Debug)]
pub struct ChildLogins {
    /// The host.
    pub host: crate::ResourceJob,
    /// The lease and its token. The slot is one of the child.
    pub work: crate::HolderWork,
    /// The access of the lease: fence and path.
    pub access: Access,
}
