//! `[page.oidc]`: the issuer that signs people in to the page.

use super::page::Around;
use super::problem::{Problems, Span};
use super::reader::Reader;
use super::secret_file;
use std::path::Path;
use toml::Spanned;
use wharfinger_jwt::{Keys, ProviderSettings};

/// The path to which the issuer sends browsers back.
pub(crate) const CALLBACK: &str = "/sign-in/callback";
/// The scope without which an issuer gives no ID token.
const OPENID: &str = "openid";

/// `[page.oidc]` as read.
#[derive(Debug, Default)]
pub(crate) struct OidcSection {
    span: Option<Span>,
    issuer: Option<Spanned<String>>,
    client_secret_file: Option<Spanned<String>>,
    scopes: Option<Vec<Spanned<String>>>,
}

pub(crate) fn read(page: &mut Reader<'_>, problems: &mut Problems) -> OidcSection {
    let mut oidc = page.table("oidc", "[page.oidc]", problems);
    let section = OidcSection {
        span: oidc.span(),
        issuer: oidc.text("issuer", problems),
        client_secret_file: oidc.text("client_secret_file", problems),
        scopes: oidc.strings("scopes", problems),
    };
    oidc.finish(problems);
    section
}

/// Checks the table. `url`: the address of the page. `None`: there is no table, or it has mistakes, which are noted.
pub(crate) fn check(
    section: &OidcSection,
    url: Option<&str>,
    around: &Around<'_>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<ProviderSettings> {
    let span = section.span.clone()?;
    let before = problems.len();
    if url.is_none() {
        let message = "[page.oidc] needs the address of the page, to which the issuer sends browsers back";
        let remedy = format!(
            "add `url` to [page], as in url = \"https://wharf.example.org\"; the issuer has to allow that address with {CALLBACK}"
        );
        problems.add(span.clone(), message, remedy);
    }
    let Some(name) = &section.issuer else {
        let remedy = "add issuer = \"NAME\": the `name` of an [[auth.issuer]]";
        problems.add(span, "[page.oidc] has no `issuer`", remedy);
        return None;
    };
    let known = around.issuers.iter().find(|issuer| *issuer.name == **name.get_ref());
    // Issuers with mistakes are mistakes of their own.
    if known.is_none() && around.issuers_are_right {
        let names: Vec<String> = around.issuers.iter().map(|issuer| format!("{:?}", issuer.name)).collect();
        let remedy = match names.is_empty() {
            true => "add [[auth.issuer]] with name, issuer, and grants for your people (docs/issuers.md)".to_owned(),
            false => format!("write one of {}", names.join(", ")),
        };
        problems.add(name.span(), format!("no [[auth.issuer]] has the name {:?}", name.get_ref()), remedy);
    }
    let scopes = check_scopes(section.scopes.as_deref(), &span, problems);
    let secret = section.client_secret_file.as_ref().map(|file| (file, folder.join(file.get_ref())));
    if let Some((file, path)) = &secret
        && let Some((message, remedy)) = secret_file::fault("client secret", path)
    {
        problems.add(file.span(), message, remedy);
    }
    if problems.len() > before {
        return None;
    }
    let issuer = known?;
    let hosts = match &issuer.keys {
        Keys::Discover { hosts } => hosts.clone(),
        Keys::Url(_) | Keys::File(_) => Vec::new(),
    };
    Some(ProviderSettings {
        issuer: issuer.issuer.clone(),
        ca_file: issuer.ca_file.clone(),
        hosts,
        client_id: issuer.audience.clone(),
        client_secret_file: secret.map(|(_, path)| path),
        scopes,
        redirect: format!("{}{CALLBACK}", url?),
    })
}

fn check_scopes(scopes: Option<&[Spanned<String>]>, span: &Span, problems: &mut Problems) -> Vec<String> {
    let Some(scopes) = scopes else { return vec![OPENID.to_owned()] };
    for scope in scopes {
        let text = scope.get_ref();
        // RFC 6749, section 3.3.
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        if text.is_empty() || !plain {
            let message = format!("{text:?} is not a scope");
            problems.add(scope.span(), message, "write each scope alone, as in [\"openid\", \"profile\"]");
        }
    }
    if !scopes.iter().any(|scope| scope.get_ref() == OPENID) {
        let at = scopes.first().map_or_else(|| span.clone(), Spanned::span);
        problems.add(
            at,
            "`scopes` of [page.oidc] has no \"openid\", so that there is no token of the person",
            "add \"openid\"",
        );
    }
    scopes.iter().map(|scope| scope.get_ref().clone()).collect()
}
