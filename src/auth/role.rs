//! Roles: rules that allow. No rule denies, and what no rule allows is refused. One rule must allow all of a request: the limits of
//! several are not mixed.

use super::limits::{Beyond, Ending, Limits, Wanted};
use super::verb::{Verb, Verbs};
use std::fmt;
use std::sync::Arc;
use wharfinger_core::{Millis, Pools, Scope, Within};

/// A role with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The name, by which grants give it.
    pub name: Arc<str>,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The verbs that it allows.
    pub verbs: Verbs,
    /// The pools in which it allows them. One's own leases are read and released in all pools.
    pub pools: Pools,
    /// The leases for which it allows them.
    pub scope: RuleScope,
    /// How much it allows.
    pub limits: Limits,
}

/// The leases for which a rule allows its verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleScope {
    /// Those of the principal.
    Own,
    /// Those of the tenant.
    Tenant,
    /// Those of all tenants.
    All,
}

impl RuleScope {
    /// All of them.
    pub const ALL: [RuleScope; 3] = [RuleScope::Own, RuleScope::Tenant, RuleScope::All];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            RuleScope::Own => "own",
            RuleScope::Tenant => "tenant",
            RuleScope::All => "all",
        }
    }
}

impl Rule {
    /// Whether it allows all that another one allows.
    pub(crate) fn covers(&self, other: &Rule) -> bool {
        self.verbs.covers(other.verbs)
            && self.pools.covers(&other.pools)
            && self.scope >= other.scope
            && self.limits.covers(&other.limits)
    }
}

/// The refusal of a call by the rules of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the field in the request's message; empty if none.
    pub field: String,
    /// Whether a rule allows it, and less of it.
    pub limit: bool,
    /// The value asked, the nearest rule, and what it allows.
    pub message: String,
}

/// A request for leases that a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// The pools from which it may be served.
    pub(crate) pools: Pools,
    /// Maximum time from the grant to the last end by renewals; `None`: a rule without one allows it.
    pub(crate) total: Option<Millis>,
    /// The rule.
    pub(crate) rule: String,
}

/// A set of roles. They add up; a caller without one may call nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(Arc<[Arc<Role>]>);

impl FromIterator<Arc<Role>> for Roles {
    fn from_iter<T: IntoIterator<Item = Arc<Role>>>(roles: T) -> Self {
        let mut roles: Vec<Arc<Role>> = roles.into_iter().collect();
        roles.sort_by(|one, other| one.name.cmp(&other.name));
        roles.dedup_by(|one, other| one.name == other.name);
        Self(roles.into())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|role| &*role.name).collect();
        if names.is_empty() { f.write_str("none") } else { f.write_str(&names.join(", ")) }
    }
}

