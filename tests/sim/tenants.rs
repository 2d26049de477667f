//! The tenants of a run: weights, quotas and patience, and the changes that a reload makes.

use crate::rng::Rng;
use std::sync::Arc;
use wharfinger_core::{Millis, Tenant, Tenants};

/// Number of the tenants in a world of several.
const COUNT: u32 = 2;

/// Whether the holders of a seed are of two tenants. In the other worlds there is one, and the oracle knows the whole order.
pub(crate) fn are_several(seed: u64) -> bool {
    !seed.is_multiple_of(2)
}

/// The tenants of a seed. In a world of one tenant none is configured.
pub(crate) fn configured(seed: u64) -> Arc<Tenants> {
    if !are_several(seed) {
        return Arc::default();
    }
    drawn(&mut Rng::new(seed ^ 0x7E4A_4415))
}

/// How long a request of a seed waits until it rises. Without several tenants, and in a third of the other worlds: for ever.
pub(crate) fn patience(seed: u64) -> Millis {
    if !are_several(seed) {
        return Millis::ZERO;
    }
    let mut rng = Rng::new(seed ^ 0x9A71_E4CE);
    if rng.chance(333) { Millis::ZERO } else { Millis::secs(rng.between(4, 40)) }
}

/// A person edits the tenants, in a world of several.
pub(crate) fn edited(rng: &mut Rng, now: &Arc<Tenants>) -> Arc<Tenants> {
    if now.is_empty() || rng.chance(400) { now.clone() } else { drawn(rng) }
}

/// Tenants with weights and quotas alone, for a run that never changes them.
pub(crate) fn fixed(seed: u64) -> Arc<Tenants> {
    if !are_several(seed) {
        return Arc::default();
    }
    let mut rng = Rng::new(seed ^ 0xF1_7E0A);
    let mut one = || Tenant {
        weight: rng.between(1, 5) as u32,
        max_slots: rng.chance(500).then(|| rng.between(2, 7) as u32),
        ..Tenant::default()
    };
    let others = Some(one());
    let named = (0..COUNT - 1).map(|n| (Arc::from(format!("tenant-{n}")), one())).collect();
    Arc::new(Tenants { named, others })
}

/// The same tenants without quotas.
pub(crate) fn ample(now: &Tenants) -> Arc<Tenants> {
    let without = |tenant: &Tenant| Tenant { weight: tenant.weight, ..Tenant::default() };
    let named = now.named.iter().map(|(name, tenant)| (name.clone(), without(tenant))).collect();
    Arc::new(Tenants { named, others: now.others.as_ref().map(without) })
}

/// Most have a weight of their own, and some a quota.
fn drawn(rng: &mut Rng) -> Arc<Tenants> {
    let mut one = || Tenant {
        weight: rng.between(1, 5) as u32,
        max_slots: rng.chance(300).then(|| rng.between(1, 8) as u32),
        max_queue: rng.chance(200).then(|| rng.between(1, 6) as u32),
        max_held: rng.chance(400).then(|| rng.between(0, 2) as u32),
        ..Tenant::default()
    };
    // The last one has no entry of its own.
    let others = Some(one());
    let named = (0..COUNT - 1).map(|n| (Arc::from(format!("tenant-{n}")), one())).collect();
    Arc::new(Tenants { named, others })
}

/// A term that the broker does not get, so that the oracle must report a breach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Omitted {
    /// All weights are one.
    Weights,
    /// No request rises with time.
    Patience,
    /// Each request rises at once, so that the oldest one is next.
    Shares,
    /// No tenant has a maximum of slots.
    MaxSlots,
    /// No tenant has a maximum of leases in line.
    MaxQueue,
    /// No tenant has a maximum of resources that are kept for it.
    MaxHeld,
}

impl Omitted {
    pub(crate) const ALL: [Omitted; 6] =
        [Omitted::Weights, Omitted::Patience, Omitted::Shares, Omitted::MaxSlots, Omitted::MaxQueue, Omitted::MaxHeld];

    /// The term of this name, as [`std::fmt::Debug`] prints it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| format!("{own:?}").eq_ignore_ascii_case(name))
    }

    /// The tenants without the term.
    pub(crate) fn tenants(self, all: &Tenants) -> Arc<Tenants> {
        let without = |tenant: &Tenant| match self {
            Omitted::Weights => Tenant { weight: 1, ..tenant.clone() },
            Omitted::MaxSlots => Tenant { max_slots: None, ..tenant.clone() },
            Omitted::MaxQueue => Tenant { max_queue: None, ..tenant.clone() },
            Omitted::MaxHeld => Tenant { max_held: None, ..tenant.clone() },
            Omitted::Patience | Omitted::Shares => tenant.clone(),
        };
        let named = all.named.iter().map(|(name, tenant)| (name.clone(), without(tenant))).collect();
        Arc::new(Tenants { named, others: all.others.as_ref().map(without) })
    }

    /// The patience without the term.
    pub(crate) fn patience(self, patience: Millis) -> Millis {
        match self {
            Omitted::Patience => Millis::ZERO,
            Omitted::Shares => Millis(1),
            Omitted::Weights | Omitted::MaxSlots | Omitted::MaxQueue | Omitted::MaxHeld => patience,
        }
    }
}
