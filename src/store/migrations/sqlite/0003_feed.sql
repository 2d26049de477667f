-- What was forgotten, for those who follow the changes: a row for each commit that forgot something, for some minutes.

CREATE TABLE forgotten (
    revision  INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    leases    TEXT    NOT NULL, -- ["lse_…"]
    resources TEXT    NOT NULL  -- ["res_…"]
) STRICT;
CREATE INDEX forgotten_at ON forgotten (at, revision);

-- What was forgotten up to here is not known any more.
ALTER TABLE meta ADD COLUMN feed_floor INTEGER NOT NULL DEFAULT 0;
UPDATE meta SET feed_floor = revision;

PRAGMA user_version = 3;
