//! Wants: the resources that may serve the leases of a request. Requests with equal wants are one class of the queue.

use crate::{Labels, Selector};
use alloc::sync::Arc;
use core::fmt;

/// The resources that may serve one lease in the queue.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Want {
    /// The selector of the request.
    Selector(Arc<Selector>),
    /// Any of these pools: a working copy may lie on hosts of several.
    OneOf(Arc<[Arc<str>]>),
}

impl Want {
    /// The pools that it names; `None`: it goes by labels alone.
    pub(crate) fn pools(&self) -> Option<&[Arc<str>]> {
        match self {
            Want::Selector(selector) => selector.pool.as_ref().map(core::slice::from_ref),
            Want::OneOf(pools) => Some(pools),
        }
    }

    /// Whether something in this pool with these labels will do. A label of the resource wins over the pool's.
    pub(crate) fn matches(&self, pool: &str, pool_labels: &Labels, own: &Labels) -> bool {
        match self {
            Want::Selector(selector) => selector.matches(pool, pool_labels, own),
            Want::OneOf(pools) => pools.iter().any(|name| **name == *pool),
        }
    }
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Want::Selector(selector) => selector.fmt(f),
            Want::OneOf(pools) => {
                for (n, pool) in pools.iter().enumerate() {
                    write!(f, "{}{pool}", if n == 0 { "pool " } else { " or " })?;
                }
                Ok(())
            }
        }
    }
}

/// Requests that want the same wait in one class: if its first cannot be served, nor can the others.
pub(crate) type ClassKey = Arc<[Want]>;

/// The number of a class. Numbers of classes that are gone are given again; no decision depends on them.
pub(crate) type ClassId = u32;
