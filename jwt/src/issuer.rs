//! The rules of one issuer, and what they make of a token.

use crate::claims::{self, Registered};
use crate::compact::Compact;
use crate::fetch::Fetch as _;
use crate::header::Header;
use crate::key::{Key, KeySet};
use crate::url::HttpsUrl;
use crate::value::{Attributes, Value};
use crate::{Algorithm, Condition, JwtError, LEEWAY, Preset, Template};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Maximum length of a principal in bytes.
const MAX_PRINCIPAL: usize = 256;
/// Maximum length of all named claims as one text, in bytes. Servers forward them in a header.
const MAX_ATTRIBUTES: usize = 3000;

/// The place of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The URL that the issuer's `/.well-known/openid-configuration` names. It has the host of the issuer, or one of these.
    Discover {
        /// Further hosts that may have the keys.
        hosts: Vec<String>,
    },
    /// This URL.
    Url(HttpsUrl),
    /// This file. It is read again as often as a URL is fetched.
    File(PathBuf),
}

/// The rules of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerSettings {
    /// The name, which principals begin with.
    pub name: Arc<str>,
    /// The `iss` of its tokens, byte for byte.
    pub issuer: Arc<str>,
    /// The `aud` of its tokens, byte for byte.
    pub audience: Arc<str>,
    /// A token may have other audiences beside ours.
    pub other_audiences: bool,
    /// The algorithms that it signs with.
    pub algorithms: Vec<Algorithm>,
    /// Values of `typ` that are allowed beside the usual ones.
    pub types: Vec<String>,
    /// Maximum time from `iat` to `exp`.
    pub max_lifetime: Duration,
    /// The place of its keys.
    pub keys: Keys,
    /// The file of the authorities that sign the certificate of its server. `None`: those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Time for which keys are used that cannot be fetched again.
    pub stale_for: Duration,
    /// The template of principals.
    pub principal: Template,
    /// Conditions that all hold.
    pub require: Vec<Condition>,
    /// Conditions of which none may hold.
    pub refuse: Vec<Condition>,
    /// The grants. The roles of all that hold add up.
    pub grants: Vec<Grant>,
    /// The product, whose names of claims are known.
    pub preset: Option<Preset>,
}

/// Roles for callers whose claims hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Conditions that all hold.
    pub when: Vec<Condition>,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The names of the roles.
    pub roles: Vec<Arc<str>>,
}

/// The tenant and the roles of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The principal: `jwt:NAME/…`.
    pub principal: Arc<str>,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The names of the roles, sorted.
    pub roles: Arc<[Arc<str>]>,
}

/// A token that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The name of the issuer.
    pub issuer: Arc<str>,
    /// The claims that the issuer's settings name.
    pub attributes: Arc<Attributes>,
    /// The token is worth nothing from then on: its `exp`, and the leeway of clocks.
    pub expires: SystemTime,
    /// SHA-256 of the client's certificate that it is bound to.
    pub bound: Option<[u8; 32]>,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
    /// The key by which it was verified.
    pub key: Arc<Key>,
    /// The principal, the tenant and the roles by the settings that verified it.
    pub granted: Result<Granted, JwtError>,
}

impl IssuerSettings {
    /// The claims that these settings name, each once.
    pub fn claims(&self) -> BTreeSet<&str> {
        let conditions =
            self.require.iter().chain(&self.refuse).chain(self.grants.iter().flat_map(|grant| &grant.when));
        conditions.map(|condition| &*condition.claim).chain(self.principal.claims()).chain(["sub"]).collect()
    }

