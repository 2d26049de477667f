-- What was forgotten, for the servers that follow the changes: a row for each commit that forgot something, for some minutes.
CREATE TABLE forgotten (
    revision  bigint PRIMARY KEY,
    at        bigint NOT NULL,
    leases    text[] NOT NULL,
    resources text[] NOT NULL
);
CREATE INDEX forgotten_at ON forgotten (at, revision);

-- What was forgotten up to here is not known any more.
ALTER TABLE meta ADD COLUMN feed_floor bigint NOT NULL DEFAULT 0;
UPDATE meta SET feed_floor = revision;

-- What only servers on this database know, anew with each lead: they prove with it that they passed a call on.
ALTER TABLE leader ADD COLUMN pass text NOT NULL DEFAULT '';
