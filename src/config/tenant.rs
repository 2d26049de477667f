//! `[[tenant]]`: the shares and the limits of tenants.

use super::auth::AuthSection;
use super::problem::{Problems, Span};
use super::reader::Reader;
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::Spanned;
use wharfinger_adapter::settings::is_name;
use wharfinger_core::{Caller, Millis, Rate, Tenant, Tenants};

/// The name of the entry for all tenants without one of their own.
const OTHERS: &str = "*";
/// Requests at once, where `rate` does not say it: those of this many seconds, and at least one.
const BURST_SECONDS: u32 = 5;
/// Maximum number of anything that is counted.
const MOST: u32 = 10_000_000;

/// One `[[tenant]]` as read.
#[derive(Debug)]
pub(crate) struct TenantSection {
    span: Span,
    name: Option<Spanned<String>>,
    missing: bool,
    weight: Option<Spanned<u32>>,
    max_slots: Option<Spanned<u32>>,
    max_queue: Option<Spanned<u32>>,
    max_watches: Option<Spanned<u32>>,
    max_held: Option<Spanned<u32>>,
    max_in_doubt: Option<Spanned<u32>>,
    rate: Option<Span>,
    lease_rate: Option<Spanned<String>>,
    burst: Option<Spanned<u32>>,
    total: Option<Spanned<Millis>>,
}

pub(crate) fn read(reader: &mut Reader<'_>, problems: &mut Problems) -> Vec<TenantSection> {
    let mut sections = Vec::new();
    for mut tenant in reader.tables("tenant", "[[tenant]]", problems) {
        let mut rate = tenant.table("rate", "[tenant.rate]", problems);
        let (span, lease_rate, burst) =
            (rate.span(), rate.text("lease", problems), rate.number("burst", 1..=MOST, problems));
        rate.finish(problems);
        sections.push(TenantSection {
            span: tenant.span().unwrap_or(0..0),
            missing: tenant.value("name").is_none(),
            name: tenant.text("name", problems),
            weight: tenant.number("weight", 1..=1_000_000, problems),
            max_slots: tenant.number("max_slots", 1..=MOST, problems),
            max_queue: tenant.number("max_queue", 1..=MOST, problems),
            max_watches: tenant.number("max_watches", 1..=MOST, problems),
            max_held: tenant.number("max_held", 0..=MOST, problems),
            max_in_doubt: tenant.number("max_in_doubt", 0..=MOST, problems),
            rate: span,
            lease_rate,
            burst,
            total: tenant.duration("total", Millis::secs(1)..=Millis::secs(365 * 86_400), problems),
        });
        tenant.finish(problems);
    }
    sections
}

/// Checks the tables. Without any, tenants have no limits and share alike.
pub(crate) fn check(sections: &[TenantSection], auth: &AuthSection, problems: &mut Problems) -> Tenants {
    let mut tenants = Tenants::default();
    let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
    for section in sections {
        let tenant = build(section, problems);
        let Some(name) = &section.name else {
            if section.missing {
                let remedy =
                    "add name = \"default\", the name of a team, or \"*\" for all that have no entry of their own";
                problems.add(section.span.clone(), "this tenant has no `name`", remedy);
            }
            continue;
        };
        let text = name.get_ref().as_str();
        if text != OTHERS && !is_name(text) {
            problems.add(
                name.span(),
                format!("{text:?} is not a valid name of a tenant"),
                "use 1 to 63 of a to z, 0 to 9 and -, or \"*\" for all that have no entry of their own",
            );
        }
        if let Some(first) = seen.insert(text, name) {
            problems
                .add(name.span(), format!("two tenants have the name {text:?}"), "put their limits into one")
                .label("again here")
                .also(first.span(), "first here");
        }
        if text == OTHERS {
            tenants.others = Some(tenant);
        } else {
            tenants.named.insert(Arc::from(text), tenant);
        }
    }
    if let Some(first) = sections.first().filter(|_| tenants.others.is_none()) {
        check_callers(first, &tenants, auth, problems);
    }
    tenants
}

