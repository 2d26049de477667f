//! The private key that a pool hands out to its holders.

use crate::config::Config;
use crate::key;
use async_trait::async_trait;
use russh::keys::PrivateKey;
use std::path::PathBuf;
use wharfinger_adapter::{CredentialSource, Credentials, Failure};

/// The file that `holder_key` names. It is read each time, so a new key needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderKey {
    path: PathBuf,
}

impl HolderKey {
    /// The holder key of a pool. `None`: the pool hands none out.
    pub fn of(config: &Config) -> Option<Self> {
        config.holder_key.clone().map(|path| Self { path })
    }
}

impl HolderKey {
    /// Reads the file. Returns the key, and its text.
    async fn load(&self) -> Result<(PrivateKey, String), Failure> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{error}; give a file that the broker may read"))?;
            Ok((key::parse_private(&text).map_err(|fault| fault.to_string())?, text))
        });
        let read: Result<_, String> = read.await.map_err(|error| error.to_string()).flatten();
        read.map_err(|why| Failure::configuration("HOLDER_KEY_UNUSABLE", format!("holder_key {:?}: {why}", self.path)))
    }

    /// Reads the key.
    pub(crate) async fn key(&self) -> Result<PrivateKey, Failure> {
        Ok(self.load().await?.0)
    }
}

#[async_trait]
impl CredentialSource for HolderKey {
    async fn read(&self) -> Result<Credentials, Failure> {
        Ok(Credentials::private_key(self.load().await?.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfinger_adapter::Blame;

    #[tokio::test]
    async fn a_key_file_that_cannot_be_used_is_named_and_nothing_of_it_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("missing", None), ("damaged", Some("-----BEGIN OPENSSH PRIVATE KEY-----\nMARKED\n"))] {
            let path = folder.path().join(name);
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let failure = HolderKey { path: path.clone() }.read().await.unwrap_err();
            assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "HOLDER_KEY_UNUSABLE"));
            assert!(failure.message.contains(name) && !failure.message.contains("MARKED"), "{failure}");
        }
    }
}
