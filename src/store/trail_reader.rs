//! A reader of the audit trail that carries its entries elsewhere, in order, and goes on at its place after a restart or a failover.

use super::{EventQuery, Store, StoreError, StoredEvent};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wharfinger_core::Revision;

/// Maximum number of entries of one page, unless a single revision has more.
const PAGE: usize = 512;

/// The place of a reader: all entries up to this one are carried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailPlace {
    /// The name of the reader.
    pub name: String,
    /// The revision of the last entry that is carried.
    pub revision: u64,
    /// Its position among the entries of that revision.
    pub ordinal: u64,
    /// Its time, in milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// The reader's own notes, as JSON.
    pub notes: String,
}

impl TrailPlace {
    /// Whether this entry is carried already.
    fn covers(&self, event: &StoredEvent) -> bool {
        (event.revision, event.ordinal) <= (self.revision, self.ordinal)
    }
}

/// Reads the trail from its place on.
pub struct TrailReader {
    store: Arc<dyn Store>,
    place: TrailPlace,
    /// The place as stored.
    stored: TrailPlace,
}

impl TrailReader {
    /// A reader at its stored place. One that is new begins behind the newest entry, and stores that place.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(store: Arc<dyn Store>, name: &str) -> Result<Self, StoreError> {
        if let Some(place) = store.trail_places().await?.into_iter().find(|place| place.name == name) {
            return Ok(Self { store, stored: place.clone(), place });
        }
        let newest = EventQuery { newest_first: true, limit: 1, ..EventQuery::default() };
        let newest = store.events(&newest).await?.into_iter().next().unwrap_or_default();
        let place = TrailPlace {
            name: name.to_owned(),
            revision: newest.revision,
            ordinal: newest.ordinal,
            at_unix_ms: newest.at_unix_ms,
            notes: String::new(),
        };
        store.set_trail_place(&place).await?;
        Ok(Self { store, stored: place.clone(), place })
    }

    /// The place.
    pub fn place(&self) -> &TrailPlace {
        &self.place
    }

    /// The next entries, oldest first. Empty: there are none now.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn next(&self) -> Result<Vec<StoredEvent>, StoreError> {
        self.after(&self.place).await
    }

    /// The entries behind another place.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn after(&self, place: &TrailPlace) -> Result<Vec<StoredEvent>, StoreError> {
        // A later commit may add entries to the revision of the place.
        let after = Revision(place.revision.saturating_sub(1));
        let mut limit = PAGE;
        loop {
            let mut page = self.store.events(&EventQuery { after, limit, ..EventQuery::default() }).await?;
            let full = page.len() >= limit;
            page.retain(|event| !place.covers(event));
            if !page.is_empty() || !full {
                return Ok(page);
            }
            if limit >= EventQuery::MAX {
                let what = format!("revision {} has more than {limit} entries in the audit trail", place.revision);
                return Err(StoreError::Corrupt(what));
            }
            limit = (limit * 4).min(EventQuery::MAX);
        }
    }

    /// The oldest entry of the trail.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn oldest(&self) -> Result<Option<StoredEvent>, StoreError> {
        Ok(self.store.events(&EventQuery { limit: 1, ..EventQuery::default() }).await?.into_iter().next())
    }

    /// Entries of another question.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn find(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.store.events(query).await
    }

    /// Everything up to this entry is carried.
    pub fn pass(&mut self, event: &StoredEvent) {
        self.place.revision = event.revision;
        self.place.ordinal = event.ordinal;
        self.place.at_unix_ms = event.at_unix_ms;
    }

    /// Everything up to this place is carried.
    pub fn pass_to(&mut self, revision: u64, ordinal: u64, at_unix_ms: i64) {
        (self.place.revision, self.place.ordinal, self.place.at_unix_ms) = (revision, ordinal, at_unix_ms);
    }

    /// Changes the notes.
    pub fn note(&mut self, notes: String) {
        self.place.notes = notes;
    }

    /// Stores the place, if it has changed.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn save(&mut self) -> Result<(), StoreError> {
        if self.place != self.stored {
            self.store.set_trail_place(&self.place).await?;
            self.stored.clone_from(&self.place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::store::samples::event;
    use wharfinger_core::{Batch, Subject};

    async fn add(store: &MemoryStore, epoch: crate::store::Epoch, base: u64, revision: u64, count: usize) {
        let events = vec![event(revision, Subject::Pool("p".into())); count];
        let batch = Batch { base: Revision(base), revision: Revision(revision), events, ..Batch::default() };
        store.commit(&batch, epoch).await.unwrap();
    }

    #[tokio::test]
    async fn each_entry_comes_once_over_restarts_and_crowded_revisions() {
        let store = Arc::new(MemoryStore::new());
        let epoch = store.acquire().await.unwrap();
        add(&store, epoch, 0, 1, 3).await;
        let mut reader = TrailReader::open(store.clone(), "h").await.unwrap();
        assert_eq!(reader.next().await.unwrap(), [], "a new reader begins now");
        add(&store, epoch, 1, 2, 1500).await;
        // Entries of a batch without a revision of its own stand behind those of the latest.
        add(&store, epoch, 2, 2, 2).await;
        add(&store, epoch, 2, 3, 1).await;
        let mut seen = Vec::new();
        loop {
            let page = reader.next().await.unwrap();
            let Some(last) = page.last() else { break };
            reader.pass(last);
            reader.save().await.unwrap();
            seen.extend(page.iter().map(|event| (event.revision, event.ordinal)));
            reader = TrailReader::open(store.clone(), "h").await.unwrap();
        }
        let expected: Vec<(u64, u64)> = (0..1502).map(|ordinal| (2, ordinal)).chain([(3, 0)]).collect();
        assert_eq!(seen, expected);
    }
}
