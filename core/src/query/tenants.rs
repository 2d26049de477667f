//! Tenants as they stand: what each holds, waits for, and may have.

use crate::{Core, Scope, Tenant, TenantView};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// The tenants that are configured, hold slots or wait, as far as they are for this reader; by name. Who sees all
    /// leases sees all tenants, others see their own.
    pub(crate) fn tenant_views(&self, scope: &Scope) -> Vec<TenantView> {
        let named = self.tenants().named.keys();
        let waiting = self.queue().parties().filter_map(|(party, _)| party.as_ref());
        let all = named.chain(self.holding().map(|(name, _)| name)).chain(waiting);
        let names: BTreeSet<&Arc<str>> = all.filter(|name| scope.shows_tenant(name)).collect();
        names.into_iter().map(|name| self.tenant_view(name, scope)).collect()
    }

    fn tenant_view(&self, name: &Arc<str>, scope: &Scope) -> TenantView {
        // One that the configuration does not have may have nothing.
        let none = Tenant { max_slots: Some(0), max_queue: Some(0), ..Tenant::UNLIMITED };
        let held = self.held(name).cloned().unwrap_or_default();
        let in_line = self.queue().party(&Some(name.clone()));
        let heads = in_line.into_iter().flat_map(|own| own.heads.values()).flat_map(|heads| heads.values());
        TenantView {
            name: name.clone(),
            named: self.tenants().named.contains_key(name),
            limits: self.tenants().of(name).cloned().unwrap_or(none),
            slots: held.slots,
            by_pool: held.by_pool.into_iter().filter(|(pool, _)| scope.shows_pool(pool)).collect(),
            waiting: in_line.map_or(0, |own| own.leases),
            oldest_wait: heads.map(|head| self.now().since(head.since)).max(),
        }
    }
}
