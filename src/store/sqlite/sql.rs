//! Every statement, as static text.

use crate::store::event_query::EventStatements;
use crate::store::row::{EVENT, LEASE, RESOURCE};

/// A statement that writes rows of one kind. It has places for a power of two of rows, so that there are few texts. An unused place
/// has NULL for its key.
pub(super) struct Put {
    into: &'static str,
    row: &'static str,
    then: &'static str,
    pub(super) columns: usize,
}

pub(super) const LEASE_ROWS: Put = Put {
    into: concat!("leases (", lease_columns!(), ")"),
    row: lease_places!(),
    then: lease_update!(),
    columns: LEASE.len(),
};
pub(super) const RESOURCE_ROWS: Put = Put {
    into: concat!("resources (", resource_columns!(), ")"),
    row: resource_places!(),
    then: resource_update!(),
    columns: RESOURCE.len(),
};
pub(super) const EVENT_ROWS: Put =
    Put { into: concat!("events (", event_columns!(), ")"), row: event_places!(), then: "", columns: EVENT.len() };

impl Put {
    /// The text with places for this number of rows.
    pub(super) fn text(&self, room: usize) -> String {
        let mut text = format!("INSERT INTO {} SELECT * FROM (VALUES ", self.into);
        for at in 0..room {
            text.push_str(if at == 0 { "" } else { ", " });
            text.push_str(self.row);
        }
        text.push_str(") WHERE column1 IS NOT NULL");
        text.push_str(self.then);
        text
    }
}

/// Writes an entry of a revision of an earlier batch, behind the entries of that revision.
pub(super) const PUT_LATE_EVENT: &str = concat!(
    "INSERT INTO events (",
    event_columns!(),
    ") SELECT ?1, (SELECT coalesce(max(ordinal), -1) + 1 FROM events WHERE revision = ?1) + ?2, \
     ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11"
);

pub(super) const PUT_POOL: &str =
    concat!("INSERT INTO pools (", pool_columns!(), ") VALUES ", pool_places!(), pool_update!());

pub(super) const PUT_MACHINE: &str =
    concat!("INSERT INTO machines (", machine_columns!(), ") VALUES ", machine_places!(), machine_update!());

pub(super) const PUT_SESSION: &str =
    concat!("INSERT INTO sessions (", session_columns!(), ") VALUES ", session_places!(), session_update!());

pub(super) const FORGET_SESSIONS: &str = "DELETE FROM sessions WHERE id IN (SELECT value FROM json_each(?1))";
pub(super) const FORGET_LEASES: &str = "DELETE FROM leases WHERE id IN (SELECT value FROM json_each(?1))";
pub(super) const FORGET_RESOURCES: &str = "DELETE FROM resources WHERE id IN (SELECT value FROM json_each(?1))";

/// Rows that were forgotten before ?1 are no longer known.
pub(super) const RAISE_FEED_FLOOR: &str = "UPDATE meta SET feed_floor = max(feed_floor, coalesce((SELECT revision \
     FROM forgotten WHERE at < ?1 ORDER BY at DESC, revision DESC LIMIT 1), 0))";
pub(super) const PRUNE_FORGOTTEN: &str = "DELETE FROM forgotten WHERE at < ?1";
/// ?1 revision, ?2 time, ?3 leases, ?4 resources, ?5 sessions.
pub(super) const NOTE_FORGOTTEN: &str =
    "INSERT INTO forgotten (revision, at, leases, resources, sessions) VALUES (?1, ?2, ?3, ?4, ?5)";

pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";
pub(super) const COMMIT: &str = "COMMIT";
pub(super) const ROLLBACK: &str = "ROLLBACK";

/// Opens the transaction and advances the revision, in one hop. Returns no row if the revision or the epoch differs. Floor and time
/// never go back.
pub(super) const ADVANCE: &str = "BEGIN IMMEDIATE; \
     UPDATE meta SET revision = ?, floor = max(floor, ?), now_ms = max(now_ms, ?) \
     WHERE revision = ? AND epoch = ? RETURNING revision";

