//! The callers that this server knows.

use super::jwt;
use super::proxy::{self, ProxyGrant};
use super::token::{StaticToken, TokenError, id_of};
use super::unix::{self, UnixGrant, UnixPeer};
use super::{BuiltIn, Identity, Passed, Proof, RoleTable, Roles};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;
use tonic::codegen::http::HeaderMap;
use wharfinger_core::{Caller, Program};
use wharfinger_jwt::{IssuerSettings, JwtError, MAX_TOKEN, Verifier};
use wharfinger_tls::Leaf;
use wharfinger_tls::spiffe::{Pattern, Uri};

/// Metadata of a call with the caller's token.
const AUTHORIZATION: &str = "authorization";
/// The same for bytes, in which no token may come.
const AUTHORIZATION_BIN: &str = "authorization-bin";
/// Maximum length of the header in bytes.
const MAX_HEADER: usize = MAX_TOKEN + "Bearer ".len();

/// The callers that a server knows. Cheap to clone; the clones share what they know.
#[derive(Clone, Debug)]
pub struct Trust(Arc<watch::Sender<Arc<Known>>>);

impl Default for Trust {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(Known::Everyone))))
    }
}

/// The callers of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    /// Callers with a token.
    pub tokens: Vec<StaticToken>,
    /// Callers with a certificate. The first that has the name counts.
    pub certificates: Vec<CertificateGrant>,
    /// Callers by the Unix socket. The first that has the user or its group counts.
    pub unix: Vec<UnixGrant>,
    /// People whom a proxy before the operator's page names. The first that has the name counts.
    pub proxied: Vec<ProxyGrant>,
    /// Callers with a token of one of these issuers.
    pub issuers: Vec<IssuerSettings>,
    /// The roles that grants of issuers name.
    pub table: RoleTable,
}

/// The tenant and the roles of callers whose certificates have certain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateGrant {
    /// The names.
    pub uri: Pattern,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The roles.
    pub roles: Roles,
}

/// One caller of a configuration, or several with names of one kind.
#[derive(Clone, Debug)]
pub struct Grant<'c> {
    /// The principal, or the pattern of several.
    pub caller: String,
    /// The tenant.
    pub tenant: &'c str,
    /// The roles.
    pub roles: Roles,
}

impl Callers {
    /// All callers, with their roles.
    pub fn each(&self) -> Vec<Grant<'_>> {
        let token = |token: &'_ StaticToken| principal_of(&token.id).to_string();
        let tokens =
            self.tokens.iter().map(|one| Grant { caller: token(one), tenant: &one.tenant, roles: one.roles.clone() });
        let uri = |one: &'_ CertificateGrant| match &one.uri {
            Pattern::Exact(uri) => named(uri.as_str()).to_string(),
            Pattern::Prefix(start) => format!("{}*", named(start)),
        };
        let certificates = self.certificates.iter().map(|one| Grant {
            caller: uri(one),
            tenant: &one.tenant,
            roles: one.roles.clone(),
        });
        let users = self.unix.iter().map(|one| Grant {
            caller: one.name.to_string(),
            tenant: &one.tenant,
            roles: one.roles.clone(),
        });
        let people = self.proxied.iter().map(|one| Grant {
            caller: proxy::principal(&one.user).to_string(),
            tenant: &one.tenant,
            roles: one.roles.clone(),
        });
        let jobs = self.issuers.iter().flat_map(|issuer| {
            issuer.grants.iter().map(|grant| Grant {
                caller: format!("jwt:{}/*", issuer.name),
                tenant: &grant.tenant,
                roles: jwt::roles(&self.table, &grant.roles),
            })
        });
        tokens.chain(certificates).chain(users).chain(people).chain(jobs).collect()
    }
}

impl From<Vec<StaticToken>> for Callers {
    fn from(tokens: Vec<StaticToken>) -> Self {
        Self { tokens, ..Self::default() }
    }
}

