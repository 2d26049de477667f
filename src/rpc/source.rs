//! Pages that a watch reads from the core, small enough that no read holds the engine up.

use crate::engine::{Filter, SubmitError, WatchHub};
use crate::pb;
use crate::rpc::context::Context;
use std::future::Future;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use wharfinger_core::{Caller, Lease, LeaseId, Reading, Revision, View};

/// Leases that one read returns.
const MAX_FOUND: usize = 500;
/// Leases that one read looks at: most of them may be filtered out.
const MAX_SEEN: usize = 5000;

/// Where a read goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// The current state, by id, from after this one.
    State(Option<LeaseId>),
    /// Changes by revision, after this one.
    Changes(Revision),
}

/// Some leases.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) leases: Vec<Arc<Lease>>,
    /// Named by the filter, and not there.
    pub(crate) missing: Option<LeaseId>,
    /// Where to go on; `None`: this was all.
    pub(crate) next: Option<Cursor>,
    /// The last revision of the page: it has all changes up to here, and none after.
    pub(crate) revision: Revision,
    /// The oldest revision from which changes can be read.
    pub(crate) floor: Revision,
}

/// The sources of a watch.
pub(crate) trait Source: Clone + Send + Sync + 'static {
    /// Tells what changes.
    fn hub(&self) -> &WatchHub;
    /// Reads what is. Of the state, ended leases only if `ended` or named by id.
    fn page(
        &self,
        from: Cursor,
        filter: Arc<Filter>,
        ended: bool,
    ) -> impl Future<Output = Result<Page, SubmitError>> + Send;
    /// Waits until what is read next is what is committed now.
    fn refresh(&self) -> impl Future<Output = Result<(), SubmitError>> + Send;
    /// Waits for a revision that is not there yet, as long as it may only be on its way.
    fn reach(&self, wanted: Revision) -> impl Future<Output = Result<(), SubmitError>> + Send;
    /// The time of the state that is sent; an error if it is too old.
    fn as_of(&self) -> Result<SystemTime, SubmitError>;
    /// The core's time and its distance from the wall clock.
    fn reading(&self) -> Reading;
    /// The message of a lease that this caller names: with credentials if the lease is its own.
    fn tell(&self, lease: &Lease, caller: &Caller) -> impl Future<Output = Result<pb::Lease, SubmitError>> + Send;
}

/// How long a read waits for what a server that follows has not heard of yet.
pub(crate) const REACH: Duration = Duration::from_secs(3);

impl Source for Context {
    fn hub(&self) -> &WatchHub {
        Context::hub(self)
    }

    async fn refresh(&self) -> Result<(), SubmitError> {
        Context::refresh(self).await
    }

    async fn reach(&self, wanted: Revision) -> Result<(), SubmitError> {
        Context::reach(self, wanted).await
    }

    fn as_of(&self) -> Result<SystemTime, SubmitError> {
        self.leadership().fresh()?;
        let age = self.leadership().age().unwrap_or_default();
        Ok(crate::clock::wall().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    async fn page(&self, from: Cursor, filter: Arc<Filter>, ended: bool) -> Result<Page, SubmitError> {
        let scope = filter.scope.clone();
        let read = self.read(&scope, move |view, _now| match from {
            Cursor::State(after) if !filter.leases.is_empty() => named(view, after, &filter),
            Cursor::State(after) => {
                let wanted = |lease: &Lease| (ended || !lease.ended()) && filter.matches(lease);
                let next = |id| Cursor::State(Some(id));
                match filter.session {
                    // Its table has no lease that ended.
                    Some(session) if !ended => page(view, view.leases_of_session(session, after), wanted, next),
                    Some(_) | None => page(view, view.leases(after), wanted, next),
                }
            }
            Cursor::Changes(after) => {
                page(view, view.leases_changed_after(after), |lease| filter.matches(lease), Cursor::Changes)
            }
        });
        read.await
    }

    fn reading(&self) -> Reading {
        Context::reading(self)
    }

    async fn tell(&self, lease: &Lease, caller: &Caller) -> Result<pb::Lease, SubmitError> {
        Context::tell(self, lease, caller).await
    }
}

/// Leases by id, ended or not: who names one wants to know what became of it.
fn named(view: View<'_>, after: Option<LeaseId>, filter: &Filter) -> Page {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut page = Page { revision: view.revision(), floor: view.floor(), ..Page::default() };
    for id in filter.leases.range((from, Bound::Unbounded)) {
        if page.leases.len() == MAX_FOUND {
            page.next = page.leases.last().map(|lease| Cursor::State(Some(lease.id)));
            break;
        }
        match view.lease(*id) {
            Some(lease) if filter.matches(lease) => page.leases.push(lease.clone()),
            Some(_) => {}
            None => page.missing = page.missing.or(Some(*id)),
        }
    }
    page
}

fn page<'a, K>(
    view: View<'_>,
    leases: impl Iterator<Item = (K, Option<&'a Arc<Lease>>)>,
    wanted: impl Fn(&Lease) -> bool,
    cursor: impl Fn(K) -> Cursor,
) -> Page {
    let (leases, last) = scan(leases, wanted, MAX_FOUND);
    Page { leases, missing: None, next: last.map(cursor), revision: view.revision(), floor: view.floor() }
}

/// Those that are in view and wanted, at most `room`, and the key of the last one seen if there may be more after it.
pub(crate) fn scan<'a, K, T: 'a>(
    items: impl Iterator<Item = (K, Option<&'a Arc<T>>)>,
    wanted: impl Fn(&T) -> bool,
    room: usize,
) -> (Vec<Arc<T>>, Option<K>) {
    let mut found = Vec::new();
    for (seen, (key, item)) in items.enumerate() {
        found.extend(item.filter(|item| wanted(item)).cloned());
        if found.len() >= room.min(MAX_FOUND) || seen + 1 == MAX_SEEN {
            return (found, Some(key));
        }
    }
    (found, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_stops_when_it_has_found_or_seen_enough() {
        let numbers: Vec<_> = (0..20_000).map(Arc::new).collect();
        let all = |from: usize| numbers[from..].iter().map(|number| (**number, Some(number)));
        let run = |from: usize, wanted: fn(&i32) -> bool| scan(all(from), wanted, 1000);

        let (found, last) = run(0, |_| true);
        assert_eq!((found.len(), last), (MAX_FOUND, Some(499)));
        let (found, last) = run(0, |n| *n == 4999);
        assert_eq!((found.len(), last), (1, Some(4999)));
        let (found, last) = run(15_001, |n| *n == 19_999);
        assert_eq!((found.len(), last), (1, None));
        // A lease out of view costs as much as one that is not wanted.
        let hidden = numbers.iter().map(|number| (**number, Some(number).filter(|number| ***number == 4)));
        let (found, last) = scan(hidden, |_: &i32| true, 1000);
        assert_eq!((found.len(), last), (1, Some(4999)));
    }
}
