//! The slots of one resource: which are held, and by whom.

use crate::LeaseId;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Held slots, and free ones below the highest number ever used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    used: BTreeMap<u32, LeaseId>,
    returned: Vec<u32>,
    next: u32,
}

impl Slots {
    /// Takes a free slot. Whether there is one within the resource's number is the caller's to know.
    pub(crate) fn take(&mut self, lease: LeaseId) -> u32 {
        let slot = self.returned.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.used.insert(slot, lease);
        slot
    }

    /// Takes this very slot, as it is stored.
    pub(crate) fn restore(&mut self, slot: u32, lease: LeaseId) {
        while self.next <= slot {
            self.returned.push(self.next);
            self.next += 1;
        }
        self.returned.retain(|free| *free != slot);
        self.used.insert(slot, lease);
    }

    /// Gives a slot back, if this lease holds it.
    pub(crate) fn free(&mut self, slot: u32, lease: LeaseId) -> bool {
        if self.used.get(&slot) != Some(&lease) {
            return false;
        }
        self.used.remove(&slot);
        self.returned.push(slot);
        true
    }

    /// How many are held.
    pub(crate) fn len(&self) -> u32 {
        self.used.len() as u32
    }

    /// Held slots and their leases.
    pub(crate) fn used(&self) -> impl Iterator<Item = (u32, LeaseId)> {
        self.used.iter().map(|(slot, lease)| (*slot, *lease))
    }
}
