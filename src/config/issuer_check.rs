//! Checks of `[[auth.issuer]]`: whole settings, and no grant that lets strangers in.

use super::auth::check_tenant;
use super::issuer::{GrantSection, IssuerSection, IssuersSection, KeysSection};
use super::problem::{Problems, Span};
use super::role;
use crate::auth::RoleTable;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use toml::Spanned;
use wharfinger_adapter::settings::{closest, is_name};
use wharfinger_core::Millis;
use wharfinger_jwt::{Algorithm, Grant, HttpsUrl, IssuerSettings, KeySet, Keys, Preset, Template};

/// Time for which keys are used that cannot be fetched.
const STALE_FOR: Duration = Duration::from_secs(86_400);
/// Time from `iat` to `exp` of an issuer without a preset.
const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// The principal of an issuer without a preset.
const PRINCIPAL: &str = "{sub}";
/// The role that no stranger gets.
const ADMIN: &str = "admin";
/// Maximum length of an audience in bytes.
const MAX_AUDIENCE: usize = 255;

/// Checks all issuers. Those with mistakes, which are noted, are left out.
pub(super) fn check(
    section: &IssuersSection,
    table: &RoleTable,
    folder: &Path,
    problems: &mut Problems,
) -> Vec<IssuerSettings> {
    if let Some(audience) = &section.audience {
        check_audience(audience, problems);
    }
    let mut names: BTreeMap<&str, Span> = BTreeMap::new();
    let mut urls: BTreeMap<String, Span> = BTreeMap::new();
    let mut found = Vec::new();
    for issuer in &section.issuers {
        if let Some(name) = &issuer.name
            && let Some(first) = names.insert(name.get_ref(), name.span())
        {
            let message = format!("two issuers have the name {:?}", name.get_ref());
            problems.add(name.span(), message, "give one of them another name").also(first, "first here");
        }
        let Some(settings) = check_issuer(issuer, section.audience.as_ref(), folder, problems) else { continue };
        let span = issuer.issuer.as_ref().map_or(issuer.span.clone(), Spanned::span);
        if let Some(first) = urls.insert(settings.issuer.to_string(), span.clone()) {
            let message = format!("two issuers are {}", settings.issuer);
            problems.add(span, message, "write all grants below one of them").also(first, "first here");
        }
        found.push(settings);
    }
    found
}

fn check_issuer(
    section: &IssuerSection,
    audience: Option<&Spanned<String>>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<IssuerSettings> {
    let before = problems.len();
    let preset = section.preset.as_ref().and_then(|name| check_preset(name, problems));
    let name = check_name(section, problems);
    let issuer = check_url(section, preset, problems);
    if let Some(own) = &section.audience {
        check_audience(own, problems);
    }
    let audience = section.audience.as_ref().or(audience);
    if audience.is_none() {
        let remedy = "add audience = \"https://HOST\" to [auth]: the text for which callers ask their tokens";
        problems.add(section.span.clone(), "[auth] has no `audience`", remedy);
    }
    let algorithms = check_algorithms(&section.algorithms, preset, problems);
    let keys = check_keys(&section.keys, folder, problems);
    let ca_file = section.ca_file.as_ref().map(|path| (path, folder.join(path.get_ref())));
    if let Some((text, path)) = &ca_file
        && let Err(problem) = wharfinger_tls::WebTls::load(Some(path))
    {
        problems.add(text.span(), format!("{} {}", path.display(), problem.message), problem.remedy);
    }
    let principal = check_principal(section, preset, problems);
    let shared = issuer.as_deref().and_then(Preset::of_shared);
    check_shared(section, preset, shared, problems);
    let grants: Vec<Grant> = section.grants.iter().filter_map(|grant| check_grant(grant, table, problems)).collect();
    if section.grants.is_empty() {
        let remedy = "add [[auth.issuer.grant]] with `when`, `tenant` and `roles`";
        problems.add(
            section.span.clone(),
            "this issuer has no grant, so that none of its tokens could do anything",
            remedy,
        );
    }
    if problems.len() > before {
        return None;
    }
    let time = |span: &Option<Spanned<Millis>>, usual: Duration| {
        span.as_ref().map_or(usual, |span| Duration::from_millis(u64::try_from(span.get_ref().0).unwrap_or(0)))
    };
    Some(IssuerSettings {
        name: name?.into(),
        issuer: issuer?.into(),
        audience: audience?.get_ref().as_str().into(),
        other_audiences: section.other_audiences.as_ref().is_some_and(|flag| *flag.get_ref()),
        algorithms,
        types: section.types.iter().map(|text| text.get_ref().clone()).collect(),
        max_lifetime: time(&section.max_lifetime, preset.map_or(MAX_LIFETIME, Preset::max_lifetime)),
        keys: keys?,
        ca_file: ca_file.map(|(_, path)| path),
        stale_for: time(&section.stale_for, STALE_FOR),
        principal: principal?,
        require: section.require.plain(),
        refuse: section.refuse.plain(),
        grants,
        preset,
    })
}

fn check_audience(audience: &Spanned<String>, problems: &mut Problems) {
    let text = audience.get_ref();
    if !(1..=MAX_AUDIENCE).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let remedy = "write a URL of this server, as in \"https://wharfinger.farm.example.org\"";
        let message = format!("`audience` must be 1 to {MAX_AUDIENCE} printable characters of ASCII without blanks");
        problems.add(audience.span(), message, remedy);
    }
}