/// Without an entry for all others, each tenant of a caller needs one.
fn check_callers(first: &TenantSection, tenants: &Tenants, auth: &AuthSection, problems: &mut Problems) {
    let remedy = "add a [[tenant]] with this name, or one with the name \"*\"";
    let own = Caller::DEFAULT_TENANT;
    if !auth.is_there() && !tenants.named.contains_key(own) {
        problems.add(
            first.span.clone(),
            format!(
                "without [auth] all callers are of the tenant {own:?}, which has no entry, and may request nothing"
            ),
            remedy,
        );
    }
    for tenant in auth.tenants().filter(|tenant| !tenants.named.contains_key(tenant.get_ref().as_str())) {
        problems.add(
            tenant.span(),
            format!("the tenant {:?} has no entry, and may request nothing", tenant.get_ref()),
            remedy,
        );
    }
}

fn build(section: &TenantSection, problems: &mut Problems) -> Tenant {
    let some = |value: &Option<Spanned<u32>>| value.as_ref().map(|value| *value.get_ref());
    Tenant {
        weight: some(&section.weight).unwrap_or(1),
        max_slots: some(&section.max_slots),
        max_queue: some(&section.max_queue),
        max_watches: some(&section.max_watches),
        max_held: some(&section.max_held),
        max_in_doubt: some(&section.max_in_doubt),
        rate: build_rate(section, problems),
        total: section.total.as_ref().map(|total| *total.get_ref()),
    }
}

fn build_rate(section: &TenantSection, problems: &mut Problems) -> Option<Rate> {
    let span = section.rate.clone()?;
    let Some(text) = &section.lease_rate else {
        problems.add(span, "this rate has no `lease`", "add lease = \"10/s\": requests for leases in a second");
        return None;
    };
    let Some(per_thousand_seconds) = parse(text.get_ref()) else {
        problems.add(
            text.span(),
            format!("`lease` is not a rate: {:?}", text.get_ref()),
            "write a number of requests in a second, a minute or an hour, as in \"10/s\", \"30/m\" or \"100/h\"",
        );
        return None;
    };
    let burst = section.burst.as_ref().map(|burst| *burst.get_ref());
    Some(Rate { per_thousand_seconds, burst: burst.unwrap_or((per_thousand_seconds / 1000 * BURST_SECONDS).max(1)) })
}

/// Requests in a thousand seconds.
fn parse(text: &str) -> Option<u32> {
    let (count, unit) = text.split_once('/')?;
    let count: u32 = count.trim().parse().ok()?;
    let seconds: u64 = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    u32::try_from(u64::from(count) * 1000 / seconds).ok().filter(|rate| (1..=100_000_000).contains(rate))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::path::Path;
    use wharfinger_core::{Millis, Rate, Tenant};

    #[test]
    fn shares_and_limits_are_taken_as_they_are_written() {
        let source = r#"
            [[tenant]]
            name = "web"
            weight = 3
            max_slots = 60
            max_queue = 500
            max_watches = 50
            max_held = 2
            max_in_doubt = 0
            rate = { lease = "10/s", burst = 50 }
            total = "8h"
            [[tenant]]
            name = "*"
            rate = { lease = "2/s" }
        "#;
        let loaded = crate::config::parse(Path::new("/srv/w/wharfinger.toml"), source).unwrap();
        let web = Tenant {
            weight: 3,
            max_slots: Some(60),
            max_queue: Some(500),
            max_watches: Some(50),
            max_held: Some(2),
            max_in_doubt: Some(0),
            rate: Some(Rate { per_thousand_seconds: 10_000, burst: 50 }),
            total: Some(Millis::secs(28_800)),
        };
        assert_eq!(loaded.tenants.of("web"), Some(&web));
        let rate = Some(Rate { per_thousand_seconds: 2000, burst: 10 });
        assert_eq!(loaded.tenants.of("mobile"), Some(&Tenant { rate, ..Tenant::default() }));
        assert_eq!(loaded.configuration().tenants, loaded.tenants);
    }

    #[test]
    fn without_an_entry_for_all_others_only_the_named_tenants_request() {
        let source = "[[tenant]]\nname = \"default\"\nweight = 2\n";
        let loaded = crate::config::parse(Path::new("/srv/w/wharfinger.toml"), source).unwrap();
        assert_eq!(
            (loaded.tenants.of("default").map(|tenant| tenant.weight), loaded.tenants.of("web")),
            (Some(2), None)
        );
    }

    #[test]
    fn a_rate_has_a_unit_and_is_neither_zero_nor_endless() {
        assert_eq!((parse("10/s"), parse("30/m"), parse("36 / h")), (Some(10_000), Some(500), Some(10)));
        for wrong in ["", "10", "10/d", "/s", "-1/s", "0/s", "1/h/s", "4294967295/s", "1.5/s"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
