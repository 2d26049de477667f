-- The servers on this schema: each writes its own row every few seconds.
CREATE TABLE servers (
    address       text COLLATE "C" NOT NULL PRIMARY KEY,
    version       text   NOT NULL,
    configuration text   NOT NULL, -- the digest of its configuration file
    refused_since bigint,          -- since then a later text of that file is refused, in ms
    leads_since   bigint,          -- in ms; NULL: it follows
    epoch         bigint NOT NULL, -- 0: it follows
    revision      bigint NOT NULL, -- that of its data
    age_ms        bigint,          -- the age of its data; NULL: it has read nothing yet
    reported      timestamptz NOT NULL
);
