//! `[[auth.token]]` and `[[auth.certificate]]`: the callers that the server knows. `unix.rs` has `[[auth.unix]]`, `page_proxy.rs` `[[auth.proxy]]`, `issuer.rs` `[[auth.issuer]]`.

use super::issuer::{self, IssuersSection};
use super::issuer_check;
use super::page_proxy::{self, GrantSection};
use super::problem::{Problems, Span};
use super::reader::Reader;
use super::role;
use super::unix::{self, UnixSection};
use crate::auth::{Callers, CertificateGrant, RoleTable, StaticToken};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use toml::Spanned;
use wharfinger_adapter::settings::is_name;
use wharfinger_tls::spiffe::Pattern;

/// `[auth]` as read.
#[derive(Debug, Default)]
pub(crate) struct AuthSection {
    /// The place of the table's header, if the file has the table.
    span: Option<Span>,
    tokens: Vec<TokenSection>,
    certificates: Vec<CertificateSection>,
    unix: Vec<UnixSection>,
    proxied: Vec<GrantSection>,
    issuers: IssuersSection,
}

/// The ways by which callers may come, beside tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    /// Clients are asked for certificates.
    pub(crate) certificates: bool,
    /// The server has a Unix socket.
    pub(crate) socket: bool,
    /// The page has a proxy that names people.
    pub(crate) proxy: bool,
}

/// One `[[auth.certificate]]` as read.
#[derive(Debug)]
struct CertificateSection {
    span: Span,
    uri: Option<Spanned<String>>,
    tenant: Option<Spanned<String>>,
    roles: Vec<Spanned<String>>,
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

impl AuthSection {
    /// Whether the file has the table.
    pub(crate) fn is_there(&self) -> bool {
        self.span.is_some()
    }

    /// Whether people have roles whom a proxy names.
    pub(crate) fn has_proxied(&self) -> bool {
        !self.proxied.is_empty()
    }

    /// The tenants of its callers.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Spanned<String>> {
        let certificates = self.certificates.iter().filter_map(|one| one.tenant.as_ref());
        self.tokens.iter().filter_map(|token| token.tenant.as_ref()).chain(certificates)
    }
}

pub(crate) fn read(reader: &mut Reader<'_>, problems: &mut Problems) -> AuthSection {
    let mut auth = reader.table("auth", "[auth]", problems);
    let mut section = AuthSection { span: auth.span(), ..AuthSection::default() };
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
    for mut certificate in auth.tables("certificate", "[[auth.certificate]]", problems) {
        section.certificates.push(CertificateSection {
            span: certificate.span().unwrap_or(0..0),
            uri: certificate.text("uri", problems),
            tenant: certificate.text("tenant", problems),
            roles: certificate.strings("roles", problems).unwrap_or_default(),
        });
        certificate.finish(problems);
    }
    for unix in auth.tables("unix", "[[auth.unix]]", problems) {
        section.unix.push(unix::read_grant(unix, problems));
    }
    for person in auth.tables("proxy", "[[auth.proxy]]", problems) {
        section.proxied.push(page_proxy::read_grant(person, problems));
    }
    section.issuers = issuer::read(&mut auth, problems);
    auth.finish(problems);
    section
}

/// Checks the table. `None`: there is none, or it has mistakes, which are noted.
pub(crate) fn check(
    section: &AuthSection,
    ways: Ways,
    folder: &Path,
    table: &RoleTable,
    problems: &mut Problems,
) -> Option<Callers> {
    let span = section.span.clone()?;
    let before = problems.len();
    let others = section.unix.is_empty() && section.issuers.issuers.is_empty() && section.proxied.is_empty();
    if section.tokens.is_empty() && section.certificates.is_empty() && others {
        problems.add(
            span,
            "[auth] has no token, no certificate, no user and no issuer, so that no caller could call this server",
            "make a token with `wharfinger token new ID`, or take [auth] out",
        );
    }
    let certificates = section
        .certificates
        .iter()
        .filter_map(|one| check_certificate(one, ways.certificates, table, problems))
        .collect();
    let unix = section.unix.iter().filter_map(|one| unix::check_grant(one, ways.socket, table, problems)).collect();
    let proxied = section.proxied.iter();
    let proxied = proxied.filter_map(|one| page_proxy::check_grant(one, ways.proxy, table, problems)).collect();
    let issuers = issuer_check::check(&section.issuers, folder, table, problems);
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
        tokens.extend(check_token(token, table, problems));
    }
    (problems.len() == before).then(|| Callers { tokens, certificates, unix, proxied, issuers, table: table.clone() })
}

fn check_certificate(
    section: &CertificateSection,
    asks: bool,
    table: &RoleTable,
    problems: &mut Problems,
) -> Option<CertificateGrant> {
    if !asks {
        problems.add(
            section.span.clone(),
            "no client is asked for a certificate",
            "add [server.tls] with client_ca, the file of the authority that signs them",
        );
    }
    let (Some(uri), Some(tenant)) = (&section.uri, &section.tenant) else {
        let remedy = "add uri = \"spiffe://farm.example.org/agents/\", tenant = \"default\" and roles = [\"agent\"]";
        problems.add(section.span.clone(), "this certificate has no `uri` or no `tenant`", remedy);
        return None;
    };
    check_tenant(tenant, problems);
    let pattern = Pattern::parse(uri.get_ref()).map_err(|error| {
        let remedy = "write spiffe://DOMAIN/PATH, with a '/' at its end for all names below it";
        problems.add(uri.span(), format!("`uri` {error}: {:?}", uri.get_ref()), remedy);
    });
    let roles = role::check_grant(&section.roles, table, problems);
    if section.roles.is_empty() {
        problems.add(
            section.span.clone(),
            "this certificate has no `roles`",
            format!("add one or several of {}", role::names(table)),
        );
    }
    Some(CertificateGrant { uri: pattern.ok()?, tenant: tenant.get_ref().as_str().into(), roles })
}

fn check_token(token: &TokenSection, table: &RoleTable, problems: &mut Problems) -> Option<StaticToken> {
    for key in &token.missing {
        let remedy = match *key {
            "expires" => "add expires = \"2027-03-01T00:00:00Z\", or \"never\"".to_owned(),
            "roles" => format!("add roles = one or several of {}", role::names(table)),
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
    check_tenant(tenant, problems);
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
    let roles = role::check_grant(&token.roles, table, problems);
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
    Some(StaticToken { id, sha256, tenant, roles, expires })
}

pub(super) fn check_tenant(tenant: &Spanned<String>, problems: &mut Problems) {
    if !is_name(tenant.get_ref()) {
        problems.add(
            tenant.span(),
            format!("{:?} is not a valid name of a tenant", tenant.get_ref()),
            "use 1 to 63 of a to z, 0 to 9 and -",
        );
    }
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