pub(super) const STANDING: &str = "SELECT revision, epoch FROM meta";
pub(super) const ACQUIRE: &str = "UPDATE meta SET epoch = epoch + 1 RETURNING epoch";
pub(super) const READERS: &str = "SELECT name, revision, ordinal, at, notes FROM readers ORDER BY name";
/// A place never goes back: that of a deposed leader may be older.
pub(super) const PUT_READER: &str = "INSERT INTO readers (name, revision, ordinal, at, notes) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, ordinal = excluded.ordinal, at = excluded.at, \
     notes = excluded.notes WHERE (excluded.revision, excluded.ordinal) >= (readers.revision, readers.ordinal)";
pub(super) const FORGET_READER: &str = "DELETE FROM readers WHERE name = $1";

pub(super) const SET_SALT: &str = "UPDATE meta SET salt = ?";
pub(super) const SETTLE: &str = "UPDATE meta SET settled = settled + 1";
/// Removes whole revisions, so that each remaining revision is complete. Times grow with revisions.
pub(super) const TRIM_EVENTS: &str = "DELETE FROM events WHERE revision <= (SELECT max(revision) FROM \
     (SELECT revision, at FROM events ORDER BY revision, ordinal LIMIT ?1) WHERE at < ?2)";

pub(super) const CREATE: &str =
    "INSERT INTO meta (one, revision, floor, now_ms, salt, epoch, settled) VALUES (1, 0, 0, 0, ?, 0, 0)";

pub(super) const META: &str = "SELECT revision, floor, now_ms, salt, feed_floor FROM meta";
pub(super) const COUNT: &str = "SELECT (SELECT count(*) FROM leases), (SELECT count(*) FROM resources)";

/// A thousand rows after ?1, each as a JSON array, all in one text. The first column is the last of their row ids. `json_rows`
/// explains why.
macro_rules! page_of {
    ($columns:expr, $table:literal) => {
        concat!(
            "SELECT max(row), group_concat(json_array(",
            $columns,
            "), '') FROM (SELECT rowid AS row, * FROM ",
            $table,
            " WHERE rowid > ?1 ORDER BY rowid LIMIT 1000)"
        )
    };
}
pub(super) const LEASES: &str = page_of!(lease_columns!(), "leases");
pub(super) const RESOURCES: &str = page_of!(resource_columns!(), "resources");
pub(super) const POOLS: &str = page_of!(pool_columns!(), "pools");
pub(super) const MACHINES: &str = page_of!(machine_columns!(), "machines");
pub(super) const SESSIONS: &str = page_of!(session_columns!(), "sessions");

/// The rows of revisions ?1 (exclusive) to ?2, oldest first, at most ?3, each as a JSON array.
macro_rules! changed {
    ($columns:expr, $table:literal) => {
        concat!(
            "SELECT json_array(",
            $columns,
            ") FROM ",
            $table,
            " WHERE revision > ?1 AND revision <= ?2 ORDER BY revision LIMIT ?3"
        )
    };
}
pub(super) const CHANGED_LEASES: &str = changed!(lease_columns!(), "leases");
pub(super) const CHANGED_RESOURCES: &str = changed!(resource_columns!(), "resources");
pub(super) const CHANGED_POOLS: &str = changed!(pool_columns!(), "pools");
pub(super) const CHANGED_MACHINES: &str = changed!(machine_columns!(), "machines");
pub(super) const CHANGED_SESSIONS: &str = changed!(session_columns!(), "sessions");
pub(super) const CHANGED_FORGOTTEN: &str = "SELECT revision, leases, resources, sessions FROM forgotten WHERE revision > ?1 AND revision <= ?2 ORDER BY revision LIMIT ?3";

