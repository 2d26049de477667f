use super::super::limits::{Taint, WantedClaim, value_matches};
use super::*;
use crate::auth::BuiltIn;
use std::collections::BTreeMap;
use wharfinger_core::Texts;

const MINUTE: Millis = Millis::secs(60);

fn rule(verbs: &[Verb], pools: &[&str], scope: RuleScope, limits: Limits) -> Rule {
    Rule { verbs: Verbs::of(verbs), pools: Pools::matching(pools.iter().copied()), scope, limits }
}

fn with_rules(rules: Vec<Rule>) -> Roles {
    [Arc::new(Role { name: "ci".into(), rules })].into_iter().collect()
}

fn texts(pairs: &[(&str, &str)]) -> Texts {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

fn lists(pairs: &[(&str, &[&str])]) -> BTreeMap<Arc<str>, Vec<Arc<str>>> {
    pairs.iter().map(|(key, list)| (Arc::from(*key), list.iter().map(|value| Arc::from(*value)).collect())).collect()
}

/// A request, which each test changes a little.
#[derive(Clone)]
struct Ask {
    pools: Vec<Option<&'static str>>,
    count: u32,
    ttl: Option<Millis>,
    queue_for: Option<Millis>,
    no_queue: bool,
    priority: i32,
    replace: bool,
    tags: Texts,
    labels: Texts,
    params: Texts,
}

fn ask(pool: &'static str) -> Ask {
    Ask {
        pools: vec![Some(pool)],
        count: 1,
        ttl: Some(MINUTE),
        queue_for: Some(MINUTE),
        no_queue: false,
        priority: 0,
        replace: false,
        tags: Texts::new(),
        labels: Texts::new(),
        params: Texts::new(),
    }
}

impl Ask {
    fn of(&self, roles: &Roles) -> Result<Allowed, Refusal> {
        let claims = self.pools.iter().enumerate().map(|(n, pool)| WantedClaim {
            at: if self.pools.len() > 1 { format!("claims[{n}].") } else { String::new() },
            pool: *pool,
            labels: &self.labels,
            count: self.count,
            params: &self.params,
        });
        roles.lease(&Wanted {
            claims: claims.collect(),
            ttl: self.ttl,
            queue_for: self.queue_for,
            no_queue: self.no_queue,
            priority: self.priority,
            replace: self.replace,
            tags: &self.tags,
        })
    }
}

fn limited() -> Limits {
    Limits {
        count: Some(4),
        ttl: Some(Millis::secs(1800)),
        wait_in_line: Some(Millis::secs(7200)),
        priority: Some((-100, 0)),
        replace: Some(false),
        params: Some(lists(&[("branch", &["main", "release/*"]), ("ref", &[]), ("commit", &["*"])])),
        refuse_tags: vec!["billing/*".into()],
        labels: [(Arc::from("ram"), ["small", "large"].map(Arc::from).into())].into(),
        ..Limits::default()
    }
}

#[test]
fn a_request_within_all_limits_is_allowed_and_one_beyond_any_is_refused_with_its_field() {
    let roles = with_rules(vec![rule(&[Verb::Lease], &["linux-*"], RuleScope::Own, limited())]);
    let labels = texts(&[("ram", "small")]);
    let good = Ask { labels, params: texts(&[("branch", "main"), ("commit", "abc")]), ..ask("linux-1") };
    let edge = Ask {
        count: 4,
        ttl: Some(Millis::secs(1800)),
        queue_for: Some(Millis::secs(7200)),
        priority: -100,
        params: texts(&[("branch", "release/7")]),
        tags: texts(&[("build", "7")]),
        ..good.clone()
    };
    for allowed in [&good, &edge, &Ask { no_queue: true, queue_for: None, ..good.clone() }] {
        assert!(allowed.of(&roles).is_ok());
    }
    let with = |params: &[(&str, &str)]| Ask { params: texts(params), ..good.clone() };
    for (wrong, field, words) in [
        (Ask { count: 5, ..good.clone() }, "count", "count: 5; role \"ci\" allows at most 4"),
        (Ask { ttl: Some(Millis::secs(1801)), ..good.clone() }, "ttl", "at most 30m"),
        (Ask { ttl: None, ..good.clone() }, "ttl", "the pool's default; role \"ci\" allows at most 30m"),
        (Ask { queue_for: Some(Millis::secs(7201)), ..good.clone() }, "queue_for", "at most 2h"),
        (Ask { queue_for: None, ..good.clone() }, "queue_for", "no limit; role \"ci\" allows at most 2h"),
        (Ask { priority: 50, ..good.clone() }, "priority", "priority: 50; role \"ci\" allows -100 to 0"),
        (Ask { priority: 1, ..good.clone() }, "priority", "1"),
        (Ask { priority: -101, ..good.clone() }, "priority", "-101"),
        (Ask { replace: true, ..good.clone() }, "replace", "true; role \"ci\" allows false"),
        (Ask { tags: texts(&[("billing/team", "x")]), ..good.clone() }, "tags[billing/team]", "billing/*"),
        (Ask { labels: texts(&[("ram", "huge")]), ..good.clone() }, "selector.labels[ram]", "huge"),
        (Ask { labels: Texts::new(), ..good.clone() }, "selector.labels[ram]", "not set"),
        (with(&[("submodule_urls", "x")]), "params[submodule_urls]", "the parameters branch, commit, ref"),
        (with(&[("ref", "x")]), "params[ref]", "none"),
        (with(&[("branch", "release/../../x")]), "params[branch]", "main, release/*"),
        (with(&[("branch", "--upload-pack=x")]), "params[branch]", "main, release/*"),
        (with(&[("branch", "mainly")]), "params[branch]", "mainly"),
    ] {
        let refusal = wrong.of(&roles).unwrap_err();
        assert_eq!((&*refusal.field, refusal.limit), (field, true), "{}", refusal.message);
        assert!(refusal.message.contains(words), "{}", refusal.message);
    }
    // A role without limits takes each of them.
    let free = with_rules(vec![rule(&[Verb::Lease], &["*"], RuleScope::Own, Limits::default())]);
    assert!(Ask { count: 60, priority: 100, replace: true, ttl: None, queue_for: None, ..good }.of(&free).is_ok());
}

#[test]
fn one_rule_has_to_allow_all_of_a_request() {
    let many = Limits { count: Some(10), priority: Some((-100, 0)), ..Limits::default() };
    let urgent = Limits { count: Some(2), priority: Some((-100, 50)), ..Limits::default() };
    let roles = with_rules(vec![
        rule(&[Verb::Lease], &["linux-*"], RuleScope::Own, many),
        rule(&[Verb::Lease], &["linux-*", "mac"], RuleScope::Own, urgent),
    ]);
    let asked = |count, priority| Ask { count, priority, ..ask("linux-1") }.of(&roles);
    assert!(asked(10, 0).is_ok() && asked(1, 50).is_ok());
    // The count by one rule and the priority by the other: the nearest rule is the one that allows more of it.
    let refusal = asked(10, 50).unwrap_err();
    assert_eq!(refusal.message, "priority: 50; rule 1 of role \"ci\" allows -100 to 0");
    // A claim on a pool of each rule.
    let both = Ask { pools: vec![Some("linux-1"), Some("mac")], ..ask("linux-1") };
    assert_eq!(both.of(&roles).unwrap().pools, Pools::matching(["linux-*", "mac"]));
    let refusal = Ask { count: 2, ..both }.of(&roles).unwrap_err();
    assert_eq!((&*refusal.field, refusal.limit), ("count", true), "{}", refusal.message);
}

#[test]
fn a_selector_without_a_pool_gets_the_pools_of_the_rules_that_allow_all_of_it() {
    let small = Limits { count: Some(1), total: Some(Millis::secs(60)), ..Limits::default() };
    let roles = with_rules(vec![
        rule(
            &[Verb::Lease],
            &["linux-*"],
            RuleScope::Own,
            Limits { total: Some(Millis::secs(90)), ..Limits::default() },
        ),
        rule(&[Verb::Lease], &["mac"], RuleScope::Own, small),
        rule(&[Verb::Get], &["windows"], RuleScope::Own, Limits::default()),
    ]);
    let by_labels = |count| Ask { pools: vec![None], count, ..ask("") }.of(&roles).unwrap();
    assert_eq!(by_labels(1).pools, Pools::matching(["linux-*", "mac"]));
    assert_eq!(by_labels(1).total, Some(Millis::secs(60)), "it may come from a pool of either");
    assert_eq!((by_labels(2).pools, by_labels(2).total), (Pools::matching(["linux-*"]), Some(Millis::secs(90))));
    // In view, and not to lease from; and out of view, which the core refuses as a pool that never was.
    let refusal = ask("windows").of(&roles).unwrap_err();
    assert_eq!((&*refusal.field, refusal.limit), ("selector.pool", false));
    assert!(refusal.message.contains("windows; rule 1 of role \"ci\" allows linux-*"), "{}", refusal.message);
    assert!(ask("nowhere").of(&roles).is_ok());
    let none = roles.iter().filter(|role| &*role.name == "none").cloned().collect::<Roles>();
    assert_eq!(ask("linux-1").of(&none).unwrap_err().message, "no role of the caller has the verb lease");
}

#[test]
fn a_release_and_a_renewal_have_the_limits_of_their_rule_and_own_leases_are_own_in_all_pools() {
    let limits = |taint| Limits { hold: Some(MINUTE), ttl: Some(MINUTE), taint: Some(taint), ..Limits::default() };
    let pools: Vec<(Arc<str>, bool)> = vec![("copies".into(), false), ("hosts".into(), true), ("mac".into(), false)];
    let ending = |hold: i64, tainted| Ending { hold: Some(Millis::secs(hold)), tainted };
    for (taint, tainted) in [(Taint::Never, [false, false]), (Taint::Copy, [true, false]), (Taint::Host, [true, true])]
    {
        let verbs = [Verb::Release, Verb::Renew];
        let roles = with_rules(vec![rule(&verbs, &["copies", "hosts"], RuleScope::Tenant, limits(taint))]);
        let reach = |ending| roles.reach_of_release(ending, &pools);
        assert!(reach(ending(60, false)).has(Whose::Tenant, Some("hosts")));
        assert!(!reach(ending(60, false)).has(Whose::Tenant, Some("mac")));
        assert!(reach(ending(60, false)).has(Whose::Own, Some("mac")));
        assert!(!reach(ending(61, false)).has(Whose::Own, Some("hosts")));
        for (pool, expected) in ["copies", "hosts"].into_iter().zip(tainted) {
            assert_eq!(reach(ending(1, true)).has(Whose::Tenant, Some(pool)), expected, "{taint:?} {pool}");
        }
        let refusal = roles.refusal(Verb::Release, "hosts", |limits| limits.beyond_release(ending(61, false), true));
        assert_eq!(refusal.message, "hold: 1m1s; role \"ci\" allows at most 1m");
        // A renewal is asked for its pool, too.
        let renewal = roles.reach(Verb::Renew);
        assert!(renewal.has(Whose::Own, Some("hosts")) && !renewal.has(Whose::Own, Some("mac")));
        let refusal = roles.refusal(Verb::Renew, "mac", |_| None);
        assert_eq!(refusal.message, "renew in pool mac; role \"ci\" allows copies, hosts");
    }
    assert_eq!(Limits { ttl: Some(MINUTE), ..Limits::default() }.beyond_renewal(Some(MINUTE)), None);
    assert!(Limits { ttl: Some(MINUTE), ..Limits::default() }.beyond_renewal(Some(Millis::secs(61))).is_some());
}

#[test]
fn a_pattern_of_a_value_matches_no_way_out() {
    for (pattern, value, expected) in [
        ("release/*", "release/1.2", true),
        ("release/*", "release/a/b", true),
        ("release/*", "release/../x", false),
        ("release/*", "release/..", false),
        ("release/*", "release/a\\..\\b", false),
        ("*-stable", "7-stable", true),
        ("*-stable", "--x=7-stable", false),
        ("*", "--upload-pack=x", true),
        ("--flag", "--flag", true),
        ("a..b*", "a..bc", true),
    ] {
        assert_eq!(value_matches(pattern, value), expected, "{pattern} {value}");
    }
}

/// The shortcut for tests of rules and the scope of the core agree.
#[test]
fn a_reach_has_the_leases_that_its_scope_sees() {
    let sets = [Pools::none(), Pools::matching(["linux-*"]), Pools::All];
    let (tenant, principal): (Arc<str>, Arc<str>) = ("web".into(), "ci".into());
    let mut seen = 0;
    for own in &sets {
        for of_tenant in &sets {
            for of_all in &sets {
                let (own, of_tenant, of_all) = (own.clone(), of_tenant.clone(), of_all.clone());
                let reach = Reach { own, of_tenant, of_all, pools: Pools::All };
                let scope = reach.clone().scope(&tenant, &principal);
                for (whose, tenant, principal) in
                    [(Whose::Own, "web", "ci"), (Whose::Tenant, "web", "other"), (Whose::Other, "else", "ci")]
                {
                    for (pool, served) in
                        [(Some("linux-1"), false), (Some("linux-1"), true), (Some("mac"), true), (None, false)]
                    {
                        let mut lease = crate::rpc::lease_for_tests();
                        let spec = Arc::make_mut(&mut lease.spec);
                        (spec.tenant, spec.principal) = (tenant.into(), principal.into());
                        let named = wharfinger_core::Selector { pool: pool.map(Arc::from), ..Default::default() };
                        spec.selector = Arc::new(if served { Default::default() } else { named });
                        lease.pool = pool.filter(|_| served).map(Arc::from);
                        assert_eq!(scope.sees(&lease), reach.has(whose, pool), "{reach:?} {whose:?} {pool:?} {served}");
                        seen += u32::from(reach.has(whose, pool));
                    }
                }
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn a_reach_covers_what_is_less_and_nothing_else() {
    let reach = |roles: &[BuiltIn]| Roles::of(roles).reach(Verb::Watch);
    assert!(reach(&[BuiltIn::Admin]).covers(&reach(&[BuiltIn::Agent, BuiltIn::Lead])));
    assert!(reach(&[BuiltIn::Lead]).covers(&reach(&[BuiltIn::Agent])));
    assert!(!reach(&[BuiltIn::Agent]).covers(&reach(&[BuiltIn::Reader])));
    assert!(!reach(&[]).covers(&reach(&[BuiltIn::Agent])));
    let some = |pools: &[&str]| with_rules(vec![rule(&[Verb::Watch], pools, RuleScope::All, Limits::default())]);
    let (linux, both) = (some(&["linux-*"]).reach(Verb::Watch), some(&["linux-*", "mac"]).reach(Verb::Watch));
    assert!(both.covers(&linux) && !linux.covers(&both));
    assert!(linux.covers(&reach(&[])) && !linux.covers(&reach(&[BuiltIn::Admin])));
    // Of own leases all are reached, and the pools differ all the same.
    let own = |pools: &[&str]| with_rules(vec![rule(&[Verb::Watch], pools, RuleScope::Own, Limits::default())]);
    let (linux, both) = (own(&["linux-*"]).reach(Verb::Watch), own(&["linux-*", "mac"]).reach(Verb::Watch));
    assert!(both.covers(&linux) && !linux.covers(&both));
}

#[test]
fn a_rule_covers_another_with_less_of_each_part() {
    let verbs = [Verb::Lease, Verb::Get];
    let wide = rule(&verbs, &["linux-*"], RuleScope::Tenant, limited());
    assert!(wide.covers(&wide));
    for (narrow, covered) in [
        (rule(&[Verb::Get], &["linux-1"], RuleScope::Own, limited()), true),
        (rule(&[Verb::Release], &["linux-1"], RuleScope::Own, limited()), false),
        (rule(&verbs, &["*"], RuleScope::Own, limited()), false),
        (rule(&verbs, &["linux-*"], RuleScope::All, limited()), false),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { count: Some(5), ..limited() }), false),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { count: Some(3), ..limited() }), true),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { ttl: None, ..limited() }), false),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { priority: Some((0, 1)), ..limited() }), false),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { replace: None, ..limited() }), false),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { taint: Some(Taint::Never), ..limited() }), true),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { params: None, ..limited() }), false),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { refuse_tags: Vec::new(), ..limited() }), false),
        (rule(&verbs, &["linux-*"], RuleScope::Own, Limits { labels: BTreeMap::new(), ..limited() }), false),
    ] {
        assert_eq!(wide.covers(&narrow), covered, "{narrow:?}");
    }
    let of = |taint| Limits { taint, ..Limits::default() };
    for (taint, covered) in
        [(Some(Taint::Never), true), (Some(Taint::Copy), true), (Some(Taint::Host), false), (None, false)]
    {
        assert_eq!(of(Some(Taint::Copy)).covers(&of(taint)), covered, "{taint:?}");
    }
}

/// Own leases are read in all pools. A certificate opens a host, so the pool of the rule counts for it.
#[test]
fn an_own_lease_is_opened_in_the_pools_of_the_rule_alone() {
    let roles = with_rules(vec![rule(&[Verb::Get, Verb::Login], &["linux-*"], RuleScope::Own, Limits::default())]);
    for (verb, pool, reached) in [
        (Verb::Get, "mac", true),
        (Verb::Login, "mac", false),
        (Verb::Get, "linux-1", true),
        (Verb::Login, "linux-1", true),
    ] {
        assert_eq!(roles.reach(verb).has(Whose::Own, Some(pool)), reached, "{verb} {pool}");
    }
}
