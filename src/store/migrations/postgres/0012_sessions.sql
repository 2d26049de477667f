-- The sessions of agents. Heartbeats change no row; a session that was closed or lost has none.
CREATE TABLE sessions (
    id         text COLLATE "C" NOT NULL PRIMARY KEY,
    revision   bigint NOT NULL,
    tenant     text,            -- NULL: default
    principal  text   NOT NULL,
    holder     text   NOT NULL,
    ttl_ms     bigint NOT NULL,
    grace_ms   bigint NOT NULL,
    opened_at  bigint NOT NULL,
    stream     bigint NOT NULL, -- the number of its streams so far
    doubt      bigint           -- since then its latest stream is over
);
CREATE INDEX sessions_by_revision ON sessions (revision);

ALTER TABLE leases ADD COLUMN session text;        -- the session that keeps it, or kept it last
ALTER TABLE leases ADD COLUMN holder_doubt bigint; -- since then the stream of that session is over
ALTER TABLE forgotten ADD COLUMN sessions text[] NOT NULL DEFAULT '{}';
