//! The usual TTL of each pool, for callers that compare a request with rules before they submit it. A read of the core would make each
//! of these requests wait for the turn under way.

use std::sync::Arc;
use tokio::sync::watch;
use wharfinger_core::{Configuration, Millis, Selector};

/// The pools of the configuration in force, in its order, each with the TTL of a lease whose request has none.
type Pools = Arc<[(Arc<str>, Millis)]>;

/// The usual TTLs by the configuration that this server leads with. Cheap to clone; the clones share it.
#[derive(Clone, Debug, Default)]
pub struct UsualTtls(Arc<watch::Sender<Option<Pools>>>);

impl UsualTtls {
    /// Takes over a configuration that is committed.
    pub(super) fn set(&self, configuration: &Configuration) {
        let pools = configuration.pools.iter().map(|pool| (pool.name.clone(), pool.default_ttl));
        self.0.send_replace(Some(pools.collect()));
    }

    /// The longest TTL that leases by these selectors have if their request has none. Each selector counts with its first pool.
    /// The outer `None`: this server has not led yet.
    pub fn longest<'s>(&self, selectors: impl Iterator<Item = &'s Selector>) -> Option<Option<Millis>> {
        let pools = self.0.borrow().clone()?;
        let usual = |selector: &Selector| {
            let serves =
                |name: &Arc<str>| selector.pool.as_ref().is_none_or(|pool| pool == name) && selector.among.has(name);
            pools.iter().find(|(name, _)| serves(name)).map(|(_, ttl)| *ttl)
        };
        Some(selectors.filter_map(usual).max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfinger_core::{PoolConfig, Pools as Among};

    #[test]
    fn each_selector_counts_with_its_first_pool_and_the_last_configuration_is_in_force() {
        let ttls = UsualTtls::default();
        let pool = |name: &str, seconds| PoolConfig { default_ttl: Millis::secs(seconds), ..PoolConfig::named(name) };
        let longest = |selectors: &[Selector]| ttls.longest(selectors.iter());
        assert_eq!(longest(&[Selector::pool("a")]), None);

        ttls.set(&vec![pool("a", 10), pool("b", 30), pool("c", 20)].into());
        let among = |names: &[&str]| Selector { among: Among::matching(names.iter().copied()), ..Selector::default() };
        for (selectors, seconds) in [
            (vec![Selector::pool("a")], Some(10)),
            (vec![Selector::default()], Some(10)),
            (vec![among(&["b", "c"])], Some(30)),
            (vec![Selector::pool("a"), Selector::pool("c")], Some(20)),
            (vec![Selector::pool("d")], None),
            (vec![Selector { among: Among::matching(["b"]), ..Selector::pool("a") }], None),
        ] {
            assert_eq!(longest(&selectors), Some(seconds.map(Millis::secs)), "{selectors:?}");
        }

        ttls.set(&vec![pool("a", 40)].into());
        assert_eq!(longest(&[Selector::pool("a")]), Some(Some(Millis::secs(40))));
        assert_eq!(longest(&[Selector::pool("b")]), Some(None));
    }
}
