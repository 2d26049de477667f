//! Every statement.

use crate::store::event_query::EventStatements;

/// Sets a session up, in one statement: $1 schema; limits in milliseconds of a statement ($2), a lock ($3) and an idle transaction
/// ($4); $5 whether it reads whole tables. An acknowledged commit is on the disk, whatever the defaults of the server or user are. A
/// commit waits for the row of another commit and then reads it again, as READ COMMITTED does.
///
/// A plan is made once and stays. A plan that was made while a table was empty would scan the table at each commit, until the server
/// has counted its rows again. Compiling (JIT) costs more than any small statement.
pub(super) const SESSION: &str = "SELECT current_setting('server_version_num')::bigint, \
     set_config('search_path', $1, false), set_config('statement_timeout', $2, false), \
     set_config('lock_timeout', $3, false), set_config('idle_in_transaction_session_timeout', $4, false), \
     set_config('default_transaction_isolation', 'read committed', false), \
     set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN 'on' \
     ELSE current_setting('synchronous_commit') END, false), \
     set_config('plan_cache_mode', 'force_generic_plan', false), \
     set_config('enable_seqscan', CASE WHEN $5 THEN current_setting('enable_seqscan') ELSE 'off' END, false), \
     set_config('jit', CASE WHEN $5 THEN current_setting('jit') ELSE 'off' END, false), \
     set_config('tcp_keepalives_idle', '20', false), \
     set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false)";

pub(super) const STANDING: &str = "SELECT revision, epoch, settled, batch FROM meta";

/// Takes the store over, even from a leader. Commits that were sent before no longer count.
pub(super) const ACQUIRE: &str = "WITH taken AS (UPDATE leader SET epoch = epoch + 1, holder = '', address = '', \
     pass = '', until = '-infinity' RETURNING epoch) \
     UPDATE meta SET epoch = taken.epoch, settled = settled + 1 FROM taken \
     RETURNING meta.revision, meta.epoch, meta.settled, meta.batch";

/// Takes the store over if no other server leads: $1 holder, $2 address, $3 time to live in milliseconds, $4 the epoch that
/// [`LEADER`] returned. Of two concurrent attempts the second one finds the row taken. A holder whose answer was lost takes its own
/// row again. An older attempt of the same holder that comes late finds another epoch.
pub(super) const TAKE: &str = "WITH taken AS (UPDATE leader SET epoch = epoch + 1, holder = $1, address = $2, \
     pass = gen_random_uuid()::text || gen_random_uuid()::text, until = clock_timestamp() + $3 * interval '1 millisecond' WHERE until <= clock_timestamp() \
     OR (holder = $1 AND epoch = $4) RETURNING epoch, pass) \
     UPDATE meta SET epoch = taken.epoch, settled = settled + 1 FROM taken RETURNING meta.epoch, meta.settled, taken.pass";

/// Renews a lead: $1 epoch, $2 holder, $3 time to live in milliseconds. Returns the database's clock.
pub(super) const RENEW: &str = "UPDATE leader SET until = clock_timestamp() + $3 * interval '1 millisecond' \
     WHERE epoch = $1 AND holder = $2 RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

pub(super) const RESIGN: &str = "UPDATE leader SET holder = '', address = '', pass = '', until = '-infinity' \
     WHERE epoch = $1 AND holder = $2 RETURNING epoch";

/// Address of the leader, remaining time in milliseconds, forwarding key, holder, epoch; and the database's clock.
pub(super) const LEADER: &str = "SELECT address, CASE WHEN until <= clock_timestamp() THEN 0 ELSE \
     (extract(epoch FROM until - clock_timestamp()) * 1000)::bigint END, pass, holder, epoch, \
     (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM leader";

/// Ends a doubt: it waits for a commit under way. A commit that comes later no longer counts. Only for the leader with epoch $1.
pub(super) const SETTLE: &str =
    "UPDATE meta SET settled = settled + 1 WHERE epoch = $1 RETURNING revision, epoch, settled, batch";

/// Removes whole revisions, so that each remaining revision is complete. Times grow with revisions.
pub(super) const TRIM_EVENTS: &str = "WITH removed AS (DELETE FROM events WHERE revision <= (SELECT max(revision) FROM \
     (SELECT revision, at FROM events ORDER BY revision, ordinal LIMIT $1) AS oldest WHERE at < $2) RETURNING 1) \
     SELECT count(*) FROM removed";

pub(super) const READERS: &str = "SELECT name, revision, ordinal, at, notes FROM readers ORDER BY name";
/// A place never goes back: that of a deposed leader may be older.
pub(super) const PUT_READER: &str = "INSERT INTO readers (name, revision, ordinal, at, notes) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, ordinal = excluded.ordinal, at = excluded.at, \
     notes = excluded.notes WHERE (excluded.revision, excluded.ordinal) >= (readers.revision, readers.ordinal)";
pub(super) const FORGET_READER: &str = "DELETE FROM readers WHERE name = $1";

/// $1 address, $2 version, $3 digest, $4 refused since, $5 leads since, $6 epoch, $7 revision, $8 age, $9 the time for which reports are
/// kept, in milliseconds.
pub(super) const PUT_SERVER: &str = "WITH old AS (DELETE FROM servers WHERE address <> $1 AND \
     reported < clock_timestamp() - $9 * interval '1 millisecond') \
     INSERT INTO servers (address, version, configuration, refused_since, leads_since, epoch, revision, age_ms, reported) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp()) ON CONFLICT (address) DO UPDATE SET \
     version = excluded.version, configuration = excluded.configuration, refused_since = excluded.refused_since, \
     leads_since = excluded.leads_since, epoch = excluded.epoch, revision = excluded.revision, \
     age_ms = excluded.age_ms, reported = excluded.reported";
