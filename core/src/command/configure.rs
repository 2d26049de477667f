//! The configuration came, at the start or by a reload. Waiting leases are never failed by it.

use crate::Core;
use crate::lifecycle::Consequence;
use crate::{Configuration, EventKind, ResourceId, Subject};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    pub(crate) fn configure(&mut self, configuration: Configuration) {
        let Configuration { pools, tenants } = configuration;
        self.configure_tenants(tenants);
        let names: BTreeSet<Arc<str>> = pools.iter().map(|pool| pool.name.clone()).collect();
        let order: Vec<Arc<str>> = pools.iter().map(|pool| pool.name.clone()).collect();
        for config in pools {
            let name = config.name.clone();
            if self.configure_pool(config) {
                self.own_event(EventKind::PoolConfigured, Subject::Pool(name), "");
            }
        }
        let removed: Vec<Arc<str>> = self
            .pool_entries()
            .filter(|p| p.configured && !names.contains(&p.config.name))
            .map(|p| p.config.name.clone())
            .collect();
        for name in removed {
            self.remove_pool(&name);
            self.own_event(EventKind::PoolRemoved, Subject::Pool(name.clone()), "what is left of it drains");
        }
        self.order_pools(order);
        self.drop_empty_pools();
        self.requeue_children();
        self.reindex_all();
        let ids: Vec<ResourceId> = self.entries().map(|entry| entry.row.id).collect();
        for id in ids {
            self.bring_about(Consequence::FollowConfiguration(id));
            self.arm_resource(id);
        }
    }
}