/// The connection that a call came by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// The address of the other end.
    pub(crate) address: Option<SocketAddr>,
    /// Whether nothing between reads along.
    pub(crate) tls: bool,
    /// The client's certificate.
    pub(crate) leaf: Option<Arc<Leaf>>,
    /// The process at the other end of the Unix socket.
    pub(crate) unix: Option<UnixPeer>,
    /// The person whom the proxy at the other end names. The port has seen that it is the proxy.
    pub(crate) proxied: Option<Arc<str>>,
}

impl Origin {
    /// The address or the process at the other end.
    pub(crate) fn shown(&self) -> Option<Arc<str>> {
        self.unix.map(|user| user.shown()).or_else(|| self.address.map(|address| address.to_string().into()))
    }

    /// The proof by the connection itself.
    pub(crate) fn proof(&self) -> Option<String> {
        let certificate = self.leaf.as_ref().map(|leaf| shown_by(leaf.uri.as_str(), &leaf.serial));
        certificate.or_else(|| self.unix.map(|user| user.proof())).map(|proof| proof.text())
    }
}

impl From<Option<SocketAddr>> for Origin {
    fn from(address: Option<SocketAddr>) -> Self {
        Self { address, ..Self::default() }
    }
}

#[derive(Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "a process has one")]
enum Known {
    /// No callers are configured: there is one tenant, and everyone who reaches the port is an administrator of it.
    #[default]
    Everyone,
    /// Callers with a token of their own, by its id, callers with a certificate, users of this machine, and callers with a token of an
    /// issuer. All others are unknown, those on this machine too.
    Listed {
        tokens: BTreeMap<Arc<str>, StaticToken>,
        certificates: Vec<CertificateGrant>,
        unix: Vec<UnixGrant>,
        proxied: Vec<ProxyGrant>,
        issuers: Verifier,
        table: RoleTable,
    },
}

/// Why a call has no identity. None says which ids exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The call brings no proof, and needs one.
    NoCredentials,
    /// The header has another form, or comes twice.
    Malformed,
    /// The token is not known: its id, or its secret.
    Unknown,
    /// The token has expired.
    Expired,
    /// The caller of a call that goes on is not known any more, or is of another tenant.
    Revoked,
    /// The roles of the caller of a call that goes on allow it no longer, or only a part of it.
    NoLongerAllowed,
    /// A token came over a connection that others can read.
    Exposed,
    /// A token of an issuer gives no identity.
    Jwt(JwtError),
    /// The token of an issuer has ended, by which a call that goes on was made.
    Ended,
}

impl From<JwtError> for AuthError {
    fn from(error: JwtError) -> Self {
        AuthError::Jwt(error)
    }
}

impl AuthError {
    /// Whether the proof is wrong, and not only too old, too early or without a grant: one that tries proofs gets this.
    pub(crate) fn is_wrong_proof(&self) -> bool {
        match self {
            AuthError::Malformed | AuthError::Unknown => true,
            AuthError::Jwt(error) => match error {
                JwtError::Malformed(_)
                | JwtError::UnknownIssuer
                | JwtError::UnknownKey(_)
                | JwtError::Signature(_)
                | JwtError::Bound => true,
                JwtError::Audience(_)
                | JwtError::Expired
                | JwtError::NotYetValid
                | JwtError::Lifetime
                | JwtError::NoGrant { .. }
                | JwtError::TenantAmbiguous { .. }
                | JwtError::KeysUnavailable { .. } => false,
            },
            AuthError::NoCredentials
            | AuthError::Expired
            | AuthError::Revoked
            | AuthError::NoLongerAllowed
            | AuthError::Exposed
            | AuthError::Ended => false,
        }
    }

    /// Whether another look at the keys of an issuer may help.
    pub(crate) fn wants_keys(&self) -> bool {
        matches!(self, AuthError::Jwt(error) if error.wants_keys())
    }
}