    /// Verifies a token of this issuer with these keys. `now`: the present time.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn verify_with(&self, text: &str, keys: &KeySet, now: SystemTime) -> Result<Verified, JwtError> {
        let token = Compact::parse(text)?;
        let header = Header::parse(&token.header)?;
        let members = claims::parse(&token.claims)?;
        if claims::issuer(&members)? != &*self.issuer {
            return Err(JwtError::UnknownIssuer);
        }
        self.verify(&token, &header, &members, keys, Sha256::digest(text.as_bytes()).into(), now)
    }

    /// Verifies a token whose `iss` is that of this issuer.
    pub(crate) fn verify(
        &self,
        token: &Compact<'_>,
        header: &Header,
        members: &claims::Members,
        keys: &KeySet,
        digest: [u8; 32],
        now: SystemTime,
    ) -> Result<Verified, JwtError> {
        if !self.algorithms.contains(&header.algorithm) {
            return Err(JwtError::Signature(self.name.clone()));
        }
        if header.typ.as_ref().is_some_and(|typ| !self.types.contains(typ)) {
            return Err(JwtError::Malformed("has a `typ` that the configuration does not list"));
        }
        let key = keys.get(header.kid.as_deref()).ok_or_else(|| JwtError::UnknownKey(self.name.clone()))?;
        key.check(header.algorithm, token.signed, &token.signature, &self.name)?;
        let registered = Registered::of(members)?;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        registered.check(i64::try_from(seconds).unwrap_or(i64::MAX), self.max_lifetime)?;
        let ours = registered.audiences.iter().filter(|audience| **audience == *self.audience).count();
        if ours == 0 || !(self.other_audiences || registered.audiences.len() == 1) {
            return Err(JwtError::Audience(self.audience.clone()));
        }
        let mut values = BTreeMap::new();
        for name in self.claims() {
            let claim = self.preset.and_then(|preset| preset.claim_of(name)).unwrap_or(name);
            values.insert(Arc::from(name), claims::find(members, claim)?);
        }
        let attributes = Attributes::new(values);
        if attributes.encode().len() > MAX_ATTRIBUTES {
            return Err(JwtError::Malformed(
                "has claims that are longer than 3000 bytes, among those that the configuration names",
            ));
        }
        let expires = UNIX_EPOCH + Duration::from_secs(registered.expires.unsigned_abs()) + LEEWAY;
        let granted = self.judge(&attributes);
        Ok(Verified {
            issuer: self.name.clone(),
            attributes: Arc::new(attributes),
            expires,
            bound: registered.bound,
            digest,
            key: Arc::new(key.clone()),
            granted,
        })
    }

    /// Fetches the keys once, for a look at the settings. At most five seconds.
    ///
    /// # Errors
    /// The reason why they cannot be fetched.
    pub async fn fetch_keys(&self) -> Result<KeySet, String> {
        self.fetch().await.map(|fetched| fetched.keys).map_err(|error| error.to_string())
    }

    /// The principal, the tenant and the roles of a caller with these claims.
    ///
    /// # Errors
    /// [`JwtError::NoGrant`], [`JwtError::TenantAmbiguous`].
    pub fn judge(&self, attributes: &Attributes) -> Result<Granted, JwtError> {
        let none = |detail: String| JwtError::NoGrant { issuer: self.name.clone(), detail };
        if let Some(unknown) = self.claims().into_iter().find(|claim| attributes.get(claim).is_none()) {
            return Err(none(format!("the server that forwarded the call does not know of the claim {unknown:?}")));
        }
        if let Some(other) = self.require.iter().find(|condition| !condition.holds(attributes)) {
            return Err(none(format!("the claim {:?} is not one that `require` has", other.claim)));
        }
        if let Some(hit) = self.refuse.iter().find(|condition| condition.refuses(attributes)) {
            return Err(none(format!("the claim {:?} is one that `refuse` has", hit.claim)));
        }
        let principal = self.principal.expand(attributes).map_err(|claim| {
            let what = match attributes.get(&claim) {
                Some(Value::Absent) | None => "is absent",
                Some(Value::One(_) | Value::List(_) | Value::Other) => "is neither a text nor a whole number",
            };
            none(format!("the claim {claim:?}, of which the principal is made, {what}"))
        })?;
        let principal = format!("jwt:{}/{principal}", self.name);
        if principal.len() > MAX_PRINCIPAL {
            return Err(none(format!("the principal is longer than {MAX_PRINCIPAL} bytes")));
        }
        let holding: Vec<&Grant> =
            self.grants.iter().filter(|grant| grant.when.iter().all(|one| one.holds(attributes))).collect();
        let tenants: BTreeSet<&Arc<str>> = holding.iter().map(|grant| &grant.tenant).collect();
        let mut tenants = tenants.into_iter();
        let tenant = tenants.next().ok_or_else(|| none("no `when` holds".into()))?;
        if let Some(second) = tenants.next() {
            let all = [tenant, second].into_iter().chain(tenants).cloned().collect();
            return Err(JwtError::TenantAmbiguous { issuer: self.name.clone(), tenants: all });
        }
        let roles: BTreeSet<Arc<str>> = holding.iter().flat_map(|grant| grant.roles.iter().cloned()).collect();
        Ok(Granted { principal: principal.into(), tenant: tenant.clone(), roles: roles.into_iter().collect() })
    }
}
