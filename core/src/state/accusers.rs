//! Reports of tenants on machines that they share with others; not stored.

use crate::{Core, Millis, ResourceId, Timestamp};
use alloc::sync::Arc;

/// Checks without a finding, in a row, after which reports of a tenant on a machine start no check for [`MUTED`].
const VAIN_MOST: u32 = 3;
const MUTED: Millis = Millis::secs(3600);

/// The reports of a tenant on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reports {
    /// A check that a report started is to come.
    open: bool,
    /// Checks without a finding, in a row.
    vain: u32,
    muted_until: Option<Timestamp>,
}

impl Core {
    /// A tenant reports a machine: a check follows.
    pub(crate) fn accused(&mut self, tenant: &Arc<str>, machine: ResourceId) {
        self.accusers.entry((machine, tenant.clone())).or_default().open = true;
    }

    /// Until when reports of a tenant on a machine start no check.
    pub(crate) fn muted_until(&self, tenant: &Arc<str>, machine: ResourceId) -> Option<Timestamp> {
        let until = self.accusers.get(&(machine, tenant.clone()))?.muted_until;
        until.filter(|until| *until > self.now)
    }

    /// The machines that reports of a tenant have in doubt.
    pub(crate) fn accused_by(&self, tenant: &Arc<str>) -> usize {
        self.accusers.iter().filter(|((_, by), reports)| by == tenant && reports.open).count()
    }

    /// A check of a machine ended, with or without a finding.
    pub(crate) fn judged(&mut self, machine: ResourceId, found: bool) {
        let now = self.now;
        let all = (machine, Arc::from(""))..;
        for (_, reports) in self.accusers.range_mut(all).take_while(|((of, _), _)| *of == machine) {
            if !core::mem::take(&mut reports.open) {
                continue;
            }
            reports.vain = if found { 0 } else { reports.vain + 1 };
            if reports.vain >= VAIN_MOST {
                (reports.vain, reports.muted_until) = (0, Some(now.after(MUTED)));
            }
        }
    }

    /// A machine exists no more.
    pub(crate) fn forget_accusers(&mut self, machine: ResourceId) {
        self.accusers.retain(|(of, _), _| *of != machine);
    }
}