impl Roles {
    /// The roles.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.0.iter()
    }

    /// The roles of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.0.iter().chain(other.0.iter()).cloned().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules, each with its name.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (Named<'_>, &Rule)> {
        self.0.iter().flat_map(|role| {
            let several = role.rules.len() > 1;
            role.rules.iter().enumerate().map(move |(n, rule)| (Named { role, number: several.then_some(n + 1) }, rule))
        })
    }

    fn with(&self, verb: Verb) -> impl Iterator<Item = (Named<'_>, &Rule)> {
        self.rules().filter(move |(_, rule)| rule.verbs.has(verb))
    }

    /// Whether a rule has the verb.
    pub fn has(&self, verb: Verb) -> bool {
        self.with(verb).next().is_some()
    }

    /// Whether a rule limits the TTL of a request.
    pub(crate) fn limits_ttl(&self) -> bool {
        self.with(Verb::Lease).any(|(_, rule)| rule.limits.ttl.is_some())
    }

    /// The pools that exist for the caller: those of all its rules.
    pub fn pools(&self) -> Pools {
        self.rules().fold(Pools::none(), |pools, (_, rule)| pools.and(&rule.pools))
    }

    /// The pools of the rules with a verb.
    pub fn pools_with(&self, verb: Verb) -> Pools {
        self.with(verb).fold(Pools::none(), |pools, (_, rule)| pools.and(&rule.pools))
    }

    /// The leases for which the verb is allowed.
    pub(crate) fn reach(&self, verb: Verb) -> Reach {
        self.reach_where(verb, |rule| Some(rule.pools.clone()))
    }

    /// The same by those rules alone, and in those pools, that `pools` returns.
    ///
    /// One's own leases are one's own in all pools. What keeps them or opens their resource is asked for their pool.
    pub(crate) fn reach_where(&self, verb: Verb, pools: impl Fn(&Rule) -> Option<Pools>) -> Reach {
        let in_pools = matches!(verb, Verb::Renew | Verb::Login);
        self.reached(verb, |rule| {
            let pools = pools(rule)?;
            Some((if in_pools { pools.clone() } else { Pools::All }, pools))
        })
    }

    /// `pools` returns the pools of own leases, and those of others.
    fn reached(&self, verb: Verb, pools: impl Fn(&Rule) -> Option<(Pools, Pools)>) -> Reach {
        let mut reach = Reach::default();
        for (_, rule) in self.with(verb) {
            let Some((own, pools)) = pools(rule) else { continue };
            reach.own = reach.own.and(&own);
            match rule.scope {
                RuleScope::Own => {}
                RuleScope::Tenant => reach.of_tenant = reach.of_tenant.and(&pools),
                RuleScope::All => reach.of_all = reach.of_all.and(&pools),
            }
            reach.pools = reach.pools.and(&pools);
        }
        reach
    }

    /// The rule that allows a request for leases.
    ///
    /// A pool that does not exist for the caller is no reason to refuse here: the core refuses it as one that never was.
    pub(crate) fn lease(&self, wanted: &Wanted<'_>) -> Result<Allowed, Refusal> {
        let shown = self.pools();
        let named = wanted.claims.iter().all(|claim| claim.pool.is_some());
        let mut nearest: Option<(u32, Refusal)> = None;
        let mut allowed: Option<Allowed> = None;
        for (name, rule) in self.with(Verb::Lease) {
            let pools = &rule.pools;
            let other = wanted.claims.iter().find_map(|claim| {
                let pool = claim.pool.filter(|pool| shown.has(pool) && !pools.has(pool))?;
                Some((format!("{}selector.pool", claim.at), pool))
            });
            let (passed, refusal) = match (other, rule.limits.beyond(wanted)) {
                (Some((field, pool)), _) => {
                    let message = format!("{field}: {pool}; {name} allows {pools}");
                    (0, Refusal { field, limit: false, message })
                }
                (None, Some((passed, beyond))) => (passed + 1, name.refuses(beyond)),
                (None, None) => {
                    let total = rule.limits.total;
                    allowed = Some(match allowed {
                        None => Allowed { pools: pools.clone(), total, rule: name.to_string() },
                        Some(first) => Allowed {
                            pools: first.pools.and(pools),
                            total: of_both(first.total, total, named),
                            rule: first.rule,
                        },
                    });
                    continue;
                }
            };
            if nearest.as_ref().is_none_or(|(most, _)| passed > *most) {
                nearest = Some((passed, refusal));
            }
        }
        let none = || Refusal { field: String::new(), limit: false, message: no_rule(Verb::Lease) };
        allowed.ok_or_else(|| nearest.map_or_else(none, |(_, refusal)| refusal))
    }

    /// The leases that may end so. `pools`: all pools, each with whether its resources have slots for several leases.
    pub(crate) fn reach_of_release(&self, ending: Ending, pools: &[(Arc<str>, bool)]) -> Reach {
        self.reached(Verb::Release, |rule| {
            let beyond = |shared| rule.limits.beyond_release(ending, shared).is_some();
            match (beyond(false), beyond(true)) {
                (false, false) => Some((Pools::All, rule.pools.clone())),
                (true, _) => None,
                (false, true) => {
                    let alone = pools.iter().filter(|(_, shared)| !shared).map(|(name, _)| name.clone());
                    let alone: Vec<Arc<str>> = alone.collect();
                    let here = alone.iter().filter(|name| rule.pools.has(name)).cloned();
                    Some((Pools::matching(alone.iter().cloned()), Pools::matching(here)))
                }
            }
        })
    }

    /// The refusal of a verb on a lease of this pool that is the caller's own. `beyond`: the limit that it is beyond in a rule.
    pub(crate) fn refusal(&self, verb: Verb, pool: &str, beyond: impl Fn(&Limits) -> Option<Beyond>) -> Refusal {
        let here = self.with(verb).filter(|(_, rule)| rule.pools.has(pool));
        let limit = here.filter_map(|(name, rule)| Some(name.refuses(beyond(&rule.limits)?))).next();
        limit.unwrap_or_else(|| {
            let message = match self.with(verb).next() {
                Some((name, rule)) => format!("{verb} in pool {pool}; {name} allows {}", rule.pools),
                None => no_rule(verb),
            };
            Refusal { field: "lease_id".to_owned(), limit: false, message }
        })
    }

    /// The rule with the widest scope that has a verb in a pool, or in some pool. `None`: there is none.
    pub fn best(&self, verb: Verb, pool: Option<&str>) -> Option<Best> {
        let (name, rule) = self.can(verb, pool).ok()?;
        Some(Best { name: name.to_string(), scope: rule.scope, limits: rule.limits.shown() })
    }

    /// The rule that allows a verb in a pool, or in some pool. Limits and leases are not asked for.
    pub(crate) fn can(&self, verb: Verb, pool: Option<&str>) -> Result<(Named<'_>, &Rule), Refusal> {
        let fits = |rule: &Rule| pool.is_none_or(|pool| rule.pools.has(pool));
        // The widest scope first.
        let best = self.with(verb).filter(|(_, rule)| fits(rule)).max_by_key(|(_, rule)| rule.scope);
        best.ok_or_else(|| {
            let message = match (self.with(verb).next(), pool) {
                (Some((name, rule)), Some(pool)) => format!("{verb} in pool {pool}; {name} allows {}", rule.pools),
                (Some(_) | None, _) => no_rule(verb),
            };
            Refusal { field: "pool".to_owned(), limit: false, message }
        })
    }
}

