//! Where a request stands in line, and what its tenant may still have, in words.

use crate::Core;
use crate::policy::turn::Share;
use crate::state::lane::Lane;
use crate::state::queue::Stand;
use crate::state::want::ClassKey;
use crate::{Blocker, BlockerCode};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// The requests of a class that go before one of them, as things stand.
#[derive(Clone, Copy, Default)]
struct Before {
    /// For their priority.
    priority: u32,
    /// For the share of their tenant.
    share: u32,
    /// For their age.
    age: u32,
}

impl Core {
    /// The place of a request among those that want the same, from 1.
    pub(crate) fn position(&self, at: &Stand) -> u32 {
        let before = self.before(at);
        before.priority + before.share + before.age + 1
    }

    fn before(&self, at: &Stand) -> Before {
        let mut before = Before::default();
        let Some(class) = self.queue().class(at.class) else { return before };
        let older = |lane: &Lane| lane.older_than(at.place.1) as u32;
        let own = self.queue().lane(at.class, &at.party, at.place.0).map_or(0, older);
        for ((party, priority), lane) in &class.lanes {
            if *priority < at.place.0 {
                before.priority += lane.len() as u32;
            } else if *priority > at.place.0 {
                continue;
            } else if *party == at.party || party.is_none() || at.party.is_none() {
                before.age += older(lane);
            } else {
                before.share += self.with_a_smaller_share(at, own, &Stand { party: party.clone(), ..at.clone() }, lane);
            }
        }
        before
    }

    /// The requests of another tenant's lane that go before one with `own` requests of its own lane before it.
    fn with_a_smaller_share(&self, at: &Stand, own: u32, other: &Stand, lane: &Lane) -> u32 {
        let share = |of: &Stand, before: u32| {
            let weight = self.tenant(&of.party).map_or(1, |tenant| tenant.weight);
            let wanted = (u64::from(before) + 1) * of.key.len() as u64;
            Share::new(self.held_for(&of.party, &of.key) + wanted, weight)
        };
        let wanted = share(at, own);
        // The share grows with each request, so that the first ones have smaller shares, and at most one has the same.
        let (mut least, mut most) = (0, lane.len() as u32);
        while least < most {
            let middle = least + (most - least) / 2;
            if share(other, middle) < wanted { least = middle + 1 } else { most = middle }
        }
        let same = lane.behind(least as usize).next().filter(|_| share(other, least) == wanted);
        least + u32::from(same.is_some_and(|(seq, _)| *seq < at.place.1))
    }

    /// The rule that decides the place of a request where tenants compete, as the end of a sentence; empty where they do not.
    pub(crate) fn why_there(&self, at: &Stand) -> String {
        let Some(name) = &at.party else { return String::new() };
        let class = self.queue().class(at.class);
        let others =
            class.is_some_and(|class| class.lanes.keys().any(|(party, _)| party.is_some() && *party != at.party));
        if self.tenants().is_empty() && !others {
            return String::new();
        }
        let held = self.held(name).map_or(0, |held| held.slots);
        let tenant = self.tenant(&at.party);
        let most = tenant.and_then(|tenant| tenant.max_slots).map(|most| format!(" of {most}")).unwrap_or_default();
        let weight = tenant.map_or(1, |tenant| tenant.weight);
        let before = self.before(at);
        let parts = [(before.priority, "priority"), (before.share, "share"), (before.age, "age")];
        let mut reasons = String::new();
        for (count, why) in parts.into_iter().filter(|(count, _)| *count > 0) {
            reasons.push_str(if reasons.is_empty() { "; before it: " } else { ", " });
            reasons.push_str(&format!("{count} by {why}"));
        }
        format!("; tenant {name} holds {held}{most} slots (weight {weight}){reasons}")
    }

    /// The quota that keeps a request waiting.
    pub(crate) fn quota_blocker(&self, at: &Stand) -> Option<Blocker> {
        let name = at.party.as_ref()?;
        let left = self.quota_left(&at.party)?;
        let wanted = at.key.len() as u64;
        if wanted <= left {
            return None;
        }
        let held = self.held(name).map_or(0, |held| held.slots);
        let most = self.tenant(&at.party).and_then(|tenant| tenant.max_slots);
        let raise = format!("have the operator raise `max_slots` of the [[tenant]] {name}");
        let (code, detail, remedy) = match most {
            None => (
                BlockerCode::TenantQuota,
                format!("the configuration has no tenant {name}"),
                format!("have the operator add a [[tenant]] {name} or \"*\""),
            ),
            Some(most) if wanted > u64::from(most) => (
                BlockerCode::NeverWithinQuota,
                format!("it wants {wanted} slots at once, and tenant {name} may hold at most {most}"),
                format!("ask for at most {most}, or {raise}"),
            ),
            Some(most) => (
                BlockerCode::TenantQuota,
                format!("tenant {name} holds {held} of the {most} slots that it may, and this request wants {wanted}"),
                format!("wait for a release, or {raise}"),
            ),
        };
        Some(Blocker { pool: pool_of(&at.key), code, detail, remedy })
    }
}

/// The pool that all wants of a class name; `*`: they name several, or none.
fn pool_of(key: &ClassKey) -> Arc<str> {
    let mut names = key.iter().map(|want| match want.pools() {
        Some([one]) => Some(one),
        Some(_) | None => None,
    });
    match names.next().flatten() {
        Some(first) if names.all(|name| name == Some(first)) => first.clone(),
        Some(_) | None => Arc::from("*"),
    }
}
