//! Interning: texts, maps and selectors that many rows share are in memory once.

use std::sync::Arc;
use wharfinger_core::{Pools, Selector, Texts};

/// Interns what many rows share (pool names, principals, parameters): a million leases stay small. A new entry displaces an
/// older one in the same place, so the table has a constant size.
pub(in crate::store) struct Interner {
    texts: Vec<Option<Arc<str>>>,
    maps: Vec<Option<(Arc<str>, Arc<Texts>)>>,
    selectors: Vec<Option<Arc<Selector>>>,
    empty: Arc<Texts>,
}

impl Interner {
    const SIZE: usize = 1024;

    pub(in crate::store) fn new() -> Self {
        Interner { texts: Vec::new(), maps: Vec::new(), selectors: Vec::new(), empty: Arc::new(Texts::new()) }
    }

    /// The place of a text in a table, which is made when it is first used.
    fn entry<'t, T: Clone>(table: &'t mut Vec<Option<T>>, text: &str) -> &'t mut Option<T> {
        if table.is_empty() {
            table.resize(Self::SIZE, None);
        }
        &mut table[Self::place(text)]
    }

    fn place(text: &str) -> usize {
        // FNV-1a over the last bytes: most names that differ, differ at the end.
        let tail = &text.as_bytes()[text.len().saturating_sub(32)..];
        let hash =
            tail.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        (hash >> 32) as usize % Self::SIZE
    }

    pub(super) fn text(&mut self, text: &str) -> Arc<str> {
        let slot = Self::entry(&mut self.texts, text);
        match slot {
            Some(known) if **known == *text => known.clone(),
            _ => slot.insert(Arc::from(text)).clone(),
        }
    }

    pub(super) fn map(&mut self, text: Option<&str>) -> Result<Arc<Texts>, String> {
        let Some(text) = text else { return Ok(self.empty.clone()) };
        let slot = Self::entry(&mut self.maps, text);
        match slot {
            Some((known, map)) if **known == *text => Ok(map.clone()),
            _ => {
                let map = Arc::new(serde_json::from_str::<Texts>(text).map_err(|e| e.to_string())?);
                *slot = Some((Arc::from(text), map.clone()));
                Ok(map)
            }
        }
    }

    pub(super) fn selector(&mut self, pool: Option<&str>, labels: Arc<Texts>) -> Arc<Selector> {
        let slot = Self::entry(&mut self.selectors, pool.unwrap_or_default());
        let (pool, among) = match pool.and_then(|pool| pool.strip_prefix(',')) {
            Some(patterns) => (None, Pools::matching(patterns.split(','))),
            None => (pool, Pools::All),
        };
        match slot {
            Some(known) if known.pool.as_deref() == pool && known.among == among && known.labels == *labels => {
                known.clone()
            }
            _ => {
                let labels = (*labels).clone();
                slot.insert(Arc::new(Selector { pool: pool.map(Arc::from), labels, among })).clone()
            }
        }
    }
}
