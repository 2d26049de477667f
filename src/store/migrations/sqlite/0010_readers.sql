-- The place of each reader of the audit trail that carries its entries elsewhere: hooks and traces.
CREATE TABLE readers (
    name      TEXT NOT NULL PRIMARY KEY,
    revision  INTEGER NOT NULL, -- of the last entry that was carried
    ordinal   INTEGER NOT NULL,
    at        INTEGER NOT NULL, -- its time
    notes     TEXT NOT NULL     -- what the reader keeps for itself, as JSON
) STRICT;

PRAGMA user_version = 10;
