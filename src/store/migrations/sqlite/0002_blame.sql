-- Work and its failures, holds, notices of risk; and what the adapter found apart from what the inventory says.

ALTER TABLE leases ADD COLUMN work TEXT;        -- what work it is, in the holder's words

ALTER TABLE resources ADD COLUMN found    TEXT; -- {"key": "value"}: labels that the adapter found
ALTER TABLE resources ADD COLUMN at_risk  TEXT; -- {"source": …, "detail": …}: it may be taken away, says this notice
ALTER TABLE resources ADD COLUMN kept     TEXT; -- {"by": …, "reason": …, "until": …}: kept when its last lease ends
ALTER TABLE resources ADD COLUMN failures TEXT; -- [{"work": …, "lease": …, "at": …, "cleared": …}] in a row, oldest first
ALTER TABLE resources ADD COLUMN announced TEXT; -- {"source": time}: who announced its end, for when

-- Until now both kinds of labels were one. Taken for found, none is lost before the resource is made anew.
UPDATE resources SET found = labels;

-- For the story of a resource or a pool: without them each of its entries is behind a thousand of leases on it. Leases'
-- entries are in neither, so that they cost no more to write.
CREATE INDEX events_resource_itself ON events (resource) WHERE resource IS NOT NULL AND lease IS NULL;
CREATE INDEX events_pool_itself ON events (pool) WHERE pool IS NOT NULL AND resource IS NULL AND lease IS NULL;

PRAGMA user_version = 2;
