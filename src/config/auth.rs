//! `[[auth.token]]`: the callers that the server knows.

use super::problem::{Problems, Span};
use super::reader::Reader;
use crate::auth::{Role, Roles, StaticToken};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use toml::Spanned;
use wharfinger_adapter::settings::{closest, is_name};

/// `[auth]` as read.
#[derive(Debug, Default)]
pub(crate) struct AuthSection {
    /// The place of the table's header, if the file has the table.
    span: Option<Span>,
    tokens: Vec<TokenSection>,
}

/// One `[[auth.token]]` as read.
#[derive(Debug)]
struct TokenSection {
    span: Span,
    /// The required keys that are missing. A value of a wrong type is not missing.
    missing: Vec<&'static str>,
    id: Option<Spanned<String>>,
    sha256: Vec<Spanned<String>>,
    tenant: Option<Spanned<String>>,
    roles: Vec<Spanned<String>>,
    expires: Option<Spanned<String>>,
}

/// The keys that each token needs.
const REQUIRED: [&str; 5] = ["id", "sha256", "tenant", "roles", "expires"];
/// The text of a token that does not expire.
const NEVER: &str = "never";

pub(crate) fn read(reader: &mut Reader<'_>, problems: &mut Problems) -> AuthSection {
    let mut auth = reader.table("auth", "[auth]", problems);
    let mut section = AuthSection { span: auth.span(), tokens: Vec::new() };
    for mut token in auth.tables("token", "[[auth.token]]", problems) {
        section.tokens.push(TokenSection {
            span: token.span().unwrap_or(0..0),
            missing: REQUIRED.into_iter().filter(|key| token.value(key).is_none()).collect(),
            id: token.text("id", problems),
            sha256: token.strings("sha256", problems).unwrap_or_default(),
            tenant: token.text("tenant", problems),
            roles: token.strings("roles", problems).unwrap_or_default(),
            expires: token.text("expires", problems),
        });
        token.finish(problems);
    }
    auth.finish(problems);
    section
}

/// Checks the table. `None`: there is none, or it has mistakes, which are noted.
pub(crate) fn check(section: &AuthSection, problems: &mut Problems) -> Option<Vec<StaticToken>> {
    let span = section.span.clone()?;
    let before = problems.len();
    if section.tokens.is_empty() {
        problems.add(
            span,
            "[auth] has no token, so that nobody could call this server",
            "make one with `wharfinger token new ID`, or take [auth] out",
        );
    }
    let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
    let mut tokens = Vec::new();
    for token in &section.tokens {
        if let Some(id) = &token.id
            && let Some(first) = seen.insert(id.get_ref(), id)
        {
            problems
                .add(id.span(), format!("two tokens have the id {:?}", id.get_ref()), "give one of them another id")
                .label("again here")
                .also(first.span(), "first here");
        }
        tokens.extend(check_token(token, problems));
    }
    (problems.len() == before).then_some(tokens)
}

fn check_token(token: &TokenSection, problems: &mut Problems) -> Option<StaticToken> {
    for key in &token.missing {
        let remedy = match *key {
            "expires" => "add expires = \"2027-03-01T00:00:00Z\", or \"never\"".to_owned(),
            "roles" => format!("add roles = one or several of {}", names()),
            "tenant" => "add tenant = \"default\", or the name of a team".to_owned(),
            _ => "`wharfinger token new ID` prints all lines of a token".to_owned(),
        };
        problems.add(token.span.clone(), format!("this token has no `{key}`"), remedy);
    }
    let id = token.id.as_ref()?;
    if !StaticToken::is_id(id.get_ref()) {
        problems.add(
            id.span(),
            format!("{:?} is not a valid id of a token", id.get_ref()),
            "use 1 to 32 of a to z, 0 to 9 and -",
        );
    }
    let tenant = token.tenant.as_ref()?;
    if !is_name(tenant.get_ref()) {
        problems.add(
            tenant.span(),
            format!("{:?} is not a valid name of a tenant", tenant.get_ref()),
            "use 1 to 63 of a to z, 0 to 9 and -",
        );
    }
    let mut sha256 = Vec::new();
    for hash in &token.sha256 {
        match crate::auth::unhex(hash.get_ref()).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(hash) => sha256.push(hash),
            None => {
                let wrong = if hash.get_ref().starts_with("wfk_") {
                    ("`sha256` is a token itself", "write its SHA-256, and replace this token: others have read it now")
                } else {
                    (
                        "`sha256` is not a SHA-256",
                        "write the 64 digits in lower case that `wharfinger token new` printed",
                    )
                };
                // The value may be a secret that was pasted here.
                problems.add(hash.span(), wrong.0, wrong.1);
            }
        }
    }
    let set = !token.missing.contains(&"sha256");
    if set && !(1..=2).contains(&token.sha256.len()) {
        problems.add(
            token.sha256.get(2).map_or(token.span.clone(), Spanned::span),
            format!("this token has {} hashes", token.sha256.len()),
            "write one, or two while it is replaced",
        );
    }
    let mut roles = Vec::new();
    for role in &token.roles {
        match Role::ALL.into_iter().find(|known| known.as_str() == role.get_ref()) {
            Some(known) => roles.push(known),
            None => {
                let all = Role::ALL.map(Role::as_str);
                let remedy = match closest(role.get_ref(), &all) {
                    Some(near) => format!("did you mean {near:?}? The roles are {}", names()),
                    None => format!("use one of {}", names()),
                };
                problems.add(role.span(), format!("no role has the name {:?}", role.get_ref()), remedy);
            }
        }
    }
    let expires = token.expires.as_ref()?;
    let Some(expires) = expiry(expires.get_ref()) else {
        problems.add(
            expires.span(),
            format!("`expires` is not a time: {:?}", expires.get_ref()),
            "write it in UTC, as in \"2027-03-01T00:00:00Z\", or \"never\"",
        );
        return None;
    };
    let (id, tenant) = (id.get_ref().as_str().into(), tenant.get_ref().as_str().into());
    Some(StaticToken { id, sha256, tenant, roles: Roles::of(&roles), expires })
}

fn names() -> String {
    Role::ALL.map(|role| format!("{:?}", role.as_str())).join(", ")
}

/// The time of a text. The inner `None`: never. The outer: it is no time.
fn expiry(text: &str) -> Option<Option<SystemTime>> {
    if text == NEVER {
        return Some(None);
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    let ms = u64::try_from(at.as_millisecond()).ok()?;
    Some(Some(UNIX_EPOCH + Duration::from_millis(ms)))
}
