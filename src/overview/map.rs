//! Resources by failure domain: by the value of a label.

use super::gather::{ROWS, allowed};
use super::source::Source;
use crate::pb;
use pb::ResourceState as State;
use std::collections::BTreeMap;

/// Maximum number of pages of resources that a map looks at.
const PAGES: usize = 20;
/// Maximum number of values that a map has rows for. The others are one row.
const DOMAINS: usize = 100;
/// The label of a pool that names none.
const USUAL: &str = "zone";

/// The resources of one failure domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Domain {
    /// The number of resources in each state.
    pub(crate) states: BTreeMap<State, i32>,
    pub(crate) slots: i32,
    pub(crate) in_use: i32,
    pub(crate) leases: usize,
    /// The brakes that hold in it, each with its pool.
    pub(crate) brakes: Vec<(String, pb::Brake)>,
}

impl Domain {
    /// The number of resources in these states.
    pub(crate) fn count(&self, states: &[State]) -> i32 {
        states.iter().filter_map(|state| self.states.get(state)).sum()
    }

    fn add(&mut self, other: Domain) {
        for (state, count) in other.states {
            *self.states.entry(state).or_default() += count;
        }
        self.slots += other.slots;
        self.in_use += other.in_use;
        self.leases += other.leases;
        self.brakes.extend(other.brakes);
    }
}

/// A farm by failure domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map {
    /// The pool that is shown. Empty: all.
    pub(crate) pool: String,
    /// The label.
    pub(crate) by: String,
    /// The domains by value, the one with the most trouble first. Empty value: the label is not there.
    pub(crate) domains: Vec<(String, Domain)>,
    /// The number of domains that the last row has together. 0: each has its own.
    pub(crate) together: usize,
    /// The number of resources that were looked at.
    pub(crate) looked: usize,
    /// Whether there are more.
    pub(crate) more: bool,
    /// The names of all pools.
    pub(crate) pools: Vec<String>,
    /// The labels that resources have.
    pub(crate) labels: Vec<String>,
}

/// Gathers a map. `by`: the label; empty: that of the pool, or of the first pool that names one.
pub(crate) async fn map<S: Source>(source: &S, pool: &str, by: &str) -> Result<Map, S::Error> {
    let pools = allowed::<S, _>(source.list_pools().await)?.unwrap_or_default().pools;
    let (mut list, mut token, mut more) = (Vec::new(), String::new(), true);
    for _ in 0..PAGES {
        let request = pb::ListResourcesRequest {
            pools: Some(pool.to_owned()).filter(|pool| !pool.is_empty()).into_iter().collect(),
            page_size: ROWS,
            page_token: token,
            ..pb::ListResourcesRequest::default()
        };
        let page = source.list_resources(request).await?;
        list.extend(page.resources);
        token = page.next_page_token;
        if token.is_empty() {
            more = false;
            break;
        }
    }
    Ok(Map { more, ..of(pool, by, &pools, &list) })
}

