//! Labels, and what a request selects by.

use crate::Pools;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

/// The labels of a pool or resource.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The resources that fit a request: a pool by name, labels that must all match, or both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector {
    /// Only this pool.
    pub pool: Option<Arc<str>>,
    /// Each of these labels must have this value.
    pub labels: Labels,
    /// Only pools of this set, from which the caller may lease.
    pub among: Pools,
}

impl Selector {
    /// A selector for one pool.
    pub fn pool(name: &str) -> Self {
        Self { pool: Some(Arc::from(name)), ..Self::default() }
    }

    /// Whether something in this pool with these labels will do. A label of the resource wins over the pool's.
    pub fn matches(&self, pool: &str, pool_labels: &Labels, own: &Labels) -> bool {
        if self.pool.as_deref().is_some_and(|wanted| wanted != pool) || !self.among.has(pool) {
            return false;
        }
        self.labels.iter().all(|(key, value)| own.get(key).or_else(|| pool_labels.get(key)) == Some(value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        if let Some(pool) = &self.pool {
            text.push_str("pool ");
            text.push_str(pool);
        }
        for (key, value) in &self.labels {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        if text.is_empty() { f.write_str("anything") } else { f.write_str(&text) }
    }
}
