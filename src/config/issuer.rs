//! `[[auth.issuer]]` as read: issuers of tokens, and their grants.

use super::problem::{Problems, Span};
use super::reader::Reader;
use toml::Spanned;
use toml::de::DeValue;
use wharfinger_core::Millis;
use wharfinger_jwt::{Condition, Scalar, Test};

/// Bounds of the longest time from `iat` to `exp`.
const LIFETIME: std::ops::RangeInclusive<Millis> = Millis::secs(60)..=Millis::secs(7 * 86_400);
/// Bounds of the time for which keys are used that cannot be fetched.
const STALE: std::ops::RangeInclusive<Millis> = Millis::secs(60)..=Millis::secs(30 * 86_400);
/// Maximum length of a claim's name, and of a value, in bytes.
const MAX_TEXT: usize = 256;
/// Maximum number of conditions in one table.
const MAX_CONDITIONS: usize = 32;

/// All issuers as read.
#[derive(Debug, Default)]
pub(crate) struct IssuersSection {
    pub(super) audience: Option<Spanned<String>>,
    pub(super) issuers: Vec<IssuerSection>,
}

/// One `[[auth.issuer]]` as read.
#[derive(Debug)]
pub(super) struct IssuerSection {
    pub(super) span: Span,
    pub(super) name: Option<Spanned<String>>,
    pub(super) preset: Option<Spanned<String>>,
    pub(super) issuer: Option<Spanned<String>>,
    pub(super) audience: Option<Spanned<String>>,
    pub(super) other_audiences: Option<Spanned<bool>>,
    pub(super) algorithms: Vec<Spanned<String>>,
    pub(super) types: Vec<Spanned<String>>,
    pub(super) max_lifetime: Option<Spanned<Millis>>,
    pub(super) keys: KeysSection,
    pub(super) ca_file: Option<Spanned<String>>,
    pub(super) stale_for: Option<Spanned<Millis>>,
    pub(super) principal: Option<Spanned<String>>,
    pub(super) require: Conditions,
    pub(super) refuse: Conditions,
    pub(super) accept_whole_issuer: Option<Spanned<bool>>,
    pub(super) grants: Vec<GrantSection>,
}

/// The place of keys as read.
#[derive(Debug)]
pub(super) struct KeysSection {
    pub(super) span: Option<Span>,
    pub(super) discover: Option<Spanned<bool>>,
    pub(super) hosts: Vec<Spanned<String>>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) file: Option<Spanned<String>>,
}

/// One `[[auth.issuer.grant]]` as read.
#[derive(Debug)]
pub(super) struct GrantSection {
    pub(super) span: Span,
    pub(super) when: Conditions,
    pub(super) tenant: Option<Spanned<String>>,
    pub(super) roles: Vec<Spanned<String>>,
}

/// A table of claims as read.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// The table has mistakes, which are noted.
    pub(super) faulty: bool,
    pub(super) list: Vec<Spanned<Condition>>,
}

impl Conditions {
    /// The conditions without their places.
    pub(super) fn plain(&self) -> Vec<Condition> {
        self.list.iter().map(|one| one.get_ref().clone()).collect()
    }

    /// Whether one of these claims is asked for.
    pub(super) fn names_one_of(&self, claims: &[&str]) -> bool {
        self.list.iter().any(|one| claims.contains(&&*one.get_ref().claim))
    }
}

/// Reads the keys of `[auth]` for issuers.
pub(super) fn read(auth: &mut Reader<'_>, problems: &mut Problems) -> IssuersSection {
    let audience = auth.text("audience", problems);
    let tables = auth.tables("issuer", "[[auth.issuer]]", problems);
    IssuersSection { audience, issuers: tables.into_iter().map(|table| read_issuer(table, problems)).collect() }
}

fn read_issuer(mut issuer: Reader<'_>, problems: &mut Problems) -> IssuerSection {
    let section = IssuerSection {
        span: issuer.span().unwrap_or(0..0),
        name: issuer.text("name", problems),
        preset: issuer.text("preset", problems),
        issuer: issuer.text("issuer", problems),
        audience: issuer.text("audience", problems),
        other_audiences: issuer.flag("other_audiences", problems),
        algorithms: issuer.strings("algorithms", problems).unwrap_or_default(),
        types: issuer.strings("types", problems).unwrap_or_default(),
        max_lifetime: issuer.duration("max_lifetime", LIFETIME, problems),
        keys: read_keys(&mut issuer, problems),
        ca_file: issuer.text("ca_file", problems),
        stale_for: issuer.duration("stale_for", STALE, problems),
        principal: issuer.text("principal", problems),
        require: read_conditions(&mut issuer, "require", problems),
        refuse: read_conditions(&mut issuer, "refuse", problems),
        accept_whole_issuer: issuer.flag("accept_whole_issuer", problems),
        grants: issuer
            .tables("grant", "[[auth.issuer.grant]]", problems)
            .into_iter()
            .map(|grant| read_grant(grant, problems))
            .collect(),
    };
    issuer.finish(problems);
    section
}

