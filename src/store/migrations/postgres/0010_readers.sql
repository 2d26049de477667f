-- The place of each reader of the audit trail that carries its entries elsewhere: hooks and traces.
CREATE TABLE readers (
    name      text NOT NULL PRIMARY KEY,
    revision  bigint NOT NULL, -- of the last entry that was carried
    ordinal   bigint NOT NULL,
    at        bigint NOT NULL, -- its time
    notes     text NOT NULL    -- what the reader keeps for itself, as JSON
);
