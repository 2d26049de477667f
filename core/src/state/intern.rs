//! Interning: texts that many leases share (principal, selector, parameters) are stored once.

use crate::{Selector, Texts};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;

/// Maximum number of texts of each kind that are remembered.
const MOST: usize = 256;

/// The last that were seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intern {
    names: BTreeSet<Arc<str>>,
    texts: BTreeSet<Arc<Texts>>,
    selectors: BTreeSet<Arc<Selector>>,
}

impl Intern {
    pub(crate) fn name(&mut self, name: &Arc<str>) -> Arc<str> {
        shared(&mut self.names, name)
    }

    pub(crate) fn texts(&mut self, texts: &Arc<Texts>) -> Arc<Texts> {
        shared(&mut self.texts, texts)
    }

    pub(crate) fn selector(&mut self, selector: &Arc<Selector>) -> Arc<Selector> {
        shared(&mut self.selectors, selector)
    }
}

/// The one that is known already. When there are too many, all are forgotten: those that come again are soon known
/// again.
fn shared<T: Ord + ?Sized>(known: &mut BTreeSet<Arc<T>>, new: &Arc<T>) -> Arc<T> {
    if let Some(known) = known.get(new) {
        return known.clone();
    }
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(new.clone());
    new.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn equal_ones_are_one_and_few_are_remembered() {
        let mut intern = Intern::default();
        let first = intern.name(&Arc::from("local"));
        assert!(Arc::ptr_eq(&first, &intern.name(&Arc::from("local"))));
        for n in 0..10 * MOST {
            intern.name(&Arc::from(format!("user-{n}")));
            assert!(intern.names.len() <= MOST);
        }
        assert_eq!(intern.name(&Arc::from("local")), first, "equal, though no longer the same");
    }
}
