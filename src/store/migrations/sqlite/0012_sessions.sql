-- The sessions of agents. Heartbeats change no row; a session that was closed or lost has none.
CREATE TABLE sessions (
    id         TEXT    NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    tenant     TEXT,             -- NULL: default
    principal  TEXT    NOT NULL,
    holder     TEXT    NOT NULL,
    ttl_ms     INTEGER NOT NULL,
    grace_ms   INTEGER NOT NULL,
    opened_at  INTEGER NOT NULL,
    stream     INTEGER NOT NULL, -- the number of its streams so far
    doubt      INTEGER           -- since then its latest stream is over
) STRICT;
CREATE INDEX sessions_by_revision ON sessions (revision);

ALTER TABLE leases ADD COLUMN session TEXT;         -- the session that keeps it, or kept it last
ALTER TABLE leases ADD COLUMN holder_doubt INTEGER; -- since then the stream of that session is over
ALTER TABLE forgotten ADD COLUMN sessions TEXT NOT NULL DEFAULT '[]'; -- ["ses_…"]

PRAGMA user_version = 12;
