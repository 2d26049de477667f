//! The result of preparing a slot.

use alloc::collections::BTreeMap;

/// A slot that is ready for its holder, with texts of type `S`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Prepared<S> {
    /// Access for this holder alone (`path`, `commit`), in addition to the access of the resource. The broker stores it:
    /// it contains no secrets.
    pub access: BTreeMap<S, S>,
    /// The contents of the slot from now on, by the keys of lease parameters (`branch`, `commit`). A later lease that asks
    /// for some of it prefers this slot. Empty: the slot is as good as any other. It contains no secrets.
    pub near: BTreeMap<S, S>,
}
