-- The orders of operators on machines, which outlive the resources that stand for them. The orders that resources carry until
-- now are taken over when a server next leads.
CREATE TABLE machines (
    name            text COLLATE "C" NOT NULL PRIMARY KEY,
    revision        bigint NOT NULL,
    pool            text NOT NULL,
    item            text NOT NULL,
    cordoned_by     text,
    cordon_reason   text,
    cordoned_at     bigint,
    cordoned_until  bigint,
    drained_by      text,
    drain_reason    text,
    drained_at      bigint,
    drained_until   bigint,
    held_by         text,
    hold_reason     text,
    held_at         bigint,
    held_until      bigint
);
CREATE INDEX machines_by_revision ON machines (revision);
