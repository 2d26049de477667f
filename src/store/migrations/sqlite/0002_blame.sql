-- Work and its failures, holds, notices of risk; and what the adapter found apart from what the inventory says.

ALTER TABLE leases ADD COLUMN work TEXT;        -- what work it is, in the holder's words

ALTER TABLE resources ADD COLUMN found    TEXT; -- {"key": "value"}: labels that the adapter found
ALTER TABLE resources ADD COLUMN at_risk  TEXT; -- it may be taken away, says this notice
ALTER TABLE resources ADD COLUMN kept     TEXT; -- {"by": …, "reason": …, "until": …}: kept when its last lease ends
ALTER TABLE resources ADD COLUMN failures TEXT; -- [{"work": …, "lease": …, "at": …, "cleared": …}] in a row, oldest first

-- Until now both kinds of labels were one. Taken for found, none is lost before the resource is made anew.
UPDATE resources SET found = labels;

PRAGMA user_version = 2;