/// Entries of the audit trail, each as a JSON array.
pub(super) const EVENTS: EventStatements = event_statements!(concat!("json_array(", event_columns!(), ")"));

pub(super) const APPLICATION_ID: &str = "PRAGMA application_id";
pub(super) const USER_VERSION: &str = "PRAGMA user_version";
pub(super) const TABLES: &str = "SELECT count(*) FROM sqlite_schema";
pub(super) const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// The first schema version without credentials.
pub(super) const WITHOUT_CREDENTIALS: i64 = 4;
/// Zeroes deleted and overwritten values in the pages that change from now on.
pub(super) const ZERO_DELETED: &str = "PRAGMA secure_delete = ON";
/// The same statements as in the migration to [`WITHOUT_CREDENTIALS`].
pub(super) const ERASE_CREDENTIALS: [&str; 2] = [
    "UPDATE leases SET access = json_remove(access, '$.private_key') WHERE access LIKE '%\"private_key\"%'",
    "UPDATE resources SET access = json_remove(access, '$.private_key') WHERE access LIKE '%\"private_key\"%'",
];
/// Writes the file anew, without the remains of earlier rows in free space.
pub(super) const REWRITE: &str = "VACUUM";
/// Moves the log into the database and truncates it. The first column is 1 if a reader prevented it.
pub(super) const EMPTY_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// The application_id of the files of this program: "WHFG".
pub(super) const OURS: u32 = 0x5748_4647;

/// One script for each version, forward only. Each sets user_version to its number.
pub(super) const MIGRATIONS: [&str; 13] = [
    include_str!("../migrations/sqlite/0001_init.sql"),
    include_str!("../migrations/sqlite/0002_blame.sql"),
    include_str!("../migrations/sqlite/0003_feed.sql"),
    include_str!("../migrations/sqlite/0004_credentials.sql"),
    include_str!("../migrations/sqlite/0005_tenant.sql"),
    include_str!("../migrations/sqlite/0006_machines.sql"),
    include_str!("../migrations/sqlite/0007_evidence.sql"),
    include_str!("../migrations/sqlite/0008_shares.sql"),
    include_str!("../migrations/sqlite/0009_audit.sql"),
    include_str!("../migrations/sqlite/0010_readers.sql"),
    include_str!("../migrations/sqlite/0011_losses.sql"),
    include_str!("../migrations/sqlite/0012_sessions.sql"),
    include_str!("../migrations/sqlite/0013_notes.sql"),
];

/// All statements but the migrations, so that a test can prepare each of them.
#[cfg(test)]
pub(super) fn all() -> Vec<&'static str> {
    let events = EVENTS.texts().into_iter();
    events
        .chain([
            PUT_LATE_EVENT,
            PUT_POOL,
            PUT_MACHINE,
            PUT_SESSION,
            FORGET_SESSIONS,
            FORGET_LEASES,
            FORGET_RESOURCES,
            RAISE_FEED_FLOOR,
            PRUNE_FORGOTTEN,
            NOTE_FORGOTTEN,
            CHANGED_FORGOTTEN,
            BEGIN,
            COMMIT,
            ROLLBACK,
            ADVANCE,
            STANDING,
            ACQUIRE,
            SETTLE,
            SET_SALT,
            TRIM_EVENTS,
            READERS,
            PUT_READER,
            FORGET_READER,
            CREATE,
            META,
            COUNT,
            LEASES,
            RESOURCES,
            POOLS,
            MACHINES,
            CHANGED_LEASES,
            CHANGED_RESOURCES,
            CHANGED_POOLS,
            CHANGED_MACHINES,
            SESSIONS,
            CHANGED_SESSIONS,
            APPLICATION_ID,
            USER_VERSION,
            TABLES,
            ERASE_CREDENTIALS[0],
            ERASE_CREDENTIALS[1],
            EMPTY_LOG,
            CHECKPOINT,
        ])
        .collect()
}