impl Trust {
    /// Trusts everyone who reaches the port, as one tenant.
    pub fn everyone() -> Self {
        Self::default()
    }

    /// Knows the bearers of these tokens, and no one else.
    ///
    /// # Errors
    /// [`TokenError`] of the first that is wrong.
    pub fn tokens(tokens: impl IntoIterator<Item = StaticToken>) -> Result<Self, TokenError> {
        let trust = Self::everyone();
        trust.set(Some(tokens.into_iter().collect::<Vec<_>>().into()))?;
        Ok(trust)
    }

    /// Knows these callers from now on, or trusts everyone. Calls that go on end if their caller is not known any
    /// more, or if its roles do not allow them any more.
    ///
    /// # Errors
    /// [`TokenError`] of the first that is wrong: nothing changes.
    pub fn set(&self, callers: Option<Callers>) -> Result<(), TokenError> {
        let known = match callers {
            None => Known::Everyone,
            Some(Callers { tokens, certificates, unix, proxied, issuers, table }) => {
                let mut known = BTreeMap::new();
                for token in tokens {
                    token.check()?;
                    if let Some(twice) = known.insert(token.id.clone(), token) {
                        return Err(TokenError::Twice(twice.id.to_string()));
                    }
                }
                // Keys that are known stay.
                let before = self.known();
                let before = match &*before {
                    Known::Listed { issuers, .. } => Some(issuers),
                    Known::Everyone => None,
                };
                let issuers = Verifier::new(issuers, before);
                Known::Listed { tokens: known, certificates, unix, proxied, issuers, table }
            }
        };
        self.0.send_replace(Arc::new(known));
        Ok(())
    }

    fn known(&self) -> Arc<Known> {
        self.0.borrow().clone()
    }

    /// Whether each call needs a proof.
    pub fn asks(&self) -> bool {
        matches!(*self.known(), Known::Listed { .. })
    }

