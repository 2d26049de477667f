//! The identity of a caller.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wharfinger_core::{Caller, Scope};

/// A role. Roles add up; an identity without one may call nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Leases, and sees and ends its own leases.
    Agent,
    /// Sees the leases of its tenant.
    Reader,
    /// Sees, releases and breaks the leases of its tenant.
    Lead,
    /// Sees everything, and has every verb of operators.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 4] = [Role::Agent, Role::Reader, Role::Lead, Role::Admin];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Agent => "agent",
            Role::Reader => "reader",
            Role::Lead => "lead",
            Role::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// The roles of this list.
    pub fn of(roles: &[Role]) -> Self {
        Roles(roles.iter().fold(0, |bits, role| bits | role.bit()))
    }

    /// Whether one of these roles is in the set.
    pub fn any(self, roles: &[Role]) -> bool {
        self.0 & Roles::of(roles).0 != 0
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Role::ALL.into_iter().filter(|role| self.any(&[*role])).map(Role::as_str).collect();
        if names.is_empty() { f.write_str("none") } else { f.write_str(&names.join(", ")) }
    }
}

/// How a caller proved who it is. A token is named by its id; its text is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing was proved.
    None,
    /// The connection comes from the broker's own machine.
    Local,
    /// A static token, by its id.
    Token(Arc<str>),
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
}

impl Proof {
    /// The kind and the public name.
    pub(crate) fn text(&self) -> String {
        match self {
            Proof::None => "none".to_owned(),
            Proof::Local => "local".to_owned(),
            Proof::Token(id) => format!("token:{id}"),
            Proof::Certificate { uri, serial } if serial.is_empty() => format!("x509:{uri}"),
            // No URI has this sign (spiffe.rs).
            Proof::Certificate { uri, serial } => format!("x509:{uri}#{serial}"),
            Proof::Unix { uid, gid } => format!("unix:{uid}:{gid}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
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
                rest("token:").map(Proof::Token).or_else(|| rest("x509:").map(certificate)).or_else(unix)
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
}

impl Identity {
    /// A caller on the broker's own machine.
    pub const LOCAL: &'static str = "local";
    /// A caller that proved nothing.
    pub const ANONYMOUS: &'static str = "anonymous";

    /// The caller, as far as the core has to know it.
    pub fn caller(&self) -> Caller {
        let own = || Scope::Own { tenant: self.tenant.clone(), principal: self.principal.clone() };
        let sees = if self.roles.any(&[Role::Admin]) {
            Scope::All
        } else if self.roles.any(&[Role::Reader, Role::Lead]) {
            Scope::Tenant(self.tenant.clone())
        } else {
            own()
        };
        let ends = if self.roles.any(&[Role::Lead]) { Scope::Tenant(self.tenant.clone()) } else { own() };
        Caller { tenant: self.tenant.clone(), principal: self.principal.clone(), sees, ends, proved: None }
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
        Self { principal, proof, expires, peer }
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
        for part in [&*self.principal, &self.proof.text(), &expires, peer] {
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
    use fmt::Write as _;
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
            proof: Proof::Token("ci-7".into()),
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
        for passed in [passed(), plain, none, certificate, older, user] {
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
        let identity = |roles: &[Role]| Identity {
            tenant: "web".into(),
            principal: "token:ci".into(),
            roles: Roles::of(roles),
            proof: Proof::None,
            expires: None,
            peer: None,
            via: None,
        };
        let own = Scope::Own { tenant: "web".into(), principal: "token:ci".into() };
        let all = Scope::Tenant("web".into());
        for (roles, sees, ends) in [
            (&[][..], &own, &own),
            (&[Role::Agent], &own, &own),
            (&[Role::Reader], &all, &own),
            (&[Role::Agent, Role::Lead], &all, &all),
            (&[Role::Admin], &Scope::All, &own),
            (&[Role::Admin, Role::Lead], &Scope::All, &all),
        ] {
            let caller = identity(roles).caller();
            assert_eq!((&caller.sees, &caller.ends), (sees, ends), "{roles:?}");
        }
        assert_eq!(Roles::of(&[Role::Lead, Role::Agent]).to_string(), "agent, lead");
        assert_eq!(Roles::default().to_string(), "none");
    }
}
