//! The identity of a caller.

use super::audit::provenance;
use super::{Reach, Roles, Verb};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wharfinger_core::{Caller, Pools, Program};
use wharfinger_jwt::{Attributes, Key};

/// How a caller proved who it is. A token is named by its id; its text is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing was proved.
    None,
    /// The connection comes from the broker's own machine.
    Local,
    /// A static token.
    Token {
        /// The id.
        id: Arc<str>,
        /// The SHA-256 of the text. `None`: another server has seen it.
        sha256: Option<[u8; 32]>,
    },
    /// A client certificate, by the URI in it and its serial number. The number allows nothing; a server of an older version forwards none.
    Certificate {
        /// The URI.
        uri: Arc<str>,
        /// Hexadecimal digits.
        serial: Arc<str>,
    },
    /// The user and the primary group of a process on the broker's own machine, by the kernel.
    Unix {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
    /// A header of a proxy before the operator's page.
    Proxy {
        /// The name in it.
        user: Arc<str>,
    },
    /// A token of an issuer.
    Jwt {
        /// The name of the issuer.
        issuer: Arc<str>,
        /// The beginning of the token's SHA-256: 16 digits.
        digest: Arc<str>,
        /// The claims that the issuer's settings name.
        claims: Arc<Attributes>,
        /// The key by which it was verified. `None`: another server has verified it.
        key: Option<Arc<Key>>,
    },
}

impl Proof {
    /// A static token with this id that another server has seen.
    pub(crate) fn token(id: Arc<str>) -> Self {
        Proof::Token { id, sha256: None }
    }

    /// The kind and the public name.
    pub(crate) fn text(&self) -> String {
        match self {
            Proof::None => "none".to_owned(),
            Proof::Local => "local".to_owned(),
            Proof::Token { id, .. } => format!("token:{id}"),
            Proof::Certificate { uri, serial } if serial.is_empty() => format!("x509:{uri}"),
            // No URI has this sign (spiffe.rs).
            Proof::Certificate { uri, serial } => format!("x509:{uri}#{serial}"),
            Proof::Unix { uid, gid } => format!("unix:{uid}:{gid}"),
            Proof::Proxy { user } => format!("proxy:{user}"),
            Proof::Jwt { issuer, digest, .. } => format!("jwt:{issuer}#{digest}"),
        }
    }

    /// The part of it that another server is given.
    fn for_another(self) -> Self {
        match self {
            Proof::Token { id, .. } => Proof::token(id),
            Proof::Jwt { issuer, digest, claims, .. } => Proof::Jwt { issuer, digest, claims, key: None },
            other => other,
        }
    }

    /// The text with everything by which another server judges the caller anew.
    fn forwarded(&self) -> String {
        match self {
            Proof::Jwt { claims, .. } => format!("{}?{}", self.text(), claims.encode()),
            Proof::None
            | Proof::Local
            | Proof::Token { .. }
            | Proof::Certificate { .. }
            | Proof::Unix { .. }
            | Proof::Proxy { .. } => self.text(),
        }
    }

    /// Reads [`Proof::forwarded`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Proof::None),
            "local" => Some(Proof::Local),
            _ => {
                let rest = |way: &str| text.strip_prefix(way).filter(|name| !name.is_empty()).map(Arc::from);
                let certificate = |text: Arc<str>| match text.split_once('#') {
                    Some((uri, serial)) => Proof::Certificate { uri: uri.into(), serial: serial.into() },
                    None => Proof::Certificate { uri: text, serial: Arc::from("") },
                };
                let unix = || {
                    let (uid, gid) = text.strip_prefix("unix:")?.split_once(':')?;
                    Some(Proof::Unix { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
                };
                let jwt = || {
                    let (issuer, rest) = text.strip_prefix("jwt:")?.split_once('#')?;
                    let (digest, claims) = rest.split_once('?')?;
                    let claims = Arc::new(Attributes::decode(claims)?);
                    Some(Proof::Jwt { issuer: issuer.into(), digest: digest.into(), claims, key: None })
                };
                let proxied = || rest("proxy:").map(|user| Proof::Proxy { user });
                let token = rest("token:").map(Proof::token);
                token.or_else(|| rest("x509:").map(certificate)).or_else(unix).or_else(jwt).or_else(proxied)
            }
        }
    }
}