fn check_preset(name: &Spanned<String>, problems: &mut Problems) -> Option<Preset> {
    let found = Preset::ALL.into_iter().find(|preset| preset.as_str() == name.get_ref());
    if found.is_none() {
        let all = Preset::ALL.map(Preset::as_str);
        let remedy = match closest(name.get_ref(), &all) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("use one of {}, or leave `preset` out and set `issuer`", all.join(", ")),
        };
        problems.add(name.span(), format!("no preset has the name {:?}", name.get_ref()), remedy).label("not known");
    }
    found
}

fn check_name(section: &IssuerSection, problems: &mut Problems) -> Option<String> {
    let Some(name) = &section.name else {
        let remedy = "add name = \"github\": principals of its callers begin with it";
        problems.add(section.span.clone(), "this issuer has no `name`", remedy);
        return None;
    };
    if !is_name(name.get_ref()) {
        let message = format!("{:?} is not a valid name of an issuer", name.get_ref());
        problems.add(name.span(), message, "use 1 to 63 of a to z, 0 to 9 and -");
        return None;
    }
    Some(name.get_ref().clone())
}

fn check_url(section: &IssuerSection, preset: Option<Preset>, problems: &mut Problems) -> Option<String> {
    let Some(issuer) = &section.issuer else {
        let usual = preset.and_then(Preset::issuer);
        // A preset with a mistake is a mistake of its own.
        if usual.is_none() && (preset.is_some() || section.preset.is_none()) {
            let remedy = "add issuer = \"https://HOST\": the `iss` of its tokens, byte for byte";
            problems.add(section.span.clone(), "this issuer has no `issuer`", remedy);
        }
        return usual.map(str::to_owned);
    };
    if let Err(error) = HttpsUrl::parse(issuer.get_ref()) {
        let remedy = "write the `iss` of its tokens, byte for byte, as in \"https://gitlab.example.org\"";
        problems.add(issuer.span(), format!("`issuer` {error}: {:?}", issuer.get_ref()), remedy);
        return None;
    }
    Some(issuer.get_ref().clone())
}

fn check_algorithms(list: &[Spanned<String>], preset: Option<Preset>, problems: &mut Problems) -> Vec<Algorithm> {
    let mut found = Vec::new();
    for name in list {
        match Algorithm::parse(name.get_ref()) {
            Some(algorithm) => found.push(algorithm),
            None => {
                let all = Algorithm::ALL.map(Algorithm::as_str).join(", ");
                let remedy = if name.get_ref().starts_with("HS") {
                    format!("use one of {all}; with {} all who check a token could make one", name.get_ref())
                } else {
                    format!("use one of {all}")
                };
                problems.add(name.span(), format!("{:?} is not an algorithm for tokens", name.get_ref()), remedy);
            }
        }
    }
    if list.is_empty() {
        return preset.map_or(vec![Algorithm::Rs256, Algorithm::Es256], Preset::algorithms);
    }
    found
}

fn check_keys(section: &KeysSection, folder: &Path, problems: &mut Problems) -> Option<Keys> {
    let discover = section.discover.as_ref().is_some_and(|flag| *flag.get_ref());
    let ways = usize::from(discover) + usize::from(section.url.is_some()) + usize::from(section.file.is_some());
    let Some(span) = section.span.clone() else { return Some(Keys::Discover { hosts: Vec::new() }) };
    if ways != 1 {
        let remedy = "write keys = { discover = true }, { url = \"https://HOST/PATH\" } or { file = \"PATH\" }";
        problems.add(span, format!("`keys` names {ways} places; one is needed"), remedy);
        return None;
    }
    if let Some(first) = section.hosts.first()
        && !discover
    {
        problems.add(first.span(), "`hosts` is for keys that are discovered", "take it out");
    }
    if let Some(url) = &section.url {
        return match HttpsUrl::parse(url.get_ref()) {
            Ok(url) => Some(Keys::Url(url)),
            Err(error) => {
                problems.add(url.span(), format!("`url` {error}: {:?}", url.get_ref()), "write https://HOST/PATH");
                None
            }
        };
    }
    if let Some(file) = &section.file {
        let path = folder.join(file.get_ref());
        let fault = match std::fs::read(&path) {
            Ok(bytes) => KeySet::parse(&bytes).err().map(|error| error.to_string()),
            Err(error) => Some(format!("cannot be read: {error}")),
        };
        if let Some(fault) = fault {
            let remedy =
                "write the issuer's JSON Web Key Set there; its /.well-known/openid-configuration names the URL";
            problems.add(file.span(), format!("{} {fault}", path.display()), remedy);
        }
        return Some(Keys::File(path));
    }
    Some(Keys::Discover { hosts: section.hosts.iter().map(|host| host.get_ref().clone()).collect() })
}