    /// Waits until a caller is not known any more, or until its roles no longer allow a call that goes on.
    pub(crate) async fn ended(&self, identity: &Identity, allowed: impl Fn(&Roles) -> bool) -> AuthError {
        let mut news = self.0.subscribe();
        loop {
            // The roles now, and until when.
            let callers = news.borrow_and_update().clone();
            let known: Option<(Roles, Option<SystemTime>)> = match (&*callers, &identity.proof) {
                (Known::Listed { tokens, .. }, Proof::Token { id, sha256 }) => tokens
                    .get(id)
                    .filter(|token| token.tenant == identity.tenant)
                    .filter(|token| sha256.is_none_or(|hash| token.sha256.contains(&hash)))
                    .map(|token| (token.roles.clone(), token.expires.into_iter().chain(identity.expires).min())),
                (Known::Listed { certificates, .. }, Proof::Certificate { uri, .. }) => grant(certificates, uri)
                    .filter(|grant| grant.tenant == identity.tenant)
                    .map(|grant| (grant.roles.clone(), identity.expires)),
                (Known::Listed { unix, .. }, Proof::Unix { uid, gid }) => unix::grant(unix, *uid, *gid)
                    .filter(|grant| grant.tenant == identity.tenant)
                    .map(|grant| (grant.roles.clone(), identity.expires)),
                (Known::Listed { proxied, .. }, Proof::Proxy { user }) => proxy::grant(proxied, user)
                    .filter(|grant| grant.tenant == identity.tenant)
                    .map(|grant| (grant.roles.clone(), identity.expires)),
                (Known::Listed { issuers, table, .. }, Proof::Jwt { issuer, claims, .. }) => {
                    jwt::roles_now(issuers, table, identity, issuer, claims).map(|roles| (roles, identity.expires))
                }
                // The connection of a certificate that was revoked is cut.
                (Known::Everyone, Proof::Local | Proof::None | Proof::Certificate { .. } | Proof::Unix { .. }) => {
                    Some((Roles::of(&[BuiltIn::Admin]), identity.expires))
                }
                (Known::Listed { .. }, Proof::Local | Proof::None)
                | (Known::Everyone, Proof::Token { .. } | Proof::Jwt { .. } | Proof::Proxy { .. }) => None,
            };
            let Some((roles, expires)) = known else { return AuthError::Revoked };
            if roles != identity.roles && !allowed(&roles) {
                return AuthError::NoLongerAllowed;
            }
            let left = expires.map(|at| at.duration_since(crate::clock::wall()).unwrap_or_default());
            let expiry = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            let key_gone = async {
                match (&*callers, &identity.proof) {
                    (Known::Listed { issuers, .. }, Proof::Jwt { issuer, key: Some(key), .. }) => {
                        issuers.key_gone(issuer, key.clone()).await;
                    }
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = key_gone => return AuthError::Revoked,
                () = expiry => return if matches!(identity.proof, Proof::Jwt { .. }) { AuthError::Ended } else { AuthError::Expired },
                changed = news.changed() => if changed.is_err() { std::future::pending::<()>().await },
            }
        }
    }

    /// The caller of a call that came by this connection with these headers.
    pub(crate) fn identify(&self, origin: impl Into<Origin>, headers: &HeaderMap) -> Result<Identity, AuthError> {
        let Origin { address: peer, tls, leaf, unix, proxied } = origin.into();
        let known = self.known();
        let (tokens, certificates, users, people, issuers, table) = match (&*known, &leaf) {
            (Known::Everyone, _) if let Some(user) = &unix => return Ok(user.sole()),
            (Known::Everyone, Some(leaf)) => {
                let uri = leaf.uri.as_str();
                let identity = sole(&named(uri), shown_by(uri, &leaf.serial), peer);
                return Ok(Identity { expires: Some(leaf.not_after), ..identity });
            }
            (Known::Everyone, None) if is_local(peer) => return Ok(sole(Identity::LOCAL, Proof::Local, peer)),
            (Known::Everyone, None) => return Ok(sole(Identity::ANONYMOUS, Proof::None, peer)),
            (Known::Listed { tokens, certificates, unix, proxied, issuers, table }, _) => {
                (tokens, certificates, unix, proxied, issuers, table)
            }
        };
        let shown = unix.map(|user| user.shown()).or_else(|| peer.map(|peer| peer.to_string().into()));
        // A token names its caller, whatever certificate the connection has. A bad token is not made good by one.
        let text = match (bearer(headers), &leaf) {
            // A proxy that has a certificate speaks for a person, and not for itself.
            (Err(AuthError::NoCredentials), _) if let Some(user) = &proxied => {
                let grant = proxy::grant(people, user).ok_or(AuthError::Unknown)?;
                return Ok(grant.identity(user, shown, None));
            }
            (Err(AuthError::NoCredentials), Some(leaf)) => {
                let grant = grant(certificates, leaf.uri.as_str()).ok_or(AuthError::Unknown)?;
                let proof = shown_by(leaf.uri.as_str(), &leaf.serial);
                return Ok(granted(grant, leaf.uri.as_str(), proof, Some(leaf.not_after), (shown, None)));
            }
            (Err(AuthError::NoCredentials), None) if let Some(UnixPeer { uid, gid, .. }) = unix => {
                let grant = unix::grant(users, uid, gid).ok_or(AuthError::NoCredentials)?;
                return Ok(grant.identity(uid, gid, shown, None));
            }
            (text, _) => text?,
        };
        if !(tls || unix.is_some() || is_local(peer)) {
            return Err(AuthError::Exposed);
        }
        if wharfinger_jwt::is_compact(text) {
            return jwt::bearer((issuers, table), text, leaf.as_deref(), shown);
        }
        let token = tokens.get(id_of(text).map_err(|_| AuthError::Malformed)?);
        let (token, hash) = token.and_then(|token| Some((token, token.hash_of(text)?))).ok_or(AuthError::Unknown)?;
        of(token, Some(hash), (shown, None))
    }

    /// The caller of a call that another server forwarded, and vouches for. Tenant and roles are derived anew.
    pub(crate) fn vouched(&self, passed: Passed, via: Option<SocketAddr>) -> Result<Identity, AuthError> {
        let via: Option<Arc<str>> = via.map(|via| via.to_string().into());
        if passed.expires.is_some_and(|expires| expires <= crate::clock::wall()) {
            return Err(AuthError::Expired);
        }
        match (&*self.known(), passed.proof.clone()) {
            (Known::Everyone, proof) if [Identity::LOCAL, Identity::ANONYMOUS].contains(&&*passed.principal) => {
                Ok(Identity { peer: passed.peer, via, ..sole(&passed.principal, proof, None) })
            }
            (Known::Everyone, proof @ Proof::Certificate { .. }) if is_of(&proof, &passed.principal) => {
                let identity = sole(&passed.principal, proof, None);
                Ok(Identity { peer: passed.peer, via, expires: passed.expires, ..identity })
            }
            (Known::Everyone, Proof::Unix { uid, gid }) if *passed.principal == *unix::principal(uid) => {
                let user = UnixPeer { uid, gid, pid: None };
                Ok(Identity { peer: passed.peer, via, ..user.sole() })
            }
            (Known::Listed { unix, .. }, Proof::Unix { uid, gid }) if *passed.principal == *unix::principal(uid) => {
                let grant = unix::grant(unix, uid, gid).ok_or(AuthError::NoCredentials)?;
                Ok(grant.identity(uid, gid, passed.peer, via))
            }
            (Known::Listed { proxied, .. }, Proof::Proxy { user }) if *passed.principal == *proxy::principal(&user) => {
                let grant = proxy::grant(proxied, &user).ok_or(AuthError::Unknown)?;
                Ok(grant.identity(&user, passed.peer, via))
            }
            (Known::Listed { tokens, .. }, Proof::Token { id, .. }) if *passed.principal == *principal_of(&id) => {
                of(tokens.get(&id).ok_or(AuthError::Unknown)?, None, (passed.peer, via))
            }
            (Known::Listed { certificates, .. }, Proof::Certificate { uri, serial })
                if *passed.principal == *named(&uri) =>
            {
                let grant = grant(certificates, &uri).ok_or(AuthError::Unknown)?;
                Ok(granted(grant, &uri, shown_by(&uri, &serial), passed.expires, (passed.peer, via)))
            }
            (Known::Listed { issuers, table, .. }, Proof::Jwt { issuer, claims, .. }) => {
                jwt::vouched((issuers, table), passed, &issuer, &claims, via)
            }
            (Known::Everyone | Known::Listed { .. }, _) => Err(AuthError::NoCredentials),
        }
    }

    /// Whether the proof of a call is checked without a signature: a token that is verified already, or a proof of another kind.
    pub(crate) fn is_cheap(&self, headers: &HeaderMap) -> bool {
        match (&*self.known(), bearer(headers)) {
            (Known::Listed { issuers, .. }, Ok(text)) if wharfinger_jwt::is_compact(text) => {
                issuers.has_verified(text, crate::clock::wall())
            }
            _ => true,
        }
    }

    /// Waits for keys that the token of a call wants, at most two seconds.
    pub(crate) async fn look_for_keys(&self, headers: &HeaderMap) {
        if let (Known::Listed { issuers, .. }, Ok(text)) = (&*self.known(), bearer(headers)) {
            issuers.look_for_keys(text).await;
        }
    }

    /// The caller of this principal, as the configuration knows it.
    pub(crate) fn principal(&self, principal: &str) -> Result<Identity, AuthError> {
        let proof = match principal {
            Identity::ANONYMOUS => Proof::None,
            _ => Proof::parse(principal).ok_or(AuthError::Malformed)?,
        };
        self.vouched(Passed { principal: Arc::from(principal), proof, expires: None, peer: None }, None)
    }

    /// The caller of a call that is marked as forwarded without a proof: never more than the connection itself shows.
    pub(crate) fn unvouched(&self, peer: Option<SocketAddr>, said: &str) -> Result<Identity, AuthError> {
        match &*self.known() {
            Known::Everyone if is_local(peer) && said == Identity::LOCAL => {
                Ok(sole(Identity::LOCAL, Proof::Local, peer))
            }
            Known::Everyone => Ok(sole(Identity::ANONYMOUS, Proof::None, peer)),
            Known::Listed { .. } => Err(AuthError::NoCredentials),
        }
    }
}

fn is_local(peer: Option<SocketAddr>) -> bool {
    peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

/// A caller of a server that knows no tenants.
fn sole(principal: &str, proof: Proof, peer: Option<SocketAddr>) -> Identity {
    Identity {
        tenant: Arc::from(Caller::DEFAULT_TENANT),
        principal: Arc::from(principal),
        roles: Roles::of(&[BuiltIn::Admin]),
        proof,
        expires: None,
        peer: peer.map(|peer| peer.to_string().into()),
        via: None,
        program: Program::Api,
        trace: None,
    }
}

/// The principal of a certificate's name.
fn named(uri: &str) -> Arc<str> {
    Arc::from(format!("x509:{uri}"))
}

/// The proof by a certificate.
fn shown_by(uri: &str, serial: &str) -> Proof {
    Proof::Certificate { uri: Arc::from(uri), serial: Arc::from(serial) }
}

/// Whether a proof by a certificate has the name of this principal.
fn is_of(proof: &Proof, principal: &str) -> bool {
    matches!(proof, Proof::Certificate { uri, .. } if *principal == *named(uri))
}

/// The first grant that has this name.
fn grant<'g>(grants: &'g [CertificateGrant], uri: &str) -> Option<&'g CertificateGrant> {
    let uri = Uri::parse(uri).ok()?;
    grants.iter().find(|grant| grant.uri.has(&uri))
}

