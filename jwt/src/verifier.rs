//! Tokens of several issuers.

use crate::JwtError;
use crate::cache::{Cache, Entry};
use crate::claims;
use crate::compact::Compact;
use crate::fetch::Fetch;
use crate::header::Header;
use crate::issuer::{Granted, IssuerSettings, Verified};
use crate::key::Key;
use crate::source::KeySource;
use crate::value::Attributes;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Verifies tokens of several issuers, and fetches their keys in the background.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<Issuer>,
    cache: Mutex<Cache>,
}

#[derive(Debug)]
struct Issuer {
    settings: Arc<IssuerSettings>,
    keys: Arc<KeySource>,
}

/// A token of which the form alone is known.
struct Read<'t> {
    token: Compact<'t>,
    header: Header,
    members: claims::Members,
    /// The index of the issuer.
    issuer: usize,
}

impl Verifier {
    /// Begins to fetch the keys of these issuers. Keys that `before` has of the same place are taken over, and fetched again.
    /// Must be called within a Tokio runtime if there is an issuer.
    pub fn new(issuers: Vec<IssuerSettings>, before: Option<&Verifier>) -> Self {
        let issuers = issuers.into_iter().map(|settings| {
            let settings = Arc::new(settings);
            let mut known = before.into_iter().flat_map(|before| &before.issuers);
            let known = known.find(|known| same_keys(&known.settings, &settings));
            let keys = known.map(|known| {
                known.keys.refresh();
                known.keys.clone()
            });
            let start = || {
                let from: Arc<dyn Fetch> = settings.clone();
                Arc::new(KeySource::start(settings.name.clone(), settings.stale_for, from))
            };
            Issuer { keys: keys.unwrap_or_else(start), settings }
        });
        Self { issuers: issuers.collect(), cache: Mutex::default() }
    }

    /// Verifies a token. `now`: the present time.
    ///
    /// # Errors
    /// [`JwtError`]; if it [wants keys](JwtError::wants_keys), another try after [`Verifier::look_for_keys`] may succeed.
    pub fn verify(&self, text: &str, now: SystemTime) -> Result<Arc<Verified>, JwtError> {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some(verified) = self.cached(&digest, now) {
            return Ok(verified);
        }
        let Read { token, header, members, issuer: index } = self.read(text)?;
        let Issuer { settings, keys } = &self.issuers[index];
        let (keys, generation) = keys
            .keys()
            .map_err(|retry_seconds| JwtError::KeysUnavailable { issuer: settings.name.clone(), retry_seconds })?;
        let verified = Arc::new(settings.verify(&token, &header, &members, &keys, digest, now)?);
        self.cache().insert(digest, Entry { verified: verified.clone(), issuer: index, generation });
        Ok(verified)
    }

    /// Whether this token was verified before, and still holds.
    pub fn has_verified(&self, text: &str, now: SystemTime) -> bool {
        self.cached(&Sha256::digest(text.as_bytes()).into(), now).is_some()
    }

    /// A token that was verified with the keys that the issuer has now. Another one is forgotten.
    fn cached(&self, digest: &[u8; 32], now: SystemTime) -> Option<Arc<Verified>> {
        let entry = self.cache().get(digest)?;
        let current = self.issuers[entry.issuer].keys.keys();
        if current.is_ok_and(|(_, generation)| generation == entry.generation) && now < entry.verified.expires {
            return Some(entry.verified);
        }
        self.cache().remove(digest);
        None
    }

    /// Waits for keys that a token wants, at most two seconds.
    pub async fn look_for_keys(&self, text: &str) {
        if let Ok(Read { header, issuer, .. }) = self.read(text) {
            self.issuers[issuer].keys.look_for(header.kid.as_deref()).await;
        }
    }

    /// The principal, the tenant and the roles of a caller with these claims of the issuer with this name. `None`: there is no
    /// such issuer.
    pub fn judge(&self, issuer: &str, attributes: &Attributes) -> Option<Result<Granted, JwtError>> {
        let found = self.issuers.iter().find(|known| *known.settings.name == *issuer)?;
        Some(found.settings.judge(attributes))
    }

    /// Waits until the issuer with this name no longer has the key by which a token was verified. For ever, if there is no such issuer.
    pub fn key_gone(&self, issuer: &str, key: Arc<Key>) -> impl Future<Output = ()> + Send + use<> {
        let found = self.issuers.iter().find(|known| *known.settings.name == *issuer);
        let gone = found.map(|found| found.keys.key_gone(key));
        async move {
            match gone {
                Some(gone) => gone.await,
                None => std::future::pending().await,
            }
        }
    }

    fn read<'t>(&self, text: &'t str) -> Result<Read<'t>, JwtError> {
        let token = Compact::parse(text)?;
        let header = Header::parse(&token.header)?;
        let members = claims::parse(&token.claims)?;
        let iss = claims::issuer(&members)?;
        let found = self.issuers.iter().position(|known| *known.settings.issuer == *iss);
        let issuer = found.ok_or(JwtError::UnknownIssuer)?;
        Ok(Read { token, header, members, issuer })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether both have their keys from one place, under the same rules.
fn same_keys(one: &IssuerSettings, other: &IssuerSettings) -> bool {
    one.name == other.name
        && one.issuer == other.issuer
        && one.keys == other.keys
        && one.ca_file == other.ca_file
        && one.stale_for == other.stale_for
}
