//! Pages of changes. A page never ends within a revision, because a reader that resumes from its end would miss the rest.

use super::Changes;
use wharfinger_core::Revision;

/// The result of [`trim`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trimmed {
    /// The rows are a page now.
    Page,
    /// The first `limit` rows and more belong to this revision, which must be returned whole.
    Whole(Revision),
}

/// Makes a page of at most `limit` rows from the oldest rows of each kind. `changes` has at least `limit + 1` rows of each kind, if
/// the store has as many, and the revision of the store.
pub(super) fn trim(changes: &mut Changes, limit: usize) -> Trimmed {
    let mut revisions: Vec<Revision> = (changes.leases.iter().map(|l| l.revision))
        .chain(changes.resources.iter().map(|r| r.revision))
        .chain(changes.pools.iter().map(|p| p.revision))
        .chain(changes.machines.iter().map(|m| m.revision))
        .chain(changes.sessions.iter().map(|s| s.revision))
        .chain(changes.forgotten.iter().map(|f| f.revision))
        .collect();
    revisions.sort_unstable();
    let Some(&first_left_out) = revisions.get(limit) else { return Trimmed::Page };
    if revisions.first() == Some(&first_left_out) {
        return Trimmed::Whole(first_left_out);
    }
    changes.leases.retain(|l| l.revision < first_left_out);
    changes.resources.retain(|r| r.revision < first_left_out);
    changes.pools.retain(|p| p.revision < first_left_out);
    changes.machines.retain(|m| m.revision < first_left_out);
    changes.sessions.retain(|s| s.revision < first_left_out);
    changes.forgotten.retain(|f| f.revision < first_left_out);
    changes.revision = Revision(first_left_out.0 - 1);
    changes.more = true;
    Trimmed::Page
}
