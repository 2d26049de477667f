//! The limits of a tenant on what it requests.

use super::{reject, retry_in};
use crate::{Core, LeaseRequest, Millis, Rejection, RejectionKind, Tenant};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// Time until a full queue is worth another try, with a fifth more or less, so that not all come at once.
const QUEUE_RETRY: Millis = Millis::secs(10);

/// The tenant in a refusal for one of its limits.
pub(super) fn subject(tenant: &str) -> String {
    format!("tenant:{tenant}")
}

impl Core {
    /// The limits of a tenant that may request leases.
    pub(super) fn known_tenant(&self, name: &Arc<str>) -> Result<&Tenant, Rejection> {
        self.tenants().of(name).ok_or_else(|| {
            let message =
                format!("the configuration has no tenant {name}: have the operator add a [[tenant]] {name} or \"*\"");
            reject(RejectionKind::Denied, "TENANT_UNKNOWN", "", message)
        })
    }

    /// Refuses a request for this number of leases that its tenant may never have, or that its part of the queue has no
    /// room for.
    pub(super) fn within_quota(&self, request: &LeaseRequest, total: u32, tenant: &Tenant) -> Result<(), Rejection> {
        let name = &request.caller.tenant;
        if let Some(most) = tenant.max_slots.filter(|most| total > *most) {
            let message = format!(
                "{total} leases at once, and tenant {name} may hold at most {most} slots: ask for fewer, or have the \
                 operator raise its max_slots"
            );
            return Err(reject(RejectionKind::Precondition, "NEVER_WITHIN_QUOTA", "count", message));
        }
        let queued = self.queue().party(&Some(name.clone())).map_or(0, |own| own.leases);
        if let Some(most) = tenant.max_queue.filter(|most| !request.no_queue && queued.saturating_add(total) > *most) {
            let message = format!(
                "{queued} leases of tenant {name} are in line, and with this request there would be more than {most}, its \
                 max_queue: try again later"
            );
            let spread =
                request.request_id.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
            let wait = Millis(QUEUE_RETRY.0 - QUEUE_RETRY.0 / 5 + i64::from(spread) % (QUEUE_RETRY.0 * 2 / 5));
            let rejection = reject(RejectionKind::Quota, "TENANT_QUEUE_FULL", &subject(name), message);
            return Err(retry_in(rejection, wait));
        }
        Ok(())
    }
}