/// The columns of a report, and the milliseconds since.
pub(super) const SERVERS: &str = "SELECT address, version, configuration, refused_since, leads_since, epoch, revision, age_ms, \
     (extract(epoch FROM clock_timestamp() - reported) * 1000)::bigint FROM servers ORDER BY address";

pub(super) const SET_SALT: &str = "UPDATE meta SET salt = $1 RETURNING salt";

/// Begins a transaction whose reads are of one moment.
pub(super) const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(super) const BEGIN: &str = "BEGIN";
pub(super) const END: &str = "COMMIT";

pub(super) const META: &str = "SELECT revision, floor, now_ms, salt FROM meta";
/// As [`META`], with the revision after which forgotten rows are known.
pub(super) const FEED: &str = "SELECT revision, floor, now_ms, feed_floor FROM meta";

macro_rules! whole {
    ($columns:expr, $table:literal) => {
        concat!("SELECT ", $columns, " FROM ", $table)
    };
}
pub(super) const LEASES: &str = whole!(lease_columns!(), "leases");
pub(super) const RESOURCES: &str = whole!(resource_columns!(), "resources");
pub(super) const POOLS: &str = whole!(pool_columns!(), "pools");
pub(super) const MACHINES: &str = whole!(machine_columns!(), "machines");
pub(super) const SESSIONS: &str = whole!(session_columns!(), "sessions");

/// The rows of revisions $1 (exclusive) to $2, oldest first, at most $3.
macro_rules! changed {
    ($columns:expr, $table:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM ",
            $table,
            " WHERE revision > $1 AND revision <= $2 ORDER BY revision LIMIT $3"
        )
    };
}
pub(super) const CHANGED_LEASES: &str = changed!(lease_columns!(), "leases");
pub(super) const CHANGED_RESOURCES: &str = changed!(resource_columns!(), "resources");
pub(super) const CHANGED_POOLS: &str = changed!(pool_columns!(), "pools");
pub(super) const CHANGED_MACHINES: &str = changed!(machine_columns!(), "machines");
pub(super) const CHANGED_SESSIONS: &str = changed!(session_columns!(), "sessions");

pub(super) const CHANGED_FORGOTTEN: &str = "SELECT revision, leases, resources, sessions FROM forgotten WHERE revision > $1 AND revision <= $2 ORDER BY revision LIMIT $3";

/// Entries of the audit trail.
pub(super) const EVENTS: EventStatements = event_statements!(event_columns!());

/// Locks the schema $1 for a migration, until the transaction ends.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('wharfinger ' || $1, 0))";

/// The state of the schema $1: whether it exists, whether it belongs to this program, its number of tables, whether the server can
/// write, and whether an acknowledged commit survives a loss of power. It reads the catalogue, since functions like to_regclass
/// answer from a cache.
pub(super) const LOOK: &str = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1), \
     coalesce(bool_or(relname = 'wharfinger_schema'), false), count(*), \
     NOT pg_is_in_recovery(), current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on' \
     FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace WHERE nspname = $1 AND relkind IN ('r', 'p')";

pub(super) const VERSION: &str = "SELECT version FROM wharfinger_schema";
pub(super) const CREATE_VERSION: &str = "CREATE TABLE wharfinger_schema (version bigint NOT NULL)";
pub(super) const FIRST_VERSION: &str = "INSERT INTO wharfinger_schema (version) VALUES (0)";
pub(super) const SET_VERSION: &str = "UPDATE wharfinger_schema SET version = $1";
pub(super) const CREATE: &str = "INSERT INTO meta (one, revision, floor, now_ms, salt, epoch, settled, batch) \
     VALUES (1, 0, 0, 0, $1, 0, 0, 0)";

/// One script for each version, forward only.
pub(super) const MIGRATIONS: [&str; 14] = [
    include_str!("../migrations/postgres/0001_init.sql"),
    include_str!("../migrations/postgres/0002_leader.sql"),
    include_str!("../migrations/postgres/0003_feed.sql"),
    include_str!("../migrations/postgres/0004_credentials.sql"),
    include_str!("../migrations/postgres/0005_tenant.sql"),
    include_str!("../migrations/postgres/0006_machines.sql"),
    include_str!("../migrations/postgres/0007_evidence.sql"),
    include_str!("../migrations/postgres/0008_shares.sql"),
    include_str!("../migrations/postgres/0009_audit.sql"),
    include_str!("../migrations/postgres/0010_readers.sql"),
    include_str!("../migrations/postgres/0011_losses.sql"),
    include_str!("../migrations/postgres/0012_sessions.sql"),
    include_str!("../migrations/postgres/0013_notes.sql"),
    include_str!("../migrations/postgres/0014_servers.sql"),
];

/// The first schema version without credentials.
pub(super) const WITHOUT_CREDENTIALS: i64 = 4;
/// Runs outside of a transaction.
pub(super) const REWRITE: [&str; 2] = ["VACUUM (FULL) leases", "VACUUM (FULL) resources"];

/// All statements with parameters or rows, so that a test can prepare each of them.
#[cfg(test)]
pub(super) fn all() -> Vec<String> {
    let events = EVENTS.texts().into_iter();
    let others = [
        SESSION,
        STANDING,
        ACQUIRE,
        TAKE,
        RENEW,
        RESIGN,
        LEADER,
        SETTLE,
        SET_SALT,
        TRIM_EVENTS,
        READERS,
        PUT_READER,
        FORGET_READER,
        PUT_SERVER,
        SERVERS,
        META,
        FEED,
        CHANGED_FORGOTTEN,
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
        LOCK,
        LOOK,
        VERSION,
        FIRST_VERSION,
        SET_VERSION,
        CREATE,
    ];
    events.chain(others).map(str::to_owned).chain(super::commit_sql::all()).collect()
}