/// A rule in words.
#[derive(Clone, Debug)]
pub struct Best {
    /// The name of its role, with its number if the role has several.
    pub name: String,
    /// The leases for which it is.
    pub scope: RuleScope,
    /// Its limits, each with what it allows.
    pub limits: Vec<(String, String)>,
}

/// The total of a request that two rules allow. In named pools each rule allows all of it, so that the longer one counts. By labels
/// the lease may come from a pool of either, so that the shorter one counts.
fn of_both(one: Option<Millis>, other: Option<Millis>, named: bool) -> Option<Millis> {
    match one.zip(other) {
        Some((one, other)) if named => Some(one.max(other)),
        Some((one, other)) => Some(one.min(other)),
        None if named => None,
        None => one.or(other),
    }
}

fn no_rule(verb: Verb) -> String {
    format!("no role of the caller has the verb {verb}")
}

/// A rule by the name of its role, and by its number if the role has several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'r> {
    pub(crate) role: &'r Role,
    pub(crate) number: Option<usize>,
}

impl Named<'_> {
    fn refuses(self, beyond: Beyond) -> Refusal {
        let Beyond { field, asked, allowed } = beyond;
        Refusal { limit: true, message: format!("{field}: {asked}; {self} allows {allowed}"), field }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(f, "rule {number} of role {:?}", self.role.name),
            None => write!(f, "role {:?}", self.role.name),
        }
    }
}

/// The leases and pools for which a verb is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) own: Pools,
    pub(crate) of_tenant: Pools,
    pub(crate) of_all: Pools,
    pub(crate) pools: Pools,
}

/// No pools at all.
impl Default for Reach {
    fn default() -> Self {
        let none = Pools::none;
        Self { own: none(), of_tenant: none(), of_all: none(), pools: none() }
    }
}

/// The owner of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The caller's own.
    Own,
    /// Another principal's of its tenant.
    Tenant,
    /// Another tenant's.
    Other,
}

impl Reach {
    /// Whether it has a lease, as its scope does. `None`: the lease waits by labels alone.
    pub(crate) fn has(&self, whose: Whose, pool: Option<&str>) -> bool {
        let within = |pools: &Pools| pool.map_or(pools.is_all(), |pool| pools.has(pool));
        within(&self.of_all)
            || whose != Whose::Other && within(&self.of_tenant)
            || whose == Whose::Own && (within(&self.own) || pool.is_none() && !self.own.is_none())
    }

    /// Whether each lease and pool of the other is in this one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.own.covers(&other.own)
            && self.of_tenant.and(&self.of_all).covers(&other.of_tenant)
            && self.of_all.covers(&other.of_all)
            && self.pools.covers(&other.pools)
    }

    /// The leases and pools of both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self {
            own: self.own.and(&other.own),
            of_tenant: self.of_tenant.and(&other.of_tenant),
            of_all: self.of_all.and(&other.of_all),
            pools: self.pools.and(&other.pools),
        }
    }

    /// The scope of this caller.
    pub(crate) fn scope(self, tenant: &Arc<str>, principal: &Arc<str>) -> Scope {
        let Reach { own, of_tenant, of_all, pools } = self;
        let (tenant, principal) = (tenant.clone(), principal.clone());
        if of_all.is_all() {
            return Scope::All;
        }
        if of_all.is_none() && pools.is_all() {
            if of_tenant.is_all() {
                return Scope::Tenant(tenant);
            }
            if of_tenant.is_none() && own.is_all() {
                return Scope::Own { tenant, principal };
            }
        }
        Scope::Within(Arc::new(Within { tenant, principal, own, of_tenant, of_all, pools }))
    }
}

#[cfg(test)]
mod tests;
