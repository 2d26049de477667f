-- The orders of operators on machines, which outlive the resources that stand for them. The orders that resources carry until
-- now are taken over when a server next leads.
CREATE TABLE machines (
    name            TEXT NOT NULL PRIMARY KEY,
    revision        INTEGER NOT NULL,
    pool            TEXT NOT NULL,
    item            TEXT NOT NULL,
    cordoned_by     TEXT,
    cordon_reason   TEXT,
    cordoned_at     INTEGER,
    cordoned_until  INTEGER,
    drained_by      TEXT,
    drain_reason    TEXT,
    drained_at      INTEGER,
    drained_until   INTEGER,
    held_by         TEXT,
    hold_reason     TEXT,
    held_at         INTEGER,
    held_until      INTEGER
) STRICT;
CREATE INDEX machines_by_revision ON machines (revision);

PRAGMA user_version = 6;
