//! The statement of a commit: one batch in one statement, which is one transaction and one round trip.
//!
//! `advance` updates the row of `meta` if the revision, the epoch and the count of settled doubts are those that the sender knows. All
//! other parts do nothing without it. It waits for a commit under way and then reads the row again, so two commits on the same
//! revision cannot both pass. The commit notifies the followers of the schema.
//!
//! A statement has only the parts that its batch needs: the database sets each part of a plan up anew at each execution, which
//! costs more than a small commit itself.

use super::rows::type_of;
use crate::store::FORGOTTEN_FOR_MS;
use crate::store::row::{Column, EVENT, LEASE, MACHINE, POOL, RESOURCE, SESSION};
use sqlx::AssertSqlSafe;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

/// The tables of a batch, in the order of their parameters.
const TABLES: [&[Column]; 6] = [LEASE, RESOURCE, POOL, MACHINE, SESSION, EVENT];

/// The parts of a batch that are not empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Parts(usize);

/// Number of combinations of parts.
const COMBINATIONS: usize = 1 << (TABLES.len() + 1);

static TEXTS: [OnceLock<Arc<str>>; COMBINATIONS] = [const { OnceLock::new() }; COMBINATIONS];

impl Parts {
    /// All parts.
    #[cfg(test)]
    pub(super) const ALL: Parts = Parts(COMBINATIONS - 1);

    /// `tables`: those with rows, in the order of the parameters. `forgets`: rows or sessions are removed.
    pub(super) fn new(tables: [bool; 6], forgets: bool) -> Self {
        let bits = tables.into_iter().chain([forgets]).enumerate().map(|(at, is_there)| usize::from(is_there) << at);
        Parts(bits.sum())
    }

    /// Whether the table of this number has rows.
    pub(super) fn has(self, table: usize) -> bool {
        self.0 & (1 << table) != 0
    }

    /// Whether rows or sessions are removed.
    pub(super) fn forgets(self) -> bool {
        self.has(TABLES.len())
    }

    /// The statement: $1 revision, $2 floor, $3 time, $4 base, $5 epoch, $6 settled, $7 mark; then the columns of each table that has
    /// rows; then, if some are removed, the ids of forgotten leases, resources and sessions.
    pub(super) fn text(self) -> Arc<str> {
        TEXTS.get(self.0).map_or_else(|| self.make(), |text| text.get_or_init(|| self.make()).clone())
    }

    /// The statement, for sqlx.
    pub(super) fn statement(self) -> AssertSqlSafe<Arc<str>> {
        // Made from constants only.
        AssertSqlSafe(self.text())
    }

    fn make(self) -> Arc<str> {
        let mut next = 8;
        let old = format!("at < $3::bigint - {FORGOTTEN_FOR_MS}");
        let floor = if self.forgets() {
            format!(
                ", feed_floor = greatest(feed_floor, (SELECT revision FROM forgotten WHERE {old} ORDER BY at DESC, revision DESC \
                 LIMIT 1))"
            )
        } else {
            String::new()
        };
        let mut text = format!(
            "WITH advance AS (UPDATE meta SET revision = $1, floor = greatest(floor, $2), now_ms = greatest(now_ms, $3), \
             batch = $7{floor} WHERE revision = $4 AND epoch = $5 AND settled = $6 RETURNING revision)"
        );
        for (number, columns) in TABLES.iter().enumerate().filter(|(number, _)| self.has(*number)) {
            let rows = unnest(columns, &mut next);
            // Writing to a String cannot fail.
            let _ = write!(text, ", {}", put(number, &rows));
        }
        if self.forgets() {
            let (also, last) = (next + 1, next + 2);
            let _ = write!(
                text,
                ", forget_leases AS (DELETE FROM leases WHERE id = ANY (${next}::text[]) AND {PASSED}), \
                 forget_resources AS (DELETE FROM resources WHERE id = ANY (${also}::text[]) AND {PASSED}), \
                 end_sessions AS (DELETE FROM sessions WHERE id = ANY (${last}::text[]) AND {PASSED}), \
                 note_forgotten AS (INSERT INTO forgotten (revision, at, leases, resources, sessions) \
                 SELECT $1, $3, ${next}, ${also}, ${last} FROM advance), \
                 prune_forgotten AS (DELETE FROM forgotten WHERE {old} AND {PASSED})"
            );
        }
        text.push_str(" SELECT count(*), count(pg_notify(current_schema(), $1::bigint::text)::text) FROM advance");
        text.into()
    }
}

const PASSED: &str = "EXISTS (SELECT FROM advance)";

/// The part that puts rows into a table.
fn put(table: usize, rows: &str) -> String {
    let (name, columns, update) = match table {
        0 => ("leases", lease_columns!(), lease_update!()),
        1 => ("resources", resource_columns!(), resource_update!()),
        2 => ("pools", pool_columns!(), pool_update!()),
        3 => ("machines", machine_columns!(), machine_update!()),
        4 => ("sessions", session_columns!(), session_update!()),
        _ => return put_events(rows),
    };
    format!("put_{name} AS (INSERT INTO {name} ({columns}) SELECT * FROM {rows} WHERE {PASSED}{update})")
}

/// A batch that only forgets has the revision of the batch before it, which may have entries.
fn put_events(rows: &str) -> String {
    format!(
        "put_events AS (INSERT INTO events ({columns}) SELECT new.revision, new.ordinal + CASE WHEN new.revision <= $4 \
         THEN (SELECT coalesce(max(old.ordinal) + 1, 0) FROM events AS old WHERE old.revision = new.revision) ELSE 0 END, \
         new.at, new.kind, new.actor, new.subject, new.pool, new.resource, new.lease, new.detail, new.caller FROM {rows} \
         AS new ({columns}) WHERE {PASSED})",
        columns = event_columns!()
    )
}

/// `unnest($8::text[], $9::bigint[], …)`.
fn unnest(columns: &[Column], next: &mut usize) -> String {
    let mut text = String::from("unnest(");
    for (at, column) in columns.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}${next}::{}[]", type_of(column.sql));
        *next += 1;
    }
    text.push(')');
    text
}

/// The statements of all combinations, so that a test can prepare each of them.
#[cfg(test)]
pub(super) fn all() -> Vec<String> {
    (0..COMBINATIONS).map(|bits| Parts(bits).text().to_string()).collect()
}
