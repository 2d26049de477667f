//! Queries of the audit trail, the same for both databases.

use wharfinger_core::{LeaseId, ResourceId, Revision};

/// Selects entries of the audit trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Only entries of this pool and what is in it.
    pub pool: Option<String>,
    /// Only entries of this resource and of leases on it.
    pub resource: Option<ResourceId>,
    /// Only entries of this lease.
    pub lease: Option<LeaseId>,
    /// With a resource or pool: only its own entries, without those of what is in or on it.
    pub itself: bool,
    /// Only entries after this revision.
    pub after: Revision,
    /// Only entries up to this revision, inclusive.
    pub to: Option<Revision>,
    /// The newest entries first, instead of the oldest.
    pub newest_first: bool,
    /// Maximum number of entries (1 to 10,000).
    pub limit: usize,
}

impl EventQuery {
    /// Maximum number of entries of one answer.
    pub const MAX: usize = 10_000;

    pub(super) fn capped(&self) -> usize {
        self.limit.clamp(1, Self::MAX)
    }

    /// The statement for this query: the one with the narrowest filter that is set. The statement checks the other filters on
    /// the rows that it finds.
    pub(super) fn statement(&self, statements: &EventStatements) -> &'static str {
        let filter = match self {
            EventQuery { lease: Some(_), .. } => &statements.lease,
            EventQuery { resource: Some(_), itself: true, .. } => &statements.resource_itself,
            EventQuery { pool: Some(_), itself: true, .. } => &statements.pool_itself,
            EventQuery { resource: Some(_), .. } => &statements.resource,
            EventQuery { pool: Some(_), .. } => &statements.pool,
            EventQuery { .. } => &statements.all,
        };
        if self.newest_first { filter.newest_first } else { filter.oldest_first }
    }
}

/// A statement in both orders.
#[derive(Clone, Copy)]
pub(super) struct BothOrders {
    pub(super) oldest_first: &'static str,
    pub(super) newest_first: &'static str,
}

/// The statements of a database, by their narrowest filter. A pool and a resource have an index for their own entries:
/// a busy one has a thousand entries of leases for each of its own.
pub(super) struct EventStatements {
    pub(super) lease: BothOrders,
    pub(super) resource: BothOrders,
    pub(super) resource_itself: BothOrders,
    pub(super) pool: BothOrders,
    pub(super) pool_itself: BothOrders,
    pub(super) all: BothOrders,
}

impl EventStatements {
    /// All texts, for tests.
    #[cfg(test)]
    pub(super) fn texts(&self) -> [&'static str; 12] {
        let EventStatements { lease, resource, resource_itself, pool, pool_itself, all } = *self;
        let [a, b, c, d, e, f] = [lease, resource, resource_itself, pool, pool_itself, all]
            .map(|both| [both.oldest_first, both.newest_first]);
        [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1], e[0], e[1], f[0], f[1]]
    }
}

/// A statement in one order. Parameters: $1 after, $2 pool, $3 resource, $4 lease, $5 limit, $6 up to. Both databases number
/// parameters like that. The type of a parameter that may be NULL stands in a CAST.
macro_rules! events_in_order {
    ($select:expr, $filter:literal, $order:literal) => {
        concat!(
            "SELECT ",
            $select,
            " FROM events WHERE revision > $1 AND revision <= $6 AND ",
            $filter,
            " AND (CAST($2 AS text) IS NULL OR pool = $2) AND (CAST($3 AS text) IS NULL OR resource = $3) \
             AND (CAST($4 AS text) IS NULL OR lease = $4) ORDER BY revision ",
            $order,
            ", ordinal ",
            $order,
            " LIMIT $5"
        )
    };
}

macro_rules! events_in_both_orders {
    ($select:expr, $filter:literal) => {
        crate::store::event_query::BothOrders {
            oldest_first: events_in_order!($select, $filter, "ASC"),
            newest_first: events_in_order!($select, $filter, "DESC"),
        }
    };
}

/// The statements whose rows have this form.
macro_rules! event_statements {
    ($select:expr) => {
        crate::store::event_query::EventStatements {
            lease: events_in_both_orders!($select, "lease = $4"),
            resource: events_in_both_orders!($select, "resource = $3"),
            resource_itself: events_in_both_orders!($select, "resource = $3 AND lease IS NULL"),
            pool: events_in_both_orders!($select, "pool = $2"),
            pool_itself: events_in_both_orders!($select, "pool = $2 AND resource IS NULL AND lease IS NULL"),
            all: events_in_both_orders!($select, "true"),
        }
    };
}
