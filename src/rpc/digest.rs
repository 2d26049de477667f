//! The digest of the configuration that a server uses.

use std::sync::{Arc, PoisonError, RwLock};

/// The digest of the configuration that a server uses. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct ConfigurationDigest(Arc<RwLock<Arc<str>>>);

impl ConfigurationDigest {
    /// Sets it.
    pub fn set(&self, digest: &str) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::from(digest);
    }

    pub(crate) fn get(&self) -> String {
        self.0.read().unwrap_or_else(PoisonError::into_inner).to_string()
    }
}