fn read_keys(issuer: &mut Reader<'_>, problems: &mut Problems) -> KeysSection {
    let mut keys = issuer.table("keys", "keys = { discover = true }", problems);
    let section = KeysSection {
        span: keys.span(),
        discover: keys.flag("discover", problems),
        hosts: keys.strings("hosts", problems).unwrap_or_default(),
        url: keys.text("url", problems),
        file: keys.text("file", problems),
    };
    keys.finish(problems);
    section
}

fn read_grant(mut grant: Reader<'_>, problems: &mut Problems) -> GrantSection {
    let section = GrantSection {
        span: grant.span().unwrap_or(0..0),
        when: read_conditions(&mut grant, "when", problems),
        tenant: grant.text("tenant", problems),
        roles: grant.strings("roles", problems).unwrap_or_default(),
    };
    grant.finish(problems);
    section
}

/// Reads a table of claims: `claim = VALUE`, `claim = [VALUE, …]` for one of several, `claim = { contains = … }` for a claim that
/// is a list.
fn read_conditions(reader: &mut Reader<'_>, key: &'static str, problems: &mut Problems) -> Conditions {
    let mut conditions = Conditions::default();
    let Some(value) = reader.value(key) else { return conditions };
    let before = problems.len();
    if value.get_ref().is_table() {
        collect(String::new(), value, &mut conditions, problems);
    } else {
        let remedy = format!("write {key} = {{ claim = \"value\" }}");
        problems.add(value.span(), format!("`{key}` is not a table of claims"), remedy);
    }
    if let Some(over) = conditions.list.get(MAX_CONDITIONS) {
        problems.add(over.span(), format!("`{key}` has more than {MAX_CONDITIONS} claims"), "take some out");
    }
    conditions.faulty = problems.len() > before;
    conditions
}

/// Collects the conditions of a value. A table within a table is a claim within a claim, as TOML reads a name with dots.
fn collect(claim: String, value: &Spanned<DeValue<'_>>, conditions: &mut Conditions, problems: &mut Problems) {
    let test = match value.get_ref() {
        DeValue::Table(table) => match (table.get("contains"), table.len()) {
            (Some(wanted), 1) if !claim.is_empty() => scalars(&claim, wanted, problems).map(Test::Contains),
            (Some(_) | None, _) => {
                for (name, inner) in table {
                    let name = name.get_ref();
                    let full = if claim.is_empty() { name.to_string() } else { format!("{claim}.{name}") };
                    collect(full, inner, conditions, problems);
                }
                return;
            }
        },
        _ => scalars(&claim, value, problems).map(Test::Is),
    };
    if claim.is_empty() || claim.len() > MAX_TEXT {
        let message = format!("the name of a claim must have 1 to {MAX_TEXT} bytes");
        problems.add(value.span(), message, "write the claim's name as the token has it");
    } else if let Some(test) = test {
        conditions.list.push(Spanned::new(value.span(), Condition { claim: claim.into(), test }));
    }
}

/// One value, or a list of values of one type.
fn scalars(claim: &str, value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<Vec<Scalar>> {
    let list = match value.get_ref().as_array() {
        Some(list) => list.iter().map(scalar).collect::<Option<Vec<_>>>(),
        None => scalar(value).map(|one| vec![one]),
    };
    let list = list.filter(|list| {
        let one_type = |pair: &[Scalar]| std::mem::discriminant(&pair[0]) == std::mem::discriminant(&pair[1]);
        !list.is_empty() && list.windows(2).all(one_type)
    });
    if list.is_none() {
        let remedy = "write a text, a whole number, true or false, a list of one of these, or { contains = … } for a claim \
                      that is a list";
        problems.add(value.span(), format!("the claim {claim:?} has no value that can be compared"), remedy);
    }
    list
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Option<Scalar> {
    match value.get_ref() {
        DeValue::String(text) => (text.len() <= MAX_TEXT).then(|| Scalar::Text(text.as_ref().into())),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(Scalar::Integer),
        DeValue::Boolean(flag) => Some(Scalar::Flag(*flag)),
        _ => None,
    }
}