fn granted(
    grant: &CertificateGrant,
    uri: &str,
    proof: Proof,
    expires: Option<SystemTime>,
    (peer, via): (Option<Arc<str>>, Option<Arc<str>>),
) -> Identity {
    Identity {
        tenant: grant.tenant.clone(),
        principal: named(uri),
        roles: grant.roles.clone(),
        proof,
        expires,
        peer,
        via,
        program: Program::Api,
        trace: None,
    }
}

/// No token can be named like a caller of another way.
fn principal_of(id: &str) -> Arc<str> {
    Arc::from(format!("token:{id}"))
}

fn of(
    token: &StaticToken,
    sha256: Option<[u8; 32]>,
    (peer, via): (Option<Arc<str>>, Option<Arc<str>>),
) -> Result<Identity, AuthError> {
    if token.expires.is_some_and(|expires| expires <= crate::clock::wall()) {
        return Err(AuthError::Expired);
    }
    Ok(Identity {
        tenant: token.tenant.clone(),
        principal: principal_of(&token.id),
        roles: token.roles.clone(),
        proof: Proof::Token { id: token.id.clone(), sha256 },
        expires: token.expires,
        peer,
        via,
        program: Program::Api,
        trace: None,
    })
}

/// The token of a call.
fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    if headers.contains_key(AUTHORIZATION_BIN) {
        return Err(AuthError::Malformed);
    }
    let mut found = headers.get_all(AUTHORIZATION).iter();
    let header = match (found.next(), found.next()) {
        (None, _) => return Err(AuthError::NoCredentials),
        (Some(header), None) if header.len() <= MAX_HEADER => header,
        (Some(_), _) => return Err(AuthError::Malformed),
    };
    let read = || {
        let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    };
    read().ok_or(AuthError::Malformed)
}

#[cfg(test)]
mod tests;
