-- One row: who leads. Apart from `meta`, so that renewing it never waits for a commit. Its epoch is that of `meta`: both are
-- raised in one statement, and only the one of `meta` lets a commit pass.
CREATE TABLE leader (
    one      bigint PRIMARY KEY CHECK (one = 1),
    epoch    bigint NOT NULL,
    holder   text   NOT NULL,        -- which server; empty if none does, or one that does not share
    address  text   NOT NULL,        -- where clients find it
    until    timestamptz NOT NULL    -- by this server's clock
) WITH (fillfactor = 10);
INSERT INTO leader (one, epoch, holder, address, until) VALUES (1, coalesce((SELECT epoch FROM meta), 0), '', '', '-infinity');
