-- Times are milliseconds since the Unix epoch, lengths of time milliseconds, ids text, nested parts JSON text.
-- Every row carries the revision at which it last changed.

-- One row: where this database stands.
CREATE TABLE meta (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    revision  INTEGER NOT NULL, -- the last committed change
    floor     INTEGER NOT NULL, -- the oldest revision from which a watch can resume
    now_ms    INTEGER NOT NULL, -- the time of the last committed step
    salt      INTEGER NOT NULL, -- tells the ids of this deployment from another's
    epoch     INTEGER NOT NULL, -- which leader may write
    settled   INTEGER NOT NULL  -- counts the writes that settled a commit in doubt
) STRICT;

CREATE TABLE leases (
    id           TEXT    NOT NULL PRIMARY KEY,
    revision     INTEGER NOT NULL,
    state        TEXT    NOT NULL, -- QUEUED PREPARING ACTIVE RELEASED EXPIRED BROKEN CANCELLED FAILED
    pool         TEXT,             -- what was asked for, not what was got: that is the resource's
    labels       TEXT,             -- {"key": "value"} that must match
    holder       TEXT    NOT NULL,
    principal    TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    fingerprint  INTEGER NOT NULL, -- 64 bits without sign
    priority     INTEGER NOT NULL,
    ttl_ms       INTEGER NOT NULL,
    wait_until   INTEGER,
    expected_ms  INTEGER,
    params       TEXT,             -- {"key": "value"}
    tags         TEXT,             -- {"key": "value"}
    group_id     TEXT,
    group_index  INTEGER NOT NULL,
    independent  INTEGER NOT NULL,
    child        TEXT,             -- the resource that holds it
    successor    INTEGER NOT NULL, -- when it breaks, queue another
    replaces     TEXT,             -- whose successor it is
    created_at   INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    expires_at   INTEGER,
    attempts     INTEGER NOT NULL,
    delays       INTEGER NOT NULL,
    not_before   INTEGER,          -- in line, but not to be served before
    served_by    TEXT,             -- the pool of its resource
    avoid        TEXT,             -- ["res_…"]
    trouble      TEXT,
    ends_at      INTEGER,
    doubt        TEXT,
    resource     TEXT,             -- the slot that it keeps others out of
    slot         INTEGER,
    token        INTEGER,
    op           INTEGER,          -- prepare or clean-up under way
    since        INTEGER,          -- active since
    access       TEXT,             -- {"key": "value"}
    ended_at     INTEGER,
    ended        TEXT              -- how: outcome and note, or cause and replacement, or reason, code and detail
) STRICT;
CREATE INDEX leases_revision ON leases (revision);

CREATE TABLE resources (
    id            TEXT    NOT NULL PRIMARY KEY,
    revision      INTEGER NOT NULL,
    state         TEXT    NOT NULL, -- PROVISIONING READY SUSPECT REPAIRING QUARANTINED DRAINING DESTROYING ORPHANED GONE
    pool          TEXT    NOT NULL,
    item          TEXT,
    labels        TEXT,
    slots         INTEGER NOT NULL,
    parent_lease  TEXT,
    parent_host   TEXT,
    cordoned_by   TEXT,
    cordon_reason TEXT,
    created_at    INTEGER NOT NULL,
    ready_at      INTEGER,
    idle_since    INTEGER,
    uses          INTEGER NOT NULL,
    handle        TEXT,
    access        TEXT,
    ends_at       INTEGER,
    trouble       TEXT,
    op            INTEGER,
    attempt       INTEGER,
    retry_at      INTEGER,
    since         INTEGER,
    cause         TEXT,             -- [{"resource": …, "reason": …, "detail": …, "source": …, "at": …}], nearest first
    detail        TEXT              -- what only this state has
) STRICT;
CREATE INDEX resources_revision ON resources (revision);

-- What operators said of pools at run time; the rest is in the configuration file.
CREATE TABLE pools (
    name          TEXT    NOT NULL PRIMARY KEY,
    revision      INTEGER NOT NULL,
    cordoned_by   TEXT,
    cordon_reason TEXT
) STRICT;

-- The audit trail: only ever appended to.
CREATE TABLE events (
    revision INTEGER NOT NULL,
    ordinal  INTEGER NOT NULL, -- counts the entries of one revision
    at       INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    actor    TEXT    NOT NULL,
    subject  TEXT    NOT NULL,
    pool     TEXT,
    resource TEXT,
    lease    TEXT,
    detail   TEXT    NOT NULL,
    PRIMARY KEY (revision, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_pool ON events (pool) WHERE pool IS NOT NULL;
CREATE INDEX events_resource ON events (resource) WHERE resource IS NOT NULL;
CREATE INDEX events_lease ON events (lease) WHERE lease IS NOT NULL;

PRAGMA application_id = 1464354375; -- "WHFG"
PRAGMA user_version = 1;