/// The caller of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant: whose leases are in view. It comes from the caller's proof, never from the request.
    pub tenant: Arc<str>,
    /// The principal, `<way>:<name>` or `local` or `anonymous`. Leases belong to it, within the tenant.
    pub principal: Arc<str>,
    /// The roles, by the configuration of this server.
    pub roles: Roles,
    /// The proof.
    pub proof: Proof,
    /// The proof is worth nothing from then on.
    pub expires: Option<SystemTime>,
    /// The address of the caller. It allows nothing.
    pub peer: Option<Arc<str>>,
    /// The address of the server that forwarded the call.
    pub via: Option<Arc<str>>,
    /// The program by which the caller called. It allows nothing.
    pub program: Program,
    /// The place of the call in its caller's trace, as W3C Trace Context writes it. It allows nothing.
    pub trace: Option<Arc<str>>,
}

impl Identity {
    /// A caller on the broker's own machine.
    pub const LOCAL: &'static str = "local";
    /// A caller that proved nothing.
    pub const ANONYMOUS: &'static str = "anonymous";

    /// A caller with these roles, who proved nothing.
    pub(crate) fn with_roles(tenant: &str, principal: &str, roles: Roles) -> Self {
        let (tenant, principal) = (Arc::from(tenant), Arc::from(principal));
        Self {
            tenant,
            principal,
            roles,
            proof: Proof::None,
            expires: None,
            peer: None,
            via: None,
            program: Program::Api,
            trace: None,
        }
    }

    /// The caller of a read, for the core: it sees the leases for which it has the verb.
    pub(crate) fn reads(&self, verb: Verb) -> Caller {
        let reach = self.roles.reach(verb);
        self.acts(verb, reach.clone(), reach)
    }

    /// The caller of a verb on a lease. It sees what it may read or act on, and acts on what is in `reach`.
    pub(crate) fn holds(&self, verb: Verb, reach: Reach) -> Caller {
        self.acts(verb, self.roles.reach(Verb::Get).and(&self.roles.reach(verb)), reach)
    }

    /// The caller of a request for leases. Each pool of its roles exists for it.
    pub(crate) fn leases(&self) -> Caller {
        let own = Reach { own: Pools::All, pools: self.roles.pools(), ..Reach::default() };
        self.acts(Verb::Lease, self.roles.reach(Verb::Get).and(&own), own)
    }

    fn acts(&self, verb: Verb, sees: Reach, ends: Reach) -> Caller {
        let Identity { tenant, principal, .. } = self;
        let (sees, ends) = (sees.scope(tenant, principal), ends.scope(tenant, principal));
        let proved = Some(Arc::new(provenance(self, verb)));
        Caller { tenant: tenant.clone(), principal: principal.clone(), sees, ends, proved }
    }
}

/// The part of an identity that a server forwards with a call. Tenant and roles are not in it: the server that leads derives
/// them by its own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) principal: Arc<str>,
    pub(crate) proof: Proof,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) peer: Option<Arc<str>>,
}

/// The version of the text.
const VERSION: u8 = 2;
/// Maximum length of the text in bytes.
const MAX: usize = 8 * 1024;

impl From<&Identity> for Passed {
    fn from(identity: &Identity) -> Self {
        let Identity { principal, proof, expires, peer, .. } = identity.clone();
        Self { principal, proof: proof.for_another(), expires, peer }
    }
}