fn check_principal(section: &IssuerSection, preset: Option<Preset>, problems: &mut Problems) -> Option<Template> {
    let usual = preset.map_or(PRINCIPAL, Preset::principal);
    let text = section.principal.as_ref().map_or(usual, |text| text.get_ref());
    let template = Template::parse(text);
    if let (Err(error), Some(text)) = (&template, &section.principal) {
        let remedy = format!("write claims in braces with '/' between them, as in {usual:?}");
        problems.add(text.span(), format!("`principal` {error}: {:?}", text.get_ref()), remedy);
    }
    let template = template.ok()?;
    // Each token would be another holder, and the first renewal of a lease would be refused.
    let changes = template.claims().find(|claim| ["jti", "exp", "iat", "nbf"].contains(claim));
    if let (Some(claim), Some(text)) = (changes, &section.principal) {
        let message = format!("`principal` has the claim {claim:?}, which differs in each token");
        problems.add(text.span(), message, format!("use claims that a whole run or job has, as in {usual:?}"));
    }
    Some(template)
}

/// Refuses what lets strangers in. `shared`: the product, if everyone has tokens of this issuer.
fn check_shared(section: &IssuerSection, preset: Option<Preset>, shared: Option<Preset>, problems: &mut Problems) {
    let must = shared.or(preset).map(Preset::must).unwrap_or_default();
    let accepted = section.accept_whole_issuer.as_ref().is_some_and(|flag| *flag.get_ref());
    let covered = section.require.names_one_of(must);
    for grant in &section.grants {
        // Tables with mistakes are mistakes of their own.
        let faulty = section.require.faulty || grant.when.faulty;
        let names_one = faulty || covered || grant.when.names_one_of(must);
        let open = !faulty && must.is_empty() && grant.when.list.is_empty() && section.require.list.is_empty();
        if !accepted && ((!must.is_empty() && !names_one) || open) {
            let (whom, remedy) = if must.is_empty() {
                ("every token of this issuer", "add when = { claim = \"value\" }".to_owned())
            } else {
                let claims = must.iter().map(|claim| format!("{claim:?}")).collect::<Vec<_>>().join(", ");
                let whom = if shared.is_some() {
                    "tokens of strangers, who have the same issuer"
                } else {
                    "every token of this issuer"
                };
                (whom, format!("add one of the claims {claims} to its `when`: names can be taken over, ids cannot"))
            };
            problems
                .add(
                    grant.span.clone(),
                    format!("this grant holds for {whom} (ISSUER_IS_SHARED)"),
                    format!("{remedy}; or write accept_whole_issuer = true in [[auth.issuer]]"),
                )
                .label("not narrow enough");
        }
        if shared.is_some()
            && let Some(admin) = grant.roles.iter().find(|role| role.get_ref() == ADMIN)
        {
            let remedy = "give operators a token or a certificate of their own";
            let message = "the role \"admin\" is not for tokens of an issuer that strangers share";
            problems.add(admin.span(), message, remedy);
        }
    }
}

fn check_grant(section: &GrantSection, table: &RoleTable, problems: &mut Problems) -> Option<Grant> {
    if let Some(tenant) = &section.tenant {
        check_tenant(tenant, problems);
    } else {
        problems.add(
            section.span.clone(),
            "this grant has no `tenant`",
            "add tenant = \"default\", or the name of a team",
        );
    }
    role::check_grant(&section.roles, table, problems);
    if section.roles.is_empty() {
        problems.add(section.span.clone(), "this grant has no `roles`", "add roles = [\"agent\"]");
    }
    let roles: BTreeSet<&str> = section.roles.iter().map(|role| role.get_ref().as_str()).collect();
    Some(Grant {
        when: section.when.plain(),
        tenant: section.tenant.as_ref()?.get_ref().as_str().into(),
        roles: roles.into_iter().map(Into::into).collect(),
    })
}

#[cfg(test)]
mod tests;
