-- Blame by evidence: what the uses of a resource say of it, and the base rate of its pool.
ALTER TABLE resources ADD COLUMN evidence TEXT; -- {"recent": uses, "halvings": …, "run": {…}, "confirmed": {…}}
ALTER TABLE pools ADD COLUMN record TEXT; -- {"ever": {"good": …, "bad": …, "confirmed": …}, "recent": uses, "halvings": …}

PRAGMA user_version = 7;