impl Passed {
    /// The only text of this identity: hexadecimal digits, of the version and then of each part behind its length.
    /// `None`: it is too long.
    pub(crate) fn encode(&self) -> Option<String> {
        let expires = match self.expires {
            Some(at) => u64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?.to_string(),
            None => String::new(),
        };
        let peer = self.peer.as_deref().unwrap_or_default();
        let mut bytes = vec![VERSION];
        for part in [&*self.principal, &self.proof.forwarded(), &expires, peer] {
            bytes.extend(u16::try_from(part.len()).ok()?.to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        Some(hex(&bytes)).filter(|text| text.len() <= MAX)
    }

    /// Reads [`Passed::encode`]. A text that is not the only one of its identity is refused.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes = unhex(text.get(..).filter(|text| text.len() <= MAX)?)?;
        let (version, mut rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let mut next = || {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            let (part, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = behind;
            std::str::from_utf8(part).ok().filter(|part| part.bytes().all(|byte| byte.is_ascii_graphic()))
        };
        let (principal, proof, expires, peer) = (next()?, next()?, next()?, next()?);
        let expires = match expires {
            "" => None,
            ms => Some(UNIX_EPOCH.checked_add(Duration::from_millis(ms.parse().ok()?))?),
        };
        let passed = Passed {
            principal: Arc::from(Some(principal).filter(|name| !name.is_empty())?),
            proof: Proof::parse(proof)?,
            expires,
            peer: Some(peer).filter(|peer| !peer.is_empty()).map(Arc::from),
        };
        (passed.encode()? == text).then_some(passed)
    }
}

/// Hexadecimal digits, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of hexadecimal digits in lower case.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed() -> Passed {
        Passed {
            principal: "token:ci-7".into(),
            proof: Proof::token("ci-7".into()),
            expires: Some(UNIX_EPOCH + Duration::from_millis(1_900_000_000_123)),
            peer: Some("10.0.0.9:4711".into()),
        }
    }

    #[test]
    fn an_identity_has_one_text_and_no_other_is_taken() {
        let plain = Passed { principal: "local".into(), proof: Proof::Local, expires: None, peer: None };
        let by = |serial: &str| Proof::Certificate { uri: "spiffe://farm/agent/7".into(), serial: serial.into() };
        let (certificate, older) = (by("0a1b"), Passed { proof: by(""), ..passed() });
        let user = Passed { principal: "unix:1000".into(), proof: Proof::Unix { uid: 1000, gid: 7 }, ..passed() };
        let (none, certificate) =
            (Passed { proof: Proof::None, ..passed() }, Passed { proof: certificate, ..passed() });
        let person = Proof::Proxy { user: "ann@example.org#?:".into() };
        let person = Passed { principal: "proxy:ann@example.org#?:".into(), proof: person, ..passed() };
        for passed in [passed(), plain, none, certificate, older, user, person] {
            let text = passed.encode().unwrap();
            assert_eq!(Passed::decode(&text), Some(passed));
            let upper = text.to_uppercase();
            let (longer, shorter) = (format!("{text}00"), &text[..text.len() - 2]);
            let other_version = format!("03{}", &text[2..]);
            for wrong in [&*longer, shorter, &upper, &other_version, "", "0", "zz", &format!("{text} ")] {
                assert!(wrong == text || Passed::decode(wrong).is_none(), "{wrong}");
            }
        }
        let part = |text: &str| format!("{:04x}{}", text.len(), hex(text.as_bytes()));
        let made = |principal: &str, proof: &str, expires: &str, peer: &str| {
            format!("02{}{}{}{}", part(principal), part(proof), part(expires), part(peer))
        };
        assert!(Passed::decode(&made("local", "local", "17", "")).is_some());
        for wrong in [
            made("", "local", "", ""),
            made("lo\0cal", "local", "", ""),
            made("lo cal", "local", "", ""),
            made("local", "root", "", ""),
            made("local", "token:", "", ""),
            made("unix:0", "unix:", "", ""),
            made("unix:0", "unix:0", "", ""),
            made("unix:0", "unix:00:0", "", ""),
            made("unix:0", "unix:+0:0", "", ""),
            made("unix:0", "unix:0:-1", "", ""),
            made("unix:0", "unix:0:4294967296", "", ""),
            made("local", "local", "017", ""),
            made("local", "local", "-1", ""),
            made("local", "local", "99999999999999999999999", ""),
        ] {
            assert_eq!(Passed::decode(&wrong), None, "{wrong}");
        }
        let long = Passed { principal: "x".repeat(9 * 1024).into(), ..passed() };
        assert_eq!(long.encode(), None);
    }

    #[test]
    fn roles_add_up_and_none_sees_no_more_than_its_own() {
        use crate::auth::BuiltIn;
        use wharfinger_core::Scope;
        let own = Scope::Own { tenant: "web".into(), principal: "token:ci".into() };
        let all = Scope::Tenant("web".into());
        for (roles, sees, ends) in [
            (&[BuiltIn::Agent][..], &own, &own),
            (&[BuiltIn::Agent, BuiltIn::Lead], &all, &all),
            (&[BuiltIn::Admin], &Scope::All, &own),
            (&[BuiltIn::Admin, BuiltIn::Lead], &Scope::All, &all),
            (&[BuiltIn::Lead], &all, &all),
        ] {
            let identity = Identity {
                tenant: "web".into(),
                principal: "token:ci".into(),
                roles: Roles::of(roles),
                proof: Proof::None,
                expires: None,
                peer: None,
                via: None,
                program: Program::Api,
                trace: None,
            };
            let caller = identity.holds(Verb::Release, identity.roles.reach(Verb::Release));
            assert_eq!((&caller.sees, &caller.ends), (sees, ends), "{roles:?}");
            assert_eq!(&identity.reads(Verb::Watch).sees, sees, "{roles:?}");
            assert_eq!((&identity.leases().sees, &identity.leases().ends), (sees, &own), "{roles:?}");
        }
    }
}
