//! Affinity: orders free resources by how much of a lease's `params` they satisfy already. The best one is a working copy
//! at the wanted commit, then one that served the same branch last. Affinity never delays a lease. It is not stored:
//! after a restart the first lease of each resource is placed without it.

use crate::{ResourceId, Texts};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Maximum number of resources that one parameter is compared with: hundreds may be at the same commit.
const LOOK: usize = 16;

/// Free resources by one thing that they are near to.
pub(crate) type NearIndex = BTreeMap<(Arc<str>, Arc<str>), BTreeSet<ResourceId>>;

/// The free resources of the index that satisfy some of the wanted parameters, the nearest first.
pub(crate) fn nearest(index: &NearIndex, wanted: &Texts) -> Vec<ResourceId> {
    let mut matches: BTreeMap<ResourceId, usize> = BTreeMap::new();
    if index.is_empty() {
        return Vec::new();
    }
    for (key, value) in wanted {
        for id in index.get(&(key.clone(), value.clone())).into_iter().flatten().take(LOOK) {
            *matches.entry(*id).or_default() += 1;
        }
    }
    let mut found: Vec<(ResourceId, usize)> = matches.into_iter().collect();
    found.sort_by_key(|(id, count)| (core::cmp::Reverse(*count), *id));
    found.into_iter().map(|(id, _)| id).collect()
}

pub(crate) fn put(index: &mut NearIndex, near: &Texts, id: ResourceId) {
    for (key, value) in near {
        index.entry((key.clone(), value.clone())).or_default().insert(id);
    }
}

pub(crate) fn take(index: &mut NearIndex, near: &Texts, id: ResourceId) {
    for (key, value) in near {
        let place = (key.clone(), value.clone());
        if let Some(ids) = index.get_mut(&place) {
            ids.remove(&id);
            if ids.is_empty() {
                index.remove(&place);
            }
        }
    }
}
