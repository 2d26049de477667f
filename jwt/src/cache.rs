//! Tokens that were verified, by their SHA-256. Two halves: what is not asked for while the newer half fills is forgotten with
//! the older one.

use crate::issuer::Verified;
use std::collections::HashMap;
use std::sync::Arc;

/// Maximum number of tokens in one half.
const HALF: usize = 2048;

/// A token that was verified with a certain state of its issuer's keys.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) verified: Arc<Verified>,
    /// The index of the issuer.
    pub(crate) issuer: usize,
    /// The generation of the keys. With others the token is verified anew.
    pub(crate) generation: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    newer: HashMap<[u8; 32], Entry>,
    older: HashMap<[u8; 32], Entry>,
}

impl Cache {
    /// The entry of this token.
    pub(crate) fn get(&mut self, digest: &[u8; 32]) -> Option<Entry> {
        if let Some(found) = self.newer.get(digest) {
            return Some(found.clone());
        }
        let found = self.older.remove(digest)?;
        self.insert(*digest, found.clone());
        Some(found)
    }

    /// Stores a token.
    pub(crate) fn insert(&mut self, digest: [u8; 32], entry: Entry) {
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(digest, entry);
    }

    /// Forgets a token.
    pub(crate) fn remove(&mut self, digest: &[u8; 32]) {
        self.newer.remove(digest);
        self.older.remove(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attributes;
    use crate::key::{Key, Material};
    use std::time::UNIX_EPOCH;

    fn entry() -> Entry {
        let verified = Verified {
            issuer: "x".into(),
            attributes: Arc::new(Attributes::default()),
            expires: UNIX_EPOCH,
            bound: None,
            digest: [0; 32],
            key: Arc::new(Key { algorithm: None, material: Material::Ed25519(Vec::new()) }),
            granted: Err(crate::JwtError::UnknownIssuer),
        };
        Entry { verified: Arc::new(verified), issuer: 0, generation: 1 }
    }

    fn digest(number: usize) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[test]
    fn a_token_in_use_stays_and_the_number_is_bounded() {
        let mut cache = Cache::default();
        for number in 0..20 * HALF {
            cache.insert(digest(number + 1), entry());
            cache.insert(digest(0), entry());
            assert!(cache.get(&digest(0)).is_some(), "{number}");
        }
        assert!(cache.newer.len() <= HALF + 1 && cache.older.len() <= HALF + 1);
        assert!(cache.get(&digest(1)).is_none(), "what nobody asks for is forgotten");
        cache.remove(&digest(0));
        assert!(cache.get(&digest(0)).is_none());
    }
}
