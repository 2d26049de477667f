//! What many rows have in common is kept once.

use std::sync::Arc;
use wharfinger_core::{Selector, Texts};

/// Shares what many rows have in common (pool names, principals, parameters), so that a million leases stay small.
/// A small table where a newcomer displaces the older entry: constant memory, no matter what the rows hold.
pub(in crate::store) struct Shared {
    texts: Vec<Option<Arc<str>>>,
    maps: Vec<Option<(Arc<str>, Arc<Texts>)>>,
    selectors: Vec<Option<Arc<Selector>>>,
    empty: Arc<Texts>,
}

impl Shared {
    const SIZE: usize = 1024;

    pub(in crate::store) fn new() -> Self {
        Shared {
            texts: vec![None; Self::SIZE],
            maps: vec![None; Self::SIZE],
            selectors: vec![None; Self::SIZE],
            empty: Arc::new(Texts::new()),
        }
    }

    fn place(text: &str) -> usize {
        // FNV-1a over the last bytes: names that differ mostly differ at the end.
        let tail = &text.as_bytes()[text.len().saturating_sub(32)..];
        let hash =
            tail.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        (hash >> 32) as usize % Self::SIZE
    }

    pub(super) fn text(&mut self, text: &str) -> Arc<str> {
        let slot = &mut self.texts[Self::place(text)];
        match slot {
            Some(known) if **known == *text => known.clone(),
            _ => slot.insert(Arc::from(text)).clone(),
        }
    }

    pub(super) fn map(&mut self, text: Option<&str>) -> Result<Arc<Texts>, String> {
        let Some(text) = text else { return Ok(self.empty.clone()) };
        let slot = &mut self.maps[Self::place(text)];
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
        let slot = &mut self.selectors[Self::place(pool.unwrap_or_default())];
        match slot {
            Some(known) if known.pool.as_deref() == pool && known.labels == *labels => known.clone(),
            _ => slot.insert(Arc::new(Selector { pool: pool.map(Arc::from), labels: (*labels).clone() })).clone(),
        }
    }
}
