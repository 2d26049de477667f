//! A machine: an entry of an inventory, which outlives the resources that stand for it one after the other.

use crate::{Cordon, Losses, Revision, Timestamp};
use alloc::sync::Arc;
use core::fmt;

/// The name of a machine. It is shown as `pool/item`, as `linux/builder-3`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MachineKey {
    /// The pool.
    pub pool: Arc<str>,
    /// The inventory entry.
    pub item: Arc<str>,
}

impl MachineKey {
    /// Reads `pool/item`; neither part has a slash.
    pub fn parse(text: &str) -> Option<Self> {
        let (pool, item) = text.split_once('/')?;
        let whole = !pool.is_empty() && !item.is_empty() && !item.contains('/');
        whole.then(|| Self { pool: Arc::from(pool), item: Arc::from(item) })
    }
}

impl fmt::Display for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.item)
    }
}

/// The stored part of a machine: the orders and the note of operators, and how often its resources were lost. It survives the resources that
/// stand for the machine, reloads, restarts and failovers. An order holds until an operator withdraws it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Machine {
    /// Its name.
    pub key: MachineKey,
    /// When it last changed.
    pub revision: Revision,
    /// No new leases.
    pub cordoned: Option<Order>,
    /// No new leases, and no resource once its last lease has ended.
    pub drained: Option<Order>,
    /// No new leases, and it stays as it is once its last lease has ended.
    pub held: Option<Order>,
    /// Its latest losses, one soon after the other.
    pub losses: Option<Losses>,
    /// The note of an operator.
    pub note: Option<Note>,
}

/// A note of an operator on a machine, or on a resource that stands for none. It changes no state, and stays until an operator
/// replaces or removes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Note {
    /// The principal of the operator.
    pub by: Arc<str>,
    /// The note, as free text.
    pub text: Arc<str>,
    /// When it was written.
    pub at: Timestamp,
}

/// An operator's order on a machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Order {
    /// The principal of the operator.
    pub by: Arc<str>,
    /// The reason, as free text.
    pub reason: Arc<str>,
    /// When it was given.
    pub at: Timestamp,
    /// When it ends by itself; `None`: an operator withdraws it.
    pub until: Option<Timestamp>,
}

impl Order {
    /// The same as the cordon of a resource.
    pub(crate) fn cordon(&self) -> Cordon {
        Cordon { by: self.by.clone(), reason: self.reason.clone() }
    }
}

impl Machine {
    /// A machine on which there is no order, and which was never lost.
    pub fn new(key: MachineKey) -> Self {
        Self { key, revision: Revision(0), cordoned: None, drained: None, held: None, losses: None, note: None }
    }

    /// Whether an order keeps new leases away from it. No resource is made of it then.
    pub fn out(&self) -> bool {
        self.cordoned.is_some() || self.drained.is_some() || self.held.is_some()
    }

    /// Whether an operator has said anything of it that still holds.
    pub(crate) fn is_marked(&self) -> bool {
        self.out() || self.note.is_some()
    }

    /// Its orders, each with the participle that names it.
    pub fn orders(&self) -> impl Iterator<Item = (&'static str, &Order)> {
        let all = [("cordoned", &self.cordoned), ("drained", &self.drained), ("held", &self.held)];
        all.into_iter().filter_map(|(name, order)| order.as_ref().map(|order| (name, order)))
    }
}

/// The machine that a request names: `pool/item`, or the item alone where it is unique.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MachineName {
    /// The pool; `None`: the only pool that has such an item.
    pub pool: Option<Arc<str>>,
    /// The inventory entry.
    pub item: Arc<str>,
}

impl MachineName {
    /// Reads `pool/item` or `item`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        if text.contains('/') {
            return MachineKey::parse(text).map(Self::from);
        }
        Some(Self { pool: None, item: Arc::from(text) })
    }
}

impl From<MachineKey> for MachineName {
    fn from(key: MachineKey) -> Self {
        Self { pool: Some(key.pool), item: key.item }
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pool {
            Some(pool) => write!(f, "{pool}/{}", self.item),
            None => f.write_str(&self.item),
        }
    }
}

/// The verbs of operators on a machine. Where a resource stands for it, they apply to that too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MachineVerb {
    /// No new leases.
    Cordon,
    /// New leases again; a drain ends too.
    Uncordon,
    /// No new leases, and no resource after the last one, or after this time.
    Drain(Option<crate::Millis>),
    /// The drain ends.
    Undrain,
    /// Check it now.
    Check,
    /// It is mangled: check, repair or recycle.
    Taint,
    /// Keep it as it is; its leases are broken.
    Quarantine,
    /// Keep it as it is for this time, once its leases have ended; those go on.
    Hold(crate::Millis),
    /// Back from quarantine or a hold, by way of a check.
    Recover,
    /// Destroy its resource now and make another.
    Recycle,
    /// Forget its resource, whatever that is.
    ForceDestroy,
    /// The reason of the request is its note from now on. An empty one removes the note.
    Note,
}
