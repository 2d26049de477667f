-- Times are milliseconds since the Unix epoch, lengths of time milliseconds, ids text, nested parts JSON text (cast it:
-- labels::json ->> 'os'). Every row carries the revision at which it last changed. Numbers of 64 bits without sign are
-- stored as those with sign and the same bits. A NUL in a text, which PostgreSQL can't store, is U+0010 '0', and U+0010
-- itself is U+0010 '1'.

-- One row: where this database stands. Each commit updates it, so there is room for its versions in its page.
CREATE TABLE meta (
    one       bigint PRIMARY KEY CHECK (one = 1),
    revision  bigint NOT NULL, -- the last committed change
    floor     bigint NOT NULL, -- the oldest revision from which a watch can resume
    now_ms    bigint NOT NULL, -- the time of the last committed step
    salt      bigint NOT NULL, -- tells the ids of this deployment from another's
    epoch     bigint NOT NULL, -- which leader may write
    settled   bigint NOT NULL, -- counts the writes that settled a commit in doubt; one that was sent before no longer counts
    batch     bigint NOT NULL  -- the mark of the last commit, by which its sender knows it again
) WITH (fillfactor = 10);

CREATE TABLE leases (
    id           text COLLATE "C" NOT NULL PRIMARY KEY,
    revision     bigint  NOT NULL,
    state        text    NOT NULL, -- QUEUED PREPARING ACTIVE RELEASED EXPIRED BROKEN CANCELLED FAILED
    pool         text,             -- what was asked for, not what was got: that is the resource's
    labels       text,             -- {"key": "value"} that must match
    holder       text    NOT NULL,
    principal    text    NOT NULL,
    request_id   text    NOT NULL,
    fingerprint  bigint  NOT NULL, -- 64 bits without sign
    priority     bigint  NOT NULL,
    ttl_ms       bigint  NOT NULL,
    wait_until   bigint,
    expected_ms  bigint,
    params       text,             -- {"key": "value"}
    tags         text,             -- {"key": "value"}
    group_id     text,
    group_index  bigint  NOT NULL,
    independent  bigint  NOT NULL,
    child        text,             -- the resource that holds it
    successor    bigint  NOT NULL, -- when it breaks, queue another
    replaces     text,             -- whose successor it is
    created_at   bigint  NOT NULL,
    seq          bigint  NOT NULL,
    expires_at   bigint,
    attempts     bigint  NOT NULL,
    delays       bigint  NOT NULL,
    not_before   bigint,           -- in line, but not to be served before
    served_by    text,             -- the pool of its resource
    avoid        text,             -- ["res_…"]
    trouble      text,
    ends_at      bigint,
    doubt        text,
    resource     text,             -- the slot that it keeps others out of
    slot         bigint,
    token        bigint,
    op           bigint,           -- prepare or clean-up under way
    since        bigint,           -- active since
    access       text,             -- {"key": "value"}
    ended_at     bigint,
    ended        text,             -- how: outcome and note, or cause and replacement, or reason, code and detail
    work         text              -- what work it is, in the holder's words
);
CREATE INDEX leases_revision ON leases (revision);

CREATE TABLE resources (
    id            text COLLATE "C" NOT NULL PRIMARY KEY,
    revision      bigint  NOT NULL,
    state         text    NOT NULL, -- PROVISIONING READY SUSPECT REPAIRING QUARANTINED DRAINING DESTROYING ORPHANED GONE
    pool          text    NOT NULL,
    item          text,
    labels        text,
    slots         bigint  NOT NULL,
    parent_lease  text,
    parent_host   text,
    cordoned_by   text,
    cordon_reason text,
    created_at    bigint  NOT NULL,
    ready_at      bigint,
    idle_since    bigint,
    uses          bigint  NOT NULL,
    handle        text,
    access        text,
    ends_at       bigint,
    trouble       text,
    op            bigint,
    attempt       bigint,
    retry_at      bigint,
    since         bigint,
    cause         text,             -- [{"resource": …, "reason": …, "detail": …, "source": …, "at": …}], nearest first
    detail        text,             -- what only this state has
    found         text,             -- {"key": "value"}: labels that the adapter found
    at_risk       text,             -- {"source": …, "detail": …}: it may be taken away, says this notice
    kept          text,             -- {"by": …, "reason": …, "until": …}: kept when its last lease ends
    failures      text,             -- [{"work": …, "lease": …, "at": …, "cleared": …}] in a row, oldest first
    announced     text              -- {"source": time}: who announced its end, for when
);
CREATE INDEX resources_revision ON resources (revision);

-- What operators said of pools at run time; the rest is in the configuration file.
CREATE TABLE pools (
    name          text COLLATE "C" NOT NULL PRIMARY KEY,
    revision      bigint  NOT NULL,
    cordoned_by   text,
    cordon_reason text
);

-- The audit trail: only ever appended to.
CREATE TABLE events (
    revision bigint  NOT NULL,
    ordinal  bigint  NOT NULL, -- counts the entries of one revision
    at       bigint  NOT NULL,
    kind     text    NOT NULL,
    actor    text    NOT NULL,
    subject  text    NOT NULL,
    pool     text,
    resource text,
    lease    text,
    detail   text    NOT NULL,
    PRIMARY KEY (revision, ordinal)
);
-- With the order in which they are asked for, so that nothing is sorted.
CREATE INDEX events_pool ON events (pool, revision, ordinal) WHERE pool IS NOT NULL;
CREATE INDEX events_resource ON events (resource, revision, ordinal) WHERE resource IS NOT NULL;
CREATE INDEX events_lease ON events (lease, revision, ordinal) WHERE lease IS NOT NULL;
-- For the story of a resource or a pool: without them each of its entries is behind a thousand of leases on it.
CREATE INDEX events_resource_itself ON events (resource, revision, ordinal) WHERE resource IS NOT NULL AND lease IS NULL;
CREATE INDEX events_pool_itself ON events (pool, revision, ordinal)
    WHERE pool IS NOT NULL AND resource IS NULL AND lease IS NULL;
