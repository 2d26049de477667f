//! Credentials that a holder logs in with.
//!
//! A source reads them each time that an answer carries them. No part of the broker stores, logs or prints them.

use crate::{Access, Failure, access};
use async_trait::async_trait;
use std::fmt;

/// The credentials of a lease, by their keys of [`access`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(Access);

impl Credentials {
    /// A private key in OpenSSH format.
    pub fn private_key(text: String) -> Self {
        Self([(access::PRIVATE_KEY.to_string(), text)].into())
    }

    /// Gives them out, to be put into an answer.
    pub fn into_access(self) -> Access {
        self.0
    }
}

/// Prints the keys, never the values.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Source of the credentials of one pool's leases.
#[async_trait]
pub trait CredentialSource: Send + Sync + 'static {
    /// Reads the credentials as they are now.
    ///
    /// # Errors
    /// Blames the configuration if the operator has to act. The message is for the log: it may name files.
    async fn read(&self) -> Result<Credentials, Failure>;
}