fn of(pool: &str, by: &str, pools: &[pb::Pool], list: &[pb::Resource]) -> Map {
    let shown = |one: &&pb::Pool| pool.is_empty() || one.name == pool;
    let named = pools.iter().filter(shown).map(|one| &*one.domain).find(|domain| !domain.is_empty());
    let by = if by.is_empty() { named.unwrap_or(USUAL) } else { by };
    let parents: BTreeMap<&str, &pb::Resource> = list.iter().map(|one| (&*one.id, one)).collect();
    let value = |one: &pb::Resource| {
        // A working copy is where its host is.
        let near = [Some(one), parents.get(&*one.parent_id).copied()];
        near.into_iter().flatten().find_map(|one| one.labels.get(by).cloned()).unwrap_or_default()
    };
    let mut domains: BTreeMap<String, Domain> = BTreeMap::new();
    let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
    for one in list {
        let domain = domains.entry(value(one)).or_default();
        *domain.states.entry(one.state()).or_default() += 1;
        domain.slots += one.slots;
        domain.in_use += one.slots_in_use;
        domain.leases += one.lease_ids.len();
        for label in one.labels.keys() {
            *labels.entry(label).or_default() += 1;
        }
    }
    for one in pools.iter().filter(shown).filter(|one| one.domain == by) {
        for brake in &one.brakes {
            domains.entry(brake.domain.clone()).or_default().brakes.push((one.name.clone(), brake.clone()));
        }
    }
    let mut domains: Vec<_> = domains.into_iter().collect();
    domains.sort_by_key(|(value, domain)| {
        let held = domain.brakes.iter().any(|(_, brake)| brake.held_since.is_some());
        (!held, -domain.count(&[State::Suspect, State::Orphaned]), value.clone())
    });
    let together = domains.len().saturating_sub(DOMAINS);
    if together > 0 {
        let mut rest = Domain::default();
        for (_, domain) in domains.split_off(DOMAINS) {
            rest.add(domain);
        }
        domains.push((String::new(), rest));
    }
    Map {
        pool: pool.to_owned(),
        by: by.to_owned(),
        domains,
        together,
        looked: list.len(),
        more: false,
        pools: pools.iter().map(|pool| pool.name.clone()).collect(),
        labels: labels.into_keys().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(id: &str, state: State, zone: &str, parent: &str) -> pb::Resource {
        let labels = [("zone".to_owned(), zone.to_owned())].into_iter().filter(|(_, zone)| !zone.is_empty());
        pb::Resource {
            id: id.into(),
            state: state.into(),
            labels: labels.collect(),
            parent_id: parent.into(),
            slots: 2,
            slots_in_use: 1,
            lease_ids: vec!["lse_1".into()],
            ..pb::Resource::default()
        }
    }

    fn pool(name: &str, domain: &str, brakes: &[(&str, bool)]) -> pb::Pool {
        let since = prost_types::Timestamp::default();
        let brake = |(domain, held): &(&str, bool)| pb::Brake {
            domain: (*domain).into(),
            held_since: held.then_some(since),
            ..pb::Brake::default()
        };
        pb::Pool {
            name: name.into(),
            domain: domain.into(),
            brakes: brakes.iter().map(brake).collect(),
            ..pb::Pool::default()
        }
    }

    #[test]
    fn resources_are_counted_by_domain_and_copies_with_their_hosts() {
        let list = [
            resource("res_1", State::Ready, "a", ""),
            resource("res_2", State::Ready, "b", ""),
            resource("res_3", State::Suspect, "b", ""),
            resource("res_4", State::Ready, "", "res_2"),
            resource("res_5", State::Ready, "", "res_9"),
        ];
        let map = of("", "", &[pool("p", "", &[]), pool("q", "zone", &[])], &list);
        let counts: Vec<_> = map
            .domains
            .iter()
            .map(|(value, one)| (&**value, one.count(&[State::Ready, State::Suspect]), one.slots, one.leases))
            .collect();
        assert_eq!(counts, [("b", 3, 6, 3), ("", 1, 2, 1), ("a", 1, 2, 1)], "trouble goes first");
        assert_eq!((&*map.by, map.looked, map.together), ("zone", 5, 0));
        assert_eq!(of("", "rack", &[], &list).domains.len(), 1);
    }

    #[test]
    fn a_brake_is_in_its_domain_and_goes_before_all_others() {
        let list = [resource("res_1", State::Suspect, "a", ""), resource("res_2", State::Ready, "b", "")];
        let pools = [pool("p", "zone", &[("b", true)]), pool("q", "rack", &[("a", true)])];
        let map = of("", "zone", &pools, &list);
        let brakes: Vec<_> = map.domains.iter().map(|(value, one)| (&**value, one.brakes.len())).collect();
        assert_eq!(brakes, [("b", 1), ("a", 0)]);
        assert_eq!(of("q", "zone", &pools, &list).domains[0].1.brakes, []);
    }

    #[test]
    fn a_label_with_a_value_for_each_resource_makes_no_endless_table() {
        let list: Vec<_> =
            (0..250).map(|n| resource(&format!("res_{n}"), State::Ready, &format!("z{n}"), "")).collect();
        let map = of("", "zone", &[], &list);
        assert_eq!((map.domains.len(), map.together), (DOMAINS + 1, 250 - DOMAINS));
        assert_eq!(map.domains.last().unwrap().1.count(&[State::Ready]), 150);
    }
}
